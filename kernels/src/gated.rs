//! The attention head as the fused kernel (c) wants it.

use crate::attention::AttentionHead;

/// Numeric contract of (c): within a tolerance of the head, normalisation and pool of `ordered-f32/1`, and the same bits for
/// the same device, build and number of multiprocessors whatever the batch.
pub const CONTRACT: &str = "fused/1";

/// A head, with the forms that devices pack it into.
#[derive(Debug)]
pub struct GatedHead {
    head: AttentionHead,
}

impl GatedHead {
    /// Of a head.
    pub fn new(head: AttentionHead) -> GatedHead {
        GatedHead { head }
    }

    /// The head.
    pub fn head(&self) -> &AttentionHead {
        &self.head
    }
}
