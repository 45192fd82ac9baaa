//! (d) on the processor: the highest and lowest of each bag, in one pass over the scores.
//!
//! A ranking is a list of 64-bit keys, ascending: the score's bits, turned so that the greatest score in
//! [`f32::total_cmp`]'s order comes first, above the row. No two keys are equal, so what is selected is a function of the
//! scores alone: of no thread, slice or device. It is score descending, of two zeros the positive one first, then row
//! ascending, as the pipeline's `top-k` ranks tiles.
//!
//! Keys that may matter are held in one buffer for both ends. When it is full, all but the ends are dropped (two
//! quickselects) and the last key of each end becomes a bar: from then on a block of scores of which none passes a bar costs
//! its reading and two comparisons of vectors. A block in which one passes is appended without a branch on a score, so that
//! no order of scores is bad: the buffer is cut at most once in as many members as it has room for over the ends.

use super::Cpu;
use crate::bags::Bags;
use crate::check::top_k::{check, refuse};
use crate::error::{Cause, KernelError};
use crate::kernels::{Ends, TopKOut};
use crate::view::{Place, View};
use rayon::prelude::*;
use std::ops::Range;

/// Members that one thread takes at once. A longer bag is cut; the cuts do not show.
const SLICE: usize = 1 << 16;

/// Fewer members than this are one thread's: to wake another takes longer.
const ALONE: usize = 1 << 15;

/// Scores that are looked at together.
const BLOCK: usize = 32;

/// A score's place in the total order: -NaN < -infinity < ... < -0 < +0 < ... < infinity < NaN, as [`f32::total_cmp`].
#[inline(always)]
fn order(score: f32) -> i32 {
    let bits = score.to_bits() as i32;
    bits ^ (((bits >> 31) as u32) >> 1) as i32
}

/// [`order`] of the infinities: a NaN stands outside.
const LEAST: i32 = -0x7F80_0001;
const GREATEST: i32 = 0x7F80_0000;

/// The key of a member: the smaller stands before.
#[inline(always)]
fn key(order: i32, row: u32) -> u64 {
    (u64::from((order ^ i32::MAX) as u32) << 32) | u64::from(row)
}

/// [`order`] of the score that a [`key`] was made from.
fn order_of(key: u64) -> i32 {
    (key >> 32) as i32 ^ i32::MAX
}

/// What may yet be at the ends of a stream of members, whose rows ascend.
#[derive(Debug)]
struct Held {
    ends: Ends,
    room: usize,
    keys: Vec<u64>,
    len: usize,
    /// A member stands before the last of the highest when its order is greater. At most [`GREATEST`], so that every NaN
    /// passes a bar and is counted.
    high: i32,
    /// A member stands behind the first of the lowest when its order is this or less: of equal scores the later row is
    /// the lower. At least that of the negative NaNs.
    low: i32,
    nans: u32,
}

impl Held {
    fn new(ends: Ends) -> Held {
        // Twice the ends, so that a cut at least halves; and not so few that cuts are many.
        let mut held = Held {
            ends,
            room: (2 * (ends.highest + ends.lowest)).max(1024) + BLOCK,
            keys: Vec::new(),
            len: 0,
            high: 0,
            low: 0,
            nans: 0,
        };
        held.clear();
        held
    }

    fn clear(&mut self) {
        self.keys.resize(self.room, 0);
        (self.len, self.nans) = (0, 0);
        let none = self.ends.highest + self.ends.lowest == 0;
        (self.high, self.low) = (if none { GREATEST } else { LEAST - 1 }, LEAST - 1);
    }

    /// At most a block of members, whose rows are `rows`.
    #[inline(always)]
    fn block(&mut self, scores: &[f32], rows: impl Iterator<Item = u32>) {
        if self.len + BLOCK > self.keys.len() {
            self.cut();
        }
        let mut len = self.len;
        for (&score, row) in scores.iter().zip(rows) {
            let order = order(score);
            let number = (LEAST..=GREATEST).contains(&order);
            self.keys[len] = key(order, row);
            len += usize::from(number & ((order > self.high) | (order <= self.low)));
            self.nans += u32::from(!number);
        }
        self.len = len;
    }

