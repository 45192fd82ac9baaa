//! (c) on a device: `wgmma` on compute capability 9.0, `mma.sync` on 8.0 and later, nothing before.
//!
//! One launch: a block an item, of which a bag's last writes all that the bag has. Where there is no code for `wgmma`,
//! `mma.sync` runs; the kernel's name in a trace says which.

use super::buffer::Span;
use super::fault::CudaError;
use super::gated_head::{Form, PlacedHead, WGMMA_STEP};
use super::launch::{Argument, Function, Grid};
use super::stream::Stream;
use super::weights::rule_argument;
use super::work::Placed;
use crate::bags::Bags;
use crate::check::{Asked, FEATURES, weights};
use crate::error::{Cause, KernelError};
use crate::gated::GatedHead;
use crate::kernels::{GatedOut, Rule};
use crate::view::{Dtype, View};

/// Threads of a block, and its shared memory, in cuda/gated_mma.cu: three stages of 128 rows and 256 columns, 80 bytes each.
pub(super) const MMA_THREADS: u32 = 256;
pub(super) const MMA_SHARED: u32 = 3 * (128 + 256) * 80;
/// cuda/gated_wgmma.cu: threads; bytes of a stage's columns, of the rows of a step, and of barriers, logits and row numbers; stages where
/// rows stay, and where they come with the columns; and the most steps whose rows stay (all fit 227 KiB).
const WGMMA_THREADS: u32 = 384;
const WGMMA_COLUMNS: u32 = 256 * 64 * 2;
const WGMMA_ROWS: u32 = 64 / 8 * (128 * 16 + 16);
const WGMMA_FIXED: u32 = 1152;
const WGMMA_STAGES: (u32, u32) = (3, 4);
const WGMMA_RESIDENT: u32 = 8;

/// The features as `struct Features` of cuda/gated.cuh.
pub(super) fn features_argument(features: &Placed<2>) -> Argument {
    let size = features.dtype.bytes() as u64;
    let (pitch, width) = (features.strides[0] as u64 * size, features.shape[1]);
    let whole = [features.address, pitch, width as u64 * size];
    let whole = whole.iter().all(|bytes| bytes.is_multiple_of(16));
    Argument::of(&[
        features.address.into(),
        pitch.into(),
        (width as u32).into(),
        u32::from(whole).into(),
    ])
}

/// The head as `struct Head` of cuda/gated.cuh.
pub(super) fn head_argument(placed: &PlacedHead, head: &GatedHead) -> Argument {
    Argument::of(&[
        placed.bias.span().into(),
        placed.weight.span().into(),
        head.head().bias().into(),
        (placed.chunks as u32).into(),
        u32::from(head.head().gate().is_some()).into(),
        0u32.into(),
    ])
}

/// Refuses what cannot work.
pub(super) fn check(
    stream: &Stream,
    asked: &Asked,
    bags: &Bags,
    rule: Rule,
    head: &GatedHead,
    features: &View<'_, 2>,
) -> Result<(), KernelError> {
    rule.check(asked.kernel(), asked.shape())?;
    let d = head.head().inputs();
    asked.matrix("features", features.layout(), FEATURES, [bags.total(), d])?;
    if d == 0 || head.head().weight().is_empty() {
        return Err(asked.refuse(Cause::Unsupported {
            what: "a head without inputs or without hidden units".into(),
            help: "use the processor",
        }));
    }
    capable(stream.gpu().device().capability).map_err(|cause| asked.refuse(cause))
}

/// Whether a device of that capability has the products.
fn capable(capability: (u32, u32)) -> Result<(), Cause> {
    if capability >= (8, 0) {
        return Ok(());
    }
    Err(Cause::Unsupported {
        what: format!(
            "matrix products of the kind that compute capability 8.0 has, on a device of {}.{}",
            capability.0, capability.1
        ),
        help: "use the processor, or make the logits by the model and pool them with `pool`",
    })
}

/// The device's architecture and which kernel runs there over features of `dtype`: tensor cores add in an order of their own, and
/// the two kernels not in the same one.
pub(super) fn kind(stream: &Stream, dtype: Dtype) -> Result<String, KernelError> {
    let shape = format!("features of {dtype}");
    let gpu = stream.gpu();
    let capability = gpu.device().capability;
    capable(capability).map_err(|cause| KernelError {
        kernel: "gated pool",
        shape: shape.clone(),
        cause,
    })?;
    let by = way(stream, dtype).map_err(|error| error.of("gated pool", &shape))?;
    let name = match by {
        By::Mma => "mma",
        By::Wgmma => "wgmma",
    };
    Ok(format!("{} {name}", gpu.architecture()))
}

/// The way for features of `dtype` on the stream's device.
fn way(stream: &Stream, dtype: Dtype) -> Result<By, CudaError> {
    let wgmma = || stream.gpu().function("gated_wgmma", wgmma_kernel(dtype));
    choose(stream.gpu().device().capability, dtype, wgmma)
}

/// The way for features of `dtype` on a device of that capability; `wgmma` looks for that kernel's code.
fn choose(
    capability: (u32, u32),
    dtype: Dtype,
    wgmma: impl FnOnce() -> Result<Function, CudaError>,
) -> Result<By, CudaError> {
    if capability != (9, 0) || dtype == Dtype::F32 {
        return Ok(By::Mma);
    }
    match wgmma() {
        Ok(_) => Ok(By::Wgmma),
        // What was tried for it is in `weir doctor`, a line a source.
        Err(CudaError::NoImage { .. }) => Ok(By::Mma),
        Err(error) => Err(error),
    }
}

/// What makes the logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Mma,
    Wgmma,
}

