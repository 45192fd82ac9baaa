//! Memory for buffers that another process may read where they lie: sparse files without a name, mapped whole, one behind the other.
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
use rustix::io::{Errno, pwrite};
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};
use rustix::process::{Resource, getrlimit};
use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
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

/// Files of an arena, at most; else as many as threads that mostly write, but two, since others do too: of those that write to the same file one waits for the other.
/// A place that was used before is used again by whoever needs one.
const FILES: usize = 4;

/// Bytes around a fault of which the system maps what is there already, where nobody told it otherwise (`fault_around_bytes`).
const AROUND: usize = 64 << 10;

static ZEROS: [u8; AROUND] = [0; AROUND];

/// The arena of a run that is over.
static SPARE: Mutex<Option<Arena>> = Mutex::new(None);

/// Memory that other processes may read. Cheap to clone; all clones are one memory.
#[derive(Clone, Debug)]
pub struct Arena(Arc<Ground>);

#[derive(Debug)]
struct Ground {
    start: *mut u8,
    len: usize,
    /// Bytes of each file.
    part: usize,
    files: Vec<Part>,
    places: Mutex<Places>,
}

#[derive(Debug)]
struct Part {
    file: OwnedFd,
    /// The same file, to be read only.
    shown: OwnedFd,
}

#[derive(Debug, Default)]
struct Places {
    /// Of each file, from where on nothing was ever used.
    ends: [usize; FILES],
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
    /// An arena with places for `len` bytes, of which none takes memory before it is used, for so many threads that write.
    ///
    /// # Errors
    /// What the system says when it has no such memory, or when this process may not have so large a file.
    pub fn new(len: usize, writers: usize) -> Result<Arena, Errno> {
        let (files, part) = parts_of(len, writers);
        allowed(part)?;
        let whole = part.checked_mul(files).ok_or(Errno::NOMEM)?;
        // SAFETY: a fresh range, chosen by the kernel.
        let start = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                whole,
                ProtFlags::empty(),
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        }?;
        let mut ground = Ground {
            start: start.cast(),
            len: whole,
            part,
            files: Vec::new(),
            places: Mutex::default(),
        };
        for i in 0..files {
            let file = Part::new(part)?;
            // SAFETY: within the range, of which nothing is used yet.
            unsafe {
                mmap(
                    ground.start.add(i * part).cast(),
                    part,
                    ProtFlags::READ | ProtFlags::WRITE,
                    MapFlags::SHARED | MapFlags::NORESERVE | MapFlags::FIXED,
                    &file.file,
                    0,
                )
            }?;
            ground.files.push(file);
        }
        Ok(Arena(Arc::new(ground)))
    }

    /// How many files an arena has at most.
    pub const FILES: usize = FILES;

    /// An arena as [`Arena::new`] makes it: the one that was kept, if there is one of that size.
    pub(crate) fn kept_or_new(len: usize, writers: usize) -> Result<Arena, Errno> {
        let (files, part) = parts_of(len, writers);
        allowed(part)?;
        let kept = SPARE.lock().unwrap_or_else(PoisonError::into_inner).take();
        match kept.filter(|kept| (kept.0.files.len(), kept.0.part) == (files, part)) {
            Some(kept) => Ok(kept),
            None => Arena::new(len, writers),
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

    /// The files, for another process: each can be mapped for reading, an equal part of [`Arena::size`] bytes.
    pub fn files(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.0.files.iter().map(|file| file.shown.as_fd())
    }

    /// Bytes of the files together, used or not.
    pub fn size(&self) -> usize {
        self.0.len
    }

    /// Where `bytes` lie when the files lie one behind the other; `None` when they are other memory.
    pub fn offset(&self, bytes: &[u8]) -> Option<u64> {
        let at = (bytes.as_ptr() as usize).checked_sub(self.0.start as usize)?;
        let end = at.checked_add(bytes.len())?;
        (end <= self.size()).then_some(at as u64)
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
                None => places.fresh(room, self.0.files.len(), self.0.part)?,
            }
        };
        let piece = Piece {
            home: self.0.clone(),
            at,
            room,
            len,
        };
        // What the system does not give now it gives as it is touched.
        let _ = piece.fetch();
        Some(piece)
    }
}

/// Whether this process may write files of `part` bytes: the system ends one that goes beyond its limit.
fn allowed(part: usize) -> Result<(), Errno> {
    match getrlimit(Resource::Fsize).current {
        Some(most) if most < part as u64 => Err(Errno::FBIG),
        _ => Ok(()),
    }
}

/// How many files an arena of `len` has, and the bytes of each.
fn parts_of(len: usize, writers: usize) -> (usize, usize) {
    let files = writers.clamp(2, FILES);
    let part = len.div_ceil(files).max(1);
    (files, part.checked_next_multiple_of(PAGE).unwrap_or(part))
}

impl Part {
    fn new(len: usize) -> Result<Part, Errno> {
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
        Ok(Part { file, shown })
    }
}

