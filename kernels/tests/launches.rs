//! What every launch asks of a multiprocessor, seen at the launch itself: the launchers run on the emulated device, and the threads
//! and the dynamic shared memory of each kernel are those of `ptx/launches.toml`. With what the compilers say of the same
//! kernels (`ptx/resources.toml`) each launch fits on each architecture.
//! `make kernels` (WEIR_WRITE_PTX=1) writes the page instead of holding it.
#![allow(clippy::unwrap_used)]

mod bags;
#[path = "emulated/mod.rs"]
mod emulated;
#[path = "gated/case.rs"]
#[allow(dead_code)]
mod gated;

use emulated::{PLAIN, Setting, run, say};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use weir_kernels::cuda::stream::Stream;
use weir_kernels::kernels::{Ends, TileForm, TopKOut};
use weir_kernels::normalise::{Link, Normalisation};
use weir_kernels::{Bags, Dtype, Kernels, Rule, View, ViewMut};

const SQUARED: Rule = Rule {
    normalisation: Normalisation::SquaredAverage,
    link: Link::None,
};

/// It has a pass of its own for the greatest logit.
const SOFTMAX: Rule = Rule {
    normalisation: Normalisation::Softmax,
    link: Link::None,
};

/// Kernel, shape, what one launch of it asked for.
type Asked = BTreeMap<(String, String), Launch>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Launch {
    /// Of a block.
    threads: u32,
    /// Dynamic shared memory of a block, bytes.
    dynamic: u32,
}

fn ptx_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("ptx")
}

/// Says what the kernels that `work` launches were launched with.
fn launches(shape: &str, work: impl FnOnce(&Stream)) {
    let stream = emulated::gpu().stream().unwrap();
    work(&stream);
    for function in stream.gpu().functions() {
        let grid = function.launched().last.unwrap();
        let threads: u32 = grid.threads.iter().product();
        let key = format!("launch of {shape}: {}", function.name());
        say(&key, format!("{threads} {}", grid.shared));
    }
}

#[test]
#[ignore = "a case, run by the tests below"]
fn case_weights_pool_selection_and_tiles() {
    if !emulated::inside() {
        return;
    }
    for kind in [bags::Type::F32, bags::Type::F16, bags::Type::Bf16] {
        // Whole units; a list of members; rows that no 16 bytes divide.
        for (width, masked) in [(1024, false), (1024, true), (1023, false)] {
            launches(&format!("D {width}"), |stream| {
                let case =
                    bags::Case::with(1, &[130, 1], width, kind, masked, &[bags::Odd::Nothing]);
                bags::weights(stream, &case, SQUARED);
                bags::weights_slopes(stream, &case, SQUARED);
                bags::pooled(stream, &case, SQUARED);
                bags::pooled(stream, &case, SOFTMAX);
                bags::slopes(stream, &case, SQUARED, true);
            });
        }
    }
    launches("m 16", |stream| {
        let (mut highest, mut lowest, mut nans) = ([0i32; 16], [0i32; 16], [0u32]);
        let scores: Vec<f32> = (0..20_000u32).map(|row| (row % 977) as f32).collect();
        let out = TopKOut {
            highest: ViewMut::new(&mut highest, [1, 16]).unwrap(),
            lowest: ViewMut::new(&mut lowest, [1, 16]).unwrap(),
            nans: ViewMut::new(&mut nans, [1]).unwrap(),
        };
        let (bags, ends) = (
            Bags::one(scores.len()).unwrap(),
            Ends {
                highest: 16,
                lowest: 16,
            },
        );
        let scores = View::new(&scores, [20_000]).unwrap();
        stream.top_k(&bags, ends, scores, out).unwrap();
    });
    for side in [224, 15] {
        launches(&format!("{side} x {side} px"), |stream| {
            let form = TileForm {
                scale: [1.0; 3],
                shift: [0.0; 3],
                channels: [0, 1, 2],
                corner: [0, 0],
                flip: false,
            };
            let pixels = vec![7u8; side * side * 3];
            let tiles = || View::new(&pixels, [1, side, side, 3]).unwrap();
            let shape = [1, 3, side, side];
            let mut out = vec![0f32; side * side * 3];
            let to = ViewMut::new(&mut out, shape).unwrap();
            stream.normalise_tiles(tiles(), form, to).unwrap();
            let mut out = vec![half::f16::ZERO; side * side * 3];
            let to = ViewMut::new(&mut out, shape).unwrap();
            stream.normalise_tiles(tiles(), form, to).unwrap();
            let mut out = vec![half::bf16::ZERO; side * side * 3];
            let to = ViewMut::new(&mut out, shape).unwrap();
            stream.normalise_tiles(tiles(), form, to).unwrap();
        });
    }
}

