//! The driver refuses what cannot be right, and lazy streams show what nobody waited for.

use super::machine::{Machine, Value::Address, Value::Number};
use crate::emulated::{OF_THE_EMULATOR, Setting, inside, run};
use cudarc::driver::{result, sys::cudaError_enum as Code};

#[test]
#[ignore = "a case, run by the test below"]
fn case_refusals() {
    if !inside() {
        return;
    }
    let machine = Machine::new();
    let (input, output) = (machine.input(&[0.0_f32; 128]), machine.memory(512));
    let arguments = [Address(input.address), Address(output.address), Number(128)];
    let launch = |blocks, threads, shared| {
        machine
            .launch("emu_reverse", blocks, threads, shared, &arguments)
            .expect_err("this launch cannot be right")
            .0
    };
    assert_eq!(launch(0, 128, 512), Code::CUDA_ERROR_INVALID_VALUE);
    assert_eq!(launch(1, 0, 512), Code::CUDA_ERROR_INVALID_VALUE);
    assert_eq!(launch(1, 2048, 512), Code::CUDA_ERROR_INVALID_VALUE);
    assert_eq!(
        launch(1, 256, 512),
        Code::CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES
    );
    assert_eq!(launch(1, 128, 64 << 10), Code::CUDA_ERROR_INVALID_VALUE);
    assert_eq!(
        machine
            .launch("emu_cluster", 3, 32, 1024, &arguments)
            .expect_err("an odd grid")
            .0,
        Code::CUDA_ERROR_INVALID_CLUSTER_SIZE
    );
    assert_eq!(
        machine
            .function("emu_absent")
            .expect_err("no such kernel")
            .0,
        Code::CUDA_ERROR_NOT_FOUND
    );
    // SAFETY: sizes and addresses are wrong on purpose; the driver refuses them before it touches anything.
    unsafe {
        assert_eq!(
            result::malloc_sync(0).expect_err("0 bytes").0,
            Code::CUDA_ERROR_INVALID_VALUE
        );
        assert_eq!(
            result::free_sync(input.address + 4)
                .expect_err("no allocation")
                .0,
            Code::CUDA_ERROR_INVALID_VALUE
        );
        let mut bytes = [0_u8; 516];
        assert_eq!(
            result::memcpy_dtoh_sync(&mut bytes, output.address)
                .expect_err("4 bytes too many")
                .0,
            Code::CUDA_ERROR_INVALID_VALUE
        );
        let newer = c".version 9.0\n.target sm_80\n";
        assert_eq!(
            result::module::load_data(newer.as_ptr().cast())
                .expect_err("too new")
                .0,
            Code::CUDA_ERROR_UNSUPPORTED_PTX_VERSION
        );
        let larger = c".version 8.0\n.target sm_90a\n";
        assert_eq!(
            result::module::load_data(larger.as_ptr().cast())
                .expect_err("another device's")
                .0,
            Code::CUDA_ERROR_NO_BINARY_FOR_GPU
        );
        let nothing = c"nothing";
        assert_eq!(
            result::module::load_data(nothing.as_ptr().cast())
                .expect_err("no image")
                .0,
            Code::CUDA_ERROR_INVALID_IMAGE
        );
    }
    let other_thread = std::thread::spawn(|| {
        // SAFETY: nothing is allocated: no context is current on this thread.
        unsafe { result::malloc_sync(16) }
            .expect_err("no context")
            .0
    });
    assert_eq!(
        other_thread.join().expect("no panic"),
        Code::CUDA_ERROR_INVALID_CONTEXT
    );
}

#[test]
fn the_driver_refuses_what_cannot_be_right() {
    let old = Setting {
        capability: (8, 0),
        driver: 12040,
        ..Setting::default()
    };
    run(OF_THE_EMULATOR, &old, "own::driver::case_refusals").passed();
}

/// One stream turns rows round, another turns them back; with `wait` the second waits for the first.
fn there_and_back(wait: bool) {
    if !inside() {
        return;
    }
    let machine = Machine::new();
    let second = machine.context.new_stream().expect("a stream");
    let values: Vec<f32> = (0..128).map(|i| i as f32).collect();
    let (input, middle, output) = (
        machine.input(&values),
        machine.memory(512),
        machine.memory(512),
    );
    machine
        .launch(
            "emu_reverse",
            1,
            128,
            512,
            &[Address(input.address), Address(middle.address), Number(128)],
        )
        .expect("a launch");
    if wait {
        let event = machine.stream.record_event(None).expect("an event");
        second.wait(&event).expect("a wait");
    }
    machine
        .launch_on(
            &second,
            "emu_reverse",
            1,
            128,
            512,
            &[
                Address(middle.address),
                Address(output.address),
                Number(128),
            ],
        )
        .expect("a launch");
    let mut got = vec![0.0_f32; 128];
    // SAFETY: both have 512 bytes; into pageable memory the call returns when the copy is done.
    unsafe { result::memcpy_dtoh_async(&mut got, output.address, second.cu_stream()) }
        .expect("a copy");
    second.synchronize().expect("the stream runs");
    assert_eq!(got, values);
}

#[test]
#[ignore = "a case, run by the test below"]
fn case_with_event() {
    there_and_back(true);
}

#[test]
#[ignore = "a case, run by the test below"]
fn case_without_event() {
    there_and_back(false);
}

#[test]
fn a_missing_wait_between_streams_shows_when_streams_are_lazy_and_only_then() {
    let (eager, lazy) = (
        Setting::default(),
        Setting {
            lazy: true,
            ..Setting::default()
        },
    );
    run(OF_THE_EMULATOR, &eager, "own::driver::case_with_event").passed();
    run(OF_THE_EMULATOR, &lazy, "own::driver::case_with_event").passed();
    run(OF_THE_EMULATOR, &eager, "own::driver::case_without_event").passed();
    run(OF_THE_EMULATOR, &lazy, "own::driver::case_without_event").failed_with("left: [NaN");
}

/// A pinned buffer is filled again: right only after its first copy was waited for.
fn refill(wait: bool) {
    if !inside() {
        return;
    }
    let machine = Machine::new();
    // SAFETY: 512 bytes that this case alone uses; they are the process's to give back.
    let pinned = unsafe {
        std::slice::from_raw_parts_mut(
            result::malloc_host(512, 0)
                .expect("pinned memory")
                .cast::<f32>(),
            128,
        )
    };
    let first = machine.memory(512);
    pinned.fill(1.0);
    // SAFETY: sizes agree, and the buffer lives to the end of the process.
    unsafe { result::memcpy_htod_async(first.address, pinned, machine.stream.cu_stream()) }
        .expect("a copy");
    if wait {
        machine.stream.synchronize().expect("the stream runs");
    }
    pinned.fill(2.0);
    assert_eq!(machine.output::<f32>(&first), vec![1.0; 128]);
}

#[test]
#[ignore = "a case, run by the test below"]
fn case_refill_after_wait() {
    refill(true);
}

#[test]
#[ignore = "a case, run by the test below"]
fn case_refill_at_once() {
    refill(false);
}

#[test]
fn a_pinned_buffer_that_is_filled_too_early_shows_when_streams_are_lazy() {
    let lazy = Setting {
        lazy: true,
        ..Setting::default()
    };
    run(
        OF_THE_EMULATOR,
        &lazy,
        "own::driver::case_refill_after_wait",
    )
    .passed();
    run(OF_THE_EMULATOR, &lazy, "own::driver::case_refill_at_once").failed_with("left: [2.0");
}
