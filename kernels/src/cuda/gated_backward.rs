//! (c) backward on a device: dL/da by (b)'s kernels, then the head's by cuda/gated_backward.cu.

use super::buffer::Span;
use super::gated::{MMA_SHARED, MMA_THREADS, check, features_argument, head_argument};
use super::gated_head::{CHUNK, Form, TILE, chunks};
use super::launch::Grid;
use super::pool::{along, clear_masked};
use super::stream::Stream;
use super::weights::{Slopes, span};
use super::work::Placed;
use crate::ROWS;
use crate::bags::Bags;
use crate::check::Asked;
use crate::error::{Cause, KernelError};
use crate::gated::GatedHead;
use crate::kernels::{GatedBackward, GatedState, PoolGradient, Rule};
use crate::view::{Dtype, View};

/// Parts of a range of items that `layers` sums apart: cuda/gated_backward.cu.
const SPLITS: usize = 8;
/// Bytes of the buffer of dL/dp, about: it makes the ranges.
///
/// Not less, for the multiprocessors: a block of `hidden` leaves 128 rows by 256 columns of f32 here, so 16 MB are 128 blocks, of
/// 132 that an H100 or H200 runs at once. 8 MB would leave half of it idle in a third of the pass's work, and each range reads
/// and writes the parts once more, 8 x 512 x 1,024 floats (16 MB) for L = 256 and D = 1,024.
///
/// Not more, for the second-level cache (50 MB; 40 MB of an A100), where what `hidden` writes ought to stay until `rows` has read
/// it: with L = 256 a range is 64 items, so beside these 16 MB there are the parts and the range's features (in bf16 16 MB),
/// which `layers` reads again. What of the 48 MB does not stay costs no time as long as copies run ahead: at 3.4 TB/s all of it
/// is 15 us, while the range's 8.6 GFLOP of `layers` are 35 us at 250 TFLOP/s.
const BUFFER: usize = 16 << 20;
/// Shared memory of `hidden`: the product's, and a number a row.
const HIDDEN_SHARED: u32 = MMA_SHARED + ROWS as u32 * 4;
/// Of `rows`: four stages of 128 x 16 and 16 x 128 numbers, and two numbers a row.
const ROWS_SHARED: u32 = 4 * (128 * 20 + 16 * 136) * 4 + 2 * ROWS as u32 * 4;
/// Of `fold` and `gather`: a sum a thread.
const SUMS_SHARED: u32 = MMA_THREADS * 4;
/// Columns of a block of `fold`.
const FOLD_COLUMNS: u32 = 32;

/// Shared memory of `layers`: three stages of 32 rows (f32: 16) of dL/dp and of the features, and two items' places. In bf16
/// and f16, 81 KB, so that two blocks run beside each other from sm_80 on.
fn layers_shared(dtype: Dtype) -> u32 {
    let depth = if dtype == Dtype::F32 { 16 } else { 32 };
    let row = 136 * 4 + TILE * dtype.bytes() + 32;
    (3 * depth * row + 2 * ROWS * 4) as u32
}

/// Items of a range: a whole number of splits, a function of the head's width alone.
fn range(columns: usize) -> usize {
    (BUFFER / (ROWS * columns * 4))
        .next_multiple_of(SPLITS)
        .max(SPLITS)
}

