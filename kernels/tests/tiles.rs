//! (e): each number is the byte's, whatever the pitch, crop, flip, channel order, type and threads.
#![allow(clippy::unwrap_used)]

use half::{bf16, f16};
use proptest::prelude::*;
use weir_kernels::kernels::TileForm;
use weir_kernels::view::{Dtype, Element, Layout, dense};
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

#[path = "emulated/mod.rs"]
mod emulated;

use emulated::{PLAIN, Patch, SANITIZED, Setting, run};
use weir_kernels::cuda::module::Images;
use weir_kernels::cuda::{Gpu, Options};

/// The emulated device: its driver has the kernels in itself, and takes any binary for them.
fn device() -> Gpu {
    let images = Images::Fixed(b"\x7fELF".to_vec());
    Gpu::open_with(
        0,
        Options {
            images,
            cache: None,
            ..Options::default()
        },
    )
    .unwrap()
}

const LIKE: TileForm = TileForm {
    scale: [0.017, 0.0175, -0.0174],
    shift: [-2.1, 1.3, f32::MIN_POSITIVE],
    channels: [2, 0, 1],
    corner: [0, 0],
    flip: false,
};

fn every_type(case: &Case) {
    let stream = device().stream().unwrap();
    case.run(&stream, |x| x, f32::MAX);
    case.run(&stream, f16::from_f32, f16::MAX);
    case.run(&stream, bf16::from_f32, bf16::MAX);
}

#[test]
#[ignore = "a case, run by the tests below"]
fn case_units() {
    if !emulated::inside() {
        return;
    }
    // Whole warps, a part of one, rows of one unit, crops at multiples of 16 pixels; the host's arrays travel dense.
    for (count, shape, corner) in [
        (3, [5, 64], [0, 0]),
        (1, [33, 16], [0, 0]),
        (2, [9, 112], [2, 48]),
        (17, [16, 32], [0, 0]),
    ] {
        for (flip, channels) in [(false, [0, 1, 2]), (true, [2, 1, 0]), (true, [1, 1, 0])] {
            let form = TileForm {
                corner,
                flip,
                channels,
                ..LIKE
            };
            let taken = [shape[0] - corner[0], shape[1] - corner[1]];
            every_type(&Case {
                count,
                shape,
                gaps: [0; 4],
                taken,
                spaces: [0; 5],
                form,
            });
        }
    }
}

#[test]
#[ignore = "a case, run by the tests below"]
fn case_pixels() {
    if !emulated::inside() {
        return;
    }
    for (count, shape, corner) in [
        (3, [5, 67], [0, 0]),
        (1, [1, 1], [0, 0]),
        (2, [31, 40], [1, 3]),
        (5, [16, 30], [0, 0]),
    ] {
        for (flip, channels) in [(false, [0, 1, 2]), (true, [2, 1, 0])] {
            let form = TileForm {
                corner,
                flip,
                channels,
                ..LIKE
            };
            let taken = [shape[0] - corner[0], shape[1] - corner[1]];
            every_type(&Case {
                count,
                shape,
                gaps: [3, 1, 5, 7],
                taken,
                spaces: [0; 5],
                form,
            });
        }
    }
}

