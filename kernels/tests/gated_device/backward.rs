//! Backward against f64, with the forward pass's results of the same device.

use super::case::{Case, Gradients, Shape};
use super::emulated::{self, PLAIN, SANITIZED, Setting, run, say};
use super::truth::Truth;
use super::{SHAPES, SQUARED, device, machine, rule, same_bits};
use weir_kernels::cuda::stream::Stream;
use weir_kernels::normalise::{Link, Normalisation};
use weir_kernels::{Cpu, Dtype, Rule};

/// What the head's gradients may be apart: truth.rs reckons with what each logit's error could do, so they lie far below what
/// is promised (1e-5 and 1e-2), under which the wrong chunk of a head would pass.
fn close(dtype: Dtype) -> f64 {
    if dtype == Dtype::F32 { 1e-7 } else { 1e-4 }
}

/// Of the features' gradient each is rounded to the features' type.
fn rounded(dtype: Dtype) -> f64 {
    match dtype {
        Dtype::F32 => 1e-6,
        Dtype::F16 => 6e-4,
        _ => 4e-3,
    }
}

fn backward_of(device: &Stream, rules: &[Rule], shape: Shape, lengths: &[usize], dtype: Dtype) {
    backward_within(close(dtype), device, rules, shape, lengths, dtype);
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
        let got = case.backward(device, rule, &dz, dw.as_deref(), true, false);
        near_f64(bound, &case, rule, &dz, dw.as_deref(), &got);
    }
}

fn near_f64(bound: f64, case: &Case, rule: Rule, dz: &[f32], dw: Option<&[f32]>, got: &Gradients) {
    let (shape, dtype) = (case.shape, case.dtype());
    let apart = Truth::new(case, rule, dz, dw).gradients(got);
    say("apart", format!("{dtype} {rule:?} {shape:?} {apart:?}"));
    for (name, apart) in apart {
        let bound = match name {
            "features" => rounded(dtype),
            _ => bound,
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

/// Rows that no 16 bytes divide, of f32 and of f16.
#[test]
#[ignore = "a case, run by the tests below"]
fn case_backward_elements() {
    if emulated::inside() {
        for dtype in [Dtype::F32, Dtype::F16] {
            backward_of(&device(), &[SQUARED], SHAPES[1], &[3, 21], dtype);
        }
    }
}

/// More hidden units than a chunk of the head has, more components than a tile of a layer and than a block that gathers: a
/// part of each is left over.
#[test]
#[ignore = "a case, run by the tests below"]
fn case_backward_chunks() {
    if emulated::inside() {
        let shape = Shape {
            d: 264,
            hidden: 150,
            gated: true,
        };
        backward_of(&device(), &[SQUARED], shape, &[21, 0, 131], Dtype::Bf16);
    }
}

/// The same without a gate, whose chunks have twice as many units.
#[test]
#[ignore = "a case, run by the tests below"]
fn case_backward_plain_chunks() {
    if emulated::inside() {
        let shape = Shape {
            d: 9,
            hidden: 260,
            gated: false,
        };
        backward_of(&device(), &[SQUARED], shape, &[21], Dtype::F32);
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

/// A range and an item of the next, after the processor's forward pass.
#[test]
#[ignore = "a case, run by the tests below"]
fn case_backward_two_ranges() {
    if !emulated::inside() {
        return;
    }
    let shape = Shape {
        d: 5,
        hidden: 3,
        gated: false,
    };
    // Every ninth row is masked, and here a bag.
    let case = Case::random(70, shape, &[1; 146], Dtype::Bf16);
    assert_eq!(case.bags.items().len(), 129 + 1);
    let (device, dz) = (device(), case.random_gradient());
    let state = case.forward(&Cpu::new(1).unwrap(), SQUARED, None);
    let got = case.backward_from(&state, &device, SQUARED, &dz, None, true, None);
    near_f64(close(Dtype::Bf16), &case, SQUARED, &dz, None, &got);
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

#[test]
#[ignore = "a case, run by the tests below"]
fn case_backward_alone() {
    if !emulated::inside() {
        return;
    }
    for (shape, dtype) in [(SHAPES[1], Dtype::F32), (SHAPES[2], Dtype::Bf16)] {
        let lengths = [131, 0, 1, 21];
        let (case, d) = (Case::random(7, shape, &lengths, dtype), shape.d);
        let dz = case.random_gradient();
        let batch = case.backward(&device(), SQUARED, &dz, None, true, false);
        for bag in 0..lengths.len() {
            let own = &dz[bag * d..(bag + 1) * d];
            let alone = case
                .alone(bag)
                .backward(&device(), SQUARED, own, None, true, false);
            let rows = case.bags.rows(bag);
            let there = &batch.features[rows.start * d..rows.end * d];
            let same = alone
                .features
                .iter()
                .zip(there)
                .all(|(alone, there)| alone.to_bits() == there.to_bits());
            assert!(
                same && alone.features.len() == there.len(),
                "bag {bag} alone differs"
            );
        }
    }
}

/// The head's gradient is a sum over all bags; that by the features is each bag's own.
#[test]
fn the_features_gradient_of_a_bag_alone_has_the_bits_that_it_has_in_a_batch() {
    for capability in [(8, 0), (9, 0)] {
        let setting = machine(capability, 0, true);
        run(PLAIN, &setting, "backward::case_backward_alone").passed();
    }
}

#[test]
fn backward_is_within_its_bound_of_f64_with_the_same_bits_in_any_order() {
    same_bits(PLAIN, (8, 0), "backward::case_backward");
    for (capability, seed, case) in [
        ((9, 0), 1, "backward::case_backward_small"),
        ((8, 0), 0, "backward::case_backward_ranges"),
        ((8, 0), 0, "backward::case_backward_refused"),
        ((8, 0), 3, "backward::case_backward_chunks"),
        ((8, 0), 1, "backward::case_backward_plain_chunks"),
    ] {
        run(PLAIN, &machine(capability, seed, true), case).passed();
    }
}

/// Whole pieces of bf16 and elements of f32, a plain head, and more items than a range has.
#[test]
fn backward_touches_only_its_own_memory() {
    for case in ["small", "elements", "two_ranges"] {
        let case = format!("backward::case_backward_{case}");
        let setting = Setting {
            patience: 300,
            ..machine((8, 0), 0, true)
        };
        run(SANITIZED, &setting, &case).passed();
    }
}
