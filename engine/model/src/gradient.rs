//! The pool in training: what a bag is pooled to, and the gradient of that by its members, in weir-kernels.
//!
//! The same kernels pool in a run, so that a model answers in use as it did while it was trained.

use std::sync::Arc;
use weir_kernels::kernels::{PoolBackward, PoolGradient, PoolOut, PoolState, WeightsOut};
use weir_kernels::normalise::{Link, Normalisation};
use weir_kernels::view::{View, ViewMut};
use weir_kernels::{Auto, Bags, KernelError, Kernels, Rule};

/// A pool with its gradient.
#[derive(Clone, Debug)]
pub struct PoolPasses {
    kernels: Arc<Auto>,
    rule: Rule,
}

/// What a pool's forward pass made; its backward pass needs all of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Forward {
    /// z, `[d]`; empty for an empty bag.
    pub pooled: Vec<f32>,
    /// Weights, `[n]`.
    pub weights: Vec<f32>,
    /// Sum of the numerators.
    pub sum: f32,
    flags: u32,
}

/// The loss's gradient by a pool's arguments.
#[derive(Clone, Debug, PartialEq)]
pub struct Backward {
    /// dL/da, `[n]`.
    pub logits: Vec<f32>,
    /// dL/dh through the pool alone, `[n, d]`.
    pub features: Vec<f32>,
}

impl PoolPasses {
    /// By one of [`Normalisation::NAMES`] and one of [`Link::NAMES`], on these kernels. `None` for a normalisation that has no
    /// such gradient: `max` and `sparsemax`.
    pub fn new(
        normalise: &str,
        link: &str,
        power: Option<f32>,
        kernels: Arc<Auto>,
    ) -> Option<PoolPasses> {
        let normalisation = Normalisation::parse(normalise, power)?;
        if matches!(normalisation, Normalisation::Max | Normalisation::Sparsemax) {
            return None;
        }
        let rule = Rule {
            normalisation,
            link: Link::parse(link)?,
        };
        Some(PoolPasses { kernels, rule })
    }

    /// Pools `features`, `[n, width]`, by `logits`, `[n]`.
    pub fn forward(
        &self,
        features: &[f32],
        width: usize,
        logits: &[f32],
    ) -> Result<Forward, KernelError> {
        let n = logits.len();
        let bags = Bags::one(n)?;
        let (mut pooled, mut weights) = (vec![0.0f32; width], vec![0.0f32; n]);
        let (mut sums, mut squares, mut entropy, mut flags) =
            ([0.0f32], [0.0f32], [0.0f32], [0u32]);
        let out = PoolOut {
            pooled: ViewMut::new(&mut pooled, [1, width])?,
            weights: WeightsOut {
                weights: ViewMut::new(&mut weights, [n])?,
                sums: ViewMut::new(&mut sums, [1])?,
                squares: ViewMut::new(&mut squares, [1])?,
                entropy: ViewMut::new(&mut entropy, [1])?,
                flags: ViewMut::new(&mut flags, [1])?,
            },
        };
        let (features, logits) = (View::new(features, [n, width])?, View::new(logits, [n])?);
        self.kernels.pool(&bags, self.rule, features, logits, out)?;
        Ok(Forward {
            pooled,
            weights,
            sum: sums[0],
            flags: flags[0],
        })
    }

    /// The gradient, from `u` = dL/dz, `[width]`.
    pub fn backward(
        &self,
        features: &[f32],
        width: usize,
        logits: &[f32],
        forward: &Forward,
        u: &[f32],
    ) -> Result<Backward, KernelError> {
        let n = logits.len();
        let bags = Bags::one(n)?;
        let mut by_logits = vec![0.0f32; n];
        let mut by_features = vec![0.0f32; n * width];
        let (sums, flags) = ([forward.sum], [forward.flags]);
        let state = PoolState {
            pooled: View::new(&forward.pooled, [1, width])?,
            weights: View::new(&forward.weights, [n])?,
            sums: View::new(&sums, [1])?,
            flags: View::new(&flags, [1])?,
        };
        let gradient = PoolGradient {
            pooled: View::new(u, [1, width])?,
            weights: None,
        };
        let out = PoolBackward {
            logits: ViewMut::new(&mut by_logits, [n])?,
            features: Some(ViewMut::new(&mut by_features, [n, width])?),
        };
        let (features, logits) = (View::new(features, [n, width])?, View::new(logits, [n])?);
        self.kernels
            .pool_backward(&bags, self.rule, features, logits, state, gradient, out)?;
        Ok(Backward {
            logits: by_logits,
            features: by_features,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use weir_kernels::Cpu;

    fn processor() -> Arc<Auto> {
        Arc::new(Auto::cpu(Cpu::new(2).unwrap()))
    }

    /// METHOD 2.2's golden vector.
    #[test]
    fn the_squared_average_has_its_golden_gradient() {
        let pool = PoolPasses::new("squared-average", "none", None, processor()).unwrap();
        let features = [1.0, 0.0, 0.0, 2.0, 4.0, 1.0, 9.0, 9.0];
        let logits = [1.0, 2.0, -3.0, 0.0];
        let forward = pool.forward(&features, 2, &logits).unwrap();
        assert_eq!(forward.pooled, [37.0 / 14.0, 17.0 / 14.0]);
        assert_eq!(forward.sum, 14.0);
        let backward = pool
            .backward(&features, 2, &logits, &forward, &[1.0, -1.0])
            .unwrap();
        for (got, wanted) in backward.logits.iter().zip([-6.0, -96.0, -66.0, 0.0]) {
            assert!((got - wanted / 98.0).abs() < 1e-6, "{got} {wanted}");
        }
        let weights = [1.0, 4.0, 9.0, 0.0].map(|w: f32| w / 14.0);
        for (pair, w) in backward.features.chunks(2).zip(weights) {
            assert_eq!(pair, [w, -w]);
        }
    }

    #[test]
    fn normalisations_without_such_a_gradient_are_none() {
        assert!(PoolPasses::new("max", "none", None, processor()).is_none());
        assert!(PoolPasses::new("sparsemax", "none", None, processor()).is_none());
    }
}
