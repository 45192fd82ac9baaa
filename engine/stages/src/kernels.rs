//! The kernels of a run's stages: the processor's, and those of the device that the plan names.
//!
//! All stages of a process share one stream of a device, so its calls run in one order, and each call returns when its
//! results lie on the host. Workers take turns: a call holds the stream until then.
//!
//! Networks stand in that stream too: ONNX Runtime takes it for its own ([`weir_model::executor::device_batch`]), so a batch's copy,
//! its normalisation, its passes and whatever a pool launches hand over by the stream's order, and the host waits once a batch. burn is
//! asked for nothing of that: cubecl gives out neither its streams nor events on them, so its tiles are normalised on the processor and
//! it waits for each.
//!
//! What an encoder made then goes to the host, and the pool takes it from there: between encode and pool there is a wait of the host
//! and no event. That is on purpose. A row of features is a value of the engine: it outlives its batch, waits for the rest of a bag
//! that comes from many batches, may cross to another process or be recorded, and a tile's contribution is computed from it on the
//! host. What it costs is little: of 64 tiles of 256 x 256 px 12.6 MB of pixels go over, and 131 kB of features (512 a tile) come
//! back, and over again with their bag.
//!
//! With `--trace` each copy to the device, kernel and copy to the host stands on the device's row, by the events around it, and the
//! passes of a batch as `network`.

use std::ops::Deref;
use std::sync::Arc;

use weir_kernels::cuda::stream::Stream;
use weir_kernels::{Auto, Kernels, auto, gated};
use weir_model::kernels::{NotOpened, open};
use weir_runtime::DeviceSpans;
use weir_runtime::stage::{Prepare, StageError};

use crate::executors::{Executors, Used, choice};

/// The kernels for the stage that is being prepared; one set a device for the process.
pub(crate) fn of(cx: &Prepare) -> Result<Arc<Stand>, StageError> {
    let device = choice(cx)?.device;
    let threads = cx.run().helpers.max(1);
    // Asked for first: what is shared is locked while something is made.
    let spans = cx.shared.get::<DeviceSpans>();
    cx.shared.get_or_try(&device.to_string(), || {
        let opened = open(device, threads, spans.wanted()).map_err(|error| {
            let help = match error {
                // The reason says what to do.
                NotOpened::Unavailable { .. } => "",
                NotOpened::Stream { .. } | NotOpened::Kernel(_) => DOCTOR,
            };
            StageError::new(error.to_string(), help)
        })?;
        Ok(Stand {
            auto: opened.kernels,
            stream: opened.stream,
            traced: opened.traced.map(|stream| Traced {
                device: device.to_string(),
                stream,
                spans,
            }),
        })
    })
}

/// The kernels of a device or of the processor, with what a trace is told.
pub(crate) struct Stand {
    auto: Auto,
    stream: Option<Stream>,
    traced: Option<Traced>,
}

struct Traced {
    device: String,
    stream: Stream,
    spans: Arc<DeviceSpans>,
}

impl From<Auto> for Stand {
    fn from(auto: Auto) -> Self {
        Stand {
            auto,
            stream: None,
            traced: None,
        }
    }
}

impl Deref for Stand {
    type Target = Auto;
    fn deref(&self) -> &Auto {
        &self.auto
    }
}

impl Stand {
    /// The device's stream, where there is a device.
    pub(crate) fn stream(&self) -> Option<&Stream> {
        self.stream.as_ref()
    }

    /// Tells the trace, where there is one, what the device ran since the last time. The caller's results are on the host already;
    /// only what others have in the stream by then is waited for.
    pub(crate) fn tell_trace(&self) {
        let Some(traced) = &self.traced else { return };
        // A trace that cannot be had is no reason to stop.
        for ran in traced.stream.take_trace().unwrap_or_default() {
            traced
                .spans
                .add(&traced.device, ran.what, ran.start, ran.time);
        }
    }
}

const DOCTOR: &str =
    "`weir doctor` says what of CUDA was found; the processor is run = { device = \"cpu\" }";

/// Enters what runs the pool, for the run's record. The device is part of what says whether a slide is done only where it
/// changes bits.
pub(crate) fn enter(cx: &Prepare, kernels: &Auto, contract: &str) {
    let device = kernels.device();
    let fused = contract == gated::CONTRACT;
    let why = match (fused, kernels.threshold()) {
        (true, _) => "the plan says head = \"fused\"".to_owned(),
        (false, Some(from)) => {
            let says = match kernels.asked() {
                true => auto::FROM,
                false => "measured",
            };
            format!("{says}: calls of {from} B and more run on {device}")
        }
        (false, None) if device == "cpu" => "the processor was asked for".to_owned(),
        (false, None) => format!("measured: the processor is faster than {device} at every size"),
    };
    cx.shared.get::<Executors>().enter(
        &cx.node.name,
        Used {
            key: match fused {
                true => format!("kernels {contract} {device}"),
                false => format!("kernels {contract}"),
            },
            device,
            deterministic: true,
            why,
        },
    );
}
