//! The device's layer through real cudarc, against the emulated driver: streams, events, rings, scratch memory, launches,
//! images, and what is refused before the driver is asked.
#![allow(clippy::unwrap_used)]

#[path = "emulated/mod.rs"]
mod emulated;

use emulated::{OF_THE_EMULATOR, Setting, run, say};
use std::path::{Path, PathBuf};
use weir_kernels::cuda::buffer::Span;
use weir_kernels::cuda::cache::Cache;
use weir_kernels::cuda::launch::{Function, Grid};
use weir_kernels::cuda::module::Images;
use weir_kernels::cuda::report::Report;
use weir_kernels::cuda::sources::{Ptx, Source};
use weir_kernels::cuda::stream::{Event, Stream};
use weir_kernels::cuda::{CudaError, Gpu, Options, Reason};
use weir_kernels::error::{Cause, KernelError};
use weir_kernels::kernels::Kernels;
use weir_kernels::view::{Dtype, Layout, Place, View, ViewMut};

/// The emulator's own kernel: each block of 128 writes its elements in reverse; what is past the end counts as 0.
static BASICS: Source = Source {
    name: "basics",
    text: include_str!("../emulator/tests/basics.cu"),
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

#[test]
#[ignore = "a case, run by the tests below"]
fn case_views() {
    if !emulated::inside() {
        return;
    }
    let gpu = open();
    let stream = gpu.stream().unwrap();
    assert_eq!(stream.device(), "cuda:0");
    for n in [1, 127, 128, 300, 1000] {
        let values = numbers(n);
        let mut out = vec![-1.0; n];
        let view = View::new(&values, [n]).unwrap();
        reverse(&stream, view, ViewMut::new(&mut out, [n]).unwrap()).unwrap();
        assert_eq!(out, expected(&values), "{n}");

        // Every third element of the host's, to every second one.
        let wide = numbers(3 * n);
        let mut out = vec![-1.0; 2 * n];
        let view = View::strided(&wide, [n], [3]).unwrap();
        reverse(&stream, view, ViewMut::strided(&mut out, [n], [2]).unwrap()).unwrap();
        let thirds: Vec<f32> = wide.iter().step_by(3).copied().collect();
        let halves: Vec<f32> = out.iter().step_by(2).copied().collect();
        assert_eq!(halves, expected(&thirds), "{n}");
        assert!(out.iter().skip(1).step_by(2).all(|gap| *gap == -1.0));
    }
}

#[test]
fn arguments_of_the_host_are_carried_over_and_back_whatever_their_strides() {
    run(OF_THE_EMULATOR, &Setting::default(), "case_views").passed();
    run(OF_THE_EMULATOR, &lazy(), "case_views").passed();
    let apart = Setting {
        environment: vec![("WEIR_CHECK_MEMORY", "1".to_string())],
        ..lazy()
    };
    run(OF_THE_EMULATOR.sanitized(), &apart, "case_views").passed();
}

#[test]
#[ignore = "a case, run by the tests below"]
fn case_foreign_memory() {
    if !emulated::inside() {
        return;
    }
    let gpu = open();
    let stream = gpu.stream().unwrap();
    let values = numbers(300);
    let (there, out) = (gpu.keep(&values).unwrap(), gpu.allocate(300).unwrap());
    let layout = |span: Span<f32>, place| Layout {
        address: span.address(),
        dtype: Dtype::F32,
        shape: [300],
        strides: [1],
        place,
    };
    let here = Place::Cuda(0);
    for _ in 0..2 {
        // SAFETY: both buffers live on, hold 300 floats, and nothing else uses them.
        let (a, to) = unsafe {
            (
                View::foreign(layout(there.span(), here)),
                ViewMut::foreign(layout(out.span(), here)),
            )
        };
        reverse(&stream, a, to).unwrap();
    }
    assert_eq!(out.read(&stream).unwrap(), expected(&values));

    // SAFETY: as above.
    let other = unsafe { View::foreign(layout(there.span(), Place::Cuda(1))) };
    let mut host = vec![0.0f32; 300];
    let error = reverse(&stream, other, ViewMut::new(&mut host, [300]).unwrap());
    let cause = Cause::Place {
        argument: "a",
        expected: here,
        got: Place::Cuda(1),
    };
    assert_eq!(error.unwrap_err().cause, cause);

    // Another library's stream; and the null stream.
    for raw in [stream.raw(), std::ptr::null_mut()] {
        // SAFETY: `stream` outlives the borrowed one; the null stream is always there.
        let borrowed = unsafe { gpu.borrow_stream(raw) };
        let view = View::new(&values, [300]).unwrap();
        reverse(&borrowed, view, ViewMut::new(&mut host, [300]).unwrap()).unwrap();
        assert_eq!(host, expected(&values));
    }
    stream.synchronize().unwrap();
}

#[test]
fn memory_and_streams_of_others_are_used_where_they_are_and_never_freed() {
    run(OF_THE_EMULATOR, &lazy(), "case_foreign_memory").passed();
    run(
        OF_THE_EMULATOR.sanitized(),
        &Setting::default(),
        "case_foreign_memory",
    )
    .passed();
}

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
    run(OF_THE_EMULATOR, &lazy(), "case_hand_over").passed();
    run(OF_THE_EMULATOR, &lazy(), "case_forgotten_wait").failed_with("left == right");
}

