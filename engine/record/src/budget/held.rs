//! What is held of a budget, and goes back to it when it is dropped.

use std::sync::atomic::{AtomicBool, Ordering};

use super::{Budget, Class};

/// Bytes held of a budget; dropping it gives them back.
#[derive(Debug)]
pub struct Lease {
    pub(super) budget: Budget,
    pub(super) bytes: usize,
    pub(super) of: Of,
    /// It is in no stage's account any more.
    pub(super) apart: AtomicBool,
}

/// Who holds a lease.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Of {
    Stage(Option<usize>, Class, Count),
    Cache,
}

/// Whether it counts among its owner's leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Count {
    One,
    /// It was split off one that does.
    Nothing,
}

impl Lease {
    /// How many.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// So many of its bytes as a lease of their own, when they are given back at another time; at most all of them. A stage that
    /// was granted one lease for what it makes of a row still counts as holding one.
    pub fn split(&mut self, bytes: usize) -> Lease {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Lease {
            budget: self.budget.clone(),
            bytes,
            of: match self.of {
                Of::Stage(owner, class, _) => Of::Stage(owner, class, Count::Nothing),
                Of::Cache => Of::Cache,
            },
            apart: AtomicBool::new(*self.apart.get_mut()),
        }
    }

    /// Takes it out of its owner's account until it ends, as long as no more than an eighth of the budget is: somebody who is no stage
    /// holds on to what it covers, as a plugin may to what it was lent, for longer than a run can wait for. Its bytes are still told
    /// with the rest, and they stand beside the budget; no lease is refused for them. A cache's stays with it.
    pub fn set_apart(&self) {
        if self.of == Of::Cache {
            return;
        }
        {
            let mut account = self.budget.lock();
            let full = account.apart + self.bytes > account.cap / 8;
            if full || self.apart.swap(true, Ordering::Relaxed) {
                return;
            }
            account.apart += self.bytes;
        }
        self.budget.give_back(self.bytes, &self.of);
    }
}

impl PartialEq for Lease {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        match &self.of {
            Of::Cache => self.budget.lock().cached -= self.bytes,
            _ if *self.apart.get_mut() => self.budget.lock().apart -= self.bytes,
            of => self.budget.give_back(self.bytes, of),
        }
    }
}

/// A share of the budget that a cache leases from; see [`Budget::open_cache`].
#[derive(Debug)]
pub struct CacheShare(pub(super) Budget);

impl CacheShare {
    /// A lease of `bytes` out of the caches' share, or `None` when that is used up: then the cache drops something, or does
    /// without.
    pub fn try_lease(&self, bytes: usize) -> Option<Lease> {
        let mut account = self.0.lock();
        let (_, share) = account.shares();
        if account.cached + bytes > share {
            return None;
        }
        account.cached += bytes;
        account.note_peak();
        Some(Lease {
            budget: self.0.clone(),
            bytes,
            of: Of::Cache,
            apart: AtomicBool::new(false),
        })
    }

    /// Bytes of the whole share now.
    pub fn bytes(&self) -> usize {
        self.0.lock().shares().1
    }
}

impl Drop for CacheShare {
    fn drop(&mut self) {
        self.0.lock().caches -= 1;
    }
}

/// Bytes set aside for a slide's state; dropping it gives them back.
#[derive(Debug)]
pub struct Reservation {
    pub(super) budget: Budget,
    pub(super) bytes: usize,
}

impl Reservation {
    /// How many.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let woken = {
            let mut account = self.budget.lock();
            account.reserved -= self.bytes;
            std::mem::take(&mut account.waiting)
        };
        for waker in woken {
            waker();
        }
    }
}
