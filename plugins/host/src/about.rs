//! What the host knows of rows that a reduce makes.

use weir_record::{Bag, Coverage, End, State};

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
