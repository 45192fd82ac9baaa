//! The two stages as a host runs them.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use support::{model, noise};
use weir_onnx::encoder::Encoder;
use weir_onnx::scorer::Scorer;
use weir_plugin::harness::{self, Done, Library, Rows, Setup, Stage};

fn setup<T: weir_plugin::export::Declared>(name: &str) -> Setup {
    harness::stage::<T>()
        .set("model", model(name).to_str().unwrap())
        .set("size", 24)
        .set("mpp", 0.5)
}

fn tiles(count: u32) -> Rows {
    (0..count).fold(Rows::pixels(24, 24).scale(24.0, 0.5), |rows, seed| {
        let slide = if seed % 2 == 0 { "a" } else { "b" };
        rows.push(slide, i64::from(seed) * 24, 0, &noise(seed, 24))
    })
}

/// A column of every row.
fn column(done: &Done, port: &str, count: usize, column: &str) -> Vec<Vec<f32>> {
    (0..count)
        .map(|i| done.row::<f32>(port, i, column).unwrap().to_vec())
        .collect()
}

fn refusal(setup: Setup) -> weir_plugin::Error {
    setup.start().err().unwrap()
}

fn probabilities(stage: &Stage, count: u32) -> (Vec<Vec<f32>>, Vec<Vec<f32>>) {
    let done = stage.process(tiles(count)).unwrap();
    let of = |name| column(&done, "scores", count as usize, name);
    (of("score"), of("probabilities"))
}

#[test]
fn the_encoder_gives_the_models_vector_of_each_tile_whatever_its_batch() {
    let stage = setup::<Encoder>("map")
        .set("output", "pooled")
        .set("features", 8)
        .set("batch", 4)
        .start()
        .unwrap();
    let done = stage.process(tiles(7)).unwrap();
    let all = column(&done, "features", 7, "features");
    for i in 0..7 {
        let one = Rows::pixels(24, 24).push("a", 0, 0, &noise(i, 24));
        let done = stage.process(one).unwrap();
        assert_eq!(column(&done, "features", 1, "features")[0], all[i as usize]);
    }
    let log = stage.log();
    assert!(
        log.iter().any(|line| {
            line.text.contains("tiles of 24 px at 0.5 um/px: takes x: f32[n, 3, size, size]; gives pooled: f32[n, 8, 1, 1]")
                && line.text.contains("reads 8 numbers of `pooled`; tiles of a pass: 4")
        }),
        "{log:?}"
    );
    stage.end().unwrap();
}

#[test]
fn the_scorer_makes_probabilities_of_logits_and_ranks_by_the_positive_class() {
    let of = |output: &str, activation: &str| {
        setup::<Scorer>("classes")
            .set("output", output)
            .set("activation", activation)
            .set("classes", 3)
            .set("positive", 1)
            .start()
            .unwrap()
    };
    let (score, own) = probabilities(&of("logits", "softmax"), 5);
    let (_, models) = probabilities(&of("probabilities", "none"), 5);
    support::equal("softmax", &own, &models, 1e-6);
    for (score, row) in score.iter().zip(&own) {
        assert_eq!(score, &row[1..2]);
    }
    let (_, each) = probabilities(&of("logits", "sigmoid"), 5);
    assert!(
        each.iter()
            .all(|row| row.iter().all(|it| (0.0..=1.0).contains(it)))
    );
    assert_ne!(each, own);
}

#[test]
fn one_logit_of_two_classes_is_the_ranked_ones() {
    for positive in [0, 1] {
        let stage = setup::<Scorer>("classes")
            .set("output", "one")
            .set("activation", "sigmoid")
            .set("classes", 2)
            .set("positive", positive)
            .start()
            .unwrap();
        let (score, rows) = probabilities(&stage, 3);
        for (score, row) in score.iter().zip(&rows) {
            assert_eq!(score[0], row[positive]);
            assert!((row[0] + row[1] - 1.0).abs() < 1e-6);
        }
    }
}

#[test]
fn a_tile_without_a_finite_number_fails_and_the_others_go_on() {
    let stage = setup::<Encoder>("log").set("features", 3).start().unwrap();
    let rows = Rows::pixels(24, 24)
        .push("a", 0, 0, &[10_u8; 24 * 24 * 3])
        .push("a", 24, 0, &[250_u8; 24 * 24 * 3])
        .push("a", 48, 0, &[20_u8; 24 * 24 * 3]);
    let done = stage.process(rows).unwrap();
    assert_eq!(done.kept(), [0, 2]);
    let (row, error) = &done.failed()[0];
    assert_eq!(*row, 1);
    assert_eq!(
        error.message(),
        "the model made no finite number of the tile"
    );
    stage.end().unwrap();
}

#[test]
fn numbers_that_are_no_probabilities_fail_the_tile() {
    let stage = setup::<Scorer>("open")
        .set("activation", "none")
        .set("classes", 6)
        .set("positive", 0)
        .start()
        .unwrap();
    let done = stage.process(tiles(2)).unwrap();
    assert_eq!(done.count("scores"), 0);
    assert_eq!(done.failed().len(), 2);
    assert!(done.failed()[0].1.message().contains("no probability"));
}

