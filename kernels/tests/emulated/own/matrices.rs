//! Tensor-core products against plain ones, and what a wrong layout does to them.

use super::machine::{Machine, Value::Address, numbers};
use crate::emulated::{OF_THE_EMULATOR, Patch, Setting, Variant, inside, run};

const FILE: &str = "emulator/tests/matrices.cu";

fn at(seed: u64, late: bool) -> Setting {
    Setting {
        seed,
        late,
        ..Setting::default()
    }
}

fn bug(patches: &'static [Patch]) -> Variant {
    OF_THE_EMULATOR.patched(patches)
}

/// a (m x k, rows) times b (n x k, rows): exact, since the numbers have four bits.
fn product(a: &[f32], b: &[f32], k: usize) -> Vec<f32> {
    a.chunks(k)
        .flat_map(|row| {
            b.chunks(k)
                .map(|column| row.iter().zip(column).map(|(x, y)| x * y).sum())
        })
        .collect()
}

/// Runs a kernel of (a, b, out) on 16-bit numbers.
fn multiplies(
    kernel: &str,
    (m, n, k): (usize, usize, usize),
    threads: u32,
    shared: u32,
    narrow: impl Fn(f32) -> u16,
) {
    if !inside() {
        return;
    }
    let machine = Machine::new();
    let all = numbers((m + n) * k);
    let (a, b) = all.split_at(m * k);
    let narrowed = |values: &[f32]| values.iter().map(|&x| narrow(x)).collect::<Vec<u16>>();
    let (left, right) = (machine.input(&narrowed(a)), machine.input(&narrowed(b)));
    let output = machine.memory(4 * m * n);
    if shared > 48 << 10 {
        allow(&machine, kernel, shared);
    }
    let arguments = [&left, &right, &output].map(|memory| Address(memory.address));
    machine
        .launch(kernel, 1, threads, shared, &arguments)
        .expect("a launch");
    assert_eq!(machine.output::<f32>(&output), product(a, b, k));
}

fn allow(machine: &Machine, kernel: &str, shared: u32) {
    use cudarc::driver::sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES as LARGEST;
    let function = machine.function(kernel).expect("a kernel");
    // SAFETY: the function is of a module that is never unloaded.
    unsafe {
        cudarc::driver::result::function::set_function_attribute(function, LARGEST, shared as i32)
    }
    .expect("an attribute");
}

fn bf16(x: f32) -> u16 {
    half::bf16::from_f32(x).to_bits()
}

fn f16(x: f32) -> u16 {
    half::f16::from_f32(x).to_bits()
}

#[test]
#[ignore = "a case, run by the tests below"]
fn case_mma() {
    multiplies("emu_mma_bf16", (16, 8, 16), 32, 2 * 24 * 24, bf16);
    multiplies("emu_mma_f16", (16, 8, 16), 32, 2 * 24 * 24, f16);
}

#[test]
#[ignore = "a case, run by the tests below"]
fn case_mma_tf32() {
    if !inside() {
        return;
    }
    let machine = Machine::new();
    let all = numbers(24 * 8);
    let (a, b) = all.split_at(16 * 8);
    let (left, right, output) = (machine.input(a), machine.input(b), machine.memory(4 * 128));
    let arguments = [&left, &right, &output].map(|memory| Address(memory.address));
    machine
        .launch("emu_mma_tf32", 1, 32, 0, &arguments)
        .expect("a launch");
    assert_eq!(machine.output::<f32>(&output), product(a, b, 8));
}

#[test]
#[ignore = "a case, run by the tests below"]
fn case_transpose() {
    if !inside() {
        return;
    }
    let machine = Machine::new();
    let values: Vec<u16> = (0..256).collect();
    let (input, output) = (machine.input(&values), machine.memory(512));
    machine
        .launch(
            "emu_transpose",
            1,
            32,
            512,
            &[Address(input.address), Address(output.address)],
        )
        .expect("a launch");
    let expected: Vec<u16> = (0..256)
        .map(|i| i / 64 * 64 + i % 8 * 8 + i / 8 % 8)
        .collect();
    assert_eq!(machine.output::<u16>(&output), expected);
}

#[test]
#[ignore = "a case, run by the tests below"]
fn case_wgmma() {
    multiplies(
        "emu_wgmma_registers",
        (64, 256, 32),
        128,
        2 * (256 * 32 + 64 * 40),
        bf16,
    );
    multiplies(
        "emu_wgmma_shared",
        (64, 256, 32),
        128,
        2 * (256 * 32 + 64 * 32),
        f16,
    );
}

