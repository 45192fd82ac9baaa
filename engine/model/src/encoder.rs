//! From a tile's pixels to its features.

use crate::error::ModelError;
use crate::executor::{Choice, Chosen, ExecutorError};
use crate::input::Input;
use crate::weights::Weights;
use crate::{folder, head};
use std::path::{Path, PathBuf};
use weir_kernels::attention::AttentionHead;
use weir_kernels::pool::admissible;
use weir_pipeline::model::{ModelHeader, ModelKind};

/// A model's encoder on an executor.
#[derive(Debug)]
pub struct Encoder {
    chosen: Chosen,
    /// Of a bag model: a tile whose logit is no number fails here, where it is one tile, and not in its bag.
    head: Option<AttentionHead>,
    folder: PathBuf,
}

impl Encoder {
    /// The encoder of `header`, of either kind, on the executor of `choice`.
    pub fn load(header: &ModelHeader, choice: &Choice) -> Result<Encoder, ModelError> {
        Encoder::with_weights(header, &folder::weights(header)?, choice)
    }

    /// The same with weights that were read and checked.
    pub(crate) fn with_weights(
        header: &ModelHeader,
        weights: &Weights,
        choice: &Choice,
    ) -> Result<Encoder, ModelError> {
        let network = folder::network(header)?;
        let chosen = Input::new(&header.input)
            .map_err(ExecutorError::from)
            .and_then(|input| Chosen::load(&network, weights, &input, choice))
            .map_err(|error| ModelError::of_executor(&header.folder, error))?;
        let head = match header.kind {
            ModelKind::Scorer => None,
            ModelKind::Bag => Some(head::attention(weights, header)?),
        };
        Ok(Encoder {
            chosen,
            head,
            folder: header.folder.clone(),
        })
    }

    /// What runs it.
    pub fn chosen(&self) -> &Chosen {
        &self.chosen
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The features of tiles: interleaved RGB, u8, of the model's size. A tile's features do not hang on its neighbours.
    pub fn encode(&self, tiles: &[&[u8]]) -> Result<Vec<Vec<f32>>, ModelError> {
        let features = self
            .chosen
            .executor
            .forward(tiles)
            .map_err(|error| ModelError::of_executor(&self.folder, error))?;
        for (place, features) in features.iter().enumerate() {
            let logit = self
                .head
                .as_ref()
                .map_or(0.0, |head| head.logits(&[features])[0]);
            if !admissible(logit, features) {
                return Err(ModelError::of_tile(
                    &self.folder,
                    place,
                    format!(
                        "the features of a tile, or their attention logit ({logit}), leave the range of the pool"
                    ),
                ));
            }
        }
        Ok(features)
    }
}
