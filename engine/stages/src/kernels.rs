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
//! Where a call runs is [`weir_kernels::auto`]'s to say: from a measured number of bytes on, one a kernel, on the device; what the device
//! has no room for, the processor does, with the same bits. run.json has the numbers and how often that happened, by
//! [`Placements`]. The fused head stays where the plan puts it.
//!
//! With `--trace` each copy to the device, kernel and copy to the host stands on the device's row, by the events around it, and the
//! passes of a batch as `network`.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use weir_kernels::auto::{self, Kernel, Refused};
use weir_kernels::cuda::stream::Stream;
use weir_kernels::{Auto, Dtype, KernelError, Kernels, gated};
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
    let placements = cx.shared.get::<Placements>();
    let stand = cx.shared.get_or_try(&device.to_string(), || {
        let opened = open(device, threads, spans.wanted()).map_err(|error| {
            let help = match error {
                // The reason says what to do.
                NotOpened::Unavailable { .. } => "",
                NotOpened::Stream { .. } | NotOpened::Kernel(_) => DOCTOR,
            };
            StageError::new(error.to_string(), help)
        })?;
        Ok::<_, StageError>(Stand {
            auto: opened.kernels,
            needed: Mutex::default(),
            stream: opened.stream,
            traced: opened.traced.map(|stream| Traced {
                device: device.to_string(),
                stream,
                spans,
            }),
        })
    })?;
    placements.enter(&device.to_string(), &stand);
    Ok(stand)
}

/// The kernels of a device or of the processor, with what a trace is told.
pub(crate) struct Stand {
    auto: Auto,
    /// The kernels that stages said they call.
    needed: Mutex<Vec<Kernel>>,
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
            needed: Mutex::default(),
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
    /// Says that a stage will call `kernel`, and asks from how many bytes on that runs on the device: measured now, before the run,
    /// while nothing else keeps the processor busy.
    pub(crate) fn needs(&self, kernel: Kernel) -> Result<Option<usize>, StageError> {
        let from = self.auto.threshold(kernel).map_err(refused)?;
        let mut needed = self.needed.lock().unwrap_or_else(PoisonError::into_inner);
        if !needed.contains(&kernel) {
            needed.push(kernel);
        }
        Ok(from)
    }

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

/// Where a kernel's calls run on the device of a run, for its record.
#[derive(Clone, Debug, PartialEq)]
pub struct Placement {
    /// As `cuda:0`.
    pub device: String,
    /// Which.
    pub kernel: Kernel,
    /// Bytes of input from which the device does it; `None`: the processor does it at every size.
    pub from: Option<usize>,
    /// Nobody measured that: [`auto::FROM`] says it.
    pub asked: bool,
    /// Calls that the device had no room for and the processor did, with the same results.
    pub refused: Option<Refused>,
}

/// The kernels of a process's devices. One for the process, in [`Shared`](weir_runtime::stage::Shared).
#[derive(Default)]
pub struct Placements(Mutex<BTreeMap<String, Arc<Stand>>>);

impl Placements {
    fn enter(&self, device: &str, stand: &Arc<Stand>) {
        let mut stands = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        stands.insert(device.to_owned(), stand.clone());
    }

    /// Of each device, the kernels that stages call; none where the processor alone was asked for.
    pub fn all(&self) -> Vec<Placement> {
        let mut all = Vec::new();
        let stands = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (device, stand) in stands.iter() {
            let needed = stand.needed.lock().unwrap_or_else(PoisonError::into_inner);
            all.extend(needed.iter().filter_map(|&kernel| {
                Some(Placement {
                    device: device.clone(),
                    kernel,
                    from: stand.known(kernel)?,
                    asked: stand.asked(),
                    refused: stand.refused(kernel),
                })
            }));
        }
        all
    }
}

const DOCTOR: &str =
    "`weir doctor` says what of CUDA was found; the processor is run = { device = \"cpu\" }";

fn refused(error: KernelError) -> StageError {
    StageError::new(error.to_string(), DOCTOR)
}

/// Enters what runs the pool, for the run's record. What runs it is part of what says whether a slide is done only where it
/// changes bits: of the fused head, the architecture and the kernel that runs there, and not the device's number.
pub(crate) fn enter(cx: &Prepare, kernels: &Stand, contract: &str) -> Result<(), StageError> {
    let (key, why) = if contract == gated::CONTRACT {
        let kind = kernels.kind(Dtype::F32).map_err(|error| {
            StageError::new(
                error.to_string(),
                "set head = \"portable\", or run the stage on the processor: run = { device = \"cpu\" }",
            )
        })?;
        let why = "the plan says head = \"fused\"".to_owned();
        (format!("kernels {contract} {kind}"), why)
    } else {
        let from = kernels.needs(Kernel::Pool)?;
        (format!("kernels {contract}"), why(kernels, from))
    };
    cx.shared.get::<Executors>().enter(
        &cx.node.name,
        Used {
            key,
            device: kernels.device(),
            deterministic: true,
            why,
        },
    );
    Ok(())
}

/// Why bags are pooled where they are.
fn why(kernels: &Auto, from: Option<usize>) -> String {
    let device = kernels.device();
    match from {
        Some(from) => {
            let says = match kernels.asked() {
                true => auto::FROM,
                false => "measured",
            };
            format!("{says}: pools of {from} B and more run on {device}")
        }
        None if kernels.has_device() => {
            format!("measured: the processor pools faster than {device} at every size")
        }
        None => "the processor was asked for".to_owned(),
    }
}
