//! Arguments of a call: the host's, whatever their strides, and others' memory and streams.

use super::emulated::{self, OF_THE_EMULATOR, Setting, run};
use super::{expected, lazy, numbers, open, reverse};
use weir_kernels::cuda::buffer::Span;
use weir_kernels::error::Cause;
use weir_kernels::kernels::Kernels;
use weir_kernels::view::{Dtype, Layout, Place, View, ViewMut};

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
    run(OF_THE_EMULATOR, &Setting::default(), "views::case_views").passed();
    run(OF_THE_EMULATOR, &lazy(), "views::case_views").passed();
    let apart = Setting {
        environment: vec![("WEIR_CHECK_MEMORY", "1".to_string())],
        ..lazy()
    };
    run(OF_THE_EMULATOR.sanitized(), &apart, "views::case_views").passed();
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
    run(OF_THE_EMULATOR, &lazy(), "views::case_foreign_memory").passed();
    run(
        OF_THE_EMULATOR.sanitized(),
        &Setting::default(),
        "views::case_foreign_memory",
    )
    .passed();
}
