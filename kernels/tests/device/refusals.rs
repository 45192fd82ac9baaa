//! What is refused before the driver is asked.

use super::emulated::{self, OF_THE_EMULATOR, Setting, run};
use super::{BASICS, fixed, grid, numbers, open, reverse_kernel};
use weir_kernels::cuda::launch::Grid;
use weir_kernels::cuda::{CudaError, Gpu, Reason};
use weir_kernels::error::Cause;

#[test]
#[ignore = "a case, run by the tests below"]
fn case_refusals() {
    if !emulated::inside() {
        return;
    }
    let gpu = open();
    let stream = gpu.stream().unwrap();
    let kernel = reverse_kernel(&gpu);
    let memory = gpu.allocate::<f32>(128).unwrap();
    let (a, n) = (memory.span().into(), 128i32.into());
    let right = [a, a, n];
    let refused = |grid: Grid, arguments: &[_]| -> String {
        // SAFETY: refused before anything runs.
        match unsafe { kernel.launch(&stream, grid, arguments) } {
            Err(error @ CudaError::Launch { .. }) => error.to_string(),
            other => panic!("{grid:?} {arguments:?}: {other:?}"),
        }
    };
    let text = refused(grid(128), &right[..2]);
    assert!(text.contains("takes 3 arguments and was given 2"), "{text}");
    let text = refused(grid(128), &[a, n, n]);
    assert!(
        text.contains("argument 1 has 8 bytes and was given 4"),
        "{text}"
    );
    let text = refused(Grid::new(0, 128), &right);
    assert!(text.contains("grid is empty"), "{text}");
    let text = refused(Grid::new(1, 1024), &right);
    assert!(text.contains("1024 threads a block"), "{text}");
    let text = refused(Grid::new(1, 128).rows(70_000), &right);
    assert!(text.contains("70000"), "{text}");
    let text = refused(Grid::new(1, 128).shared(300_000), &right);
    assert!(text.contains("300000 bytes of dynamic"), "{text}");
    // More than 48 KB, which the function is let have.
    // SAFETY: the kernel's own arguments.
    unsafe { kernel.launch(&stream, Grid::new(1, 128).shared(200_000), &right) }.unwrap();
    stream.synchronize().unwrap();
    assert!(kernel.blocks_per_multiprocessor(128, 512).unwrap() > 0);
    assert_eq!(kernel.image(), "fixed");

    assert!(matches!(
        gpu.function("no such source", "weir_pool"),
        Err(CudaError::NoSource { .. })
    ));
    let error = gpu.function_of(&BASICS, "emu_nothing").err().unwrap();
    assert!(error.to_string().contains("emu_nothing"), "{error}");
    let none = Gpu::open_with(7, fixed()).err().unwrap();
    assert_eq!(
        none.reason,
        Reason::NoSuchDevice {
            ordinal: 7,
            count: 1
        }
    );
}

#[test]
fn what_cannot_be_launched_is_refused_with_the_reason() {
    run(
        OF_THE_EMULATOR,
        &Setting::default(),
        "refusals::case_refusals",
    )
    .passed();
}

/// What would wait for itself.
#[test]
#[ignore = "a case, run by the test below"]
fn case_under_way() {
    if !emulated::inside() {
        return;
    }
    let gpu = open();
    let stream = gpu.stream().unwrap();
    let (memory, values) = (gpu.allocate::<f32>(10).unwrap(), numbers(10));
    let mut back = vec![0.0; 10];
    let mut work = stream.begin("one", "").unwrap();
    let under_way = |error: CudaError, doing: &'static str| {
        assert_eq!(error, CudaError::UnderWay { doing }, "{error}");
        assert!(error.to_string().contains("finish that call"), "{error}");
    };
    under_way(stream.upload(&values, memory.span()).unwrap_err(), "upload");
    let error = stream.download(memory.span(), &mut back).unwrap_err();
    under_way(error, "download");
    under_way(memory.read(&stream).unwrap_err(), "download");
    under_way(stream.scratch_bytes().unwrap_err(), "count scratch memory");
    let error = stream.clone().begin("two", "10 rows").err().unwrap();
    assert_eq!((error.kernel, error.shape.as_str()), ("two", "10 rows"));
    assert!(matches!(error.cause, Cause::Driver { .. }), "{error}");
    // Another thread waits, and other streams and what is kept have ways of their own.
    gpu.stream()
        .unwrap()
        .upload(&values, memory.span())
        .unwrap();
    gpu.keep(&values).unwrap();
    let other = std::thread::spawn({
        let (stream, span) = (stream.clone(), memory.span());
        move || stream.upload(&[2.0; 10], span)
    });
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert!(!other.is_finished());
    let there = work.upload(&values).unwrap();
    work.download(there, &mut back).unwrap();
    work.finish().unwrap();
    assert_eq!(back, values);
    other.join().unwrap().unwrap();
    assert_eq!(memory.read(&stream).unwrap(), [2.0; 10]);
    drop(stream.begin("three", "").unwrap());
    stream.upload(&values, memory.span()).unwrap();
}

#[test]
fn a_stream_that_would_wait_for_the_threads_own_call_says_so() {
    run(
        OF_THE_EMULATOR,
        &Setting::default(),
        "refusals::case_under_way",
    )
    .passed();
}
