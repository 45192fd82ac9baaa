//! News about a slide that no ledger counts.

use crate::{End, Failure, Prediction, Tally};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// News about a slide. Every stage forwards it on all outputs, behind what it sent before and ahead of what it sends after.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// The slide could not be opened, or failed as a whole.
    SlideFailed(Failure),
    /// A tile failed at a stage; the first few of a slide are told apart, the rest only counted.
    TileFailed(Failure),
    /// The ledger of `stage`, input `port`, ended: its domain is closed.
    LedgerEnded {
        /// Stage in the pipeline file.
        stage: String,
        /// Input port.
        port: String,
        /// How.
        end: End,
        /// Outcomes counted.
        tally: Tally,
    },
    /// top-k says how many of each end it selects, so that tables can name a tile's side.
    Selection {
        /// m highest.
        highest: u32,
        /// m lowest.
        lowest: u32,
    },
    /// The source has sent everything of the slide, seals included. A reduce passes it on when it has sealed its own last
    /// generation, and a sink that has it and whose ledgers ended is done with the slide.
    Closing,
    /// The slide was left for a later run (a live source at shutdown).
    Suspended,
    /// The slide is already done by an earlier run with the same plan, models, executor and input; nothing is computed, and
    /// every domain of the slide ends empty. Sent by the source ahead of its seal.
    Skipped {
        /// Where its prediction stands.
        path: String,
        /// The prediction that was found there, for the tables and views that span slides.
        prediction: Arc<Prediction>,
    },
    /// How long a part of the slide's life took.
    Took {
        /// `open`, `read`, `total`.
        part: String,
        /// Milliseconds.
        ms: u64,
    },
}