impl Places {
    /// A place that was never used, in the calling thread's file where that has one.
    fn fresh(&mut self, room: usize, files: usize, part: usize) -> Option<usize> {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static OWN: usize = THREADS.fetch_add(1, Ordering::Relaxed);
        }
        let own = OWN.with(|own| *own);
        (own..own + files).find_map(|file| {
            let file = file % files;
            let at = self.ends[file];
            self.ends[file] = at.checked_add(room).filter(|&end| end <= part)?;
            Some(file * part + at)
        })
    }
}

impl Ground {
    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file of a place, and where in it that is.
    fn file(&self, at: usize) -> (&OwnedFd, u64) {
        (&self.files[at / self.part].file, (at % self.part) as u64)
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
    /// Has the system give it its pages: written to the file, and then looked at once in every [`AROUND`], they cost two thirds of what
    /// a fault for each does, since none is cleared before it is written, and a look maps what is there around it.
    fn fetch(&self) -> Result<(), Errno> {
        let (file, begin) = self.home.file(self.at);
        let mut done = 0;
        while done < self.room {
            let part = &ZEROS[..AROUND.min(self.room - done)];
            done += match pwrite(file, part, begin + done as u64)? {
                0 => return Err(Errno::IO),
                wrote => wrote,
            };
        }
        let start = self.home.start.wrapping_add(self.at);
        let mut at = 0;
        while at < self.room {
            let page = start.wrapping_add(at);
            // SAFETY: within the mapping, a byte of this piece's, which nobody else writes.
            unsafe { page.read_volatile() };
            // What is mapped around it begins and ends at multiples.
            at += AROUND - page.addr() % AROUND;
        }
        Ok(())
    }

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
        let (file, at) = self.home.file(self.at);
        let given_back = fallocate(file, hole, at, self.room as u64);
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
    use std::collections::BTreeSet;

    fn resident(arena: &Arena) -> u64 {
        let blocks = |file: BorrowedFd| rustix::fs::fstat(file).unwrap().st_blocks as u64;
        arena.files().map(blocks).sum::<u64>() * 512
    }

    #[test]
    fn a_piece_that_is_dropped_gives_its_memory_back_and_its_place_is_used_again() {
        let arena = Arena::new(1 << 30, 2).unwrap();
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
        let arena = Arena::kept_or_new(len, 2).unwrap();
        let start = arena.0.start;
        let pieces: Vec<_> = (0..70).map(|_| arena.piece(MIB).unwrap()).collect();
        arena.keep(pieces.into_iter());
        let arena = Arena::kept_or_new(len, 2).unwrap();
        assert_eq!(arena.0.start, start);
        assert_eq!(resident(&arena), KEPT as u64);
        let piece = arena.piece(MIB).unwrap();
        assert_eq!(resident(&arena), KEPT as u64);
        drop(piece);
        assert_eq!(resident(&arena), KEPT as u64 - (1 << 20));
    }

    #[test]
    fn a_thread_has_its_places_in_one_file_until_that_is_full() {
        const PLACES: usize = 8;
        // More threads than there may be files for.
        let arena = Arena::new(FILES * PLACES * PAGE, FILES + 1).unwrap();
        let pieces: Vec<_> = std::iter::from_fn(|| arena.piece(8)).collect();
        let file = |piece: &Piece| arena.offset(piece).unwrap() as usize / (PLACES * PAGE);
        let files: Vec<_> = pieces.iter().map(file).collect();
        assert_eq!(files.len(), FILES * PLACES);
        let all: BTreeSet<_> = files.iter().collect();
        assert_eq!(all.len(), FILES);
        for one in files.chunks(PLACES) {
            assert!(one.iter().all(|file| *file == one[0]), "{files:?}");
        }
    }

    #[test]
    fn what_another_process_is_given_can_be_read_and_never_written() {
        let arena = Arena::new(FILES * PAGE, FILES).unwrap();
        let pieces: Vec<_> = (0..FILES as u8)
            .map(|i| {
                let mut piece = arena.piece(8).unwrap();
                piece.copy_from_slice(&[i; 8]);
                piece
            })
            .collect();
        assert!(arena.piece(8).is_none(), "it is full");
        let part = arena.size() / FILES;
        let map = |file: BorrowedFd, rights| {
            // SAFETY: a fresh range, chosen by the kernel.
            unsafe {
                mmap(
                    std::ptr::null_mut(),
                    part,
                    rights,
                    MapFlags::SHARED,
                    file,
                    0,
                )
            }
        };
        for (i, file) in arena.files().enumerate() {
            let refused = map(file, ProtFlags::READ | ProtFlags::WRITE).unwrap_err();
            assert_eq!(refused, Errno::ACCESS);
            let seen = map(file, ProtFlags::READ).unwrap().cast::<u8>();
            let here = |piece: &&Piece| arena.offset(piece).unwrap() as usize / part == i;
            let piece = pieces.iter().find(here).unwrap();
            let at = arena.offset(piece).unwrap() as usize % part;
            // SAFETY: mapped just now, and longer than that.
            let seen = unsafe { std::slice::from_raw_parts(seen.add(at), 8) };
            assert_eq!(seen, &piece[..]);
            assert!(rustix::io::write(file, b"x").is_err());
        }
    }
}
