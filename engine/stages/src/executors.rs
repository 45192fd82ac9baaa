//! What runs the networks of a run, for its record and for the key that says whether a slide is done.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use weir_model::{Choice, Chosen, ModelError};
use weir_runtime::stage::{Prepare, StageError};

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

/// What the pipeline asks for: `run.executor`, and the stage's device, else the first of `run.devices`.
pub(crate) fn choice(cx: &Prepare) -> Result<Choice, StageError> {
    let run = cx.run();
    let device = match (&cx.node.run.device, run.devices.as_slice()) {
        (Some(device), _) => device.as_str(),
        (None, [device]) => device.as_str(),
        (None, []) => "auto",
        (None, several) => {
            return Err(StageError::new(
                format!(
                    "run.devices names {}; this version runs a stage on one device",
                    several.join(", ")
                ),
                "name one device in [run], or one for each stage as run = { device = \"cuda:0\" }",
            ));
        }
    };
    let refused = |what: String| StageError::new(what, "");
    Ok(Choice {
        executor: run.executor.parse().map_err(refused)?,
        device: device.parse().map_err(refused)?,
        library: None,
    })
}

/// Enters what was chosen for the stage that is being prepared.
pub(crate) fn enter(cx: &Prepare, chosen: &Chosen) {
    cx.shared.get::<Executors>().enter(
        &cx.node.name,
        Used {
            key: chosen.key(),
            device: chosen.executor.device(),
            deterministic: chosen.invariant,
            why: chosen.why.clone(),
        },
    );
}

/// A model's error as a stage's.
pub(crate) fn model_error(error: ModelError) -> StageError {
    StageError::new(
        format!("{}: {}", error.place.display(), error.what),
        error.help,
    )
}