#[test]
#[ignore = "a case, run by the tests below"]
fn case_rings() {
    if !emulated::inside() {
        return;
    }
    let gpu = open();
    let stream = gpu.stream().unwrap();
    // More than the ring holds, and no multiple of a chunk.
    let many: Vec<u32> = (0..5_500_003u32)
        .map(|i| i.wrapping_mul(2_654_435_761))
        .collect();
    let there = gpu.allocate::<u32>(many.len()).unwrap();
    stream.upload(&many, there.span()).unwrap();
    let mut back = vec![0u32; many.len()];
    stream.download(there.span(), &mut back).unwrap();
    assert!(back == many);

    // Many small ones, which share chunks.
    let mut total = 0;
    let mut parts = Vec::new();
    while total < 3_000_000 {
        let len = 1 + total * 7 % 999;
        parts.push((total, len));
        total += len;
    }
    stream.fill(there.span(), 0).unwrap();
    for (from, len) in &parts {
        let to = there.span().part(*from, *len).unwrap();
        stream.upload(&many[*from..from + len], to).unwrap();
    }
    let mut back = vec![0u32; total];
    let mut work = stream.begin("rings", "").unwrap();
    let mut rest = back.as_mut_slice();
    for (from, len) in &parts {
        let (part, after) = rest.split_at_mut(*len);
        work.download(there.span().part(*from, *len).unwrap(), part)
            .unwrap();
        rest = after;
    }
    work.finish().unwrap();
    assert!(back == many[..total]);

    assert!(there.span().part(5_500_003, 1).is_none());
    let small = there.span().part(0, 3).unwrap();
    assert!(matches!(
        stream.upload(&[1u32; 4], small),
        Err(CudaError::Launch { .. })
    ));
    let copy = gpu.allocate::<u32>(1000).unwrap();
    stream.upload(&many[..1000], there.span()).unwrap();
    stream
        .copy(there.span().part(0, 1000).unwrap(), copy.span())
        .unwrap();
    assert_eq!(copy.read(&stream).unwrap(), many[..1000]);
}

#[test]
fn rings_carry_more_than_they_hold_and_many_small_pieces_in_order() {
    run(OF_THE_EMULATOR, &Setting::default(), "case_rings").passed();
    run(OF_THE_EMULATOR, &lazy(), "case_rings").passed();
}

#[test]
#[ignore = "a case, run by the tests below"]
fn case_scratch() {
    if !emulated::inside() {
        return;
    }
    let gpu = open();
    let stream = gpu.stream().unwrap();
    let (_, all) = gpu.memory().unwrap();
    let call = |sizes: &[usize]| {
        let mut back = vec![1.0f32; 77];
        let mut work = stream.begin("scratch", "").unwrap();
        let mut taken: Vec<Span<f32>> = sizes.iter().map(|n| work.take(*n).unwrap()).collect();
        for span in &taken {
            assert_eq!(span.address() % 256, 0);
        }
        taken.sort_by_key(|span| span.address());
        for pair in taken.windows(2) {
            let end = pair[0].address() + pair[0].bytes() as u64;
            assert!(end <= pair[1].address(), "{pair:?} overlap");
        }
        let zeros = work.zeroed::<f32>(77).unwrap();
        work.download(zeros, &mut back).unwrap();
        work.finish().unwrap();
        assert!(back.iter().all(|zero| *zero == 0.0));
    };
    call(&[10, 0, 100_000, 3]);
    call(&[1_000_000, 5, 2_000_000]);
    // From here on the arena is large enough for the largest.
    call(&[1]);
    let held = stream.scratch_bytes();
    let (free, _) = gpu.memory().unwrap();
    for _ in 0..20 {
        call(&[1_000_000, 5, 2_000_000]);
        call(&[10]);
    }
    assert_eq!(stream.scratch_bytes(), held);
    assert_eq!(gpu.memory().unwrap().0, free);
    let mut work = stream.begin("scratch", "4 PB").unwrap();
    let error = work.take::<f32>(1 << 50).err().unwrap();
    assert!(error.to_string().contains("OUT_OF_MEMORY"), "{error}");
    assert!(error.out_of_memory(), "{error:?}");
    drop(work);
    call(&[1_000_000]);
    drop(stream);
    assert_eq!(gpu.memory().unwrap(), (all, all));
}

