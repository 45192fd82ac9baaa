//! (c) on a device: `wgmma` on compute capability 9.0, `mma.sync` on 8.0 and later, nothing before.

use super::buffer::Span;
use super::gated_head::{Form, PlacedHead, WGMMA_STEP};
use super::launch::{Argument, Grid};
use super::stream::Stream;
use super::work::{Placed, Work};
use crate::bags::Bags;
use crate::check::{Asked, FEATURES};
use crate::cpu::weights::check_out;
use crate::error::{Cause, KernelError};
use crate::gated::GatedHead;
use crate::kernels::{GatedBackward, GatedOut, GatedState, PoolGradient, Rule};
use crate::normalise::{Link, Normalisation};
use crate::view::{Dtype, View};

/// Threads of a block, and its shared memory, in cuda/gated_mma.cu: three stages of 128 rows and 256 columns, 80 bytes each.
const MMA_THREADS: u32 = 256;
const MMA_SHARED: u32 = 3 * (128 + 256) * 80;
/// cuda/gated_wgmma.cu: threads; bytes of a stage's columns, of the rows of a step, and of barriers and logits; stages where
/// rows stay, and where they come with the columns; and the most steps whose rows stay (all fit 227 KiB).
const WGMMA_THREADS: u32 = 384;
const WGMMA_COLUMNS: u32 = 256 * 64 * 2;
const WGMMA_ROWS: u32 = 128 * 64 * 2;
const WGMMA_FIXED: u32 = 640;
const WGMMA_STAGES: (u32, u32) = (3, 4);
const WGMMA_RESIDENT: u32 = 8;
/// Threads and components of a block of cuda/gated_finish.cu.
const FINISH_THREADS: u32 = 256;

/// The rule as `struct Rule` of cuda/rule.cuh.
fn rule_argument(rule: Rule) -> Argument {
    let (normalisation, exponent) = match rule.normalisation {
        Normalisation::SquaredAverage => (0, 0.0),
        Normalisation::Power(exponent) => (1, exponent),
        Normalisation::Sigmoid => (2, 0.0),
        Normalisation::Softmax => (3, 0.0),
        // `Rule::check` has refused the others.
        Normalisation::Mean | Normalisation::Max | Normalisation::Sparsemax => (4, 0.0),
    };
    let link = i32::from(rule.link == Link::Sigmoid);
    [normalisation, link, f32::to_bits(exponent) as i32, 0].into()
}

fn words(address: u64) -> [i32; 2] {
    [address as u32 as i32, (address >> 32) as u32 as i32]
}

/// The features as `struct Features` of cuda/gated.cuh.
fn features_argument(features: &Placed<2>) -> Argument {
    let size = features.dtype.bytes() as u64;
    let (pitch, width) = (features.strides[0] as u64 * size, features.shape[1]);
    let whole = [features.address, pitch, width as u64 * size];
    let whole = whole.iter().all(|bytes| bytes.is_multiple_of(16));
    let ([a, b], [c, d]) = (words(features.address), words(pitch));
    [a, b, c, d, width as i32, i32::from(whole)].into()
}

/// The head as `struct Head` of cuda/gated.cuh.
fn head_argument(placed: &PlacedHead, head: &GatedHead) -> Argument {
    let ([a, b], [c, d]) = (
        words(placed.bias.span().address()),
        words(placed.weight.span().address()),
    );
    let gated = i32::from(head.head().gate().is_some());
    let offset = head.head().bias().to_bits() as i32;
    [a, b, c, d, offset, placed.chunks as i32, gated, 0].into()
}

/// Refuses what cannot work.
fn check(
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
    let capability = stream.gpu().device().capability;
    if capability < (8, 0) {
        return Err(asked.refuse(Cause::Unsupported {
            what: format!(
                "matrix products of the kind that compute capability 8.0 has, on a device of {}.{}",
                capability.0, capability.1
            ),
            help: "use the processor, or make the logits by the model and pool them with `pool`",
        }));
    }
    Ok(())
}

