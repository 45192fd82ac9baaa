//! The exact gradient of a bag end to end, at the memory of a chunk of tiles for the network (METHOD 4).
//!
//! With a_i the attention logit of tile i, h_i its features, z the pool and u the loss's gradient at z, the gradient of the
//! loss is the sum over tiles of the gradients of da_i a_i + <dh_i, h_i>, in which da_i = dL/da_i and dh_i = dL/dh_i through the
//! pool alone are constants. So a first pass without gradients pools, the classifier's own backward pass gives u, the
//! pool's backward kernel gives da and dh, and a second pass sends each chunk of tiles back by itself: no activation of the
//! network is kept beyond its chunk, and neither the order nor the size of chunks changes the sum. What does grow with the bag
//! is its features and dL/dh, 8 bytes a feature and tile together: 10 MB for 10,000 tiles of 128 features.
//!
//! Pool and gradient are the kernels that pool in a run ([`PoolPasses`]), so a model answers in use as it did in training. `max`
//! is no sum of numerators: its weights are taken here, and their gradient is the softmax's, straight through.

use crate::TrainError;
use crate::nets::{BagNet, cross_entropy, numbers, targets};
use crate::pooling::{Numerator, greatest, weights};
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::{Device, Tensor, TensorData};
use std::ops::Range;
use weir_model::PoolPasses;
use weir_model::gradient::Forward;

/// The tiles of a bag, as many as are asked for at a time: the network's numbers [tiles, 3, size, size].
pub trait Members {
    /// How many there are.
    fn count(&self) -> usize;
    /// Those in `range`; the same whenever they are asked for.
    fn numbers(&self, range: Range<usize>) -> Result<Vec<f32>, TrainError>;
}

/// What a forward pass of a bag made.
#[derive(Clone, Debug)]
pub struct Pooled {
    /// z.
    pub pooled: Vec<f32>,
    /// Attention logits, in the order of the members.
    pub logits: Vec<f32>,
    /// Weights, likewise.
    pub weights: Vec<f64>,
    /// Features, [members, feature].
    features: Vec<f32>,
    /// What made it.
    by: Pass,
}

impl Pooled {
    /// Without what only the second pass needs.
    pub fn without_features(mut self) -> Self {
        self.features = Vec::new();
        self
    }
}

/// What pooled a bag.
#[derive(Clone, Debug)]
enum Pass {
    /// The kernels.
    Kernels(Forward),
    /// The maximum; the sum of the exponentials of its softmax.
    Greatest(f64),
}

/// Shape of the tiles and what is done with them.
#[derive(Clone, Debug)]
pub struct Form {
    /// Width and height of a tile, px.
    pub size: usize,
    /// Tiles at a time.
    pub chunk: usize,
    /// Number of classes.
    pub classes: usize,
    /// From logits to weights.
    pub numerator: Numerator,
    /// The pool by them; `None` for the maximum.
    pub passes: Option<PoolPasses>,
}

impl Form {
    fn tensor(
        &self,
        members: &dyn Members,
        range: Range<usize>,
        device: &Device,
    ) -> Result<Tensor<4>, TrainError> {
        let n = range.len();
        let numbers = members.numbers(range)?;
        Ok(Tensor::from_data(
            TensorData::new(numbers, [n, 3, self.size, self.size]),
            device,
        ))
    }

    fn chunks(&self, count: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let chunk = self.chunk.max(1);
        (0..count)
            .step_by(chunk)
            .map(move |from| from..(from + chunk).min(count))
    }

    /// The first pass: pooled features and weights, without gradients. `plain` is the network off the tape.
    pub fn pool(
        &self,
        plain: &BagNet,
        members: &dyn Members,
        device: &Device,
    ) -> Result<Pooled, TrainError> {
        let (mut features, mut logits) = (Vec::new(), Vec::new());
        for range in self.chunks(members.count()) {
            let h = plain.encoder.forward(self.tensor(members, range, device)?);
            logits.extend(numbers(plain.attend(h.clone())));
            features.extend(numbers(h));
        }
        let n = logits.len();
        let width = features.len() / n.max(1);
        if let Some(passes) = &self.passes {
            let forward = passes
                .forward(&features, width, &logits)
                .map_err(TrainError::Kernel)?;
            return Ok(Pooled {
                pooled: forward.pooled.clone(),
                weights: forward.weights.iter().copied().map(f64::from).collect(),
                logits,
                features,
                by: Pass::Kernels(forward),
            });
        }
        let shift = logits.iter().copied().fold(f32::MIN, f32::max);
        let column = Tensor::<2>::from_data(TensorData::new(logits.clone(), [n, 1]), device);
        let (_, sum) = weights(&numbers(self.numerator.of(column, shift)));
        let best = greatest(&logits);
        Ok(Pooled {
            pooled: features[best * width..][..width].to_vec(),
            weights: (0..n).map(|i| f64::from(u8::from(i == best))).collect(),
            logits,
            features,
            by: Pass::Greatest(sum),
        })
    }

