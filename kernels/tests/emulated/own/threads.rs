//! Barriers, votes, shuffles, the order of blocks, conversions.

use super::machine::{Machine, Value::Address, Value::Number, numbers};
use crate::emulated::{OF_THE_EMULATOR, Patch, Setting, inside, run, say};

const FILE: &str = "emulator/tests/threads.cu";
const BASICS: &str = "emulator/tests/basics.cu";

fn seed(seed: u64) -> Setting {
    Setting {
        seed,
        ..Setting::default()
    }
}

#[test]
#[ignore = "a case, run by the tests below"]
fn case_reverse() {
    if !inside() {
        return;
    }
    let machine = Machine::new();
    let values: Vec<f32> = (0..300).map(|i| i as f32).collect();
    let (input, output) = (machine.input(&values), machine.memory(4 * 300));
    machine
        .launch(
            "emu_reverse",
            3,
            128,
            512,
            &[Address(input.address), Address(output.address), Number(300)],
        )
        .expect("a launch");
    for (i, x) in machine.output::<f32>(&output).into_iter().enumerate() {
        let from = i / 128 * 128 + 127 - i % 128;
        assert_eq!(x, if from < 300 { from as f32 } else { 0.0 }, "element {i}");
    }
}

#[test]
fn a_kernel_runs_in_any_order_and_under_the_sanitizers() {
    for order in 0..4 {
        run(OF_THE_EMULATOR, &seed(order), "own::threads::case_reverse").passed();
    }
    run(
        OF_THE_EMULATOR.sanitized(),
        &seed(1),
        "own::threads::case_reverse",
    )
    .passed();
}

#[test]
fn a_missing_barrier_is_seen() {
    let bug = OF_THE_EMULATOR.patched(&[Patch {
        file: BASICS,
        find: "row[t] = i < n ? in[i] : 0.0f;\n    __syncthreads();",
        put: "row[t] = i < n ? in[i] : 0.0f;",
    }]);
    run(bug, &seed(0), "own::threads::case_reverse").failed_with("left: NaN");
}

#[test]
fn a_barrier_in_a_branch_is_reported_with_both_places() {
    let bug = OF_THE_EMULATOR.patched(&[Patch {
        file: BASICS,
        find: "0.0f;\n    __syncthreads();\n    if (i < n) out",
        put: "0.0f;\n    if (t < 64)\n        __syncthreads();\n    else\n        __syncthreads();\n    if (i < n) out",
    }]);
    let outcome =
        run(bug, &seed(1), "own::threads::case_reverse").failed_with("DIVERGENT __syncthreads");
    assert!(outcome.output.contains("basics.cu:1"), "{}", outcome.output);
}

#[test]
fn an_overrun_of_device_memory_is_seen_with_and_without_the_sanitizers() {
    let bug = OF_THE_EMULATOR.patched(&[Patch {
        file: BASICS,
        find: "if (i < n) out[i]",
        put: "if (i <= n) out[i]",
    }]);
    run(bug, &seed(0), "own::threads::case_reverse")
        .failed_with("MEMORY OVERRUN: byte 0 behind the end of an allocation of 1200 bytes");
    let outcome = run(bug.sanitized(), &seed(0), "own::threads::case_reverse")
        .failed_with("heap-buffer-overflow");
    assert!(outcome.output.contains("emu_reverse"), "{}", outcome.output);
}

#[test]
fn an_overrun_of_shared_memory_is_seen_with_and_without_the_sanitizers() {
    let bug = OF_THE_EMULATOR.patched(&[Patch {
        file: BASICS,
        find: "row[t] = i < n",
        put: "row[t + 1] = i < n",
    }]);
    run(bug, &seed(0), "own::threads::case_reverse").failed_with("SHARED MEMORY OVERRUN");
    run(bug.sanitized(), &seed(0), "own::threads::case_reverse")
        .failed_with("heap-buffer-overflow");
}

#[test]
fn undefined_behaviour_is_seen_by_the_sanitizers() {
    let bug = OF_THE_EMULATOR.patched(&[Patch {
        file: BASICS,
        find: "row[t] = i < n",
        put: "row[t] = (1 << (n - 200)) == 0 || i < n",
    }]);
    run(bug.sanitized(), &seed(0), "own::threads::case_reverse")
        .failed_with("shift exponent 100 is too large");
}

