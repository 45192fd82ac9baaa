//! A plugin file's bytes, in memory that nobody can change any more.

use crate::beside::Beside;
use crate::refusal::Refusal;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, memfd_create};
use sha2::{Digest, Sha256};
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

/// No plugin is larger: 1 GiB.
const LARGEST: u64 = 1 << 30;

/// Nothing of it ever changes.
const SEALS: SealFlags = SealFlags::WRITE
    .union(SealFlags::SHRINK)
    .union(SealFlags::GROW)
    .union(SealFlags::SEAL);

/// A file that was read once: its bytes, their hash, and sealed memory that holds them for the loader.
#[derive(Debug)]
pub struct PluginFile {
    path: PathBuf,
    bytes: Vec<u8>,
    sha256: String,
    sealed: File,
    beside: Option<Beside>,
}

/// Why a file was not read.
pub(crate) enum Reading {
    /// There is none.
    NotThere(std::io::Error),
    /// A folder, a pipe, a device.
    NotPlain,
    /// It has so many bytes, and may have fewer only.
    TooLarge(u64),
    /// It cannot be read, or anybody may replace it.
    Refused(Refusal),
}

/// All bytes of a file of which weir believes what it says: a plain one of at most `largest` bytes that only its owners may change.
pub(crate) fn whole(path: &Path, largest: u64) -> Result<Vec<u8>, Reading> {
    let failed = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound => Reading::NotThere(error),
        _ => Reading::Refused(unreadable(&error)),
    };
    // Opening a pipe would wait for somebody to write to it.
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(failed)?;
    let about = file.metadata().map_err(failed)?;
    if !about.is_file() {
        return Err(Reading::NotPlain);
    }
    if about.len() > largest {
        return Err(Reading::TooLarge(about.len()));
    }
    check_writers(path, &about).map_err(Reading::Refused)?;
    let mut bytes = Vec::with_capacity(about.len() as usize);
    // One more than allowed, so that a file that grows meanwhile shows.
    (&mut file)
        .take(largest + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    match bytes.len() as u64 {
        read if read > largest => Err(Reading::TooLarge(read)),
        _ => Ok(bytes),
    }
}

fn unreadable(error: &std::io::Error) -> Refusal {
    Refusal::new(
        "E0501",
        format!("it cannot be read: {error}"),
        "check the path and its permissions",
    )
}

impl PluginFile {
    /// Reads the whole file. Refused: what is no plain file, is larger than 1 GiB, or lies where anybody may put another.
    pub fn read(path: &Path) -> Result<PluginFile, Refusal> {
        let bytes = whole(path, LARGEST).map_err(|reading| match reading {
            Reading::Refused(refusal) => refusal.of(path),
            Reading::NotThere(error) => unreadable(&error).of(path),
            Reading::NotPlain => Refusal::new(
                "E0501",
                "it is no plain file",
                "name the shared library itself",
            )
            .of(path),
            Reading::TooLarge(bytes) => Refusal::new(
                "E0506",
                format!("it has {bytes} bytes, and a plugin has at most {LARGEST}"),
                "name the shared library itself",
            )
            .of(path),
        })?;
        let sealed = seal(&bytes).map_err(|error| {
            Refusal::new(
                "E0509",
                format!("its bytes could not be put into sealed memory: {error}"),
                "plugins need Linux with memfd_create",
            )
            .of(path)
        })?;
        Ok(PluginFile::hashed(path, bytes, sealed))
    }

    /// The bytes that another process put into sealed memory; what they are is found out again.
    pub(crate) fn of_sealed(path: &Path, sealed: File) -> Result<PluginFile, Refusal> {
        let unreadable = |error: std::io::Error| {
            let help = "this is a fault of weir: please report it";
            Refusal::new("E0509", format!("its sealed memory: {error}"), help).of(path)
        };
        let seals = fcntl_get_seals(&sealed).map_err(|error| unreadable(error.into()))?;
        if !seals.contains(SEALS) {
            return Err(unreadable(std::io::Error::other("it is not sealed")));
        }
        let size = sealed.metadata().map_err(unreadable)?.len();
        let mut bytes = vec![0; size.min(LARGEST) as usize];
        // The place up to which a file was read is the same for all processes that have it from one another, and several of the
        // plugin's start at once: none may depend on it.
        sealed.read_exact_at(&mut bytes, 0).map_err(unreadable)?;
        Ok(PluginFile::hashed(path, bytes, sealed))
    }

    fn hashed(path: &Path, bytes: Vec<u8>, sealed: File) -> PluginFile {
        PluginFile {
            path: path.to_owned(),
            sha256: hash(&bytes),
            bytes,
            sealed,
            beside: None,
        }
    }

    /// The plugin that is this library and the manifest beside it; from here on the hash is of both.
    pub(crate) fn described_by(mut self, beside: Beside) -> PluginFile {
        self.sha256 = beside.with(&self.sha256);
        self.beside = Some(beside);
        self
    }

    /// Where it was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What was read.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The manifest beside it, where it has none in it.
    pub fn beside(&self) -> Option<&Beside> {
        self.beside.as_ref()
    }

    /// What the plugin is known by, 64 hexadecimal digits: SHA-256 of the bytes; where its manifest lies beside it, of the hashes of
    /// both, as `(sha256sum < libNAME.so; sha256sum < NAME.manifest.json) | sha256sum` prints it.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// The bytes again, as a file without a name that nobody can write to.
    pub fn sealed(&self) -> &File {
        &self.sealed
    }
}

