//! (a) on the processor, and the passes over a bag that (b) makes too.
//!
//! A pass over the members makes numerators, their sum and what else [`Totals`] adds up, item by item, whichever thread
//! comes to it; then the items of each bag are merged in order. A bag in which a member is refused is passed again without
//! it, one whose sums are zero or out of range with the numerator 1.

use super::Cpu;
use super::numerators::{ABREAST, greatest, links, numerators, shares, sums, sums_of_squares};
use super::product::Simd;
use super::slopes::Slopes;
use crate::ROWS;
use crate::bags::{Bags, Item};
use crate::check::{Asked, weights as check};
use crate::error::KernelError;
use crate::kernels::{Rule, WeightsOut, flags};
use crate::view::{Dtype, Place, View, ViewMut};
use rayon::prelude::*;

/// What is added up beside the numerators.
pub(super) trait Totals: Sync {
    /// Number of sums.
    fn width(&self) -> usize;

    /// Adds e_i h_i of an item's members to `total`, in order; false when a member must be refused.
    fn add(&self, bags: &Bags, item: Item, e: &[f32], total: &mut [f32]) -> bool;

    /// Whether a row may be a member, by what is added up.
    fn admissible(&self, row: usize) -> bool;
}

/// Nothing but the numerators.
struct Nothing;

impl Totals for Nothing {
    fn width(&self) -> usize {
        0
    }
    fn add(&self, _: &Bags, _: Item, _: &[f32], _: &mut [f32]) -> bool {
        true
    }
    fn admissible(&self, _: usize) -> bool {
        true
    }
}

/// The results as slices.
pub(super) struct Out<'a> {
    pub(super) weights: &'a mut [f32],
    pub(super) sums: &'a mut [f32],
    pub(super) squares: &'a mut [f32],
    pub(super) entropy: &'a mut [f32],
    pub(super) flags: &'a mut [u32],
    /// `[bags, width]`
    pub(super) pooled: &'a mut [f32],
}

/// The elements of a view that was checked.
pub(super) fn read<'a, T: crate::view::Element>(
    asked: &Asked,
    argument: &'static str,
    view: View<'a, 1>,
) -> Result<&'a [T], KernelError> {
    view.slice().ok_or_else(|| not_dense(asked, argument))
}

fn not_dense(asked: &Asked, argument: &'static str) -> KernelError {
    asked.refuse(crate::error::Cause::Strides {
        argument,
        expected: "on the host, in order and without gaps",
    })
}

/// The elements of a view that was checked, to write.
pub(super) fn write<'a, T: crate::view::Element, const N: usize>(
    asked: &Asked,
    argument: &'static str,
    view: &'a mut ViewMut<'_, N>,
) -> Result<&'a mut [T], KernelError> {
    view.slice().ok_or_else(|| not_dense(asked, argument))
}

pub(super) fn forward(
    cpu: &Cpu,
    bags: &Bags,
    rule: Rule,
    logits: View<'_, 1>,
    mut out: WeightsOut<'_>,
) -> Result<(), KernelError> {
    let asked = Asked::rows("weights", bags, Place::Host);
    rule.check(asked.kernel(), asked.shape())?;
    asked.dense("logits", logits.layout(), Dtype::F32, [bags.total()])?;
    check::out(&asked, bags, &out)?;
    let out = Out {
        weights: write(&asked, "weights", &mut out.weights)?,
        sums: write(&asked, "sums", &mut out.sums)?,
        squares: write(&asked, "squares", &mut out.squares)?,
        entropy: write(&asked, "entropy", &mut out.entropy)?,
        flags: write(&asked, "flags", &mut out.flags)?,
        pooled: &mut [],
    };
    run(
        cpu,
        bags,
        rule,
        read(&asked, "logits", logits)?,
        &Nothing,
        out,
    );
    Ok(())
}

/// One item of a pass.
struct Part<'a> {
    item: Item,
    /// Numerators, then weights, of its members.
    e: &'a mut [f32],
    total: &'a mut [f32],
    /// The greatest g of its members, where the rule asks for it.
    greatest: f32,
    sum: f32,
    squares: f32,
    entropy: f32,
    /// A member must be refused.
    refused: bool,
    /// A g lies outside of its domain.
    outside: bool,
}

