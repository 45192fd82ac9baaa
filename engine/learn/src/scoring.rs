//! Scores of many tiles by the fast executor, as a pipeline makes them.

use crate::TrainError;
use crate::data::Data;
use crate::recipe::Recipe;
use rayon::prelude::*;
use weir_model::head::CLASSIFIER;
use weir_model::{Choice, Chosen, Input, Weights};

/// A scorer with given weights.
pub struct Scoring {
    chosen: Chosen,
    weight: Vec<f32>,
    bias: Vec<f32>,
}

impl Scoring {
    /// Ready to run.
    pub fn new(recipe: &Recipe, weights: &Weights, choice: &Choice) -> Result<Self, TrainError> {
        let classes = recipe.classes().len();
        let input = Input::new(&recipe.file.input).map_err(TrainError::Kernel)?;
        let part = |part: &str, shape: &[usize]| {
            let name = format!("{CLASSIFIER}.{part}");
            weights.values(&name, shape).map(<[f32]>::to_vec)
        };
        Ok(Scoring {
            chosen: Chosen::load(&recipe.network, weights, &input, choice)?,
            weight: part("weight", &[classes, recipe.network.feature])?,
            bias: part("bias", &[classes])?,
        })
    }

    /// Executor, version, device.
    pub fn key(&self) -> String {
        self.chosen.key()
    }

    /// Each class's probability, of one tile's pixels.
    pub fn probabilities(&self, pixels: &[u8]) -> Result<Vec<f32>, TrainError> {
        let features = self.chosen.executor.forward(&[pixels])?;
        let features = features.first().map(Vec::as_slice).unwrap_or_default();
        let logits: Vec<f32> = self
            .weight
            .chunks_exact(features.len().max(1))
            .zip(&self.bias)
            .map(|(row, bias)| row.iter().zip(features).map(|(w, h)| w * h).sum::<f32>() + bias)
            .collect();
        Ok(softmax(&logits))
    }

    /// Each class's probability, of tiles of the data in turn.
    pub fn tiles(&self, data: &Data, tiles: &[usize]) -> Result<Vec<Vec<f32>>, TrainError> {
        tiles
            .par_iter()
            .map(|tile| {
                let mut pixels = Vec::new();
                data.pixels(*tile, &mut pixels)?;
                self.probabilities(&pixels)
            })
            .collect()
    }
}

/// exp(x - max) over its sum.
pub fn softmax(logits: &[f32]) -> Vec<f32> {
    let most = logits.iter().copied().fold(f32::MIN, f32::max);
    let e: Vec<f32> = logits.iter().map(|x| (x - most).exp()).collect();
    let sum: f32 = e.iter().sum();
    e.into_iter().map(|e| e / sum).collect()
}

/// A tile's score: the probability of the positive class of two; of more, the greatest of all but the first, which is the one
/// without findings (METHOD 1.2).
pub fn score(probabilities: &[f32], positive: usize) -> f32 {
    if probabilities.len() == 2 {
        probabilities[positive]
    } else {
        probabilities[1..].iter().copied().fold(0.0, f32::max)
    }
}

/// The class without findings: the other of two; of more, the first.
pub fn negative(classes: usize, positive: usize) -> usize {
    if classes == 2 { 1 - positive } else { 0 }
}
