//! What is wrong with a model, or with a tile that it was given.

use crate::executor::ExecutorError;
use crate::network::NetworkError;
use crate::weights::WeightsError;
use std::fmt;
use std::path::{Path, PathBuf};
use weir_pipeline::model::HeaderError;

/// Why a model could not be loaded, saved or run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelError {
    /// Where: the file or folder of the model.
    pub place: PathBuf,
    /// Place in the call of the one tile that is to blame, where it is one.
    pub tile: Option<usize>,
    /// What is wrong.
    pub what: String,
    /// What to do; empty when `what` says it.
    pub help: String,
}

impl ModelError {
    pub(crate) fn new(place: &Path, what: impl Into<String>, help: impl Into<String>) -> Self {
        ModelError {
            place: place.to_path_buf(),
            tile: None,
            what: what.into(),
            help: help.into(),
        }
    }

    pub(crate) fn of_tile(place: &Path, tile: usize, what: impl Into<String>) -> Self {
        ModelError {
            tile: Some(tile),
            ..ModelError::new(
                place,
                what,
                "are the weights sound, and is [input] in model.toml what they were trained on?",
            )
        }
    }

    pub(crate) fn of_executor(place: &Path, error: ExecutorError) -> Self {
        ModelError {
            tile: match &error {
                ExecutorError::NonFinite { tile } => Some(*tile),
                _ => None,
            },
            ..ModelError::new(place, error.to_string(), "")
        }
    }

    pub(crate) fn of_network(place: &Path, error: NetworkError) -> Self {
        ModelError::new(place, error.to_string(), "")
    }

    /// The weights' error names its own file.
    pub(crate) fn of_weights(error: WeightsError) -> Self {
        let text = error.to_string();
        let place = error.path().to_path_buf();
        let what = text
            .strip_prefix(&format!("{}: ", place.display()))
            .unwrap_or(&text)
            .to_string();
        ModelError::new(&place, what, "")
    }
}

impl From<HeaderError> for ModelError {
    fn from(error: HeaderError) -> Self {
        let what = match error.line {
            Some(line) => format!("line {line}: {}", error.what),
            None => error.what,
        };
        ModelError::new(&error.file, what, error.help)
    }
}

impl fmt::Display for ModelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place.display(), self.what)?;
        if !self.help.is_empty() {
            write!(f, "; {}", self.help)?;
        }
        Ok(())
    }
}

impl std::error::Error for ModelError {}
