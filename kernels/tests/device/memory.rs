//! Rings, scratch memory, and what is kept.

use super::emulated::{self, OF_THE_EMULATOR, Setting, run, say};
use super::{lazy, numbers, open};
use weir_kernels::cuda::CudaError;
use weir_kernels::cuda::buffer::Span;

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
    run(OF_THE_EMULATOR, &Setting::default(), "memory::case_rings").passed();
    run(OF_THE_EMULATOR, &lazy(), "memory::case_rings").passed();
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
    let held = stream.scratch_bytes().unwrap();
    let (free, _) = gpu.memory().unwrap();
    for _ in 0..20 {
        call(&[1_000_000, 5, 2_000_000]);
        call(&[10]);
    }
    assert_eq!(stream.scratch_bytes().unwrap(), held);
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
    run(OF_THE_EMULATOR, &lazy(), "memory::case_scratch").passed();
}

#[test]
#[ignore = "a case, run by the test below"]
fn case_kept() {
    if !emulated::inside() {
        return;
    }
    let gpu = open();
    let values = numbers(3_000_000);
    let first = gpu.keep(&values[..10]).unwrap();
    say("first is kept", "");
    let others: Vec<_> = (0..5).map(|_| gpu.keep(&values).unwrap()).collect();
    say("all are kept", "");
    let threads: Vec<_> = (0..4)
        .map(|from| {
            let (gpu, part) = (gpu.clone(), values[from * 1000..][..77].to_vec());
            std::thread::spawn(move || (gpu.keep(&part).unwrap(), part))
        })
        .collect();
    let stream = gpu.stream().unwrap();
    for thread in threads {
        let (there, part) = thread.join().unwrap();
        assert_eq!(there.read(&stream).unwrap(), part);
    }
    assert_eq!(first.read(&stream).unwrap(), values[..10]);
    assert!(
        others
            .iter()
            .all(|there| there.read(&stream).unwrap() == values)
    );
    drop((stream, first, others, gpu));
    say("all is gone", "");
}

#[test]
fn all_that_is_kept_goes_through_one_stream_and_one_ring_which_go_with_the_device() {
    let mut setting = lazy();
    setting.environment = vec![("WEIR_EMU_TRACE", "1".to_string())];
    let outcome = run(OF_THE_EMULATOR, &setting, "memory::case_kept").passed();
    let calls = outcome.calls("first is kept", "all are kept");
    let count = |calls: &[&str], what: &str| calls.iter().filter(|c| c.starts_with(what)).count();
    assert_eq!(count(&calls, "StreamCreate"), 0, "{calls:?}");
    // 12 MB each: the ring grows to its bound, once.
    assert!(count(&calls, "MemHostAlloc") <= 3, "{calls:?}");
    // The reader's stream, and the one that belongs to the device.
    let after = outcome.calls("all are kept", "all is gone");
    assert_eq!(count(&after, "StreamDestroy"), 2, "{after:?}");
}
