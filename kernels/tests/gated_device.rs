//! (c) on the emulated device, against f64: what `gated` holds the processor to, of small shapes.
#![allow(clippy::unwrap_used)]

#[path = "gated/case.rs"]
#[allow(dead_code)]
mod case;
#[path = "emulated/mod.rs"]
mod emulated;
#[path = "gated/truth.rs"]
#[allow(dead_code)]
mod truth;

use case::{Case, Shape};
use emulated::{PLAIN, Patch, SANITIZED, Setting, Variant, run, say};
use truth::Truth;
use weir_kernels::cuda::module::Images;
use weir_kernels::cuda::stream::Stream;
use weir_kernels::cuda::{Gpu, Options};
use weir_kernels::kernels::flags;
use weir_kernels::normalise::{Link, Normalisation};
use weir_kernels::{Cause, Dtype, Rule};

/// The emulated device: its driver has the kernels in itself, and takes any binary for them.
fn device() -> Stream {
    let images = Images::Fixed(b"\x7fELF".to_vec());
    let options = Options {
        images,
        cache: None,
        separate_scratch: true,
    };
    Gpu::open_with(0, options).unwrap().stream().unwrap()
}

const fn rule(normalisation: Normalisation, link: Link) -> Rule {
    Rule {
        normalisation,
        link,
    }
}

const SQUARED: Rule = rule(Normalisation::SquaredAverage, Link::None);

/// Ragged, with a bag of two items (after the mask), an empty one and one of one row; the last of no round number.
const RAGGED: &[usize] = &[150, 0, 1, 21];

/// Bags of two items, one, two, one, none, one and one: some begin after an even number of blocks, some after an odd one, so
/// that a bag alone has another place in its pair of blocks than in the batch.
const PAIRED: &[usize] = &[150, 2, 150, 21, 0, 9, 30];

const SHAPES: [Shape; 3] = [
    Shape {
        d: 72,
        hidden: 130,
        gated: true,
    },
    Shape {
        d: 37,
        hidden: 19,
        gated: false,
    },
    Shape {
        d: 136,
        hidden: 5,
        gated: true,
    },
];

/// Half features: the bound of the work order. f32: split in three products.
fn allowed(dtype: Dtype) -> f64 {
    if dtype == Dtype::F32 { 1e-5 } else { 1e-2 }
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
                for bag in 0..case.bags.len() {
                    let weights = &got.weights[case.bags.rows(bag)];
                    let squares: f64 = weights.iter().map(|&w| f64::from(w).powi(2)).sum();
                    let apart = (squares - f64::from(got.squares[bag])).abs();
                    assert!(apart <= 1e-5, "bag {bag}: another sum of squares");
                }
                all.extend(got.bits());
            }
        }
    }
    let hash = all.iter().fold(0u64, |hash, &bits| {
        (hash ^ u64::from(bits)).wrapping_mul(0x100_0000_01b3)
    });
    say("bits", format!("{hash:016x}"));
}

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
        assert_eq!(with.weights[row], 0.0);
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
fn case_too_old() {
    if emulated::inside() {
        let case = Case::random(5, SHAPES[1], &[3], Dtype::F32);
        let error = case.try_forward(&device(), SQUARED, 3).unwrap_err();
        assert!(matches!(error.cause, Cause::Unsupported { .. }), "{error}");
    }
}

fn backward_of(device: &Stream, rules: &[Rule], shape: Shape, lengths: &[usize], dtype: Dtype) {
    backward_within(allowed(dtype), device, rules, shape, lengths, dtype);
}

/// As above, with another bound for the head's gradients.
fn backward_within(
    bound: f64,
    device: &Stream,
    rules: &[Rule],
    shape: Shape,
    lengths: &[usize],
    dtype: Dtype,
) {
    for (seed, &rule) in rules.iter().enumerate() {
        let case = Case::random(70 + seed as u64, shape, lengths, dtype);
        let dz = case.random_gradient();
        let dw = (seed % 2 == 0).then(|| case.random_weights_gradient());
        let truth = Truth::new(&case, rule, &dz, dw.as_deref());
        let got = case.backward(device, rule, &dz, dw.as_deref(), true, false);
        let apart = truth.gradients(&got);
        say("apart", format!("{dtype} {rule:?} {shape:?} {apart:?}"));
        for (name, apart) in apart {
            // Of the features' gradient each is rounded to the features' type.
            let bound = if name == "features" {
                allowed(dtype)
            } else {
                bound
            };
            assert!(
                apart <= bound,
                "far from f64: {rule:?} {shape:?} {dtype}: {name} {apart:e}"
            );
        }
        let hash = got.bits().iter().fold(0u64, |hash, &bits| {
            (hash ^ u64::from(bits)).wrapping_mul(0x100_0000_01b3)
        });
        say("bits", format!("{hash:016x}"));
    }
}

