//! Memory whose end is the end of what anybody may touch.
//!
//! A row that a plugin reads or fills lies flush with a page without rights, so one byte beyond it ends the process, which the test
//! then reports. Before it, and in the few bytes that alignment leaves behind it, stands a pattern that is looked at afterwards.

use crate::isolate::memory::{Mapping, Memory, PAGE};
use std::ffi::c_void;

/// What stands where nobody may write.
const PATTERN: u8 = 0xa5;

/// `len` bytes between fences.
#[derive(Debug)]
pub(super) struct Fence {
    mapping: Mapping,
    at: usize,
    len: usize,
    /// Bytes of the pages between the guards.
    pages: usize,
}

impl Fence {
    /// For `len` bytes that begin at a multiple of `align`, a power of two of at most a page.
    pub fn new(len: usize, align: usize) -> Result<Fence, String> {
        let failed = |error| format!("{len} bytes between guard pages cannot be had: {error}");
        let room = len.next_multiple_of(align).max(1);
        let pages = room.next_multiple_of(PAGE);
        // The mapping holds the memory; the file need not stay open.
        let Memory { mapping, file: _ } = Memory::to_child(PAGE + pages + PAGE).map_err(failed)?;
        mapping.guard(0, PAGE).map_err(failed)?;
        mapping.guard(PAGE + pages, PAGE).map_err(failed)?;
        let at = PAGE + pages - len.next_multiple_of(align);
        let fence = Fence {
            mapping,
            at,
            len,
            pages,
        };
        // SAFETY: the pages between the guards, which nobody else knows yet.
        unsafe { std::ptr::write_bytes(fence.byte(PAGE), PATTERN, pages) };
        Ok(fence)
    }

    fn byte(&self, at: usize) -> *mut u8 {
        self.mapping
            .at(at as u64, 0)
            .unwrap_or(std::ptr::null_mut())
    }

    /// Where the bytes begin.
    pub fn start(&self) -> *mut c_void {
        self.byte(self.at).cast()
    }

    /// The bytes.
    ///
    /// # Safety
    /// Nobody writes to them meanwhile.
    pub unsafe fn bytes(&self) -> &[u8] {
        // SAFETY: `len` bytes of the mapping; the caller's.
        unsafe { std::slice::from_raw_parts(self.byte(self.at), self.len) }
    }

    /// The bytes, for one who may write.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: `len` bytes of the mapping, which is borrowed as long.
        unsafe { std::slice::from_raw_parts_mut(self.byte(self.at), self.len) }
    }

    /// The same as floats; their number is what the length holds.
    pub fn floats_mut(&mut self) -> &mut [f32] {
        let start = self.byte(self.at).cast::<f32>();
        assert!(start.is_aligned(), "a fence for floats is aligned for them");
        // SAFETY: as many whole floats as there are bytes for, aligned, borrowed as long.
        unsafe { std::slice::from_raw_parts_mut(start, self.len / size_of::<f32>()) }
    }

    /// Whether what stands around the bytes is as it was.
    pub fn is_whole(&self) -> bool {
        let end = self.at + self.len;
        let around = [PAGE..self.at, end..PAGE + self.pages];
        around.into_iter().all(|range| {
            // SAFETY: inside the pages between the guards.
            let bytes = unsafe { std::slice::from_raw_parts(self.byte(range.start), range.len()) };
            bytes.iter().all(|&byte| byte == PATTERN)
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_row_ends_at_the_guard_and_what_is_written_around_it_is_seen() {
        for (len, align) in [
            (0, 1),
            (1, 1),
            (12, 4),
            (30, 16),
            (PAGE, 16),
            (PAGE + 1, 16),
        ] {
            let mut fence = Fence::new(len, align).unwrap();
            assert_eq!(fence.start() as usize % align, 0);
            let end = fence.start() as usize + len.next_multiple_of(align);
            assert_eq!(end % PAGE, 0);
            fence.bytes_mut().fill(7);
            assert!(fence.is_whole());
            if fence.at > PAGE {
                // SAFETY: inside of the pages between the guards.
                unsafe { fence.byte(fence.at - 1).write(1) };
                assert!(!fence.is_whole(), "{len} {align}");
            }
        }
        let fence = Fence::new(13, 16).unwrap();
        // SAFETY: in the three bytes that the alignment leaves.
        unsafe { fence.byte(fence.at + 13).write(1) };
        assert!(!fence.is_whole());
    }
}
