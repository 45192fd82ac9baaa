//! A name's file.

use crate::refusal::Refusal;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The environment variable with further folders, separated by colons; they are looked into first.
pub const PATH: &str = "WEIR_PLUGIN_PATH";

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The file.
    pub path: PathBuf,
    /// Files of the same name in later folders, which are not used (W0511).
    pub shadowed: Vec<PathBuf>,
}

/// Where plugins are looked for, in order: [`PATH`], beside the program, the user's data folder, the system's two.
#[derive(Clone, Debug, Default)]
pub struct Folders {
    searched: Vec<PathBuf>,
    /// A relative folder would be another one in every working folder, so nothing is looked for there.
    relative: Vec<PathBuf>,
}

impl Folders {
    /// Of this process.
    pub fn here() -> Folders {
        Folders::of(
            std::env::var_os(PATH),
            std::env::current_exe().ok(),
            std::env::var_os("XDG_DATA_HOME"),
            std::env::var_os("HOME"),
        )
    }

    fn of(
        named: Option<OsString>,
        program: Option<PathBuf>,
        data: Option<OsString>,
        home: Option<OsString>,
    ) -> Folders {
        let named = named.iter().flat_map(std::env::split_paths);
        // An entry without a name is what `$WEIR_PLUGIN_PATH:` leaves where that was not set.
        let named = named.filter(|folder| !folder.as_os_str().is_empty());
        let mut folders: Vec<PathBuf> = named.collect();
        folders.extend(
            program
                .as_deref()
                .and_then(Path::parent)
                .map(|folder| folder.join("plugins")),
        );
        let data = data
            .map(PathBuf::from)
            .filter(|folder| folder.is_absolute())
            .or_else(|| home.map(|home| Path::new(&home).join(".local/share")))
            // Without a home there is none, which is no fault.
            .filter(|folder| folder.is_absolute());
        folders.extend(data.map(|data| data.join("weir/plugins")));
        folders.extend(["/usr/local/lib/weir/plugins", "/usr/lib/weir/plugins"].map(PathBuf::from));
        Folders::only(folders)
    }

    /// These folders alone, as if [`PATH`] named them; one that is named again counts once.
    pub fn only(folders: impl IntoIterator<Item = PathBuf>) -> Folders {
        let mut all = Folders::default();
        for folder in folders {
            let into = match folder.is_absolute() {
                true => &mut all.searched,
                false => &mut all.relative,
            };
            if !into.contains(&folder) {
                into.push(folder);
            }
        }
        all
    }

    /// In the order in which they are looked into.
    pub fn iter(&self) -> impl Iterator<Item = &Path> {
        self.searched.iter().map(PathBuf::as_path)
    }

    /// Folders that are named and not looked into, each with the reason.
    pub fn left_out(&self) -> impl Iterator<Item = Refusal> {
        self.relative.iter().map(|folder| {
            let name = folder.display();
            Refusal::new(
                "W0515",
                format!("`{name}` in {PATH} is relative, so nothing is looked for there"),
                format!("write it in full, as $PWD/{name}"),
            )
            .of(folder)
        })
    }

    /// The same in words, with what to do.
    pub(crate) fn passed_over(&self) -> Vec<String> {
        let left_out = self.left_out();
        let told = left_out.map(|refusal| format!("{}: {}", refusal.what, refusal.help));
        told.collect()
    }

    /// Where a plugin that was not found may lie all the same, and why it was not looked for there.
    pub(crate) fn unsearched(&self) -> Vec<String> {
        let closed = self.iter().filter_map(|folder| {
            // In a folder that cannot be entered no file is found, whether there is one or not.
            let error = folder.join(".").try_exists().err()?;
            Some(format!(
                "{} cannot be looked into: {error}",
                folder.display()
            ))
        });
        [self.passed_over(), closed.collect()].concat()
    }

    /// Where plugin `name` may be, the first that is there first: `libweir_NAME.so`, `libNAME.so`; a `-` of the name is a `_` there,
    /// as cargo writes it. The first form is for plugins that have the name of a library, as `openslide`: a folder of plugins
    /// that stands in LD_LIBRARY_PATH must not put the plugin in that library's place.
    pub fn places(&self, name: &str) -> Vec<PathBuf> {
        let as_cargo = name.replace('-', "_");
        let mut files = vec![
            format!("libweir_{as_cargo}.so"),
            format!("lib{as_cargo}.so"),
            format!("lib{name}.so"),
        ];
        files.dedup();
        self.iter()
            .flat_map(|folder| files.iter().map(|file| folder.join(file)))
            .collect()
    }

