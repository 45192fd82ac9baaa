//! Forward: `mma.sync` and `wgmma` against f64, and what a bag's last block makes of its weights, bit by bit.

use super::case::{Case, Results, Shape};
use super::emulated::{self, PLAIN, SANITIZED, run, say};
use super::truth::Truth;
use super::{SHAPES, SQUARED, allowed, device, domain, machine, rule, same_bits};
use weir_kernels::cuda::stream::Stream;
use weir_kernels::kernels::flags;
use weir_kernels::math;
use weir_kernels::normalise::{Link, Normalisation};
use weir_kernels::{Bags, Cause, Cpu, Dtype, ROWS, Rule};

/// Ragged, with a bag of two items (after the mask), an empty one and one of one row; the last of no round number.
const RAGGED: &[usize] = &[150, 0, 1, 21];

/// Bags of two items, one, two, one, none, one and one: some begin after an even number of blocks, some after an odd one, so
/// that a bag alone has another place in its pair of blocks than in the batch.
const PAIRED: &[usize] = &[150, 2, 150, 21, 0, 9, 30];

/// Holds the sums over the weights to the contract's order, bit by bit, and bags without a member to zeros.
fn weighed(case: &Case, got: &Results) {
    let ordered = |of: &[f32]| {
        let sum = |of: &[f32]| of.iter().fold(0.0f32, |sum, x| sum + x);
        of.chunks(ROWS)
            .fold(0.0f32, |total, item| total + sum(item))
    };
    for (row, member) in case.mask.iter().enumerate() {
        assert!(*member || got.weights[row] == 0.0, "row {row}: a weight");
    }
    for bag in 0..case.bags.len() {
        let weights = case.bags.places(bag);
        let weights: Vec<f32> = weights.map(|at| got.weights[case.bags.row(at)]).collect();
        let squares: Vec<f32> = weights.iter().map(|w| w * w).collect();
        let parts = weights.iter().map(|&w| match w > 0.0 {
            true => -(w * math::ln(w)),
            false => 0.0,
        });
        let entropy = ordered(&parts.collect::<Vec<f32>>()).max(0.0);
        let same = |a: f32, b: f32| a.to_bits() == b.to_bits();
        assert!(
            same(got.squares[bag], ordered(&squares)),
            "bag {bag}: another sum of squares: {} and {}",
            got.squares[bag],
            ordered(&squares)
        );
        assert!(
            same(got.entropy[bag], entropy),
            "bag {bag}: another entropy: {} and {entropy}",
            got.entropy[bag]
        );
        let nobody = weights.is_empty();
        assert_eq!(got.flags[bag] & flags::EMPTY != 0, nobody, "bag {bag}");
        let of_bag = [got.sums[bag], got.squares[bag], got.entropy[bag]];
        let vector = &got.pooled[bag * case.shape.d..(bag + 1) * case.shape.d];
        let zeros = of_bag.iter().chain(vector).all(|&x| x == 0.0);
        assert_eq!(zeros, nobody, "bag {bag}: zeros, or none");
    }
}

fn forward_of(device: &Stream, rules: &[Rule], shapes: &[Shape], dtypes: &[Dtype]) {
    let mut all = Vec::new();
    for (seed, &rule) in rules.iter().enumerate() {
        for &shape in shapes {
            for &dtype in dtypes {
                let case = Case::random(20 + seed as u64, shape, RAGGED, dtype);
                let got = case.forward(device, rule, None);
                let truth = Truth::new(&case, rule, &vec![0.0; case.bags.len() * shape.d], None);
                let apart = [truth.logits(&got), truth.pooled(&got)];
                say(
                    "apart",
                    format!(
                        "{dtype} {rule:?} {shape:?} logits {:e} pooled {:e}",
                        apart[0], apart[1]
                    ),
                );
                assert!(
                    apart.iter().all(|&apart| apart <= allowed(dtype)),
                    "far from f64: {rule:?} {shape:?} {dtype} {apart:?}"
                );
                weighed(&case, &got);
                truth.weights_and_their_sums(rule, &got);
                all.extend(got.bits());
            }
        }
    }
    let hash = all.iter().fold(0u64, |hash, &bits| {
        (hash ^ u64::from(bits)).wrapping_mul(0x100_0000_01b3)
    });
    say("bits", format!("{hash:016x}"));
}

const TINY: Shape = Shape {
    d: 8,
    hidden: 4,
    gated: true,
};

const HALVES: &[Dtype] = &[Dtype::Bf16, Dtype::F16];

#[test]
#[ignore = "a case, run by the tests below"]
fn case_halves() {
    if emulated::inside() {
        forward_of(&device(), &[SQUARED], &SHAPES, HALVES);
    }
}

#[test]
#[ignore = "a case, run by the tests below"]
fn case_f32() {
    if emulated::inside() {
        forward_of(&device(), &[SQUARED], &SHAPES[1..], &[Dtype::F32]);
    }
}