#[test]
#[ignore = "a case, run by the tests below"]
fn case_backward() {
    if emulated::inside() {
        let rules = [SQUARED, rule(Normalisation::Softmax, Link::None)];
        backward_of(&device(), &rules, SHAPES[1], &[131, 0, 1, 21], Dtype::F32);
        backward_of(
            &device(),
            &rules[..1],
            SHAPES[2],
            &[131, 0, 1, 21],
            Dtype::Bf16,
        );
        backward_of(&device(), &rules[..1], SHAPES[2], &[5, 20], Dtype::F16);
    }
}

#[test]
#[ignore = "a case, run by the tests below"]
fn case_backward_small() {
    if emulated::inside() {
        backward_of(&device(), &[SQUARED], SHAPES[2], &[21], Dtype::Bf16);
    }
}

/// More items than a range of the launcher has (128 of a head of one chunk), of one step and of several.
#[test]
#[ignore = "a case, run by the tests below"]
fn case_backward_ranges() {
    if emulated::inside() {
        let shape = Shape {
            d: 8,
            hidden: 4,
            gated: true,
        };
        let lengths: Vec<usize> = (0..300).map(|bag| [1, 40, 2, 100][bag % 4]).collect();
        // Of so many rows the terms cancel: one item's rows for another's are 7e-7 of the terms' sizes, roundings 5e-9.
        backward_within(1e-7, &device(), &[SQUARED], shape, &lengths, Dtype::Bf16);
    }
}

#[test]
#[ignore = "a case, run by the tests below"]
fn case_backward_refused() {
    if !emulated::inside() {
        return;
    }
    let shape = Shape {
        d: 24,
        hidden: 8,
        gated: true,
    };
    let case = Case::random(3, shape, &[40, 9], Dtype::F32).with_row(3, f32::NAN, true);
    let dz = case.random_gradient();
    let got = case.backward(&device(), SQUARED, &dz, None, true, false);
    assert!(got.all_finite(), "a refused row leaves a trace");
    assert!(got.features[3 * 24..4 * 24].iter().all(|&g| g == 0.0));
}

/// A device of this capability, whose threads run in the order of `seed`.
fn machine(capability: (u32, u32), seed: u64, late: bool) -> Setting {
    Setting {
        capability,
        seed,
        late,
        lazy: seed == 2,
        workers: 2,
        multiprocessors: if seed == 1 { 1 } else { 132 },
        ..Setting::default()
    }
}

fn same_bits(variant: Variant, capability: (u32, u32), case: &str) {
    let bits = [(0, true), (1, false), (2, true)].map(|(seed, late)| {
        let outcome = run(variant, &machine(capability, seed, late), case).passed();
        println!("{case}: {} {}", outcome.said("apart"), outcome.said("bits"));
        outcome.said("bits")
    });
    assert!(bits[0] == bits[1] && bits[1] == bits[2], "{bits:?}");
}

#[test]
fn mma_is_within_its_bound_of_f64_with_the_same_bits_in_any_order() {
    same_bits(PLAIN, (8, 0), "case_halves");
    same_bits(PLAIN, (8, 0), "case_f32");
    run(PLAIN, &machine((8, 0), 3, true), "case_rules").passed();
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
    same_bits(PLAIN, (9, 0), "case_halves");
    same_bits(PLAIN, (9, 0), "case_wide");
    run(PLAIN, &machine((9, 0), 3, true), "case_rules").passed();
}

#[test]
fn wgmma_touches_only_its_own_memory() {
    run(SANITIZED, &machine((9, 0), 0, true), "case_small").passed();
}

#[test]
fn backward_is_within_its_bound_of_f64_with_the_same_bits_in_any_order() {
    same_bits(PLAIN, (8, 0), "case_backward");
    run(PLAIN, &machine((9, 0), 1, true), "case_backward_small").passed();
    run(PLAIN, &machine((8, 0), 0, true), "case_backward_ranges").passed();
    run(PLAIN, &machine((8, 0), 0, true), "case_backward_refused").passed();
}

#[test]
fn backward_touches_only_its_own_memory() {
    run(SANITIZED, &machine((8, 0), 0, true), "case_backward_small").passed();
}

#[test]
fn refused_rows_leave_no_trace_and_a_bag_without_a_sum_is_uniform() {
    run(PLAIN, &machine((8, 0), 0, true), "case_refused_and_uniform").passed();
}

#[test]
fn a_bag_alone_has_the_bits_that_it_has_in_a_batch() {
    run(PLAIN, &machine((8, 0), 0, true), "case_alone").passed();
    for seed in [0, 3] {
        run(PLAIN, &machine((9, 0), seed, true), "case_alone_in_pairs").passed();
    }
}