#[test]
#[ignore = "a case, run by the tests below"]
fn case_total() {
    if !inside() {
        return;
    }
    let machine = Machine::new();
    // Numbers of very different size: the order of a sum decides its bits.
    let values: Vec<f32> = numbers(16 * 128)
        .iter()
        .enumerate()
        .map(|(i, x)| x * 3.0_f32.powi(i as i32 / 128 * 5 % 16))
        .collect();
    let input = machine.input(&values);
    let (parts, count, output) = (
        machine.memory(4 * 16),
        machine.input(&[0_u32]),
        machine.input(&[0.0_f32]),
    );
    let arguments = [
        Address(input.address),
        Address(parts.address),
        Address(count.address),
        Address(output.address),
    ];
    machine
        .launch("emu_total", 16, 128, 16, &arguments)
        .expect("a launch");
    say(
        "total",
        format!("{:08x}", machine.output::<f32>(&output)[0].to_bits()),
    );
    let expected: f64 = values.iter().map(|&x| f64::from(x)).sum();
    let size: f64 = values.iter().map(|&x| f64::from(x).abs()).sum();
    let got = f64::from(machine.output::<f32>(&output)[0]);
    assert!(
        (got - expected).abs() <= 1e-6 * size,
        "{got} for {expected}"
    );
    assert_eq!(machine.output::<u32>(&count), [0]);
}

#[test]
fn an_ordered_sum_has_the_same_bits_for_every_order_of_blocks_and_number_of_workers() {
    let first = run(OF_THE_EMULATOR, &seed(0), "own::threads::case_total")
        .passed()
        .said("total");
    for order in 1..5 {
        let setting = Setting {
            workers: 1 + order as u32 % 3,
            ..seed(order)
        };
        assert_eq!(
            run(OF_THE_EMULATOR, &setting, "own::threads::case_total")
                .passed()
                .said("total"),
            first
        );
    }
}

#[test]
fn float_atomics_show_by_their_bits() {
    let bug = OF_THE_EMULATOR.patched(&[Patch {
        file: FILE,
        find: "parts[blockIdx.x] = sum;",
        put: "atomicAdd(out, sum);\n    return;",
    }]);
    let bits: std::collections::BTreeSet<String> = (0..6)
        .map(|order| {
            run(bug, &seed(order), "own::threads::case_total")
                .passed()
                .said("total")
        })
        .collect();
    assert!(bits.len() > 1, "six orders, one result: {bits:?}");
}

#[test]
fn a_lane_that_leaves_a_warp_operation_is_a_reported_deadlock() {
    let bug = OF_THE_EMULATOR.patched(&[Patch {
        file: FILE,
        find: "for (int step = 16; step; step >>= 1) x",
        put: "for (int step = 16; step; step >>= 1) if (lane_id() != 7 || step != 4) x",
    }]);
    let outcome =
        run(bug, &seed(2), "own::threads::case_total").failed_with("DEADLOCK in kernel emu_total");
    assert!(
        outcome
            .output
            .contains("wait for lanes of its warp at emulator/tests/threads.cu:"),
        "{}",
        outcome.output
    );
}

#[test]
#[ignore = "a case, run by the tests below"]
fn case_lanes() {
    if !inside() {
        return;
    }
    let machine = Machine::new();
    let output = machine.memory(4 * 7 * 32);
    machine
        .launch("emu_lanes", 1, 32, 0, &[Address(output.address)])
        .expect("a launch");
    let thirds: u32 = (0..32)
        .filter(|lane| lane % 3 == 0)
        .map(|lane| 1 << lane)
        .sum();
    for (lane, got) in machine.output::<u32>(&output).chunks(7).enumerate() {
        let lane = lane as u32;
        let up = if lane < 3 { lane } else { lane - 3 };
        let down = if lane > 28 { lane } else { lane + 3 };
        let half = if lane < 16 { lane ^ 15 } else { lane ^ 8 };
        assert_eq!(
            got,
            [
                105,
                100 + up,
                100 + down,
                100 + (lane ^ 1),
                thirds,
                100 + half,
                7
            ],
            "lane {lane}"
        );
    }
}

#[test]
fn warp_operations_follow_the_manual() {
    for order in 0..3 {
        run(OF_THE_EMULATOR, &seed(order), "own::threads::case_lanes").passed();
    }
}

#[test]
fn a_mask_that_leaves_its_lane_out_is_reported() {
    let bug = OF_THE_EMULATOR.patched(&[Patch {
        file: FILE,
        find: "__shfl_xor_sync(0xFFFF0000u, v, 8)",
        put: "__shfl_xor_sync(0xFFFE0000u, v, 8)",
    }]);
    run(bug, &seed(0), "own::threads::case_lanes").failed_with("leaves this lane (16) out");
}

