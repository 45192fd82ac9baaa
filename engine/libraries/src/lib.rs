//! Where the shared libraries lie that weir and its plugins open at run time and never link.
//!
//! The engine, the plugins and `weir doctor` ask here, so that all of them mean the same file. Nothing is opened: whoever asks does
//! that, in its own way. In this order:
//!
//! 1. the file that is named by an argument or an environment variable; then nothing else counts
//! 2. a folder beside the program, and in the checkout that it was built in (`make setup` fills it)
//! 3. where the system keeps libraries
//!
//! Never looked into is a folder that is only above the program, or the one that is worked in: anybody may have put a library there.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The environment variables that name ONNX Runtime's file, in this order.
pub const ONNXRUNTIME_NAMED_BY: [&str; 2] = ["WEIR_ONNXRUNTIME", "ORT_DYLIB_PATH"];

/// The environment variable that names OpenSlide's file.
pub const OPENSLIDE_NAMED_BY: &str = "WEIR_OPENSLIDE";

/// What OpenSlide's file is called, best first: OpenSlide 4, OpenSlide 3.4.
pub const OPENSLIDE: [&str; 2] = ["libopenslide.so.1", "libopenslide.so.0"];

const ONNXRUNTIME: &str = "libonnxruntime.so";

/// A file that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The file.
    pub path: PathBuf,
    /// Whether the user named it.
    pub named: bool,
}

/// No file was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotFound {
    /// The files that were looked for.
    pub tried: Vec<PathBuf>,
    /// Whether the user named the one that is not there.
    pub named: bool,
}

/// ONNX Runtime's file: the one that `named`, WEIR_ONNXRUNTIME or ORT_DYLIB_PATH says; else the first that is there of
/// `.onnxruntime/` beside the program and in its checkout, the folders of LD_LIBRARY_PATH, and the system's.
///
/// # Errors
/// Where it was looked for.
pub fn onnxruntime(named: Option<&Path>) -> Result<Found, NotFound> {
    let said = named.map(Path::to_path_buf);
    if let Some(path) = said.or_else(|| ONNXRUNTIME_NAMED_BY.iter().find_map(|name| var(name))) {
        return match path.is_file() {
            true => Ok(Found { path, named: true }),
            false => Err(NotFound {
                tried: vec![path],
                named: true,
            }),
        };
    }
    let mut tried = beside(".onnxruntime", ONNXRUNTIME, std::env::current_exe().ok());
    if let Some(folders) = std::env::var_os("LD_LIBRARY_PATH") {
        tried.extend(std::env::split_paths(&folders).map(|folder| folder.join(ONNXRUNTIME)));
    }
    let system = ["/usr/local/lib", "/usr/lib/x86_64-linux-gnu", "/usr/lib"];
    tried.extend(system.map(|folder| Path::new(folder).join(ONNXRUNTIME)));
    match tried.iter().find(|path| path.is_file()) {
        Some(path) => Ok(Found {
            path: path.clone(),
            named: false,
        }),
        None => Err(NotFound {
            tried,
            named: false,
        }),
    }
}

/// A place where OpenSlide may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The file that WEIR_OPENSLIDE names, there or not.
    Named(PathBuf),
    /// A file that is there.
    Here(PathBuf),
    /// A name for the system's loader, which knows its folders best.
    System(&'static str),
}

/// Where OpenSlide may be, the best first: the file that WEIR_OPENSLIDE says, alone; else what is there of `.openslide/` beside the
/// program and in its checkout, and then the names under which the system has it.
pub fn openslide() -> Vec<Place> {
    openslide_of(var(OPENSLIDE_NAMED_BY), std::env::current_exe().ok())
}

fn openslide_of(named: Option<PathBuf>, program: Option<PathBuf>) -> Vec<Place> {
    if let Some(named) = named {
        return vec![Place::Named(named)];
    }
    let here = beside(".openslide", OPENSLIDE[0], program);
    let here = here.into_iter().filter(|path| path.is_file());
    here.map(Place::Here)
        .chain(OPENSLIDE.map(Place::System))
        .collect()
}

/// A path that stands in the environment and is not empty.
fn var(name: &str) -> Option<PathBuf> {
    let value: OsString = std::env::var_os(name)?;
    (!value.is_empty()).then(|| PathBuf::from(value))
}

/// `FOLDER/FILE` beside the program, and in the checkout that it was built in (target/release/weir, target/release/deps/test).
fn beside(folder: &str, file: &str, program: Option<PathBuf>) -> Vec<PathBuf> {
    let Some(program) = program else {
        return Vec::new();
    };
    let above = || program.ancestors().skip(1);
    let built_in = above()
        .take(5)
        .find(|folder| folder.join("Cargo.lock").is_file());
    let mut files: Vec<PathBuf> = above()
        .take(1)
        .chain(built_in)
        .map(|at| at.join(folder).join(file))
        .collect();
    files.dedup();
    files
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_named_counts_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("mine.so");
        let missing = onnxruntime(Some(&file)).unwrap_err();
        assert_eq!((missing.tried, missing.named), (vec![file.clone()], true));
        std::fs::write(&file, "").unwrap();
        assert_eq!(
            onnxruntime(Some(&file)).unwrap(),
            Found {
                path: file.clone(),
                named: true
            }
        );
        assert_eq!(
            openslide_of(Some(file.clone()), Some("/bin/weir".into())),
            [Place::Named(file)]
        );
    }

    #[test]
    fn a_checkouts_folder_counts_and_one_that_is_only_above_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("target/release/weir");
        let own = folder.path().join(".openslide").join(OPENSLIDE[0]);
        std::fs::create_dir_all(own.parent().unwrap()).unwrap();
        std::fs::write(&own, "").unwrap();
        let system = OPENSLIDE.map(Place::System);
        assert_eq!(openslide_of(None, Some(program.clone())), system);
        std::fs::write(folder.path().join("Cargo.lock"), "").unwrap();
        let places = openslide_of(None, Some(program));
        assert_eq!(places[0], Place::Here(own));
        assert_eq!(places[1..], system);
    }
}
