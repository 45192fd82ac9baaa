//! Vectors worked out by hand, and the guards.

use weir_kernels::attention::AttentionHead;
use weir_kernels::classifier::Classifier;
use weir_kernels::linear::Linear;
use weir_kernels::normalise::{Link, Normalisation, SquaredAverage};
use weir_kernels::pool::{Pooled, Weighted, leave_one_out, pool};
use weir_kernels::{ROWS, ordered_sum, reference};

const H: [&[f32]; 4] = [&[1.0, 0.0], &[0.0, 2.0], &[4.0, 1.0], &[9.0, 9.0]];
const A: [f32; 4] = [1.0, 2.0, -3.0, 0.0];

fn squared(logits: &[f32], members: &[&[f32]]) -> Pooled {
    pool(&SquaredAverage, Link::None, logits, members)
}

/// METHOD 2.2.
#[test]
fn the_golden_bag_of_the_squared_average() {
    let bag = squared(&A, &H);
    assert_eq!(bag.weights, [1.0 / 14.0, 4.0 / 14.0, 9.0 / 14.0, 0.0]);
    assert_eq!(bag.pooled, [37.0 / 14.0, 17.0 / 14.0]);
    assert!((bag.effective - 2.0).abs() < 1e-6);
    // Without the third member the first component is 0.2.
    let first: Vec<f32> = H.iter().map(|h| h[0]).collect();
    let weighted = Weighted {
        weights: &bag.weights,
        uniform: false,
        refused: &[],
    };
    let change = leave_one_out(&SquaredAverage, Link::None, &A, &first, weighted)[2];
    assert!((bag.pooled[0] + change - 0.2).abs() < 1e-6);
}

#[test]
fn the_golden_gradient_of_the_squared_average() {
    let a = A.map(f64::from);
    let h = H.map(|h| h.iter().map(|&h| f64::from(h)).collect::<Vec<_>>());
    let gradient = reference::gradient(
        Normalisation::SquaredAverage,
        Link::None,
        &a,
        &h,
        &[1.0, -1.0],
    );
    let truth = [-6.0 / 98.0, -96.0 / 98.0, -66.0 / 98.0, 0.0];
    for (got, truth) in gradient.logits.iter().zip(truth) {
        assert!((got - truth).abs() < 1e-15, "{got} {truth}");
    }
    let along: f64 = gradient.logits.iter().zip(a).map(|(d, a)| d * a).sum();
    assert!(along.abs() < 1e-15, "the gradient is orthogonal to a");
    assert_eq!(gradient.members[2], [9.0 / 14.0, -9.0 / 14.0]);
}

#[test]
fn every_normalisation_on_a_bag_that_can_be_worked_out_by_hand() {
    let members: [&[f32]; 3] = [&[1.0], &[2.0], &[4.0]];
    let a = [0.5f32, 0.25, -1.0];
    let weights =
        |kind: Normalisation| pool(kind.rule().as_ref(), Link::None, &a, &members).weights;
    assert_eq!(weights(Normalisation::Mean), [1.0 / 3.0; 3]);
    assert_eq!(weights(Normalisation::Max), [1.0, 0.0, 0.0]);
    // Projection of (0.5, 0.25, -1): the threshold is (0.75 - 1) / 2.
    assert_eq!(weights(Normalisation::Sparsemax), [0.625, 0.375, 0.0]);
    assert_eq!(
        weights(Normalisation::Power(1.0)),
        [2.0 / 7.0, 1.0 / 7.0, 4.0 / 7.0]
    );
    assert_eq!(
        weights(Normalisation::Power(2.0)),
        weights(Normalisation::SquaredAverage)
    );
    let e = [0.5f64.exp(), 0.25f64.exp(), (-1f64).exp()];
    for (w, e_k) in weights(Normalisation::Softmax).iter().zip(e) {
        assert!((f64::from(*w) - e_k / e.iter().sum::<f64>()).abs() < 1e-7);
    }
    let s = a.map(|a| reference::sigmoid(f64::from(a)));
    for (w, s_k) in weights(Normalisation::Sigmoid).iter().zip(s) {
        assert!((f64::from(*w) - s_k / s.iter().sum::<f64>()).abs() < 1e-7);
    }
}

#[test]
fn equals_share_under_max() {
    let members: [&[f32]; 3] = [&[1.0], &[2.0], &[4.0]];
    let bag = pool(
        Normalisation::Max.rule().as_ref(),
        Link::None,
        &[3.0, 1.0, 3.0],
        &members,
    );
    assert_eq!(bag.weights, [0.5, 0.0, 0.5]);
    assert_eq!(bag.pooled, [2.5]);
}

