//! (c) on the processor: blocks of rows against the packed head, gate and rule and pool while the rows are warm.
//!
//! A row's logit depends on that row alone. Given the logits, weights and sums are those of `ordered-f32/1`; softmax alone
//! differs, whose greatest logit is known too late: each item is pooled against its own greatest and scaled when merged.

use super::Cpu;
use super::gate::{UNITS, add_weighted, admissible, logit, logit_kept};
use super::gated_arguments::{Call, Features};
use super::product::{Left, Order, PANEL, Panels, Pieces, Simd, padded, product, spread};
use crate::attention::AttentionHead;
use crate::bags::{Bags, Item};
use crate::error::KernelError;
use crate::gated::GatedHead;
use crate::kernels::{GatedOut, Rule, flags};
use crate::math::{exp, ln};
use crate::normalise::{Normalisation, Normalise};
use crate::pool::pool;
use crate::view::View;
use crate::{ROWS, ordered_sum};
use rayon::prelude::*;

/// A head in the order in which the loops want it. Hidden unit l of a gated head has its pre-activation by V in column
/// l % 8 of panel l / 8 and that by U 8 columns on; a plain head has 16 units a panel.
#[derive(Clone, Debug)]
pub(crate) struct PackedHead {
    pub(super) gated: bool,
    /// [d, hidden columns].
    pub(super) forward: Panels,
    /// [hidden columns, d]: the transpose, for dL/dh.
    pub(super) backward: Panels,
    /// Hidden columns, a multiple of 16.
    pub(super) columns: usize,
    pub(super) bias: Vec<f32>,
    /// w, zeros to a whole panel.
    pub(super) weight: Vec<f32>,
    pub(super) offset: f32,
}

impl PackedHead {
    pub(crate) fn new(head: &AttentionHead) -> PackedHead {
        let gate = head.gate();
        let hidden = head.weight().len();
        let columns = match gate {
            Some(_) => hidden.div_ceil(UNITS) * PANEL,
            None => padded(hidden),
        };
        let of = |column: usize| source(gate.is_some(), column);
        let element = |column: usize, input: usize| {
            let (gate_column, unit) = of(column);
            match (
                if gate_column {
                    gate
                } else {
                    Some(head.value())
                },
                unit,
            ) {
                (Some(layer), unit) if unit < hidden => layer.weight(unit, input),
                _ => 0.0,
            }
        };
        let d = head.inputs();
        let mut weight = head.weight().to_vec();
        weight.resize(if gate.is_some() { columns / 2 } else { columns }, 0.0);
        PackedHead {
            gated: gate.is_some(),
            forward: Panels::pack(d, columns, |k, column| element(column, k)),
            backward: Panels::pack(columns, d, element),
            columns,
            bias: (0..columns)
                .map(|column| {
                    let (gate_column, unit) = of(column);
                    match if gate_column {
                        gate
                    } else {
                        Some(head.value())
                    } {
                        Some(layer) if unit < hidden => layer.bias(unit),
                        _ => 0.0,
                    }
                })
                .collect(),
            weight,
            offset: head.bias(),
        }
    }
}

/// Whether a hidden column is U's, and of which unit.
pub(super) fn source(gated: bool, column: usize) -> (bool, usize) {
    if gated {
        let (panel, place) = (column / PANEL, column % PANEL);
        (place >= UNITS, panel * UNITS + place % UNITS)
    } else {
        (false, column)
    }
}

/// A thread's memory: the rows of a block as f32, and their hidden units.
pub(super) struct Scratch {
    pub rows: Vec<f32>,
    pub stride: usize,
    pub hidden: Vec<f32>,
}

impl Scratch {
    pub fn new(d: usize, columns: usize) -> Scratch {
        Scratch {
            rows: vec![0.0; ROWS * spread(d)],
            stride: spread(d),
            hidden: vec![0.0; ROWS * spread(columns)],
        }
    }

    pub fn row(&self, row: usize, d: usize) -> &[f32] {
        &self.rows[row * self.stride..row * self.stride + d]
    }
}

/// Some items of at most [`ROWS`] members together, and where their results go.
struct Block<'a> {
    items: &'a [Item],
    logits: &'a mut [f32],
    totals: &'a mut [f32],
    refused: &'a mut [bool],
    tape: Option<&'a mut [f32]>,
}

/// Cuts the items into runs of at most [`ROWS`] members, at the same places whatever the threads.
pub(super) fn blocks(items: &[Item]) -> impl Iterator<Item = &[Item]> {
    let mut rest = items;
    std::iter::from_fn(move || {
        let mut rows = 0;
        let count = rest
            .iter()
            .take_while(|item| {
                rows += item.rows as usize;
                rows <= ROWS
            })
            .count();
        let (block, left) = rest.split_at(count);
        rest = left;
        (count > 0).then_some(block)
    })
}

