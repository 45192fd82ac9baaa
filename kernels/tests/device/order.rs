//! Streams and events: one waits for another, and the device's time.

use super::emulated::{self, OF_THE_EMULATOR, run};
use super::{grid, lazy, numbers, open, reverse, reverse_kernel};
use weir_kernels::cuda::stream::Event;
use weir_kernels::view::{View, ViewMut};

fn two_streams(waits: bool) {
    let gpu = open();
    let (encode, pool) = (gpu.stream().unwrap(), gpu.stream().unwrap());
    let kernel = reverse_kernel(&gpu);
    let values = numbers(256);
    let between = gpu.allocate::<f32>(256).unwrap();
    let out = gpu.allocate::<f32>(256).unwrap();
    let a = gpu.keep(&values).unwrap();
    let n = 256i32.into();
    // SAFETY: all three hold 256 floats and live until the streams are idle.
    unsafe {
        kernel
            .launch(
                &encode,
                grid(256),
                &[a.span().into(), between.span().into(), n],
            )
            .unwrap();
        if waits {
            pool.wait_for(&encode).unwrap();
        }
        kernel
            .launch(
                &pool,
                grid(256),
                &[between.span().into(), out.span().into(), n],
            )
            .unwrap();
    }
    assert_eq!(out.read(&pool).unwrap(), values);
}

#[test]
#[ignore = "a case, run by the tests below"]
fn case_hand_over() {
    if emulated::inside() {
        two_streams(true);
    }
}

#[test]
#[ignore = "a case, run by the tests below"]
fn case_forgotten_wait() {
    if emulated::inside() {
        two_streams(false);
    }
}

#[test]
fn one_stream_waits_for_another_by_an_event_and_a_forgotten_wait_is_seen() {
    run(OF_THE_EMULATOR, &lazy(), "order::case_hand_over").passed();
    run(OF_THE_EMULATOR, &lazy(), "order::case_forgotten_wait").failed_with("left == right");
}

#[test]
#[ignore = "a case, run by the tests below"]
fn case_times() {
    if !emulated::inside() {
        return;
    }
    let gpu = open();
    let stream = gpu.stream().unwrap();
    let kernel = reverse_kernel(&gpu);
    let memory = gpu.allocate::<f32>(1280).unwrap();
    let arguments = [memory.span().into(), memory.span().into(), 1280i32.into()];
    let timer = stream.timer().unwrap();
    // SAFETY: the kernel's own arguments; a block reads what it writes only before its barrier.
    unsafe { kernel.launch(&stream, grid(1280), &arguments) }.unwrap();
    assert!(timer.stop().unwrap() > 0.0);
    let event = stream.record().unwrap();
    event.synchronize().unwrap();
    assert!(event.reached().unwrap());
    // A traced stream says what it ran and when.
    assert!(stream.take_trace().unwrap().is_empty());
    let before = std::time::Instant::now();
    stream.trace().unwrap();
    let (values, mut out) = (numbers(300), vec![0.0; 300]);
    let view = View::new(&values, [300]).unwrap();
    reverse(&stream, view, ViewMut::new(&mut out, [300]).unwrap()).unwrap();
    let ran = stream.take_trace().unwrap();
    let names: Vec<&str> = ran.iter().map(|ran| ran.what).collect();
    assert_eq!(names, ["to device", "emu_reverse", "to host"]);
    for pair in ran.windows(2) {
        assert!(pair[0].start <= pair[1].start, "{ran:?}");
    }
    assert!(ran[0].start >= before && ran[2].start <= std::time::Instant::now());
    assert!(stream.take_trace().unwrap().is_empty());

    // What is not timed has no time.
    let other = Event::new(&gpu, true).unwrap();
    other.record(&stream).unwrap();
    other.synchronize().unwrap();
    assert!(event.since(&other).is_err());
}

#[test]
fn the_devices_time_is_measured_by_events() {
    run(OF_THE_EMULATOR, &lazy(), "order::case_times").passed();
}
