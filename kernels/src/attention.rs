//! The attention head (Ilse, Tomczak and Welling 2018): one logit for each member.

use crate::dot;
use crate::linear::Linear;
use crate::math::{sigmoid, tanh};

/// a = w . tanh(V h + b_V) + b, or gated a = w . (tanh(V h + b_V) * sigmoid(U h + b_U)) + b.
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionHead {
    value: Linear,
    gate: Option<Linear>,
    weight: Vec<f32>,
    bias: f32,
}

impl AttentionHead {
    /// V, U where the head is gated, w and b.
    ///
    /// # Panics
    /// When the layers do not have one width: the caller has checked its file.
    pub fn new(value: Linear, gate: Option<Linear>, weight: Vec<f32>, bias: f32) -> AttentionHead {
        assert_eq!(value.outputs(), weight.len(), "V and w differ in width");
        if let Some(gate) = &gate {
            assert_eq!(gate.outputs(), weight.len(), "U and w differ in width");
            assert_eq!(gate.inputs(), value.inputs(), "U and V differ in inputs");
        }
        AttentionHead {
            value,
            gate,
            weight,
            bias,
        }
    }

    /// Numbers of a member's feature vector.
    pub fn inputs(&self) -> usize {
        self.value.inputs()
    }

    /// V and its bias.
    pub fn value(&self) -> &Linear {
        &self.value
    }

    /// U and its bias, where the head has a gate.
    pub fn gate(&self) -> Option<&Linear> {
        self.gate.as_ref()
    }

    /// w.
    pub fn weight(&self) -> &[f32] {
        &self.weight
    }

    /// b.
    pub fn bias(&self) -> f32 {
        self.bias
    }

    /// The logit of each member.
    pub fn logits(&self, members: &[&[f32]]) -> Vec<f32> {
        let (mut hidden, mut gate) = (Vec::new(), Vec::new());
        members
            .iter()
            .map(|member| {
                self.value.apply_into(member, &mut hidden);
                hidden.iter_mut().for_each(|v| *v = tanh(*v));
                if let Some(layer) = &self.gate {
                    layer.apply_into(member, &mut gate);
                    for (v, &u) in hidden.iter_mut().zip(&gate) {
                        *v *= sigmoid(u);
                    }
                }
                dot(&self.weight, &hidden) + self.bias
            })
            .collect()
    }
}
