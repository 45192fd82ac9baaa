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
    /// They can, by their names; which there are is not known: the folder may be entered and not listed, and why.
    Unlisted(std::io::Error),
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
    let searched = folders.iter().map(|folder| of(folders, folder));
    let left_out = folders.left_out().map(|refusal| Scanned {
        folder: refusal.path.clone().unwrap_or_default(),
        state: State::Refused(refusal),
        files: Vec::new(),
    });
    searched.chain(left_out).collect()
}

fn of(folders: &Folders, folder: &Path) -> Scanned {
    let (state, found) = match files(folder) {
        Ok(found) => (open(folder).unwrap_or(State::Searched), found),
        Err(error) if error.kind() == ErrorKind::NotFound => (State::NotThere, Vec::new()),
        // A file in it is found by its name where it may be entered.
        Err(error) if folder.join(".").try_exists().is_ok() => {
            let state = open(folder).unwrap_or(State::Unlisted(error));
            (state, Vec::new())
        }
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

/// Of a folder where anybody may put a file.
fn open(folder: &Path) -> Option<State> {
    // As of a file in it.
    let open = open_to_all(&folder.join("lib.so"))?;
    let refusal = Refusal::new(
        "E0508",
        format!(
            "nothing in it is used, as anybody may put a file there: {} is writable by all",
            open.display()
        ),
        "take the right away (chmod o-w), and make sure that the files are still those you trust",
    );
    Some(State::Refused(refusal.of(folder)))
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
        let relative = ["here", "there", "here"].map(PathBuf::from);
        let folders = Folders::only(named.into_iter().chain(relative));
        let said: Vec<String> = scan(&folders)
            .iter()
            .map(|scanned| {
                let folder = scanned.folder.file_name().unwrap().to_string_lossy();
                let state = match &scanned.state {
                    State::Searched => "searched",
                    State::NotThere => "not there",
                    State::Unlisted(_) => "unlisted",
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
            "there W0515 0",
        ];
        assert_eq!(said, expected);
    }

    #[test]
    fn a_folder_that_may_be_entered_and_not_listed_is_not_told_as_unused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("libprobe.so");
        std::fs::write(&file, "no library").unwrap();
        let mode = |mode| {
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(folder.path(), mode).unwrap();
        };
        let folders = Folders::only([folder.path().to_owned()]);
        let state = || scan(&folders).remove(0).state;
        mode(0o311);
        if std::fs::read_dir(folder.path()).is_ok() {
            // Who may do everything has no such folder.
            return;
        }
        let found = folders.find("probe").unwrap().path;
        let listed = state();
        mode(0o333);
        let open = state();
        // So that it can be removed.
        mode(0o700);
        assert_eq!(found, file);
        assert!(matches!(listed, State::Unlisted(_)), "{listed:?}");
        assert!(
            matches!(&open, State::Refused(refusal) if refusal.code == "E0508"),
            "{open:?}"
        );
    }
}
