//! Contract `exact-q128/1`: METHOD 2's properties to the bit, its golden vector and its error bound.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use weir_record::{ExactMember, ExactSums};

type Members = Vec<(f32, Vec<f32>)>;

const WIDTH: usize = 4;

/// Places of the features' lattice: what lies on it is rounded nowhere.
fn lattice(x: f32) -> f32 {
    (x * 1024.0).round() / 1024.0
}

fn members(most: usize) -> impl Strategy<Value = Members> {
    let one = (
        (-100.0f32..100.0).prop_map(lattice),
        prop::collection::vec((-100.0f32..100.0).prop_map(lattice), WIDTH),
    );
    prop::collection::vec(one, 1..most)
}

fn member(g: f32, h: &[f32]) -> ExactMember {
    ExactMember::squared(g, h).unwrap()
}

fn sums(members: &[(f32, Vec<f32>)]) -> ExactSums {
    let mut sums = ExactSums::new(WIDTH);
    for (g, h) in members {
        sums.insert(&member(*g, h));
    }
    sums
}

fn weights(members: &Members) -> Vec<f64> {
    let bag = sums(members);
    let weight = |(g, h): &(f32, Vec<f32>)| f64::from(member(*g, h).weight(&bag));
    members.iter().map(weight).collect()
}

#[test]
fn the_golden_bag_of_the_method() {
    let bag = [
        (1.0, [1.0, 0.0]),
        (2.0, [0.0, 2.0]),
        (-3.0, [4.0, 1.0]),
        (0.0, [9.0, 9.0]),
    ];
    let mut sums = ExactSums::new(2);
    for (g, h) in bag {
        sums.insert(&member(g, &h));
    }
    assert_eq!(sums.s, 3_940_649_673_949_184);
    assert_eq!(sums.s, 14 << 48);
    let t = [
        174_727_559_866_176_872_906_752,
        80_280_230_208_783_968_632_832,
    ];
    assert_eq!(sums.t, t);
    let pool = sums.finish().unwrap();
    assert_eq!(pool.pooled, [37.0 / 14.0, 17.0 / 14.0]);
    assert!(!pool.uniform);
}

#[test]
fn a_million_random_inserts_and_retractions_are_the_identity_to_the_bit() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let number = |word: u64, size: f32| (word as u32 as f32 / u32::MAX as f32 - 0.5) * size;
    let members: Vec<ExactMember> = (0..5000)
        .map(|_| {
            // Sizes from 1e-6 to 250, beyond the limits too.
            let size = 10f32.powi((random() % 9) as i32 - 6) * 5.0;
            let h: Vec<f32> = (0..WIDTH).map(|_| number(random(), size)).collect();
            member(number(random(), size), &h)
        })
        .collect();
    let (held, others) = members.split_at(1000);
    let mut bag = ExactSums::new(WIDTH);
    held.iter().for_each(|member| bag.insert(member));
    let before = bag.clone();
    // Members come and go, some of them before they came; in the end each has gone as often as it came.
    let mut balance = vec![0i64; others.len()];
    for _ in 0..1_000_000 {
        let place = (random() % others.len() as u64) as usize;
        if random() % 2 == 0 {
            bag.insert(&others[place]);
            balance[place] += 1;
        } else {
            bag.retract(&others[place]);
            balance[place] -= 1;
        }
    }
    assert_ne!(bag, before);
    for (place, balance) in balance.into_iter().enumerate() {
        for _ in 0..balance.abs() {
            if balance > 0 {
                bag.retract(&others[place]);
            } else {
                bag.insert(&others[place]);
            }
        }
    }
    assert_eq!(bag, before);
    let bits = |bag: &ExactSums| -> Vec<u32> {
        let pooled = bag.finish().unwrap().pooled;
        pooled.into_iter().map(f32::to_bits).collect()
    };
    assert_eq!(bits(&bag), bits(&before));
}

#[test]
fn a_bag_of_zeros_is_their_mean_and_an_empty_one_nothing() {
    let bag = sums(&[(0.0, vec![1.0; WIDTH]), (-0.0, vec![3.0; WIDTH])]);
    let pool = bag.finish().unwrap();
    assert!(pool.uniform);
    assert_eq!(pool.pooled, [2.0; WIDTH]);
    assert_eq!(ExactSums::new(WIDTH).finish(), None);
    assert_eq!(ExactSums::default().finish(), None);
}

#[test]
fn the_mean_counts_each_member_the_same() {
    let mut bag = ExactSums::default();
    for h in [[1.0, 5.0], [2.0, 7.0], [6.0, 0.0]] {
        bag.insert(&ExactMember::equal(&h).unwrap());
    }
    let pool = bag.finish().unwrap();
    assert_eq!((pool.pooled, pool.uniform), (vec![3.0, 4.0], false));
}

#[test]
fn numbers_out_of_range_are_held_and_counted_and_no_numbers_are_refused() {
    assert_eq!(member(128.0, &[-500.0, 1.0, f32::INFINITY]).saturated, 3);
    assert_eq!(member(127.999_99, &[1.0]).saturated, 0);
    assert_eq!(ExactMember::squared(f32::NAN, &[1.0]), None);
    assert_eq!(ExactMember::equal(&[f32::NAN]), None);
}

