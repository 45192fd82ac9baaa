//! (d) on the processor: the highest and lowest of each bag, in one pass over the scores.
//!
//! A ranking is a list of 64-bit keys: the score's bits, turned so that they order as [`f32::total_cmp`] does, above the
//! row's complement. No two keys are equal, so what is selected is a function of the scores alone: of no thread, slice or
//! device. The highest key stands first: score descending, of two zeros the positive one, then row ascending.
//!
//! A pass keeps the best keys so far in a buffer of more than twice as many as are wanted. When it is full, all but the best
//! are dropped (quickselect) and the last of those becomes the bar: a score that does not pass it costs two comparisons of a
//! vector. Over n scores in random order about m ln(n / m) pass; in the worst order each one passes, and the buffer is
//! cut once in m scores.

use super::Cpu;
use crate::bags::Bags;
use crate::error::{Cause, KernelError};
use crate::kernels::{Ends, TopKOut};
use crate::view::{Dtype, Place, View};
use rayon::prelude::*;
use std::ops::Range;

/// Members that one thread takes at once. A longer bag is cut; the cuts do not show.
const SLICE: usize = 1 << 16;

/// Scores that are looked at together: when none passes the bars they cost nothing more.
const BLOCK: usize = 32;

/// A score's place in the total order: -NaN < -infinity < ... < -0 < +0 < ... < infinity < NaN, as [`f32::total_cmp`].
#[inline]
fn order(score: f32) -> i32 {
    let bits = score.to_bits() as i32;
    bits ^ (((bits >> 31) as u32) >> 1) as i32
}

const LEAST: i32 = -0x7F80_0001; // of -infinity
const GREATEST: i32 = 0x7F80_0000; // of +infinity

/// The key of a member: greater stands before.
#[inline]
fn key(order: i32, row: u32) -> u64 {
    (u64::from(order as u32 ^ 0x8000_0000) << 32) | u64::from(!row)
}

/// The row that [`key`] was made from.
#[inline]
fn row_of(key: u64) -> u32 {
    !(key as u32)
}

/// The greatest keys so far, of a stream.
#[derive(Debug)]
struct Best {
    wanted: usize,
    keys: Vec<u64>,
    /// What a key's upper half, as an [`order`], must exceed; kept between the infinities, so that a NaN always stands out.
    bar: i32,
}

impl Best {
    fn new(wanted: usize) -> Best {
        Best {
            wanted,
            keys: Vec::with_capacity(Self::room(wanted)),
            bar: Self::open(wanted),
        }
    }

    fn room(wanted: usize) -> usize {
        if wanted == 0 { 0 } else { 2 * wanted + BLOCK }
    }

    fn open(wanted: usize) -> i32 {
        if wanted == 0 { GREATEST } else { LEAST - 1 }
    }

    fn clear(&mut self) {
        self.keys.clear();
        self.bar = Self::open(self.wanted);
    }

    #[inline]
    fn put(&mut self, key: u64) {
        if self.wanted == 0 {
            return;
        }
        if self.keys.len() == Self::room(self.wanted) {
            self.cut();
        }
        self.keys.push(key);
    }

    /// Drops all but the best.
    fn cut(&mut self) {
        if self.keys.len() <= self.wanted {
            return;
        }
        let (_, last, _) = self
            .keys
            .select_nth_unstable_by(self.wanted - 1, |a, b| b.cmp(a));
        self.bar = ((*last >> 32) as u32 ^ 0x8000_0000) as i32;
        self.keys.truncate(self.wanted);
    }

    /// The best, best first.
    fn finish(&mut self) -> &[u64] {
        if self.wanted > 0 {
            self.cut();
            self.keys.sort_unstable_by(|a, b| b.cmp(a));
        }
        &self.keys
    }
}

/// Both ends of a stream: the low one holds complements, so that the lowest are its greatest.
#[derive(Debug)]
struct Both {
    high: Best,
    low: Best,
    nans: u32,
}

impl Both {
    fn new(ends: Ends) -> Both {
        Both {
            high: Best::new(ends.highest),
            low: Best::new(ends.lowest),
            nans: 0,
        }
    }

