//! What a plugin has open in its process: slides of a source, files of a reader, by the numbers under which the host knows them.

use std::collections::HashMap;
use std::ffi::c_void;
use weir_abi::status::{self, Status};

/// Handles that are open.
#[derive(Debug, Default)]
pub(super) struct Handles {
    open: HashMap<u64, *mut c_void>,
    /// Number of the last one; the first has 1.
    last: u64,
}

impl Handles {
    /// The number of a handle where it was opened, else 0.
    pub fn opened(&mut self, said: Status, handle: *mut c_void) -> u64 {
        if said != status::OK {
            return 0;
        }
        self.last += 1;
        self.open.insert(self.last, handle);
        self.last
    }

    pub fn get(&self, number: u64) -> Option<*mut c_void> {
        self.open.get(&number).copied()
    }

    /// Notes what a function of a handle returned: one that panicked is used no more, and not closed either.
    pub fn heard(&mut self, number: u64, said: Status) {
        if said == status::PANIC {
            self.open.remove(&number);
        }
    }

    /// One that is to be closed.
    pub fn take(&mut self, number: u64) -> Option<*mut c_void> {
        self.open.remove(&number)
    }

    /// All that are still open, to be closed.
    pub fn take_all(&mut self) -> impl Iterator<Item = *mut c_void> + use<> {
        std::mem::take(&mut self.open).into_values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_panicked_is_not_closed_and_no_number_is_given_twice() {
        let at = |n| std::ptr::without_provenance_mut(n);
        let mut handles = Handles::default();
        assert_eq!(handles.opened(status::FAIL, at(1)), 0);
        let numbers = [2, 3, 4, 5].map(|n| handles.opened(status::OK, at(n)));
        assert_eq!(numbers, [1, 2, 3, 4]);
        handles.heard(1, status::FAIL);
        handles.heard(2, status::PANIC);
        assert_eq!((handles.get(1), handles.get(2)), (Some(at(2)), None));
        assert_eq!(handles.take(3), Some(at(4)));
        assert_eq!(handles.take(3), None);
        let mut left: Vec<_> = handles.take_all().collect();
        left.sort();
        assert_eq!(left, [at(2), at(5)]);
        assert_eq!(handles.opened(status::OK, at(6)), 5);
    }
}
