//! Both executors run the same network.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use weir_model::network::Network;
use weir_model::{Choice, Chosen, Device, Input, Weights, Which};
use weir_pipeline::model::ModelInput;

/// The library that `make setup` installs, unless the environment names one; `None` where the user said to go without.
fn library() -> Option<PathBuf> {
    if std::env::var_os("WEIR_WITHOUT_ONNXRUNTIME").is_some() {
        eprintln!("skipped: WEIR_WITHOUT_ONNXRUNTIME is set");
        return None;
    }
    let path = std::env::var_os("WEIR_ONNXRUNTIME").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../.onnxruntime/libonnxruntime.so"),
        PathBuf::from,
    );
    assert!(
        path.is_file(),
        "{} is not there; `make setup` installs it, WEIR_WITHOUT_ONNXRUNTIME=1 skips these tests",
        path.display()
    );
    Some(path)
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

/// Random weights with running statistics and scales that are not the identity.
fn weights(network: &Network, seed: u64) -> Weights {
    let parameters = network.parameters();
    let mut weights = Weights::start(&parameters, seed);
    for parameter in &parameters {
        let n: usize = parameter.shape.iter().product();
        if parameter.shape.len() == 1 {
            let wave = |k: usize| ((k * 37 + 11) % 101) as f32 / 101.0;
            let values: Vec<f32> = if parameter.name.ends_with("running_var") {
                (0..n).map(|k| 0.5 + wave(k)).collect()
            } else if parameter.name.ends_with("weight") {
                (0..n).map(|k| 0.4 + 0.4 * wave(k)).collect()
            } else {
                (0..n).map(|k| 0.2 * wave(k) - 0.1).collect()
            };
            weights.insert(&parameter.name, parameter.shape.clone(), values);
        }
    }
    weights
}

fn tiles(n: usize, size: u32) -> Vec<Vec<u8>> {
    let mut state = 7u32;
    (0..n)
        .map(|_| {
            (0..size * size * 3)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state >> 24) as u8
                })
                .collect()
        })
        .collect()
}

fn choice(executor: Which, library: Option<PathBuf>) -> Choice {
    Choice {
        executor,
        library,
        ..Choice::default()
    }
}

fn agree(arch: &str, size: u32) {
    let Some(library) = library() else { return };
    let network = Network::new(arch, 128).unwrap();
    let (weights, input) = (weights(&network, 5), input(size));
    let tiles = tiles(3, size);
    let tiles: Vec<&[u8]> = tiles.iter().map(Vec::as_slice).collect();
    let load = |which| {
        Chosen::load(
            &network,
            &weights,
            &input,
            &choice(which, Some(library.clone())),
        )
        .unwrap()
    };
    let (burn, onnx) = (load(Which::Burn), load(Which::OnnxRuntime));
    assert!(burn.invariant, "{arch}: burn is not batch-invariant");
    assert!(
        onnx.invariant,
        "{arch}: ONNX Runtime is not batch-invariant"
    );
    let (left, right) = (
        burn.executor.forward(&tiles).unwrap(),
        onnx.executor.forward(&tiles).unwrap(),
    );
    let greatest = left.iter().flatten().fold(0f32, |m, v| m.max(v.abs()));
    let apart = left
        .iter()
        .flatten()
        .zip(right.iter().flatten())
        .fold(0f32, |m, (a, b)| m.max((a - b).abs()));
    println!("{arch}: greatest feature {greatest}, executors apart by {apart}");
    assert!(greatest > 0.05, "{arch}: features {greatest} say nothing");
    assert!(apart <= 1e-4 * greatest.max(1.0), "{arch}: {apart}");
}

#[test]
fn executors_agree_to_1e_4_on_small() {
    agree("small", 50);
}

#[test]
fn executors_agree_to_1e_4_on_resnet18() {
    agree("resnet18", 64);
}

#[test]
fn executors_agree_to_1e_4_on_resnet34() {
    agree("resnet34", 48);
}

#[test]
fn executors_agree_to_1e_4_on_resnet50() {
    agree("resnet50", 40);
}

#[test]
fn features_are_the_same_bits_from_many_threads_at_once() {
    let network = Network::new("small", 16).unwrap();
    let (weights, input) = (weights(&network, 1), input(24));
    let tiles = tiles(8, 24);
    let mut choices = vec![choice(Which::Burn, None)];
    if let Some(library) = library() {
        choices.push(choice(Which::OnnxRuntime, Some(library)));
    }
    for choice in choices {
        let chosen = Chosen::load(&network, &weights, &input, &choice).unwrap();
        let all: Vec<&[u8]> = tiles.iter().map(Vec::as_slice).collect();
        let expected = chosen.executor.forward(&all).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (chosen, tiles, expected) = (&chosen, &tiles, &expected);
                scope.spawn(move || {
                    for k in 0..16 {
                        let tile = (k * 3 + thread) % tiles.len();
                        let got = chosen.executor.forward(&[&tiles[tile]]).unwrap();
                        assert_eq!(got[0], expected[tile]);
                    }
                });
            }
        });
    }
}

#[test]
fn a_library_that_is_named_and_not_there_is_an_error_even_for_auto() {
    let network = Network::new("small", 16).unwrap();
    let (weights, input) = (weights(&network, 1), input(24));
    // Another test of this process may have loaded the library already, which then stays; a device cannot be there.
    let choice = Choice {
        executor: Which::Burn,
        device: Device::Cuda(7),
        ..Choice::default()
    };
    let error = Chosen::load(&network, &weights, &input, &choice).unwrap_err();
    assert!(error.to_string().contains("cuda:7"), "{error}");
}

#[test]
fn a_tile_of_another_size_is_an_error_that_names_both_sizes() {
    let network = Network::new("small", 16).unwrap();
    let chosen = Chosen::load(
        &network,
        &weights(&network, 1),
        &input(24),
        &choice(Which::Burn, None),
    )
    .unwrap();
    let error = chosen.executor.forward(&[&[0u8; 300]]).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("300 bytes") && text.contains("24 x 24"),
        "{text}"
    );
}

#[test]
fn a_tile_too_small_for_the_pools_is_refused_at_load() {
    let network = Network::new("small", 16).unwrap();
    let error = Chosen::load(
        &network,
        &weights(&network, 1),
        &input(4),
        &choice(Which::Burn, None),
    )
    .unwrap_err();
    let least = (1..64).find(|&side| network.check_tile(side).is_ok());
    let named = format!("at least {} px", least.unwrap());
    assert!(error.to_string().contains(&named), "{error}");
}