    fn clear(&mut self) {
        self.high.clear();
        self.low.clear();
        self.nans = 0;
    }

    /// One member, whatever the bars say.
    #[inline]
    fn put(&mut self, score: f32, row: u32) {
        let order = order(score);
        if !(LEAST..=GREATEST).contains(&order) {
            self.nans += 1;
            return;
        }
        let key = key(order, row);
        // A later row of the same score stands behind the bar's at the top, but before it at the bottom.
        if order > self.high.bar {
            self.high.put(key);
        }
        if !order >= self.low.bar {
            self.low.put(!key);
        }
    }

    /// Members that lie side by side, the first of them in row `row`.
    fn extend(&mut self, scores: &[f32], row: u32) {
        let mut at = 0;
        let mut blocks = scores.chunks_exact(BLOCK);
        for block in blocks.by_ref() {
            let (high, low) = (self.high.bar, !self.low.bar);
            let passes = block.iter().fold(0i32, |any, &score| {
                let order = order(score);
                any | -i32::from(order > high) | -i32::from(order <= low)
            });
            if passes != 0 {
                for (i, &score) in block.iter().enumerate() {
                    self.put(score, row + (at + i) as u32);
                }
            }
            at += BLOCK;
        }
        for (i, &score) in blocks.remainder().iter().enumerate() {
            self.put(score, row + (at + i) as u32);
        }
    }

    /// The members at these places of a bag whose first row is `base`.
    fn take(&mut self, bags: &Bags, scores: &[f32], places: Range<usize>, base: usize) {
        match bags.list() {
            None => self.extend(&scores[places.clone()], (places.start - base) as u32),
            Some(rows) => {
                // Masked rows leave gaps, so scores are gathered first.
                let mut block = [0.0; BLOCK];
                for rows in rows[places].chunks(BLOCK) {
                    for (score, &row) in block.iter_mut().zip(rows) {
                        *score = scores[row as usize];
                    }
                    for (&score, &row) in block.iter().zip(rows) {
                        self.put(score, row - base as u32);
                    }
                }
            }
        }
    }

    /// What another found, of later rows.
    fn merge(&mut self, other: &Both) {
        other.high.keys.iter().for_each(|&key| self.high.put(key));
        other.low.keys.iter().for_each(|&key| self.low.put(key));
        self.nans += other.nans;
    }

    /// Into the rows of the results; `members` are the bag's.
    fn write(&mut self, members: usize, highest: &mut [i32], lowest: &mut [i32], nans: &mut u32) {
        *nans = self.nans;
        let ranked = members - self.nans as usize;
        let top = ranked.min(highest.len());
        let bottom = (ranked - top).min(lowest.len());
        let (chosen, rest) = highest.split_at_mut(top);
        for (place, &key) in chosen.iter_mut().zip(self.high.finish()) {
            *place = row_of(key) as i32;
        }
        rest.fill(-1);
        let (chosen, rest) = lowest.split_at_mut(bottom);
        for (place, &key) in chosen.iter_mut().rev().zip(self.low.finish()) {
            *place = row_of(!key) as i32;
        }
        rest.fill(-1);
    }
}

