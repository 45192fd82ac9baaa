//! (a) and (b) on the processor against the loops of `pool::pool`, to the bit, against f64, and METHOD 2's identities.
#![allow(clippy::unwrap_used, clippy::needless_range_loop)]

mod bags;

use bags::edges::{EDGES, beyond, edges, loops};
use bags::{Case, Odd, RULES, Stored, Type, case, pooled, rules, slopes, weights, weights_slopes};
use proptest::prelude::*;
use weir_kernels::kernels::{Rule, flags};
use weir_kernels::normalise::Link;
use weir_kernels::{Cpu, reference};

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn the_pool_is_the_loops_pool_to_the_bit(case in case(), rule in rules()) {
        let truth = loops(&case, rule);
        for threads in [1, 2] {
            let got = pooled(&Cpu::new(threads).unwrap(), &case, rule);
            prop_assert_eq!(&got, &truth);
        }
    }

    #[test]
    fn weights_without_features_are_the_loops_weights_to_the_bit(case in case(), rule in rules()) {
        let mut case = case;
        case.width = 0;
        case.features = Stored::F32(vec![]);
        case.stride = 0;
        let truth = loops(&case, rule);
        prop_assert_eq!(weights(&Cpu::new(2).unwrap(), &case, rule), truth);
    }

    #[test]
    fn a_bag_alone_is_the_bag_in_the_batch(case in case(), rule in rules()) {
        let cpu = Cpu::new(2).unwrap();
        let batch = pooled(&cpu, &case, rule);
        for bag in 0..case.offsets.len() - 1 {
            let (from, to) = (case.offsets[bag], case.offsets[bag + 1]);
            let alone = pooled(&cpu, &case.part(bag), rule);
            prop_assert_eq!(bits(&alone.pooled), bits(&batch.pooled[bag * case.width..(bag + 1) * case.width]));
            prop_assert_eq!(bits(&alone.weights), bits(&batch.weights[from..to]));
            prop_assert_eq!(alone.flags[0], batch.flags[bag]);
            prop_assert_eq!(alone.entropy[0].to_bits(), batch.entropy[bag].to_bits());
        }
    }

    #[test]
    fn gradients_are_those_of_a_bag_alone_and_of_any_number_of_threads(case in case(), rule in rules()) {
        let one = slopes(&Cpu::new(1).unwrap(), &case, rule, true);
        prop_assert_eq!(&one, &slopes(&Cpu::new(2).unwrap(), &case, rule, true));
        for bag in 0..case.offsets.len() - 1 {
            let (from, to) = (case.offsets[bag], case.offsets[bag + 1]);
            let alone = slopes(&Cpu::new(2).unwrap(), &case.part(bag), rule, true);
            prop_assert_eq!(bits(&alone.logits), bits(&one.logits[from..to]));
            prop_assert_eq!(&alone.features[..], &one.features[from * case.width..to * case.width]);
        }
    }
}

const LINKS: [Link; 2] = [Link::None, Link::Sigmoid];

#[test]
fn at_the_edges_of_the_domain_the_flags_are_the_loops_and_what_the_limits_say() {
    let cpu = Cpu::new(1).unwrap();
    for normalisation in RULES {
        for link in LINKS {
            let rule = Rule {
                normalisation,
                link,
            };
            for (case, edge) in EDGES
                .iter()
                .flat_map(|&edge| edges(edge).map(|case| (case, edge)))
            {
                let got = pooled(&cpu, &case, rule);
                assert_eq!(got, loops(&case, rule), "{rule:?} of {edge:e}");
                // A sum that leaves f32's range says so as well, whatever the logits are.
                let out = flags::OUT_OF_DOMAIN;
                for (bag, &flags) in got.flags.iter().enumerate() {
                    if edge.abs() < 1.0 {
                        let beyond = beyond(rule, edge);
                        assert_eq!(flags & out != 0, beyond, "{rule:?} of {edge:e}, bag {bag}");
                    } else {
                        assert!(
                            flags & out != 0 || !beyond(rule, edge),
                            "{rule:?} of {edge:e}"
                        );
                    }
                }
                let mut narrow = case.clone();
                (narrow.width, narrow.stride, narrow.features) = (0, 0, Stored::F32(vec![]));
                narrow.u.clear();
                assert_eq!(
                    weights(&cpu, &narrow, rule),
                    loops(&narrow, rule),
                    "{rule:?} of {edge:e}"
                );
            }
        }
    }
}

/// Rows of a bag that are members, not refused.
fn kept(case: &Case, bag: usize) -> Vec<usize> {
    let wide = case.wide();
    (case.offsets[bag]..case.offsets[bag + 1])
        .filter(|&row| case.mask[row])
        .filter(|&row| weir_kernels::pool::admissible(case.logits[row], &wide[row]))
        .collect()
}

/// Bags in their domain and some with refused members, of every size that matters.
fn plain(seed: u64, kind: Type) -> Case {
    let odd = [Odd::Nothing, Odd::Refused, Odd::Zeros];
    Case::with(seed, &[300, 0, 1, 129, 1000, 37], 67, kind, true, &odd)
}

