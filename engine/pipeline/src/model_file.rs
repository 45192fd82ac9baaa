//! Reading a model's folder: `model.toml` whole, and of `weights.safetensors` the header and the hash.

use crate::ModelHeader;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Why a model cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelFault {
    /// Which kind of fault.
    pub kind: FaultKind,
    /// The file.
    pub file: PathBuf,
    /// Line and column in it, from 1.
    pub at: Option<(usize, usize)>,
    /// What is wrong.
    pub what: String,
    /// What to do; may be empty.
    pub help: String,
}

/// Kinds of faults of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// A file is missing or is not what its name says.
    Unreadable,
    /// The weights' hash is not the one that `model.toml` says.
    Hash,
    /// The weights are not those of the network that `model.toml` describes.
    Weights,
}

impl fmt::Display for ModelFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some((line, column)) = self.at {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}", self.what)?;
        if !self.help.is_empty() {
            write!(f, "; {}", self.help)?;
        }
        Ok(())
    }
}

impl std::error::Error for ModelFault {}

/// `model.toml` of a network is a page; more is something else.
const HEADER_LIMIT: u64 = 4 << 20;

/// The safetensors format's own limit.
const TENSORS_LIMIT: u64 = 100_000_000;

impl ModelHeader {
    /// Reads `folder/model.toml`, and of `folder/weights.safetensors` the header and the hash, and holds the three against
    /// each other. The weights themselves are not kept.
    pub fn load(folder: &Path) -> Result<Self, ModelFault> {
        let header = Self::read(folder)?;
        let arrays = read_weights(&header)?;
        // Every network of weir ends in the linear layer `feature`; what else it has is the loader's affair.
        let rows = arrays
            .get("feature.weight")
            .and_then(|shape| shape.first().copied());
        if rows != Some(u64::from(header.feature)) {
            return Err(ModelFault {
                kind: FaultKind::Weights,
                file: header.weights(),
                at: None,
                what: match rows {
                    None => "there is no array `feature.weight`".into(),
                    Some(rows) => format!(
                        "`feature.weight` has {rows} rows, and model.toml says feature = {}",
                        header.feature
                    ),
                },
                help: "the file belongs to another model.toml; take both from the same training"
                    .into(),
            });
        }
        Ok(header)
    }

    /// Reads `folder/model.toml` alone.
    pub fn read(folder: &Path) -> Result<Self, ModelFault> {
        let file = folder.join("model.toml");
        let fault = |at, what: String, help: &str| ModelFault {
            kind: FaultKind::Unreadable,
            file: file.clone(),
            at,
            what,
            help: help.to_owned(),
        };
        let mut text = String::new();
        File::open(&file)
            .and_then(|file| file.take(HEADER_LIMIT + 1).read_to_string(&mut text))
            .map_err(|error| {
                let help = if !folder.is_dir() {
                    "a model is a folder with model.toml and weights.safetensors"
                } else if error.kind() == io::ErrorKind::NotFound {
                    "the folder holds no model; `weir train` writes one"
                } else {
                    ""
                };
                fault(None, said(&error), help)
            })?;
        if text.len() as u64 > HEADER_LIMIT {
            return Err(fault(
                None,
                "larger than 4 MiB".into(),
                "this is no model.toml",
            ));
        }
        let mut header: ModelHeader = toml::from_str(&text).map_err(|error| {
            let at = error.span().map(|span| position(&text, span.start));
            fault(at, error.message().trim_end().replace('\n', ", "), "")
        })?;
        if let Some((key, wanted)) = header.nonsense() {
            let at = place_of(&text, key);
            return Err(fault(at, format!("`{key}` makes no sense: {wanted}"), ""));
        }
        header.sha256.make_ascii_lowercase();
        header.folder = folder.to_owned();
        Ok(header)
    }
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

fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let start = before.rfind('\n').map_or(0, |at| at + 1);
    (
        before.matches('\n').count() + 1,
        before[start..].chars().count() + 1,
    )
}

/// Where the last part of a key stands.
fn place_of(text: &str, key: &str) -> Option<(usize, usize)> {
    let last = key.rsplit('.').next()?;
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        let rest = line.trim_start().strip_prefix(last);
        if rest.is_some_and(|rest| rest.trim_start().starts_with('=')) {
            return Some(position(
                text,
                offset + line.len() - line.trim_start().len(),
            ));
        }
        offset += line.len();
    }
    None
}

/// Array's name -> shape; after the hash and the lengths were checked.
fn read_weights(header: &ModelHeader) -> Result<BTreeMap<String, Vec<u64>>, ModelFault> {
    let file = header.weights();
    let fault = |kind, what: String, help: String| ModelFault {
        kind,
        file: file.clone(),
        at: None,
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
    if size > TENSORS_LIMIT || size > length.saturating_sub(8) {
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