    /// The file of plugin `name`.
    pub fn find(&self, name: &str) -> Result<Found, Refusal> {
        let places = self.places(name);
        let mut found = places.iter().filter(|path| path.is_file()).cloned();
        match found.next() {
            Some(path) => Ok(Found {
                path,
                shadowed: found.collect(),
            }),
            None => {
                let looked: Vec<String> = places
                    .iter()
                    .map(|path| path.display().to_string())
                    .collect();
                let looked = format!("looked for {}", looked.join(", "));
                let told = [vec![looked], self.unsearched()].concat().join("; ");
                Err(Refusal::new(
                    "E0501",
                    format!("plugin `{name}` was not found; {told}"),
                    format!("give its `path` in [plugin.{name}], or put its folder into {PATH}"),
                ))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_first_folder_wins_and_the_others_are_told() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let folders = Folders::only([first.path().to_owned(), second.path().to_owned()]);
        let refused = folders.find("blur-c").unwrap_err();
        assert_eq!(refused.code, "E0501");
        for file in ["libweir_blur_c.so", "libblur_c.so", "libblur-c.so"] {
            assert!(refused.what.contains(file), "{refused}");
        }
        std::fs::write(second.path().join("libblur-c.so"), "").unwrap();
        assert_eq!(
            folders.find("blur-c").unwrap().path,
            second.path().join("libblur-c.so")
        );
        std::fs::write(first.path().join("libblur_c.so"), "").unwrap();
        let found = folders.find("blur-c").unwrap();
        assert_eq!(found.path, first.path().join("libblur_c.so"));
        assert_eq!(found.shadowed, [second.path().join("libblur-c.so")]);
        // The long name comes first within a folder.
        std::fs::write(first.path().join("libweir_blur_c.so"), "").unwrap();
        let found = folders.find("blur-c").unwrap();
        assert_eq!(found.path, first.path().join("libweir_blur_c.so"));
        assert_eq!(found.shadowed[0], first.path().join("libblur_c.so"));
    }

    #[test]
    fn folders_come_in_the_order_that_is_said_and_of_relative_ones_it_is_said_that_they_do_not_count()
     {
        let folders = Folders::of(
            Some("/a:here::/b:/a:here".into()),
            Some("/opt/weir/weir".into()),
            Some("data".into()),
            Some("/home/u".into()),
        );
        let searched: Vec<&str> = folders
            .iter()
            .map(|folder| folder.to_str().unwrap())
            .collect();
        assert_eq!(
            searched,
            [
                "/a",
                "/b",
                "/opt/weir/plugins",
                "/home/u/.local/share/weir/plugins",
                "/usr/local/lib/weir/plugins",
                "/usr/lib/weir/plugins"
            ]
        );
        for home in ["", "home"] {
            let homeless = Folders::of(None, None, None, Some(home.into()));
            let system = ["/usr/local/lib/weir/plugins", "/usr/lib/weir/plugins"];
            assert_eq!(homeless.iter().collect::<Vec<_>>(), system.map(Path::new));
            assert_eq!(homeless.left_out().count(), 0, "`{home}`");
        }
        let left_out: Vec<Refusal> = folders.left_out().collect();
        assert_eq!(left_out.len(), 1, "{left_out:?}");
        let refused = folders.find("probe").unwrap_err();
        assert_eq!(refused.code, "E0501");
        for said in [&left_out[0].to_string(), &refused.what] {
            assert!(
                said.contains("`here` in WEIR_PLUGIN_PATH is relative"),
                "{said}"
            );
            assert!(said.contains("write it in full, as $PWD/here"), "{said}");
        }
    }

    #[test]
    fn a_folder_that_cannot_be_looked_into_is_told_where_a_plugin_is_not_found() {
        let folder = tempfile::tempdir().unwrap();
        let (plain, none) = (folder.path().join("plain"), folder.path().join("none"));
        std::fs::write(&plain, "").unwrap();
        let refused = Folders::only([plain.clone(), none])
            .find("probe")
            .unwrap_err();
        let told = format!("; {} cannot be looked into: ", plain.display());
        assert!(refused.what.contains(&told), "{refused}");
        // That a folder is not there is no fault: most are not.
        assert!(!refused.what.contains("none cannot"), "{refused}");
    }
}
