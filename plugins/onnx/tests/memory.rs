//! What a model allocates stays within what it was given, however many threads call; what has no room is refused before it is made.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};
use support::{noise, open, refused, wanted};
use weir_onnx::model::Wanted;

fn with(memory: u64, size: u32, batch: Option<u32>) -> Wanted {
    Wanted {
        memory,
        batch,
        ..wanted("open", size)
    }
}

#[test]
fn a_pass_that_has_no_room_is_refused_before_anything_of_its_size_is_made() {
    let start = Instant::now();
    for (size, batch, what) in [
        (
            16384,
            None,
            "a pass of 1 x 16384 x 16384 px has 3072.0 MiB of numbers to go in, and 256.0 MiB are less",
        ),
        (
            512,
            Some(4096),
            "a pass of 4096 x 512 x 512 px has 12288.0 MiB of numbers to go in, and 256.0 MiB are less",
        ),
    ] {
        let error = refused(&with(256 << 20, size, batch));
        assert_eq!((error.of_which_param(), error.message()), ("memory", what));
        assert!(
            error.what_to_do().starts_with("give the stage more `memory`, and `run.memory` as much, or take a smaller `batch` or `size`"),
            "{error}"
        );
    }
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn layers_that_have_no_room_are_refused_too() {
    // The numbers that go in take 12 MiB of it.
    let error = refused(&with(13 << 20, 1024, None));
    assert_eq!(error.of_which_param(), "memory", "{error}");
}

#[test]
fn a_file_that_is_greater_than_the_memory_is_not_opened() {
    let error = refused(&with(100, 24, None));
    assert_eq!(error.of_which_param(), "memory", "{error}");
    assert!(error.message().contains("open.onnx has "), "{error}");
}

#[test]
fn threads_beyond_what_has_room_wait_and_the_bits_stay() {
    const SIZE: u32 = 256;
    let ample = open(&with(1 << 30, SIZE, None));
    let (weights, a_pass) = ample.holds();
    assert!(ample.passes_at_once() > 8);
    let tiles: Vec<Vec<u8>> = (0..16).map(|seed| noise(seed, SIZE)).collect();
    let tiles: Vec<&[u8]> = tiles.iter().map(Vec::as_slice).collect();
    let alone = ample.forward(&tiles, || false).unwrap();
    for at_once in [1, 2, 3] {
        let memory = weights + at_once * (a_pass + a_pass / 4) + a_pass / 8;
        let model = open(&with(memory, SIZE, None));
        assert_eq!(model.passes_at_once() as u64, at_once);
        std::thread::scope(|scope| {
            let runs: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| model.forward(&tiles, || false).unwrap()))
                .collect();
            for run in runs {
                assert_eq!(run.join().unwrap(), alone);
            }
        });
        let (before, now) = (model.holds(), model.held().unwrap().allocated);
        println!("{at_once} at once in {memory}: held {before:?}, then {now}");
        assert!(now <= memory, "{now} of {memory}");
    }
}