fn split<'a, T>(rest: &mut &'a mut [T], at: usize) -> &'a mut [T] {
    let (head, tail) = std::mem::take(rest).split_at_mut(at);
    *rest = tail;
    head
}

/// What all blocks are given.
struct Pass<'a> {
    bags: &'a Bags,
    head: &'a PackedHead,
    features: Features<'a>,
    rule: Rule,
    numerators: &'a dyn Normalise,
    simd: Simd,
    d: usize,
}

impl Pass<'_> {
    fn run(&self, block: Block<'_>, scratch: &mut Scratch) {
        let (d, head, simd) = (self.d, self.head, self.simd);
        let columns = head.columns;
        let first = block.items[0].first as usize;
        let rows = block.logits.len();
        for row in 0..rows {
            let at = row * scratch.stride;
            let to = &mut scratch.rows[at..at + d];
            self.features.widen(self.bags.row(first + row), to);
        }
        let keep = block.tape.is_some();
        let (hidden, hidden_row) = match block.tape {
            Some(tape) => (tape, columns),
            None => (&mut scratch.hidden[..], spread(columns)),
        };
        let left = Left {
            data: &scratch.rows,
            rows,
            order: Order::Rows(scratch.stride),
        };
        let right = head.forward.right();
        product(simd, left, right, Pieces::ONE, hidden, hidden_row, false);
        for (hidden, a) in hidden
            .chunks_exact_mut(hidden_row.max(1))
            .zip(&mut *block.logits)
        {
            let hidden = &mut hidden[..columns];
            *a = head.offset
                + if keep {
                    logit_kept(simd, hidden, &head.bias, &head.weight, head.gated)
                } else {
                    logit(simd, hidden, &head.bias, &head.weight, head.gated)
                };
        }
        let totals = block.totals.chunks_exact_mut(d.max(1));
        let mut row = 0;
        for ((item, total), refused) in block.items.iter().zip(totals).zip(block.refused) {
            let members = row..row + item.rows as usize;
            row = members.end;
            let logits = &block.logits[members.clone()];
            *refused = !members
                .clone()
                .zip(logits)
                .all(|(row, a)| a.is_finite() && admissible(simd, scratch.row(row, d)));
            if *refused {
                continue;
            }
            let g: Vec<f32> = logits.iter().map(|&a| self.rule.link.apply(a)).collect();
            let e = self.numerators.numerators(&g);
            for (row, e) in members.zip(e) {
                add_weighted(simd, total, e, scratch.row(row, d));
            }
        }
    }
}

/// Results of one bag.
#[derive(Default)]
struct Finished {
    pooled: Vec<f32>,
    weights: Vec<f32>,
    sum: f32,
    squares: f32,
    entropy: f32,
    flags: u32,
}

pub(super) fn forward(
    cpu: &Cpu,
    bags: &Bags,
    rule: Rule,
    head: &GatedHead,
    features: View<'_, 2>,
    mut out: GatedOut<'_>,
) -> Result<(), KernelError> {
    let call = Call::new("gated pool", bags, rule, head, &features)?;
    let (n, d) = (bags.len(), call.d);
    let rows_out: &mut [f32] = call.write("logits", &mut out.logits, [bags.total()])?;
    let pooled: &mut [f32] = call.write("pooled", &mut out.pool.pooled, [n, d])?;
    let results = &mut out.pool.weights;
    let weights: &mut [f32] = call.write("weights", &mut results.weights, [bags.total()])?;
    let sums: &mut [f32] = call.write("sums", &mut results.sums, [n])?;
    let squares: &mut [f32] = call.write("squares", &mut results.squares, [n])?;
    let entropy: &mut [f32] = call.write("entropy", &mut results.entropy, [n])?;
    let noticed: &mut [u32] = call.write("flags", &mut results.flags, [n])?;

    let packed = head.cpu();
    let numerators = rule.normalisation.rule();
    let pass = Pass {
        bags,
        head: packed,
        features: Features::new(features),
        rule,
        numerators: &*numerators,
        simd: Simd::here(),
        d,
    };
    let mut logits = vec![0.0f32; bags.members()];
    let mut totals = vec![0.0f32; bags.items().len() * d];
    let mut refused = vec![false; bags.items().len()];
    let mut tape = out.tape.map(|tape| {
        // Every number of it is written below: what stands there need not be wiped.
        tape.hidden.resize(bags.members() * packed.columns, 0.0);
        &mut tape.hidden[..]
    });
    let tasks: Vec<Block<'_>> = {
        let (mut logits, mut totals, mut refused) =
            (&mut logits[..], &mut totals[..], &mut refused[..]);
        blocks(bags.items())
            .map(|items| {
                let rows = items.iter().map(|item| item.rows as usize).sum();
                Block {
                    items,
                    logits: split(&mut logits, rows),
                    totals: split(&mut totals, items.len() * d),
                    refused: split(&mut refused, items.len()),
                    tape: tape.as_mut().map(|tape| split(tape, rows * packed.columns)),
                }
            })
            .collect()
    };
    cpu.threads.install(|| {
        tasks.into_par_iter().with_max_len(1).for_each_init(
            || Scratch::new(d, packed.columns),
            |scratch, block| pass.run(block, scratch),
        );
    });
    let finished: Vec<Finished> = cpu.threads.install(|| {
        let bags = (0..n).into_par_iter();
        bags.map(|bag| pass.finish(bag, &logits, &totals, &refused))
            .collect()
    });

    rows_out.fill(0.0);
    weights.fill(0.0);
    for (bag, done) in finished.into_iter().enumerate() {
        for (place, w) in bags.places(bag).zip(done.weights) {
            let row = bags.row(place);
            (rows_out[row], weights[row]) = (logits[place], w);
        }
        if d > 0 {
            pooled[bag * d..(bag + 1) * d].copy_from_slice(&done.pooled);
        }
        (sums[bag], squares[bag]) = (done.sum, done.squares);
        (entropy[bag], noticed[bag]) = (done.entropy, done.flags);
    }
    Ok(())
}

