//! What runs the networks of a run, for its record and for the key that says whether a slide is done.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// What runs a stage's network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Used {
    /// Library, version and device, as `onnxruntime 1.32.0 cpu`. Part of what says whether a slide is done.
    pub key: String,
    /// `cpu`, `cuda:0`.
    pub device: String,
    /// Whether a tile's answer was the same, bit for bit, alone and among others; without it the run is not deterministic
    /// (W0417).
    pub deterministic: bool,
    /// Why this one.
    pub why: String,
}

/// Executors by stage. One for the process, in [`Shared`](weir_runtime::stage::Shared); complete once every stage is prepared.
#[derive(Debug, Default)]
pub struct Executors(Mutex<BTreeMap<String, Used>>);

impl Executors {
    /// Enters what runs the network of `stage`.
    pub fn enter(&self, stage: &str, used: Used) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(stage.to_owned(), used);
    }

    /// All, by stage.
    pub fn all(&self) -> BTreeMap<String, Used> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}