/// How a pass makes numerators.
#[derive(Clone, Copy, PartialEq)]
enum Numerators {
    ByRule,
    One,
}

/// What became of a bag in a pass.
#[derive(Clone, Copy, PartialEq)]
enum Outcome {
    Done,
    Refused,
    Uniform,
}

struct Passes<'a, T> {
    cpu: &'a Cpu,
    rule: Rule,
    logits: &'a [f32],
    totals: &'a T,
    simd: Simd,
}

/// Elements below which a pass runs on the caller's thread: another thread would take longer to wake.
pub(super) const ALONE: usize = 1 << 16;

/// Number of sums from which one item at a time is enough for a thread.
const LONG: usize = 256;

/// All passes over all bags.
pub(super) fn run<T: Totals>(
    cpu: &Cpu,
    bags: &Bags,
    rule: Rule,
    logits: &[f32],
    totals: &T,
    mut out: Out<'_>,
) {
    let passes = Passes {
        cpu,
        rule,
        logits,
        totals,
        simd: Simd::here(),
    };
    if bags.list().is_some() {
        out.weights.fill(0.0);
    }
    out.flags.fill(0);
    let all: Vec<usize> = (0..bags.len()).collect();
    let mut refused = Vec::new();
    let mut outcomes = passes.pass(bags, &all, Numerators::ByRule, &mut out, &mut refused);
    let mut bad = vec![false; if refused.is_empty() { 0 } else { bags.total() }];
    refused.iter().for_each(|&row| bad[row] = true);
    let kept = |row: usize| bad.get(row).is_none_or(|bad| !bad);
    let again = Outcome::Refused;
    if outcomes.contains(&again) {
        let of: Vec<usize> = all
            .iter()
            .copied()
            .filter(|&bag| outcomes[bag] == again)
            .collect();
        let without = bags.keep(|bag, row| outcomes[bag] == again && kept(row));
        for &bag in &of {
            out.flags[bag] |= flags::REFUSED;
        }
        let second = passes.pass(&without, &of, Numerators::ByRule, &mut out, &mut refused);
        for (bag, outcome) in of.into_iter().zip(second) {
            outcomes[bag] = outcome;
        }
    }
    let again = Outcome::Uniform;
    if outcomes.contains(&again) {
        let of: Vec<usize> = all
            .into_iter()
            .filter(|&bag| outcomes[bag] == again)
            .collect();
        let uniform = bags.keep(|bag, row| outcomes[bag] == again && kept(row));
        passes.pass(&uniform, &of, Numerators::One, &mut out, &mut refused);
    }
}

