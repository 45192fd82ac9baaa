//! Batches of tiles on a CUDA device, which kernels/tests/emulated emulates: its memory is the processor's, so that ONNX Runtime's
//! provider for the processor can read a tile's numbers and write its features where they lie.
#![allow(clippy::unwrap_used)]

#[path = "../../../kernels/tests/emulated/mod.rs"]
mod emulated;

use emulated::{Outcome, PLAIN, Setting, inside, run, say};
use std::path::PathBuf;
use weir_kernels::cuda::stream::Stream;
use weir_model::executor::bound::Bound;
use weir_model::executor::device_batch::{DeviceBatch, PassError, Passes, Slot, TILES};
use weir_model::executor::onnxruntime;
use weir_model::network::Network;
use weir_model::{Choice, Chosen, ExecutorError, Input, Weights, Which, onnx};
use weir_pipeline::model::ModelInput;

fn library() -> Option<PathBuf> {
    if std::env::var_os("WEIR_WITHOUT_ONNXRUNTIME").is_some() {
        return None;
    }
    Some(std::env::var_os("WEIR_ONNXRUNTIME").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../.onnxruntime/libonnxruntime.so"),
        PathBuf::from,
    ))
}

fn stream() -> Stream {
    emulated::gpu().stream().unwrap()
}

fn input(size: u32) -> Input {
    Input::new(&ModelInput {
        size,
        mpp: 0.5,
        mean: [0.7, 0.6, 0.7],
        std: [0.2, 0.25, 0.2],
    })
    .unwrap()
}

fn tiles(count: usize, size: u32) -> Vec<Vec<u8>> {
    let mut state = 7u32;
    let mut byte = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let tile = |_| (0..size * size * 3).map(|_| byte()).collect();
    (0..count).map(tile).collect()
}

fn slices(tiles: &[Vec<u8>]) -> Vec<&[u8]> {
    tiles.iter().map(Vec::as_slice).collect()
}

/// A network that copies the first numbers of a tile, in the stream, and of which things can be asked.
#[derive(Default)]
struct Copies {
    stream: Option<Stream>,
    slots: Vec<Slot>,
    /// Makes NaN of the tiles of this slot.
    spoils: Option<usize>,
    /// Has memory for that many slots.
    room: Option<usize>,
}

impl Copies {
    fn on(stream: &Stream) -> Copies {
        Copies {
            stream: Some(stream.clone()),
            ..Copies::default()
        }
    }
}

impl Passes for Copies {
    const EXECUTOR: &'static str = "copies";

    unsafe fn place(&mut self, slots: &[Slot]) -> Result<(), PassError> {
        self.slots = slots.to_vec();
        Ok(())
    }

    fn enqueue(&mut self, slot: usize) -> Result<(), PassError> {
        if self.room.is_some_and(|room| self.slots.len() > room) {
            return Err(PassError {
                doing: "copy",
                what: "there is no more".into(),
                out_of_memory: true,
            });
        }
        let stream = self.stream.as_ref().unwrap();
        let Slot { numbers, features } = self.slots[slot];
        let first = numbers.part(0, features.len()).unwrap();
        stream.copy(first, features).unwrap();
        if self.spoils == Some(slot) {
            stream.fill(features, 0xFF).unwrap();
        }
        Ok(())
    }
}

/// What that network makes of the tiles.
fn copied(input: &Input, tiles: &[&[u8]], feature: usize) -> Vec<Vec<f32>> {
    let of = |tile: &&[u8]| input.tensor(&[tile]).unwrap()[..feature].to_vec();
    tiles.iter().map(of).collect()
}

fn bits(features: &[Vec<f32>]) -> Vec<Vec<u32>> {
    let of = |row: &Vec<f32>| row.iter().map(|value| value.to_bits()).collect();
    features.iter().map(of).collect()
}

/// Of a setting in which the driver's calls are told.
fn told(lazy: bool) -> Setting {
    Setting {
        lazy,
        environment: vec![("WEIR_EMU_TRACE", "1".to_string())],
        ..Setting::default()
    }
}

/// How often a call was made between what the case said.
fn count(outcome: &Outcome, from: &str, to: &str, call: &str) -> usize {
    let calls = outcome.calls(from, to);
    calls.iter().filter(|one| one.contains(call)).count()
}

