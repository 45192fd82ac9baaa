//! Memory for buffers that another process may read where they lie: one sparse file without a name, mapped whole.
//!
//! Who writes is this process alone. Others get a descriptor that can only be read, so a fault of theirs changes no tile. A piece
//! that nobody has is given back to the system, and its place is kept for the next piece of its length. Pages that are touched for
//! the first time cost more than what is decoded into them, so an arena that is done with is kept for the next run of this process
//! with some of its memory, as an allocator keeps what was freed.

use crate::slab::LEAD;
use rustix::fs::{
    FallocateFlags, MemfdFlags, Mode, OFlags, SealFlags, fallocate, fchmod, fcntl_add_seals,
    ftruncate, memfd_create, open,
};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};
use rustix::process::{Resource, getrlimit};
use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes of a page, or a multiple of them.
const PAGE: usize = if cfg!(target_arch = "aarch64") {
    64 << 10
} else {
    4 << 10
};

/// Bytes that a kept arena has at most. No budget counts them while nobody uses them: neither between runs nor, beside what lies free
/// in its slab, in the next one.
const KEPT: usize = 64 << 20;

/// The arena of a run that is over.
static SPARE: Mutex<Option<Arena>> = Mutex::new(None);

/// Memory that other processes may read. Cheap to clone; all clones are one memory.
#[derive(Clone, Debug)]
pub struct Arena(Arc<Ground>);

#[derive(Debug)]
struct Ground {
    start: *mut u8,
    len: usize,
    file: OwnedFd,
    /// The same file, to be read only.
    shown: OwnedFd,
    places: Mutex<Places>,
}

#[derive(Debug, Default)]
struct Places {
    /// From here on nothing was ever used.
    end: usize,
    /// Places that nobody has, by their bytes; the system has their memory.
    bare: HashMap<usize, Vec<usize>>,
    /// The same, with their memory.
    warm: HashMap<usize, Vec<usize>>,
    /// Bytes of these.
    kept: usize,
}

// SAFETY: an address range that is mapped as long as this lives; each piece of it is one `Piece`'s alone.
unsafe impl Send for Ground {}
// SAFETY: as above.
unsafe impl Sync for Ground {}

impl Arena {
    /// An arena with places for `len` bytes, of which none takes memory before it is used.
    ///
    /// # Errors
    /// What the system says when it has no such memory, or when this process may not have so large a file.
    pub fn new(len: usize) -> Result<Arena, Errno> {
        let len = len.max(1).next_multiple_of(PAGE);
        // The system ends a process that goes beyond this limit.
        if getrlimit(Resource::Fsize)
            .current
            .is_some_and(|most| most < len as u64)
        {
            return Err(Errno::FBIG);
        }
        let file = memfd_create(
            "weir-tiles",
            MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
        )?;
        ftruncate(&file, len as u64)?;
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        // Not sealed against writing, which would also keep memory from being given back: who is given the other descriptor
        // cannot map it for writing, nor open it anew.
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let shown = open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        fchmod(&file, Mode::RUSR)?;
        // SAFETY: a fresh range, chosen by the kernel.
        let start = unsafe {
            mmap(
                std::ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::NORESERVE,
                &file,
                0,
            )
        }?;
        Ok(Arena(Arc::new(Ground {
            start: start.cast(),
            len,
            file,
            shown,
            places: Mutex::default(),
        })))
    }

    /// An arena as [`Arena::new`] makes it: the one that was kept, if there is one of that size.
    pub(crate) fn kept_or_new(len: usize) -> Result<Arena, Errno> {
        let kept = SPARE.lock().unwrap_or_else(PoisonError::into_inner).take();
        match kept.filter(|kept| kept.0.len == len.max(1).next_multiple_of(PAGE)) {
            Some(kept) => Ok(kept),
            None => Arena::new(len),
        }
    }

    /// Keeps the arena for the next run, with as much of the memory of `pieces`, which are its own, as may be kept.
    pub(crate) fn keep(self, pieces: impl Iterator<Item = Piece>) {
        for piece in pieces {
            let mut places = self.0.places();
            if places.kept + piece.room <= KEPT {
                places.kept += piece.room;
                places.warm.entry(piece.room).or_default().push(piece.at);
                drop(places);
                piece.leave();
            }
        }
        let mut spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
        let before = spare.replace(self);
        drop(spare);
        // What it replaces is unmapped without anybody waiting for the lock.
        drop(before);
    }

    /// The file, for another process: it can be mapped for reading, [`Arena::size`] bytes of it.
    pub fn file(&self) -> BorrowedFd<'_> {
        self.0.shown.as_fd()
    }

    /// Bytes of the file, used or not.
    pub fn size(&self) -> usize {
        self.0.len
    }

    /// Where in the file `bytes` lie; `None` when they are other memory.
    pub fn offset(&self, bytes: &[u8]) -> Option<u64> {
        let at = (bytes.as_ptr() as usize).checked_sub(self.0.start as usize)?;
        let end = at.checked_add(bytes.len())?;
        (end <= self.0.len).then_some(at as u64)
    }

    /// Memory of `len` bytes, whatever they are; `None` when the arena is full.
    pub(crate) fn piece(&self, len: usize) -> Option<Piece> {
        let room = room(len)?;
        let at = {
            let mut places = self.0.places();
            if let Some(at) = places.warm.get_mut(&room).and_then(Vec::pop) {
                places.kept -= room;
                let home = self.0.clone();
                return Some(Piece {
                    home,
                    at,
                    room,
                    len,
                });
            }
            let bare = places.bare.get_mut(&room).and_then(Vec::pop);
            match bare {
                Some(at) => at,
                None => {
                    let at = places.end;
                    places.end = at.checked_add(room).filter(|&end| end <= self.0.len)?;
                    at
                }
            }
        };
        let start = self.0.start.wrapping_add(at);
        // All pages at once cost less than a fault each; where the system cannot, they come by faults.
        // SAFETY: a part of the mapping that is this piece's; its content stays as it is.
        let _ = unsafe { madvise(start.cast(), room, Advice::LinuxPopulateWrite) };
        Some(Piece {
            home: self.0.clone(),
            at,
            room,
            len,
        })
    }
}