#[test]
fn a_launch_allocates_nothing_once_the_largest_was_seen_and_all_is_given_back() {
    run(OF_THE_EMULATOR, &lazy(), "case_scratch").passed();
}

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
    run(OF_THE_EMULATOR, &Setting::default(), "case_refusals").passed();
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
    run(OF_THE_EMULATOR, &lazy(), "case_times").passed();
}

#[test]
#[ignore = "a case, run by the tests below"]
fn case_old_driver() {
    if !emulated::inside() {
        return;
    }
    let error = Gpu::open(0).err().unwrap();
    assert!(matches!(error.reason, Reason::TooOld { .. }), "{error}");
    say("error", error);
}

#[test]
fn an_old_driver_is_refused_before_cudarc_is_called() {
    let old = Setting {
        driver: 11080,
        ..Setting::default()
    };
    let said = run(OF_THE_EMULATOR, &old, "case_old_driver")
        .passed()
        .said("error");
    assert!(
        said.contains("CUDA 11.8") && said.contains("update"),
        "{said}"
    );
}

/// The NVRTC that `make setup` installs.
fn nvrtc() -> Option<PathBuf> {
    let tools = std::env::var_os("WEIR_CUDA_TOOLS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cuda"),
        PathBuf::from,
    );
    let path = tools.join("12/libnvrtc.so.12");
    path.is_file().then_some(path)
}

#[test]
#[ignore = "a case, run by the tests below"]
fn case_images() {
    if !emulated::inside() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::at(folder.path());
    let image = |cache: &Cache| {
        let options = Options {
            images: Images::Found,
            cache: Some(cache.clone()),
            separate_scratch: false,
        };
        let gpu = Gpu::open_with(0, options).unwrap();
        gpu.function_of(&BASICS, "emu_reverse")
            .map(|function| function.image().to_string())
    };
    if std::env::var_os("WEIR_NVRTC").is_some_and(|path| Path::new(&path).is_file()) {
        assert_eq!(image(&cache).unwrap(), "CUBIN for sm_90a by NVRTC 12.4");
        let again = image(&cache).unwrap();
        assert!(
            again.ends_with(&format!("from {}", folder.path().display())),
            "{again}"
        );
        let file = std::fs::read_dir(folder.path()).unwrap().next().unwrap();
        let file = file.unwrap().path();
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[100] ^= 1;
        std::fs::write(&file, bytes).unwrap();
        assert_eq!(image(&cache).unwrap(), "CUBIN for sm_90a by NVRTC 12.4");
        assert!(image(&cache).unwrap().contains("from "));
        // Where nothing can be written.
        let wall = folder.path().join("wall");
        std::fs::write(&wall, "").unwrap();
        let none = Cache::at(wall.join("kernels"));
        assert_eq!(image(&none).unwrap(), "CUBIN for sm_90a by NVRTC 12.4");
    } else {
        // The PTX at the top of this page was not made of the source.
        let error = image(&cache).err().unwrap();
        let CudaError::NoImage { tried, .. } = &error else {
            panic!("{error}");
        };
        assert!(
            tried.iter().any(|why| why.contains("NVRTC did not load")),
            "{error}"
        );
        assert!(
            tried
                .last()
                .unwrap()
                .contains("another version of the source"),
            "{error}"
        );
    }
    let report = Report::new();
    assert_eq!(report.driver.as_ref().unwrap().devices.len(), 1);
    say("report", report.to_string().lines().next().unwrap());
}

#[test]
fn code_comes_from_the_folder_else_from_nvrtc_else_from_fresh_ptx_alone() {
    let absent = Setting {
        environment: vec![("WEIR_NVRTC", "/nowhere/libnvrtc.so.12".to_string())],
        ..Setting::default()
    };
    let said = run(OF_THE_EMULATOR, &absent, "case_images")
        .passed()
        .said("report");
    assert!(said.starts_with("CUDA driver: "), "{said}");
    let Some(nvrtc) = nvrtc() else {
        assert!(
            std::env::var_os("WEIR_WITHOUT_CUDA_TOOLS").is_some(),
            "NVRTC is not there; `make test` installs it, WEIR_WITHOUT_CUDA_TOOLS=1 goes without"
        );
        return;
    };
    let there = Setting {
        environment: vec![("WEIR_NVRTC", nvrtc.display().to_string())],
        ..Setting::default()
    };
    run(OF_THE_EMULATOR, &there, "case_images").passed();
}
