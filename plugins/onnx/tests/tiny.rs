//! Tiny models of every form against what onnxruntime in Python said of them (models/make.py).
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use support::{equal, model, noise, open, refused, wanted};
use weir_onnx::form::{Channels, Layout};
use weir_onnx::model::Wanted;

const TILES: usize = 7;

fn expected(case: &str) -> Vec<Vec<f32>> {
    let all: BTreeMap<String, Vec<Vec<f32>>> =
        serde_json::from_str(include_str!("models/expected.json")).unwrap();
    all[case].clone()
}

/// The model's numbers of the tiles of `models/make.py`, in calls of so many.
fn forward(wanted: &Wanted, of_a_call: usize) -> Vec<Vec<f32>> {
    let model = open(wanted);
    let tiles: Vec<Vec<u8>> = (0..TILES as u32)
        .map(|seed| noise(seed, wanted.size))
        .collect();
    let tiles: Vec<&[u8]> = tiles.iter().map(Vec::as_slice).collect();
    tiles
        .chunks(of_a_call)
        .flat_map(|tiles| {
            let numbers = model.forward(tiles, || false).unwrap();
            numbers
                .chunks_exact(model.width())
                .map(<[f32]>::to_vec)
                .collect::<Vec<_>>()
        })
        .collect()
}

fn imagenet(model: &str, size: u32) -> Wanted {
    Wanted {
        mean: [0.485, 0.456, 0.406],
        std: [0.229, 0.224, 0.225],
        ..wanted(model, size)
    }
}

fn cases() -> Vec<(&'static str, Wanted)> {
    let of = |model: &str, output: &str| Wanted {
        output: Some(output.to_owned()),
        ..wanted(model, 24)
    };
    vec![
        ("open-24", wanted("open", 24)),
        (
            "open-31-bgr",
            Wanted {
                channels: Channels::Bgr,
                ..imagenet("open", 31)
            },
        ),
        (
            "nhwc",
            Wanted {
                layout: Layout::Nhwc,
                scale: Some(127.5),
                mean: [1.0; 3],
                ..wanted("nhwc", 24)
            },
        ),
        ("batch4", imagenet("batch4", 24)),
        ("f16", imagenet("f16", 24)),
        ("map", of("map", "pooled")),
        ("classes-logits", of("classes", "logits")),
        ("classes-probabilities", of("classes", "probabilities")),
        ("classes-one", of("classes", "one")),
        (
            "u8",
            Wanted {
                layout: Layout::Nhwc,
                ..wanted("u8", 24)
            },
        ),
        ("place", wanted("place", 24)),
    ]
}

#[test]
fn every_form_of_model_says_what_onnxruntime_in_python_says() {
    for (case, wanted) in cases() {
        equal(case, &forward(&wanted, TILES), &expected(case), 1e-4);
    }
}

#[test]
fn a_tiles_numbers_are_the_same_bits_in_every_batch_and_for_every_size_of_a_pass() {
    for (case, wanted) in cases() {
        let open_batch = !matches!(case, "batch4" | "place");
        for batch in [1, 2, 5, 16] {
            let wanted = Wanted {
                batch: open_batch.then_some(batch),
                ..wanted.clone()
            };
            let alone = forward(&wanted, 1);
            for of_a_call in [2, 3, TILES] {
                assert_eq!(
                    forward(&wanted, of_a_call),
                    alone,
                    "{case}, passes of {batch}"
                );
            }
        }
    }
}

#[test]
fn a_model_whose_rows_hang_on_their_place_gets_one_tile_a_pass() {
    assert!(open(&wanted("place", 24)).is_alone());
    let batch4 = open(&wanted("batch4", 24));
    assert!(!batch4.is_alone());
    assert_eq!(batch4.tiles_of_a_pass(), 4);
}

#[test]
fn many_threads_get_the_same_bits_from_one_session() {
    let wanted = imagenet("open", 31);
    let model = open(&wanted);
    let tiles: Vec<Vec<u8>> = (0..32).map(|seed| noise(seed, 31)).collect();
    let tiles: Vec<&[u8]> = tiles.iter().map(Vec::as_slice).collect();
    let alone = model.forward(&tiles, || false).unwrap();
    std::thread::scope(|scope| {
        let runs: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    (0..10)
                        .map(|_| model.forward(&tiles, || false).unwrap())
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        for run in runs {
            for numbers in run.join().unwrap() {
                assert_eq!(numbers, alone);
            }
        }
    });
}

