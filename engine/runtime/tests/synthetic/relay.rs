//! Maps that hand tiles on, one after the other: what a helper thread goes on with.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use weir_record::Key;
use weir_runtime::stage::{Batch, Ending, StageError, Work};

use super::{Scenario, Seen, id, number};

/// How often the worker is held up at most, and how long each time.
const HELD: (u64, Duration) = (60, Duration::from_millis(20));

/// Tells what helper threads do while the worker can do nothing.
#[derive(Default)]
pub struct HeldUp {
    /// Counts the times; while the worker runs, 0.
    now: AtomicU64,
    times: AtomicU64,
    /// When each row left the first relay.
    left: Mutex<HashMap<Key, u64>>,
    /// Rows that came to the next relay while the worker was held up since before they left the one before.
    pub gone_on: AtomicUsize,
}

impl HeldUp {
    /// On the worker: nothing is handed from stage to stage meanwhile.
    pub(super) fn worker(&self) {
        let time = self.times.fetch_add(1, Ordering::SeqCst) + 1;
        self.now.store(time, Ordering::SeqCst);
        let until = Instant::now() + HELD.1;
        while self.gone_on.load(Ordering::SeqCst) == 0 && time <= HELD.0 && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.now.store(0, Ordering::SeqCst);
    }

    fn leaves(&self, key: Key) {
        let now = self.now.load(Ordering::SeqCst);
        self.left.lock().unwrap().insert(key, now);
    }

    fn comes(&self, key: Key) {
        let left = self.left.lock().unwrap()[&key];
        if left > 0 && left == self.now.load(Ordering::SeqCst) {
            self.gone_on.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// Relays that nobody has any more.
#[derive(Default)]
pub struct Left {
    /// How many were left.
    pub begun: AtomicUsize,
    /// Of how many that was waited for.
    pub ended: AtomicUsize,
    /// The encoder saw that all had been.
    pub seen: AtomicBool,
}

impl Left {
    /// Waits until `relays` were left, but for so long.
    pub(super) fn awaited(&self, relays: usize, most: Duration) {
        let until = Instant::now() + most;
        while self.begun.load(Ordering::SeqCst) < relays && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
        let all = self.begun.load(Ordering::SeqCst) == relays;
        self.seen.store(all, Ordering::SeqCst);
    }
}

/// The relay of this place in the chain.
pub(super) struct Relay {
    pub(super) scenario: Arc<Scenario>,
    pub(super) seen: Arc<Seen>,
    pub(super) at: usize,
}

impl Work for Relay {
    fn run(&self, batch: &mut Batch) -> Result<(), StageError> {
        let (scenario, held) = (&self.scenario, &self.seen.held_up);
        if let Some(name) = std::thread::current().name()
            && self.at == 1
        {
            let mut threads = self.seen.relay_threads.lock().unwrap();
            threads.insert(name.to_owned());
        }
        for i in 0..batch.len() {
            let key = batch.key(i);
            if scenario.holds_up && self.at == 1 {
                held.comes(key);
            }
            if let Some((relay, slide, tile, time)) = scenario.stuck_relay
                && self.at == relay
                && batch.info(i).id == id(slide)
                && number(key.tile) == tile
            {
                std::thread::sleep(time);
            }
            // Some rows do not work beside others.
            if batch.len() > 1 && number(key.tile) % 64 == 7 {
                return Err(StageError::new("it works alone only", ""));
            }
        }
        std::thread::sleep(scenario.relays_take[self.at.min(1)]);
        batch.pass_all();
        if scenario.holds_up && self.at == 0 {
            (0..batch.len()).for_each(|i| held.leaves(batch.key(i)));
        }
        Ok(())
    }

    fn leave(self: Arc<Self>) -> Ending {
        // Of several workers the last one ends it.
        let Some(Relay { seen, .. }) = Arc::into_inner(self) else {
            return Box::new(|| ());
        };
        seen.left.begun.fetch_add(1, Ordering::SeqCst);
        Box::new(move || {
            seen.left.ended.fetch_add(1, Ordering::SeqCst);
        })
    }

    fn inline(&self) -> bool {
        self.at == 0 && self.scenario.inline_relay
    }
}