/// A batch is a copy there, a launch, a copy back and a wait.
#[track_caller]
fn one_wait(outcome: &Outcome, from: &str, to: &str) {
    for (call, times) in [
        ("Synchronize", 1),
        ("MemcpyHtoD", 1),
        ("MemcpyDtoH", 1),
        ("LaunchKernel", 1),
        ("MemAlloc", 0),
        ("MemFree", 0),
    ] {
        let calls = outcome.calls(from, to);
        assert_eq!(count(outcome, from, to, call), times, "{call}: {calls:?}");
    }
}

#[test]
#[ignore = "a case, run by the test below"]
fn case_network() {
    if !inside() {
        return;
    }
    let path = library().unwrap();
    let stream = stream();
    // Sizes whose slices and rows end at the alignment and do not.
    for (arch, size, feature) in [("small", 24, 16), ("small", 21, 70), ("resnet18", 33, 128)] {
        let network = Network::new(arch, feature).unwrap();
        let weights = Weights::start(&network.parameters(), 5);
        let input = input(size);
        let choice = Choice {
            executor: Which::OnnxRuntime,
            library: Some(path.clone()),
            ..Choice::default()
        };
        let chosen = Chosen::load(&network, &weights, &input, &choice).unwrap();
        let graph = onnx::write(&network, &weights, input.size()).unwrap();
        let library = onnxruntime::library(Some(&path)).unwrap();
        let bound = Bound::on_processor(library, &graph, (input.size(), feature)).unwrap();
        let mut batch = DeviceBatch::new(bound, &stream, &input, feature);
        // It grows, goes back, and is more than one.
        let most = if arch == "small" { TILES + 6 } else { 3 };
        let tiles = tiles(most, size);
        let tiles = slices(&tiles);
        for count in [1, 5, 2, most] {
            let some = &tiles[..count.min(most)];
            let (here, there) = (chosen.executor.forward(some), batch.forward(some));
            let here = here.unwrap();
            assert!(here.iter().flatten().any(|value| value.abs() > 1e-3));
            assert_eq!(
                bits(&there.unwrap()),
                bits(&here),
                "{arch} {size} px {count}"
            );
        }
        say(&format!("{arch} {size} begins"), "");
        batch.forward(&tiles[..most.min(8)]).unwrap();
        say(&format!("{arch} {size} ends"), "");
    }
}

#[test]
fn onnxruntime_reads_and_writes_where_tiles_lie_with_the_processors_bits_and_one_wait_a_batch() {
    if library().is_none() {
        eprintln!("skipped: WEIR_WITHOUT_ONNXRUNTIME is set");
        return;
    }
    let outcome = run(PLAIN, &told(false), "case_network").passed();
    for which in ["small 24", "small 21", "resnet18 33"] {
        one_wait(
            &outcome,
            &format!("{which} begins"),
            &format!("{which} ends"),
        );
    }
}

#[test]
#[ignore = "a case, run by the tests below"]
fn case_copies() {
    if !inside() {
        return;
    }
    let stream = stream();
    for size in [16, 21] {
        let (input, tiles) = (input(size), tiles(TILES + 9, size));
        let tiles = slices(&tiles);
        let mut batch = DeviceBatch::new(Copies::on(&stream), &stream, &input, 40);
        for count in [1, 3, TILES + 9, 8] {
            let features = batch.forward(&tiles[..count]).unwrap();
            assert_eq!(
                bits(&features),
                bits(&copied(&input, &tiles[..count], 40)),
                "{size} px, {count}"
            );
        }
        assert_eq!(batch.most(), TILES);
        say(&format!("{size} begins"), "");
        batch.forward(&tiles[..7]).unwrap();
        say(&format!("{size} ends"), "");
        assert_eq!(batch.forward(&[]).unwrap(), Vec::<Vec<f32>>::new());
    }
}

#[test]
fn bytes_numbers_passes_and_rows_follow_one_another_by_the_streams_order_alone() {
    for lazy in [false, true] {
        let outcome = run(PLAIN, &told(lazy), "case_copies").passed();
        one_wait(&outcome, "16 begins", "16 ends");
        one_wait(&outcome, "21 begins", "21 ends");
    }
}

