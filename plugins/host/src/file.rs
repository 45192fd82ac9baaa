//! A plugin file's bytes, in memory that nobody can change any more.

use crate::beside::Beside;
use crate::reading::{Reading, hash, unreadable, whole};
use crate::refusal::Refusal;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, memfd_create};
use rustix::io::Errno;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

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
            let help = match error.kind() {
                ErrorKind::ResourceBusy => {
                    "the system needs its memory for something else: try again"
                }
                _ => "plugins need Linux with memfd_create",
            };
            let what = format!("its bytes could not be put into sealed memory: {error}");
            Refusal::new("E0509", what, help).of(path)
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

/// So often memory is filled and sealed; the system itself waits some 150 ms each time before it says that it is busy.
const ATTEMPTS: u32 = 10;

fn seal(bytes: &[u8]) -> std::io::Result<File> {
    sealed(|| {
        let memory = memfd_create(
            "weir-plugin",
            MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
        )?;
        let mut memory = File::from(memory);
        memory.write_all(bytes)?;
        Ok(memory)
    })
}

/// Memory as `filled` makes it, which nobody can write to any more.
///
/// The system refuses that while anybody has hold of one of its pages (`fcntl(2)`, `F_SEAL_WRITE`), and has itself for moments, on a
/// machine that is short of memory and moves pages about. Other memory has other pages.
fn sealed(mut filled: impl FnMut() -> std::io::Result<File>) -> std::io::Result<File> {
    let mut left = ATTEMPTS;
    loop {
        let memory = filled()?;
        left -= 1;
        match fcntl_add_seals(&memory, SEALS) {
            Ok(()) => return Ok(memory),
            Err(Errno::BUSY) if left > 0 => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::fd::AsRawFd;
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
    fn memory_that_cannot_be_sealed_as_somebody_has_hold_of_it_is_filled_anew_but_not_for_ever() {
        // A pipe that a file is spliced into has hold of the file's pages until it is read.
        let held = |files: u32| {
            let (mut pipes, mut made) = (Vec::new(), 0);
            let memory = sealed(|| {
                let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
                let mut memory = File::from(memfd_create("test", flags)?);
                memory.write_all(b"hello")?;
                made += 1;
                if made <= files {
                    let (reader, writer) = std::io::pipe()?;
                    let mut from = 0;
                    // SAFETY: open descriptors, and a place in the file.
                    let spliced = unsafe {
                        let (file, pipe) = (memory.as_raw_fd(), writer.as_raw_fd());
                        libc::splice(file, &mut from, pipe, std::ptr::null_mut(), 5, 0)
                    };
                    assert_eq!(spliced, 5);
                    pipes.push((reader, writer));
                }
                Ok(memory)
            });
            (memory.map_err(|error| error.kind()), made)
        };
        let (memory, made) = held(2);
        assert_eq!(made, 3);
        assert!(fcntl_get_seals(memory.unwrap()).unwrap().contains(SEALS));
        let (memory, made) = held(u32::MAX);
        assert_eq!(
            (memory.unwrap_err(), made),
            (ErrorKind::ResourceBusy, ATTEMPTS)
        );
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
