//! Contract `exact-q128/1`: a pool whose sums are integers, so that bags merge, and members come and go, in any order and
//! to the bit.
//!
//! A member's value g and features h are rounded to 24 binary places (half to even), the value held within +-128, each
//! feature too; e is the square of the rounded value, and the state is n, S = sum e, T = sum e h, U = sum h, all i128,
//! which hold 2^33 members. The pooled vector is T / S; where S is 0 it is U / n.

use crate::ExactSums;

/// Name of the contract.
pub const EXACT_CONTRACT: &str = "exact-q128/1";

/// Binary places of values and features.
pub const PLACES: i32 = 24;

/// Greatest rounded size: 128 less one unit.
const LIMIT: i64 = (1 << 31) - 1;

/// A member, rounded: what is inserted and retracted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExactMember {
    /// In units of 2^-48.
    e: i128,
    /// In units of 2^-24.
    h: Vec<i64>,
    /// How many of its numbers lay outside +-128 and were held there.
    pub saturated: u32,
}

/// The pool of some [`ExactSums`].
#[derive(Clone, Debug, PartialEq)]
pub struct ExactPool {
    /// `[d]`
    pub pooled: Vec<f32>,
    /// Every value was zero: each member counts the same.
    pub uniform: bool,
}

/// `x` in units of 2^-24, and whether it was held at the limit. Not a number for a NaN.
fn quantise(x: f32) -> Option<(i64, bool)> {
    if x.is_nan() {
        return None;
    }
    // Exact: a product with a power of two in f64, then one rounding.
    let scaled = (f64::from(x) * f64::from(1 << PLACES)).round_ties_even();
    let limit = LIMIT as f64;
    Some((scaled.clamp(-limit, limit) as i64, scaled.abs() > limit))
}

impl ExactMember {
    /// Of the squared average: `g` is the linked logit. `None` when a number is no number.
    pub fn squared(g: f32, features: &[f32]) -> Option<ExactMember> {
        let (q, held) = quantise(g)?;
        ExactMember::new(i128::from(q) * i128::from(q), u32::from(held), features)
    }

    /// Of the mean: each member counts the same. `None` when a number is no number.
    pub fn equal(features: &[f32]) -> Option<ExactMember> {
        ExactMember::new(1 << (2 * PLACES), 0, features)
    }

    fn new(e: i128, mut saturated: u32, features: &[f32]) -> Option<ExactMember> {
        let mut h = Vec::with_capacity(features.len());
        for &feature in features {
            let (q, held) = quantise(feature)?;
            saturated += u32::from(held);
            h.push(q);
        }
        Some(ExactMember { e, h, saturated })
    }

    /// The member's weight in a bag: e / S, or 1 / n where S is 0.
    pub fn weight(&self, sums: &ExactSums) -> f32 {
        if sums.s == 0 {
            1.0 / sums.n as f32
        } else {
            (self.e as f64 / sums.s as f64) as f32
        }
    }
}

impl ExactSums {
    /// Of no members with `width` features.
    pub fn new(width: usize) -> ExactSums {
        ExactSums {
            n: 0,
            s: 0,
            t: vec![0; width],
            u: vec![0; width],
        }
    }

    /// Adds a member.
    pub fn insert(&mut self, member: &ExactMember) {
        self.add(member, 1);
    }

    /// Takes a member out, to the bit: as if it had never come. It may even go before it comes.
    pub fn retract(&mut self, member: &ExactMember) {
        self.add(member, -1);
    }

    fn add(&mut self, member: &ExactMember, sign: i128) {
        self.widen(member.h.len());
        self.n += sign as i64;
        self.s += sign * member.e;
        for ((t, u), &h) in self.t.iter_mut().zip(&mut self.u).zip(&member.h) {
            *t += sign * member.e * i128::from(h);
            *u += sign * i128::from(h);
        }
    }

    /// Adds all members of another bag (METHOD 2, P8).
    pub fn merge(&mut self, other: &ExactSums) {
        self.widen(other.t.len());
        self.n += other.n;
        self.s += other.s;
        for (t, o) in self.t.iter_mut().zip(&other.t) {
            *t += o;
        }
        for (u, o) in self.u.iter_mut().zip(&other.u) {
            *u += o;
        }
    }

    /// The default holds no components yet.
    fn widen(&mut self, width: usize) {
        if self.t.len() < width {
            self.t.resize(width, 0);
            self.u.resize(width, 0);
        }
    }

    /// The pooled vector; `None` when no member is in. Each component is one division in f64, then one rounding to f32.
    pub fn finish(&self) -> Option<ExactPool> {
        if self.n <= 0 {
            return None;
        }
        let unit = f64::from(1 << PLACES);
        let uniform = self.s == 0;
        let (sums, total) = if uniform {
            (&self.u, self.n as f64)
        } else {
            (&self.t, self.s as f64)
        };
        Some(ExactPool {
            pooled: sums
                .iter()
                .map(|&sum| (sum as f64 / (total * unit)) as f32)
                .collect(),
            uniform,
        })
    }
}
