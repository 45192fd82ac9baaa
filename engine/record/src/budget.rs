//! One budget for everything that grows: back-pressure is a lease that is not granted.

mod held;

use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

pub use held::{CacheShare, Lease, Reservation};
use held::{Count, Of};

/// Who asks. Order of classes: reserved state first, then [`Class::Fetch`], which may use all that is left, then
/// [`Class::Scan`], which may use 7/8 of it; so the selected tiles always get through and nothing deadlocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Tiles on their way to the scorer, and the cache of decoded native tiles.
    Scan,
    /// What stages behind a selection need: pixels read again, features, outputs of maps.
    Fetch,
}

/// Bytes that a run may hold. Cheap to clone; all clones are one budget.
#[derive(Clone)]
pub struct Budget(Arc<Mutex<Account>>);

struct Account {
    cap: usize,
    reserved: usize,
    /// A reservation that waits for leases to end: no new lease is granted out of it.
    wanted: usize,
    leased: usize,
    /// Of leases that nobody waits for.
    apart: usize,
    /// Bytes and number of leases by owner.
    owners: Vec<(usize, usize)>,
    cached: usize,
    caches: usize,
    peak: usize,
    waiting: Vec<Waker>,
}

impl Account {
    /// Bytes for leases, and apart from them for caches.
    fn shares(&self) -> (usize, usize) {
        let free = self.cap.saturating_sub(self.reserved + self.wanted);
        let cache = if self.caches > 0 { free / 4 } else { 0 };
        (free - cache, cache)
    }

    fn note_peak(&mut self) {
        let held = self.leased + self.apart + self.cached + self.reserved;
        self.peak = self.peak.max(held);
    }
}

/// Called, from any thread, when bytes came free.
pub type Waker = Arc<dyn Fn() + Send + Sync>;

impl Budget {
    /// A budget of `cap` bytes.
    pub fn new(cap: usize) -> Self {
        Budget(Arc::new(Mutex::new(Account {
            cap,
            reserved: 0,
            wanted: 0,
            leased: 0,
            apart: 0,
            owners: Vec::new(),
            cached: 0,
            caches: 0,
            peak: 0,
            waiting: Vec::new(),
        })))
    }

    /// A lease of `bytes`, or `None` when the class's share is used up. When nothing at all is leased, one request that is
    /// larger than the share is granted, so that an oversized tile cannot stop the run for ever.
    pub fn try_lease(&self, class: Class, bytes: usize) -> Option<Lease> {
        self.lease(None, class, bytes)
    }

    /// As [`Budget::try_lease`], for the stage `owner` (its number in the plan). A stage that holds nothing is always granted
    /// one lease, even above the share: what it makes is consumed further down, so every stage can always go on by one row,
    /// however its neighbours use up the budget. A chain of stages that lease never deadlocks.
    pub fn try_lease_for(&self, owner: usize, class: Class, bytes: usize) -> Option<Lease> {
        self.lease(Some(owner), class, bytes)
    }

    fn lease(&self, owner: Option<usize>, class: Class, bytes: usize) -> Option<Lease> {
        let mut account = self.lock();
        let (free, _) = account.shares();
        let share = match class {
            Class::Fetch => free,
            Class::Scan => free - free / 8,
        };
        let held = match owner {
            None => account.leased,
            Some(owner) => {
                if account.owners.len() <= owner {
                    account.owners.resize(owner + 1, (0, 0));
                }
                account.owners[owner].0
            }
        };
        if held > 0 && account.leased + bytes > share {
            return None;
        }
        account.leased += bytes;
        if let Some(owner) = owner {
            account.owners[owner].0 += bytes;
            account.owners[owner].1 += 1;
        }
        account.note_peak();
        Some(Lease {
            budget: self.clone(),
            bytes,
            of: Of::Stage(owner, class, Count::One),
            apart: AtomicBool::new(false),
        })
    }

    /// A lease of what is needed at once and cannot wait, as what a plugin's process makes: granted whatever the share. What it
    /// takes is missing for all others until it ends.
    pub fn lease_at_once(&self, bytes: usize) -> Lease {
        let mut account = self.lock();
        account.leased += bytes;
        account.note_peak();
        Lease {
            budget: self.clone(),
            bytes,
            of: Of::Stage(None, Class::Fetch, Count::One),
            apart: AtomicBool::new(false),
        }
    }

    /// A share for a cache of what can be computed again: a quarter of the budget, set apart from all leases while any such
    /// share is open. Apart, because a source takes every byte that it can get and would leave a cache nothing; and because
    /// what a cache holds must never keep a lease from being granted.
    pub fn open_cache(&self) -> CacheShare {
        self.lock().caches += 1;
        CacheShare(self.clone())
    }

