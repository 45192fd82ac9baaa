//! What can be wrong with a training, where, and what to do.

use std::fmt;
use std::path::{Path, PathBuf};
use weir_model::kernels::NotOpened;
use weir_model::{ExecutorError, KernelError, WeightsError};
use weir_slide::{InputError, SlideError};

/// Why a training did not begin, or ended.
#[derive(Debug)]
pub enum TrainError {
    /// A file could not be read or written.
    Io {
        /// The file.
        path: PathBuf,
        /// What was being done.
        doing: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The recipe.
    Recipe {
        /// File, line, column.
        place: String,
        /// What is wrong.
        what: String,
        /// What to do.
        help: String,
    },
    /// The data.
    Data {
        /// File and line, or folder.
        place: String,
        /// What is wrong.
        what: String,
        /// What to do.
        help: String,
    },
    /// The manifest, all its mistakes.
    Manifest(Vec<InputError>),
    /// A slide.
    Slide(SlideError),
    /// The run's folder.
    Run {
        /// The folder or file.
        path: PathBuf,
        /// What is wrong.
        what: String,
        /// What to do.
        help: String,
    },
    /// Weights.
    Weights(WeightsError),
    /// Scoring.
    Executor(ExecutorError),
    /// The device whose kernels should pool.
    Device(NotOpened),
    /// The pool's kernels.
    Kernel(KernelError),
    /// The loss is a NaN or an infinity.
    Diverged {
        /// `scorer`, `bag`.
        phase: String,
        /// Epoch, from 1.
        epoch: u64,
    },
    /// The picture of the curves.
    Chart(String),
}

impl TrainError {
    pub(crate) fn io(path: &Path, doing: &str, source: std::io::Error) -> Self {
        TrainError::Io {
            path: path.to_path_buf(),
            doing: doing.to_string(),
            source,
        }
    }
}

impl fmt::Display for TrainError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use TrainError::*;
        match self {
            Io {
                path,
                doing,
                source,
            } => write!(f, "{}: could not {doing}: {source}", path.display()),
            Recipe { place, what, help } | Data { place, what, help } => {
                write!(f, "{place}: {what}; {help}")
            }
            Manifest(errors) => {
                for (k, error) in errors.iter().enumerate() {
                    if k > 0 {
                        f.write_str("\n")?;
                    }
                    error.fmt(f)?;
                }
                Ok(())
            }
            Slide(error) => error.fmt(f),
            Run { path, what, help } => write!(f, "{}: {what}; {help}", path.display()),
            Weights(error) => error.fmt(f),
            Executor(error) => error.fmt(f),
            Device(error) => error.fmt(f),
            Kernel(error) => error.fmt(f),
            Diverged { phase, epoch } => write!(
                f,
                "the training of the {phase} diverged in epoch {epoch}: the loss is no finite number; lower `rate` or `clip` in [{phase}.steps]"
            ),
            Chart(what) => write!(f, "the curves could not be drawn: {what}"),
        }
    }
}

impl std::error::Error for TrainError {}

impl From<WeightsError> for TrainError {
    fn from(error: WeightsError) -> Self {
        TrainError::Weights(error)
    }
}

impl From<ExecutorError> for TrainError {
    fn from(error: ExecutorError) -> Self {
        TrainError::Executor(error)
    }
}

impl From<SlideError> for TrainError {
    fn from(error: SlideError) -> Self {
        TrainError::Slide(error)
    }
}
