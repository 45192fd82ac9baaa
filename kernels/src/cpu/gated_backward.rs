//! (c) backward on the processor.
//!
//! Members go by in chunks that stay in cache. Within a chunk, blocks of rows (`gated_block.rs`) give dL/da, dL/dp (p the
//! pre-activations) and dL/dh; then each stretch of V's and U's columns adds the chunk's part of its own gradient, rows
//! ascending. Every sum has one order, whatever the threads.

use super::Cpu;
use super::gate::dot;
use super::gated::source;
use super::gated_arguments::{Call, Features};
use super::gated_block::{Block, Narrow, PANEL_ROWS, Pass, Scratch};
use super::product::{Left, Order, PANEL, Pieces, Right, Simd, padded, product, tiled};
use crate::ROWS;
use crate::bags::Bags;
use crate::error::{Cause, KernelError};
use crate::gated::GatedHead;
use crate::kernels::{GatedBackward, GatedState, PoolGradient, Rule};
use crate::ordered_sum;
use crate::view::{Dtype, View};
use half::{bf16, f16};
use rayon::prelude::*;

/// Blocks of a chunk: its rows, widened (4 MiB at 1,024 features), and their dL/dp stay in the last-level cache.
const BLOCKS: usize = 8;

/// Blocks that a tile of V's and U's gradient runs over at once. What a visit of a tile costs is paid less often with more,
/// but a panel of more rows is fetched from ever farther away.
const TOGETHER: usize = 4;

/// Columns of V and U whose gradient one task sums.
const STRETCH: usize = 64;

#[allow(clippy::too_many_arguments)]
pub(super) fn backward(
    cpu: &Cpu,
    bags: &Bags,
    rule: Rule,
    head: &GatedHead,
    features: View<'_, 2>,
    state: GatedState<'_>,
    gradient: PoolGradient<'_>,
    out: GatedBackward<'_>,
) -> Result<(), KernelError> {
    match features.dtype() {
        Dtype::F16 => typed::<f16>(cpu, bags, rule, head, features, state, gradient, out),
        Dtype::Bf16 => typed::<bf16>(cpu, bags, rule, head, features, state, gradient, out),
        _ => typed::<f32>(cpu, bags, rule, head, features, state, gradient, out),
    }
}

