//! From a vector to a class.

use crate::linear::Linear;
use crate::math::exp;

/// A linear layer with a softmax: the bag's classifier and the scorer's last layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Classifier {
    /// From the vector to the classes' logits.
    pub layer: Linear,
}

/// What a classifier says.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// `[C]`
    pub logits: Vec<f32>,
    /// Softmax of `logits`, `[C]`.
    pub probabilities: Vec<f32>,
    /// The class of the greatest probability, the first of equals.
    pub class: usize,
}

impl Classifier {
    /// The verdict on `x`.
    pub fn classify(&self, x: &[f32]) -> Verdict {
        let logits = self.layer.apply(x);
        let probabilities = softmax(&logits);
        let class = probabilities
            .iter()
            .enumerate()
            .fold(
                0,
                |best, (class, &p)| {
                    if p > probabilities[best] { class } else { best }
                },
            );
        Verdict {
            logits,
            probabilities,
            class,
        }
    }
}

/// e^(x - max) over their sum, ascending.
pub fn softmax(x: &[f32]) -> Vec<f32> {
    let greatest = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut y: Vec<f32> = x.iter().map(|&x| exp(x - greatest)).collect();
    let sum = y.iter().fold(0.0, |sum, &e| sum + e);
    y.iter_mut().for_each(|e| *e /= sum);
    y
}
