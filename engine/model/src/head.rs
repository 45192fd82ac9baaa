//! What stands after the feature vector, by the names of its arrays: the trainer writes them, the scorer and the bag model
//! read them. They lie in the same safetensors file as the encoder's.

use crate::error::ModelError;
use crate::network::{Network, Parameter, Start};
use crate::weights::Weights;
use weir_kernels::attention::AttentionHead;
use weir_kernels::linear::Linear;
use weir_pipeline::model::ModelHeader;

/// Last layer of both models: `classifier.weight` [classes, feature], `classifier.bias` `[classes]`.
pub const CLASSIFIER: &str = "classifier";
/// First layer of the attention head, before tanh: `attention.v.weight` [hidden, feature], `attention.v.bias` `[hidden]`.
pub const ATTENTION_V: &str = "attention.v";
/// Its gate, before the sigmoid, when the head is gated: as `attention.v`.
pub const ATTENTION_U: &str = "attention.u";
/// From hidden units to the attention logit: `attention.w.weight` [1, hidden], `attention.w.bias` `[1]`.
pub const ATTENTION_W: &str = "attention.w";

/// Every array of a scorer (A): the encoder's, then its last layer's.
pub fn scorer_parameters(network: &Network, classes: usize) -> Vec<Parameter> {
    let mut list = network.parameters();
    linear(&mut list, CLASSIFIER, network.feature, classes);
    list
}

/// Every array of a bag model (B): the encoder's, the attention head's, then the classifier's.
pub fn bag_parameters(
    network: &Network,
    hidden: usize,
    gated: bool,
    classes: usize,
) -> Vec<Parameter> {
    let mut list = network.parameters();
    linear(&mut list, ATTENTION_V, network.feature, hidden);
    if gated {
        linear(&mut list, ATTENTION_U, network.feature, hidden);
    }
    linear(&mut list, ATTENTION_W, hidden, 1);
    linear(&mut list, CLASSIFIER, network.feature, classes);
    list
}

fn linear(list: &mut Vec<Parameter>, name: &str, input: usize, output: usize) {
    let start = Start::Linear { fan: input };
    for (part, shape) in [("weight", vec![output, input]), ("bias", vec![output])] {
        list.push(Parameter {
            name: format!("{name}.{part}"),
            shape,
            start,
            trained: true,
        });
    }
}

/// `STEM.weight` [outputs, inputs] and `STEM.bias` [outputs].
pub(crate) fn layer(
    weights: &Weights,
    stem: &str,
    outputs: usize,
    inputs: u32,
) -> Result<Linear, ModelError> {
    let values = |part: &str, shape: &[usize]| {
        weights
            .values(&format!("{stem}.{part}"), shape)
            .map_err(ModelError::of_weights)
    };
    let weight = values("weight", &[outputs, inputs as usize])?;
    Ok(Linear::new(weight, values("bias", &[outputs])?))
}

/// The attention head of a bag model.
pub(crate) fn attention(
    weights: &Weights,
    header: &ModelHeader,
) -> Result<AttentionHead, ModelError> {
    let hidden = header.hidden as usize;
    let value = layer(weights, ATTENTION_V, hidden, header.feature)?;
    let gate = if header.gated {
        Some(layer(weights, ATTENTION_U, hidden, header.feature)?)
    } else {
        None
    };
    let last = layer(weights, ATTENTION_W, 1, header.hidden)?;
    Ok(AttentionHead::new(value, gate, last.row(0), last.bias(0)))
}
