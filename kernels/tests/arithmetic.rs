//! cuda/math.cuh is src/math.rs: both are run on the same numbers, and every bit of every result is compared.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;
use weir_kernels::math;

/// `values(which, p, x, y, n)`: y = the function of x, for n numbers.
type Values = unsafe extern "C" fn(i32, f32, *const f32, *mut f32, usize);

const TEXT: &str = r#"
#include "math.cuh"
extern "C" __attribute__((visibility("default"))) void values(int which, float p, const float* x, float* y, unsigned long n) {
    for (unsigned long i = 0; i < n; i++)
        y[i] = which == 0 ? exp_f32(x[i]) : which == 1 ? ln_f32(x[i]) : which == 2 ? sigmoid_f32(x[i])
             : which == 3 ? tanh_f32(x[i]) : power_f32(x[i], p);
}
"#;

/// math.cuh, compiled as the emulator compiles it.
fn compiled() -> libloading::Library {
    let kernels = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (source, library) = (
        folder.path().join("values.cpp"),
        folder.path().join("values.so"),
    );
    std::fs::write(&source, TEXT).unwrap();
    let said = Command::new("g++")
        .args(["-std=c++20", "-O2", "-fPIC", "-shared", "-ffp-contract=off"])
        .args(["-fno-strict-aliasing", "-DWEIR_EMU", "-DWEIR_EMU_ASAN=0"])
        .args([Path::new("-I"), &kernels.join("cuda"), Path::new("-I")])
        .args([
            &kernels.join("emulator"),
            &source,
            Path::new("-o"),
            &library,
        ])
        .output()
        .expect("g++ is installed (Debian: apt install g++)");
    assert!(
        said.status.success(),
        "{}",
        String::from_utf8_lossy(&said.stderr)
    );
    // SAFETY: it was just made of the text above and does nothing when it is loaded.
    unsafe { libloading::Library::new(&library) }.unwrap()
}

fn of_rust(which: i32, p: f32, x: f32) -> f32 {
    match which {
        0 => math::exp(x),
        1 => math::ln(x),
        2 => math::sigmoid(x),
        3 => math::tanh(x),
        _ => math::power(x, p),
    }
}

const NAMES: [&str; 5] = ["exp", "ln", "sigmoid", "tanh", "power"];
/// The negative one is that of a gradient.
const POWERS: [f32; 8] = [0.0, 1.0, 2.0, 3.0, 8.0, 0.25, 1.5, -0.75];

/// Every `step`-th f32, the sign's and the special ones too.
fn compare(step: usize) {
    let library = compiled();
    // SAFETY: that is its type.
    let values = unsafe { library.get::<Values>(b"values") }.unwrap();
    let mut bits =
        (0..=u32::MAX)
            .step_by(step)
            .chain([0x7f80_0000, 0xff80_0000, 0x7fc0_0000, 0x8000_0000, 1]);
    let mut numbers = Vec::with_capacity(1 << 16);
    loop {
        numbers.clear();
        numbers.extend(bits.by_ref().take(1 << 16).map(f32::from_bits));
        if numbers.is_empty() {
            return;
        }
        let mut got = vec![0f32; numbers.len()];
        let powers = POWERS.map(|p| (4, p));
        for (which, p) in [(0, 0.0), (1, 0.0), (2, 0.0), (3, 0.0)]
            .into_iter()
            .chain(powers)
        {
            // SAFETY: both arrays have that many numbers.
            unsafe { values(which, p, numbers.as_ptr(), got.as_mut_ptr(), numbers.len()) };
            for (&x, &got) in numbers.iter().zip(&got) {
                let truth = of_rust(which, p, x);
                // A NaN's sign and payload are no result: the kernels refuse it before.
                let same = got.to_bits() == truth.to_bits() || got.is_nan() && truth.is_nan();
                assert!(
                    same,
                    "{} of {x:e} ({:#010x}), p {p}: {got:e} and {truth:e}",
                    NAMES[which as usize],
                    x.to_bits()
                );
            }
        }
    }
}

#[test]
fn the_devices_functions_are_the_processors_on_every_257th_number() {
    compare(257);
}

#[test]
#[ignore = "all of f32: minutes; of use where a text of these functions changes"]
fn the_devices_functions_are_the_processors_on_every_number() {
    compare(1);
}
