//! What lies in the folders where plugins are looked for.

use crate::admit::{Admitted, Ask, Policy};
use crate::describe::Described;
use crate::find::Folders;
use crate::reading::open_to_all;
use crate::refusal::Refusal;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// A folder, and what became of looking into it.
#[derive(Debug)]
pub struct Scanned {
    /// The folder.
    pub folder: PathBuf,
    /// Whether it is there and anything in it can be used.
    pub state: State,
    /// Every `lib*.so` in it.
    pub files: Vec<Listed>,
}

/// Whether plugins of a folder can be used.
#[derive(Debug)]
pub enum State {
    /// They can.
    Searched,
    /// It is not there: most need not be.
    NotThere,
    /// None can, and why.
    Refused(Refusal),
}

/// A file in one of the folders.
#[derive(Debug)]
pub struct Listed {
    /// The file.
    pub path: PathBuf,
    /// What it is, or why it cannot be used.
    pub plugin: Result<Admitted, Refusal>,
    /// The file of the same plugin that is used instead.
    pub shadowed_by: Option<PathBuf>,
}

/// The folders, each once, in the order in which they are looked into, and after them those that are left out.
pub fn scan(folders: &Folders) -> Vec<Scanned> {
    let mut scanned: Vec<Scanned> = Vec::new();
    for folder in folders.iter() {
        // One may stand in WEIR_PLUGIN_PATH twice.
        if scanned.iter().all(|known| known.folder != folder) {
            scanned.push(of(folders, folder));
        }
    }
    scanned.extend(folders.left_out().map(|refusal| Scanned {
        folder: refusal.path.clone().unwrap_or_default(),
        state: State::Refused(refusal),
        files: Vec::new(),
    }));
    scanned
}

fn of(folders: &Folders, folder: &Path) -> Scanned {
    let (state, found) = match files(folder) {
        Ok(found) => {
            // As of a file in it.
            let state = match open_to_all(&folder.join("lib.so")) {
                None => State::Searched,
                Some(open) => State::Refused(
                    Refusal::new(
                        "E0508",
                        format!(
                            "nothing in it is used, as anybody may put a file there: {} is writable by all",
                            open.display()
                        ),
                        "take the right away (chmod o-w), and make sure that the files are still those you trust",
                    )
                    .of(folder),
                ),
            };
            (state, found)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => (State::NotThere, Vec::new()),
        Err(error) => {
            let what = format!("the folder cannot be listed: {error}");
            let refusal = Refusal::new("E0501", what, "check its permissions").of(folder);
            (State::Refused(refusal), Vec::new())
        }
    };
    Scanned {
        folder: folder.to_owned(),
        state,
        files: found.into_iter().map(|path| look(folders, path)).collect(),
    }
}

fn files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("lib") && name.ends_with(".so") && path.is_file() {
            files.push(path);
        }
    }
    files.sort_unstable();
    Ok(files)
}

fn look(folders: &Folders, path: PathBuf) -> Listed {
    let mut shadowed_by = None;
    let plugin = Described::read(&path).and_then(|described| {
        let ask = Ask {
            name: described.manifest().name.clone(),
            ..Ask::default()
        };
        let admitted = Admitted::new(described, &ask, Policy::Any)?;
        match folders.find(&ask.name) {
            Ok(found) if found.path == path => {}
            Ok(found) if found.shadowed.contains(&path) => shadowed_by = Some(found.path),
            _ => {
                return Err(Refusal::new(
                    "E0504",
                    format!(
                        "it is plugin `{}`, which its file's name does not say",
                        ask.name
                    ),
                    format!(
                        "call the file lib{}.so, or give its `path` in [plugin.{0}]",
                        ask.name
                    ),
                )
                .of(&path));
            }
        }
        Ok(admitted)
    });
    Listed {
        path,
        plugin,
        shadowed_by,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn of_every_folder_it_is_said_once_what_became_of_looking_into_it() {
        let root = tempfile::tempdir().unwrap();
        let [there, none, open, plain] =
            ["there", "none", "open", "plain"].map(|name| root.path().join(name));
        for folder in [&there, &open] {
            std::fs::create_dir(folder).unwrap();
            std::fs::write(folder.join("libprobe.so"), "no library").unwrap();
            std::fs::write(folder.join("readme"), "no library either").unwrap();
        }
        std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).unwrap();
        std::fs::write(&plain, "").unwrap();
        let named = [&there, &none, &open, &there, &plain].map(Clone::clone);
        let folders = Folders::only(named.into_iter().chain(["here".into()]));
        let said: Vec<String> = scan(&folders)
            .iter()
            .map(|scanned| {
                let folder = scanned.folder.file_name().unwrap().to_string_lossy();
                let state = match &scanned.state {
                    State::Searched => "searched",
                    State::NotThere => "not there",
                    State::Refused(refusal) => refusal.code,
                };
                format!("{folder} {state} {}", scanned.files.len())
            })
            .collect();
        let expected = [
            "there searched 1",
            "none not there 0",
            "open E0508 1",
            "plain E0501 0",
            "here W0515 0",
        ];
        assert_eq!(said, expected);
    }
}
