//! From the gradient by the weights to that by the logits, in vectors and on all threads, item by item as in `weights.rs`:
//! the items' parts of a bag's mean first, then, given the means, every row by itself.
//!
//! A bag of which a member is refused has other items than `Bags` says, so its mean is made of the list of those that are
//! left.

use super::Cpu;
use super::numerators::{ABREAST, slopes, sums};
use super::product::Simd;
use super::weights::ALONE;
use crate::bags::{Bags, Item};
use crate::kernels::{Rule, flags};
use crate::{ROWS, ordered_sum};
use rayon::prelude::*;

/// (a)'s backward pass, as slices: from `gradient`, dL/dw of each row, to dL/da. A row of which `refused` says so, or
/// whose logit is not finite, is none of its bag.
#[derive(Clone, Copy)]
pub(super) struct Slopes<'a> {
    pub(super) bags: &'a Bags,
    pub(super) rule: Rule,
    pub(super) logits: &'a [f32],
    pub(super) weights: &'a [f32],
    pub(super) sums: &'a [f32],
    pub(super) flags: &'a [u32],
    pub(super) gradient: &'a [f32],
}

/// One item.
struct Part<'a> {
    item: Item,
    /// dL/dw, then dL/da, of its members.
    out: &'a mut [f32],
    /// Sum of w dL/dw.
    sum: f32,
    /// No member is refused.
    whole: bool,
}

/// What is known of a bag.
#[derive(Clone, Copy)]
enum Of {
    /// Its weights do not depend on the logits.
    Flat,
    /// The mean of dL/dw; every row is a member.
    Whole(f32),
    /// The mean; members are those that are not refused.
    Some(f32),
}

impl Slopes<'_> {
    /// Writes every row.
    pub(super) fn run(&self, cpu: &Cpu, refused: impl Fn(usize) -> bool + Sync, out: &mut [f32]) {
        let (bags, simd) = (self.bags, Simd::here());
        // Half of what a forward pass does to a member.
        let alone = bags.members() * 2 < ALONE || cpu.threads() == 1;
        let each = |parts: &mut [Part<'_>], what: &(dyn Fn(&mut [Part<'_>]) + Sync)| {
            if alone {
                parts.chunks_mut(ABREAST).for_each(what);
            } else {
                cpu.threads
                    .install(|| parts.par_chunks_mut(ABREAST).for_each(what));
            }
        };
        let kept = |row: usize| self.logits[row].is_finite() && !refused(row);
        // Rows in their order without a gap: their slopes are made where they belong.
        let direct = bags.list().is_none();
        let mut apart = vec![0.0f32; if direct { 0 } else { bags.members() }];
        let mut parts = parts(bags.items(), if direct { &mut *out } else { &mut apart });
        each(&mut parts, &|group| {
            let mut products = [[0.0f32; ROWS]; ABREAST];
            for (part, products) in group.iter_mut().zip(&mut products) {
                let places = places(part.item);
                part.whole = places
                    .clone()
                    .fold(true, |all, place| all & kept(bags.row(place)));
                let weights = &mut [0.0; ROWS][..places.len()];
                self.copy(self.weights, part.item, weights);
                self.copy(self.gradient, part.item, part.out);
                for ((product, w), g) in products.iter_mut().zip(&*weights).zip(&*part.out) {
                    *product = w * g;
                }
            }
            let lists = std::array::from_fn(|k| {
                let rows = group.get(k).map_or(0, |part| part.out.len());
                &products[k][..rows]
            });
            let all = sums(simd, lists);
            group
                .iter_mut()
                .zip(all)
                .for_each(|(part, sum)| part.sum = sum);
        });
        let of: Vec<Of> = (0..bags.len())
            .map(|bag| {
                let own = &parts[bags.first()[bag] as usize..bags.first()[bag + 1] as usize];
                if self.flags[bag] & (flags::UNIFORM | flags::EMPTY) != 0 {
                    Of::Flat
                } else if own.iter().all(|part| part.whole) {
                    Of::Whole(own.iter().fold(0.0, |sum, part| sum + part.sum))
                } else {
                    let rows = bags.places(bag).map(|place| bags.row(place));
                    let left: Vec<usize> = rows.filter(|&row| kept(row)).collect();
                    let term = |&row: &usize| self.weights[row] * self.gradient[row];
                    Of::Some(ordered_sum(left.iter().map(term)))
                }
            })
            .collect();
        each(&mut parts, &|group| {
            for part in group {
                let bag = part.item.bag as usize;
                let sum = self.sums[bag];
                match of[bag] {
                    Of::Flat => part.out.fill(0.0),
                    Of::Whole(mean) => {
                        let (mut a, mut w) = ([0.0; ROWS], [0.0; ROWS]);
                        let rows = part.out.len();
                        self.copy(self.logits, part.item, &mut a[..rows]);
                        self.copy(self.weights, part.item, &mut w[..rows]);
                        slopes(simd, self.rule, sum, mean, &a[..rows], &w[..rows], part.out);
                    }
                    Of::Some(mean) => {
                        for (place, out) in places(part.item).zip(&mut *part.out) {
                            let row = bags.row(place);
                            *out = if kept(row) {
                                let (a, w) = (self.logits[row], self.weights[row]);
                                self.rule.slope(a, w, sum, *out - mean)
                            } else {
                                0.0
                            };
                        }
                    }
                }
            }
        });
        if let Some(rows) = bags.list() {
            out.fill(0.0);
            for (&row, &slope) in rows.iter().zip(&apart) {
                out[row as usize] = slope;
            }
        }
    }

    /// The members' numbers of `from`, one a row.
    fn copy(&self, from: &[f32], item: Item, to: &mut [f32]) {
        let places = places(item);
        match self.bags.list() {
            None => to.copy_from_slice(&from[places]),
            Some(list) => {
                for (to, &row) in to.iter_mut().zip(&list[places]) {
                    *to = from[row as usize];
                }
            }
        }
    }
}

fn places(item: Item) -> std::ops::Range<usize> {
    item.first as usize..(item.first + item.rows) as usize
}

fn parts<'a>(items: &[Item], mut out: &'a mut [f32]) -> Vec<Part<'a>> {
    let part = |&item: &Item| {
        let (own, rest) = std::mem::take(&mut out).split_at_mut(item.rows as usize);
        out = rest;
        Part {
            item,
            out: own,
            sum: 0.0,
            whole: true,
        }
    };
    items.iter().map(part).collect()
}
