//! (b) on a device.

use super::buffer::Span;
use super::launch::Grid;
use super::stream::Stream;
use super::weights::{Features, Out, Slopes, in_pieces, passes, span};
use super::work::{Placed, Work};
use crate::bags::Bags;
use crate::check::{Asked, pool as check};
use crate::error::KernelError;
use crate::kernels::{PoolBackward, PoolGradient, PoolOut, PoolState, Rule};
use crate::view::{Dtype, View};

/// Threads of a block of the backward kernels; a block takes an item.
const THREADS: u32 = 256;
/// Blocks that clear rows, at most: enough for every device. Each looks at a row a thread, and takes more of them where there
/// are more.
const CLEARING: usize = 4096;

pub(super) fn forward(
    stream: &Stream,
    bags: &Bags,
    rule: Rule,
    features: View<'_, 2>,
    logits: View<'_, 1>,
    out: PoolOut<'_>,
) -> Result<(), KernelError> {
    let asked = Asked::features("pool", bags, features.layout(), stream.gpu().place());
    check::forward(&asked, bags, rule, features, logits, &out)?;
    let mut work = stream.begin(asked.kernel(), asked.shape())?;
    let features = Features::of(&work.input("features", features)?);
    let logits = work.input("logits", logits)?;
    let pooled = span(&work.output("pooled", out.pooled)?);
    let out = Out::place(&mut work, out.weights, pooled)?;
    passes(&mut work, bags, rule, logits, features, &out)?;
    work.finish()
}

fn backward_kernel(dtype: Dtype, whole: bool) -> &'static str {
    match (dtype, whole) {
        (Dtype::F16, true) => "weir_pool_backward_f16",
        (Dtype::F16, false) => "weir_pool_backward_f16_scalar",
        (Dtype::Bf16, true) => "weir_pool_backward_bf16",
        (Dtype::Bf16, false) => "weir_pool_backward_bf16_scalar",
        (_, true) => "weir_pool_backward_f32",
        (_, false) => "weir_pool_backward_f32_scalar",
    }
}

#[allow(clippy::too_many_arguments)]
pub(super) fn backward(
    stream: &Stream,
    bags: &Bags,
    rule: Rule,
    features: View<'_, 2>,
    logits: View<'_, 1>,
    state: PoolState<'_>,
    gradient: PoolGradient<'_>,
    out: PoolBackward<'_>,
) -> Result<(), KernelError> {
    let place = stream.gpu().place();
    let asked = Asked::features("pool backward", bags, features.layout(), place);
    check::backward(
        &asked, bags, rule, features, logits, &state, &gradient, &out,
    )?;
    let mut work = stream.begin(asked.kernel(), asked.shape())?;
    let placed = work.input("features", features)?;
    let vectors = work.input("pooled vectors' gradient", gradient.pooled)?;
    let direct = match gradient.weights {
        Some(view) => span(&work.input("weights' gradient", view)?),
        None => Span::<f32>::none(),
    };
    let to: Option<Placed<2>> = match out.features {
        Some(view) => Some(work.output("features' gradient", view)?),
        None => None,
    };
    let slopes = Slopes {
        lists: work.bags(bags)?,
        logits: work.input("logits", logits)?,
        weights: work.input("weights", state.weights)?,
        sums: work.input("sums", state.sums)?,
        flags: work.input("flags", state.flags)?,
        gradient: work.take::<f32>(bags.total())?,
        refused: work.take::<u8>(bags.total())?,
        out: work.output("logits' gradient", out.logits)?,
    };
    clear_masked(&mut work, bags, slopes.lists.members, to.as_ref())?;
    along(&mut work, bags, &placed, vectors, direct, to, &slopes)?;
    slopes.run(&mut work, bags, rule)?;
    work.finish()
}

/// Rows that are no members have no gradient: zeros, in them alone. `members`: the list of the bags'.
pub(super) fn clear_masked(
    work: &mut Work<'_>,
    bags: &Bags,
    members: Span<u32>,
    to: Option<&Placed<2>>,
) -> Result<(), KernelError> {
    let Some(to) = to.filter(|_| bags.members() < bags.total()) else {
        return Ok(());
    };
    let size = to.dtype.bytes();
    let kernel = work.function("pool", "weir_clear_rows")?;
    let blocks = bags.total().div_ceil(THREADS as usize).min(CLEARING) as u32;
    let arguments = [
        to.address.into(),
        ((to.strides[0] * size) as u64).into(),
        ((to.shape[1] * size) as u64).into(),
        (bags.total() as u32).into(),
        members.into(),
        (bags.members() as u32).into(),
    ];
    // SAFETY: the rows are those of the array, and the list, which is there as not all rows are members, is the bags'.
    unsafe { work.launch(&kernel, Grid::new(blocks, THREADS), &arguments) }
}

/// <h, dL/dz> of each member and which are refused; with `to` also w dL/dz.
pub(super) fn along(
    work: &mut Work<'_>,
    bags: &Bags,
    placed: &Placed<2>,
    vectors: Placed<2>,
    direct: Span<f32>,
    to: Option<Placed<2>>,
    slopes: &Slopes,
) -> Result<(), KernelError> {
    let features = Features::of(placed);
    if bags.items().is_empty() {
        return Ok(());
    }
    let whole = features.whole && to.as_ref().is_none_or(in_pieces);
    let kernel = work.function("pool", backward_kernel(features.dtype, whole))?;
    let (address, stride) = to.map_or((0, 0), |to| (to.address, to.strides[0] as u64));
    let arguments = [
        features.address.into(),
        features.stride.into(),
        features.width.into(),
        slopes.logits.into(),
        slopes.lists.members.into(),
        slopes.lists.items.into(),
        slopes.weights.into(),
        vectors.into(),
        direct.into(),
        slopes.gradient.into(),
        slopes.refused.into(),
        address.into(),
        stride.into(),
    ];
    let grid = Grid::new(bags.items().len() as u32, THREADS);
    // SAFETY: one element a row, one vector a bag, rows of `width` columns, as `check::backward` holds.
    unsafe { work.launch(&kernel, grid, &arguments) }?;
    Ok(())
}
