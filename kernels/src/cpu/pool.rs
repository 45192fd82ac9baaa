//! (b) on the processor: one pass over the features, then the weights of (a).

use super::Cpu;
use super::features::{Feature, accumulate, admissible, product};
use super::slopes::Slopes;
use super::weights::{Out, Totals, read, run, write};
use crate::ROWS;
use crate::bags::{Bags, Item};
use crate::check::{Asked, pool as check};
use crate::error::KernelError;
use crate::kernels::{PoolBackward, PoolGradient, PoolOut, PoolState, Rule};
use crate::view::{Dtype, Place, View, ViewMut};
use half::{bf16, f16};
use rayon::prelude::*;
use std::marker::PhantomData;

/// The members' features, to be added up.
struct Features<'a, T> {
    rows: View<'a, 2>,
    of: PhantomData<T>,
}

impl<T: Feature> Features<'_, T> {
    fn row(&self, row: usize) -> &[T] {
        // `check` has seen that it is there.
        self.rows.row(row).unwrap_or(&[])
    }
}

impl<T: Feature> Totals for Features<'_, T> {
    fn width(&self) -> usize {
        self.rows.shape()[1]
    }

    fn add(&self, bags: &Bags, item: Item, e: &[f32], total: &mut [f32]) -> bool {
        let mut rows: [&[T]; ROWS] = [&[]; ROWS];
        let rows = &mut rows[..item.rows as usize];
        for (place, row) in rows.iter_mut().enumerate() {
            *row = self.row(bags.row(item.first as usize + place));
        }
        accumulate(rows, e, total)
    }

    fn admissible(&self, row: usize) -> bool {
        admissible(self.row(row))
    }
}

pub(super) fn forward(
    cpu: &Cpu,
    bags: &Bags,
    rule: Rule,
    features: View<'_, 2>,
    logits: View<'_, 1>,
    mut out: PoolOut<'_>,
) -> Result<(), KernelError> {
    let asked = Asked::features("pool", bags, features.layout(), Place::Host);
    check::forward(&asked, bags, rule, features, logits, &out)?;
    let logits = read(&asked, "logits", logits)?;
    let to = Out {
        weights: write(&asked, "weights", &mut out.weights.weights)?,
        sums: write(&asked, "sums", &mut out.weights.sums)?,
        squares: write(&asked, "squares", &mut out.weights.squares)?,
        entropy: write(&asked, "entropy", &mut out.weights.entropy)?,
        flags: write(&asked, "flags", &mut out.weights.flags)?,
        pooled: write(&asked, "pooled", &mut out.pooled)?,
    };
    match features.dtype() {
        Dtype::F16 => typed::<f16>(cpu, bags, rule, features, logits, to),
        Dtype::Bf16 => typed::<bf16>(cpu, bags, rule, features, logits, to),
        _ => typed::<f32>(cpu, bags, rule, features, logits, to),
    }
    Ok(())
}

fn typed<T: Feature>(
    cpu: &Cpu,
    bags: &Bags,
    rule: Rule,
    rows: View<'_, 2>,
    logits: &[f32],
    out: Out<'_>,
) {
    let features = Features::<T> {
        rows,
        of: PhantomData,
    };
    run(cpu, bags, rule, logits, &features, out);
}

#[allow(clippy::too_many_arguments)]
pub(super) fn backward(
    cpu: &Cpu,
    bags: &Bags,
    rule: Rule,
    features: View<'_, 2>,
    logits: View<'_, 1>,
    state: PoolState<'_>,
    gradient: PoolGradient<'_>,
    out: PoolBackward<'_>,
) -> Result<(), KernelError> {
    let asked = Asked::features("pool backward", bags, features.layout(), Place::Host);
    check::backward(
        &asked, bags, rule, features, logits, &state, &gradient, &out,
    )?;
    match features.dtype() {
        Dtype::F16 => back::<f16>(
            cpu, &asked, bags, rule, features, logits, state, gradient, out,
        ),
        Dtype::Bf16 => back::<bf16>(
            cpu, &asked, bags, rule, features, logits, state, gradient, out,
        ),
        _ => back::<f32>(
            cpu, &asked, bags, rule, features, logits, state, gradient, out,
        ),
    }
}

