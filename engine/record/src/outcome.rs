//! What a stage makes of a version when it is no value.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// A version that a stage left out on purpose.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Skip {
    /// The store no longer holds the revision that was selected; a later generation covers the tile.
    Superseded,
    /// A filter dropped it.
    Dropped {
        /// Name of the stage in the pipeline file.
        stage: Arc<str>,
        /// Why, in a word or two, as `blurred`.
        reason: Arc<str>,
    },
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Skip::Superseded => f.write_str("superseded"),
            Skip::Dropped { stage, reason } => write!(f, "{stage}: {reason}"),
        }
    }
}

/// A version, or a whole slide, of which nothing could be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Name of the stage in the pipeline file.
    pub stage: String,
    /// Id of the slide.
    pub slide: String,
    /// Left and top edge of the tile, level-0 px; `None` when the slide as a whole failed.
    pub tile: Option<(i64, i64)>,
    /// What was wrong, with the place in the file where there is one, as `JPEG data of tile 20 of level 0 is all zero`.
    pub what: String,
    /// What to do about it; empty when nothing helps.
    pub help: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: slide {}", self.stage, self.slide)?;
        if let Some((x, y)) = self.tile {
            write!(f, ", tile at ({x}, {y})")?;
        }
        write!(f, ": {}", self.what)?;
        if !self.help.is_empty() {
            write!(f, "; {}", self.help)?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}