/// Whoever may write to the file, or put another in its place, decides what weir runs.
fn check_writers(path: &Path, file: &Metadata) -> Result<(), Refusal> {
    const WORLD: u32 = 0o002;
    const STICKY: u32 = 0o1000;
    if file.mode() & WORLD != 0 {
        return Err(Refusal::new(
            "E0508",
            "anybody may write to it",
            "take the right away (chmod o-w FILE), and make sure that it is still the file you trust",
        ));
    }
    for (folder, own) in on_the_way(path) {
        let Ok(about) = folder.metadata() else {
            continue;
        };
        // In a sticky folder nobody can replace another's file; but the file, or a link that leads to it, anybody could have made first.
        if about.mode() & WORLD != 0 && (own || about.mode() & STICKY == 0) {
            return Err(Refusal::new(
                "E0508",
                format!(
                    "anybody may put another file in its place: {} is writable by all",
                    folder.display()
                ),
                "put the plugin into a folder that only you may write to, or take the right away (chmod o-w)",
            ));
        }
    }
    Ok(())
}

/// The folders through which a path leads to its file, those of links too, and whether the file or a link lies in it.
fn on_the_way(path: &Path) -> Vec<(PathBuf, bool)> {
    /// The kernel follows no more.
    const LINKS: usize = 40;
    let parts = |path: &Path| -> Vec<PathBuf> {
        let parts = path.components();
        parts.map(|part| PathBuf::from(part.as_os_str())).collect()
    };
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut left: VecDeque<PathBuf> = parts(&absolute).into();
    let (mut at, mut folders, mut links) = (PathBuf::from("/"), Vec::new(), 0);
    while let Some(part) = left.pop_front() {
        match part.components().next() {
            Some(Component::Normal(_)) => {}
            Some(Component::ParentDir) => {
                at.pop();
                continue;
            }
            Some(Component::RootDir) => {
                at = PathBuf::from("/");
                continue;
            }
            _ => continue,
        }
        let next = at.join(&part);
        let link = std::fs::read_link(&next).ok().filter(|_| links < LINKS);
        folders.push((at.clone(), link.is_some() || left.is_empty()));
        match link {
            Some(target) => {
                links += 1;
                for part in parts(&target).into_iter().rev() {
                    left.push_front(part);
                }
            }
            None => at = next,
        }
    }
    folders
}

fn seal(bytes: &[u8]) -> std::io::Result<File> {
    let memory = memfd_create(
        "weir-plugin",
        MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
    )?;
    let mut memory = File::from(memory);
    memory.write_all(bytes)?;
    fcntl_add_seals(&memory, SEALS)?;
    Ok(memory)
}

/// SHA-256, 64 hexadecimal digits.
pub(crate) fn hash(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(digest: &[u8]) -> String {
    digest
        .iter()
        .fold(String::with_capacity(64), |mut text, byte| {
            // Writing to a String does not fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn set_mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    /// A folder that only its owner may write to, in the temporary folder, which is sticky.
    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn what_is_hashed_is_what_lies_in_sealed_memory() {
        let folder = folder();
        let path = folder.path().join("a.so");
        std::fs::write(&path, "hello").unwrap();
        let file = PluginFile::read(&path).unwrap();
        assert_eq!(
            file.sha256(),
            "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
        );
        std::fs::write(&path, "other").unwrap();
        assert_eq!(file.bytes(), b"hello");
        let mut sealed = file.sealed();
        assert!(sealed.write_all(b"x").is_err());
        assert_eq!(sealed.metadata().unwrap().len(), 5);
    }

    #[test]
    fn processes_that_read_the_sealed_memory_at_once_all_get_all_of_it() {
        let folder = folder();
        let path = folder.path().join("a.so");
        let bytes: Vec<u8> = (0..1 << 20).map(|i: u32| (i % 251) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let file = PluginFile::read(&path).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        // As a descriptor that goes to a process: another number for the same open file.
                        let sealed = file.sealed().try_clone().unwrap();
                        let read = PluginFile::of_sealed(&path, sealed).unwrap();
                        assert_eq!(read.sha256(), file.sha256());
                        assert!(read.bytes() == bytes);
                    }
                });
            }
        });
    }

    #[test]
    fn a_file_or_folder_that_anybody_may_write_to_is_refused() {
        let folder = folder();
        let path = folder.path().join("a.so");
        std::fs::write(&path, "hello").unwrap();
        set_mode(&path, 0o666);
        let refused = PluginFile::read(&path).unwrap_err();
        assert_eq!(
            (refused.code, refused.what.as_str()),
            ("E0508", "anybody may write to it")
        );
        set_mode(&path, 0o644);
        set_mode(folder.path(), 0o777);
        let refused = PluginFile::read(&path).unwrap_err();
        assert!(
            refused.code == "E0508" && refused.what.contains("is writable by all"),
            "{refused}"
        );
        set_mode(folder.path(), 0o1777);
        assert_eq!(PluginFile::read(&path).unwrap_err().code, "E0508");
        set_mode(folder.path(), 0o755);
        assert!(PluginFile::read(&path).is_ok());
    }

    #[test]
    fn a_pipe_is_refused_and_not_waited_for() {
        let folder = folder();
        let path = folder.path().join("a.so");
        let (kind, mode) = (rustix::fs::FileType::Fifo, 0o644.into());
        rustix::fs::mknodat(rustix::fs::CWD, &path, kind, mode, 0).unwrap();
        let refused = PluginFile::read(&path).unwrap_err();
        assert!(
            refused.code == "E0501" && refused.what == "it is no plain file",
            "{refused}"
        );
    }

    #[test]
    fn a_folder_and_a_missing_file_are_refused() {
        let folder = folder();
        assert_eq!(PluginFile::read(folder.path()).unwrap_err().code, "E0501");
        let refused = PluginFile::read(&folder.path().join("none.so")).unwrap_err();
        assert!(
            refused.code == "E0501" && refused.what.contains("No such file"),
            "{refused}"
        );
    }
}