#[test]
#[ignore = "a case, run by the tests below"]
fn case_hand_over() {
    if !inside() {
        return;
    }
    let machine = Machine::new();
    let values: Vec<u32> = (0..5 * 32).collect();
    let (input, output) = (machine.input(&values), machine.memory(4 * 5 * 32));
    machine
        .launch(
            "emu_hand_over",
            1,
            64,
            128,
            &[Address(input.address), Address(output.address), Number(5)],
        )
        .expect("a launch");
    let expected: Vec<u32> = values.iter().map(|i| i / 32 * 32 + 31 - i % 32).collect();
    assert_eq!(machine.output::<u32>(&output), expected);
}

#[test]
fn named_barriers_hand_over_and_a_wrong_one_is_a_reported_deadlock() {
    for order in 0..3 {
        run(
            OF_THE_EMULATOR,
            &seed(order),
            "own::threads::case_hand_over",
        )
        .passed();
    }
    let bug = OF_THE_EMULATOR.patched(&[Patch {
        file: FILE,
        find: "if (r + 1 < rows) named_barrier_sync(2, 64);",
        put: "if (r + 1 < rows) named_barrier_sync(3, 64);",
    }]);
    let outcome = run(bug, &seed(0), "own::threads::case_hand_over")
        .failed_with("DEADLOCK in kernel emu_hand_over");
    assert_eq!(
        outcome.output.matches("32 threads, the first").count(),
        2,
        "{}",
        outcome.output
    );
}

#[test]
#[ignore = "a case, run by the test below"]
fn case_convert() {
    if !inside() {
        return;
    }
    let machine = Machine::new();
    // Every f16 and every bf16, the middles between them and what lies beside the middles.
    let halves = (0..=u16::MAX).flat_map(|v| {
        [
            half::f16::from_bits(v).to_f32(),
            half::bf16::from_bits(v).to_f32(),
        ]
    });
    let values: Vec<f32> = halves
        .flat_map(|x| {
            [0, 0xFFF, 0x1000, 0x1001, 0x7FFF, 0x8000, 0x8001]
                .map(|more| f32::from_bits(x.to_bits().wrapping_add(more)))
        })
        .filter(|x| !x.is_nan())
        .collect();
    let n = values.len();
    let input = machine.input(&values);
    let (f16, bf16) = (machine.memory(2 * n), machine.memory(2 * n));
    let (f16_back, bf16_back) = (machine.memory(4 * n), machine.memory(4 * n));
    let arguments =
        [&input, &f16, &bf16, &f16_back, &bf16_back].map(|memory| Address(memory.address));
    let arguments = [&arguments[..], &[Number(n as i32)]].concat();
    machine
        .launch("emu_convert", n.div_ceil(128) as u32, 128, 0, &arguments)
        .expect("a launch");
    let (f16, bf16) = (machine.output::<u16>(&f16), machine.output::<u16>(&bf16));
    let (f16_back, bf16_back) = (
        machine.output::<f32>(&f16_back),
        machine.output::<f32>(&bf16_back),
    );
    for (i, x) in values.into_iter().enumerate() {
        let (narrow, brain) = (half::f16::from_f32(x), half::bf16::from_f32(x));
        assert_eq!(
            (f16[i], bf16[i]),
            (narrow.to_bits(), brain.to_bits()),
            "{x:e}"
        );
        assert_eq!(
            (f16_back[i].to_bits(), bf16_back[i].to_bits()),
            (narrow.to_f32().to_bits(), brain.to_f32().to_bits()),
            "{x:e}"
        );
    }
}

#[test]
fn conversions_round_to_nearest_even() {
    run(OF_THE_EMULATOR, &seed(0), "own::threads::case_convert").passed();
}

#[test]
#[ignore = "a case, run by the test below"]
fn case_wide() {
    if !inside() {
        return;
    }
    let machine = Machine::new();
    let values: Vec<u32> = (0..512).collect();
    let (input, output) = (machine.input(&values), machine.memory(4 * 512));
    machine
        .launch(
            "emu_wide",
            1,
            128,
            0,
            &[Address(input.address), Address(output.address)],
        )
        .expect("a launch");
    assert_eq!(machine.output::<u32>(&output), values);
}

#[test]
fn a_misaligned_wide_access_is_reported() {
    run(OF_THE_EMULATOR, &seed(0), "own::threads::case_wide").passed();
    let bug = OF_THE_EMULATOR.patched(&[Patch {
        file: FILE,
        find: "load_stream16(in + 4 * threadIdx.x)",
        put: "load_stream16(in + 3 * threadIdx.x)",
    }]);
    run(bug, &seed(0), "own::threads::case_wide").failed_with("MISALIGNED load of 16 bytes");
}