/// A row's part of the backward pass.
struct Row<'a, T> {
    row: usize,
    bag: usize,
    /// dL/dw.
    along: &'a mut f32,
    refused: &'a mut bool,
    /// dL/dh.
    out: Option<&'a mut [T]>,
}

#[allow(clippy::too_many_arguments)]
fn back<T: Feature>(
    cpu: &Cpu,
    asked: &Asked,
    bags: &Bags,
    rule: Rule,
    rows: View<'_, 2>,
    logits: View<'_, 1>,
    state: PoolState<'_>,
    gradient: PoolGradient<'_>,
    mut out: PoolBackward<'_>,
) -> Result<(), KernelError> {
    let logits: &[f32] = read(asked, "logits", logits)?;
    let weights: &[f32] = read(asked, "weights", state.weights)?;
    let width = rows.shape()[1];
    let vectors: &[f32] = gradient.pooled.slice().unwrap_or(&[]);
    let direct: Option<&[f32]> = gradient.weights.and_then(|view| view.slice());
    let features = Features::<T> {
        rows,
        of: PhantomData,
    };
    let mut along = vec![0f32; bags.total()];
    // Until a row is found to be a member that is not refused, it is none.
    let mut refused = vec![true; bags.total()];
    {
        let mut outs = rows_of::<T>(out.features.as_mut(), bags.total());
        let mut list = Vec::with_capacity(bags.total());
        let mut cells = along.iter_mut().zip(&mut refused).enumerate();
        for bag in 0..bags.len() {
            for _ in bags.rows(bag) {
                if let Some((row, (along, refused))) = cells.next() {
                    list.push(Row {
                        row,
                        bag,
                        along,
                        refused,
                        out: outs.as_mut().and_then(Iterator::next),
                    });
                }
            }
        }
        let member = members(bags);
        let one = |row: &mut Row<'_, T>| {
            let u = &vectors[row.bag * width..(row.bag + 1) * width];
            let kept = member(row.row) && logits[row.row].is_finite();
            let (product, kept) = match kept {
                true => product(features.row(row.row), u),
                false => (0.0, false),
            };
            *row.refused = !kept;
            if kept {
                *row.along = direct.map_or(product, |direct| product + direct[row.row]);
            }
            if let Some(out) = &mut row.out {
                match kept {
                    true => T::scaled(weights[row.row], u, out),
                    false => out.fill(T::default()),
                }
            }
        };
        if bags.total() * width < super::weights::ALONE || cpu.threads() == 1 {
            list.iter_mut().for_each(one);
        } else {
            let list = &mut list;
            cpu.threads
                .install(|| list.par_iter_mut().with_min_len(32).for_each(one));
        }
    }
    let slopes = Slopes {
        bags,
        rule,
        logits,
        weights,
        sums: read(asked, "sums", state.sums)?,
        flags: read(asked, "flags", state.flags)?,
        gradient: &along,
    };
    slopes.run(
        cpu,
        |row| refused[row],
        write(asked, "logits' gradient", &mut out.logits)?,
    );
    Ok(())
}

/// Whether a row is a member.
fn members(bags: &Bags) -> impl Fn(usize) -> bool + Sync {
    let mask = bags.list().map(|list| {
        let mut mask = vec![false; bags.total()];
        list.iter().for_each(|&row| mask[row as usize] = true);
        mask
    });
    move |row| mask.as_ref().is_none_or(|mask| mask[row])
}

/// The rows of a checked matrix, to write.
fn rows_of<'a, T: Feature>(
    out: Option<&'a mut ViewMut<'_, 2>>,
    count: usize,
) -> Option<impl Iterator<Item = &'a mut [T]>> {
    let out = out?;
    let rows = out.rows::<T>()?;
    Some(rows.take(count))
}