    /// Loss and gradient of one bag, added to `sum`. `weight` multiplies both. Batch normalisation is frozen (condition C1).
    ///
    /// `nets` are the network and itself off the tape.
    pub fn gradient(
        &self,
        (net, plain): (&BagNet, &BagNet),
        members: &dyn Members,
        (class, weight): (usize, f32),
        device: &Device,
        sum: &mut GradientsAccumulator<BagNet>,
    ) -> Result<f32, TrainError> {
        let bag = self.pool(plain, members, &device.clone().inner())?;
        let width = bag.pooled.len();
        let z: Tensor<2> =
            Tensor::<2>::from_data(TensorData::new(bag.pooled.clone(), [1, width]), device)
                .require_grad();
        let truth = targets(&[(class, weight)], self.classes, device);
        let loss = cross_entropy(net.classify(z.clone()), truth);
        let value = numbers(loss.clone()).first().copied().unwrap_or(f32::NAN);
        let mut grads = loss.backward();
        let u = z.grad_remove(&mut grads).map(numbers).unwrap_or_default();
        sum.accumulate(net, GradientsParams::from_grads(grads, net));

        let backward = match (&self.passes, &bag.by) {
            (Some(passes), Pass::Kernels(forward)) => Some(
                passes
                    .backward(&bag.features, width, &bag.logits, forward, &u)
                    .map_err(TrainError::Kernel)?,
            ),
            _ => None,
        };
        let matrix = |values: &[f32], width: usize| -> Tensor<2> {
            let rows = values.len() / width.max(1);
            Tensor::from_data(TensorData::new(values.to_vec(), [rows, width]), device)
        };
        let shift = bag.logits.iter().copied().fold(f32::MIN, f32::max);
        let (z, u) = (matrix(&bag.pooled, width), matrix(&u, width));
        for range in self.chunks(members.count()) {
            let h = net
                .encoder
                .forward(self.tensor(members, range.clone(), device)?);
            let surrogate = match (&backward, &bag.by) {
                (Some(backward), _) => {
                    let da = matrix(&backward.logits[range.clone()], 1);
                    let part = range.start * width..range.end * width;
                    let dh = matrix(&backward.features[part], width);
                    net.attend(h.clone()) * da + (h * dh).sum_dim(1)
                }
                (None, by) => {
                    // What a member adds, by its hard weight; how its weight moves, as a softmax would.
                    let sum = match by {
                        Pass::Greatest(sum) => *sum as f32,
                        Pass::Kernels(forward) => forward.sum,
                    };
                    let held: Vec<f32> = bag.weights[range].iter().map(|w| *w as f32).collect();
                    let held = matrix(&held, 1);
                    let soft = self.numerator.of(net.attend(h.clone()), shift) / sum;
                    let along = ((h.clone().detach() - z.clone()) * u.clone()).sum_dim(1);
                    soft * along + held * (h * u.clone()).sum_dim(1)
                }
            };
            let grads = surrogate.sum_dim(0).reshape([1]).backward();
            sum.accumulate(net, GradientsParams::from_grads(grads, net));
        }
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::nets::Trained;
    use burn::module::{Module, ModuleVisitor, Param};
    use std::sync::Arc;
    use weir_kernels::{Auto, Cpu};
    use weir_model::head::bag_parameters;
    use weir_model::{Network, Weights};

    const SIZE: usize = 12;

    /// Tiles of numbers that differ everywhere.
    struct Tiles(usize);

    impl Members for Tiles {
        fn count(&self) -> usize {
            self.0
        }

        fn numbers(&self, range: Range<usize>) -> Result<Vec<f32>, TrainError> {
            let len = 3 * SIZE * SIZE;
            let of = |k: usize| ((k * 7919 + 13) % 1009) as f32 / 500.0 - 1.0;
            Ok((range.start * len..range.end * len).map(of).collect())
        }
    }

    fn net(gated: bool, device: &Device) -> BagNet {
        let network = Network::new("small", 16).unwrap();
        let weights = Weights::start(&bag_parameters(&network, 8, gated, 3), 5);
        BagNet::new(&network, 8, gated, 3, &weights, device).unwrap()
    }

    struct Flat<'a>(&'a GradientsParams, Vec<f32>);

