//! The attention head as the fused kernel (c) wants it.

use crate::attention::AttentionHead;
use crate::cpu::PackedHead;
use crate::cuda::PlacedHeads;
use std::sync::OnceLock;

/// Numeric contract of (c): within a tolerance of the head, normalisation and pool of `ordered-f32/1`, and a function of the bag
/// alone: on devices of one kind and with one build the same bits, whatever the batch and the number of multiprocessors.
pub const CONTRACT: &str = "fused/1";

/// A head, with the forms that devices pack it into.
#[derive(Debug)]
pub struct GatedHead {
    head: AttentionHead,
    cpu: OnceLock<PackedHead>,
    cuda: PlacedHeads,
}

impl GatedHead {
    /// Of a head.
    pub fn new(head: AttentionHead) -> GatedHead {
        GatedHead {
            head,
            cpu: OnceLock::new(),
            cuda: PlacedHeads::default(),
        }
    }

    /// The head.
    pub fn head(&self) -> &AttentionHead {
        &self.head
    }

    /// As devices want it.
    pub(crate) fn cuda(&self) -> &PlacedHeads {
        &self.cuda
    }

    /// As the processor wants it; packed on first use.
    pub(crate) fn cpu(&self) -> &PackedHead {
        self.cpu.get_or_init(|| PackedHead::new(&self.head))
    }
}

/// The hidden units of a forward pass, kept for its backward pass so that they need not be made again. Of use on the
/// processor, where memory is larger than the time that it saves is short; a device makes them again and leaves it empty.
#[derive(Debug, Default)]
pub struct GatedTape {
    /// tanh and sigmoid of each member, as the device that wrote them lays them out.
    pub(crate) hidden: Vec<f32>,
}

impl GatedTape {
    /// An empty one; a forward pass fills it.
    pub fn new() -> GatedTape {
        GatedTape::default()
    }

    /// Bytes that it holds.
    pub fn bytes(&self) -> usize {
        self.hidden.len() * size_of::<f32>()
    }
}
