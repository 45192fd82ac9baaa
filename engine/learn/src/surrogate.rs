//! The exact gradient of a bag end to end at constant memory (METHOD 4).
//!
//! With e_i the numerator of tile i, S their sum, z = sum(e_i h_i) / S and u the loss's gradient at z, the gradient of the
//! loss is the sum over tiles of the gradients of e_i / S * u.(h_i - z), in which S, z and u are constants. So a first pass
//! without gradients finds S and z, the classifier's own backward pass gives u, and a second pass sends each chunk of tiles
//! back by itself: the memory is that of a chunk, and neither the order nor the size of chunks changes the sum.

use crate::TrainError;
use crate::nets::{BagNet, cross_entropy, numbers, targets};
use crate::pooling::{Numerator, greatest, weights};
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::{Device, Tensor, TensorData};
use std::ops::Range;

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
    /// Sum of the numerators; 0 when the weights are uniform for want of any.
    pub sum: f64,
}

/// Shape of the tiles and what is done with them.
#[derive(Clone, Copy, Debug)]
pub struct Form {
    /// Width and height of a tile, px.
    pub size: usize,
    /// Tiles at a time.
    pub chunk: usize,
    /// Number of classes.
    pub classes: usize,
    /// From logits to weights.
    pub numerator: Numerator,
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
        let shift = logits.iter().copied().fold(f32::MIN, f32::max);
        let n = logits.len();
        let column = Tensor::<2>::from_data(TensorData::new(logits.clone(), [n, 1]), device);
        let (mut weights, sum) = weights(&numbers(self.numerator.of(column, shift)));
        if self.numerator == Numerator::Greatest {
            let best = greatest(&logits);
            weights = (0..n).map(|i| f64::from(u8::from(i == best))).collect();
        }
        let width = features.len() / n.max(1);
        let mut pooled = vec![0.0f64; width];
        for (h, w) in features.chunks_exact(width.max(1)).zip(&weights) {
            for (z, h) in pooled.iter_mut().zip(h) {
                *z += w * f64::from(*h);
            }
        }
        Ok(Pooled {
            pooled: pooled.into_iter().map(|z| z as f32).collect(),
            logits,
            weights,
            sum,
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

        let shift = bag.logits.iter().copied().fold(f32::MIN, f32::max);
        let row = |values: Vec<f32>| -> Tensor<2> {
            Tensor::from_data(TensorData::new(values, [1, width]), device)
        };
        let (u, z) = (row(u), row(bag.pooled.clone()));
        for range in self.chunks(members.count()) {
            let held: Vec<f32> = bag.weights[range.clone()]
                .iter()
                .map(|w| *w as f32)
                .collect();
            let n = held.len();
            let held = Tensor::<2>::from_data(TensorData::new(held, [n, 1]), device);
            let h = net.encoder.forward(self.tensor(members, range, device)?);
            let surrogate = if self.numerator == Numerator::Greatest {
                // What a member adds, by its hard weight; how its weight moves, as a softmax would.
                let soft = self.numerator.of(net.attend(h.clone()), shift) / bag.sum as f32;
                let along = ((h.clone().detach() - z.clone()) * u.clone()).sum_dim(1);
                soft * along + held * (h * u.clone()).sum_dim(1)
            } else if bag.sum > 0.0 {
                let e = self.numerator.of(net.attend(h.clone()), shift) / bag.sum as f32;
                e * ((h - z.clone()) * u.clone()).sum_dim(1)
            } else {
                held * (h * u.clone()).sum_dim(1)
            };
            let grads = surrogate.sum_dim(0).reshape([1]).backward();
            sum.accumulate(net, GradientsParams::from_grads(grads, net));
        }
        Ok(value)
    }
}
