//! `model.toml`: what a model is, read far enough that every dimension is known without its weights.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::{Path, PathBuf};

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

/// The normalisations that a bag model may name (METHOD 1.4).
pub const NORMALISATIONS: [&str; 7] = [
    "squared-average",
    "softmax",
    "sigmoid",
    "sparsemax",
    "mean",
    "max",
    "power",
];

/// The links between the attention head's output and the normalisation.
pub const LINKS: [&str; 2] = ["none", "sigmoid"];

impl ModelKind {
    /// As in `model.toml`.
    pub fn name(self) -> &'static str {
        match self {
            ModelKind::Scorer => "scorer",
            ModelKind::Bag => "bag",
        }
    }
}

/// What is wrong with a model's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderError {
    /// The file.
    pub file: PathBuf,
    /// Place in the file, from 1, where there is one.
    pub line: Option<usize>,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub help: String,
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}; {}", self.what, self.help)
    }
}

impl std::error::Error for HeaderError {}

impl ModelHeader {
    /// The file in a model's folder.
    pub const FILE: &'static str = "model.toml";

    /// Reads `model.toml` in `folder` and checks what it says of itself; the weights are not looked at.
    pub fn load(folder: &Path) -> Result<ModelHeader, HeaderError> {
        let file = folder.join(ModelHeader::FILE);
        let error = |line, what: String, help: &str| HeaderError {
            file: file.clone(),
            line,
            what,
            help: help.to_string(),
        };
        let text = std::fs::read_to_string(&file).map_err(|io| {
            error(
                None,
                format!("could not be read: {io}"),
                "a model is a folder with model.toml and weights.safetensors, as `weir train` writes it",
            )
        })?;
        let mut header: ModelHeader = toml::from_str(&text).map_err(|wrong| {
            let line = wrong
                .span()
                .map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            error(
                line,
                wrong.message().trim().to_string(),
                "the keys are those of model format 1 (see the documentation of weir-model)",
            )
        })?;
        header.folder = folder.to_path_buf();
        match header.wrong() {
            None => Ok(header),
            Some((what, help)) => Err(error(None, what, help)),
        }
    }

    /// The first thing that is wrong with it and what to do.
    pub fn wrong(&self) -> Option<(String, &'static str)> {
        if self.format != 1 {
            return Some((
                format!("model format {}, but this weir reads format 1", self.format),
                "use the weir that wrote the model, or train it again",
            ));
        }
        if self.feature == 0 {
            return Some((
                "`feature` is 0".into(),
                "set it to the rows of `feature.weight`, usually 128",
            ));
        }
        if self.kind == ModelKind::Bag && self.hidden == 0 {
            return Some((
                "a bag model without attention: `hidden` is 0".into(),
                "set it to the rows of `attention.v.weight`",
            ));
        }
        if self.classes.len() < 2 {
            return Some((
                format!("{} classes", self.classes.len()),
                "name two classes or more, as classes = [\"normal\", \"tumour\"]",
            ));
        }
        for (place, class) in self.classes.iter().enumerate() {
            if self.classes[..place].contains(class) {
                return Some((
                    format!("the class `{class}` stands twice in `classes`"),
                    "give each row of the last layer a name of its own",
                ));
            }
        }
        if self.positive_index().is_none() {
            return Some((
                format!("`positive` is `{}`, which is no class", self.positive),
                "name one of `classes`",
            ));
        }
        let input = &self.input;
        if input.size == 0 || !(input.mpp.is_finite() && input.mpp > 0.0) {
            return Some((
                format!("tiles of {} px at {} um/px", input.size, input.mpp),
                "set `size` and `mpp` in [input] to what the model was trained on",
            ));
        }
        let numbers = |values: &[f32; 3]| values.iter().all(|value| value.is_finite());
        if !numbers(&input.mean) || !numbers(&input.std) || input.std.iter().any(|&s| s <= 0.0) {
            return Some((
                format!("mean {:?} and std {:?} in [input]", input.mean, input.std),
                "three finite numbers each, those of `std` greater than 0",
            ));
        }
        let hexadecimal = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        if self.sha256.len() != 64 || !self.sha256.chars().all(hexadecimal) {
            return Some((
                format!("`sha256` is `{}`", self.sha256),
                "64 hexadecimal digits in small letters, as `sha256sum weights.safetensors` prints them",
            ));
        }
        if self.kind == ModelKind::Scorer {
            return None;
        }
        if !NORMALISATIONS.contains(&self.normalise.as_str()) {
            return Some((
                format!("`normalise` is `{}`", self.normalise),
                "it is one of squared-average, softmax, sigmoid, sparsemax, mean, max, power",
            ));
        }
        if !LINKS.contains(&self.link.as_str()) {
            return Some((
                format!("`link` is `{}`", self.link),
                "it is none or sigmoid",
            ));
        }
        let positive = |power: f32| power.is_finite() && power > 0.0;
        if self.power.is_some_and(|power| !positive(power))
            || self.normalise == "power" && self.power.is_none()
        {
            return Some((
                "no exponent that is greater than 0".into(),
                "normalise = \"power\" needs it, as power = 3.0",
            ));
        }
        None
    }

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
