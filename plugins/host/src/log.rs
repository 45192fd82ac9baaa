//! What plugins say while they run: lines, and counters for the run's record.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Something is wrong.
    Error,
    /// Something may be wrong.
    Warn,
    /// Good to know.
    Info,
    /// For who looks for a fault.
    Debug,
}

impl Level {
    /// Of the header's number; what is no level is debugging.
    pub(crate) fn of(number: i32) -> Level {
        match number {
            weir_abi::host::LOG_ERROR => Level::Error,
            weir_abi::host::LOG_WARN => Level::Warn,
            weir_abi::host::LOG_INFO => Level::Info,
            _ => Level::Debug,
        }
    }

    /// As it stands before a line.
    pub fn name(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warn => "warning",
            Level::Info => "info",
            Level::Debug => "debug",
        }
    }
}

/// Takes a line: how much it matters, the stage's name, the text.
type Listener = dyn Fn(Level, &str, &str) + Send + Sync;

/// Where lines go; nowhere by default.
#[derive(Clone, Default)]
pub struct Log(Option<Arc<Listener>>);

impl Log {
    /// To `listener`, from any thread.
    pub fn to(listener: impl Fn(Level, &str, &str) + Send + Sync + 'static) -> Log {
        Log(Some(Arc::new(listener)))
    }

    pub(crate) fn line(&self, level: Level, stage: &str, text: &str) {
        if let Some(listener) = &self.0 {
            listener(level, stage, text);
        }
    }
}

/// A stage has no more counters: they are for a page of the run's record.
pub(crate) const COUNTERS: usize = 256;
/// Nor has one a longer name, bytes.
pub(crate) const NAME: usize = 128;

/// Counters that plugins keep, by stage and name: extension "weir.metrics/1".
#[derive(Clone, Debug, Default)]
pub struct Counters(Arc<Mutex<BTreeMap<String, Own>>>);

/// Those of a stage.
#[derive(Debug, Default)]
struct Own {
    all: BTreeMap<String, u64>,
    /// That some are not counted was told.
    told: bool,
}

impl Counters {
    /// Adds to a counter. Returns, once a stage, what is to be told: that it has too many of them.
    pub(crate) fn add(&self, stage: &str, name: &str, by: u64) -> Option<String> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !all.contains_key(stage) {
            all.insert(stage.to_owned(), Own::default());
        }
        let own = all.get_mut(stage)?;
        if let Some(counter) = own.all.get_mut(name) {
            *counter = counter.saturating_add(by);
            return None;
        }
        if own.all.len() < COUNTERS && name.len() <= NAME {
            own.all.insert(name.to_owned(), by);
            return None;
        }
        let first = !std::mem::replace(&mut own.told, true);
        let head: String = name.chars().take(40).collect();
        first.then(|| {
            format!(
                "counter `{head}` is not kept: a stage has at most {COUNTERS}, with names of at most {NAME} bytes; what differs from tile to tile is for the log"
            )
        })
    }

    /// All, by stage.
    pub fn all(&self) -> BTreeMap<String, BTreeMap<String, u64>> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = all
            .iter()
            .map(|(stage, own)| (stage.clone(), own.all.clone()));
        own.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_has_as_many_counters_as_fit_a_page_and_what_is_more_is_told_once() {
        let counters = Counters::default();
        for i in 0..COUNTERS {
            assert_eq!(counters.add("a", &format!("tile {i}"), 1), None);
        }
        let told = counters.add("a", "one more", 1).unwrap_or_default();
        assert!(told.starts_with("counter `one more` is not kept"), "{told}");
        assert_eq!(counters.add("a", "and another", 1), None);
        assert_eq!(counters.add("a", "tile 3", u64::MAX), None);
        assert!(counters.add("b", &"x".repeat(NAME + 1), 1).is_some());
        assert_eq!(counters.add("b", &"x".repeat(NAME), 1), None);
        let all = counters.all();
        let sizes: Vec<usize> = all.values().map(BTreeMap::len).collect();
        assert_eq!(sizes, [COUNTERS, 1]);
        assert_eq!(all["a"]["tile 3"], u64::MAX);
    }
}
