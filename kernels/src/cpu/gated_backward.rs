//! (c) backward on the processor.
//!
//! Members go by in chunks that stay in cache. Within a chunk, blocks of rows give dL/da, dL/dp (p the pre-activations) and
//! dL/dh; then each stretch of V's and U's columns adds the chunk's part of its own gradient, rows ascending. Every sum has
//! one order, whatever the threads.

use super::Cpu;
use super::gate::{admissible, backward as gate_backward, dot, logit_kept};
use super::gated::{PackedHead, source};
use super::gated_arguments::{Call, Features};
use super::product::{Left, Order, PANEL, Right, Simd, TILE, padded, product, spread, tiled};
use crate::ROWS;
use crate::bags::Bags;
use crate::error::{Cause, KernelError};
use crate::gated::GatedHead;
use crate::kernels::{GatedBackward, GatedState, PoolGradient, Rule, flags};
use crate::ordered_sum;
use crate::view::{Dtype, Element, View};
use half::{bf16, f16};
use rayon::prelude::*;

/// Blocks of a chunk: its rows, widened (4 MiB at 1,024 features), and their dL/dp stay in the last-level cache.
const BLOCKS: usize = 8;

/// Columns of V and U whose gradient one task sums.
const STRETCH: usize = 64;

/// What all blocks are given.
struct Pass<'a> {
    bags: &'a Bags,
    /// Bag of each item's first member, by which a member finds its own.
    bag_of: Vec<u32>,
    rule: Rule,
    head: &'a PackedHead,
    features: Features<'a>,
    logits: &'a [f32],
    weights: &'a [f32],
    sums: &'a [f32],
    flags: &'a [u32],
    dz: &'a [f32],
    dw: Option<&'a [f32]>,
    /// Of each bag: the mean of dL/dw by the weights.
    means: Vec<f32>,
    tape: Option<&'a [f32]>,
    simd: Simd,
    d: usize,
}

/// A block's part of a chunk's memory, and its sums.
struct Block<'a, T> {
    first: usize,
    rows: &'a mut [f32],
    /// dL/dp, transposed: hidden columns by members, in tiles.
    dp: &'a mut [f32],
    sums: &'a mut [f32],
    /// dL/dh of the matrix rows `from..`, up to the next block's.
    features: Option<(usize, Vec<&'a mut [T]>)>,
}

impl Pass<'_> {
    /// dL/da of a member and the weight with which it entered the pool; `None` when it is refused.
    fn slope(&self, place: usize, bag: usize, row: &[f32]) -> Option<(f32, f32)> {
        let at = self.bags.row(place);
        let (a, w) = (self.logits[at], self.weights[at]);
        if !a.is_finite() || !admissible(self.simd, row) {
            return None;
        }
        let noticed = self.flags[bag];
        if noticed & (flags::UNIFORM | flags::EMPTY) != 0 {
            return Some((0.0, w));
        }
        let dz = &self.dz[bag * self.d..(bag + 1) * self.d];
        let gradient = dot(self.simd, row, dz) + self.dw.map_or(0.0, |dw| dw[at]);
        let apart = gradient - self.means[bag];
        Some((self.rule.slope(a, w, self.sums[bag], apart), w))
    }

    fn run<T: Narrow>(&self, mut block: Block<'_, T>, scratch: &mut Scratch) {
        let (d, head, simd) = (self.d, self.head, self.simd);
        let (columns, stride, dp_stride) = (head.columns, spread(d), spread(head.columns));
        let rows = block.rows.len() / stride;
        let dp = &mut scratch.dp[..rows * dp_stride];
        let mut slopes = [(0.0f32, 0.0f32, 0usize); ROWS];
        for (i, row) in block.rows.chunks_exact_mut(stride).enumerate() {
            let place = block.first + i;
            let bag = self.bag_of[place] as usize;
            self.features.widen(self.bags.row(place), row);
            slopes[i] = match self.slope(place, bag, &row[..d]) {
                Some((da, w)) => (da, w, bag),
                None => {
                    // Its features may be no numbers: nothing of it may reach a product.
                    row.fill(0.0);
                    (0.0, 0.0, bag)
                }
            };
        }
        let left = |data, stride| Left {
            data,
            rows,
            order: Order::Rows(stride),
        };
        let hidden: &[f32] = match self.tape {
            Some(tape) => &tape[block.first * columns..(block.first + rows) * columns],
            None => {
                let hidden = &mut scratch.hidden[..rows * columns];
                let right = head.forward.right();
                product(
                    simd,
                    left(block.rows, stride),
                    right,
                    hidden,
                    columns,
                    false,
                );
                for hidden in hidden.chunks_exact_mut(columns.max(1)) {
                    logit_kept(simd, hidden, &head.bias, &head.weight, head.gated);
                }
                hidden
            }
        };
        let (bias, rest) = block.sums.split_at_mut(columns);
        let (weight, offset) = rest.split_at_mut(head.weight.len());
        for ((&(da, ..), hidden), dp) in slopes
            .iter()
            .zip(hidden.chunks_exact(columns.max(1)))
            .zip(dp.chunks_exact_mut(dp_stride))
        {
            // What a refused row left on a tape may be no number either.
            if da == 0.0 {
                dp.fill(0.0);
                continue;
            }
            gate_backward(simd, hidden, da, &head.weight, head.gated, dp, bias, weight);
            offset[0] += da;
        }
        for (tile, packed) in block.dp.chunks_exact_mut(TILE * ROWS).enumerate() {
            let packed = packed.chunks_exact_mut(TILE);
            for (dp, packed) in dp.chunks_exact(dp_stride).zip(packed) {
                packed.copy_from_slice(&dp[tile * TILE..(tile + 1) * TILE]);
            }
        }
        if let Some((from, out)) = &mut block.features {
            let width = padded(d);
            let dh = &mut scratch.features[..rows * width];
            product(
                simd,
                left(dp, dp_stride),
                head.backward.right(),
                dh,
                width,
                false,
            );
            if out.len() > rows {
                // Masked rows lie between.
                out.iter_mut().for_each(|row| row.fill(T::default()));
            }
            for (i, dh) in dh.chunks_exact(width.max(1)).enumerate() {
                let (_, w, bag) = slopes[i];
                let at = self.bags.row(block.first + i) - *from;
                let dz = &self.dz[bag * d..(bag + 1) * d];
                for ((out, &dh), &dz) in out[at].iter_mut().zip(dh).zip(dz) {
                    *out = T::narrow(w * dz + dh);
                }
            }
        }
    }
}