    /// Bytes for what the stages keep of a slide, or `None` when the sum of all reservations would leave less than an eighth
    /// of the budget for leases, or when leases have taken these bytes; then no new lease takes them, so that they come free.
    /// The first reservation is always granted: one slide can always be open.
    pub fn try_reserve(&self, bytes: usize) -> Option<Reservation> {
        let mut account = self.lock();
        if account.reserved > 0 && account.reserved + bytes > account.cap - account.cap / 8 {
            return None;
        }
        // Leases that stages are granted whatever the share is never come down to nothing together.
        let least = account.owners.iter().all(|(_, leases)| *leases <= 1);
        if account.reserved > 0
            && account.reserved + account.leased + account.cached + bytes > account.cap
            && !least
        {
            account.wanted = bytes;
            return None;
        }
        account.wanted = 0;
        account.reserved += bytes;
        account.note_peak();
        Some(Reservation {
            budget: self.clone(),
            bytes,
        })
    }

    /// Has `waker` called once, when bytes come free. Ask again after this call, before parking: bytes may have come free
    /// in between.
    pub fn wake_when_free(&self, waker: Waker) {
        self.lock().waiting.push(waker);
    }

    /// Bytes of the whole budget.
    pub fn cap(&self) -> usize {
        self.lock().cap
    }

    /// Bytes leased now.
    pub fn leased(&self) -> usize {
        self.lock().leased
    }

    /// Bytes of leases that were [set apart](Lease::set_apart) and are still held.
    pub fn apart(&self) -> usize {
        self.lock().apart
    }

    /// Bytes that caches hold now.
    pub fn cached(&self) -> usize {
        self.lock().cached
    }

    /// Bytes reserved now.
    pub fn reserved(&self) -> usize {
        self.lock().reserved
    }

    /// Bytes that nobody holds.
    pub fn rest(&self) -> usize {
        let account = self.lock();
        let held = account.leased + account.apart + account.cached + account.reserved;
        account.cap.saturating_sub(held)
    }