proptest! {
    #[test]
    fn p1_weights_add_up_to_one(members in members(60)) {
        let sum: f64 = weights(&members).iter().sum();
        prop_assert!((sum - 1.0).abs() <= members.len() as f64 * 2f64.powi(-24));
    }

    #[test]
    fn p2_p8_any_order_and_any_tree_of_merges_give_the_same_bits(
        members in members(60),
        cut in 0usize..60,
        turn in 0usize..60,
    ) {
        let whole = sums(&members);
        let mut turned = members.clone();
        turned.rotate_left(turn % members.len());
        prop_assert_eq!(&whole, &sums(&turned));
        let (left, right) = members.split_at(cut % members.len());
        let mut merged = sums(right);
        merged.merge(&sums(left));
        prop_assert_eq!(&whole, &merged);
    }

    #[test]
    fn p3_p4_scale_and_sign_change_no_bit(members in members(60), power in 0i32..6) {
        let factor = -(2f32.powi(-power));
        let scaled: Members = members.iter().map(|(g, h)| (g * factor, h.clone())).collect();
        prop_assert_eq!(sums(&members).finish(), sums(&scaled).finish());
    }

    #[test]
    fn p6_a_zero_changes_nothing_but_the_count(
        members in members(60),
        h in prop::collection::vec(-100.0f32..100.0, WIDTH),
    ) {
        prop_assume!(members.iter().any(|m| m.0 != 0.0));
        let mut more = members.clone();
        more.push((0.0, h));
        prop_assert_eq!(sums(&more).finish(), sums(&members).finish());
    }

    #[test]
    fn p7_members_that_come_r_times_give_r_times_the_sums(members in members(30), times in 2usize..6) {
        let repeated: Members = (0..times).flat_map(|_| members.clone()).collect();
        let (once, often) = (sums(&members), sums(&repeated));
        let r = times as i128;
        prop_assert_eq!(often.s, r * once.s);
        for (often, once) in often.t.iter().zip(&once.t) {
            prop_assert_eq!(*often, r * once);
        }
    }

    #[test]
    fn p9_retracting_is_the_bag_of_the_others_to_the_bit(members in members(60), place in 0usize..60) {
        let place = place % members.len();
        let mut bag = sums(&members);
        bag.retract(&member(members[place].0, &members[place].1));
        let mut others = members.clone();
        others.remove(place);
        prop_assert_eq!(&bag, &sums(&others));
    }

    #[test]
    fn p10_the_pool_lies_between_least_and_greatest(members in members(60)) {
        for (c, z) in sums(&members).finish().unwrap().pooled.into_iter().enumerate() {
            let low = members.iter().fold(f32::MAX, |low, m| low.min(m.1[c]));
            let high = members.iter().fold(f32::MIN, |high, m| high.max(m.1[c]));
            prop_assert!(low <= z && z <= high);
        }
    }

    #[test]
    fn p5_p11_weights_go_as_squares_and_the_effective_number_lies_between_one_and_n(members in members(60)) {
        prop_assume!(members.iter().any(|m| m.0 != 0.0));
        let weights = weights(&members);
        for (i, j) in (0..members.len()).zip((0..members.len()).rev()) {
            let (gi, gj) = (f64::from(members[i].0), f64::from(members[j].0));
            let apart = (weights[i] * gj * gj - weights[j] * gi * gi).abs();
            prop_assert!(apart <= 1e-6 * (gi * gi + gj * gj));
        }
        let squares: f64 = weights.iter().map(|w| w * w).sum();
        let range = 1.0 - 1e-5..=members.len() as f64 * (1.0 + 1e-5);
        prop_assert!(range.contains(&(1.0 / squares)));
    }

    /// METHOD 3: |z' - z| <= b / (1 - b) max |h - z| + 2^-25 with b = 2 rho + rho^2, rho = 2^-25 / rms(g), and here half
    /// an ulp for the result's f32.
    #[test]
    fn rounding_moves_the_pool_by_no_more_than_the_bound(
        members in prop::collection::vec(
            (-5.0f32..5.0, prop::collection::vec(-50.0f32..50.0, WIDTH)),
            1..200,
        ),
    ) {
        let square = |m: &(f32, Vec<f32>)| f64::from(m.0).powi(2);
        let s: f64 = members.iter().map(square).sum();
        let rms = (s / members.len() as f64).sqrt();
        prop_assume!(rms > 1e-3);
        let rho = 2f64.powi(-25) / rms;
        let beta = 2.0 * rho + rho * rho;
        for (c, got) in sums(&members).finish().unwrap().pooled.into_iter().enumerate() {
            let z = members.iter().map(|m| square(m) * f64::from(m.1[c])).sum::<f64>() / s;
            let reach = members.iter().map(|m| (f64::from(m.1[c]) - z).abs()).fold(0.0, f64::max);
            let bound = beta / (1.0 - beta) * reach + 2f64.powi(-25) + z.abs() * 2f64.powi(-24);
            prop_assert!((f64::from(got) - z).abs() <= bound + 1e-12, "{} {} {}", got, z, bound);
        }
    }
}
