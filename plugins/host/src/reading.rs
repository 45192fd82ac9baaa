//! Files that weir believes: read whole, once, where nobody but their owners may change them or put others in their places.

use crate::refusal::Refusal;
use sha2::{Digest, Sha256};
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::fs::{Metadata, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

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

pub(crate) fn unreadable(error: &std::io::Error) -> Refusal {
    Refusal::new(
        "E0501",
        format!("it cannot be read: {error}"),
        "check the path and its permissions",
    )
}

const WORLD: u32 = 0o002;
const STICKY: u32 = 0o1000;

/// Whoever may write to the file, or put another in its place, decides what weir runs.
fn check_writers(path: &Path, file: &Metadata) -> Result<(), Refusal> {
    if file.mode() & WORLD != 0 {
        return Err(Refusal::new(
            "E0508",
            "anybody may write to it",
            "take the right away (chmod o-w FILE), and make sure that it is still the file you trust",
        ));
    }
    match open_to_all(path) {
        Some(folder) => Err(Refusal::new(
            "E0508",
            format!(
                "anybody may put another file in its place: {} is writable by all",
                folder.display()
            ),
            "put the plugin into a folder that only you may write to, or take the right away (chmod o-w)",
        )),
        None => Ok(()),
    }
}

/// The first folder on the way to a file in which anybody may put another one in its place.
pub(crate) fn open_to_all(path: &Path) -> Option<PathBuf> {
    let mut folders = on_the_way(path).into_iter();
    let found = folders.find(|(folder, own)| {
        // In a sticky folder nobody can replace another's file; but the file, or a link that leads to it, anybody could have made first.
        folder
            .metadata()
            .is_ok_and(|about| about.mode() & WORLD != 0 && (*own || about.mode() & STICKY == 0))
    });
    found.map(|(folder, _)| folder)
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
