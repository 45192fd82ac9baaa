//! The network description as a burn module: what the trainer trains and the `burn` executor runs.
//!
//! Parameters lie in lists by rank, in the order of [`Network::parameters`]; the layers are walked as data, so that a
//! change of a network is a change of its description alone.

use crate::network::{EPSILON, Layer, Network};
use crate::weights::{Weights, WeightsError};
use burn::module::{Module, Param};
use burn::tensor::activation::relu;
use burn::tensor::module::{avg_pool2d, conv2d, max_pool2d};
use burn::tensor::ops::{AvgPoolOptions, ConvOptions, MaxPoolOptions};
use burn::tensor::{Device, Tensor, TensorData};

/// A network with its parameters on a device.
#[derive(Module, Debug)]
pub struct Net {
    kernels: Vec<Param<Tensor<4>>>,
    matrices: Vec<Param<Tensor<2>>>,
    vectors: Vec<Param<Tensor<1>>>,
    /// Running mean and variance of each batch normalisation in turn; never trained.
    statistics: Vec<Param<Tensor<1>>>,
    #[module(skip)]
    network: Network,
}

/// Mean and variance of one batch, for each batch normalisation in turn.
pub struct BatchStatistics(Vec<Tensor<1>>);

/// What batch normalisation takes as mean and variance.
enum Norm<'a> {
    /// The running statistics: each tile's output is its own (METHOD 4, condition C1).
    Frozen,
    /// Those of the batch, which are also kept.
    Batch(&'a mut Vec<Tensor<1>>),
}

/// How many parameters of each list the layers so far have used.
#[derive(Default)]
struct Used {
    kernels: usize,
    matrices: usize,
    vectors: usize,
    statistics: usize,
}

impl Net {
    /// The network with `weights`, which must hold each of [`Network::parameters`]; other arrays are ignored.
    ///
    /// On `device.autodiff()` the parameters are trainable; running statistics are not.
    pub fn new(network: &Network, weights: &Weights, device: &Device) -> Result<Net, WeightsError> {
        let mut net = Net {
            kernels: Vec::new(),
            matrices: Vec::new(),
            vectors: Vec::new(),
            statistics: Vec::new(),
            network: network.clone(),
        };
        for parameter in network.parameters() {
            let values = weights.values(&parameter.name, &parameter.shape)?.to_vec();
            let data = TensorData::new(values, parameter.shape.clone());
            match (parameter.shape.len(), parameter.trained) {
                (4, _) => net.kernels.push(Param::from_data(data, device)),
                (2, _) => net.matrices.push(Param::from_data(data, device)),
                (_, true) => net.vectors.push(Param::from_data(data, device)),
                (_, false) => net
                    .statistics
                    .push(Param::from_data(data, device).set_require_grad(false)),
            }
        }
        Ok(net)
    }

    /// The description that it was made from.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The parameters and statistics by their names, as they stand.
    pub fn weights(&self) -> Weights {
        let mut weights = Weights::new();
        let (mut k, mut m, mut v, mut s) = (
            self.kernels.iter(),
            self.matrices.iter(),
            self.vectors.iter(),
            self.statistics.iter(),
        );
        for parameter in self.network.parameters() {
            let values = match (parameter.shape.len(), parameter.trained) {
                (4, _) => k.next().map(|p| values(p.val())),
                (2, _) => m.next().map(|p| values(p.val())),
                (_, true) => v.next().map(|p| values(p.val())),
                (_, false) => s.next().map(|p| values(p.val())),
            };
            // `new` made exactly one entry for each parameter, and nothing removes one.
            if let Some(values) = values {
                weights.insert(&parameter.name, parameter.shape, values);
            }
        }
        weights
    }

    /// Tiles [n, 3, size, size], as [`Input::tensor`](crate::Input::tensor) makes them, to features [n, feature].
    /// Batch normalisation uses its running statistics, so each row depends on its own tile alone.
    pub fn forward(&self, tiles: Tensor<4>) -> Tensor<2> {
        self.run(tiles, &mut Norm::Frozen)
    }

    /// As [`Net::forward`], but batch normalisation uses the batch's statistics and hands them out.
    pub fn forward_by_batch(&self, tiles: Tensor<4>) -> (Tensor<2>, BatchStatistics) {
        let mut kept = Vec::new();
        let features = self.run(tiles, &mut Norm::Batch(&mut kept));
        (features, BatchStatistics(kept))
    }

    /// Moves the running statistics by `momentum` (PyTorch's sense, usually 0.1) towards those of a batch.
    pub fn with_statistics(mut self, batch: BatchStatistics, momentum: f32) -> Net {
        let old = std::mem::take(&mut self.statistics);
        self.statistics = old
            .into_iter()
            .zip(batch.0)
            .map(|(old, new)| {
                old.map(|old| {
                    let device = old.device();
                    let new = Tensor::from_data(new.into_data(), &device);
                    (old.detach() * (1.0 - momentum) + new * momentum).set_require_grad(false)
                })
            })
            .collect();
        self
    }

