//! The portable attention head over many rows: each row's logit is a function of that row, so threads change nothing.

use super::Cpu;
use crate::attention::AttentionHead;
use rayon::prelude::*;

/// Rows that a thread takes at a time.
const ROWS: usize = 64;

impl Cpu {
    /// The logit of each row, as [`AttentionHead::logits`] gives it, on this processor's threads.
    pub fn logits(&self, head: &AttentionHead, rows: &[&[f32]]) -> Vec<f32> {
        self.threads.install(|| {
            rows.par_chunks(ROWS)
                .flat_map_iter(|rows| head.logits(rows))
                .collect()
        })
    }
}