#[test]
fn warp_products_are_plain_products() {
    for seed in 0..3 {
        run(OF_THE_EMULATOR, &at(seed, true), "own::matrices::case_mma").passed();
    }
    run(
        OF_THE_EMULATOR,
        &at(1, true),
        "own::matrices::case_mma_tf32",
    )
    .passed();
    run(
        OF_THE_EMULATOR,
        &at(1, true),
        "own::matrices::case_transpose",
    )
    .passed();
    run(
        OF_THE_EMULATOR.sanitized(),
        &at(1, true),
        "own::matrices::case_mma",
    )
    .passed();
}

#[test]
fn a_wrong_fragment_layout_gives_a_wrong_product() {
    let bug = bug(&[Patch {
        file: FILE,
        find: "columns + (lane & 7) * 24 + ((lane >> 3) & 1) * 8",
        put: "columns + (lane & 7) * 24 + ((lane >> 4) & 1) * 8",
    }]);
    run(bug, &at(0, true), "own::matrices::case_mma")
        .failed_with("assertion `left == right` failed");
}

#[test]
fn warpgroup_products_are_plain_products() {
    for (seed, late) in [(0, true), (1, false), (2, true)] {
        run(
            OF_THE_EMULATOR,
            &at(seed, late),
            "own::matrices::case_wgmma",
        )
        .passed();
    }
    run(
        OF_THE_EMULATOR.sanitized(),
        &at(1, true),
        "own::matrices::case_wgmma",
    )
    .passed();
}

#[test]
fn a_wrong_descriptor_gives_a_wrong_product_or_leaves_shared_memory() {
    let exchanged = bug(&[Patch {
        file: FILE,
        find: "registers[s], wgmma_descriptor(B + s * B_STEP / 2, 4096, 128)",
        put: "registers[s], wgmma_descriptor(B + s * B_STEP / 2, 128, 4096)",
    }]);
    run(exchanged, &at(0, true), "own::matrices::case_wgmma")
        .failed_with("SHARED MEMORY OVERRUN: wgmma reads byte");
    let shifted = bug(&[Patch {
        file: FILE,
        find: "registers[s], wgmma_descriptor(B + s * B_STEP / 2, 4096, 128)",
        put: "registers[s], wgmma_descriptor(B + s * B_STEP / 4, 4096, 128)",
    }]);
    run(shifted, &at(0, true), "own::matrices::case_wgmma")
        .failed_with("assertion `left == right` failed");
}

#[test]
fn accumulators_read_before_the_wait_are_poison() {
    let bug = bug(&[Patch {
        file: FILE,
        find: "wgmma_descriptor(B + s * B_STEP / 2, 4096, 128), s > 0);\n    wgmma_commit();\n    wgmma_wait<0>();\n    for (u32 i = 0; i < 128; i++) {\n        const u32 row = warp * 16 + lane / 4 + i / 2 % 2 * 8, column = i / 4 * 8 + lane % 4 * 2 + i % 2;\n        out[row * 256 + column] = d[i];\n    }\n}\n\n/// The same",
        put: "wgmma_descriptor(B + s * B_STEP / 2, 4096, 128), s > 0);\n    wgmma_commit();\n    for (u32 i = 0; i < 128; i++) {\n        const u32 row = warp * 16 + lane / 4 + i / 2 % 2 * 8, column = i / 4 * 8 + lane % 4 * 2 + i % 2;\n        out[row * 256 + column] = d[i];\n    }\n    wgmma_wait<0>();\n}\n\n/// The same",
    }]);
    run(bug, &at(0, false), "own::matrices::case_wgmma").failed_with("left: [NaN");
}

#[test]
fn a_batch_of_products_without_its_fence_is_reported() {
    let bug = bug(&[Patch {
        file: FILE,
        find: "wgmma_fence();\n    for (u32 s = 0; s < DEPTH / 16; s++)\n        wgmma_m64n256k16_bf16",
        put: "for (u32 s = 0; s < DEPTH / 16; s++)\n        wgmma_m64n256k16_bf16",
    }]);
    run(bug, &at(0, true), "own::matrices::case_wgmma")
        .failed_with("no wgmma_fence before this batch");
}