/// Which kernel makes the logits.
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
    check_out(&asked, bags, &out.pool.weights)?;
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
    let by = if stream.gpu().device().capability == (9, 0) && dtype != Dtype::F32 {
        By::Wgmma
    } else {
        By::Mma
    };
    if items > 0 {
        launch_items(
            &mut work,
            by,
            head,
            &[
                features_argument(&features),
                placed.members.into(),
                placed.items.into(),
                rule_argument(rule),
                logits.into(),
                totals.into(),
                parts.into(),
                refused.into(),
            ],
            dtype,
            items,
        )?;
    }
    let finish = work.function(
        "gated_finish",
        match dtype {
            Dtype::Bf16 => "weir_gated_finish_bf16",
            Dtype::F16 => "weir_gated_finish_f16",
            _ => "weir_gated_finish_f32",
        },
    )?;
    let grid = Grid::new(bags.len() as u32, FINISH_THREADS)
        .rows((d as u32).div_ceil(FINISH_THREADS))
        .shared(FINISH_THREADS / 32 * 4);
    // SAFETY: `check` and the checks of the results hold all of them against the bags; the items' launch has written totals,
    // parts and refused of all items and members.
    unsafe {
        work.launch(
            &finish,
            grid,
            &[
                features_argument(&features),
                placed.members.into(),
                placed.first.into(),
                placed.starts.into(),
                rule_argument(rule),
                logits.into(),
                totals.into(),
                parts.into(),
                refused.into(),
                pooled.into(),
                weights.into(),
                sums.into(),
                squares.into(),
                entropy.into(),
                flags.into(),
            ],
        )?;
    }
    work.finish()
}

/// Logits, totals and parts of all items.
fn launch_items(
    work: &mut Work<'_>,
    by: By,
    head: &GatedHead,
    arguments: &[Argument; 8],
    dtype: Dtype,
    items: usize,
) -> Result<(), KernelError> {
    let form = match by {
        By::Mma => Form::Columns(dtype),
        By::Wgmma => Form::Cores(dtype),
    };
    let placed = work.head(head, form)?;
    let (source, name) = match (by, dtype) {
        (By::Mma, Dtype::Bf16) => ("gated_mma", "weir_gated_pool_mma_bf16"),
        (By::Mma, Dtype::F16) => ("gated_mma", "weir_gated_pool_mma_f16"),
        (By::Mma, _) => ("gated_mma", "weir_gated_pool_mma_f32"),
        (By::Wgmma, Dtype::F16) => ("gated_wgmma", "weir_gated_pool_wgmma_f16"),
        (By::Wgmma, _) => ("gated_wgmma", "weir_gated_pool_wgmma_bf16"),
    };
    let function = work.function(source, name)?;
    let [features, members, list, rule, rest @ ..] = *arguments;
    let mut all = vec![
        features,
        placed.matrix.span().into(),
        head_argument(&placed, head),
        members,
        list,
        rule,
    ];
    all.extend(rest);
    let items = items as u32;
    let grid = match by {
        By::Mma => Grid::new(items, MMA_THREADS).shared(MMA_SHARED),
        By::Wgmma => {
            let steps = head.head().inputs().div_ceil(WGMMA_STEP) as u32;
            let resident = steps <= WGMMA_RESIDENT;
            all.extend([Argument::from(items), u32::from(resident).into()]);
            let shared = if resident {
                WGMMA_STAGES.0 * WGMMA_COLUMNS + steps * WGMMA_ROWS
            } else {
                WGMMA_STAGES.1 * (WGMMA_COLUMNS + WGMMA_ROWS)
            };
            // A pair of blocks shares what it fetches of the head.
            Grid::new(items.next_multiple_of(2), WGMMA_THREADS).shared(WGMMA_FIXED + shared)
        }
    };
    // SAFETY: the caller's arguments are of these bags; the head is of the features' width, and stays until the stream is
    // done with it because the head keeps it.
    unsafe { work.launch(&function, grid, &all) }
}

#[allow(clippy::too_many_arguments)]
pub(super) fn backward(
    stream: &Stream,
    bags: &Bags,
    rule: Rule,
    head: &GatedHead,
    features: View<'_, 2>,
    _: GatedState<'_>,
    _: PoolGradient<'_>,
    _: GatedBackward<'_>,
) -> Result<(), KernelError> {
    let place = stream.gpu().place();
    let asked = Asked::features("gated pool backward", bags, features.layout(), place);
    check(stream, &asked, bags, rule, head, &features)?;
    Err(asked.refuse(Cause::Unsupported {
        what: "the gradient of a head on a device".into(),
        help: "use the processor",
    }))
}
