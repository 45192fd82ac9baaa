//! What a call is given, and what comes of it.

use crate::about::About;
use crate::batch::HostBatch;
use crate::columns::Output;
use crate::outcomes::{Asked, Outcomes};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, Weak};
use weir_record::{Body, Lease, SlideInfo};

/// What a call may do beside saying that it failed, and what it did.
#[derive(Default)]
pub(crate) enum Task {
    /// Nothing: loading, creating, opening, reading.
    #[default]
    Setup,
    /// Takes rows in: of a reduce or a sink.
    Take(Arc<HostBatch>),
    /// Rows of an input to rows of outputs.
    Rows(Box<Rows>),
    /// Rows of slides that the stage itself names: a reduce.
    Slides(Box<Slides>),
}

/// Rows of an input, and what becomes of them.
pub(crate) struct Rows {
    pub input: Arc<HostBatch>,
    pub outputs: Arc<[Output]>,
    /// Leases on what is made of each row; empty where none were asked for.
    pub leases: Vec<Option<Lease>>,
    /// Of which rows a batch was made, on which output.
    pub made: Asked,
    /// The batches that were made.
    pub drafts: Vec<Weak<HostBatch>>,
    pub outcomes: Outcomes,
}

/// Rows of a slide.
pub(crate) struct Slides {
    pub outputs: Arc<[Output]>,
    pub slides: Arc<Mutex<dyn OpenSlides>>,
    /// What was made, in its order.
    pub made: Vec<OfSlide>,
    /// Of which tiles a row was made, on which output.
    pub rows: BTreeSet<(usize, u64)>,
}

/// Slides of which a plugin may make rows in a call, by the numbers under which it knows them.
pub(crate) trait OpenSlides: Send {
    /// The slide, when the call speaks of it.
    fn info(&self, number: u64) -> Option<Arc<SlideInfo>>;

    /// What is known of a row of `tile` that the plugin makes.
    fn about(&self, number: u64, tile: u64, output: &Output) -> Result<About, String>;
}

impl Slides {
    /// A row of a tile on an output: once each, since every one takes memory that only the number of tiles bounds.
    pub fn made(&mut self, row: OfSlide) -> Result<(), String> {
        if !self.rows.insert((row.port, row.tile)) {
            return Err(TWO_ROWS.into());
        }
        self.made.push(row);
        Ok(())
    }
}

/// What a reduce is told that makes more of a tile than one row.
pub(crate) const TWO_ROWS: &str = "it gave a tile two rows on one output";

/// A row that a reduce made.
#[derive(Debug)]
pub(crate) struct OfSlide {
    pub port: usize,
    /// The tile's word.
    pub tile: u64,
    pub body: Body,
}

impl Task {
    /// The rows that it was given.
    #[inline]
    pub fn input(&self) -> Option<&Arc<HostBatch>> {
        match self {
            Task::Rows(rows) => Some(&rows.input),
            Task::Take(input) => Some(input),
            Task::Setup | Task::Slides(_) => None,
        }
    }

    /// What is left of it by a plugin that may read its input for ever.
    pub fn leak(self) {
        match self {
            Task::Take(input) => {
                input.keep();
                std::mem::forget(input);
            }
            Task::Rows(rows) => {
                rows.input.keep();
                std::mem::forget(rows.input);
            }
            Task::Setup | Task::Slides(_) => {}
        }
    }
}