    /// Members that lie side by side, the first of them in row `row`.
    fn extend(&mut self, scores: &[f32], row: u32) {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: the machine has it.
            unsafe { self.extend_avx2(scores, row) };
            return;
        }
        self.extend_plain(scores, row);
    }

    /// The same with wider vectors.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn extend_avx2(&mut self, scores: &[f32], row: u32) {
        self.extend_plain(scores, row);
    }

    #[inline(always)]
    fn extend_plain(&mut self, scores: &[f32], row: u32) {
        let mut row = row;
        for block in scores.chunks(BLOCK) {
            let (high, low) = (self.high, self.low);
            let passes = block.iter().fold(0, |any, &score| {
                let order = order(score);
                any | -i32::from(order > high) | -i32::from(order <= low)
            });
            if passes != 0 {
                self.block(block, row..);
            }
            row += block.len() as u32;
        }
    }

    /// Drops all but the ends, and sets the bars by them.
    fn cut(&mut self) {
        let Ends { highest, lowest } = self.ends;
        let keys = &mut self.keys[..self.len];
        if keys.len() <= highest + lowest {
            return;
        }
        (self.high, self.low) = (GREATEST, LEAST - 1);
        if highest > 0 {
            let (_, last, _) = keys.select_nth_unstable(highest - 1);
            self.high = order_of(*last);
        }
        if lowest > 0 {
            let middle = keys.len() - highest - lowest;
            let (_, first, _) = keys[highest..].select_nth_unstable(middle);
            self.low = order_of(*first);
            keys.copy_within(highest + middle.., highest);
        }
        self.len = highest + lowest;
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
                    let rows = rows.iter().map(|&row| row - base as u32);
                    self.block(&block[..rows.len()], rows);
                }
            }
        }
    }

    /// What was held of all parts of a bag.
    fn gather(&mut self, parts: &mut [Held]) {
        self.keys.truncate(self.len);
        for part in parts {
            part.cut();
            self.keys.extend_from_slice(&part.keys[..part.len]);
            self.nans += part.nans;
        }
        self.len = self.keys.len();
    }

    /// Into the rows of the results; `members` are the bag's.
    fn write(&mut self, members: usize, highest: &mut [i32], lowest: &mut [i32], nans: &mut u32) {
        *nans = self.nans;
        let ranked = members - self.nans as usize;
        let top = ranked.min(highest.len());
        let bottom = (ranked - top).min(lowest.len());
        self.cut();
        // Where nothing was dropped the ends are one list.
        let keys = &mut self.keys[..self.len];
        if ranked == keys.len() {
            keys.sort_unstable();
        } else {
            keys[..top].sort_unstable();
            keys[top..].sort_unstable();
        }
        let (high, low) = (&keys[..top], &keys[ranked.min(keys.len()) - bottom..]);
        for (list, keys) in [(highest, high), (lowest, low)] {
            let (chosen, rest) = list.split_at_mut(keys.len());
            for (place, &key) in chosen.iter_mut().zip(keys) {
                *place = key as u32 as i32;
            }
            rest.fill(-1);
        }
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
    // Rows of the results a bag; an end of which nothing is wanted gives empty ones.
    let highest = rows_mut(highest, ends.highest, bags.len());
    let lowest = rows_mut(lowest, ends.lowest, bags.len());
    let one = |held: &mut Held, bag: usize, out: (&mut [i32], &mut [i32], &mut u32)| {
        let (places, base) = (bags.places(bag), bags.rows(bag).start);
        held.clear();
        if places.len() <= SLICE {
            held.take(bags, scores, places.clone(), base);
        } else {
            let cuts = places.len().div_ceil(SLICE);
            let part = |cut: usize| {
                let start = places.start + cut * SLICE;
                let mut part = Held::new(ends);
                part.take(bags, scores, start..(start + SLICE).min(places.end), base);
                part
            };
            let mut parts: Vec<Held> = (0..cuts).into_par_iter().map(part).collect();
            held.gather(&mut parts);
        }
        held.write(places.len(), out.0, out.1, out.2);
    };
    if bags.members() < ALONE || cpu.threads() == 1 {
        let held = &mut Held::new(ends);
        let rows = highest.into_iter().zip(lowest).zip(nans);
        for (bag, ((highest, lowest), nans)) in rows.enumerate() {
            one(held, bag, (highest, lowest, nans));
        }
    } else {
        let rows = highest.into_par_iter().zip(lowest).zip(nans).enumerate();
        cpu.threads.install(|| {
            rows.for_each_init(
                || Held::new(ends),
                |held, (bag, ((highest, lowest), nans))| one(held, bag, (highest, lowest, nans)),
            );
        });
    }
    Ok(())
}

fn rows_mut(data: &mut [i32], width: usize, rows: usize) -> Vec<&mut [i32]> {
    if width == 0 {
        return (0..rows).map(|_| &mut [][..]).collect();
    }
    data.chunks_exact_mut(width).collect()
}
