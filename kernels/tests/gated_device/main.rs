//! (c) on the emulated device, against f64: what `gated` holds the processor to, of small shapes.
#![allow(clippy::unwrap_used)]

mod backward;
#[path = "../gated/case.rs"]
#[allow(dead_code)]
mod case;
#[path = "../gated/domain.rs"]
mod domain;
#[path = "../emulated/mod.rs"]
mod emulated;
mod forward;
mod kind;
mod planted;
#[path = "../gated/truth.rs"]
#[allow(dead_code)]
mod truth;

use case::Shape;
use emulated::{Setting, Variant, run};
use weir_kernels::cuda::stream::Stream;
use weir_kernels::cuda::{Gpu, Options};
use weir_kernels::normalise::{Link, Normalisation};
use weir_kernels::{Dtype, Rule};

/// The emulated device, with scratch of its own for each launch.
fn device() -> Stream {
    let options = Options {
        separate_scratch: true,
        ..emulated::options()
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

/// Half features: the bound of `fused/1`. f32: split in three products.
fn allowed(dtype: Dtype) -> f64 {
    if dtype == Dtype::F32 { 1e-5 } else { 1e-2 }
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
        let bits = outcome.said("bits");
        println!("{case}: {} {bits}", outcome.said("apart"));
        bits
    });
    assert!(bits[0] == bits[1] && bits[1] == bits[2], "{bits:?}");
}
