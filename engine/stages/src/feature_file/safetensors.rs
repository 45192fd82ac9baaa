//! Features in a safetensors file: the arrays `features` and `coords`, and a few words of metadata.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::Metadata;

use super::number::Number;
use super::{Array, Described, Fault, FeatureFile, Said, said};

/// Names of the array of features, the first that is there.
const FEATURES: [&str; 3] = ["features", "feats", "embeddings"];
/// Name of the array of corners.
const COORDS: &str = "coords";
/// Longest header, bytes: that of a file of two arrays has some hundred.
const LONGEST: u64 = 1 << 20;

pub(super) fn open(path: &Path, array: Option<&str>) -> Result<FeatureFile, Fault> {
    let file = File::open(path).map_err(|error| said(path, 0, &error))?;
    let length = file
        .metadata()
        .map_err(|error| said(path, 0, &error))?
        .len();
    let cut = |what: &str| {
        Fault::new(path, length, what).help("the file was cut off, or is no safetensors file")
    };
    let mut size = [0; 8];
    file.read_exact_at(&mut size, 0)
        .map_err(|_| cut("the file ends before its header"))?;
    let size = u64::from_le_bytes(size);
    if size > LONGEST {
        let what = format!("a header of {size} bytes, where features have some hundred");
        return Err(Fault::new(path, 0, what).help("this is no safetensors file of features"));
    }
    let mut json = vec![0; size as usize];
    file.read_exact_at(&mut json, 8)
        .map_err(|_| cut("the file ends in its header"))?;
    // The crate checks that the arrays lie behind each other without gaps and that each has the length of its shape.
    let header: Metadata = serde_json::from_slice(&json)
        .map_err(|error| Fault::new(path, 8, format!("this is no safetensors header: {error}")))?;
    let data = 8 + size;
    let end = (header.data_len() as u64).saturating_add(data);
    if end > length {
        let what = format!("the file ends here, but its arrays should reach byte {end}");
        return Err(Fault::new(path, length, what).help("the file was cut off: write it again"));
    }
    let describe = |name: &str| -> Option<Result<Described, Fault>> {
        let info = header.info(name)?;
        let number = match info.dtype {
            Dtype::F16 => Number::F16,
            Dtype::BF16 => Number::Bf16,
            Dtype::F32 => Number::F32,
            Dtype::F64 => Number::F64,
            Dtype::I16 => Number::I16,
            Dtype::I32 => Number::I32,
            Dtype::I64 => Number::I64,
            Dtype::U16 => Number::U16,
            Dtype::U32 => Number::U32,
            Dtype::U64 => Number::U64,
            other => {
                let what = format!("`{name}` is of the type {other:?}, which is not read here");
                return Some(Err(Fault::new(path, None, what)));
            }
        };
        Some(Ok(Described {
            name: name.to_owned(),
            number,
            shape: info.shape.clone(),
            byte: data + info.data_offsets.0 as u64,
        }))
    };
    let wanted: Vec<&str> = array.map_or(FEATURES.to_vec(), |name| vec![name]);
    let Some(features) = wanted.iter().find_map(|name| describe(name)) else {
        let mut names: Vec<String> = header.tensors().into_keys().collect();
        names.sort();
        let what = format!(
            "there is no array `{}`; it has: {}",
            wanted.join("` or `"),
            names.join(", ")
        );
        return Err(
            Fault::new(path, None, what).help("say which one holds the features: array = \"NAME\"")
        );
    };
    let features = Array::new(file, path, features?)?;
    let coords = match describe(COORDS) {
        None => None,
        Some(coords) => {
            let again = features
                .file
                .try_clone()
                .map_err(|error| said(path, 0, &error))?;
            Some(Array::new(again, path, coords?)?)
        }
    };
    let said = metadata(path, header.metadata())?;
    FeatureFile::new(features, coords, said, "safetensors")
}

fn metadata(path: &Path, words: &Option<HashMap<String, String>>) -> Result<Said, Fault> {
    let number = |keys: &[&str]| -> Result<Option<f64>, Fault> {
        let words = words.as_ref();
        let Some((key, text)) = keys.iter().find_map(|key| Some((key, words?.get(*key)?))) else {
            return Ok(None);
        };
        match text.trim().parse::<f64>() {
            Ok(number) if number.is_finite() && number > 0.0 => Ok(Some(number)),
            _ => {
                let what = format!("its metadata says {key} = {text:?}, which is no size");
                Err(Fault::new(path, 8, what))
            }
        }
    };
    Ok(Said {
        tile_size: number(&["tile_size", "patch_size_level0"])?,
        mpp: number(&["mpp"])?,
    })
}
