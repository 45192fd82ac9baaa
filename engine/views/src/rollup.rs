//! A patient's slides as one element of an Abelian group, so that slides come, change and go in any order to the bit.
//!
//! Differential dataflow adds the elements up as differences: consolidation is the pooling (METHOD 2, P8: merging bags adds
//! their sums).

use std::collections::BTreeMap;

use differential_dataflow::difference::{Abelian, IsZero, Monoid, Multiply, Semigroup};
use serde::{Deserialize, Serialize};
use weir_record::ExactSums;

use crate::slide::{SlideEntry, Standing};

/// Probabilities are added up as whole numbers of 2^-64: exact for those above 2^-40, and in any order.
const UNIT: f64 = (1u128 << 64) as f64;

/// Sums over slides.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Rollup {
    /// Slides.
    pub slides: i64,
    /// Those with a class.
    pub answered: i64,
    /// Those that failed.
    pub failed: i64,
    /// Those without tissue.
    pub no_tissue: i64,
    /// Tiles of the bags of those with a class.
    pub members: i64,
    /// Tiles enumerated.
    pub tiles: i64,
    /// Tiles of which nothing could be made.
    pub failed_tiles: i64,
    /// Class to the sum of its probabilities, in units of 2^-64.
    probabilities: BTreeMap<String, i128>,
    /// Width of the features to the number of bags and their sums.
    pools: BTreeMap<u64, (i64, ExactSums)>,
}

impl Rollup {
    /// Of one slide.
    pub fn of(entry: &SlideEntry) -> Self {
        let one = |is: bool| i64::from(is);
        let mut rollup = Rollup {
            slides: 1,
            failed: one(entry.standing == Standing::Failed),
            no_tissue: one(entry.standing == Standing::NoTissue),
            tiles: entry.tiles as i64,
            failed_tiles: entry.failed as i64,
            ..Rollup::default()
        };
        let Some((answer, _)) = entry.answered() else {
            return rollup;
        };
        rollup.answered = 1;
        rollup.members = answer.members as i64;
        for (class, p) in answer.classes.iter().zip(&answer.probabilities) {
            *rollup.probabilities.entry(class.clone()).or_default() += (p.0 as f64 * UNIT) as i128;
        }
        if let Some(sums) = &answer.exact {
            let pool = (1, sums.clone());
            rollup.pools.insert(sums.t.len() as u64, pool);
        }
        rollup.tidy();
        rollup
    }

    /// The sums of all bags, when every slide with a class has them.
    pub fn pool(&self) -> Option<&ExactSums> {
        let (bags, sums) = self.pools.values().next()?;
        (self.pools.len() == 1 && *bags == self.answered).then_some(sums)
    }

    /// The mean of the slides' probabilities of `class`; `None` when no slide has a class.
    pub fn mean(&self, class: &str) -> Option<f32> {
        let sum = self.probabilities.get(class).copied().unwrap_or(0);
        (self.answered > 0).then(|| (sum as f64 / UNIT / self.answered as f64) as f32)
    }

    /// Names of the classes, sorted.
    pub fn classes(&self) -> impl Iterator<Item = &str> {
        self.probabilities.keys().map(String::as_str)
    }

    /// One form for each element: what is zero is not kept.
    fn tidy(&mut self) {
        self.probabilities.retain(|_, sum| *sum != 0);
        self.pools.retain(|_, (bags, sums)| {
            let zero = |numbers: &[i128]| numbers.iter().all(|n| *n == 0);
            *bags != 0 || sums.n != 0 || sums.s != 0 || !zero(&sums.t) || !zero(&sums.u)
        });
    }

    /// Each number through `change`.
    fn each(&mut self, small: impl Fn(i64) -> i64, great: impl Fn(i128) -> i128) {
        for count in self.counts() {
            *count = small(*count);
        }
        for sum in self.probabilities.values_mut() {
            *sum = great(*sum);
        }
        for (bags, sums) in self.pools.values_mut() {
            *bags = small(*bags);
            sums.n = small(sums.n);
            sums.s = great(sums.s);
            for component in sums.t.iter_mut().chain(&mut sums.u) {
                *component = great(*component);
            }
        }
        self.tidy();
    }

    fn counts(&mut self) -> [&mut i64; 7] {
        [
            &mut self.slides,
            &mut self.answered,
            &mut self.failed,
            &mut self.no_tissue,
            &mut self.members,
            &mut self.tiles,
            &mut self.failed_tiles,
        ]
    }
}

impl IsZero for Rollup {
    fn is_zero(&self) -> bool {
        *self == Rollup::default()
    }
}

impl Semigroup for Rollup {
    fn plus_equals(&mut self, other: &Self) {
        let mut other = other.clone();
        for (count, more) in self.counts().into_iter().zip(other.counts()) {
            *count = count.wrapping_add(*more);
        }
        for (class, more) in other.probabilities {
            let sum = self.probabilities.entry(class).or_default();
            *sum = sum.wrapping_add(more);
        }
        for (width, (bags, more)) in other.pools {
            let (known, sums) = self
                .pools
                .entry(width)
                .or_insert_with(|| (0, ExactSums::new(width as usize)));
            *known = known.wrapping_add(bags);
            sums.n = sums.n.wrapping_add(more.n);
            sums.s = sums.s.wrapping_add(more.s);
            let parts = sums.t.iter_mut().zip(&more.t);
            for (sum, more) in parts.chain(sums.u.iter_mut().zip(&more.u)) {
                *sum = sum.wrapping_add(*more);
            }
        }
        self.tidy();
    }
}

impl Monoid for Rollup {
    fn zero() -> Self {
        Rollup::default()
    }
}

impl Abelian for Rollup {
    fn negate(&mut self) {
        self.each(i64::wrapping_neg, i128::wrapping_neg);
    }
}

impl Multiply<isize> for Rollup {
    type Output = Rollup;
    fn multiply(mut self, times: &isize) -> Rollup {
        self.each(
            |n| n.wrapping_mul(*times as i64),
            |n| n.wrapping_mul(*times as i128),
        );
        self
    }
}
