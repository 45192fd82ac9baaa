//! What runs the networks of a run, for its record and for the key that says whether a slide is done.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use weir_model::executor::device_batch::TILES;
use weir_model::{Choice, Chosen, Device, ModelError, Which};
use weir_runtime::stage::{BatchShape, Prepare, StageError};

use crate::kernels::{self, Stand};

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
        ..Choice::default()
    })
}

/// How the stage that is being prepared runs its network.
pub(crate) struct Runs {
    /// What the pipeline asks for; on a device with the stream of its kernels.
    pub(crate) choice: Choice,
    /// The kernels of the device, where the network stands in their stream.
    stand: Option<Arc<Stand>>,
}

impl Runs {
    /// What the pipeline asks for. burn has streams of its own.
    pub(crate) fn of(cx: &Prepare) -> Result<Runs, StageError> {
        let mut choice = choice(cx)?;
        let stand = match (choice.device, choice.executor) {
            (Device::Cpu, _) | (_, Which::Burn) => None,
            _ => Some(kernels::of(cx)?),
        };
        choice.stream = stand.as_ref().and_then(|stand| stand.stream().cloned());
        Ok(Runs { choice, stand })
    }

    /// How tiles are gathered. On the processor a tile takes milliseconds, so batches are small: a slide's last ones spread
    /// over all helper threads. A device takes as many as its batch has.
    pub(crate) fn shape(&self) -> BatchShape {
        BatchShape {
            rows: match self.choice.device {
                Device::Cpu => 8,
                Device::Cuda(_) => TILES,
            },
            linger: Duration::from_millis(5),
            timeout: Duration::from_secs(60),
        }
    }

    /// After a batch: tells the trace what the device ran.
    pub(crate) fn tell_trace(&self) {
        if let Some(stand) = &self.stand {
            stand.tell_trace();
        }
    }
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