impl<T: Totals> Passes<'_, T> {
    /// One pass over the bags `of`, the only ones of `bags` with members; the outcome of each. Rows that must be refused
    /// are added to `refused`.
    fn pass(
        &self,
        bags: &Bags,
        of: &[usize],
        numerators: Numerators,
        out: &mut Out<'_>,
        refused: &mut Vec<usize>,
    ) -> Vec<Outcome> {
        let width = self.totals.width();
        let alone = bags.members() * (width + 8) < ALONE || self.cpu.threads() == 1;
        // Rows in their order without a gap: their weights are made where they belong.
        let direct = bags.list().is_none();
        let results = std::mem::take(&mut out.weights);
        let mut apart = vec![0f32; if direct { 0 } else { bags.members() }];
        let e = if direct { &mut *results } else { &mut apart };
        let mut totals = vec![0f32; bags.items().len() * width];
        let mut parts = parts(bags.items(), e, &mut totals, width);
        // Long rows take the time: fewer of them at once leave no thread behind at the end.
        let together = if width < LONG { ABREAST } else { 1 };
        let shifted = self.rule.shifted() && numerators == Numerators::ByRule;
        let mut greatest = vec![f32::NEG_INFINITY; if shifted { bags.len() } else { 0 }];
        if shifted {
            self.each(alone, ABREAST, &mut parts, |group| {
                for part in group {
                    self.links(bags, part);
                    part.greatest = self::greatest(self.simd, part.e);
                }
            });
            // A maximum has no rounding: its order is free.
            for part in &parts {
                let greatest = &mut greatest[part.item.bag as usize];
                *greatest = greatest.max(part.greatest);
            }
        }
        self.each(alone, together, &mut parts, |group| {
            for part in &mut *group {
                if numerators == Numerators::One {
                    part.e.fill(1.0);
                } else {
                    if !shifted {
                        self.links(bags, part);
                    }
                    let greatest = greatest.get(part.item.bag as usize).copied();
                    let greatest = greatest.unwrap_or(f32::NEG_INFINITY);
                    part.outside |= !self::numerators(self.simd, self.rule, greatest, part.e);
                }
                part.refused |= !self.totals.add(bags, part.item, part.e, part.total);
            }
            let all = sums(self.simd, side_by_side(group));
            group
                .iter_mut()
                .zip(all)
                .for_each(|(part, sum)| part.sum = sum);
        });
        let outcomes: Vec<Outcome> = of
            .iter()
            .map(|&bag| self.merge(bags, bag, numerators, &parts, width, out))
            .collect();
        for part in &parts {
            if part.refused {
                let first = part.item.first as usize;
                let rows = (first..first + part.item.rows as usize).map(|place| bags.row(place));
                refused.extend(
                    rows.filter(|&row| {
                        !(self.logits[row].is_finite() && self.totals.admissible(row))
                    }),
                );
            }
        }
        let of_bag = &*out.sums;
        self.each(alone, ABREAST, &mut parts, |group| {
            spread(self.simd, group, of_bag);
        });
        for (&bag, outcome) in of.iter().zip(&outcomes) {
            let own = bags.first()[bag] as usize..bags.first()[bag + 1] as usize;
            let own = &mut parts[own];
            if *outcome == Outcome::Done {
                out.squares[bag] = merged(own.iter().map(|part| part.squares));
                out.entropy[bag] = merged(own.iter().map(|part| part.entropy));
            } else {
                // A later pass writes the weights of the members that it keeps.
                own.iter_mut().for_each(|part| part.e.fill(0.0));
            }
        }
        if let Some(rows) = bags.list() {
            for (&row, &w) in rows.iter().zip(&apart) {
                results[row as usize] = w;
            }
        }
        out.weights = results;
        outcomes
    }

    /// Does it to the parts, so many together.
    fn each<'p>(
        &self,
        alone: bool,
        together: usize,
        parts: &mut [Part<'p>],
        what: impl Fn(&mut [Part<'p>]) + Send + Sync,
    ) {
        if alone {
            parts.chunks_mut(together).for_each(what);
        } else {
            self.cpu
                .threads
                .install(|| parts.par_chunks_mut(together).for_each(what));
        }
    }

    /// Makes g of the members' logits.
    fn links(&self, bags: &Bags, part: &mut Part<'_>) {
        let (first, rows) = (part.item.first as usize, part.item.rows as usize);
        match bags.list() {
            None => part.e.copy_from_slice(&self.logits[first..first + rows]),
            Some(list) => {
                for (e, &row) in part.e.iter_mut().zip(&list[first..first + rows]) {
                    *e = self.logits[row as usize];
                }
            }
        }
        part.refused |= !links(self.simd, self.rule.link, part.e);
    }

    /// Merges a bag's items in order into S and z, and says what became of it.
    fn merge(
        &self,
        bags: &Bags,
        bag: usize,
        numerators: Numerators,
        parts: &[Part<'_>],
        width: usize,
        out: &mut Out<'_>,
    ) -> Outcome {
        let own = &parts[bags.first()[bag] as usize..bags.first()[bag + 1] as usize];
        let pooled = &mut out.pooled[bag * width..(bag + 1) * width];
        if own.iter().any(|part| part.refused) {
            return Outcome::Refused;
        }
        pooled.fill(0.0);
        let sum = merged(own.iter().map(|part| part.sum));
        (out.sums[bag], out.squares[bag], out.entropy[bag]) = (sum, 0.0, 0.0);
        if own.is_empty() {
            out.flags[bag] |= flags::EMPTY;
            return Outcome::Done;
        }
        if own.iter().any(|part| part.outside) {
            out.flags[bag] |= flags::OUT_OF_DOMAIN;
        }
        for part in own {
            for (total, &item) in pooled.iter_mut().zip(&*part.total) {
                *total += item;
            }
        }
        let in_range = sum.is_finite() && pooled.iter().all(|total| total.is_finite());
        if numerators == Numerators::ByRule && (sum == 0.0 || !in_range) {
            out.flags[bag] |= flags::UNIFORM;
            if !in_range {
                out.flags[bag] |= flags::OUT_OF_DOMAIN;
            }
            return Outcome::Uniform;
        }
        pooled.iter_mut().for_each(|total| *total /= sum);
        Outcome::Done
    }
}

/// The sum of the items' sums.
fn merged(items: impl Iterator<Item = f32>) -> f32 {
    items.fold(0.0, |total, item| total + item)
}

fn parts<'a>(
    items: &[Item],
    mut e: &'a mut [f32],
    mut totals: &'a mut [f32],
    width: usize,
) -> Vec<Part<'a>> {
    items
        .iter()
        .map(|&item| {
            let (own, rest) = std::mem::take(&mut e).split_at_mut(item.rows as usize);
            e = rest;
            let (total, rest) = std::mem::take(&mut totals).split_at_mut(width);
            totals = rest;
            Part {
                item,
                e: own,
                total,
                greatest: f32::NEG_INFINITY,
                sum: 0.0,
                squares: 0.0,
                entropy: 0.0,
                refused: false,
                outside: false,
            }
        })
        .collect()
}

