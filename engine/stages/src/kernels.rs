//! The kernels of a run's stages: the processor's, and those of the device that the plan names.
//!
//! All stages of a process share one stream of a device, so its calls run in one order, and each call returns when its
//! results lie on the host. Workers take turns: a call holds the stream until then.
//!
//! What an encoder made reaches the pool through the host. ONNX Runtime could take this stream for its own and leave a
//! session's outputs in device memory (its option `user_compute_stream` and its I/O binding), but weir asks for neither: it
//! takes the outputs as host memory, and for that ONNX Runtime waits for its own stream first. Of burn nothing could be asked: cubecl
//! gives out neither its streams nor events on them. Between the two lies the engine besides: features flow a row a tile, and
//! a bag's come together from many batches. Where a tensor does lie on the device, the launchers take it there
//! ([`weir_kernels::view::View::foreign`]) and one stream waits for the other's event
//! ([`weir_kernels::cuda::stream::Stream::wait_for`]).
//!
//! With `--trace` each copy to the device, kernel and copy to the host stands on the device's row, by the events around it.

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
    traced: Option<Traced>,
}

struct Traced {
    device: String,
    stream: Stream,
    spans: Arc<DeviceSpans>,
}

impl From<Auto> for Stand {
    fn from(auto: Auto) -> Self {
        Stand { auto, traced: None }
    }
}

impl Deref for Stand {
    type Target = Auto;
    fn deref(&self) -> &Auto {
        &self.auto
    }
}

impl Stand {
    /// Tells the trace, where there is one, what the device ran since the last time. The calls' results are on the host already,
    /// so nothing is waited for.
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
