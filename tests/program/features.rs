//! Writes files of features as other programs do: safetensors, and numpy's format.
#![allow(dead_code)]

use half::{bf16, f16};
use std::io;
use std::path::Path;

/// Type of the features.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    F32,
    F16,
    Bf16,
}

impl Dtype {
    fn bytes(self, value: f32) -> Vec<u8> {
        match self {
            Dtype::F32 => value.to_le_bytes().to_vec(),
            Dtype::F16 => f16::from_f32(value).to_le_bytes().to_vec(),
            Dtype::Bf16 => bf16::from_f32(value).to_le_bytes().to_vec(),
        }
    }
}

fn numbers(dtype: Dtype, rows: &[Vec<f32>]) -> Vec<u8> {
    let all = rows.iter().flatten();
    all.flat_map(|value| dtype.bytes(*value)).collect()
}

fn places(corners: &[(i64, i64)]) -> Vec<u8> {
    let all = corners.iter().flat_map(|(x, y)| [*x, *y]);
    all.flat_map(i64::to_le_bytes).collect()
}

/// `rows` as the array `name`, `corners` as `coords` in i64, and `words` of metadata.
pub fn safetensors(
    path: &Path,
    name: &str,
    dtype: Dtype,
    rows: &[Vec<f32>],
    corners: Option<&[(i64, i64)]>,
    words: &[(&str, &str)],
) -> io::Result<()> {
    let width = rows.first().map_or(0, Vec::len);
    let mut data = numbers(dtype, rows);
    let code = match dtype {
        Dtype::F32 => "F32",
        Dtype::F16 => "F16",
        Dtype::Bf16 => "BF16",
    };
    let mut entries: Vec<String> = Vec::new();
    if !words.is_empty() {
        let words = words.iter().map(|(key, text)| format!("{key:?}:{text:?}"));
        let words: Vec<String> = words.collect();
        entries.push(format!("\"__metadata__\":{{{}}}", words.join(",")));
    }
    entries.push(format!(
        "{name:?}:{{\"dtype\":\"{code}\",\"shape\":[{},{width}],\"data_offsets\":[0,{}]}}",
        rows.len(),
        data.len()
    ));
    if let Some(corners) = corners {
        let from = data.len();
        data.extend(places(corners));
        entries.push(format!(
            "\"coords\":{{\"dtype\":\"I64\",\"shape\":[{},2],\"data_offsets\":[{from},{}]}}",
            corners.len(),
            data.len()
        ));
    }
    let mut header = format!("{{{}}}", entries.join(","));
    while !header.len().is_multiple_of(8) {
        header.push(' ');
    }
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend(data);
    std::fs::write(path, file)
}

fn array(descr: &str, shape: [usize; 2], data: &[u8]) -> Vec<u8> {
    let mut header = format!(
        "{{'descr': '{descr}', 'fortran_order': False, 'shape': ({}, {}), }}",
        shape[0], shape[1]
    );
    while !(header.len() + 11).is_multiple_of(64) {
        header.push(' ');
    }
    header.push('\n');
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend((header.len() as u16).to_le_bytes());
    file.extend(header.as_bytes());
    file.extend(data);
    file
}

/// `rows` as NAME.npy, and `corners` as NAME.coords.npy beside it. Numpy has no bf16.
pub fn npy(
    path: &Path,
    dtype: Dtype,
    rows: &[Vec<f32>],
    corners: Option<&[(i64, i64)]>,
) -> io::Result<()> {
    let width = rows.first().map_or(0, Vec::len);
    let descr = match dtype {
        Dtype::F32 => "<f4",
        Dtype::F16 => "<f2",
        Dtype::Bf16 => return Err(io::Error::other("numpy has no bf16")),
    };
    std::fs::write(
        path,
        array(descr, [rows.len(), width], &numbers(dtype, rows)),
    )?;
    if let Some(corners) = corners {
        let beside = path.with_extension("coords.npy");
        std::fs::write(beside, array("<i8", [corners.len(), 2], &places(corners)))?;
    }
    Ok(())
}