#[test]
fn no_component_errs_by_more_than_a_millionth_of_the_sum_of_its_parts() {
    let mut worst = 0f64;
    for (seed, kind) in [(1, Type::F32), (2, Type::F16), (3, Type::Bf16)] {
        let case = plain(seed, kind);
        let wide = case.wide();
        for normalisation in RULES {
            for link in LINKS {
                let got = pooled(
                    &Cpu::new(2).unwrap(),
                    &case,
                    Rule {
                        normalisation,
                        link,
                    },
                );
                for bag in 0..case.len() {
                    let rows = kept(&case, bag);
                    let a: Vec<f64> = rows.iter().map(|&r| f64::from(case.logits[r])).collect();
                    let w = reference::weights(normalisation, link, &a);
                    for (&row, w) in rows.iter().zip(&w) {
                        let apart = (f64::from(got.weights[row]) - w).abs() / w.max(1e-30);
                        assert!(apart <= 1e-5, "{normalisation:?} {link:?}: {apart:e}");
                    }
                    for c in 0..case.width {
                        let parts = || rows.iter().zip(&w).map(|(&r, w)| w * f64::from(wide[r][c]));
                        let size: f64 = parts().map(f64::abs).sum();
                        let z = f64::from(got.pooled[bag * case.width + c]);
                        if size > 0.0 {
                            worst = worst.max((z - parts().sum::<f64>()).abs() / size);
                        }
                    }
                }
            }
        }
    }
    println!("forward: {worst:.2e} of sum w|h|");
    assert!(worst <= 1e-6, "{worst:e}");
}

/// The loss u . z + direct . w of one bag, in f64.
fn loss(rule: Rule, a: &[f64], h: &[Vec<f64>], u: &[f64], direct: &[f64]) -> f64 {
    let bag = reference::pool(rule.normalisation, rule.link, a, h);
    let along: f64 = bag.pooled.iter().zip(u).map(|(z, u)| z * u).sum();
    along
        + bag
            .weights
            .iter()
            .zip(direct)
            .map(|(w, d)| w * d)
            .sum::<f64>()
}

#[test]
fn gradients_are_the_slopes_of_the_loss_in_f64() {
    let (mut by_logits, mut by_features) = (0f64, 0f64);
    for (seed, kind) in [(11, Type::F32), (12, Type::F16), (13, Type::Bf16)] {
        let mut case = Case::with(
            seed,
            &[40, 0, 1, 131, 17],
            37,
            kind,
            true,
            &[Odd::Nothing, Odd::Refused],
        );
        // Where a power crosses zero it has a kink.
        case.logits
            .iter_mut()
            .filter(|a| a.abs() < 0.05)
            .for_each(|a| *a = 0.3);
        let wide = case.wide();
        for normalisation in RULES {
            for link in LINKS {
                let rule = Rule {
                    normalisation,
                    link,
                };
                let got = slopes(&Cpu::new(2).unwrap(), &case, rule, true);
                let weights_alone = weights_slopes(&Cpu::new(2).unwrap(), &case, rule);
                for bag in 0..case.len() {
                    let rows = kept(&case, bag);
                    let f64s = |v: &[f32]| v.iter().map(|&v| f64::from(v)).collect::<Vec<f64>>();
                    let a: Vec<f64> = rows.iter().map(|&r| f64::from(case.logits[r])).collect();
                    let h: Vec<Vec<f64>> = rows.iter().map(|&r| f64s(&wide[r])).collect();
                    let u = f64s(&case.u[bag * case.width..(bag + 1) * case.width]);
                    let direct: Vec<f64> =
                        rows.iter().map(|&r| f64::from(case.direct[r])).collect();
                    let w = reference::weights(normalisation, link, &a);
                    let finite: Vec<usize> = (case.offsets[bag]..case.offsets[bag + 1])
                        .filter(|&r| case.mask[r] && case.logits[r].is_finite())
                        .collect();
                    let step = 1e-5;
                    for (k, &row) in rows.iter().enumerate() {
                        let moved = |by: f64| {
                            let mut a = a.clone();
                            a[k] += by;
                            a
                        };
                        let slope = |of: &dyn Fn(&[f64]) -> f64| {
                            (of(&moved(step)) - of(&moved(-step))) / (2.0 * step)
                        };
                        let truth = slope(&|a| loss(rule, a, &h, &u, &direct));
                        // Of what the slope is a difference: the sizes, not what is left of them.
                        let size: f64 =
                            h[k].iter().zip(&u).map(|(h, u)| (h * u).abs()).sum::<f64>() + 1.0;
                        let apart = (f64::from(got.logits[row]) - truth).abs();
                        by_logits = by_logits.max(apart / size);
                        if finite.len() == rows.len() {
                            let none = vec![Vec::new(); a.len()];
                            let truth = slope(&|a| loss(rule, a, &none, &[], &direct));
                            let apart = (f64::from(weights_alone[row]) - truth).abs();
                            assert!(apart <= 1e-6, "{rule:?}: {apart:e}");
                        }
                        let ulp = match kind {
                            // A weight's own error: softmax's and powers' come with that of their argument.
                            Type::F32 => 2f64.powi(-20),
                            Type::F16 => 2f64.powi(-11),
                            Type::Bf16 => 2f64.powi(-8),
                        };
                        for c in 0..case.width {
                            let truth = w[k] * u[c];
                            let got = f64::from(got.features[row * case.width + c]);
                            let size = truth.abs().max(6.2e-5);
                            by_features = by_features.max((got - truth).abs() / size / ulp);
                        }
                    }
                }
                for row in 0..case.rows() {
                    if !case.mask[row]
                        || !weir_kernels::pool::admissible(case.logits[row], &wide[row])
                    {
                        assert_eq!(got.logits[row].to_bits(), 0);
                        let own = &got.features[row * case.width..(row + 1) * case.width];
                        assert!(own.iter().all(|v| v.to_bits() == 0));
                    }
                }
            }
        }
    }
    println!(
        "backward: {by_logits:.2e} of |h||u| by the logits, {by_features:.2} units by the features"
    );
    assert!(by_logits <= 1e-6, "{by_logits:e}");
    assert!(by_features <= 1.0, "{by_features}");
}