#[test]
fn an_empty_bag_has_no_weights_and_says_so() {
    let bag = squared(&[], &[]);
    assert!(bag.flags.empty && bag.pooled.is_empty() && bag.weights.is_empty());
    assert_eq!(bag.effective, 0.0);
}

#[test]
fn a_single_member_has_the_whole_weight_even_at_zero() {
    let bag = squared(&[0.0], &[&[3.0, 5.0]]);
    assert_eq!((bag.weights, bag.pooled), (vec![1.0], vec![3.0, 5.0]));
}

#[test]
fn zero_logits_give_uniform_weights_and_a_flag() {
    let bag = squared(&[0.0, -0.0], &[&[1.0], &[3.0]]);
    assert!(bag.flags.uniform && !bag.flags.out_of_domain);
    assert_eq!((bag.weights, bag.pooled), (vec![0.5, 0.5], vec![2.0]));
    let gradient = reference::gradient(
        Normalisation::SquaredAverage,
        Link::None,
        &[0.0, 0.0],
        &[vec![1.0], vec![3.0]],
        &[1.0],
    );
    assert_eq!(gradient.logits, [0.0, 0.0]);
}

#[test]
fn what_is_not_finite_is_refused_and_the_bag_is_as_if_it_had_not_come() {
    let nan = f32::NAN;
    let clean = squared(&A, &H);
    for (logit, features) in [
        (nan, [1.0, 1.0]),
        (f32::INFINITY, [1.0, 1.0]),
        (1.0, [nan, 1.0]),
        (1.0, [f32::NEG_INFINITY, 1.0]),
        (1.0, [1e18, 1.0]),
    ] {
        let logits = [A[0], A[1], logit, A[2], A[3]];
        let members = [H[0], H[1], &features, H[2], H[3]];
        for kind in Normalisation::NAMES {
            let rule = Normalisation::parse(kind, Some(2.0)).map(Normalisation::rule);
            let Some(rule) = rule else { panic!("{kind}") };
            let bag = pool(rule.as_ref(), Link::None, &logits, &members);
            let truth = pool(rule.as_ref(), Link::None, &A, &H);
            assert_eq!(bag.refused, [2], "{kind}");
            assert_eq!(bag.weights[2].to_bits(), 0);
            assert_eq!(bag.pooled, truth.pooled, "{kind}");
            assert_eq!(bag.effective, truth.effective);
        }
        assert_eq!(squared(&logits, &members).pooled, clean.pooled);
    }
}

#[test]
fn values_beyond_the_domain_are_flagged_and_never_become_no_number() {
    for logits in [[1e19f32, 1.0], [3e38, 3e38], [1e-25, 1e-30], [1e-19, 1.0]] {
        let bag = squared(&logits, &[&[1.0], &[3.0]]);
        assert!(bag.flags.out_of_domain, "{logits:?}");
        assert!(bag.pooled[0].is_finite() && (1.0..=3.0).contains(&bag.pooled[0]));
        let sum: f32 = bag.weights.iter().sum();
        assert!((sum - 1.0).abs() < 1e-6, "{logits:?}: {:?}", bag.weights);
    }
    assert!(
        !squared(&[9e17, 2e-18], &[&[1.0], &[3.0]])
            .flags
            .out_of_domain
    );
}

#[test]
fn no_eps_and_no_prescale_small_logits_have_the_weights_of_their_ratio() {
    let bag = squared(&[1e-15, 2e-15], &[&[0.0], &[1.0]]);
    assert!((bag.pooled[0] - 0.8).abs() < 1e-6 && !bag.flags.out_of_domain);
}

#[test]
fn sums_run_within_items_of_128_and_then_over_the_items() {
    let values: Vec<f32> = (0..300).map(|k| 1.0 + (k as f32) * 1e-3).collect();
    let items: Vec<f32> = values
        .chunks(ROWS)
        .map(|item| item.iter().fold(0.0, |sum, v| sum + v))
        .collect();
    assert_eq!(items.len(), 3);
    let total = items.iter().fold(0.0, |sum, v| sum + v);
    assert_eq!(
        ordered_sum(values.iter().copied()).to_bits(),
        total.to_bits()
    );
    // The pool's denominator and numerators run the same way.
    let rows: Vec<Vec<f32>> = values.iter().map(|v| vec![v * 3.0]).collect();
    let rows: Vec<&[f32]> = rows.iter().map(Vec::as_slice).collect();
    let bag = squared(&values, &rows);
    let products: Vec<f32> = values.iter().map(|v| v * v * (v * 3.0)).collect();
    let squares: Vec<f32> = values.iter().map(|v| v * v).collect();
    let t = ordered_sum(products.into_iter());
    let s = ordered_sum(squares.into_iter());
    assert_eq!(bag.pooled[0].to_bits(), (t / s).to_bits());
}

