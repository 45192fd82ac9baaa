//! A file that is read at offsets, by any number of threads at once.

use crate::{Fault, Place, SlideError};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::UNIX_EPOCH;

/// An open file. Reads are `pread`s: a file that is cut while it is read gives an error, where a memory map gives SIGBUS.
#[derive(Debug)]
pub(crate) struct Source {
    file: File,
    path: String,
    len: u64,
    modified: u64,
}

impl Source {
    pub(crate) fn open(path: &Path) -> Result<Self, SlideError> {
        let name = path.display().to_string();
        let refused = |error: std::io::Error| {
            let help = match error.kind() {
                std::io::ErrorKind::NotFound => "check the path",
                std::io::ErrorKind::PermissionDenied => "check its permissions",
                _ => "",
            };
            SlideError::new(
                Fault::Io,
                &name,
                format!("cannot be opened: {}", plain(&error)),
                help,
            )
        };
        let file = File::open(path).map_err(refused)?;
        let meta = file.metadata().map_err(refused)?;
        if !meta.is_file() {
            return Err(SlideError::new(
                Fault::NotASlide,
                &name,
                "is no regular file",
                "name a slide file",
            ));
        }
        let modified = meta
            .modified()
            .ok()
            .and_then(|time| time.duration_since(UNIX_EPOCH).ok())
            .map_or(0, |since| since.as_nanos() as u64);
        Ok(Source {
            file,
            len: meta.len(),
            modified,
            path: name,
        })
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Size in bytes and time of the last change, ns since 1970.
    pub(crate) fn stamp(&self) -> (u64, u64) {
        (self.len, self.modified)
    }

    /// Whether `count` bytes from `offset` on lie inside the file.
    pub(crate) fn holds(&self, offset: u64, count: u64) -> bool {
        offset.checked_add(count).is_some_and(|end| end <= self.len)
    }

    /// Fills `into` with the bytes from `offset` on.
    pub(crate) fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), SlideError> {
        self.file.read_exact_at(into, offset).map_err(|error| {
            self.error(
                Fault::Io,
                format!("{} bytes cannot be read: {}", into.len(), plain(&error)),
                "check the disk, or copy the file again",
            )
            .at(Place {
                offset: Some(offset),
                ..Place::default()
            })
        })
    }

    pub(crate) fn error(
        &self,
        fault: Fault,
        what: impl Into<String>,
        help: impl Into<String>,
    ) -> SlideError {
        SlideError::new(fault, &self.path, what, help)
    }
}

/// The system's words without the number.
fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_lowercase(),
        None => text,
    }
}
