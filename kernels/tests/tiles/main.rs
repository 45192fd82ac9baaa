//! (e): each number is the byte's, whatever the pitch, crop, flip, channel order, type and threads.
#![allow(clippy::unwrap_used)]

mod device;
#[path = "../emulated/mod.rs"]
mod emulated;

use half::{bf16, f16};
use proptest::prelude::*;
use weir_kernels::kernels::TileForm;
use weir_kernels::view::{Element, dense};
use weir_kernels::{Cause, Cpu, KernelError, Kernels, View, ViewMut};

const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const STD: [f32; 3] = [0.229, 0.224, 0.225];

fn bytes(len: usize) -> Vec<u8> {
    (0..len as u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect()
}

/// How tiles lie and what is taken of them.
#[derive(Clone, Debug)]
struct Case {
    count: usize,
    shape: [usize; 2],
    /// Unused bytes before the first, after each pixel, row and tile.
    gaps: [usize; 4],
    taken: [usize; 2],
    /// Unused numbers before the first, after each row, plane and tile, and between neighbours.
    spaces: [usize; 5],
    form: TileForm,
}

fn case() -> impl Strategy<Value = Case> {
    let width = prop_oneof![1usize..80, Just(16usize), Just(64)];
    (
        (0usize..4, 1usize..9, width, any::<bool>()),
        prop::array::uniform4(prop_oneof![3 => Just(0usize), 1 => 0usize..20]),
        prop::array::uniform5(prop_oneof![3 => Just(0usize), 1 => 0usize..20]),
        (any::<prop::sample::Index>(), any::<prop::sample::Index>()),
        prop::array::uniform3(0u8..3),
        any::<bool>(),
    )
        .prop_map(
            |((count, height, width, whole), gaps, mut spaces, part, channels, flip)| {
                spaces[4] %= 2;
                let corner = if whole {
                    [0, 0]
                } else {
                    [part.0.index(height), part.1.index(width)]
                };
                Case {
                    count,
                    shape: [height, width],
                    gaps,
                    taken: [height - corner[0], width - corner[1]],
                    spaces,
                    form: TileForm {
                        channels,
                        corner,
                        flip,
                        ..TileForm::new(MEAN, STD)
                    },
                }
            },
        )
}

impl Case {
    fn strides(&self) -> [usize; 4] {
        let pixel = 3 + self.gaps[1];
        let row = self.shape[1] * pixel + self.gaps[2];
        [self.shape[0] * row + self.gaps[3], row, pixel, 1]
    }

    fn out_strides(&self) -> [usize; 4] {
        let step = 1 + self.spaces[4];
        let row = self.taken[1] * step + self.spaces[1];
        let plane = self.taken[0] * row + self.spaces[2];
        [3 * plane + self.spaces[3], plane, row, step]
    }

    /// Runs the kernel; what it must leave alone holds `paint` before and is looked at.
    fn run<T: Element + PartialEq>(&self, kernels: &dyn Kernels, of: fn(f32) -> T, paint: T) {
        let [height, width] = self.shape;
        let strides = self.strides();
        let input = bytes(self.gaps[0] + self.count * strides[0]);
        let tiles = View::strided(
            &input[self.gaps[0]..],
            [self.count, height, width, 3],
            strides,
        );
        let [h, w] = self.taken;
        let to = self.out_strides();
        let mut got = vec![paint; self.spaces[0] + self.count * to[0]];
        let mut expected = got.clone();
        let out = ViewMut::strided(&mut got[self.spaces[0]..], [self.count, 3, h, w], to);
        kernels
            .normalise_tiles(tiles.unwrap(), self.form, out.unwrap())
            .unwrap();
        for tile in 0..self.count {
            for c in 0..3 {
                for y in 0..h {
                    for x in 0..w {
                        let column =
                            self.form.corner[1] + if self.form.flip { w - 1 - x } else { x };
                        let at = tile * strides[0]
                            + (self.form.corner[0] + y) * strides[1]
                            + column * strides[2]
                            + usize::from(self.form.channels[c]);
                        let product = f32::from(input[self.gaps[0] + at]) * self.form.scale[c];
                        let place = tile * to[0] + c * to[1] + y * to[2] + x * to[3];
                        expected[self.spaces[0] + place] = of(product + self.form.shift[c]);
                    }
                }
            }
        }
        assert!(got == expected, "{self:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn numbers_are_a_plain_loops_and_nothing_else_is_written(case in case(), threads in 1usize..3) {
        let cpu = Cpu::new(threads).unwrap();
        case.run(&cpu, |x| x, f32::MAX);
        case.run(&cpu, f16::from_f32, f16::MAX);
        case.run(&cpu, bf16::from_f32, bf16::MAX);
    }
}

#[test]
fn a_tile_alone_is_the_tile_in_a_batch_that_threads_share() {
    let [count, size] = [3, 300];
    let input = bytes(count * size * size * 3);
    let form = TileForm::new(MEAN, STD);
    let run = |threads: usize, input: &[u8]| {
        let count = input.len() / (3 * size * size);
        let mut out = vec![0f32; input.len()];
        let tiles = View::new(input, [count, size, size, 3]).unwrap();
        let to = ViewMut::new(&mut out, [count, 3, size, size]).unwrap();
        let cpu = Cpu::new(threads).unwrap();
        cpu.normalise_tiles(tiles, form, to).unwrap();
        out
    };
    let together = run(1, &input);
    assert_eq!(together, run(2, &input));
    for (tile, out) in input
        .chunks(3 * size * size)
        .zip(together.chunks(3 * size * size))
    {
        assert_eq!(run(2, tile), out);
    }
}

#[test]
fn every_byte_rounds_to_the_nearest_of_each_type() {
    // A scale that reaches f16's subnormals, ties and infinity.
    for (scale, shift) in [
        (1.0, 0.0),
        (2.980_232_2e-8, 0.0),
        (300.0, 0.25),
        (1e36, 0.0),
        (-0.0, -0.0),
        (1.0 / 256.0, 1.0),
    ] {
        let form = TileForm {
            scale: [scale; 3],
            shift: [shift; 3],
            ..TileForm::new(MEAN, STD)
        };
        let case = Case {
            count: 1,
            shape: [16, 64],
            gaps: [0; 4],
            taken: [16, 64],
            spaces: [0; 5],
            form,
        };
        let cpu = Cpu::new(1).unwrap();
        case.run(&cpu, |x| x, f32::MIN);
        case.run(&cpu, f16::from_f32, f16::MIN);
        case.run(&cpu, bf16::from_f32, bf16::MIN);
    }
}

#[test]
fn what_cannot_be_normalised_is_refused_by_name_and_shape() {
    let input = [0u8; 4 * 4 * 3];
    let attempt = |input: View<'_, 4>, form: TileForm, shape: [usize; 4]| -> KernelError {
        let mut out = [0f32; 96];
        let out = ViewMut::strided(&mut out, shape, dense(shape)).unwrap();
        Cpu::new(1)
            .unwrap()
            .normalise_tiles(input, form, out)
            .unwrap_err()
    };
    let tiles = View::new(&input, [1, 4, 4, 3]).unwrap();
    let form = TileForm::new(MEAN, STD);
    let corner = TileForm {
        corner: [1, 2],
        ..form
    };
    assert_eq!(
        attempt(tiles, corner, [1, 3, 3, 3]).to_string(),
        "kernel `tiles` (u8[1, 4, 4, 3] from row 1, column 2 to f32[1, 3, 3, 3]): `tiles` has 4 columns, but 2 + 3 columns are needed"
    );
    assert!(matches!(
        attempt(
            tiles,
            TileForm {
                corner: [usize::MAX, 0],
                ..form
            },
            [1, 3, 1, 1]
        )
        .cause,
        Cause::Shape {
            argument: "tiles",
            ..
        }
    ));
    assert!(matches!(
        attempt(tiles, form, [2, 3, 4, 4]).cause,
        Cause::Shape {
            argument: "out",
            ..
        }
    ));
    assert!(matches!(
        attempt(View::new(&input, [1, 4, 4, 2]).unwrap(), form, [1, 3, 4, 4]).cause,
        Cause::Shape {
            argument: "tiles",
            ..
        }
    ));
    assert!(matches!(
        attempt(
            tiles,
            TileForm {
                channels: [0, 3, 1],
                ..form
            },
            [1, 3, 4, 4]
        )
        .cause,
        Cause::Limit {
            limit: 2,
            got: 3,
            ..
        }
    ));
    let flat = TileForm::new(MEAN, [0.2, 0.0, 0.2]);
    assert!(matches!(
        attempt(tiles, flat, [1, 3, 4, 4]).cause,
        Cause::Unsupported { .. }
    ));
    let numbers = [0f32; 48];
    assert!(matches!(
        attempt(
            View::new(&numbers, [1, 4, 4, 3]).unwrap(),
            form,
            [1, 3, 4, 4]
        )
        .cause,
        Cause::Dtype {
            argument: "tiles",
            ..
        }
    ));
    let mut out = [0f32; 96];
    let twice = ViewMut::strided(&mut out, [1, 3, 4, 4], [48, 16, 2, 1]).unwrap();
    let error = Cpu::new(1)
        .unwrap()
        .normalise_tiles(tiles, form, twice)
        .unwrap_err();
    assert!(matches!(
        error.cause,
        Cause::Strides {
            argument: "out",
            ..
        }
    ));
}
