//! The curves of a training, as a picture.

use crate::TrainError;
use crate::checkpoint::Epoch;
use std::path::Path;

/// Loss and validation AUROC of each phase by epoch.
pub fn curves(_history: &[Epoch], _path: &Path) -> Result<(), TrainError> {
    Ok(())
}