#[test]
fn sizes_that_the_model_does_not_give_are_their_parameters_fault() {
    let error = refusal(setup::<Encoder>("open").set("features", 7));
    assert_eq!(error.of_which_param(), "features");
    assert_eq!(
        error.message(),
        "the model gives 6 numbers of a tile, not 7"
    );
    assert_eq!(
        error.what_to_do(),
        "the model takes x: f32[n, 3, height, width]; gives y: f32[n, 6]"
    );
    let error = refusal(setup::<Scorer>("open").set("classes", 2));
    assert_eq!(error.of_which_param(), "classes");
    let error = refusal(setup::<Scorer>("open").set("classes", 6));
    assert_eq!(error.of_which_param(), "positive");
    let error = refusal(setup::<Scorer>("open").set("classes", 6).set("positive", 6));
    assert_eq!(error.message(), "there is no class 6: they are 0 to 5");
    let error = refusal(
        setup::<Scorer>("classes")
            .set("output", "one")
            .set("classes", 2),
    );
    assert_eq!(error.of_which_param(), "activation");
    let error = refusal(setup::<Encoder>("open").set("features", 6).set("mean", "a"));
    assert_eq!(error.of_which_param(), "mean");
    let error = refusal(
        setup::<Encoder>("open")
            .set("features", 6)
            .set("std", "1, 0, 1"),
    );
    assert_eq!(error.of_which_param(), "std");
}

#[test]
fn a_device_that_the_runtime_cannot_use_is_said() {
    let started = setup::<Encoder>("open")
        .set("features", 6)
        .set("device", "cuda")
        .start();
    match started {
        Ok(_) => println!("SKIPPED: ONNX Runtime can use this machine's CUDA device"),
        Err(error) => {
            assert_eq!(error.of_which_param(), "device");
            assert!(error.what_to_do().contains("onnxruntime-gpu"), "{error}");
        }
    }
}

/// The library that cargo built beside this test.
fn library() -> Library {
    let here = std::env::current_exe().unwrap();
    Library::open(&here.parent().unwrap().join("libweir_onnx.so")).unwrap()
}

#[test]
fn a_file_is_described_before_there_is_a_pipeline() {
    let library = library();
    let said: Vec<String> = library
        .describe(&model("classes"))
        .unwrap()
        .into_iter()
        .map(|line| line.text)
        .collect();
    assert_eq!(
        said[..5],
        [
            "takes x: f32[n, 3, 24, 24]  # input-layout = \"nchw\", size = 24",
            "gives logits: f32[n, 3]  # output = \"logits\", features or classes = 3",
            "gives probabilities: f32[n, 3]  # output = \"probabilities\", features or classes = 3",
            "gives class: i64[n]",
            "gives one: f32[n, 1]  # output = \"one\", features or classes = 1",
        ]
    );
    assert_eq!(
        said[5],
        "a stage needs to be told which of its 4 outputs: `output`"
    );
    assert!(
        said[6].starts_with("holds ")
            && said[6].ends_with(" MiB for its weights; a pass comes to that"),
        "{said:?}"
    );
    assert!(said[7].starts_with("read by ONNX Runtime "), "{said:?}");
    let error = library.describe(Path::new(file!())).unwrap_err();
    assert!(error.message().contains("does not take"), "{error}");
    assert_eq!(error.of_which_param(), "");
}

#[test]
fn the_library_runs_as_it_is_loaded() {
    let stage = library()
        .stage("onnx.encoder")
        .unwrap()
        .set("model", model("open").to_str().unwrap())
        .set("features", 6)
        .set("size", 24)
        .set("mpp", 0.5)
        .start()
        .unwrap();
    let done = stage.process(tiles(3)).unwrap();
    assert_eq!(done.count("features"), 3);
    stage.end().unwrap();
}

/// The demo's networks, in passes of eight: what the pipeline runs.
#[test]
fn the_demos_networks_take_the_demos_tiles() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../pipelines/models/demo");
    let demo = |setup: Setup, file: &str| {
        setup
            .set("model", folder.join(file).to_str().unwrap())
            .set("size", 50)
            .set("mpp", 4.0)
            .set("mean", "0.805, 0.619, 0.723")
            .set("std", "0.148, 0.208, 0.153")
            .set("batch", 8)
    };
    let glass = Rows::pixels(50, 50).push("a", 0, 0, &[255_u8; 50 * 50 * 3]);
    let scorer = demo(
        harness::stage::<Scorer>().set("classes", 2),
        "a/scorer.onnx",
    );
    let done = scorer.start().unwrap().process(glass.clone()).unwrap();
    assert!(done.row::<f32>("scores", 0, "score").unwrap()[0] < 0.5);
    let encoder = demo(
        harness::stage::<Encoder>().set("features", 128),
        "b/encoder.onnx",
    );
    let done = encoder.start().unwrap().process(glass).unwrap();
    assert_eq!(
        done.row::<f32>("features", 0, "features").unwrap().len(),
        128
    );
}