#[test]
#[ignore = "a case, run by the tests below"]
fn case_small() {
    if emulated::inside() {
        forward_of(&device(), &[SQUARED], &SHAPES[2..], &[Dtype::Bf16]);
    }
}

#[test]
#[ignore = "a case, run by the tests below"]
fn case_rules() {
    if emulated::inside() {
        let rules = [
            rule(Normalisation::SquaredAverage, Link::Sigmoid),
            rule(Normalisation::Power(1.5), Link::None),
            rule(Normalisation::Sigmoid, Link::None),
            rule(Normalisation::Softmax, Link::None),
            rule(Normalisation::Mean, Link::None),
        ];
        forward_of(&device(), &rules, &SHAPES[2..], &[Dtype::F16]);
    }
}

/// More members than a block weighs in a turn (32 items), refused ones among them; and few.
#[test]
#[ignore = "a case, run by the tests below"]
fn case_long() {
    if !emulated::inside() {
        return;
    }
    let case = Case::random(6, TINY, &[4800, 3], Dtype::Bf16);
    assert!(case.bags.places(0).len() > 32 * ROWS);
    for normalisation in [Normalisation::SquaredAverage, Normalisation::Softmax] {
        weighed(
            &case,
            &case.forward(&device(), rule(normalisation, Link::None), None),
        );
    }
}

/// Bags without a member: more than there are blocks, all of them, and all of one whose rows are masked.
#[test]
#[ignore = "a case, run by the tests below"]
fn case_nobody() {
    if !emulated::inside() {
        return;
    }
    let device = device();
    let mut lengths = vec![0; 40];
    (lengths[7], lengths[8]) = (3, 140);
    let few = Case::random(7, TINY, &lengths, Dtype::Bf16);
    let none = Case::random(7, TINY, &[0; 40], Dtype::Bf16);
    let mut masked = Case::random(7, TINY, &[1, 0, 1], Dtype::Bf16);
    masked.mask.fill(false);
    masked.bags = Bags::new(&masked.offsets, Some(&masked.mask)).unwrap();
    for case in [few, none, masked] {
        weighed(&case, &case.forward(&device, SQUARED, None));
    }
}

#[test]
#[ignore = "a case, run by the tests below"]
fn case_refused_and_uniform() {
    if !emulated::inside() {
        return;
    }
    let device = device();
    let shape = Shape {
        d: 24,
        hidden: 8,
        gated: true,
    };
    let case = Case::random(3, shape, &[140, 9], Dtype::F32);
    for (row, poison) in [(129, f32::NAN), (3, 1e19)] {
        let (masked, refused) = (
            case.with_row(row, poison, false),
            case.with_row(row, poison, true),
        );
        let (without, with) = (
            masked.forward(&device, SQUARED, None),
            refused.forward(&device, SQUARED, None),
        );
        let apart = |(a, b): (&f32, &f32)| (a - b).abs();
        let far = without
            .pooled
            .iter()
            .zip(&with.pooled)
            .map(apart)
            .fold(0.0, f32::max);
        assert!(far < 1e-6, "a refused row leaves a trace: {far}");
        assert_eq!(with.flags, [flags::REFUSED, 0]);
        assert_eq!(with.weights[row], 0.0, "a refused row has a weight");
        weighed(&refused, &with);
    }
    let silent = Case::silent(shape, &[5, 2]).forward(&device, SQUARED, None);
    assert_eq!(silent.weights, [0.2, 0.2, 0.2, 0.2, 0.2, 0.5, 0.5]);
    assert_eq!(silent.flags, [flags::UNIFORM; 2]);
    assert!(silent.pooled.iter().all(|z| (z - 1.0).abs() < 1e-6));
}

#[test]
#[ignore = "a case, run by the tests below"]
fn case_alone() {
    if !emulated::inside() {
        return;
    }
    bags_alone(SHAPES[1], RAGGED, Dtype::F32);
}

#[test]
#[ignore = "a case, run by the tests below"]
fn case_alone_in_pairs() {
    if !emulated::inside() {
        return;
    }
    let case = bags_alone(SHAPES[2], PAIRED, Dtype::Bf16);
    let before: Vec<u32> = case.bags.first().to_vec();
    let items = |bag: usize| before[bag + 1] - before[bag];
    for many in [true, false] {
        for odd in [0, 1] {
            let any = (0..PAIRED.len())
                .any(|bag| items(bag) > u32::from(many) && before[bag] % 2 == odd && bag > 0);
            assert!(any || (many && odd == 0), "no such bag: {before:?}");
        }
    }
}

fn bags_alone(shape: Shape, lengths: &[usize], dtype: Dtype) -> Case {
    let device = device();
    let case = Case::random(5, shape, lengths, dtype);
    let batch = case.forward(&device, SQUARED, None);
    for bag in 0..lengths.len() {
        let alone = case.alone(bag).forward(&device, SQUARED, None);
        assert!(
            alone.bits() == batch.of_bag(&case, bag).bits(),
            "bag {bag} alone differs"
        );
    }
    case
}