pub(super) fn forward(
    stream: &Stream,
    bags: &Bags,
    rule: Rule,
    head: &GatedHead,
    features: View<'_, 2>,
    out: GatedOut<'_>,
) -> Result<(), KernelError> {
    let place = stream.gpu().place();
    let asked = Asked::features("gated pool", bags, features.layout(), place);
    check(stream, &asked, bags, rule, head, &features)?;
    let d = head.head().inputs();
    asked.dense("logits", out.logits.layout(), Dtype::F32, [bags.total()])?;
    let pooled = out.pool.pooled;
    asked.dense("pooled", pooled.layout(), Dtype::F32, [bags.len(), d])?;
    weights::out(&asked, bags, &out.pool.weights)?;
    if let Some(tape) = out.tape {
        // The backward pass makes them again.
        tape.hidden.clear();
    }
    if bags.is_empty() {
        return Ok(());
    }
    let mut work = stream.begin("gated pool", asked.shape())?;
    let dtype = features.dtype();
    let features = work.input("features", features)?;
    let logits = work.output("logits", out.logits)?;
    let pooled = work.output("pooled", pooled)?;
    let weights = work.output("weights", out.pool.weights.weights)?;
    let sums = work.output("sums", out.pool.weights.sums)?;
    let squares = work.output("squares", out.pool.weights.squares)?;
    let entropy = work.output("entropy", out.pool.weights.entropy)?;
    let flags = work.output("flags", out.pool.weights.flags)?;
    if bags.members() < bags.total() {
        for masked in [&logits, &weights] {
            let all = Span::<f32>::of(masked.address, bags.total());
            stream
                .fill(all, 0)
                .map_err(|error| error.of("gated pool", asked.shape()))?;
        }
    }
    let placed = work.bags(bags)?;
    let items = bags.items().len();
    let totals = work.take::<f32>(items * d)?;
    let parts = work.take::<f32>(items * 4)?;
    let refused = work.take::<u8>(bags.members())?;
    // Of each bag: the items that are done.
    let done = work.zeroed::<u32>(bags.len())?;
    let some_empty = (0..bags.len()).any(|bag| bags.places(bag).is_empty());
    let by = way(stream, dtype).map_err(|error| error.of(asked.kernel(), asked.shape()))?;
    let placed_head = work.head(
        head,
        match by {
            By::Mma => Form::Columns(dtype),
            By::Wgmma => Form::Cores(dtype),
        },
    )?;
    let (source, name) = match (by, dtype) {
        (By::Mma, Dtype::Bf16) => ("gated_mma", "weir_gated_pool_mma_bf16"),
        (By::Mma, Dtype::F16) => ("gated_mma", "weir_gated_pool_mma_f16"),
        (By::Mma, _) => ("gated_mma", "weir_gated_pool_mma_f32"),
        (By::Wgmma, _) => ("gated_wgmma", wgmma_kernel(dtype)),
    };
    let function = work.function(source, name)?;
    let mut arguments = vec![
        features_argument(&features),
        placed_head.matrix.span().into(),
        head_argument(&placed_head, head),
        placed.members.into(),
        placed.items.into(),
        (items as u32).into(),
        rule_argument(rule),
        logits.into(),
        totals.into(),
        parts.into(),
        refused.into(),
        // `struct Bags` and `struct Results` of cuda/gated.cuh.
        Argument::of(&[
            placed.first.into(),
            placed.starts.into(),
            done.into(),
            if some_empty { bags.len() as u32 } else { 0 }.into(),
            0u32.into(),
        ]),
        Argument::of(&[
            weights.into(),
            pooled.into(),
            sums.into(),
            squares.into(),
            entropy.into(),
            flags.into(),
        ]),
    ];
    // Where there is no item somebody must say so of the bags.
    let blocks = items.max(1) as u32;
    let grid = match by {
        By::Mma => Grid::new(blocks, MMA_THREADS).shared(MMA_SHARED),
        By::Wgmma => {
            let steps = d.div_ceil(WGMMA_STEP) as u32;
            let resident = steps <= WGMMA_RESIDENT;
            arguments.push(u32::from(resident).into());
            let shared = if resident {
                WGMMA_STAGES.0 * WGMMA_COLUMNS + steps * WGMMA_ROWS
            } else {
                WGMMA_STAGES.1 * (WGMMA_COLUMNS + WGMMA_ROWS)
            };
            // A pair of blocks shares what it fetches of the head.
            Grid::new(blocks.next_multiple_of(2), WGMMA_THREADS).shared(WGMMA_FIXED + shared)
        }
    };
    // SAFETY: `check` and the checks of the results hold all of them against the bags; the head is of the features' width,
    // and stays until the stream is done with it because the head keeps it.
    unsafe { work.launch(&function, grid, &arguments) }?;
    work.finish()
}

fn wgmma_kernel(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F16 => "weir_gated_pool_wgmma_f16",
        _ => "weir_gated_pool_wgmma_bf16",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_code_for_wgmma_mma_runs_and_other_errors_stay() {
        let none = || {
            Err(CudaError::NoImage {
                source: "gated_wgmma".into(),
                architecture: "sm_90a".into(),
                tried: Vec::new(),
            })
        };
        assert_eq!(choose((9, 0), Dtype::Bf16, none), Ok(By::Mma));
        let lost = CudaError::Launch {
            kernel: "weir_gated_pool_wgmma_bf16".into(),
            what: "lost".into(),
        };
        let error = || Err(lost.clone());
        assert_eq!(choose((9, 0), Dtype::Bf16, error), Err(lost.clone()));
        // Neither asks for it.
        assert_eq!(choose((9, 0), Dtype::F32, error), Ok(By::Mma));
        assert_eq!(choose((8, 0), Dtype::F16, error), Ok(By::Mma));
    }
}