    impl ModuleVisitor for Flat<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(gradient) = self.0.get::<D>(param.id) {
                self.1.extend(numbers(gradient));
            }
        }
    }

    fn flat(net: &BagNet, gradients: &GradientsParams) -> Vec<f32> {
        let mut flat = Flat(gradients, Vec::new());
        net.visit(&mut flat);
        flat.1
    }

    fn form(numerator: Numerator, chunk: usize) -> Form {
        Form {
            size: SIZE,
            chunk,
            classes: 3,
            numerator,
            passes: numerator.passes(&Arc::new(Auto::cpu(Cpu::new(2).unwrap()))),
        }
    }

    fn by_surrogate(
        net: &BagNet,
        numerator: Numerator,
        chunk: usize,
        device: &Device,
    ) -> (f32, Vec<f32>) {
        let mut sum = GradientsAccumulator::new();
        let plain = net.valid();
        let loss = form(numerator, chunk)
            .gradient((net, &plain), &Tiles(7), (1, 0.7), device, &mut sum)
            .unwrap();
        (loss, flat(net, &sum.grads()))
    }

    /// The same loss as one graph, by burn's own differentiation.
    fn by_one_graph(net: &BagNet, numerator: Numerator, device: &Device) -> (f32, Vec<f32>) {
        let tiles = form(numerator, 7).tensor(&Tiles(7), 0..7, device).unwrap();
        let h = net.encoder.forward(tiles);
        let e = numerator.of(net.attend(h.clone()), 0.1);
        let z = (e.clone() * h).sum_dim(0) / e.sum_dim(0);
        let loss = cross_entropy(net.classify(z), targets(&[(1, 0.7)], 3, device));
        let value = numbers(loss.clone())[0];
        let gradients = GradientsParams::from_grads(loss.backward(), net);
        (value, flat(net, &gradients))
    }

    fn apart(a: &[f32], b: &[f32]) -> f64 {
        assert_eq!(a.len(), b.len());
        let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
        let difference = norm(&mut a.iter().zip(b).map(|(a, b)| f64::from(a - b)));
        difference / norm(&mut b.iter().map(|b| f64::from(*b)))
    }

    const FAMILY: [Numerator; 6] = [
        Numerator::Power {
            exponent: 2.0,
            sigmoid: true,
        },
        Numerator::Power {
            exponent: 2.0,
            sigmoid: false,
        },
        Numerator::Power {
            exponent: 1.0,
            sigmoid: true,
        },
        Numerator::Power {
            exponent: 3.0,
            sigmoid: false,
        },
        Numerator::Exponential,
        Numerator::One,
    ];

    #[test]
    fn the_surrogate_gradient_is_the_gradient_of_the_whole_bag_as_one_graph() {
        let device = Device::flex().autodiff();
        for gated in [false, true] {
            let net = net(gated, &device);
            let count = net.weights().count();
            for numerator in FAMILY {
                let (loss, surrogate) = by_surrogate(&net, numerator, 3, &device);
                let (whole_loss, whole) = by_one_graph(&net, numerator, &device);
                assert!(
                    (loss - whole_loss).abs() <= 1e-5 * whole_loss,
                    "{numerator:?}"
                );
                let far = apart(&surrogate, &whole);
                assert!(far < 1e-5, "{numerator:?}, gated {gated}: {far:e}");
                // Every array has a gradient, the attention's zeros of `mean` too.
                assert_eq!(surrogate.len(), count, "{numerator:?}");
            }
        }
    }

    #[test]
    fn the_gradient_does_not_hang_on_the_size_of_chunks() {
        let device = Device::flex().autodiff();
        let net = net(false, &device);
        for numerator in FAMILY.into_iter().chain([Numerator::Greatest]) {
            let (_, one) = by_surrogate(&net, numerator, 1, &device);
            for chunk in [3, 7, 100] {
                let (_, other) = by_surrogate(&net, numerator, chunk, &device);
                let far = apart(&other, &one);
                assert!(far < 1e-5, "{numerator:?}, chunk {chunk}: {far:e}");
            }
        }
    }

    #[test]
    fn the_maximum_takes_one_member_and_still_trains_the_attention() {
        let device = Device::flex().autodiff();
        let net = net(false, &device);
        let pooled = form(Numerator::Greatest, 4)
            .pool(&net.valid(), &Tiles(7), &Device::flex())
            .unwrap();
        assert_eq!(pooled.weights.iter().filter(|w| **w == 1.0).count(), 1);
        let best = greatest(&pooled.logits);
        assert_eq!(pooled.weights[best], 1.0);
        let (_, straight) = by_surrogate(&net, Numerator::Greatest, 4, &device);
        let (_, even) = by_surrogate(&net, Numerator::One, 4, &device);
        assert_eq!(straight.len(), even.len());
        assert!(apart(&straight, &even) > 0.01);
    }
}
