//! Weights: named f32 arrays, read from and written to safetensors with PyTorch's names and layout.

use crate::file;
use crate::network::{Parameter, Start};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// One array of f32.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// Slowest axis first.
    pub shape: Vec<usize>,
    /// Row-major; as many as the product of `shape`.
    pub values: Vec<f32>,
}

/// Named arrays, in the order of their names.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Weights {
    arrays: BTreeMap<String, Array>,
    /// Where they came from, for messages.
    origin: PathBuf,
}

/// What is wrong with a file of weights.
#[derive(Debug)]
pub enum WeightsError {
    /// The file could not be read or written.
    Io {
        /// The file.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
    /// It is no safetensors file, or a broken one.
    Format {
        /// The file.
        path: PathBuf,
        /// What the reader said.
        what: String,
    },
    /// An array that the network needs is not there.
    Missing {
        /// The file.
        path: PathBuf,
        /// The array.
        tensor: String,
        /// Its shape.
        expected: Vec<usize>,
    },
    /// An array has another shape than the network needs.
    Shape {
        /// The file.
        path: PathBuf,
        /// The array.
        tensor: String,
        /// What the network needs.
        expected: Vec<usize>,
        /// What the file holds.
        found: Vec<usize>,
    },
    /// An array is of another type than f32.
    Type {
        /// The file.
        path: PathBuf,
        /// The array.
        tensor: String,
        /// What the file holds.
        found: String,
    },
    /// The file holds an array that no layer of the network uses.
    Unknown {
        /// The file.
        path: PathBuf,
        /// The array.
        tensor: String,
    },
    /// An array holds a NaN or an infinity.
    NonFinite {
        /// The file.
        path: PathBuf,
        /// The array.
        tensor: String,
        /// Place in the array.
        index: usize,
    },
}

impl fmt::Display for WeightsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use WeightsError::*;
        match self {
            Io {
                path,
                doing,
                source,
            } => write!(f, "{}: could not {doing}: {source}", path.display()),
            Format { path, what } => write!(
                f,
                "{}: no safetensors file: {what}; is it cut off, or a Git LFS pointer?",
                path.display()
            ),
            Missing {
                path,
                tensor,
                expected,
            } => write!(
                f,
                "{}: tensor `{tensor}` {expected:?} is missing; is `arch` in model.toml the one that these weights were trained as?",
                path.display()
            ),
            Shape {
                path,
                tensor,
                expected,
                found,
            } => write!(
                f,
                "{}: tensor `{tensor}` has shape {found:?}, expected {expected:?}; do `arch`, `feature`, `hidden` and `classes` in model.toml belong to these weights?",
                path.display()
            ),
            Type {
                path,
                tensor,
                found,
            } => write!(
                f,
                "{}: tensor `{tensor}` is of type {found}, expected F32; convert it with `.float()` before saving",
                path.display()
            ),
            Unknown { path, tensor } => write!(
                f,
                "{}: tensor `{tensor}` belongs to no layer of the network; is `arch` or `gated` in model.toml right?",
                path.display()
            ),
            NonFinite {
                path,
                tensor,
                index,
            } => write!(
                f,
                "{}: tensor `{tensor}` holds no finite number at place {index}; the training diverged, take an earlier checkpoint",
                path.display()
            ),
        }
    }
}

impl WeightsError {
    /// The file.
    pub fn path(&self) -> &Path {
        use WeightsError::*;
        match self {
            Io { path, .. }
            | Format { path, .. }
            | Missing { path, .. }
            | Shape { path, .. }
            | Type { path, .. }
            | Unknown { path, .. }
            | NonFinite { path, .. } => path,
        }
    }
}

impl std::error::Error for WeightsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            WeightsError::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// Which of torchvision's arrays have no place here: its own classifier, and a counter that inference does not use.
fn torchvision_leaves(name: &str) -> bool {
    name.starts_with("fc.") || name.ends_with(".num_batches_tracked")
}

impl Weights {
    /// No arrays.
    pub fn new() -> Self {
        Weights::default()
    }

    /// What an untrained network holds: the same for the same parameters and seed, on every machine.
    pub fn start(parameters: &[Parameter], seed: u64) -> Self {
        let mut weights = Weights::new();
        for parameter in parameters {
            let n = parameter.shape.iter().product();
            let mut random = SplitMix64::new(seed, &parameter.name);
            let mut uniform = |bound: f64| -> Vec<f32> {
                (0..n)
                    .map(|_| ((2.0 * random.unit() - 1.0) * bound) as f32)
                    .collect()
            };
            let values = match parameter.start {
                Start::He { fan } => uniform((6.0 / fan as f64).sqrt()),
                Start::Linear { fan } => uniform((1.0 / fan as f64).sqrt()),
                Start::Zero => vec![0.0; n],
                Start::One => vec![1.0; n],
            };
            weights.insert(&parameter.name, parameter.shape.clone(), values);
        }
        weights
    }