#[test]
fn mma_touches_only_its_own_memory() {
    run(SANITIZED, &machine((8, 0), 0, true), "case_small").passed();
}

#[test]
fn a_device_without_these_products_says_so() {
    run(PLAIN, &machine((7, 5), 0, true), "case_too_old").passed();
}

#[test]
fn planted_bugs_in_the_products_are_seen() {
    const BUGS: [(Patch, (u32, u32), &str, &str); 14] = [
        // A stage read before its copies are there.
        (
            Patch {
                file: "cuda/gated_product.cuh",
                find: "cp_async_wait<STAGES - 2>();",
                put: "cp_async_wait<STAGES - 1>();",
            },
            (8, 0),
            "case_small",
            "is no number",
        ),
        // A copy into a stage that is still read, of a step too far.
        (
            Patch {
                file: "cuda/gated_product.cuh",
                find: "load(i + STAGES - 1);",
                put: "load(i + STAGES);",
            },
            (8, 0),
            "case_small",
            "is no number",
        ),
        // V's bias for U.
        (
            Patch {
                file: "cuda/gated_mma.cu",
                find: "u0 = bias[HALF_CHUNK + l]",
                put: "u0 = bias[l]",
            },
            (8, 0),
            "case_small",
            "far from f64",
        ),
        // A stage given back while the product still reads it.
        (
            Patch {
                file: "cuda/gated_wgmma.cu",
                find: "release(i - 1);",
                put: "release(i);",
            },
            (9, 0),
            "case_wide",
            "DEADLOCK",
        ),
        // The first half of the head by both blocks of the pair, so that nobody fetches the second.
        (
            Patch {
                file: "cuda/gated_wgmma.cu",
                find: "const u32 half = rank * (COLUMNS_BYTES / 2);",
                put: "const u32 half = 0;",
            },
            (9, 0),
            "case_small",
            "is no number",
        ),
        // The other block's half of the matrix, into the own half of the ring.
        (
            Patch {
                file: "cuda/gated_wgmma.cu",
                find: "matrix + (u64)i * COLUMNS_BYTES + half,",
                put: "matrix + (u64)i * COLUMNS_BYTES + (1 - rank) * (COLUMNS_BYTES / 2),",
            },
            (9, 0),
            "case_small",
            "far from f64",
        ),
        // The bag's items merged by a block that is not the last.
        (
            Patch {
                file: "cuda/gated.cuh",
                find: "return *word == blocks - 1;",
                put: "return *word == 0;",
            },
            (8, 0),
            "case_f32",
            "",
        ),
        // A bag's items counted, and the count left as it is.
        (
            Patch {
                file: "cuda/gated.cuh",
                find: "if (before == blocks - 1) *count = 0;",
                put: "",
            },
            (8, 0),
            "case_f32",
            "another sum of squares",
        ),
        // The ring's turn forgotten.
        (
            Patch {
                file: "cuda/gated_wgmma.cu",
                find: "mbarrier_wait(full + i % stages, (i / stages) & 1);",
                put: "mbarrier_wait(full + i % stages, 1);",
            },
            (9, 0),
            "case_small",
            "before the copy was waited for",
        ),
        // A refused row's features in a product.
        (
            Patch {
                file: "cuda/gated_backward.cu",
                find: "const bool in = t < it.rows && !refused[row];",
                put: "const bool in = t < it.rows;",
            },
            (8, 0),
            "case_backward_refused",
            "leaves a trace",
        ),
        // Steps of the gradients' products multiplied before their copies are there.
        (
            Patch {
                file: "cuda/gated_backward.cu",
                find: "cp_async_wait<LAYERS_STAGES - 2>();",
                put: "cp_async_wait<LAYERS_STAGES - 1>();",
            },
            (8, 0),
            "case_backward_small",
            "is no number",
        ),
        (
            Patch {
                file: "cuda/gated_backward.cu",
                find: "cp_async_wait<ROWS_STAGES - 2>();",
                put: "cp_async_wait<ROWS_STAGES - 1>();",
            },
            (8, 0),
            "case_backward_small",
            "is no number",
        ),
        // The features of an item by the places of the item before.
        (
            Patch {
                file: "cuda/gated_backward.cu",
                find: "turn ^= 1;",
                put: "",
            },
            (8, 0),
            "case_backward_ranges",
            "far from f64",
        ),
        // The sums of the ranges before forgotten.
        (
            Patch {
                file: "cuda/gated_backward.cu",
                find: "if (again) {",
                put: "if (false) {",
            },
            (8, 0),
            "case_backward_ranges",
            "far from f64",
        ),
    ];
    for (bug, capability, case, report) in BUGS {
        let variant = PLAIN.patched(Box::leak(vec![bug].into_boxed_slice()));
        run(variant, &machine(capability, 3, true), case).failed_with(report);
    }
}