/// Arrays that lie on the device, with pitches: of multiples of 16 bytes and not.
#[test]
#[ignore = "a case, run by the tests below"]
fn case_on_the_device() {
    if !emulated::inside() {
        return;
    }
    let gpu = device();
    let stream = gpu.stream().unwrap();
    let place = gpu.place();
    // Row pitch in bytes, first byte, pixel stride, output's row pitch and first number, flip.
    for (pitch, start, pixel, row, begin, flip) in [
        (160, 16, 3, 48, 8, false),
        (160, 16, 3, 48, 8, true),
        (161, 16, 3, 48, 8, false),
        (160, 1, 3, 48, 8, true),
        (160, 16, 3, 50, 8, false),
        (160, 16, 3, 48, 1, false),
        (224, 0, 4, 48, 0, true),
    ] {
        let (count, height, width) = (2, 3, 48);
        let form = TileForm { flip, ..LIKE };
        let input = bytes(start + count * height * pitch);
        let memory = gpu.keep(&input).unwrap();
        let plane = height * row;
        let painted = vec![f16::MAX; begin + count * 3 * plane + 8];
        let results = gpu.keep(&painted).unwrap();
        let shape = [count, height, width, 3];
        let layout = Layout {
            address: memory.span().address() + start as u64,
            dtype: Dtype::U8,
            shape,
            strides: [height * pitch, pitch, pixel, 1],
            place,
        };
        // SAFETY: the memory holds as many bytes and is not written.
        let tiles = unsafe { View::foreign(layout) };
        let layout = Layout {
            address: results.span().address() + 2 * begin as u64,
            dtype: Dtype::F16,
            shape: [count, 3, height, width],
            strides: [3 * plane, plane, row, 1],
            place,
        };
        // SAFETY: as above, and rows lie apart.
        let out = unsafe { ViewMut::foreign(layout) };
        stream.normalise_tiles(tiles, form, out).unwrap();
        let mut expected = painted.clone();
        let tiles =
            View::strided(&input[start..], shape, [height * pitch, pitch, pixel, 1]).unwrap();
        let out = ViewMut::strided(
            &mut expected[begin..],
            [count, 3, height, width],
            [3 * plane, plane, row, 1],
        );
        Cpu::new(1)
            .unwrap()
            .normalise_tiles(tiles, form, out.unwrap())
            .unwrap();
        assert!(
            results.read(&stream).unwrap() == expected,
            "pitch {pitch}, start {start}, row {row}"
        );
    }
}

#[test]
fn a_device_gives_the_twins_bits_for_any_alignment_and_order_of_threads() {
    for (seed, multiprocessors, lazy) in [(0, 132, false), (1, 1, true), (2, 16, false)] {
        let setting = Setting {
            seed,
            multiprocessors,
            lazy,
            workers: 2,
            ..Setting::default()
        };
        for case in ["case_units", "case_pixels", "case_on_the_device"] {
            run(PLAIN, &setting, case).passed();
        }
    }
}

#[test]
fn normalisation_touches_only_its_own_memory() {
    for case in ["case_units", "case_pixels", "case_on_the_device"] {
        run(SANITIZED, &Setting::default(), case).passed();
    }
}

#[test]
fn planted_bugs_in_the_normalisation_are_seen() {
    const BUGS: [(Patch, &str); 4] = [
        // Two warps that stage in the same place.
        (
            Patch {
                file: "cuda/tiles.cu",
                find: "threadIdx.x / 32 * (32 * UNIT_BYTES)",
                put: "threadIdx.x / 64 * (32 * UNIT_BYTES)",
            },
            "case_units",
        ),
        // A flip that turns units but not their pixels.
        (
            Patch {
                file: "cuda/tiles.cu",
                find: "(FLIP ? PIXELS - 1 - p : p)",
                put: "(p)",
            },
            "case_units",
        ),
        // Units past the end of the last warp.
        (
            Patch {
                file: "cuda/tiles.cu",
                find: "        if (of >= here) continue;\n",
                put: "",
            },
            "case_units",
        ),
        // A mirrored row that begins a pixel too far.
        (
            Patch {
                file: "cuda/tiles.cu",
                find: "flip ? width - 1 - x : x",
                put: "flip ? width - x : x",
            },
            "case_pixels",
        ),
    ];
    let setting = Setting {
        seed: 3,
        ..Setting::default()
    };
    for (bug, case) in &BUGS {
        // The library of a variant lives as long as the program.
        let variant = PLAIN.patched(Box::leak(vec![*bug].into_boxed_slice()));
        run(variant, &setting, case).failed_with("panicked");
    }
}