impl Pass<'_> {
    fn finish(&self, bag: usize, logits: &[f32], totals: &[f32], refused: &[bool]) -> Finished {
        let places = self.bags.places(bag);
        let items = self.bags.first()[bag] as usize..self.bags.first()[bag + 1] as usize;
        if places.is_empty() {
            return Finished {
                pooled: vec![0.0; self.d],
                flags: flags::EMPTY,
                ..Finished::default()
            };
        }
        let a = &logits[places.clone()];
        if refused[items.clone()].contains(&true) {
            return self.again(bag, a);
        }
        let g: Vec<f32> = a.iter().map(|&a| self.rule.link.apply(a)).collect();
        let mut weights = self.numerators.numerators(&g);
        let sum = ordered_sum(weights.iter().copied());
        let mut pooled = vec![0.0f32; self.d];
        let softmax = self.rule.normalisation == Normalisation::Softmax;
        let greatest = greatest(&g);
        for (item, g) in items.zip(g.chunks(ROWS)) {
            let total = &totals[item * self.d..(item + 1) * self.d];
            if softmax {
                let scale = exp(self::greatest(g) - greatest);
                add_weighted(self.simd, &mut pooled, scale, total);
            } else {
                pooled.iter_mut().zip(total).for_each(|(sum, t)| *sum += t);
            }
        }
        if sum == 0.0 || !sum.is_finite() || pooled.iter().any(|t| !t.is_finite()) {
            return self.again(bag, a);
        }
        weights.iter_mut().for_each(|w| *w /= sum);
        pooled.iter_mut().for_each(|t| *t /= sum);
        let strange = g.iter().any(|&g| !self.numerators.in_domain(g));
        let entropy = |&w: &f32| if w > 0.0 { -(w * ln(w)) } else { 0.0 };
        Finished {
            sum,
            squares: ordered_sum(weights.iter().map(|w| w * w)),
            entropy: ordered_sum(weights.iter().map(entropy)).max(0.0),
            flags: if strange { flags::OUT_OF_DOMAIN } else { 0 },
            pooled,
            weights,
        }
    }

    /// The bag by the law's own loop: a member is refused, or no sum is left.
    fn again(&self, bag: usize, logits: &[f32]) -> Finished {
        let mut rows = vec![0.0f32; logits.len() * self.d];
        for (place, row) in self
            .bags
            .places(bag)
            .zip(rows.chunks_exact_mut(self.d.max(1)))
        {
            self.features.widen(self.bags.row(place), row);
        }
        let members: Vec<&[f32]> = (0..logits.len())
            .map(|member| &rows[member * self.d..(member + 1) * self.d])
            .collect();
        let mut bag = pool(self.numerators, self.rule.link, logits, &members);
        bag.pooled.resize(self.d, 0.0);
        let kept = |values: &[f32]| -> Vec<f32> {
            (0..values.len())
                .filter(|member| bag.refused.binary_search(member).is_err())
                .map(|member| values[member])
                .collect()
        };
        let mut noticed = 0;
        for (is, flag) in [
            (bag.flags.empty, flags::EMPTY),
            (bag.flags.uniform, flags::UNIFORM),
            (bag.flags.out_of_domain, flags::OUT_OF_DOMAIN),
            (!bag.refused.is_empty(), flags::REFUSED),
        ] {
            noticed |= if is { flag } else { 0 };
        }
        Finished {
            sum: ordered_sum(kept(&bag.numerators).into_iter()),
            squares: ordered_sum(kept(&bag.weights).into_iter().map(|w| w * w)),
            entropy: bag.entropy,
            flags: noticed,
            pooled: bag.pooled,
            weights: bag.weights,
        }
    }
}

fn greatest(g: &[f32]) -> f32 {
    g.iter().copied().fold(f32::NEG_INFINITY, f32::max)
}
