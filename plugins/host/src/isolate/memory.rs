//! Memory that two processes share.
//!
//! Who makes it is always the host: it seals the size, so that nobody can cut it under the other's feet, and of an input's memory
//! also the right to write to it, so that a plugin that writes to its input dies instead of changing a tile.

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fstat, ftruncate, memfd_create};
use rustix::io::Errno;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap, mmap_anonymous, mprotect, munmap};
use std::os::fd::{AsFd, OwnedFd};

/// Bytes of a page, or a multiple of them.
pub(crate) const PAGE: usize = if cfg!(target_arch = "aarch64") {
    64 << 10
} else {
    4 << 10
};

/// A mapping; it ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: *mut u8,
    len: usize,
}

// SAFETY: it is an address range that is mapped as long as this lives; who reads or writes through it says why that is sound.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len` bytes of `memory`, shared.
    pub fn new(memory: impl AsFd, len: usize, writable: bool) -> Result<Mapping, Errno> {
        let rights = match writable {
            true => ProtFlags::READ | ProtFlags::WRITE,
            false => ProtFlags::READ,
        };
        // SAFETY: a fresh range, chosen by the kernel.
        let start = unsafe {
            mmap(
                std::ptr::null_mut(),
                len,
                rights,
                MapFlags::SHARED,
                memory,
                0,
            )
        }?;
        Ok(Mapping {
            start: start.cast(),
            len,
        })
    }

    /// Maps `files` to be read, one behind the other, each an equal part of `len` bytes.
    pub fn of_all(files: &[OwnedFd], len: usize) -> Result<Mapping, Errno> {
        let part = len / files.len().max(1);
        let uneven = part == 0 || !part.is_multiple_of(PAGE) || part * files.len() != len;
        // Of several files some may have got lost on their way.
        let is_part = |file: &OwnedFd| fstat(file).is_ok_and(|it| it.st_size == part as i64);
        if uneven || !files.iter().all(is_part) {
            return Err(Errno::INVAL);
        }
        let none = ProtFlags::empty();
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a fresh range, chosen by the kernel.
        let start = unsafe { mmap_anonymous(std::ptr::null_mut(), len, none, flags) }?;
        let all = Mapping {
            start: start.cast(),
            len,
        };
        for (i, file) in files.iter().enumerate() {
            let flags = MapFlags::SHARED | MapFlags::FIXED;
            let at = all.start.wrapping_add(i * part).cast();
            // SAFETY: within the range, of which nothing is used yet.
            unsafe { mmap(at, part, ProtFlags::READ, flags, file, 0) }?;
        }
        Ok(all)
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// The address of byte `at`, of which `len` bytes exist.
    pub fn at(&self, at: u64, len: usize) -> Option<*mut u8> {
        let at = usize::try_from(at).ok()?;
        let end = at.checked_add(len)?;
        (end <= self.len).then(|| self.start.wrapping_add(at))
    }

    /// Takes every right to `len` bytes from `at` on, both multiples of [`PAGE`].
    pub fn guard(&self, at: usize, len: usize) -> Result<(), Errno> {
        let Some(start) = self.at(at as u64, len) else {
            return Err(Errno::INVAL);
        };
        // SAFETY: a part of this mapping, into which nobody has a reference.
        unsafe { mprotect(start.cast(), len, MprotectFlags::empty()) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: nobody reads or writes a mapping that they do not hold.
        let _ = unsafe { munmap(self.start.cast(), self.len) };
    }
}

/// Shared memory of the host's.
#[derive(Debug)]
pub(crate) struct Memory {
    pub mapping: Mapping,
    pub file: OwnedFd,
}

impl Memory {
    /// That the host writes and the child reads.
    pub fn to_child(len: usize) -> Result<Memory, Errno> {
        Memory::new(len, true)
    }

    /// That the child writes and the host reads.
    pub fn to_host(len: usize) -> Result<Memory, Errno> {
        Memory::new(len, false)
    }

    fn new(len: usize, written_here: bool) -> Result<Memory, Errno> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = memfd_create("weir-batch", flags)?;
        ftruncate(&file, len as u64)?;
        let mapping = Mapping::new(&file, len, written_here)?;
        let mut seals = SealFlags::SHRINK | SealFlags::GROW;
        if written_here {
            // From here on nobody else can map it for writing.
            seals |= SealFlags::FUTURE_WRITE;
        }
        fcntl_add_seals(&file, seals | SealFlags::SEAL)?;
        Ok(Memory { mapping, file })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn files_are_mapped_one_behind_the_other_and_only_whole_pages_of_each() {
        let files: Vec<OwnedFd> = (1..4)
            .map(|i: u8| {
                let memory = Memory::to_child(2 * PAGE).unwrap();
                let at = memory.mapping.at(PAGE as u64, 1).unwrap();
                // SAFETY: mapped just now, to be written.
                unsafe { *at = i };
                memory.file
            })
            .collect();
        let all = Mapping::of_all(&files, 6 * PAGE).unwrap();
        let seen = |i: usize| all.at(((2 * i + 1) * PAGE) as u64, 1).unwrap();
        // SAFETY: within the mapping, which nobody writes any more.
        let seen = [0, 1, 2].map(|i| unsafe { *seen(i) });
        assert_eq!(seen, [1, 2, 3]);
        for len in [0, 1, 6 * PAGE - 1, 4 * PAGE, PAGE] {
            assert_eq!(Mapping::of_all(&files, len).unwrap_err(), Errno::INVAL);
        }
        assert_eq!(Mapping::of_all(&[], PAGE).unwrap_err(), Errno::INVAL);
        for some in [&files[..1], &files[..2]] {
            assert_eq!(Mapping::of_all(some, 6 * PAGE).unwrap_err(), Errno::INVAL);
        }
    }
}
