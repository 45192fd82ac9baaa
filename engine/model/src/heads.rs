//! The layers behind the feature vector, out of the weights.

use crate::error::ModelError;
use crate::weights::Weights;
use weir_kernels::attention::AttentionHead;
use weir_kernels::linear::Linear;
use weir_pipeline::model::ModelHeader;

/// `STEM.weight` [outputs, inputs] and `STEM.bias` [outputs].
pub(crate) fn linear(
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
    let value = linear(weights, "attention.v", hidden, header.feature)?;
    let gate = if header.gated {
        Some(linear(weights, "attention.u", hidden, header.feature)?)
    } else {
        None
    };
    let last = linear(weights, "attention.w", 1, header.hidden)?;
    Ok(AttentionHead::new(value, gate, last.row(0), last.bias(0)))
}
