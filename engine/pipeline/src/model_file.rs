//! Of `weights.safetensors`, the header and the hash: enough to know that it belongs to its `model.toml`.

use crate::ModelHeader;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

/// Why the weights cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelFault {
    /// Which kind of fault.
    pub kind: FaultKind,
    /// The file.
    pub file: PathBuf,
    /// What is wrong.
    pub what: String,
    /// What to do; may be empty.
    pub help: String,
}

/// Kinds of faults of weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// The file is missing or is not what its name says.
    Unreadable,
    /// The hash is not the one that `model.toml` says.
    Hash,
    /// They are not those of the network that `model.toml` describes.
    Weights,
}

impl fmt::Display for ModelFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file.display(), self.what)?;
        if !self.help.is_empty() {
            write!(f, "; {}", self.help)?;
        }
        Ok(())
    }
}

impl std::error::Error for ModelFault {}

/// The safetensors format's own limit of its header.
const HEADER_LIMIT: u64 = 100_000_000;

/// Reads of `weights.safetensors` the header and the hash, and holds both against `model.toml`. The weights are not kept.
pub fn check_weights(header: &ModelHeader) -> Result<(), ModelFault> {
    let arrays = read_weights(header)?;
    // Every network of weir ends in the linear layer `feature`; what else it has is the loader's affair.
    let rows = arrays
        .get("feature.weight")
        .and_then(|shape| shape.first().copied());
    if rows == Some(u64::from(header.feature)) {
        return Ok(());
    }
    Err(ModelFault {
        kind: FaultKind::Weights,
        file: header.weights(),
        what: match rows {
            None => "there is no array `feature.weight`".into(),
            Some(rows) => format!(
                "`feature.weight` has {rows} rows, and model.toml says feature = {}",
                header.feature
            ),
        },
        help: "the file belongs to another model.toml; take both from the same training".into(),
    })
}

/// An I/O error without the number that nobody reads.
pub(crate) fn said(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".into(),
        io::ErrorKind::PermissionDenied => "it may not be read by this user".into(),
        io::ErrorKind::IsADirectory => "it is a folder".into(),
        io::ErrorKind::NotADirectory => "a part of its path is a file, not a folder".into(),
        io::ErrorKind::InvalidData => "it is not UTF-8 text".into(),
        _ => error.to_string(),
    }
}

/// Array's name -> shape; after the hash and the lengths were checked.
fn read_weights(header: &ModelHeader) -> Result<BTreeMap<String, Vec<u64>>, ModelFault> {
    let file = header.weights();
    let fault = |kind, what: String, help: String| ModelFault {
        kind,
        file: file.clone(),
        what,
        help,
    };
    let unreadable = |what: String| fault(FaultKind::Unreadable, what, String::new());
    let io = |error: io::Error| unreadable(said(&error));
    let mut open = File::open(&file).map_err(io)?;
    let length = open.metadata().map_err(io)?.len();
    let mut hash = Sha256::new();
    let mut size = [0; 8];
    open.read_exact(&mut size)
        .map_err(|_| unreadable("it is too short for a safetensors file".into()))?;
    hash.update(size);
    let size = u64::from_le_bytes(size);
    if size > HEADER_LIMIT || size > length.saturating_sub(8) {
        return Err(unreadable(
            "it is not a safetensors file, or it was cut off in its header".into(),
        ));
    }
    let mut json = vec![0; size as usize];
    open.read_exact(&mut json).map_err(io)?;
    hash.update(&json);
    let arrays = arrays(&json, length - 8 - size).map_err(unreadable)?;
    let mut piece = vec![0; 1 << 20];
    loop {
        match open.read(&mut piece).map_err(io)? {
            0 => break,
            n => hash.update(&piece[..n]),
        }
    }
    let found = hex(&hash.finalize());
    if found != header.sha256 {
        return Err(fault(
            FaultKind::Hash,
            format!(
                "its SHA-256 is {found}, and model.toml says {}",
                header.sha256
            ),
            "take both files from the same training, or copy them again".into(),
        ));
    }
    Ok(arrays)
}

/// The arrays of a safetensors header, which must fill `data` bytes.
fn arrays(json: &[u8], data: u64) -> Result<BTreeMap<String, Vec<u64>>, String> {
    // The crate checks that the arrays lie behind each other without gaps and that each has the length of its shape.
    let header: safetensors::tensor::Metadata = serde_json::from_slice(json)
        .map_err(|error| format!("its header is not a safetensors header: {error}"))?;
    if header.data_len() as u64 != data {
        return Err(format!(
            "its arrays take {} bytes, and {data} are there: it was cut off or joined with something",
            header.data_len()
        ));
    }
    Ok(header
        .tensors()
        .into_iter()
        .map(|(name, info)| {
            let shape = info.shape.iter().map(|side| *side as u64).collect();
            (name, shape)
        })
        .collect())
}

/// Hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