pub(super) fn select(
    cpu: &Cpu,
    bags: &Bags,
    ends: Ends,
    scores: View<'_, 1>,
    mut out: TopKOut<'_>,
) -> Result<(), KernelError> {
    check(bags, ends, &scores, &out)?;
    // Type and order are checked: what is left to fail is the place.
    let away = |argument, got| {
        let expected = Place::Host;
        move || {
            let cause = Cause::Place {
                argument,
                expected,
                got,
            };
            refuse(bags, ends, cause)
        }
    };
    let place = scores.layout().place;
    let scores = scores.slice::<f32>().ok_or_else(away("scores", place))?;
    let place = out.highest.layout().place;
    let highest = out.highest.slice::<i32>();
    let highest = highest.ok_or_else(away("highest", place))?;
    let place = out.lowest.layout().place;
    let lowest = out.lowest.slice::<i32>();
    let lowest = lowest.ok_or_else(away("lowest", place))?;
    let place = out.nans.layout().place;
    let nans = out.nans.slice::<u32>().ok_or_else(away("nans", place))?;
    cpu.threads.install(|| {
        // Rows of the results a bag; an end of which nothing is wanted gives empty ones.
        let highest = rows_mut(highest, ends.highest, bags.len());
        let lowest = rows_mut(lowest, ends.lowest, bags.len());
        highest
            .into_par_iter()
            .zip(lowest)
            .zip(nans)
            .enumerate()
            .for_each_init(
                || Both::new(ends),
                |both, (bag, ((highest, lowest), nans))| {
                    let (places, base) = (bags.places(bag), bags.rows(bag).start);
                    both.clear();
                    if places.len() <= SLICE {
                        both.take(bags, scores, places.clone(), base);
                    } else {
                        let cuts = places.len().div_ceil(SLICE);
                        let parts: Vec<Both> = (0..cuts)
                            .into_par_iter()
                            .map(|cut| {
                                let start = places.start + cut * SLICE;
                                let mut part = Both::new(ends);
                                part.take(
                                    bags,
                                    scores,
                                    start..(start + SLICE).min(places.end),
                                    base,
                                );
                                part
                            })
                            .collect();
                        parts.iter().for_each(|part| both.merge(part));
                    }
                    both.write(places.len(), highest, lowest, nans);
                },
            );
    });
    Ok(())
}

fn rows_mut(data: &mut [i32], width: usize, rows: usize) -> Vec<&mut [i32]> {
    if width == 0 {
        return (0..rows).map(|_| &mut [][..]).collect();
    }
    data.chunks_exact_mut(width).collect()
}

/// A refusal of this kernel.
pub(crate) fn refuse(bags: &Bags, ends: Ends, cause: Cause) -> KernelError {
    KernelError {
        kernel: "top-k",
        shape: format!(
            "{}, {} highest, {} lowest",
            bags.describe(),
            ends.highest,
            ends.lowest
        ),
        cause,
    }
}

/// What holds on every device: limits, types, shapes, and that the results lie without gaps.
pub(crate) fn check(
    bags: &Bags,
    ends: Ends,
    scores: &View<'_, 1>,
    out: &TopKOut<'_>,
) -> Result<(), KernelError> {
    let refuse = |cause| Err(refuse(bags, ends, cause));
    for (what, got) in [
        ("highest members", ends.highest),
        ("lowest members", ends.lowest),
    ] {
        if got > Ends::LIMIT {
            return refuse(Cause::Limit {
                what,
                limit: Ends::LIMIT,
                got,
            });
        }
    }
    let (highest, lowest) = (out.highest.as_view(), out.lowest.as_view());
    let nans = out.nans.as_view();
    for (argument, expected, must, got) in [
        ("scores", "f32", Dtype::F32, scores.dtype()),
        ("highest", "i32", Dtype::I32, highest.dtype()),
        ("lowest", "i32", Dtype::I32, lowest.dtype()),
        ("nans", "u32", Dtype::U32, nans.dtype()),
    ] {
        if got != must {
            return refuse(Cause::Dtype {
                argument,
                expected,
                got,
            });
        }
    }
    let (rows, count) = (bags.total(), bags.len());
    let shapes = [
        ("scores", vec![rows], scores.shape().to_vec()),
        (
            "highest",
            vec![count, ends.highest],
            highest.shape().to_vec(),
        ),
        ("lowest", vec![count, ends.lowest], lowest.shape().to_vec()),
        ("nans", vec![count], nans.shape().to_vec()),
    ];
    for (argument, expected, got) in shapes {
        if got != expected {
            return refuse(Cause::Shape {
                argument,
                expected: format!("{expected:?}"),
                got: format!("{got:?}"),
            });
        }
    }
    for (argument, dense) in [
        ("scores", scores.layout().contiguous()),
        ("highest", highest.layout().contiguous()),
        ("lowest", lowest.layout().contiguous()),
        ("nans", nans.layout().contiguous()),
    ] {
        if !dense {
            return refuse(Cause::Strides {
                argument,
                expected: "in order and without gaps",
            });
        }
    }
    Ok(())
}
