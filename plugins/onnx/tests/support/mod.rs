//! What the tests have in common.
#![allow(dead_code)]

use std::path::{Path, PathBuf};
use weir_onnx::form::{Channels, Layout};
use weir_onnx::model::{Model, Wanted};
use weir_onnx::session::Place;

/// A model of `models/make.py`.
pub fn model(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models");
    folder.join(format!("{name}.onnx"))
}

/// A tile of `size` x `size` px: the bytes that `noise` of `models/make.py` makes.
pub fn noise(seed: u32, size: u32) -> Vec<u8> {
    let mut state = seed;
    (0..size * size * 3)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect()
}

pub fn wanted(name: &str, size: u32) -> Wanted {
    Wanted {
        model: model(name),
        place: Place::Cpu,
        input: None,
        output: None,
        layout: Layout::Nchw,
        channels: Channels::Rgb,
        scale: None,
        mean: [0.0; 3],
        std: [1.0; 3],
        size,
        batch: None,
        memory: 256 << 20,
    }
}

pub fn open(wanted: &Wanted) -> Model {
    match Model::open(wanted) {
        Ok(model) => model,
        Err(error) => panic!("{}: {error}", wanted.model.display()),
    }
}

pub fn refused(wanted: &Wanted) -> weir_plugin::Error {
    match Model::open(wanted) {
        Ok(_) => panic!("{wanted:?} was opened"),
        Err(error) => error,
    }
}

/// Every number of every row to within `tolerance`.
pub fn equal(what: &str, is: &[Vec<f32>], expected: &[Vec<f32>], tolerance: f32) {
    assert_eq!(is.len(), expected.len(), "{what}: rows");
    for (row, (is, expected)) in is.iter().zip(expected).enumerate() {
        assert_eq!(is.len(), expected.len(), "{what}: numbers of row {row}");
        for (at, (is, expected)) in is.iter().zip(expected).enumerate() {
            assert!(
                (is - expected).abs() <= tolerance,
                "{what}, row {row}, number {at}: {is} is not {expected}"
            );
        }
    }
}
