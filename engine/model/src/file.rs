//! Writing a file whole or not at all.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// Writes `bytes` to a temporary file beside `path`, syncs it, and renames it, so that `path` never holds half a file.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    fs::create_dir_all(folder)?;
    let mut name = path
        .file_name()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path names no file"))?
        .to_os_string();
    name.push(format!(".{}.part", std::process::id()));
    let part = folder.join(name);
    let written = (|| {
        let mut file = File::create(&part)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&part, path)?;
        // The rename itself is on disk only when the folder is.
        File::open(folder)?.sync_all()
    })();
    if written.is_err() {
        // The first error is the one to tell; a left-over part is no half file under the final name.
        let _ = fs::remove_file(&part);
    }
    written
}