/// The bits themselves: another machine, compiler or release that differs anywhere fails here.
#[test]
fn the_bits_of_a_bag_are_written_down() {
    let weight = |n: usize, seed: usize| -> Vec<f32> {
        (0..n)
            .map(|k| ((k * 37 + seed * 11) % 101) as f32 / 101.0 - 0.5)
            .collect()
    };
    let (feature, hidden) = (16, 8);
    let head = AttentionHead::new(
        Linear::new(&weight(feature * hidden, 1), &weight(hidden, 2)),
        Some(Linear::new(
            &weight(feature * hidden, 3),
            &weight(hidden, 4),
        )),
        weight(hidden, 5),
        -0.25,
    );
    let members: Vec<Vec<f32>> = (0..200).map(|k| weight(feature, 7 + k)).collect();
    let members: Vec<&[f32]> = members.iter().map(Vec::as_slice).collect();
    let logits = head.logits(&members);
    let mut digest = 0xcbf2_9ce4_8422_2325_u64;
    let mut eat = |values: &[f32]| {
        for byte in values.iter().flat_map(|v| v.to_bits().to_le_bytes()) {
            digest = (digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    eat(&logits);
    let classifier = Classifier {
        layer: Linear::new(&weight(3 * feature, 9), &weight(3, 10)),
    };
    for name in Normalisation::NAMES {
        for link in [Link::None, Link::Sigmoid] {
            let Some(kind) = Normalisation::parse(name, Some(1.5)) else {
                panic!("{name}")
            };
            let bag = pool(kind.rule().as_ref(), link, &logits, &members);
            let verdict = classifier.classify(&bag.pooled);
            eat(&bag.weights);
            eat(&bag.pooled);
            eat(&[bag.effective, bag.entropy]);
            eat(&verdict.logits);
            eat(&verdict.probabilities);
        }
    }
    assert_eq!(digest, 1_702_104_826_957_468_909);
}

#[test]
fn the_head_is_the_reference_within_its_roundings() {
    let weight = |n: usize, seed: usize| -> Vec<f32> {
        (0..n)
            .map(|k| ((k * 53 + seed * 29) % 97) as f32 / 97.0 - 0.5)
            .collect()
    };
    let wide = |values: &[f32]| -> Vec<f64> { values.iter().map(|&v| f64::from(v)).collect() };
    let (feature, hidden) = (128, 64);
    let (v, bv, u, bu, w) = (
        weight(feature * hidden, 1),
        weight(hidden, 2),
        weight(feature * hidden, 3),
        weight(hidden, 4),
        weight(hidden, 5),
    );
    for gated in [false, true] {
        let gate = gated.then(|| Linear::new(&u, &bu));
        let head = AttentionHead::new(Linear::new(&v, &bv), gate, w.clone(), 0.5);
        for seed in 0..20 {
            let h = weight(feature, 40 + seed);
            let (wu, wbu) = (wide(&u), wide(&bu));
            let truth = reference::attention(
                (&wide(&v), &wide(&bv)),
                gated.then_some((wu.as_slice(), wbu.as_slice())),
                &wide(&w),
                0.5,
                &wide(&h),
            );
            let got = f64::from(head.logits(&[&h])[0]);
            // 128 + 64 roundings of 2^-24 over sums whose terms add up to at most 64 in size.
            assert!(
                (got - truth).abs() <= 192.0 * 2f64.powi(-24) * 64.0,
                "{got} {truth}"
            );
        }
    }
}

#[test]
fn the_class_is_the_first_of_equals() {
    let classifier = Classifier {
        layer: Linear::new(&[0.0, 1.0, 1.0], &[0.0, 0.0, 0.0]),
    };
    let verdict = classifier.classify(&[2.0]);
    assert_eq!(verdict.class, 1);
    assert_eq!(verdict.logits, [0.0, 2.0, 2.0]);
    let sum: f32 = verdict.probabilities.iter().sum();
    assert!((sum - 1.0).abs() < 1e-6);
}