/// The numbers of at most [`ABREAST`] items.
fn side_by_side<'a>(group: &'a [Part<'_>]) -> [&'a [f32]; ABREAST] {
    std::array::from_fn(|k| group.get(k).map_or(&[][..], |part| &*part.e))
}

/// Turns the numerators of at most [`ABREAST`] items into weights, and adds up their squares and entropy; `sums` are the
/// bags'.
fn spread(simd: Simd, group: &mut [Part<'_>], sums: &[f32]) {
    let mut entropy = [[0.0f32; ROWS]; ABREAST];
    for (part, entropy) in group.iter_mut().zip(&mut entropy) {
        shares(simd, sums[part.item.bag as usize], part.e, entropy);
    }
    let squares = sums_of_squares(simd, side_by_side(group));
    let entropy = std::array::from_fn(|k| {
        let rows = group.get(k).map_or(0, |part| part.e.len());
        &entropy[k][..rows]
    });
    let entropy = self::sums(simd, entropy);
    for (part, (squares, entropy)) in group.iter_mut().zip(squares.into_iter().zip(entropy)) {
        (part.squares, part.entropy) = (squares, entropy);
    }
}

pub(super) fn backward(
    cpu: &Cpu,
    bags: &Bags,
    rule: Rule,
    logits: View<'_, 1>,
    (weights, sums, flags): (View<'_, 1>, View<'_, 1>, View<'_, 1>),
    gradient: View<'_, 1>,
    mut out: ViewMut<'_, 1>,
) -> Result<(), KernelError> {
    let asked = Asked::rows("weights backward", bags, Place::Host);
    rule.check(asked.kernel(), asked.shape())?;
    check::backward(&asked, bags, logits, weights, sums, flags, &out)?;
    asked.dense("gradient", gradient.layout(), Dtype::F32, [bags.total()])?;
    let slopes = Slopes {
        bags,
        rule,
        logits: read(&asked, "logits", logits)?,
        weights: read(&asked, "weights", weights)?,
        sums: read(&asked, "sums", sums)?,
        flags: read(&asked, "flags", flags)?,
        gradient: read(&asked, "gradient", gradient)?,
    };
    slopes.run(cpu, |_| false, write(&asked, "out", &mut out)?);
    Ok(())
}