impl Ground {
    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        // SAFETY: every piece holds a reference, so nobody uses the range.
        let _ = unsafe { munmap(self.start.cast(), self.len) };
    }
}

/// Bytes of an arena; the system has their memory again when this is dropped.
#[derive(Debug)]
pub(crate) struct Piece {
    home: Arc<Ground>,
    /// Where its pages begin, and their bytes.
    at: usize,
    room: usize,
    len: usize,
}

/// Bytes of the pages that a piece takes.
fn room(len: usize) -> Option<usize> {
    len.checked_add(LEAD)?.checked_next_multiple_of(PAGE)
}

impl Piece {
    /// Ends it and leaves its memory where it is.
    fn leave(self) {
        let whole = std::mem::ManuallyDrop::new(self);
        // SAFETY: nothing drops it a second time, and it is used no more.
        drop(unsafe { std::ptr::read(&whole.home) });
    }
}

impl Deref for Piece {
    type Target = [u8];
    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: mapped as long as its home lives, this piece's alone, and written by no other process.
        unsafe { std::slice::from_raw_parts(self.home.start.add(self.at + LEAD), self.len) }
    }
}

impl DerefMut for Piece {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.home.start.add(self.at + LEAD), self.len) }
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let given_back = fallocate(&self.home.file, hole, self.at as u64, self.room as u64);
        // A place whose memory cannot be given back is used no more: nobody would count it.
        if given_back.is_ok() {
            let mut places = self.home.places();
            places.bare.entry(self.room).or_default().push(self.at);
        }
    }
}

/// Tests that keep an arena take turns.
#[cfg(test)]
pub(crate) static TURN: Mutex<()> = Mutex::new(());

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn resident(arena: &Arena) -> u64 {
        rustix::fs::fstat(&arena.0.file).unwrap().st_blocks as u64 * 512
    }

    #[test]
    fn a_piece_that_is_dropped_gives_its_memory_back_and_its_place_is_used_again() {
        let arena = Arena::new(1 << 30).unwrap();
        let mut first = arena.piece(3 * PAGE + 1).unwrap();
        first.fill(7);
        let at = arena.offset(&first).unwrap();
        assert!(resident(&arena) >= 4 * PAGE as u64);
        drop(first);
        assert_eq!(resident(&arena), 0);
        let again = arena.piece(4 * PAGE - LEAD).unwrap();
        assert_eq!(arena.offset(&again), Some(at));
        assert!(again.iter().all(|&byte| byte == 0));
        assert_eq!(arena.offset(&[0; 4]), None);
        assert!(arena.piece(1 << 30).is_none(), "it is full");
    }

    #[test]
    fn a_kept_arena_has_its_memory_for_the_next_run_and_no_more_than_it_may() {
        let _turn = TURN.lock().unwrap();
        // With what lies before it, all of a MiB.
        const MIB: usize = (1 << 20) - LEAD;
        let len = 5 << 30;
        let arena = Arena::kept_or_new(len).unwrap();
        let start = arena.0.start;
        let pieces: Vec<_> = (0..70).map(|_| arena.piece(MIB).unwrap()).collect();
        arena.keep(pieces.into_iter());
        let arena = Arena::kept_or_new(len).unwrap();
        assert_eq!(arena.0.start, start);
        assert_eq!(resident(&arena), KEPT as u64);
        let piece = arena.piece(MIB).unwrap();
        assert_eq!(resident(&arena), KEPT as u64);
        drop(piece);
        assert_eq!(resident(&arena), KEPT as u64 - (1 << 20));
    }

    #[test]
    fn what_another_process_is_given_can_be_read_and_never_written() {
        let arena = Arena::new(1 << 20).unwrap();
        let mut piece = arena.piece(8).unwrap();
        piece.copy_from_slice(b"weir 1.0");
        let at = arena.offset(&piece).unwrap();
        let map = |rights| {
            // SAFETY: a fresh range, chosen by the kernel.
            unsafe {
                mmap(
                    std::ptr::null_mut(),
                    arena.size(),
                    rights,
                    MapFlags::SHARED,
                    arena.file(),
                    0,
                )
            }
        };
        let refused = map(ProtFlags::READ | ProtFlags::WRITE).unwrap_err();
        assert_eq!(refused, Errno::ACCESS);
        let seen = map(ProtFlags::READ).unwrap().cast::<u8>();
        // SAFETY: mapped just now, and longer than that.
        let seen = unsafe { std::slice::from_raw_parts(seen.add(at as usize), 8) };
        assert_eq!(seen, b"weir 1.0");
        assert!(rustix::io::write(arena.file(), b"x").is_err());
    }
}
