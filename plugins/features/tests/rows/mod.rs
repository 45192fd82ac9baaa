//! Rows of made-up slides, and files of them, for the tests.
#![allow(dead_code, clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use weir_features::file::FeatureFile;
use weir_features::layout::Layout;
use weir_features::output::{About, Dtype};

pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

pub fn floats(path: &Path) -> Vec<f32> {
    let bytes = std::fs::read(path).unwrap();
    let (words, rest) = bytes.as_chunks::<4>();
    assert!(rest.is_empty());
    words.iter().map(|word| f32::from_le_bytes(*word)).collect()
}

pub fn whole(file: &FeatureFile) -> Vec<f32> {
    let mut all = vec![0.0; file.rows * file.width];
    for (row, into) in all.chunks_exact_mut(file.width).enumerate() {
        file.row(row, into).unwrap();
    }
    all
}

pub fn about(layout: Layout, dtype: Dtype, width: usize) -> About {
    About {
        layout,
        dtype,
        width,
        name: "slide-ü".into(),
        encoder: "made-up".into(),
        folder: "features".into(),
        size: (100_000, 80_000),
        mpp: Some(0.25),
        footprint: 512.0,
        tile_px: 256,
    }
}

/// Rows of numbers that f16 holds, and corners 384 px apart, so that tiles of 512 px overlap by 128: 64 of their own px.
pub fn made_up(count: usize, width: usize) -> (Vec<(i64, i64)>, Vec<f32>) {
    let corners = (0..count as i64)
        .map(|i| (i % 37 * 384, i / 37 * 384))
        .collect();
    let numbers = (0..count * width)
        .map(|i| (i * 7919 % 4001) as f32 / 8.0 - 250.0)
        .collect();
    (corners, numbers)
}

pub fn bytes(dtype: Dtype, numbers: &[f32]) -> Vec<u8> {
    let mut bytes = Vec::new();
    dtype.append(numbers, &mut bytes).unwrap();
    bytes
}
