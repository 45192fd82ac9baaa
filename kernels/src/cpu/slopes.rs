//! From the gradient by the weights to that by the logits.

use crate::bags::Bags;
use crate::kernels::{Rule, flags};
use crate::ordered_sum;

/// (a)'s backward pass, as slices: from `gradient`, dL/dw of each row, to dL/da. A row of which `refused` says so, or
/// whose logit is not finite, is none of its bag.
#[derive(Clone, Copy)]
pub(super) struct Slopes<'a> {
    pub(super) bags: &'a Bags,
    pub(super) rule: Rule,
    pub(super) logits: &'a [f32],
    pub(super) weights: &'a [f32],
    pub(super) sums: &'a [f32],
    pub(super) flags: &'a [u32],
    pub(super) gradient: &'a [f32],
}

impl Slopes<'_> {
    /// Writes every row.
    pub(super) fn run(&self, refused: impl Fn(usize) -> bool, out: &mut [f32]) {
        out.fill(0.0);
        let mut kept = Vec::new();
        for bag in 0..self.bags.len() {
            if self.flags[bag] & (flags::UNIFORM | flags::EMPTY) != 0 {
                continue;
            }
            let rows = self.bags.places(bag).map(|place| self.bags.row(place));
            kept.clear();
            kept.extend(rows.filter(|&row| self.logits[row].is_finite() && !refused(row)));
            let mean = ordered_sum(kept.iter().map(|&k| self.weights[k] * self.gradient[k]));
            for &k in &kept {
                let apart = self.gradient[k] - mean;
                out[k] = self
                    .rule
                    .slope(self.logits[k], self.weights[k], self.sums[bag], apart);
            }
        }
    }
}