/// A type of features, rounded to.
trait Narrow: Element {
    fn narrow(x: f32) -> Self;
}

impl Narrow for f32 {
    fn narrow(x: f32) -> f32 {
        x
    }
}

impl Narrow for f16 {
    fn narrow(x: f32) -> f16 {
        f16::from_f32(x)
    }
}

impl Narrow for bf16 {
    fn narrow(x: f32) -> bf16 {
        bf16::from_f32(x)
    }
}

/// A thread's memory.
struct Scratch {
    dp: Vec<f32>,
    hidden: Vec<f32>,
    features: Vec<f32>,
}

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

    let (stride, dp_of_block) = (spread(d), tiled(columns, ROWS));
    let sums_of_block = columns + packed.weight.len() + 1;
    let chunk_rows = BLOCKS * ROWS;
    let held = members.min(chunk_rows);
    let mut chunk = vec![0.0f32; held * stride];
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
        let parts = chunk[..rows * stride]
            .chunks_mut(ROWS * stride)
            .zip(dp.chunks_exact_mut(dp_of_block.max(1)))
            .zip(sums.chunks_exact_mut(sums_of_block));
        for (block, ((rows, dp), sums)) in parts.enumerate() {
            let first = first + block * ROWS;
            let next = first + rows.len() / stride;
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
                rows,
                dp,
                sums,
                features,
            });
        }
        cpu.threads.install(|| {
            tasks.into_par_iter().with_max_len(1).for_each_init(
                || Scratch {
                    dp: vec![0.0; ROWS * spread(columns)],
                    hidden: vec![0.0; if tape.is_some() { 0 } else { ROWS * columns }],
                    features: vec![0.0; if wanted { ROWS * padded(d) } else { 0 }],
                },
                |scratch, block| pass.run(block, scratch),
            );
        });
        cpu.threads.install(|| {
            layers
                .par_chunks_exact_mut((columns * STRETCH).max(1))
                .enumerate()
                .for_each(|(stretch, layer)| {
                    let from = stretch * STRETCH;
                    for (block, dp) in dp.chunks_exact(dp_of_block.max(1)).enumerate() {
                        let done = block * ROWS;
                        if done >= rows {
                            break;
                        }
                        let left = Left {
                            data: dp,
                            rows: columns,
                            order: Order::Tiles(ROWS),
                        };
                        let right = Right {
                            data: &chunk[done * stride + from..],
                            k: ROWS.min(rows - done),
                            columns: STRETCH.min(padded(d) - from),
                            panel: PANEL,
                            step: stride,
                        };
                        product(pass.simd, left, right, layer, STRETCH, true);
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
