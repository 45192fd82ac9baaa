//! `model.toml`: what a model is, read far enough that every dimension is known without its weights.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// `model.toml`, format 1. Stands beside `weights.safetensors` in the model's folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ModelHeader {
    /// 1.
    pub format: u32,
    /// What it is for.
    pub kind: ModelKind,
    /// Network, as `small`, `resnet18`, `resnet34`, `resnet50`.
    pub arch: String,
    /// Width of the feature vector.
    pub feature: u32,
    /// Units of the attention head's hidden layer; 0 for a scorer.
    #[serde(default)]
    pub hidden: u32,
    /// Whether the attention head is gated.
    #[serde(default)]
    pub gated: bool,
    /// Names of the classes, at least two.
    pub classes: Vec<String>,
    /// The class whose probability is a tile's score.
    pub positive: String,
    /// What a tile must be.
    pub input: ModelInput,
    /// `squared-average`, `softmax`, ...; empty for a scorer.
    #[serde(default)]
    pub normalise: String,
    /// `none` or `sigmoid`; empty for a scorer.
    #[serde(default)]
    pub link: String,
    /// Exponent of `power`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power: Option<f32>,
    /// Numeric contract of the pool, as `ordered-f32/1`; empty for a scorer.
    #[serde(default)]
    pub contract: String,
    /// SHA-256 of `weights.safetensors`, hexadecimal.
    pub sha256: String,
    /// How it was trained: free form, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub training: Option<toml::Table>,
    /// The folder it was read from.
    #[serde(skip)]
    pub folder: PathBuf,
}

/// What a model is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ModelKind {
    /// A: scores tiles.
    Scorer,
    /// B: encodes tiles, attends, classifies the bag.
    Bag,
}

/// What a tile must be for a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ModelInput {
    /// Width and height, px.
    pub size: u32,
    /// um/px.
    pub mpp: f64,
    /// Subtracted from each channel after division by 255.
    pub mean: [f32; 3],
    /// Divides each channel after that.
    pub std: [f32; 3],
}

impl ModelHeader {
    /// The index of the positive class.
    pub fn positive_index(&self) -> Option<usize> {
        self.classes
            .iter()
            .position(|class| *class == self.positive)
    }

    /// The file with the weights.
    pub fn weights(&self) -> PathBuf {
        self.folder.join("weights.safetensors")
    }
}