#[test]
fn a_stopped_run_ends_between_passes() {
    let model = open(&wanted("open", 24));
    let tile = noise(1, 24);
    let error = model.forward(&[&tile, &tile], || true).unwrap_err();
    assert_eq!(error, weir_plugin::Error::cancelled());
}

#[test]
fn what_does_not_fit_names_the_parameter_and_says_what_the_model_takes_and_gives() {
    let of = |model: &str, output: &str| Wanted {
        output: Some(output.to_owned()),
        ..wanted(model, 24)
    };
    let cases = [
        (
            wanted("nhwc", 24),
            "input-layout",
            "as nchw, x: f32[n, 24, 24, 3] takes 24 channels, and pixels have 3",
        ),
        (
            wanted("batch4", 32),
            "size",
            "the model takes tiles of 24 px, not 32",
        ),
        (
            Wanted {
                batch: Some(8),
                ..wanted("batch4", 24)
            },
            "batch",
            "the model takes batches of 4 tiles, and no others, not 8",
        ),
        (
            wanted("classes", 24),
            "output",
            "which output is it? The model has logits, probabilities, class, one",
        ),
        (
            of("classes", "score"),
            "output",
            "the model has no output `score`: it has logits, probabilities, class, one",
        ),
        (
            of("classes", "class"),
            "output",
            "class: i64[n] has no numbers of type f32 or f16",
        ),
        (
            of("map", "relu"),
            "output",
            "`relu` is [1, 8, 12, 12]: a tile's part is a map, not one vector; export the model with its pooling, or name another output",
        ),
        (
            Wanted {
                input: Some("pixels".to_owned()),
                ..wanted("open", 24)
            },
            "input",
            "the model has no input `pixels`: it has x",
        ),
        (
            Wanted {
                input: Some("x".to_owned()),
                ..wanted("two", 24)
            },
            "model",
            "it takes 2 inputs, and only pixels can be given",
        ),
        (
            Wanted {
                layout: Layout::Nhwc,
                mean: [0.5; 3],
                ..wanted("u8", 24)
            },
            "mean",
            "the model takes pixels as they are (u8), so nothing can be done to them before",
        ),
    ];
    for (wanted, param, message) in cases {
        let error = refused(&wanted);
        assert_eq!(error.of_which_param(), param, "{error}");
        assert_eq!(error.message(), message);
        let help = error.what_to_do();
        assert!(
            help.contains("the model takes x: ") && help.contains("; gives "),
            "{help}"
        );
    }
}

#[test]
fn a_file_that_is_no_model_is_the_parameters_fault() {
    let file = tempfile::Builder::new().suffix(".onnx").tempfile().unwrap();
    std::fs::write(file.path(), "no model").unwrap();
    let error = refused(&Wanted {
        model: file.path().to_owned(),
        ..wanted("open", 24)
    });
    assert_eq!(error.of_which_param(), "model");
    assert!(error.message().contains("does not take"), "{error}");
}

#[test]
fn a_tile_of_another_size_is_refused() {
    let model = open(&wanted("open", 24));
    let error = model.forward(&[&noise(0, 23)], || false).unwrap_err();
    assert_eq!(
        error.message(),
        "a tile has 1587 bytes, and the model takes 1728"
    );
}

#[test]
fn a_model_says_what_it_takes_and_gives() {
    let text = |name: &str, output: &str| {
        open(&Wanted {
            output: Some(output.to_owned()),
            ..wanted(name, 24)
        })
        .signature()
        .to_string()
    };
    assert_eq!(
        text("classes", "one"),
        "takes x: f32[n, 3, 24, 24]; gives logits: f32[n, 3] and probabilities: f32[n, 3] and class: i64[n] and one: f32[n, 1]"
    );
    assert_eq!(
        text("map", "pooled"),
        "takes x: f32[n, 3, size, size]; gives pooled: f32[n, 8, 1, 1] and relu: f32[n, 8, h, w]"
    );
    assert!(model("f16").is_file());
}