#[allow(clippy::too_many_arguments)]
fn typed<T: Narrow>(
    cpu: &Cpu,
    bags: &Bags,
    rule: Rule,
    head: &GatedHead,
    features: View<'_, 2>,
    state: GatedState<'_>,
    gradient: PoolGradient<'_>,
    mut out: GatedBackward<'_>,
) -> Result<(), KernelError> {
    let call = Call::new("gated pool backward", bags, rule, head, &features)?;
    let (n, rows, d) = (bags.len(), bags.total(), call.d);
    let hidden = head.head().weight().len();
    let pooled: &[f32] = call.read("pooled", &state.pool.pooled, [n, d])?;
    let weights: &[f32] = call.read("weights", &state.pool.weights, [rows])?;
    let dz: &[f32] = call.read("pooled vectors' gradient", &gradient.pooled, [n, d])?;
    let dw: Option<&[f32]> = match &gradient.weights {
        Some(dw) => Some(call.read("weights' gradient", dw, [rows])?),
        None => None,
    };
    let value: &mut [f32] = call.write("value", &mut out.value, [hidden, d])?;
    let value_bias: &mut [f32] = call.write("value bias", &mut out.value_bias, [hidden])?;
    let mut gate: Option<(&mut [f32], &mut [f32])> = match &mut out.gate {
        Some((gate, bias)) => Some((
            call.write("gate", gate, [hidden, d])?,
            call.write("gate bias", bias, [hidden])?,
        )),
        None => None,
    };
    if gate.is_some() != head.head().gate().is_some() {
        return Err(call.refuse(Cause::Shape {
            argument: "gate",
            expected: "a gradient exactly where the head has a gate".into(),
            got: if gate.is_some() { "one" } else { "none" }.into(),
        }));
    }
    let weight: &mut [f32] = call.write("weight", &mut out.weight, [hidden])?;
    let bias: &mut [f32] = call.write("bias", &mut out.bias, [1])?;
    let mut dh = match &mut out.features {
        Some(dh) => Some(call.rows::<T>("features' gradient", dh, [rows, d])?),
        None => None,
    };

    let packed = head.cpu();
    let columns = packed.columns;
    let members = bags.members();
    let tape = state
        .tape
        .map(|tape| &tape.hidden[..])
        .filter(|tape| !tape.is_empty());
    if let Some(tape) = tape
        && tape.len() != members * columns
    {
        return Err(call.refuse(Cause::Shape {
            argument: "tape",
            expected: format!("{members} members of {columns} numbers"),
            got: format!("{} numbers", tape.len()),
        }));
    }
    let pass = Pass {
        bags,
        bag_of: {
            let bag = |bag: usize| std::iter::repeat_n(bag as u32, bags.places(bag).len());
            (0..n).flat_map(bag).collect()
        },
        rule,
        head: packed,
        features: Features::new(features),
        logits: call.read("logits", &state.logits, [rows])?,
        weights,
        sums: call.read("sums", &state.pool.sums, [n])?,
        flags: call.read("flags", &state.pool.flags, [n])?,
        dz,
        dw,
        means: (0..n)
            .map(|bag| {
                let z = dot(
                    Simd::here(),
                    &pooled[bag * d..(bag + 1) * d],
                    &dz[bag * d..(bag + 1) * d],
                );
                let direct = dw.map_or(0.0, |dw| {
                    ordered_sum(bags.places(bag).map(|place| {
                        let row = bags.row(place);
                        // A refused row's gradient may be anything.
                        if weights[row] == 0.0 {
                            0.0
                        } else {
                            weights[row] * dw[row]
                        }
                    }))
                });
                z + direct
            })
            .collect(),
        tape,
        simd: Simd::here(),
        d,
    };

    let dp_of_block = tiled(columns, ROWS);
    let sums_of_block = columns + packed.weight.len() + 1;
    let chunk_rows = BLOCKS * ROWS;
    let held = members.min(chunk_rows);
    let rows_of_block = padded(d.max(1)) / PANEL * PANEL_ROWS;
    let mut chunk = vec![0.0f32; held.div_ceil(ROWS) * rows_of_block];
    let mut dp = vec![0.0f32; held.div_ceil(ROWS) * dp_of_block];
    let mut sums = vec![0.0f32; BLOCKS * sums_of_block];
    let mut total = vec![0.0f32; sums_of_block];
    // [stretch][hidden column][column of the stretch]
    let mut layers = vec![0.0f32; padded(d).div_ceil(STRETCH) * columns * STRETCH];
    if members == 0
        && let Some(dh) = &mut dh
    {
        dh.for_each(|row| row.fill(T::default()));
    }
    let wanted = dh.is_some();
    let mut dh_from = 0;
    for first in (0..members).step_by(chunk_rows) {
        let rows = chunk_rows.min(members - first);
        sums.fill(0.0);
        let mut tasks = Vec::with_capacity(BLOCKS);
        let parts = chunk
            .chunks_exact_mut(rows_of_block.max(1))
            .take(rows.div_ceil(ROWS))
            .zip(dp.chunks_exact_mut(dp_of_block.max(1)))
            .zip(sums.chunks_exact_mut(sums_of_block));
        for (block, ((panels, dp), sums)) in parts.enumerate() {
            let count = ROWS.min(rows - block * ROWS);
            let first = first + block * ROWS;
            let next = first + count;
            let features = dh.as_mut().map(|rest| {
                let to = if next < members {
                    bags.row(next)
                } else {
                    bags.total()
                };
                let own = rest.take(to - dh_from).collect();
                (std::mem::replace(&mut dh_from, to), own)
            });
            tasks.push(Block {
                first,
                count,
                rows: panels,
                dp,
                sums,
                features,
            });
        }
        cpu.threads.install(|| {
            tasks.into_par_iter().with_max_len(1).for_each_init(
                || Scratch::new(d, columns, tape.is_some(), wanted),
                |scratch, block| pass.run(block, scratch),
            );
        });
        cpu.threads.install(|| {
            layers
                .par_chunks_exact_mut((columns * STRETCH).max(1))
                .enumerate()
                .for_each(|(stretch, layer)| {
                    let from = stretch * STRETCH;
                    let (whole, rest) = (rows / ROWS, rows % ROWS);
                    let several = (0..whole)
                        .step_by(TOGETHER)
                        .map(|block| (block, TOGETHER.min(whole - block), ROWS));
                    let last = (rest > 0).then_some((whole, 1, rest));
                    for (block, count, k) in several.chain(last) {
                        let left = Left {
                            data: &dp[block * dp_of_block..],
                            rows: columns,
                            order: Order::Tiles(ROWS),
                        };
                        let right = Right {
                            data: &chunk[block * rows_of_block + from / PANEL * PANEL_ROWS..],
                            k,
                            columns: STRETCH.min(padded(d) - from),
                            panel: PANEL_ROWS,
                        };
                        let pieces = Pieces {
                            count,
                            left: dp_of_block,
                            right: rows_of_block,
                        };
                        product(pass.simd, left, right, pieces, layer, STRETCH, true);
                    }
                });
        });
        for sums in sums.chunks_exact(sums_of_block) {
            total
                .iter_mut()
                .zip(sums)
                .for_each(|(total, sum)| *total += sum);
        }
    }

    let (of_bias, rest) = total.split_at(columns);
    let (of_weight, of_offset) = rest.split_at(packed.weight.len());
    weight.copy_from_slice(&of_weight[..hidden]);
    bias[0] = of_offset[0];
    for column in 0..columns {
        let (of_gate, unit) = source(packed.gated, column);
        if unit >= hidden {
            continue;
        }
        let (layer, bias) = match (&mut gate, of_gate) {
            (Some((gate, bias)), true) => (&mut **gate, &mut **bias),
            _ => (&mut *value, &mut *value_bias),
        };
        bias[unit] = of_bias[column];
        for (c, place) in layer[unit * d..(unit + 1) * d].iter_mut().enumerate() {
            let stretch = &layers[c / STRETCH * columns * STRETCH..];
            *place = stretch[column * STRETCH + c % STRETCH];
        }
    }
    Ok(())
}
