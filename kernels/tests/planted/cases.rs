//! Each kernel on small ragged input, against the processor's bits.

use crate::bags::{Case, Odd, Type, pooled, weights};
use crate::emulated::{gpu, inside};
use weir_kernels::cuda::stream::Stream;
use weir_kernels::kernels::{Ends, Kernels, Rule, TileForm, TopKOut};
use weir_kernels::normalise::{Link, Normalisation};
use weir_kernels::view::Element;
use weir_kernels::{Bags, Cpu, View, ViewMut};

/// The emulated device, whose driver holds the kernels itself, and the processor.
fn both() -> (Stream, Cpu) {
    (
        gpu().stream().expect("a stream"),
        Cpu::new(1).expect("one thread"),
    )
}

/// Bags: empty, of one member, small, of several items and slices; an odd one last.
const OFFSETS: [usize; 7] = [0, 0, 1, 41, 341, 4500, 4787];
const ROWS: usize = OFFSETS[6];

fn numbers(count: usize) -> Vec<f32> {
    let mut state = 1_u32;
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / 8_388_608.0 - 1.0
        })
        .collect()
}

#[track_caller]
fn same<T: PartialEq>(what: &str, device: &[T], processor: &[T]) {
    let wrong = device.iter().zip(processor).position(|(a, b)| a != b);
    assert!(
        wrong.is_none(),
        "{what} is not the processor's: first at {wrong:?}"
    );
}

/// Empty, small, of several items, and an odd one last; whole pieces and single elements; masked rows full of NaN.
#[test]
#[ignore = "a case"]
fn case_pool() {
    if !inside() {
        return;
    }
    let (stream, cpu) = both();
    let rule = Rule {
        normalisation: Normalisation::SquaredAverage,
        link: Link::None,
    };
    for (width, kind, masked) in [
        (40, Type::Bf16, false),
        (36, Type::F32, true),
        (37, Type::F32, false),
    ] {
        // Rows side by side, so that the last ends where the memory does.
        let case = (0..)
            .map(|seed| Case::with(seed, &[0, 5, 530, 77], width, kind, masked, &[Odd::Nothing]))
            .find(|case| case.stride == width)
            .expect("most strides are the width");
        for again in 0..2 {
            let (device, processor) = (pooled(&stream, &case, rule), pooled(&cpu, &case, rule));
            assert!(
                device == processor,
                "the pool of width {width} is not the processor's, pass {again}"
            );
            let (device, processor) = (weights(&stream, &case, rule), weights(&cpu, &case, rule));
            assert!(
                device == processor,
                "a weight is not the processor's, pass {again}"
            );
        }
    }
}

#[test]
#[ignore = "a case"]
fn case_top_k() {
    if !inside() {
        return;
    }
    let (stream, cpu) = both();
    let mut scores = numbers(ROWS);
    let mask: Vec<bool> = (0..ROWS).map(|row| row % 11 != 5).collect();
    for (score, member) in scores.iter_mut().zip(&mask) {
        if !member {
            *score = f32::INFINITY;
        }
    }
    let bags = Bags::new(&OFFSETS, Some(&mask)).expect("bags");
    let ends = Ends {
        highest: 9,
        lowest: 5,
    };
    let select = |kernels: &dyn Kernels| {
        let n = bags.len();
        let (mut highest, mut lowest, mut nans) =
            (vec![-7; n * 9], vec![-7; n * 5], vec![7_u32; n]);
        let out = TopKOut {
            highest: ViewMut::new(&mut highest, [n, 9]).expect("a view"),
            lowest: ViewMut::new(&mut lowest, [n, 5]).expect("a view"),
            nans: ViewMut::new(&mut nans, [n]).expect("a view"),
        };
        let scores = View::new(&scores, [ROWS]).expect("a view");
        kernels
            .top_k(&bags, ends, scores, out)
            .expect("a selection");
        (highest, lowest, nans)
    };
    let (device, processor) = (select(&stream), select(&cpu));
    same("the highest", &device.0, &processor.0);
    same("the lowest", &device.1, &processor.1);
    same("the number of NaNs", &device.2, &processor.2);
}

#[test]
#[ignore = "a case"]
fn case_tiles() {
    if !inside() {
        return;
    }
    let (stream, cpu) = both();
    const SHAPE: [usize; 4] = [3, 7, 48, 3];
    let bytes: Vec<u8> = (0..SHAPE.iter().product::<usize>())
        .map(|i| (i * 37 % 251) as u8)
        .collect();
    let form = TileForm::new([0.7, 0.6, 0.5], [0.2, 0.25, 0.3]);
    fn make<T: Element>(kernels: &dyn Kernels, bytes: &[u8], form: TileForm, zero: T) -> Vec<T> {
        let mut numbers = vec![zero; bytes.len()];
        let tiles = View::new(bytes, SHAPE).expect("a view");
        let out = ViewMut::new(&mut numbers, [3, 3, 7, 48]).expect("a view");
        kernels.normalise_tiles(tiles, form, out).expect("tiles");
        numbers
    }
    let zero = half::f16::ZERO;
    same(
        "a tile in f16",
        &make(&stream, &bytes, form, zero),
        &make(&cpu, &bytes, form, zero),
    );
    same(
        "a tile in f32",
        &make(&stream, &bytes, form, 0.0_f32),
        &make(&cpu, &bytes, form, 0.0),
    );
}
