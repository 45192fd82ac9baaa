//! Whether a plugin keeps memory that it ought to give back. Each test has a process of its own, so that what is there is the test's.

use super::{No, Said};

/// Memory of this process at a time.
#[derive(Clone, Copy, Default)]
pub(super) struct Memory {
    /// Bytes that are resident: whatever they were taken from, but for what nobody has touched, and with what was given back and not
    /// yet to the system.
    resident: u64,
    /// Bytes that `malloc` gave and has not got back, to the byte.
    allocated: u64,
}

/// Bytes that may stay allocated: of what threads keep at hand for their next allocation.
const ALLOCATED: u64 = 256 << 10;
/// Bytes that may stay resident.
const RESIDENT: u64 = 8 << 20;

impl Memory {
    pub fn now() -> Memory {
        Memory {
            resident: resident(),
            allocated: allocated(),
        }
    }

    /// That no more is taken than there was then, `rounds` rounds ago: what one of them keeps is told.
    pub fn steady(self, rounds: u64) -> Said {
        let now = Memory::now();
        let allocated = now.allocated.saturating_sub(self.allocated);
        let grown = now.resident.saturating_sub(self.resident);
        let kept = |bytes: u64, most: u64| (bytes > most).then_some(bytes);
        let found = kept(allocated, ALLOCATED).or_else(|| kept(grown, RESIDENT));
        match found {
            None => Ok(format!("{} KiB more than at first", allocated >> 10)),
            Some(bytes) => Err(No::Failed(format!(
                "it keeps memory: {:.1} MiB more than {rounds} rounds before, some {} bytes each",
                bytes as f64 / f64::from(1 << 20),
                bytes / rounds.max(1),
            ))),
        }
    }
}

fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok());
    pages.unwrap_or(0) * rustix::param::page_size() as u64
}

#[cfg(target_env = "gnu")]
fn allocated() -> u64 {
    // SAFETY: it takes nothing, and gives numbers.
    let all = unsafe { libc::mallinfo2() };
    (all.uordblks + all.hblkhd) as u64
}

/// Other C libraries do not say.
#[cfg(not(target_env = "gnu"))]
fn allocated() -> u64 {
    0
}
