//! METHOD 2.1, P1 to P11, for every normalisation that has the property, in the ordered contract: to the bit where no
//! rounding can differ, else within [`bound`]. engine/record/tests/exact.rs has them for the exact contract.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use weir_kernels::math;
use weir_kernels::normalise::{Link, Normalisation};
use weir_kernels::pool::{Pooled, Weighted, leave_one_out, pool};
use weir_kernels::reference;

const ALL: [Normalisation; 8] = [
    Normalisation::SquaredAverage,
    Normalisation::Softmax,
    Normalisation::Sigmoid,
    Normalisation::Sparsemax,
    Normalisation::Mean,
    Normalisation::Max,
    Normalisation::Power(2.0),
    Normalisation::Power(1.5),
];

/// How far a pooled component may lie from the f64 answer, as a part of the greatest |h|, for n members whose logits lie
/// within +-8: each sum of an item adds up to 128 roundings of 2^-24, the items n / 128 more, in numerator and
/// denominator, and a numerator comes with up to 40 of its own (softmax: |g - max| of them through its argument).
fn bound(n: usize) -> f64 {
    (n.min(128) + n / 128 + 40) as f64 * 2f64.powi(-23)
}

type Members = Vec<(f32, Vec<f32>)>;

const WIDTH: usize = 5;

fn members(most: usize) -> impl Strategy<Value = Members> {
    let one = (-8.0f32..8.0, prop::collection::vec(-4.0f32..4.0, WIDTH));
    prop::collection::vec(one, 1..most)
}

fn link() -> impl Strategy<Value = Link> {
    prop_oneof![Just(Link::None), Just(Link::Sigmoid)]
}

fn bag(kind: Normalisation, link: Link, members: &Members) -> Pooled {
    let logits: Vec<f32> = members.iter().map(|m| m.0).collect();
    let rows: Vec<&[f32]> = members.iter().map(|m| m.1.as_slice()).collect();
    pool(kind.rule().as_ref(), link, &logits, &rows)
}

