//! A manifest in a file of its own, beside its library: for languages that have no sections.
//!
//! The library's section wins. A file beside it is only looked at to see that it says the same, since who edits one that nobody
//! reads would wonder for long; what of a plugin its hash covers is then the library alone. Without a section the file is the
//! manifest, as much of the plugin as the library is, and the hash covers both.

use crate::reading::{Reading, hash, whole};
use crate::refusal::Refusal;
use std::path::{Path, PathBuf};
use weir_abi::plugin::SECTION;

/// No manifest is larger: 4 MiB.
const LARGEST: u64 = 4 << 20;

/// What such a file's name ends with.
const ENDING: &str = ".manifest.json";

/// A manifest's file that was read once.
#[derive(Debug)]
pub struct Beside {
    path: PathBuf,
    text: Vec<u8>,
}

impl Beside {
    /// Where the manifest of a library lies that has none in it: `NAME.manifest.json` beside `libNAME.so`.
    pub fn place(library: &Path) -> PathBuf {
        let name = library.file_stem().unwrap_or_default().to_string_lossy();
        let name = name.strip_prefix("lib").unwrap_or(&name);
        library.with_file_name(format!("{name}{ENDING}"))
    }

    /// Reads it; `None` where there is no such file. Refused is what a library would be: no plain file, one that anybody may write
    /// to, or that lies where anybody may put another; and one of more than 4 MiB.
    pub fn read(library: &Path) -> Result<Option<Beside>, Refusal> {
        let path = Beside::place(library);
        let refused = |refusal: Refusal| Refusal {
            what: format!("its manifest {}: {}", path.display(), refusal.what),
            ..refusal
        };
        match whole(&path, LARGEST) {
            Ok(text) => Ok(Some(Beside { path, text })),
            Err(Reading::NotThere(_)) => Ok(None),
            Err(Reading::Refused(refusal)) => Err(refused(refusal)),
            Err(Reading::NotPlain) => Err(refused(Refusal::new(
                "E0501",
                "it is no plain file",
                "put the manifest there, or take away what is",
            ))),
            Err(Reading::TooLarge(bytes)) => Err(refused(Refusal::new(
                "E0504",
                format!("it has {bytes} bytes, and a manifest has at most {LARGEST}"),
                "put long texts into the plugin's page",
            ))),
        }
    }

    /// The same that another process read.
    pub(crate) fn of(path: PathBuf, text: Vec<u8>) -> Beside {
        Beside { path, text }
    }

    /// Where it was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What was read.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// The hash of a plugin that is this and the library of that hash: SHA-256 of both files' hashes, as
    /// `(sha256sum < libNAME.so; sha256sum < NAME.manifest.json) | sha256sum` prints it.
    pub(crate) fn with(&self, library: &str) -> String {
        hash(format!("{library}  -\n{}  -\n", hash(&self.text)).as_bytes())
    }

    /// The refusal of a library that has a manifest in it that says something else.
    pub(crate) fn differs(&self) -> Refusal {
        let name = self.path.display();
        Refusal::new(
            "E0504",
            format!("its section `{SECTION}` and {name} beside it say different things"),
            "remove the file: the section is enough; or give it the section's text",
        )
    }

    /// The refusal of a library that has no manifest in it, and none beside it.
    pub(crate) fn missing(library: &Path) -> Refusal {
        Refusal::new(
            "E0503",
            format!(
                "it has no section `{SECTION}`, in which a plugin describes itself, and {} is not there",
                Beside::place(library).display()
            ),
            "in C put the text into WEIR_MANIFEST and name it in weir_plugin.manifest, so that the linker keeps it; in a language without sections, into that file",
        )
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_librarys_name_without_lib_and_so_is_its_manifests() {
        for (library, manifest) in [
            ("/a/libblur-c.so", "/a/blur-c.manifest.json"),
            ("/a/libweir_stain.so", "/a/weir_stain.manifest.json"),
            ("b/own.so", "b/own.manifest.json"),
            ("liblib.so", "lib.manifest.json"),
        ] {
            assert_eq!(Beside::place(Path::new(library)), Path::new(manifest));
        }
    }

    #[test]
    fn what_would_be_refused_of_a_library_is_refused_of_its_manifest() {
        let folder = tempfile::tempdir().unwrap();
        let library = folder.path().join("liba.so");
        let path = folder.path().join("a.manifest.json");
        assert!(Beside::read(&library).unwrap().is_none());
        let refused = || {
            let refusal = Beside::read(&library).unwrap_err();
            assert!(refusal.what.contains("a.manifest.json: "), "{refusal}");
            (refusal.code, refusal.what)
        };
        std::fs::create_dir(&path).unwrap();
        assert_eq!(refused().0, "E0501");
        std::fs::remove_dir(&path).unwrap();
        // A pipe that nobody writes to would be waited for.
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from(0o644),
            0,
        )
        .unwrap();
        let (code, what) = refused();
        assert!(
            code == "E0501" && what.ends_with("it is no plain file"),
            "{what}"
        );
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, vec![b' '; (LARGEST + 1) as usize]).unwrap();
        assert_eq!(refused().0, "E0504");
        std::fs::write(&path, "{}").unwrap();
        assert_eq!(Beside::read(&library).unwrap().unwrap().text(), b"{}");
        let mode = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        mode(&path, 0o666);
        let (code, what) = refused();
        assert!(
            code == "E0508" && what.ends_with("anybody may write to it"),
            "{what}"
        );
        mode(&path, 0o644);
        mode(folder.path(), 0o777);
        assert_eq!(refused().0, "E0508");
    }

    #[test]
    fn the_hash_of_both_is_the_hash_of_their_hashes() {
        let beside = Beside::of("a.manifest.json".into(), b"{}".to_vec());
        // (printf hello | sha256sum; printf '{}' | sha256sum) | sha256sum
        assert_eq!(
            beside.with(&hash(b"hello")),
            "642b624b7890ec58d214abb2f8297b2a8c817851173720c7c33ddb7432ab3ce9"
        );
    }
}
