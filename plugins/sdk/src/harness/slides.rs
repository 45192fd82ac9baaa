//! Slides as the host hands them over.

use crate::abi;
use crate::source::SlideInfo;
use std::sync::{Arc, Mutex, PoisonError};

/// A slide, and what its texts point to.
pub(super) struct SlideBox {
    pub info: SlideInfo,
    pub raw: abi::row::Slide,
}

// SAFETY: the pointers lead to what the struct itself owns and nobody changes.
unsafe impl Send for SlideBox {}
// SAFETY: as above.
unsafe impl Sync for SlideBox {}

/// The slides of a harness, by their ids.
#[derive(Default)]
pub(super) struct Slides(Mutex<Vec<Arc<SlideBox>>>);

impl Slides {
    /// The slide of this id; known from now on.
    pub fn get(&self, info: &SlideInfo) -> Arc<SlideBox> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.iter().find(|slide| slide.info.id == info.id) {
            return known.clone();
        }
        let mut slide = SlideBox {
            info: info.clone(),
            raw: abi::row::Slide {
                struct_size: size_of::<abi::row::Slide>() as u32,
                // No small numbers, so that nobody takes them for indices.
                number: (1 << 48) + 7 * all.len() as u64,
                seed: seed(&info.id),
                ..abi::row::Slide::default()
            },
        };
        // SAFETY: the texts are on the heap and live as long as `info` does, beside `raw`.
        unsafe { slide.info.write(&raw mut slide.raw) };
        let slide = Arc::new(slide);
        all.push(slide.clone());
        slide
    }

    /// The slide that was given this id before.
    pub fn known(&self, id: &str) -> Option<Arc<SlideBox>> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().find(|slide| slide.info.id == id).cloned()
    }
}

/// FNV-1a: the same in every run.
fn seed(id: &str) -> u64 {
    id.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    })
}

/// A tile's word: rows of tiles in order, as the engine numbers them.
pub(super) fn tile(x: i64, y: i64) -> u64 {
    const BIAS: i64 = 1 << 23;
    let word = |at: i64| ((at + BIAS) as u64) & 0xff_ffff;
    (word(y) << 24) | word(x)
}
