//! The two models as burn modules: the encoder of weir-model, and what stands after it.

use burn::module::{Module, Param};
use burn::tensor::activation::{log_softmax, sigmoid};
use burn::tensor::{Device, Tensor, TensorData};
use weir_model::head::{ATTENTION_U, ATTENTION_V, ATTENTION_W, CLASSIFIER};
use weir_model::{Net, Network, Weights, WeightsError};

/// A fully connected layer, PyTorch's layout.
#[derive(Module, Debug)]
pub struct Dense {
    weight: Param<Tensor<2>>,
    bias: Param<Tensor<1>>,
    #[module(skip)]
    name: String,
}

impl Dense {
    fn new(
        name: &str,
        input: usize,
        output: usize,
        weights: &Weights,
        device: &Device,
    ) -> Result<Dense, WeightsError> {
        let part = |part: &str, shape: &[usize]| -> Result<TensorData, WeightsError> {
            let values = weights.values(&format!("{name}.{part}"), shape)?;
            Ok(TensorData::new(values.to_vec(), shape.to_vec()))
        };
        Ok(Dense {
            weight: Param::from_data(part("weight", &[output, input])?, device),
            bias: Param::from_data(part("bias", &[output])?, device),
            name: name.to_string(),
        })
    }

    /// [n, input] to [n, output].
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        x.matmul(self.weight.val().transpose()) + self.bias.val().unsqueeze()
    }

    fn write(&self, weights: &mut Weights) {
        let shape = self.weight.val().dims();
        weights.insert(
            &format!("{}.weight", self.name),
            shape.to_vec(),
            numbers(self.weight.val()),
        );
        weights.insert(
            &format!("{}.bias", self.name),
            vec![shape[0]],
            numbers(self.bias.val()),
        );
    }
}

/// A tensor's numbers on the host.
pub fn numbers<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    // Every tensor here is f32 by construction.
    tensor.into_data().try_to_vec().unwrap_or_default()
}

/// A network that is trained: its weights can be taken out by name.
pub trait Trained: Module {
    /// All arrays as they stand.
    fn weights(&self) -> Weights;
}

/// Model A: encoder and classifier.
#[derive(Module, Debug)]
pub struct ScorerNet {
    /// From tiles to features.
    pub encoder: Net,
    classifier: Dense,
}

impl ScorerNet {
    /// With `weights`, on a device.
    pub fn new(
        network: &Network,
        classes: usize,
        weights: &Weights,
        device: &Device,
    ) -> Result<ScorerNet, WeightsError> {
        Ok(ScorerNet {
            encoder: Net::new(network, weights, device)?,
            classifier: Dense::new(CLASSIFIER, network.feature, classes, weights, device)?,
        })
    }

    /// Features [n, feature] to logits [n, classes].
    pub fn classify(&self, features: Tensor<2>) -> Tensor<2> {
        self.classifier.forward(features)
    }
}

impl Trained for ScorerNet {
    fn weights(&self) -> Weights {
        let mut weights = self.encoder.weights();
        self.classifier.write(&mut weights);
        weights
    }
}

/// Model B: encoder, attention head, classifier of the pooled features.
#[derive(Module, Debug)]
pub struct BagNet {
    /// From tiles to features.
    pub encoder: Net,
    v: Dense,
    u: Option<Dense>,
    w: Dense,
    classifier: Dense,
}

impl BagNet {
    /// With `weights`, on a device.
    pub fn new(
        network: &Network,
        hidden: usize,
        gated: bool,
        classes: usize,
        weights: &Weights,
        device: &Device,
    ) -> Result<BagNet, WeightsError> {
        let feature = network.feature;
        Ok(BagNet {
            encoder: Net::new(network, weights, device)?,
            v: Dense::new(ATTENTION_V, feature, hidden, weights, device)?,
            u: gated
                .then(|| Dense::new(ATTENTION_U, feature, hidden, weights, device))
                .transpose()?,
            w: Dense::new(ATTENTION_W, hidden, 1, weights, device)?,
            classifier: Dense::new(CLASSIFIER, feature, classes, weights, device)?,
        })
    }

    /// Features [n, feature] to attention logits [n, 1] (Ilse et al. 2018, equations 8 and 9).
    pub fn attend(&self, features: Tensor<2>) -> Tensor<2> {
        let hidden = self.v.forward(features.clone()).tanh();
        let hidden = match &self.u {
            Some(gate) => hidden * sigmoid(gate.forward(features)),
            None => hidden,
        };
        self.w.forward(hidden)
    }

    /// Pooled features [n, feature] to logits [n, classes].
    pub fn classify(&self, pooled: Tensor<2>) -> Tensor<2> {
        self.classifier.forward(pooled)
    }
}

impl Trained for BagNet {
    fn weights(&self) -> Weights {
        let mut weights = self.encoder.weights();
        let heads = [&self.v, &self.w, &self.classifier];
        for dense in heads.into_iter().chain(&self.u) {
            dense.write(&mut weights);
        }
        weights
    }
}

/// Sum over rows of weight times cross-entropy. `targets` [n, classes] holds each row's weight at its class, zeros elsewhere.
pub fn cross_entropy(logits: Tensor<2>, targets: Tensor<2>) -> Tensor<1> {
    // Rows first, then their sum: a sum over all numbers may be split over threads.
    let rows = (log_softmax(logits, 1) * targets).sum_dim(1);
    -rows.sum_dim(0).reshape([1])
}

/// The targets of [`cross_entropy`] from classes and weights.
pub fn targets(rows: &[(usize, f32)], classes: usize, device: &Device) -> Tensor<2> {
    let mut values = vec![0.0; rows.len() * classes];
    for (row, (class, weight)) in rows.iter().enumerate() {
        values[row * classes + class] = *weight;
    }
    Tensor::from_data(TensorData::new(values, [rows.len(), classes]), device)
}
