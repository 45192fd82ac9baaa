//! (e) on the emulated device: the twin's numbers, and nothing else is touched.

use super::emulated::{self, PLAIN, Patch, SANITIZED, Setting, run};
use super::{Case, bytes};
use half::{bf16, f16};
use weir_kernels::kernels::TileForm;
use weir_kernels::view::{Dtype, Layout};
use weir_kernels::{Cpu, Kernels, View, ViewMut};

const LIKE: TileForm = TileForm {
    scale: [0.017, 0.0175, -0.0174],
    shift: [-2.1, 1.3, f32::MIN_POSITIVE],
    channels: [2, 0, 1],
    corner: [0, 0],
    flip: false,
};

fn every_type(case: &Case) {
    let stream = emulated::gpu().stream().unwrap();
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
    let gpu = emulated::gpu();
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
        for case in [
            "device::case_units",
            "device::case_pixels",
            "device::case_on_the_device",
        ] {
            run(PLAIN, &setting, case).passed();
        }
    }
}

#[test]
fn normalisation_touches_only_its_own_memory() {
    for case in [
        "device::case_units",
        "device::case_pixels",
        "device::case_on_the_device",
    ] {
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
            "device::case_units",
        ),
        // A flip that turns units but not their pixels.
        (
            Patch {
                file: "cuda/tiles.cu",
                find: "(FLIP ? PIXELS - 1 - p : p)",
                put: "(p)",
            },
            "device::case_units",
        ),
        // Units past the end of the last warp.
        (
            Patch {
                file: "cuda/tiles.cu",
                find: "        if (of >= here) continue;\n",
                put: "",
            },
            "device::case_units",
        ),
        // A mirrored row that begins a pixel too far.
        (
            Patch {
                file: "cuda/tiles.cu",
                find: "flip ? width - 1 - x : x",
                put: "flip ? width - x : x",
            },
            "device::case_pixels",
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
