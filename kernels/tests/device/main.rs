//! The device's layer through real cudarc, against the emulated driver: streams, events, rings, scratch memory, launches,
//! images, and what is refused before the driver is asked.
#![allow(clippy::unwrap_used)]

#[path = "../emulated/mod.rs"]
mod emulated;
mod images;
mod memory;
mod order;
mod refusals;
mod views;

use emulated::Setting;
use weir_kernels::cuda::launch::{Function, Grid};
use weir_kernels::cuda::module::Images;
use weir_kernels::cuda::sources::{Ptx, Source};
use weir_kernels::cuda::stream::Stream;
use weir_kernels::cuda::{Gpu, Options};
use weir_kernels::error::KernelError;
use weir_kernels::view::{View, ViewMut};

/// The emulator's own kernel: each block of 128 writes its elements in reverse; what is past the end counts as 0.
static BASICS: Source = Source {
    name: "basics",
    text: include_str!("../../emulator/tests/basics.cu"),
    ptx: &[Ptx {
        target: "compute_75",
        text: PTX,
    }],
};

const PTX: &str = "\
.version 8.0
.target sm_75
.address_size 64
.visible .entry emu_reverse(
	.param .u64 emu_reverse_param_0,
	.param .u64 emu_reverse_param_1,
	.param .u32 emu_reverse_param_2
)
{ ret; }
";

fn fixed() -> Options {
    Options {
        images: Images::Fixed(format!("{PTX}\0").into_bytes()),
        cache: None,
        separate_scratch: false,
    }
}

fn open() -> Gpu {
    Gpu::open_with(0, fixed()).unwrap()
}

fn reverse_kernel(gpu: &Gpu) -> Function {
    gpu.function_of(&BASICS, "emu_reverse").unwrap()
}

fn grid(n: usize) -> Grid {
    Grid::new((n as u32).div_ceil(128), 128).shared(512)
}

/// A launcher as those of the kernels.
fn reverse(stream: &Stream, a: View<'_, 1>, out: ViewMut<'_, 1>) -> Result<(), KernelError> {
    let mut work = stream.begin("reverse", a.to_string())?;
    let kernel = stream.gpu().function_of(&BASICS, "emu_reverse").unwrap();
    let a = work.input("a", a)?;
    let out = work.output("out", out)?;
    let n = a.shape[0];
    assert_eq!((a.strides, out.strides), ([1], [1]));
    // SAFETY: both have n elements, and the kernel stays within them.
    unsafe { work.launch(&kernel, grid(n), &[a.into(), out.into(), (n as i32).into()]) }?;
    work.finish()
}

fn expected(values: &[f32]) -> Vec<f32> {
    (0..values.len())
        .map(|i| {
            let from = i / 128 * 128 + 127 - i % 128;
            values.get(from).copied().unwrap_or(0.0)
        })
        .collect()
}

fn numbers(n: usize) -> Vec<f32> {
    (0..n).map(|i| i as f32 + 1.0).collect()
}

fn lazy() -> Setting {
    Setting {
        lazy: true,
        ..Setting::default()
    }
}
