//! (c), attention head, normalisation and pool at once, against f64 by the textbook, forward and backward: ragged bags, masks
//! over NaN, refused rows, empty bags, odd widths, plain and gated heads, f32, f16 and bf16.
#![allow(clippy::unwrap_used)]

// The device asks for more of it.
#[allow(dead_code)]
mod case;
mod domain;
mod truth;

use case::{Case, Results, Shape};
use truth::Truth;
use weir_kernels::kernels::flags;
use weir_kernels::normalise::{Link, Normalisation};
use weir_kernels::{Cause, Cpu, Dtype, Rule};

const RULES: [Rule; 6] = [
    rule(Normalisation::SquaredAverage, Link::None),
    rule(Normalisation::SquaredAverage, Link::Sigmoid),
    rule(Normalisation::Power(1.5), Link::None),
    rule(Normalisation::Sigmoid, Link::None),
    rule(Normalisation::Softmax, Link::None),
    rule(Normalisation::Mean, Link::None),
];

const fn rule(normalisation: Normalisation, link: Link) -> Rule {
    Rule {
        normalisation,
        link,
    }
}

/// Ragged, with an empty bag, a bag of one, bags of a few items, the last of no round number.
const RAGGED: &[usize] = &[300, 0, 1, 128, 7, 61, 129, 3, 77];

const SHAPES: [Shape; 5] = [
    Shape {
        d: 64,
        hidden: 32,
        gated: true,
    },
    Shape {
        d: 37,
        hidden: 19,
        gated: true,
    },
    Shape {
        d: 37,
        hidden: 19,
        gated: false,
    },
    Shape {
        d: 1,
        hidden: 1,
        gated: true,
    },
    Shape {
        d: 517,
        hidden: 130,
        gated: true,
    },
];

fn allowed(dtype: Dtype) -> f64 {
    if dtype == Dtype::F32 { 1e-5 } else { 1e-2 }
}

#[test]
fn forward_is_within_its_bound_of_f64_for_every_rule_shape_and_type() {
    let cpu = Cpu::new(2).unwrap();
    let mut worst = [0.0f64; 2];
    for (seed, rule) in RULES.into_iter().enumerate() {
        for shape in SHAPES {
            for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
                let case = Case::random(seed as u64, shape, RAGGED, dtype);
                let got = case.forward(&cpu, rule, None);
                let truth = Truth::new(&case, rule, &vec![0.0; case.bags.len() * shape.d], None);
                for (which, apart) in [truth.logits(&got), truth.pooled(&got)]
                    .into_iter()
                    .enumerate()
                {
                    assert!(
                        apart <= allowed(dtype),
                        "{rule:?} {shape:?} {dtype}: {which} {apart:e}"
                    );
                    worst[which] = worst[which].max(apart);
                }
                truth.weights_and_their_sums(rule, &got);
            }
        }
    }
    println!("worst: logits {:e}, pooled {:e}", worst[0], worst[1]);
}

#[test]
fn backward_is_within_its_bound_of_f64_for_every_rule_shape_and_type() {
    let cpu = Cpu::new(2).unwrap();
    let mut worst = 0.0f64;
    for (seed, rule) in RULES.into_iter().enumerate() {
        for shape in SHAPES {
            for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
                let case = Case::random(50 + seed as u64, shape, RAGGED, dtype);
                let dz = case.random_gradient();
                let dw = (seed % 2 == 0).then(|| case.random_weights_gradient());
                let truth = Truth::new(&case, rule, &dz, dw.as_deref());
                for taped in [false, true] {
                    let got = case.backward(&cpu, rule, &dz, dw.as_deref(), true, taped);
                    for (name, apart) in truth.gradients(&got) {
                        assert!(
                            apart <= allowed(dtype),
                            "{rule:?} {shape:?} {dtype}: {name} {apart:e}"
                        );
                        worst = worst.max(apart);
                    }
                }
            }
        }
    }
    println!("worst: {worst:e}");
}

#[test]
fn backward_is_what_finite_differences_of_f64_say() {
    let cpu = Cpu::new(1).unwrap();
    for (seed, rule) in RULES.into_iter().enumerate() {
        for gated in [true, false] {
            let shape = Shape {
                d: 9,
                hidden: 5,
                gated,
            };
            let case = Case::random(90 + seed as u64, shape, &[40, 0, 150], Dtype::F32);
            let dz = case.random_gradient();
            let got = case.backward(&cpu, rule, &dz, None, true, false);
            truth::finite_differences(&case, rule, &dz, &got);
        }
    }
}

#[test]
fn a_bag_alone_and_in_a_batch_and_any_number_of_threads_give_the_same_bits() {
    let shape = Shape {
        d: 75,
        hidden: 23,
        gated: true,
    };
    for rule in RULES {
        let case = Case::random(7, shape, RAGGED, Dtype::F32);
        let dz = case.random_gradient();
        let [one, two, five] = [1, 2, 5].map(|threads| {
            let cpu = Cpu::new(threads).unwrap();
            let forward = case.forward(&cpu, rule, None);
            let backward = case.backward(&cpu, rule, &dz, None, true, false);
            (forward.bits(), backward.bits())
        });
        assert!(one == two && two == five, "{rule:?}");
        let cpu = Cpu::new(2).unwrap();
        let batch = case.forward(&cpu, rule, None);
        let gradients = case.backward(&cpu, rule, &dz, None, true, false);
        for bag in 0..RAGGED.len() {
            let alone = case.alone(bag);
            let forward = alone.forward(&cpu, rule, None);
            assert!(
                forward.bits() == batch.of_bag(&case, bag).bits(),
                "{rule:?} {bag}"
            );
            let dz = &dz[bag * shape.d..(bag + 1) * shape.d];
            let backward = alone.backward(&cpu, rule, dz, None, true, false);
            let rows = case.bags.rows(bag);
            let expected = &gradients.features[rows.start * shape.d..rows.end * shape.d];
            assert!(
                case::bits(&backward.features) == case::bits(expected),
                "{rule:?} {bag}"
            );
        }
    }
}

