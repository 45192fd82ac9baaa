//! Normalisations as what the trainer needs of them: from an attention logit to the numerator of a weight, with a gradient.
//!
//! z = sum(e_i h_i) / sum(e_i). That is METHOD 4's whole family; `max` is outside it and gets its gradient straight through.

use burn::tensor::Tensor;
use burn::tensor::activation::sigmoid;
use std::sync::Arc;
use weir_kernels::Auto;
use weir_model::PoolPasses;

/// The normalisations that can be trained.
pub const TRAINABLE: [&str; 6] = [
    "squared-average",
    "softmax",
    "sigmoid",
    "power",
    "mean",
    "max",
];

/// From attention logits to numerators.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Numerator {
    /// |g(a)|^p with the link g: the squared family.
    Power {
        /// Exponent.
        exponent: f32,
        /// Whether the logit goes through a sigmoid first.
        sigmoid: bool,
    },
    /// exp(a).
    Exponential,
    /// 1.
    One,
    /// 1 for the greatest logit (the first of equal ones), else 0; its gradient is the softmax's.
    Greatest,
}

impl Numerator {
    /// Of the recipe's words; `None` for one that cannot be trained.
    pub fn new(normalise: &str, link: &str, power: Option<f32>) -> Option<Numerator> {
        let sigmoid = link == "sigmoid";
        Some(match normalise {
            "squared-average" => Numerator::Power {
                exponent: 2.0,
                sigmoid,
            },
            "sigmoid" => Numerator::Power {
                exponent: 1.0,
                sigmoid: true,
            },
            "power" => Numerator::Power {
                exponent: power.unwrap_or(2.0),
                sigmoid,
            },
            "softmax" => Numerator::Exponential,
            "mean" => Numerator::One,
            "max" => Numerator::Greatest,
            _ => return None,
        })
    }

    /// The pool by these numerators and its gradient, in the kernels that a run uses; `None` for the maximum, which has none.
    pub fn passes(self, kernels: &Arc<Auto>) -> Option<PoolPasses> {
        let (normalise, sigmoid, power) = match self {
            Numerator::Power {
                exponent: 2.0,
                sigmoid,
            } => ("squared-average", sigmoid, None),
            Numerator::Power {
                exponent: 1.0,
                sigmoid: true,
            } => ("sigmoid", false, None),
            Numerator::Power { exponent, sigmoid } => ("power", sigmoid, Some(exponent)),
            Numerator::Exponential => ("softmax", false, None),
            Numerator::One => ("mean", false, None),
            Numerator::Greatest => return None,
        };
        let link = if sigmoid { "sigmoid" } else { "none" };
        PoolPasses::new(normalise, link, power, kernels.clone())
    }

    /// The numerators of logits [n, 1], differentiable. `shift` is the greatest logit of the bag, which the exponential is
    /// taken from on.
    pub fn of(self, logits: Tensor<2>, shift: f32) -> Tensor<2> {
        match self {
            Numerator::Power {
                exponent,
                sigmoid: link,
            } => {
                let g = if link { sigmoid(logits) } else { logits };
                if exponent == 1.0 && link {
                    g
                } else if exponent == 2.0 {
                    g.clone() * g
                } else {
                    // |0|^p has no gradient; 1e-18 is the end of the domain in which logits are let in.
                    g.abs().clamp_min(1e-18).powf_scalar(exponent)
                }
            }
            Numerator::Exponential | Numerator::Greatest => (logits - shift).exp(),
            Numerator::One => logits * 0.0 + 1.0,
        }
    }
}

/// Weights of a bag from its numerators, and their sum: uniform when all are zero (METHOD 2.1, guard 5).
pub fn weights(numerators: &[f32]) -> (Vec<f64>, f64) {
    let sum: f64 = numerators.iter().map(|e| f64::from(*e)).sum();
    if sum > 0.0 {
        let weights = numerators.iter().map(|e| f64::from(*e) / sum).collect();
        (weights, sum)
    } else {
        (
            vec![1.0 / numerators.len().max(1) as f64; numerators.len()],
            0.0,
        )
    }
}

/// The place of the greatest logit, the first of equal ones.
pub fn greatest(logits: &[f32]) -> usize {
    let mut best = 0;
    for (place, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = place;
        }
    }
    best
}
