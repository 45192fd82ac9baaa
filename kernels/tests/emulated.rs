//! The emulator proves itself: each adversarial mode sees what it is there for.

#[path = "emulated/mod.rs"]
mod emulated;

use cudarc::driver::{CudaContext, LaunchConfig, PushKernelArg};
use cudarc::nvrtc::Ptx;
use emulated::{OF_THE_EMULATOR, Setting, run};

/// PTX that names a kernel; the code is the emulator's.
fn ptx(name: &str) -> Ptx {
    Ptx::from_src(format!(
        ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry {name}(\n)\n"
    ))
}

#[test]
#[ignore = "a case, run by the tests below"]
fn case_reverse() {
    if !emulated::inside() {
        return;
    }
    let context = CudaContext::new(0).expect("the emulated device");
    let stream = context.new_stream().expect("a stream");
    let module = context.load_module(ptx("emu_reverse")).expect("a module");
    let kernel = module.load_function("emu_reverse").expect("a kernel");
    let values: Vec<f32> = (0..300).map(|i| i as f32).collect();
    let input = stream.clone_htod(&values).expect("a copy");
    let mut output = stream.alloc_zeros::<f32>(384).expect("memory");
    let n = 300_i32;
    let mut launch = stream.launch_builder(&kernel);
    launch.arg(&input).arg(&mut output).arg(&n);
    let shape = LaunchConfig {
        grid_dim: (3, 1, 1),
        block_dim: (128, 1, 1),
        shared_mem_bytes: 512,
    };
    // SAFETY: the arguments are those of emu_reverse, and the buffers hold n floats.
    unsafe { launch.launch(shape) }.expect("a launch");
    let got = stream.clone_dtoh(&output).expect("a copy");
    for (i, x) in got.iter().take(300).enumerate() {
        let from = i / 128 * 128 + 127 - i % 128;
        let expected = if from < 300 { from as f32 } else { 0.0 };
        assert_eq!(*x, expected, "element {i}");
    }
}

#[test]
fn a_kernel_runs_through_cudarc_in_any_order() {
    for seed in 0..4 {
        run(
            OF_THE_EMULATOR,
            &Setting {
                seed,
                ..Setting::default()
            },
            "case_reverse",
        )
        .passed();
    }
}

#[test]
fn a_kernel_runs_under_the_sanitizers_and_on_lazy_streams() {
    run(
        OF_THE_EMULATOR.sanitized(),
        &Setting {
            seed: 1,
            ..Setting::default()
        },
        "case_reverse",
    )
    .passed();
    run(
        OF_THE_EMULATOR,
        &Setting {
            lazy: true,
            workers: 2,
            ..Setting::default()
        },
        "case_reverse",
    )
    .passed();
}
