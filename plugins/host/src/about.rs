//! What the host knows of rows that a reduce makes.

use crate::columns::Output;
use std::sync::Arc;
use weir_record::{Bag, Coverage, End, SlideInfo, State};

/// What the host knows of a row that a plugin makes and that is not the plugin's to say.
#[derive(Clone, Debug, Default)]
pub(crate) struct About {
    pub source_rev: u32,
    pub revision: u32,
    pub coverage: Coverage,
    pub through: u32,
    pub end: Option<End>,
    pub state: Option<State>,
    /// The bag that a prediction is made of.
    pub bag: Option<Bag>,
}

/// Slides of which a plugin may make rows in a call, by the numbers under which it knows them.
pub(crate) trait OpenSlides: Send {
    /// The slide, when the call speaks of it.
    fn info(&self, number: u64) -> Option<Arc<SlideInfo>>;

    /// What is known of a row of `tile` that the plugin makes.
    fn about(&self, number: u64, tile: u64, output: &Output) -> Result<About, String>;
}