    /// Adds or replaces an array.
    ///
    /// # Panics
    /// When `values` has another length than the product of `shape`: a mistake of the program, not of a file.
    pub fn insert(&mut self, name: &str, shape: Vec<usize>, values: Vec<f32>) {
        assert_eq!(
            shape.iter().product::<usize>(),
            values.len(),
            "tensor `{name}`: values do not fill shape {shape:?}"
        );
        self.arrays
            .insert(name.to_string(), Array { shape, values });
    }

    /// The array of that name.
    pub fn get(&self, name: &str) -> Option<&Array> {
        self.arrays.get(name)
    }

    /// The values of that name, which must have that shape.
    pub fn values(&self, name: &str, shape: &[usize]) -> Result<&[f32], WeightsError> {
        let array = self.arrays.get(name).ok_or_else(|| WeightsError::Missing {
            path: self.origin.clone(),
            tensor: name.to_string(),
            expected: shape.to_vec(),
        })?;
        if array.shape != shape {
            return Err(WeightsError::Shape {
                path: self.origin.clone(),
                tensor: name.to_string(),
                expected: shape.to_vec(),
                found: array.shape.clone(),
            });
        }
        Ok(&array.values)
    }

    /// Names and arrays, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Array)> {
        self.arrays
            .iter()
            .map(|(name, array)| (name.as_str(), array))
    }

    /// Numbers in all arrays.
    pub fn count(&self) -> usize {
        self.arrays.values().map(|array| array.values.len()).sum()
    }

    /// Takes over every array of `other`, replacing those of the same name.
    pub fn extend(&mut self, other: Weights) {
        self.arrays.extend(other.arrays);
    }

    /// Whether every parameter is there in its shape, nothing else is, and all numbers are finite.
    pub fn check(&self, parameters: &[Parameter]) -> Result<(), WeightsError> {
        for parameter in parameters {
            self.values(&parameter.name, &parameter.shape)?;
        }
        for (name, array) in &self.arrays {
            if !parameters.iter().any(|parameter| parameter.name == *name) {
                return Err(WeightsError::Unknown {
                    path: self.origin.clone(),
                    tensor: name.clone(),
                });
            }
            if let Some(index) = array.values.iter().position(|value| !value.is_finite()) {
                return Err(WeightsError::NonFinite {
                    path: self.origin.clone(),
                    tensor: name.clone(),
                    index,
                });
            }
        }
        Ok(())
    }

    /// Reads a safetensors file. torchvision's `fc.*` and `*.num_batches_tracked` are left out.
    pub fn load(path: &Path) -> Result<Weights, WeightsError> {
        Weights::parse(path, &read(path)?)
    }

    /// Reads a safetensors file's bytes; `path` is for messages.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Weights, WeightsError> {
        let file = SafeTensors::deserialize(bytes).map_err(|error| WeightsError::Format {
            path: path.to_path_buf(),
            what: error.to_string(),
        })?;
        let mut weights = Weights {
            arrays: BTreeMap::new(),
            origin: path.to_path_buf(),
        };
        for (name, view) in file.iter() {
            if torchvision_leaves(name) {
                continue;
            }
            if view.dtype() != Dtype::F32 {
                return Err(WeightsError::Type {
                    path: path.to_path_buf(),
                    tensor: name.to_string(),
                    found: format!("{:?}", view.dtype()),
                });
            }
            let values = view
                .data()
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .collect();
            weights.insert(name, view.shape().to_vec(), values);
        }
        Ok(weights)
    }

    /// The bytes of a safetensors file; the same weights give the same bytes.
    pub fn to_bytes(&self) -> Result<Vec<u8>, WeightsError> {
        let failed = |what: String| WeightsError::Format {
            path: self.origin.clone(),
            what,
        };
        let data: Vec<(&String, &Array, Vec<u8>)> = self
            .arrays
            .iter()
            .map(|(name, array)| {
                let bytes = array.values.iter().flat_map(|v| v.to_le_bytes()).collect();
                (name, array, bytes)
            })
            .collect();
        let mut views = Vec::with_capacity(data.len());
        for (name, array, bytes) in &data {
            let view = TensorView::new(Dtype::F32, array.shape.clone(), bytes)
                .map_err(|error| failed(error.to_string()))?;
            views.push((name.as_str(), view));
        }
        safetensors::serialize(views, None).map_err(|error| failed(error.to_string()))
    }

    /// Writes a safetensors file, whole or not at all, and returns its SHA-256 in hexadecimal.
    pub fn save(&self, path: &Path) -> Result<String, WeightsError> {
        let bytes = self.to_bytes()?;
        file::write(path, &bytes).map_err(|source| WeightsError::Io {
            path: path.to_path_buf(),
            doing: "write the weights",
            source,
        })?;
        Ok(sha256(&bytes))
    }
}

/// The bytes of a file of weights.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, WeightsError> {
    std::fs::read(path).map_err(|source| WeightsError::Io {
        path: path.to_path_buf(),
        doing: "read the weights",
        source,
    })
}

/// SHA-256 in hexadecimal, small letters.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Steele, Lea and Flood 2014: the start of a network must not hang on a crate's version.
struct SplitMix64(u64);

impl SplitMix64 {
    /// A stream of its own for each name (FNV-1a of it).
    fn new(seed: u64, name: &str) -> Self {
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        SplitMix64(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ hash)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In [0, 1).
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}
