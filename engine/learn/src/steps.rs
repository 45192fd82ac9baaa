//! Steps of AdamW on a network, the rate that they follow, and the mean of the weights that is kept.

use crate::nets::Trained;
use crate::recipe::Steps;
use burn::grad_clipping::GradientClippingConfig;
use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer};
use weir_model::Weights;

/// A network in training.
pub struct Training<M> {
    /// As the last step left it.
    pub net: M,
    /// AdamW's moments.
    pub optimiser: ModuleOptimizer,
    /// The mean that is kept; the weights themselves when the recipe wants none.
    pub mean: Weights,
    /// Steps so far.
    pub steps: u64,
    config: Steps,
}

impl<M: Trained> Training<M> {
    /// Before the first step.
    pub fn new(net: M, config: Steps) -> Self {
        let optimiser = AdamWConfig::new()
            .with_epsilon(1e-8)
            .with_weight_decay(config.weight_decay)
            .with_grad_clipping(Some(GradientClippingConfig::Norm(config.clip)))
            .init();
        Training {
            mean: net.weights(),
            net,
            optimiser,
            steps: 0,
            config,
        }
    }

    /// One step; `part` of the training is behind, 0 to 1.
    pub fn step(mut self, grads: GradientsParams, part: f64) -> Self {
        self.net = self
            .optimiser
            .step(rate(&self.config, part), self.net, grads);
        self.steps += 1;
        // The first weights are soon worthless, so the mean begins short.
        let t = self.steps as f32;
        let keep = self.config.average.min((1.0 + t) / (10.0 + t));
        self.mean = if self.config.average > 0.0 {
            mean(&self.mean, &self.net.weights(), keep)
        } else {
            self.net.weights()
        };
        self
    }
}

/// keep * old + (1 - keep) * new, array by array. Running statistics are means already: the new ones stand.
fn mean(old: &Weights, new: &Weights, keep: f32) -> Weights {
    let mut mean = Weights::new();
    for ((name, old), (_, new)) in old.iter().zip(new.iter()) {
        let keep = if name.contains(".running_") {
            0.0
        } else {
            keep
        };
        let values = old.values.iter().zip(&new.values);
        let values = values.map(|(old, new)| keep * old + (1.0 - keep) * new);
        mean.insert(name, new.shape.clone(), values.collect());
    }
    mean
}

/// Learning rate when `part` of the training is behind: a straight line up, then half a cosine down to a hundredth.
pub fn rate(steps: &Steps, part: f64) -> f64 {
    let floor = 0.01;
    if part < steps.warm_up {
        return steps.rate * (floor + (1.0 - floor) * part / steps.warm_up);
    }
    let down = ((part - steps.warm_up) / (1.0 - steps.warm_up)).min(1.0);
    let cosine = (1.0 + (std::f64::consts::PI * down).cos()) / 2.0;
    steps.rate * (floor + (1.0 - floor) * cosine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_climbs_to_its_greatest_and_falls_to_a_hundredth() {
        let steps = Steps {
            rate: 2.0,
            warm_up: 0.1,
            weight_decay: 0.0,
            clip: 1.0,
            average: 0.0,
        };
        assert!((rate(&steps, 0.0) - 0.02).abs() < 1e-12);
        assert!((rate(&steps, 0.1) - 2.0).abs() < 1e-12);
        assert!((rate(&steps, 0.55) - 1.01).abs() < 1e-12);
        assert!((rate(&steps, 1.0) - 0.02).abs() < 1e-12);
        let rates: Vec<f64> = (0..=100).map(|k| rate(&steps, k as f64 / 100.0)).collect();
        assert!(rates[..=10].is_sorted() && rates[10..].is_sorted_by(|a, b| a >= b));
    }
}
