//! Memory that calls leave to each other: as many pieces as there are calls at a time.

use crate::macenko::Scratch;
use std::sync::{Mutex, PoisonError};

/// Pieces that no call has.
#[derive(Debug, Default)]
pub struct Scratches(Mutex<Vec<Scratch>>);

impl Scratches {
    /// Runs `work` with a piece of memory; what was left in it does not matter.
    pub fn with<T>(&self, work: impl FnOnce(&mut Scratch) -> T) -> T {
        let free = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut scratch = free().pop().unwrap_or_default();
        let made = work(&mut scratch);
        free().push(scratch);
        made
    }
}
