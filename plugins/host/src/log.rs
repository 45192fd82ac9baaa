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

/// Counters that plugins keep, by stage and name: extension "weir.metrics/1".
#[derive(Clone, Debug, Default)]
pub struct Counters(Arc<Mutex<BTreeMap<String, BTreeMap<String, u64>>>>);

impl Counters {
    pub(crate) fn add(&self, stage: &str, name: &str, by: u64) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !all.contains_key(stage) {
            all.insert(stage.to_owned(), BTreeMap::new());
        }
        if let Some(own) = all.get_mut(stage) {
            match own.get_mut(name) {
                Some(counter) => *counter = counter.saturating_add(by),
                None => {
                    own.insert(name.to_owned(), by);
                }
            }
        }
    }

    /// All, by stage.
    pub fn all(&self) -> BTreeMap<String, BTreeMap<String, u64>> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}
