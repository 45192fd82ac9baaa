//! What a call is given, and what comes of it.

use crate::about::About;
use crate::batch::HostBatch;
use crate::columns::Output;
use crate::outcomes::{Asked, Outcomes};
use std::collections::BTreeSet;
use std::hint::cold_path;
use std::sync::{Arc, Mutex, Weak};
use weir_record::{Body, Lease, SlideInfo};
use weir_runtime::stage::{Batch, StageError};

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
    /// The outputs on which any row of the input can be handed on as it is, one bit each; where it is 0, that is to be looked at.
    pub fitting: u64,
    /// Leases on what is made of each row; empty where none were asked for.
    pub leases: Vec<Option<Lease>>,
    /// Of which rows a batch was made, on which output.
    pub made: Asked,
    /// The batches that were made.
    pub drafts: Vec<Weak<HostBatch>>,
    pub outcomes: Outcomes,
}

impl Rows {
    /// Whether it is known that any row of the input can be handed on as it is on that output.
    #[inline]
    pub fn fits(&self, port: u32) -> bool {
        port < u64::BITS && self.fitting >> port & 1 != 0
    }

    /// The input, where nobody else has it.
    #[inline]
    pub fn alone(&mut self) -> Option<&mut HostBatch> {
        let alone = Arc::strong_count(&self.input) == 1;
        // SAFETY: no other reference is there, nor can there be one as long as the call is not open: a plugin gets its first one in an
        // open call, which has the input kept, and one that was kept is not used again unless `free` found it alone, of references and
        // of weak ones.
        alone.then(|| unsafe { &mut *Arc::as_ptr(&self.input).cast_mut() })
    }

    /// Lets go of what a call that is over left; false where the plugin holds on to its input.
    #[inline]
    pub fn free(&mut self) -> bool {
        self.made.clear();
        if !(self.leases.is_empty() && self.drafts.is_empty()) {
            cold_path();
            self.leases.clear();
            self.drafts.clear();
        }
        // An input that the plugin holds on to is its own now; one that it had a hold on keeps the tiles' memory.
        !self.input.has_kept()
            || Arc::get_mut(&mut self.input)
                .map(HostBatch::clear)
                .is_some()
    }

    /// Fills the input anew.
    ///
    /// # Safety
    /// As [`HostBatch::fill`].
    #[inline(never)]
    pub unsafe fn fill(&mut self, batch: &Batch, width: usize) -> Result<(), StageError> {
        let filled = match Arc::get_mut(&mut self.input) {
            // SAFETY: the caller's.
            Some(input) => unsafe { input.fill_with(batch, width) },
            None => Err("somebody else has the input of a call".into()),
        };
        filled.map_err(|what| {
            let help = "this is a fault of the stage before: please report it";
            StageError::new(what, help)
        })?;
        let input = &self.input;
        let fitting = self.outputs.iter().take(64).enumerate();
        self.fitting = fitting
            .filter(|(_, output)| input.all_fit(output))
            .fold(0, |all, (port, _)| all | 1 << port);
        Ok(())
    }
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
    /// Rows, where there were others or none such as `unused` makes.
    #[inline]
    pub fn rows(&mut self, unused: impl FnOnce() -> Box<Rows>) -> &mut Rows {
        if !matches!(self, Task::Rows(_)) {
            cold_path();
            *self = Task::Rows(unused());
        }
        match self {
            Task::Rows(rows) => rows,
            _ => unreachable!("they were put there"),
        }
    }

    /// The rows that it was given.
    #[inline]
    pub fn input(&self) -> Option<&Arc<HostBatch>> {
        // Most calls are of the first kind.
        if let Task::Rows(rows) = self {
            return Some(&rows.input);
        }
        match self {
            Task::Take(input) => Some(input),
            _ => None,
        }
    }

    /// Whether its call may return before it is done: only process() may.
    pub fn may_wait(&self) -> bool {
        self.input().is_some()
    }

    /// Rows of which a plugin surely holds on to nothing now that their call is over.
    #[inline]
    pub fn is_left(&self) -> bool {
        matches!(self, Task::Rows(rows)
            if Arc::strong_count(&rows.input) == 1 && rows.drafts.is_empty())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::live::Noted;

    fn rows() -> Rows {
        Rows {
            input: HostBatch::unfilled().placed(),
            outputs: [].into(),
            fitting: 0,
            leases: Vec::new(),
            made: Asked::default(),
            drafts: Vec::new(),
            outcomes: Outcomes::on(1, false),
        }
    }

    #[test]
    fn what_a_call_left_is_none_of_the_next_ones_and_an_input_that_is_held_is_not_used_again() {
        let mut rows = rows();
        // Of rows for which a plugin asked and got no batch.
        assert_eq!(rows.made.note(0, 2, &[1]), Ok(()));
        assert!(rows.made.note(0, 2, &[1]).is_err());
        assert!(rows.free() && rows.alone().is_some());
        assert_eq!(rows.made.note(0, 2, &[1]), Ok(()));
        rows.input.retain();
        assert!(!rows.free() && rows.alone().is_none());
        // The plugin gives it back, after the call or before its end.
        let batch = rows.input.as_ptr();
        assert_eq!(HostBatch::named(batch, |of| of.hand_back()), Some(true));
        // SAFETY: the reference was the plugin's.
        unsafe { Arc::decrement_strong_count(HostBatch::of(batch)) };
        assert!(rows.free() && rows.alone().is_some() && !rows.input.has_kept());
    }

    #[test]
    fn outputs_that_fit_are_known_as_far_as_there_are_bits_for_them() {
        let rows = Rows {
            fitting: 1 | 1 << 63,
            ..rows()
        };
        let fit = [0, 1, 62, 63, 64, u32::MAX].map(|port| rows.fits(port));
        assert_eq!(fit, [true, false, false, true, false, false]);
    }
}
