//! The pool: a weighted mean of the members' feature vectors.

use crate::math::ln;
use crate::normalise::{Link, Normalise};
use crate::{ROWS, ordered_sum};

/// A pooled bag.
#[derive(Clone, Debug, PartialEq)]
pub struct Pooled {
    /// The weighted mean, `[d]`; empty when the bag is.
    pub pooled: Vec<f32>,
    /// Of each member; they add up to 1. Exactly 0 for a refused one.
    pub weights: Vec<f32>,
    /// Numerators, of which the weights are the shares.
    pub numerators: Vec<f32>,
    /// Effective number of members, 1 / sum w^2, in [1, n]; 0 when the bag is empty.
    pub effective: f32,
    /// Entropy of the weights, nats.
    pub entropy: f32,
    /// Places of the members that were refused.
    pub refused: Vec<usize>,
    /// What was noticed.
    pub flags: Flags,
}

/// What was noticed while a bag was pooled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// No member was left.
    pub empty: bool,
    /// The sum of the numerators was zero or out of range: the weights are uniform.
    pub uniform: bool,
    /// A value, or a sum, lay outside the domain in which squares keep f32's precision.
    pub out_of_domain: bool,
}

/// Features of this size and more are refused: their sums could leave f32's range.
pub const FEATURE_LIMIT: f32 = 1e18;

/// Whether a member may enter the pool.
pub fn admissible(logit: f32, features: &[f32]) -> bool {
    // The order of sizes is that of their bits, and a number that is none has greater ones than all: a maximum of integers, which
    // the compiler makes in vectors, as it does not with a question that may end early.
    let size = |h: &f32| h.abs().to_bits();
    let greatest = features.iter().map(size).fold(0, u32::max);
    logit.is_finite() && greatest < FEATURE_LIMIT.to_bits()
}

/// g of a logit, or the logit itself where its order is all that the rule looks at.
fn linked(rule: &dyn Normalise, link: Link, logit: f32) -> f32 {
    if rule.by_order() {
        logit
    } else {
        link.apply(logit)
    }
}

/// Pools `members` (in TileId order, all of one width) by their attention `logits`.
pub fn pool(rule: &dyn Normalise, link: Link, logits: &[f32], members: &[&[f32]]) -> Pooled {
    debug_assert_eq!(logits.len(), members.len());
    let (mut kept, mut refused) = (Vec::with_capacity(members.len()), Vec::new());
    for (place, (&logit, features)) in logits.iter().zip(members).enumerate() {
        if admissible(logit, features) {
            kept.push(place);
        } else {
            refused.push(place);
        }
    }
    let mut flags = Flags {
        empty: kept.is_empty(),
        ..Flags::default()
    };
    let zeros = vec![0.0; members.len()];
    if flags.empty {
        return Pooled {
            pooled: Vec::new(),
            weights: zeros.clone(),
            numerators: zeros,
            effective: 0.0,
            entropy: 0.0,
            refused,
            flags,
        };
    }
    let g: Vec<f32> = kept
        .iter()
        .map(|&place| linked(rule, link, logits[place]))
        .collect();
    flags.out_of_domain = g.iter().any(|&g| !rule.in_domain(g));
    let rows: Vec<&[f32]> = kept.iter().map(|&place| members[place]).collect();
    let mut e = rule.numerators(&g);
    let mut sum = ordered_sum(e.iter().copied());
    let mut total = weighted_sum(&e, &rows);
    let in_range = sum.is_finite() && total.iter().all(|t| t.is_finite());
    if sum == 0.0 || !in_range {
        flags.uniform = true;
        flags.out_of_domain |= !in_range;
        e = vec![1.0; rows.len()];
        sum = ordered_sum(e.iter().copied());
        total = weighted_sum(&e, &rows);
    }
    let w: Vec<f32> = e.iter().map(|e| e / sum).collect();
    let (effective, entropy) = spread(&w);
    let (mut weights, mut numerators) = (zeros.clone(), zeros);
    for (&place, (&w, &e)) in kept.iter().zip(w.iter().zip(&e)) {
        (weights[place], numerators[place]) = (w, e);
    }
    Pooled {
        pooled: total.iter().map(|t| t / sum).collect(),
        weights,
        numerators,
        effective,
        entropy,
        refused,
        flags,
    }
}

/// Effective number and entropy (nats) of weights that add up to 1; a member without weight counts for nothing.
pub fn spread(weights: &[f32]) -> (f32, f32) {
    let squares = ordered_sum(weights.iter().map(|w| w * w));
    let entropy = |&w: &f32| if w > 0.0 { -(w * ln(w)) } else { 0.0 };
    // Rounding may lead a hair out of the range that the numbers have in exact arithmetic.
    let effective = (1.0 / squares).clamp(1.0, weights.len() as f32);
    (effective, ordered_sum(weights.iter().map(entropy)).max(0.0))
}

/// Sum of e_i h_i per component, in the contract's order.
fn weighted_sum(e: &[f32], rows: &[&[f32]]) -> Vec<f32> {
    let width = rows.first().map_or(0, |row| row.len());
    let mut total = vec![0.0; width];
    let mut item = vec![0.0; width];
    for (e, rows) in e.chunks(ROWS).zip(rows.chunks(ROWS)) {
        item.fill(0.0);
        for (&e, row) in e.iter().zip(rows) {
            for (sum, &h) in item.iter_mut().zip(*row) {
                *sum += e * h;
            }
        }
        for (total, &item) in total.iter_mut().zip(&item) {
            *total += item;
        }
    }
    total
}

/// The weights of a bag.
#[derive(Clone, Copy, Debug)]
pub struct Weighted<'a> {
    /// Of each member.
    pub weights: &'a [f32],
    /// Whether they are uniform for want of a sum.
    pub uniform: bool,
    /// Places of the members that were refused, ascending.
    pub refused: &'a [usize],
}

/// How the pooled mean of `values` (one number a member, as its part of a logit) changes when each member alone is left
/// out of the bag. A member that was the only one leaves nothing behind: its mean goes to 0.
pub fn leave_one_out(
    rule: &dyn Normalise,
    link: Link,
    logits: &[f32],
    values: &[f32],
    bag: Weighted<'_>,
) -> Vec<f32> {
    let kept: Vec<usize> = (0..values.len())
        .filter(|place| bag.refused.binary_search(place).is_err())
        .collect();
    let mean = ordered_sum(kept.iter().map(|&k| bag.weights[k] * values[k]));
    let uniform = bag.uniform;
    (0..values.len())
        .map(|place| {
            let weight = bag.weights[place];
            // Without weight it changes nothing, whatever the normalisation.
            if weight == 0.0 {
                return 0.0;
            }
            if (rule.proportional() || uniform) && weight <= 0.5 {
                return -(weight / (1.0 - weight)) * (values[place] - mean);
            }
            let others: Vec<usize> = kept.iter().copied().filter(|&k| k != place).collect();
            if others.is_empty() {
                return -mean;
            }
            let mut e: Vec<f32> = if uniform {
                vec![1.0; others.len()]
            } else {
                let g: Vec<f32> = others
                    .iter()
                    .map(|&k| linked(rule, link, logits[k]))
                    .collect();
                rule.numerators(&g)
            };
            let mut sum = ordered_sum(e.iter().copied());
            if sum == 0.0 || !sum.is_finite() {
                e.fill(1.0);
                sum = others.len() as f32;
            }
            let left = ordered_sum(e.iter().zip(&others).map(|(e, &k)| e * values[k]));
            left / sum - mean
        })
        .collect()
}