    fn run(&self, tiles: Tensor<4>, norm: &mut Norm) -> Tensor<2> {
        let used = &mut Used::default();
        let mut x = tiles;
        let mut layers = self.network.layers.iter();
        for layer in layers.by_ref() {
            if matches!(layer, Layer::GlobalAveragePool) {
                break;
            }
            x = self.layer(layer, x, used, norm);
        }
        let [n, channels, height, width] = x.dims();
        let mut y: Tensor<2> = x
            .reshape([n, channels, height * width])
            .mean_dim(2)
            .reshape([n, channels]);
        for layer in layers {
            y = match layer {
                Layer::Linear { .. } => {
                    let weight = self.matrices[used.matrices].val();
                    let bias = self.vector(used);
                    used.matrices += 1;
                    y.matmul(weight.transpose()) + bias.unsqueeze()
                }
                _ => relu(y),
            };
        }
        y
    }

    fn vector(&self, used: &mut Used) -> Tensor<1> {
        used.vectors += 1;
        self.vectors[used.vectors - 1].val()
    }

    fn layers(
        &self,
        layers: &[Layer],
        x: Tensor<4>,
        used: &mut Used,
        norm: &mut Norm,
    ) -> Tensor<4> {
        layers
            .iter()
            .fold(x, |x, layer| self.layer(layer, x, used, norm))
    }

    fn layer(&self, layer: &Layer, x: Tensor<4>, used: &mut Used, norm: &mut Norm) -> Tensor<4> {
        match layer {
            Layer::Conv {
                stride,
                padding,
                bias,
                ..
            } => {
                let kernel = self.kernels[used.kernels].val();
                used.kernels += 1;
                let bias = bias.then(|| self.vector(used));
                let options = ConvOptions::new([*stride; 2], [*padding; 2], [1, 1], 1);
                conv2d(x, kernel, bias, options)
            }
            Layer::GroupNorm { groups, .. } => {
                let (scale, shift) = (self.vector(used), self.vector(used));
                group_norm(x, *groups, scale, shift)
            }
            Layer::BatchNorm { channels, .. } => {
                let (scale, shift) = (self.vector(used), self.vector(used));
                let at = used.statistics;
                used.statistics += 2;
                let (mean, variance) = match norm {
                    Norm::Frozen => (self.statistics[at].val(), self.statistics[at + 1].val()),
                    Norm::Batch(kept) => {
                        let (mean, variance, unbiased) = batch_statistics(&x);
                        kept.push(mean.clone().detach());
                        kept.push(unbiased.detach());
                        (mean, variance)
                    }
                };
                let shape = [1, *channels, 1, 1];
                let scale = scale / (variance + EPSILON).sqrt();
                let shift = shift - mean * scale.clone();
                x * scale.reshape(shape) + shift.reshape(shape)
            }
            Layer::Relu => relu(x),
            Layer::MaxPool {
                kernel,
                stride,
                padding,
            } => max_pool2d(
                x,
                MaxPoolOptions {
                    stride: [*stride; 2],
                    padding: [(*padding, *padding); 2],
                    ..MaxPoolOptions::new([*kernel; 2])
                },
            ),
            Layer::AveragePool { kernel, stride } => avg_pool2d(
                x,
                AvgPoolOptions {
                    stride: [*stride; 2],
                    ..AvgPoolOptions::new([*kernel; 2])
                },
            ),
            Layer::Residual { body, shortcut } => {
                let through = self.layers(body, x.clone(), used, norm);
                let past = self.layers(shortcut, x, used, norm);
                relu(through + past)
            }
            // Only after the global pool, where `run` walks the layers itself.
            Layer::GlobalAveragePool | Layer::Linear { .. } => x,
        }
    }
}

/// Mean, variance, and variance with n - 1 below (what PyTorch keeps) of each channel over batch, height and width.
fn batch_statistics(x: &Tensor<4>) -> (Tensor<1>, Tensor<1>, Tensor<1>) {
    let [n, channels, height, width] = x.dims();
    let rows: Tensor<2> = x
        .clone()
        .swap_dims(0, 1)
        .reshape([channels, n * height * width]);
    let mean = rows.clone().mean_dim(1);
    let variance: Tensor<1> = (rows - mean.clone())
        .powi_scalar(2)
        .mean_dim(1)
        .reshape([channels]);
    let count = (n * height * width) as f32;
    let unbiased = variance.clone() * (count / (count - 1.0).max(1.0));
    (mean.reshape([channels]), variance, unbiased)
}

/// Wu and He 2018, equation 1 and 2, biased variance.
fn group_norm(x: Tensor<4>, groups: usize, scale: Tensor<1>, shift: Tensor<1>) -> Tensor<4> {
    let [n, channels, height, width] = x.dims();
    let rows: Tensor<2> = x.reshape([n * groups, channels / groups * height * width]);
    let centred = rows.clone() - rows.mean_dim(1);
    let variance = centred.clone().powi_scalar(2).mean_dim(1);
    let normal: Tensor<4> =
        (centred / (variance + EPSILON).sqrt()).reshape([n, channels, height, width]);
    let shape = [1, channels, 1, 1];
    normal * scale.reshape(shape) + shift.reshape(shape)
}

/// A tensor's numbers on the host.
pub(crate) fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    // Every tensor here is f32 by construction.
    tensor.into_data().try_to_vec().unwrap_or_default()
}