    /// The greatest sum of leases, also those set apart, reservations and caches so far.
    pub fn peak(&self) -> usize {
        self.lock().peak
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Account> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give_back(&self, leased: usize, of: &Of) {
        let woken = {
            let mut account = self.lock();
            account.leased -= leased;
            let mut now = true;
            if let Of::Stage(owner, class, count) = of {
                // Hysteresis for scanning: a wake for each freed tile costs more than the tile.
                let (free, _) = account.shares();
                now = *class == Class::Fetch || account.leased <= free - free / 8;
                if let Some(owner) = owner {
                    let (bytes, leases) = &mut account.owners[*owner];
                    *bytes -= leased;
                    *leases -= usize::from(*count == Count::One);
                    now |= *leases <= 1;
                }
            }
            if now || account.leased == 0 {
                std::mem::take(&mut account.waiting)
            } else {
                Vec::new()
            }
        };
        for waker in woken {
            waker();
        }
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let account = self.lock();
        write!(
            f,
            "Budget {{ cap: {}, reserved: {}, leased: {} }}",
            account.cap, account.reserved, account.leased
        )
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn scanning_leaves_an_eighth_for_what_was_selected() {
        let budget = Budget::new(800);
        let scan = budget.try_lease(Class::Scan, 700).unwrap();
        assert!(budget.try_lease(Class::Scan, 1).is_none());
        let fetch = budget.try_lease(Class::Fetch, 100).unwrap();
        assert!(budget.try_lease(Class::Fetch, 1).is_none());
        drop((scan, fetch));
        assert_eq!((budget.leased(), budget.peak()), (0, 800));
    }

    #[test]
    fn what_cannot_wait_is_counted_and_keeps_others_out() {
        let budget = Budget::new(100);
        let own = budget.lease_at_once(80);
        let held = budget.try_lease_for(0, Class::Fetch, 20).unwrap();
        assert!(budget.try_lease_for(0, Class::Fetch, 1).is_none());
        let more = budget.lease_at_once(80);
        assert_eq!((budget.leased(), budget.rest()), (180, 0));
        drop((own, more));
        assert!(budget.try_lease_for(0, Class::Fetch, 80).is_some());
        drop(held);
    }

    #[test]
    fn a_tile_larger_than_the_budget_passes_alone() {
        let budget = Budget::new(100);
        let big = budget.try_lease(Class::Scan, 1_000).unwrap();
        assert!(budget.try_lease(Class::Fetch, 1).is_none());
        drop(big);
        assert!(budget.try_lease(Class::Scan, 1).is_some());
    }

    #[test]
    fn a_full_cache_takes_nothing_from_leases() {
        let budget = Budget::new(800);
        let cache = budget.open_cache();
        let held = cache.try_lease(200).unwrap();
        assert!(cache.try_lease(1).is_none());
        let fetch = budget.try_lease(Class::Fetch, 600).unwrap();
        assert!(budget.try_lease(Class::Fetch, 1).is_none());
        drop(fetch);
        let big = budget.try_lease(Class::Scan, 10_000);
        assert!(
            big.is_some(),
            "a cache does not count as somebody who will give back"
        );
        drop((held, cache, big));
        assert_eq!((budget.cached(), budget.leased()), (0, 0));
        assert!(budget.try_lease(Class::Scan, 700).is_some());
    }

    #[test]
    fn a_stage_that_holds_nothing_always_gets_one_lease() {
        let budget = Budget::new(100);
        let pixels: Vec<_> = (0..10)
            .map_while(|_| budget.try_lease_for(1, Class::Fetch, 10))
            .collect();
        assert_eq!(pixels.len(), 10);
        let feature = budget.try_lease_for(2, Class::Fetch, 10).unwrap();
        assert!(budget.try_lease_for(2, Class::Fetch, 10).is_none());
        let woken = Arc::new(AtomicUsize::new(0));
        let seen = woken.clone();
        budget.wake_when_free(Arc::new(move || {
            seen.fetch_add(1, Ordering::SeqCst);
        }));
        drop(feature);
        assert_eq!(woken.load(Ordering::SeqCst), 1, "it may go on");
        assert!(budget.try_lease_for(2, Class::Fetch, 10).is_some());
        drop(pixels);
        assert_eq!(budget.leased(), 0);
    }

    /// Also where a slide's state has taken all, so that each stage has one lease at a time.
    #[test]
    fn what_is_set_apart_keeps_nobody_waiting_and_is_bounded_and_told_until_it_ends() {
        for reserved in [0, 2000] {
            let budget = Budget::new(800);
            let state = budget.try_reserve(reserved).unwrap();
            let mut kept = Vec::new();
            for n in 0..10 {
                let mut lease = budget.try_lease_for(0, Class::Scan, 10).unwrap();
                kept.push(lease.split(4));
                kept.push(lease);
                kept[2 * n..].iter().for_each(Lease::set_apart);
                // Once.
                kept[2 * n].set_apart();
                assert_eq!((budget.leased(), budget.apart()), (0, 10 * (n + 1)));
            }
            assert_eq!(budget.peak(), reserved + 100);
            assert_eq!(budget.rest(), 700_usize.saturating_sub(reserved));
            // No more than an eighth.
            let more = budget.try_lease_for(0, Class::Scan, 10).unwrap();
            more.set_apart();
            assert_eq!((budget.leased(), budget.apart()), (10, 100));
            let woken = Arc::new(AtomicUsize::new(0));
            let seen = woken.clone();
            budget.wake_when_free(Arc::new(move || {
                seen.fetch_add(1, Ordering::SeqCst);
            }));
            let part = kept[1].split(1);
            drop(kept);
            assert_eq!((budget.apart(), woken.load(Ordering::SeqCst)), (1, 0));
            more.set_apart();
            assert_eq!((budget.leased(), budget.apart()), (0, 11));
            assert_eq!(woken.load(Ordering::SeqCst), 1, "who waits may go on");
            drop((more, part, state));
            assert_eq!((budget.leased(), budget.apart()), (0, 0));
        }
    }

    #[test]
    fn a_reservation_waits_for_leases_and_keeps_new_ones_out() {
        let budget = Budget::new(800);
        let first = budget.try_reserve(80).unwrap();
        let mut scan: Vec<_> = (0..6)
            .map(|_| budget.try_lease_for(0, Class::Scan, 100).unwrap())
            .collect();
        assert!(budget.try_reserve(320).is_none());
        let mut second = None;
        while second.is_none() {
            scan.pop();
            assert!(budget.try_lease_for(0, Class::Scan, 100).is_none());
            second = budget.try_reserve(320);
        }
        assert!(scan.len() > 1, "it did not wait longer than it had to");
        assert!(budget.reserved() + budget.leased() <= 800);
        drop((first, second));
        assert!(budget.try_lease_for(0, Class::Scan, 100).is_some());
    }

    #[test]
    fn whoever_waits_is_woken_once_when_bytes_come_free() {
        let budget = Budget::new(100);
        let lease = budget.try_lease(Class::Fetch, 100).unwrap();
        let woken = Arc::new(AtomicUsize::new(0));
        let seen = woken.clone();
        budget.wake_when_free(Arc::new(move || {
            seen.fetch_add(1, Ordering::SeqCst);
        }));
        drop(lease);
        drop(budget.try_lease(Class::Fetch, 100));
        assert_eq!(woken.load(Ordering::SeqCst), 1);
    }
}