fn kernel(dtype: Dtype, of: [&'static str; 3]) -> &'static str {
    let [bf16, f16, f32] = of;
    match dtype {
        Dtype::Bf16 => bf16,
        Dtype::F16 => f16,
        _ => f32,
    }
}

/// Checks the results, and what is given of the forward pass.
fn check_all(
    asked: &Asked,
    bags: &Bags,
    head: &GatedHead,
    features: &View<'_, 2>,
    state: &GatedState<'_>,
    gradient: &PoolGradient<'_>,
    out: &GatedBackward<'_>,
) -> Result<(), KernelError> {
    let (rows, n, d) = ([bags.total()], [bags.len()], head.head().inputs());
    let hidden = head.head().weight().len();
    asked.dense("logits", state.logits.layout(), Dtype::F32, rows)?;
    asked.dense("weights", state.pool.weights.layout(), Dtype::F32, rows)?;
    asked.dense("sums", state.pool.sums.layout(), Dtype::F32, n)?;
    asked.dense("flags", state.pool.flags.layout(), Dtype::U32, n)?;
    let vectors = [bags.len(), d];
    asked.dense("pooled", state.pool.pooled.layout(), Dtype::F32, vectors)?;
    asked.dense(
        "pooled vectors' gradient",
        gradient.pooled.layout(),
        Dtype::F32,
        vectors,
    )?;
    if let Some(direct) = &gradient.weights {
        asked.dense("weights' gradient", direct.layout(), Dtype::F32, rows)?;
    }
    let layer = [hidden, d];
    asked.dense("value", out.value.layout(), Dtype::F32, layer)?;
    asked.dense("value bias", out.value_bias.layout(), Dtype::F32, [hidden])?;
    if out.gate.is_some() != head.head().gate().is_some() {
        return Err(asked.refuse(Cause::Shape {
            argument: "gate",
            expected: "a gradient exactly where the head has a gate".into(),
            got: if out.gate.is_some() { "one" } else { "none" }.into(),
        }));
    }
    if let Some((gate, bias)) = &out.gate {
        asked.dense("gate", gate.layout(), Dtype::F32, layer)?;
        asked.dense("gate bias", bias.layout(), Dtype::F32, [hidden])?;
    }
    asked.dense("weight", out.weight.layout(), Dtype::F32, [hidden])?;
    asked.dense("bias", out.bias.layout(), Dtype::F32, [1])?;
    if let Some(to) = &out.features {
        let shape = [bags.total(), d];
        asked.matrix_out("features' gradient", to.layout(), features.dtype(), shape)?;
    }
    Ok(())
}

#[allow(clippy::too_many_arguments)]
pub(super) fn backward(
    stream: &Stream,
    bags: &Bags,
    rule: Rule,
    head: &GatedHead,
    features: View<'_, 2>,
    state: GatedState<'_>,
    gradient: PoolGradient<'_>,
    out: GatedBackward<'_>,
) -> Result<(), KernelError> {
    let place = stream.gpu().place();
    let asked = Asked::features("gated pool backward", bags, features.layout(), place);
    check(stream, &asked, bags, rule, head, &features)?;
    check_all(&asked, bags, head, &features, &state, &gradient, &out)?;
    let (d, hidden) = (head.head().inputs(), head.head().weight().len());
    let columns = chunks(head.head()) * CHUNK;
    let (items, members) = (bags.items().len(), bags.members());

    let mut work = stream.begin(asked.kernel(), asked.shape())?;
    let dtype = features.dtype();
    let features = work.input("features", features)?;
    let vectors = work.input("pooled vectors' gradient", gradient.pooled)?;
    let direct = match gradient.weights {
        Some(view) => span(&work.input("weights' gradient", view)?),
        None => Span::<f32>::none(),
    };
    let value = work.output("value", out.value)?;
    let value_bias = work.output("value bias", out.value_bias)?;
    let gate = match out.gate {
        Some((gate, bias)) => Some((work.output("gate", gate)?, work.output("gate bias", bias)?)),
        None => None,
    };
    let weight = work.output("weight", out.weight)?;
    let bias = work.output("bias", out.bias)?;
    let to: Option<Placed<2>> = match out.features {
        Some(view) => Some(work.output("features' gradient", view)?),
        None => None,
    };
    let by_logits = work.take::<f32>(bags.total())?;
    let slopes = Slopes {
        lists: work.bags(bags)?,
        logits: work.input("logits", state.logits)?,
        weights: work.input("weights", state.pool.weights)?,
        sums: work.input("sums", state.pool.sums)?,
        flags: work.input("flags", state.pool.flags)?,
        gradient: work.take::<f32>(bags.total())?,
        refused: work.take::<u8>(bags.total())?,
        out: Placed {
            address: by_logits.address(),
            dtype: Dtype::F32,
            shape: [bags.total()],
            strides: [1],
        },
    };
    clear_masked(&mut work, bags, slopes.lists.members, to.as_ref())?;
    along(&mut work, bags, &features, vectors, direct, None, &slopes)?;
    slopes.run(&mut work, bags, rule)?;

    let range = range(columns);
    let dp = work.take::<f32>(range.min(items) * ROWS * columns)?;
    let across = d.div_ceil(TILE);
    // The first range writes all of them.
    let parts = SPLITS * columns * across * TILE;
    let parts = match items {
        0 => work.zeroed::<f32>(parts)?,
        _ => work.take::<f32>(parts)?,
    };
    let places = work.take::<u32>(range.min(items) * ROWS)?;
    // Of a range, and of the ranges so far: memory does not grow with the items.
    let bias_parts = work.take::<f32>(range.min(items) * 2 * columns)?;
    let weight_parts = work.take::<f32>(range.min(items) * 2 * columns)?;
    let bias_sums = work.zeroed::<f32>(columns)?;
    let weight_sums = work.zeroed::<f32>(columns)?;
    let placed = work.head(head, Form::Columns(dtype))?;
    let tiles = work.head(head, Form::Tiles)?;
    let source = "gated_backward";
    let units = [
        "weir_gated_hidden_bf16",
        "weir_gated_hidden_f16",
        "weir_gated_hidden_f32",
    ];
    let layers = [
        "weir_gated_layers_bf16",
        "weir_gated_layers_f16",
        "weir_gated_layers_f32",
    ];
    let rows = [
        "weir_gated_rows_bf16",
        "weir_gated_rows_f16",
        "weir_gated_rows_f32",
    ];
    let units = work.function(source, kernel(dtype, units))?;
    let layers = work.function(source, kernel(dtype, layers))?;
    let rows = work.function(source, kernel(dtype, rows))?;
    let fold = work.function(source, "weir_gated_fold")?;
    let across = across as u32;
    for first in (0..items).step_by(range) {
        let count = range.min(items - first) as u32;
        let first_item = first as u32;
        let grid = Grid::new(count, MMA_THREADS)
            .rows((columns / CHUNK) as u32)
            .shared(HIDDEN_SHARED);
        let arguments = [
            features_argument(&features),
            placed.matrix.span().into(),
            head_argument(&placed, head),
            slopes.lists.members.into(),
            slopes.lists.items.into(),
            first_item.into(),
            by_logits.into(),
            slopes.refused.into(),
            places.into(),
            dp.into(),
            bias_parts.into(),
            weight_parts.into(),
        ];
        // SAFETY: `check_all` holds everything against bags and head; buffer and parts hold a range's items.
        unsafe { work.launch(&units, grid, &arguments) }?;
        let grid = Grid::new(columns as u32 / FOLD_COLUMNS, MMA_THREADS)
            .rows(2)
            .shared(SUMS_SHARED);
        let arguments = [
            bias_parts.into(),
            weight_parts.into(),
            (2 * count).into(),
            (columns as u32).into(),
            bias_sums.into(),
            weight_sums.into(),
        ];
        // SAFETY: as above; two parts an item, one sum a column.
        unsafe { work.launch(&fold, grid, &arguments) }?;
        let grid = Grid::new(columns as u32 / TILE as u32, MMA_THREADS)
            .rows(across)
            .layers(SPLITS as u32)
            .shared(layers_shared(dtype));
        let arguments = [
            features_argument(&features),
            slopes.lists.items.into(),
            first_item.into(),
            count.into(),
            places.into(),
            dp.into(),
            (columns as u32).into(),
            u32::from(first > 0).into(),
            parts.into(),
        ];
        // SAFETY: as above.
        unsafe { work.launch(&layers, grid, &arguments) }?;
        let Some(to) = to else { continue };
        let grid = Grid::new(count, MMA_THREADS)
            .rows(across)
            .shared(ROWS_SHARED);
        let arguments = [
            (d as u32).into(),
            slopes.lists.members.into(),
            slopes.lists.items.into(),
            first_item.into(),
            dp.into(),
            (columns as u32).into(),
            tiles.matrix.span().into(),
            (d.next_multiple_of(TILE) as u32).into(),
            slopes.weights.into(),
            vectors.into(),
            to.address.into(),
            (to.strides[0] as u64).into(),
        ];
        // SAFETY: as above.
        unsafe { work.launch(&rows, grid, &arguments) }?;
    }
    let gather = work.function(source, "weir_gated_gather")?;
    let grid = Grid::new(columns as u32 + 1, MMA_THREADS)
        .rows((d as u32).div_ceil(MMA_THREADS))
        .shared(SUMS_SHARED);
    let none = Span::<f32>::none();
    let (gate, gate_bias) = match gate {
        Some((gate, bias)) => (gate.into(), bias.into()),
        None => (none.into(), none.into()),
    };
    let arguments = [
        parts.into(),
        bias_sums.into(),
        weight_sums.into(),
        (columns as u32).into(),
        (d as u32).into(),
        (hidden as u32).into(),
        u32::from(head.head().gate().is_some()).into(),
        by_logits.into(),
        slopes.refused.into(),
        slopes.lists.members.into(),
        (members as u32).into(),
        value.into(),
        value_bias.into(),
        gate,
        gate_bias,
        weight.into(),
        bias.into(),
    ];
    // SAFETY: as above; the parts of all splits and the sums are written, or zero where there is no item.
    unsafe { work.launch(&gather, grid, &arguments) }?;
    work.finish()
}