#[test]
#[ignore = "a case, run by the tests below"]
fn case_domain() {
    if !emulated::inside() {
        return;
    }
    let (device, cpu) = (device(), Cpu::new(1).unwrap());
    for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
        let flags = [domain::held(&device, dtype), domain::held(&cpu, dtype)];
        assert_eq!(
            flags[0], flags[1],
            "{dtype}: other flags than on the processor"
        );
    }
}

#[test]
#[ignore = "a case, run by the tests below"]
fn case_too_old() {
    if emulated::inside() {
        let case = Case::random(5, SHAPES[1], &[3], Dtype::F32);
        let error = case.try_forward(&device(), SQUARED, 3).unwrap_err();
        assert!(matches!(error.cause, Cause::Unsupported { .. }), "{error}");
    }
}

#[test]
fn mma_is_within_its_bound_of_f64_with_the_same_bits_in_any_order() {
    same_bits(PLAIN, (8, 0), "forward::case_halves");
    same_bits(PLAIN, (8, 0), "forward::case_f32");
    run(PLAIN, &machine((8, 0), 3, true), "forward::case_rules").passed();
}

/// Of a width whose rows stay in shared memory, and of one whose rows come again.
const WIDE: [Shape; 2] = [
    Shape {
        d: 200,
        hidden: 150,
        gated: true,
    },
    Shape {
        d: 520,
        hidden: 9,
        gated: false,
    },
];

#[test]
#[ignore = "a case, run by the tests below"]
fn case_wide() {
    if emulated::inside() {
        forward_of(&device(), &[SQUARED], &WIDE, &[Dtype::Bf16]);
    }
}

#[test]
fn wgmma_is_within_its_bound_of_f64_with_the_same_bits_in_any_order() {
    same_bits(PLAIN, (9, 0), "forward::case_halves");
    same_bits(PLAIN, (9, 0), "forward::case_wide");
    run(PLAIN, &machine((9, 0), 3, true), "forward::case_rules").passed();
}

/// Rows that no 16 bytes divide, a plain head.
#[test]
#[ignore = "a case, run by the tests below"]
fn case_elements() {
    if emulated::inside() {
        forward_of(&device(), &[SQUARED], &SHAPES[1..2], HALVES);
    }
}

/// So wide that the rows come again.
#[test]
#[ignore = "a case, run by the tests below"]
fn case_streamed() {
    if emulated::inside() {
        forward_of(&device(), &[SQUARED], &WIDE[1..], &[Dtype::F16]);
    }
}

#[test]
fn wgmma_touches_only_its_own_memory() {
    for case in ["small", "elements", "streamed"] {
        let case = format!("forward::case_{case}");
        run(SANITIZED, &machine((9, 0), 0, true), &case).passed();
    }
}

#[test]
fn refused_rows_leave_no_trace_and_a_bag_without_a_sum_is_uniform() {
    run(
        PLAIN,
        &machine((8, 0), 0, true),
        "forward::case_refused_and_uniform",
    )
    .passed();
}

/// f32 goes by `mma.sync` on both.
#[test]
fn at_the_ends_of_f32_weights_pool_and_flags_are_the_laws_and_the_processors() {
    for capability in [(8, 0), (9, 0)] {
        run(PLAIN, &machine(capability, 3, true), "forward::case_domain").passed();
    }
}

#[test]
fn a_bags_last_block_weighs_it_in_the_contracts_order_however_long_it_is() {
    for (seed, capability) in [(0, (8, 0)), (3, (9, 0))] {
        run(
            PLAIN,
            &machine(capability, seed, true),
            "forward::case_long",
        )
        .passed();
    }
    run(SANITIZED, &machine((8, 0), 1, true), "forward::case_long").passed();
}

#[test]
fn bags_without_a_member_have_zeros_and_say_so_whatever_else_is_there() {
    for capability in [(8, 0), (9, 0)] {
        run(PLAIN, &machine(capability, 3, true), "forward::case_nobody").passed();
        run(
            SANITIZED,
            &machine(capability, 0, true),
            "forward::case_nobody",
        )
        .passed();
    }
}

#[test]
fn a_bag_alone_has_the_bits_that_it_has_in_a_batch() {
    run(PLAIN, &machine((8, 0), 0, true), "forward::case_alone").passed();
    for seed in [0, 3] {
        run(
            PLAIN,
            &machine((9, 0), seed, true),
            "forward::case_alone_in_pairs",
        )
        .passed();
    }
}

#[test]
fn mma_touches_only_its_own_memory() {
    for case in ["small", "f32", "elements"] {
        let case = format!("forward::case_{case}");
        run(SANITIZED, &machine((8, 0), 0, true), &case).passed();
    }
}

#[test]
fn a_device_without_these_products_says_so() {
    run(PLAIN, &machine((7, 5), 0, true), "forward::case_too_old").passed();
}