#[test]
#[ignore = "a case, run by the tests below"]
fn case_gated() {
    if !emulated::inside() {
        return;
    }
    for d in [512, 1024] {
        for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
            launches(&format!("D {d}, L 256"), |stream| {
                let shape = gated::Shape {
                    d,
                    hidden: 256,
                    gated: true,
                };
                let case = gated::Case::random(1, shape, &[3], dtype);
                let gradient = case.random_gradient();
                case.backward(stream, SQUARED, &gradient, None, true, false);
            });
        }
    }
}

fn seen() -> Asked {
    let mut seen = Asked::new();
    for (capability, case) in [
        ((9, 0), "case_weights_pool_selection_and_tiles"),
        ((8, 0), "case_gated"),
        ((9, 0), "case_gated"),
    ] {
        let setting = Setting {
            capability,
            workers: 2,
            ..Setting::default()
        };
        let outcome = run(PLAIN, &setting, case).passed();
        for line in outcome.output.lines() {
            let Some((_, of)) = line.split_once("launch of ") else {
                continue;
            };
            let (shape, of) = of.split_once(": ").unwrap();
            let (kernel, asked) = of.split_once(": ").unwrap();
            let (threads, dynamic) = asked.split_once(' ').unwrap();
            let launch = Launch {
                threads: threads.parse().unwrap(),
                dynamic: dynamic.parse().unwrap(),
            };
            let before = seen.insert((kernel.into(), shape.into()), launch);
            assert!(
                before.is_none_or(|before| before == launch),
                "{kernel} at {shape}: {before:?}, then {launch:?}"
            );
        }
    }
    seen
}

fn page(seen: &Asked) -> String {
    let mut text = String::from(
        "# What each kernel is launched with, by shape: threads a block, and dynamic shared memory a block in bytes (the static part is in\n# resources.toml). `make kernels` writes this page; `make test` refuses what differs from it.\n",
    );
    let mut last = "";
    for ((kernel, shape), launch) in seen {
        if kernel != last {
            text += &format!("\n[{kernel}]\n");
            last = kernel;
        }
        text += &format!(
            "\"{shape}\" = {{ threads = {}, dynamic = {} }}\n",
            launch.threads, launch.dynamic
        );
    }
    text
}

#[test]
fn every_launch_asks_for_the_threads_and_the_shared_memory_that_the_page_says() {
    let path = ptx_folder().join("launches.toml");
    let page = page(&seen());
    if std::env::var_os("WEIR_WRITE_PTX").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    let (stale, new): (Vec<&str>, Vec<&str>) = (
        there.lines().filter(|line| !page.contains(line)).collect(),
        page.lines().filter(|line| !there.contains(line)).collect(),
    );
    assert!(
        there == page,
        "ptx/launches.toml says {stale:#?}, and the launches are {new:#?}; `make kernels` writes it anew"
    );
}

fn table(name: &str) -> toml::Table {
    let text = std::fs::read_to_string(ptx_folder().join(name)).unwrap();
    text.parse().unwrap()
}

fn number(row: &toml::Value, what: &str) -> u64 {
    row.get(what)
        .unwrap()
        .as_integer()
        .unwrap()
        .try_into()
        .unwrap()
}

/// Registers of a multiprocessor, and those that a warp's are rounded up to; most shared memory of a block, bytes (CUDA C++
/// Programming Guide, compute capabilities, 7.5 to 9.0).
const REGISTERS: u64 = 65_536;
const OF_A_WARP: u64 = 256;
const SHARED: [(&str, u64); 3] = [
    ("sm_75", 64 << 10),
    ("sm_80", 163 << 10),
    ("sm_90a", 227 << 10),
];

#[test]
fn every_launch_fits_on_every_architecture_that_its_kernel_is_made_for() {
    let (launches, resources) = (table("launches.toml"), table("resources.toml"));
    let missing: Vec<&String> = resources
        .keys()
        .filter(|kernel| !launches.contains_key(*kernel))
        .collect();
    assert!(missing.is_empty(), "no launch is known of {missing:?}");
    for (kernel, rows) in &launches {
        for (shape, launch) in rows.as_table().unwrap() {
            let (threads, dynamic) = (number(launch, "threads"), number(launch, "dynamic"));
            for (architecture, most) in SHARED {
                let Some(used) = resources[kernel].get(architecture) else {
                    continue;
                };
                let what = format!("{kernel} at {shape} on {architecture}");
                let shared = number(used, "shared") + dynamic;
                assert!(shared <= most, "{what}: {shared} of {most} bytes");
                let warp = (number(used, "registers") * 32).next_multiple_of(OF_A_WARP);
                let registers = threads.div_ceil(32) * warp;
                assert!(
                    registers <= REGISTERS,
                    "{what}: {registers} of {REGISTERS} registers"
                );
            }
        }
    }
}