fn wide(members: &Members) -> (Vec<f64>, Vec<Vec<f64>>) {
    members
        .iter()
        .map(|(a, h)| (f64::from(*a), h.iter().map(|&h| f64::from(h)).collect()))
        .unzip()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn close(got: &[f32], truth: &[f64], within: f64) -> Result<(), TestCaseError> {
    prop_assert_eq!(got.len(), truth.len());
    for (got, truth) in got.iter().zip(truth) {
        let apart = (f64::from(*got) - truth).abs();
        prop_assert!(
            apart <= within,
            "{} is {:e} from {}, more than {:e}",
            got,
            apart,
            truth,
            within
        );
    }
    Ok(())
}

proptest! {
    #[test]
    fn the_ordered_pool_is_the_reference_within_its_bound(members in members(400), link in link()) {
        let (a, h) = wide(&members);
        for kind in ALL {
            let (got, truth) = (bag(kind, link, &members), reference::pool(kind, link, &a, &h));
            let bound = bound(members.len());
            close(&got.pooled, &truth.pooled, 4.0 * bound)?;
            close(&got.weights, &truth.weights, bound)?;
            prop_assert!((f64::from(got.effective) / truth.effective - 1.0).abs() <= 4.0 * bound);
            prop_assert!((f64::from(got.entropy) - truth.entropy).abs() <= 8.0 * bound);
        }
    }

    #[test]
    fn p1_weights_are_no_less_than_zero_and_add_up_to_one(members in members(400), link in link()) {
        for kind in ALL {
            let bag = bag(kind, link, &members);
            prop_assert!(bag.weights.iter().all(|&w| w >= 0.0));
            let sum: f64 = bag.weights.iter().map(|&w| f64::from(w)).sum();
            prop_assert!((sum - 1.0).abs() <= bound(members.len()), "{kind:?}: {sum}");
        }
    }

    #[test]
    fn p2_another_order_of_the_members_moves_weights_with_them(members in members(200), turn in 0usize..200, link in link()) {
        let mut turned = members.clone();
        let turn = turn % members.len();
        turned.rotate_left(turn);
        for kind in ALL {
            let (left, right) = (bag(kind, link, &members), bag(kind, link, &turned));
            let mut back = right.weights.clone();
            back.rotate_right(turn);
            let back: Vec<f64> = back.into_iter().map(f64::from).collect();
            close(&left.weights, &back, bound(members.len()))?;
            let pooled: Vec<f64> = right.pooled.into_iter().map(f64::from).collect();
            close(&left.pooled, &pooled, 8.0 * bound(members.len()))?;
        }
    }

    #[test]
    fn p3_scaling_by_a_power_of_two_changes_no_bit(members in members(200), power in -20i32..20, sign in prop::bool::ANY) {
        let factor = 2f32.powi(power) * if sign { -1.0 } else { 1.0 };
        let scaled: Members = members.iter().map(|(a, h)| (a * factor, h.clone())).collect();
        for kind in [Normalisation::SquaredAverage, Normalisation::Power(3.0)] {
            let (left, right) = (bag(kind, Link::None, &members), bag(kind, Link::None, &scaled));
            // A logit so small that its square is subnormal has fewer bits to scale.
            prop_assume!(members.iter().all(|m| m.0 == 0.0 || m.0.abs() > 1e-6));
            prop_assert_eq!(bits(&left.weights), bits(&right.weights));
            prop_assert_eq!(bits(&left.pooled), bits(&right.pooled));
        }
    }

    #[test]
    fn p3_scaling_by_any_number_changes_weights_within_the_bound(members in members(200), factor in 0.01f32..100.0) {
        let scaled: Members = members.iter().map(|(a, h)| (a * factor, h.clone())).collect();
        let (left, right) = (bag(Normalisation::SquaredAverage, Link::None, &members), bag(Normalisation::SquaredAverage, Link::None, &scaled));
        let right: Vec<f64> = right.weights.into_iter().map(f64::from).collect();
        close(&left.weights, &right, bound(members.len()))?;
    }

    #[test]
    fn p4_the_sign_of_a_logit_does_not_matter_without_a_link(members in members(200), signs in prop::collection::vec(prop::bool::ANY, 200)) {
        let flipped: Members = members.iter().zip(signs).map(|((a, h), flip)| (if flip { -a } else { *a }, h.clone())).collect();
        for kind in [Normalisation::SquaredAverage, Normalisation::Power(1.5)] {
            let (left, right) = (bag(kind, Link::None, &members), bag(kind, Link::None, &flipped));
            prop_assert_eq!(bits(&left.weights), bits(&right.weights));
            prop_assert_eq!(bits(&left.pooled), bits(&right.pooled));
        }
    }

    #[test]
    fn p5_the_squared_average_is_softmax_of_twice_the_logarithm(members in members(200)) {
        prop_assume!(members.iter().all(|m| m.0.abs() > 1e-3));
        let logs: Members = members.iter().map(|(a, h)| (2.0 * math::ln(a.abs()), h.clone())).collect();
        let (left, right) = (bag(Normalisation::SquaredAverage, Link::None, &members), bag(Normalisation::Softmax, Link::None, &logs));
        let right: Vec<f64> = right.weights.into_iter().map(f64::from).collect();
        close(&left.weights, &right, 2.0 * bound(members.len()))?;
    }

    #[test]
    fn p6_a_zero_logit_has_exactly_no_weight(members in members(200), zero in 0usize..200) {
        let zero = zero % members.len();
        let mut zeroed = members.clone();
        zeroed[zero].0 = 0.0;
        let mut without = zeroed.clone();
        without.remove(zero);
        prop_assume!(without.iter().any(|m| m.0.abs() > 1e-3));
        for kind in [Normalisation::SquaredAverage, Normalisation::Power(1.5)] {
            let got = bag(kind, Link::None, &zeroed);
            prop_assert_eq!(got.weights[zero].to_bits(), 0);
            let truth: Vec<f64> = bag(kind, Link::None, &without).pooled.into_iter().map(f64::from).collect();
            close(&got.pooled, &truth, 8.0 * bound(members.len()))?;
        }
    }

    #[test]
    fn p7_members_that_come_r_times_share_their_weight(members in members(60), times in 2usize..6, link in link()) {
        let repeated: Members = (0..times).flat_map(|_| members.clone()).collect();
        // Sparsemax has no such property: twins are squeezed together.
        for kind in ALL.into_iter().filter(|&kind| kind != Normalisation::Sparsemax) {
            let (once, often) = (bag(kind, link, &members), bag(kind, link, &repeated));
            let bound = bound(repeated.len());
            close(&often.pooled, &once.pooled.iter().map(|&z| f64::from(z)).collect::<Vec<_>>(), 8.0 * bound)?;
            let share: Vec<f64> = repeated.iter().enumerate().map(|(k, _)| f64::from(once.weights[k % members.len()]) / times as f64).collect();
            close(&often.weights, &share, bound)?;
        }
    }

    #[test]
    fn p8_two_bags_merge_by_their_sums(left in members(100), right in members(100), link in link()) {
        let both: Members = left.iter().chain(&right).cloned().collect();
        for kind in [Normalisation::SquaredAverage, Normalisation::Sigmoid, Normalisation::Mean, Normalisation::Power(1.5)] {
            let (l, r, b) = (bag(kind, link, &left), bag(kind, link, &right), bag(kind, link, &both));
            let sum = |bag: &Pooled| -> f64 { bag.numerators.iter().map(|&e| f64::from(e)).sum() };
            let (sl, sr) = (sum(&l), sum(&r));
            let merged: Vec<f64> = l.pooled.iter().zip(&r.pooled).map(|(&x, &y)| (sl * f64::from(x) + sr * f64::from(y)) / (sl + sr)).collect();
            close(&b.pooled, &merged, 8.0 * bound(both.len()))?;
        }
    }

    #[test]
    fn p9_leaving_one_out_is_the_pool_of_the_others(members in members(60), place in 0usize..60, link in link()) {
        prop_assume!(members.len() > 1);
        let place = place % members.len();
        let mut others = members.clone();
        others.remove(place);
        let logits: Vec<f32> = members.iter().map(|m| m.0).collect();
        let part: Vec<f32> = members.iter().map(|m| m.1[0]).collect();
        for kind in ALL {
            let whole = bag(kind, link, &members);
            let weighted = Weighted { weights: &whole.weights, uniform: whole.flags.uniform, refused: &whole.refused };
            let change = leave_one_out(kind.rule().as_ref(), link, &logits, &part, weighted)[place];
            let truth = f64::from(bag(kind, link, &others).pooled[0]) - f64::from(whole.pooled[0]);
            prop_assert!((f64::from(change) - truth).abs() <= 16.0 * bound(members.len()), "{kind:?}: {change} and {truth}");
        }
    }

    #[test]
    fn p10_the_pool_lies_between_least_and_greatest(members in members(300), link in link()) {
        for kind in ALL {
            let bag = bag(kind, link, &members);
            for (c, &z) in bag.pooled.iter().enumerate() {
                let (low, high) = members.iter().fold((f32::MAX, f32::MIN), |(low, high), m| (low.min(m.1[c]), high.max(m.1[c])));
                let slack = 4.0 * bound(members.len()) as f32;
                prop_assert!(low - slack <= z && z <= high + slack);
            }
        }
    }

    #[test]
    fn p11_the_effective_number_lies_between_one_and_n(members in members(300), link in link()) {
        for kind in ALL {
            let bag = bag(kind, link, &members);
            prop_assert!((1.0..=members.len() as f32).contains(&bag.effective));
            prop_assert!(bag.entropy >= 0.0 && f64::from(bag.entropy) <= (members.len() as f64).ln() + 8.0 * bound(members.len()));
        }
    }

    #[test]
    fn the_gradient_of_the_reference_is_the_slope_of_the_reference(members in members(12), link in link(), seed in prop::collection::vec(-1.0f64..1.0, WIDTH)) {
        let (a, h) = wide(&members);
        for kind in ALL {
            // Where two logits change places, or one crosses zero, sparsemax, max and powers have a kink.
            prop_assume!(a.iter().enumerate().all(|(k, x)| x.abs() > 0.05 && a[..k].iter().all(|y| (x - y).abs() > 0.01)));
            let gradient = reference::gradient(kind, link, &a, &h, &seed);
            let value = |a: &[f64], h: &[Vec<f64>]| -> f64 {
                reference::pool(kind, link, a, h).pooled.iter().zip(&seed).map(|(z, u)| z * u).sum()
            };
            let step = 1e-6;
            for k in 0..a.len() {
                let (mut up, mut down) = (a.clone(), a.clone());
                (up[k], down[k]) = (a[k] + step, a[k] - step);
                let slope = (value(&up, &h) - value(&down, &h)) / (2.0 * step);
                // A kink within the step shows as half a slope; sparsemax has one at the edge of its support.
                let kink = kind == Normalisation::Sparsemax && {
                    let support = |a: &[f64]| reference::weights(kind, link, a).iter().filter(|w| **w > 0.0).count();
                    support(&up) != support(&down)
                };
                prop_assert!(kink || (slope - gradient.logits[k]).abs() <= 1e-6 * (1.0 + slope.abs()), "{kind:?} {link:?}: {} and {slope}", gradient.logits[k]);
                let (mut up, mut down) = (h.clone(), h.clone());
                (up[k][0], down[k][0]) = (h[k][0] + step, h[k][0] - step);
                let slope = (value(&a, &up) - value(&a, &down)) / (2.0 * step);
                prop_assert!((slope - gradient.members[k][0]).abs() <= 1e-6, "{kind:?}");
            }
        }
    }
}