#[test]
#[ignore = "a case, run by the test below"]
fn case_full() {
    if !inside() {
        return;
    }
    let stream = stream();
    let (input, tiles) = (input(64), tiles(TILES, 64));
    let tiles = slices(&tiles);
    let wanted = bits(&copied(&input, &tiles, 40));
    // Of the driver, which has room for some tiles.
    let mut batch = DeviceBatch::new(Copies::on(&stream), &stream, &input, 40);
    assert_eq!(bits(&batch.forward(&tiles).unwrap()), wanted);
    assert_eq!(batch.most(), 16);
    assert_eq!(bits(&batch.forward(&tiles).unwrap()), wanted);
    drop(batch);
    // Of the network.
    let passes = Copies {
        room: Some(4),
        ..Copies::on(&stream)
    };
    let mut batch = DeviceBatch::new(passes, &stream, &input, 40);
    assert_eq!(bits(&batch.forward(&tiles).unwrap()), wanted);
    assert_eq!(batch.most(), 4);
    drop(batch);
    // Of either, for a single tile.
    let passes = Copies {
        room: Some(0),
        ..Copies::on(&stream)
    };
    let error = DeviceBatch::new(passes, &stream, &input, 40).forward(&tiles);
    say("network", error.unwrap_err());
    let wide = self::tiles(1, 700);
    let error = DeviceBatch::new(Copies::on(&stream), &stream, &self::input(700), 40)
        .forward(&slices(&wide));
    say("driver", error.unwrap_err());
    // And nothing is left behind that would be in the way.
    let mut batch = DeviceBatch::new(Copies::on(&stream), &stream, &input, 40);
    assert_eq!(bits(&batch.forward(&tiles[..3]).unwrap()), wanted[..3]);
}

#[test]
fn a_batch_is_halved_until_the_devices_memory_holds_it_and_a_tile_that_it_cannot_hold_is_an_error()
{
    // A tile of 64 px is 12 KiB of bytes and 48 KiB of numbers.
    let small = Setting {
        environment: vec![("WEIR_EMU_MEMORY", (1_300_000).to_string())],
        ..Setting::default()
    };
    let outcome = run(PLAIN, &small, "case_full").passed();
    for (which, what) in [("network", "there is no more"), ("driver", "OUT_OF_MEMORY")] {
        let said = outcome.said(which);
        for part in ["`cuda:0` with copies", what, "end other programs", "`cpu`"] {
            assert!(said.contains(part), "{said}");
        }
    }
}

#[test]
#[ignore = "a case, run by the test below"]
fn case_refused() {
    if !inside() {
        return;
    }
    let stream = stream();
    let (input, all) = (input(16), tiles(TILES + 4, 16));
    let mut tiles = slices(&all);
    let passes = Copies {
        spoils: Some(2),
        ..Copies::on(&stream)
    };
    let mut batch = DeviceBatch::new(passes, &stream, &input, 40);
    // The first has no such slot.
    batch.forward(&tiles[..2]).unwrap();
    let error = batch.forward(&tiles[..4]).unwrap_err();
    assert!(
        matches!(error, ExecutorError::NonFinite { tile: 2 }),
        "{error}"
    );
    let mut batch = DeviceBatch::new(Copies::on(&stream), &stream, &input, 40);
    tiles[TILES + 1] = &[1, 2, 3];
    let error = batch.forward(&tiles).unwrap_err();
    assert!(
        matches!(error, ExecutorError::Tile(ref wrong) if wrong.bytes == 3),
        "{error}"
    );
}

#[test]
fn a_tile_of_no_finite_feature_or_of_another_size_is_refused_as_on_the_processor() {
    run(PLAIN, &Setting::default(), "case_refused").passed();
}

#[test]
#[ignore = "a case, run by the test below"]
fn case_traced() {
    if !inside() {
        return;
    }
    let stream = stream();
    stream.trace().unwrap();
    let (input, tiles) = (input(16), tiles(5, 16));
    let mut batch = DeviceBatch::new(Copies::on(&stream), &stream, &input, 40);
    batch.forward(&slices(&tiles)).unwrap();
    let ran: Vec<&str> = stream
        .take_trace()
        .unwrap()
        .iter()
        .map(|ran| ran.what)
        .collect();
    assert_eq!(
        ran,
        ["to device", "weir_tiles_units_f32", "network", "to host"]
    );
}

#[test]
fn a_batchs_copies_its_normalisation_and_its_passes_stand_in_the_streams_trace() {
    run(PLAIN, &Setting::default(), "case_traced").passed();
}
