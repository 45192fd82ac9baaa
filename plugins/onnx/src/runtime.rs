//! ONNX Runtime's library: found and opened when a stage starts, never linked.

use ort::environment::Environment;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use weir_plugin::Error;

/// ONNX Runtime's library, loaded; there is at most one in a process.
pub struct Library {
    /// The file.
    pub path: PathBuf,
    /// What the build says of itself, as `1.32.0`; or nothing.
    pub version: Option<String>,
    pub(crate) environment: Environment,
}

impl fmt::Display for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ONNX Runtime")?;
        if let Some(version) = &self.version {
            write!(f, " {version}")?;
        }
        write!(f, " ({})", self.path.display())
    }
}

/// ONNX Runtime is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The files that were looked for, or the one that did not load.
    pub tried: Vec<PathBuf>,
    /// What was wrong with the file, where there was one.
    pub what: Option<String>,
}

impl From<Missing> for Error {
    fn from(missing: Missing) -> Error {
        let mut message = match &missing.what {
            Some(what) => format!("ONNX Runtime's library did not load: {what}"),
            None => "ONNX Runtime's library was not found".to_owned(),
        };
        message.push_str("; looked for ");
        let tried: Vec<String> = missing
            .tried
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        message.push_str(&tried.join(", "));
        Error::new(message).help(
            "`make setup` takes it out of the PyPI wheel `onnxruntime`, or set WEIR_ONNXRUNTIME to the file",
        )
    }
}

/// The library: the one that WEIR_ONNXRUNTIME or ORT_DYLIB_PATH says, else the first that is there of `.onnxruntime/` beside the
/// program and in the checkout that it was built in, LD_LIBRARY_PATH and the system's folders: where the engine finds it.
///
/// The first one that loads stays for the process.
///
/// # Errors
/// The places that were looked at, and how to get it.
pub fn library() -> Result<&'static Library, Missing> {
    static LOADED: OnceLock<Library> = OnceLock::new();
    static LOADING: Mutex<()> = Mutex::new(());
    // Held while loading, so that two stages do not load it twice; what it guards has no state to spoil.
    let _guard = LOADING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(library) = LOADED.get() {
        return Ok(library);
    }
    let library = load(&find()?)?;
    Ok(LOADED.get_or_init(|| library))
}

fn find() -> Result<PathBuf, Missing> {
    weir_libraries::onnxruntime(None)
        .map(|found| found.path)
        .map_err(|missing| Missing {
            tried: missing.tried,
            what: missing.named.then(|| "there is no such file".to_owned()),
        })
}

fn load(path: &Path) -> Result<Library, Missing> {
    let missing = |what: String| Missing {
        tried: vec![path.to_path_buf()],
        what: Some(what),
    };
    // A relative path would be looked for beside the program first.
    let absolute = std::path::absolute(path).map_err(|error| missing(error.to_string()))?;
    let environment = ort::init_from(&absolute)
        .map_err(|error| missing(error.to_string()))?
        .with_telemetry(false)
        .build()
        .map_err(|error| missing(error.to_string()))?;
    Ok(Library {
        path: path.to_path_buf(),
        version: version(ort::info()),
        environment,
    })
}

/// The version in a build's description, as `1.32.0` of `... git-branch=rel-1.32.0, git-commit-id=0123abc, ...`; builds of
/// other branches say none.
fn version(info: &str) -> Option<String> {
    let rest = info.split("git-branch=rel-").nth(1)?;
    rest.split([',', ' ']).next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_version_is_read_from_the_description() {
        let said =
            "ORT Build Info: git-branch=rel-1.32.0, git-commit-id=0123abc, build type=Release";
        assert_eq!(version(said).as_deref(), Some("1.32.0"));
        assert_eq!(version("git-commit-id=0123abc"), None);
    }

    #[test]
    fn a_missing_library_is_one_message_with_the_places_and_the_remedy() {
        let error = Error::from(Missing {
            tried: vec!["/a/libonnxruntime.so".into(), "/b/libonnxruntime.so".into()],
            what: None,
        });
        assert_eq!(
            error.to_string(),
            "ONNX Runtime's library was not found; looked for /a/libonnxruntime.so, /b/libonnxruntime.so; \
             `make setup` takes it out of the PyPI wheel `onnxruntime`, or set WEIR_ONNXRUNTIME to the file"
        );
    }
}