#[test]
fn a_tape_changes_no_bit_forward_and_none_backward() {
    let cpu = Cpu::new(2).unwrap();
    for gated in [true, false] {
        let shape = Shape {
            d: 75,
            hidden: 23,
            gated,
        };
        let case = Case::random(8, shape, RAGGED, Dtype::F16);
        let dz = case.random_gradient();
        let again = case.backward(&cpu, RULES[0], &dz, None, true, false);
        let taped = case.backward(&cpu, RULES[0], &dz, None, true, true);
        assert!(again.bits() == taped.bits());
        let fewer = case.backward(&cpu, RULES[0], &dz, None, false, true);
        assert!(again.bits()[..fewer.bits().len()] == fewer.bits());
    }
}

#[test]
fn a_refused_row_leaves_its_bag_as_if_it_had_not_come() {
    let cpu = Cpu::new(2).unwrap();
    let shape = Shape {
        d: 20,
        hidden: 8,
        gated: true,
    };
    for rule in RULES {
        for poison in [f32::NAN, f32::INFINITY, 1e19] {
            let case = Case::random(3, shape, &[300, 140, 50], Dtype::F32);
            let masked = case.with_row(129, poison, false);
            let refused = case.with_row(129, poison, true);
            let (without, with) = (
                masked.forward(&cpu, rule, None),
                refused.forward(&cpu, rule, None),
            );
            if rule.normalisation == Normalisation::Softmax {
                // The law's own loop pools the bag again, against the greatest of all.
                let apart = |(a, b): (&f32, &f32)| (a - b).abs();
                let far = without
                    .pooled
                    .iter()
                    .zip(&with.pooled)
                    .map(apart)
                    .fold(0.0, f32::max);
                assert!(far < 1e-6, "{far}");
            } else {
                assert_eq!(
                    case::bits(&without.pooled),
                    case::bits(&with.pooled),
                    "{rule:?}"
                );
            }
            assert_eq!(case::bits(&without.weights), case::bits(&with.weights));
            assert_eq!(case::bits(&without.sums), case::bits(&with.sums));
            assert_eq!(with.flags[0] & !flags::OUT_OF_DOMAIN, flags::REFUSED);
            assert_eq!(with.flags[1] & flags::REFUSED, 0);
            let dz = case.random_gradient();
            for taped in [false, true] {
                let with = refused.backward(&cpu, rule, &dz, None, true, taped);
                assert!(with.all_finite(), "{rule:?} {poison}");
                let row = 129 * shape.d..130 * shape.d;
                assert!(with.features[row].iter().all(|&g| g == 0.0));
            }
        }
    }
}

#[test]
fn a_bag_without_a_sum_is_uniform_and_says_so() {
    let cpu = Cpu::new(1).unwrap();
    let shape = Shape {
        d: 6,
        hidden: 4,
        gated: true,
    };
    let case = Case::silent(shape, &[5, 2]);
    let got: Results = case.forward(&cpu, RULES[0], None);
    assert_eq!(got.weights, [0.2, 0.2, 0.2, 0.2, 0.2, 0.5, 0.5]);
    assert_eq!(
        (got.flags, got.sums),
        (vec![flags::UNIFORM; 2], vec![5.0, 2.0])
    );
    let gradient = case.backward(&cpu, RULES[0], &[1.0; 12], None, true, false);
    assert!(
        gradient
            .value
            .iter()
            .chain(&gradient.bias)
            .all(|&g| g == 0.0)
    );
    assert_eq!(gradient.features[..6], [0.2; 6]);
}

#[test]
fn at_the_ends_of_f32_weights_pool_and_flags_are_the_laws() {
    let cpu = Cpu::new(2).unwrap();
    for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
        domain::held(&cpu, dtype);
    }
}

#[test]
fn what_cannot_work_is_refused_with_its_reason() {
    let cpu = Cpu::new(1).unwrap();
    let shape = Shape {
        d: 6,
        hidden: 4,
        gated: true,
    };
    let case = Case::random(1, shape, &[5, 2], Dtype::F32);
    for normalisation in [
        Normalisation::Max,
        Normalisation::Sparsemax,
        Normalisation::Power(-1.0),
    ] {
        let error = case
            .try_forward(&cpu, rule(normalisation, Link::None), case.bags.total())
            .unwrap_err();
        assert!(matches!(error.cause, Cause::Unsupported { .. }), "{error}");
    }
    let error = case
        .try_forward(&cpu, RULES[0], case.bags.total() - 1)
        .unwrap_err();
    assert!(
        matches!(
            error.cause,
            Cause::Shape {
                argument: "logits",
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(error.kernel, "gated pool");
    let error = case
        .narrower()
        .try_forward(&cpu, RULES[0], case.bags.total())
        .unwrap_err();
    assert!(
        matches!(
            error.cause,
            Cause::Shape {
                argument: "features",
                ..
            }
        ),
        "{error}"
    );
}
