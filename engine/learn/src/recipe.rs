//! The recipe: what is trained and how, a TOML file of its own. Mistakes are told with their line and column.

use crate::TrainError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::Spanned;
use weir_model::network::Network;
use weir_pipeline::model::ModelInput;
use weir_pipeline::units;

/// A checked recipe.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The file.
    pub path: PathBuf,
    /// Its text, kept in the record; a run is gone on with only under the same one.
    pub text: String,
    /// What it says.
    pub file: RecipeFile,
    /// The encoder of both models.
    pub network: Network,
}

/// The recipe as it stands in the file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RecipeFile {
    /// 1: the version of this form.
    pub weir_recipe: Spanned<u32>,
    /// Every random choice follows from it.
    #[serde(default)]
    pub seed: u64,
    /// What the models are.
    pub model: ModelRecipe,
    /// What a tile must be.
    pub input: ModelInput,
    /// Where the tiles come from.
    #[serde(default)]
    pub data: DataRecipe,
    /// How tiles are changed while training.
    #[serde(default)]
    pub augment: Augment,
    /// How A is trained.
    pub scorer: ScorerRecipe,
    /// How B is trained.
    pub bag: BagRecipe,
    /// How the trained models are measured.
    #[serde(default)]
    pub evaluate: EvaluateRecipe,
    /// `[plugin.NAME]`: plugins whose slide readers are asked for what weir does not read itself.
    #[serde(default)]
    pub plugin: BTreeMap<String, Spanned<PluginRecipe>>,
}

/// `[plugin.NAME]`, as in a pipeline.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PluginRecipe {
    /// The file, relative to the recipe; without it the plugin is looked for by its name.
    pub path: Option<PathBuf>,
    /// A requirement on its version.
    pub version: Option<String>,
    /// SHA-256 of the file.
    pub sha256: Option<String>,
    /// Whether it runs in a process of its own.
    pub isolate: bool,
}

/// `[model]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ModelRecipe {
    /// `small`, `resnet18`, `resnet34`, `resnet50`.
    pub arch: Spanned<String>,
    /// Width of the feature vector.
    #[serde(default = "feature")]
    pub feature: usize,
    /// Units of the attention head's hidden layer.
    #[serde(default = "hidden")]
    pub hidden: Spanned<usize>,
    /// Whether the attention head is gated.
    #[serde(default)]
    pub gated: bool,
    /// Names of the classes, as they stand in the manifest.
    pub classes: Spanned<Vec<String>>,
    /// The class whose probability is a tile's score.
    pub positive: Spanned<String>,
}

/// `[data]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct DataRecipe {
    /// Least part of a tile that is tissue, where a bag is a whole slide.
    pub tissue_min: f64,
    /// Tiles are kept in memory up to this many MiB, else read again each time.
    pub memory_mib: u64,
    /// As `"60s"`: how long a slide reader of a plugin may take to look at a slide, to open it or to read a region, before it is ended
    /// where the plugin is isolated, and told of elsewhere; 60 s where nothing is said.
    #[serde(deserialize_with = "duration")]
    pub timeout: Option<Duration>,
}

impl Default for DataRecipe {
    fn default() -> Self {
        DataRecipe {
            tissue_min: 0.25,
            memory_mib: 2048,
            timeout: None,
        }
    }
}

/// `[augment]`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Augment {
    /// Mirror half of the tiles.
    pub flips: bool,
    /// Turn each tile by a random number of quarters.
    pub turns: bool,
    /// Greatest relative change of each stain's amount.
    pub stain: f32,
    /// Greatest shift of each stain's optical density.
    pub shift: f32,
}

impl Default for Augment {
    fn default() -> Self {
        Augment {
            flips: true,
            turns: true,
            stain: 0.05,
            shift: 0.01,
        }
    }
}

/// Which tiles of a bag of the negative class A learns from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Negatives {
    /// All of them: each is certain.
    All,
    /// The `top` highest, as in positive bags.
    Top,
}

/// `[scorer]`: model A, by top-k multiple-instance learning.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ScorerRecipe {
    /// Passes.
    pub epochs: Spanned<u64>,
    /// Tiles a step.
    pub batch: Spanned<usize>,
    /// Tiles of a positive bag that take its label: those that score highest.
    pub top: Spanned<usize>,
    /// Tiles of a negative bag.
    #[serde(default = "all")]
    pub negatives: Negatives,
    /// In the first epochs every tile takes its bag's label: an untrained network's scores choose nothing of worth.
    #[serde(default)]
    pub all_epochs: u64,
    /// In the epochs after those, the number of tiles of a positive bag falls in even steps from all to `top`.
    #[serde(default)]
    pub shrink_epochs: u64,
    /// Weigh classes by the inverse of their number of tiles.
    #[serde(default)]
    pub balance: bool,
    /// torchvision's safetensors to start from.
    #[serde(default)]
    pub init: Option<PathBuf>,
    /// How steps are made.
    pub steps: Steps,
}

/// `[bag]`: model B, end to end.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct BagRecipe {
    /// Passes.
    pub epochs: Spanned<u64>,
    /// Bags a step.
    #[serde(default = "one")]
    pub batch: Spanned<usize>,
    /// Tiles of a bag that A scores highest.
    pub highest: Spanned<usize>,
    /// Tiles of a bag that A scores lowest.
    pub lowest: Spanned<usize>,
    /// `scorer` (A's encoder), `start`, or torchvision's safetensors.
    #[serde(default = "from_scorer")]
    pub init: String,
    /// Tiles that are encoded at a time; changes memory, never the gradient.
    #[serde(default = "chunk")]
    pub chunk: Spanned<usize>,
    /// `squared-average`, `softmax`, `sigmoid`, `power`, `mean`, `max`.
    pub normalise: Spanned<String>,
    /// `none` or `sigmoid`.
    #[serde(default = "sigmoid")]
    pub link: Spanned<String>,
    /// Exponent of `power`.
    #[serde(default)]
    pub power: Option<f32>,
    /// The attention logit's bias before training.
    #[serde(default)]
    pub bias_start: f32,
    /// Weigh classes by the inverse of their number of bags.
    #[serde(default)]
    pub balance: bool,
    /// Further poolings, trained on the same bags to compare with.
    #[serde(default)]
    pub compare: Vec<Spanned<String>>,
    /// How steps are made.
    pub steps: Steps,
}

/// `[scorer.steps]`, `[bag.steps]`: how steps are made: AdamW with a warm-up, then half a cosine down to a hundredth of the rate.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Steps {
    /// Greatest learning rate.
    pub rate: f64,
    /// Part of the training in which the rate climbs.
    #[serde(default = "warm_up")]
    pub warm_up: f64,
    /// Of AdamW.
    #[serde(default = "weight_decay")]
    pub weight_decay: f32,
    /// Greatest norm of each array's gradient.
    #[serde(default = "clip")]
    pub clip: f32,
    /// What is kept is a mean of the weights that forgets by this factor a step; 0 keeps the weights themselves.
    #[serde(default)]
    pub average: f32,
}

/// `[evaluate]`.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct EvaluateRecipe {
    /// Samples of the bootstrap.
    pub bootstrap: u32,
    /// A tile of which less than this part is tissue counts as never scored, as in a pipeline.
    pub tissue_min: f64,
}

impl Default for EvaluateRecipe {
    fn default() -> Self {
        EvaluateRecipe {
            bootstrap: 2000,
            tissue_min: 0.25,
        }
    }
}

/// A time with its unit, as in a pipeline.
fn duration<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(from)?;
    match units::duration(&text) {
        Some(time) => Ok(Some(time)),
        None => Err(serde::de::Error::custom(format!(
            "`{text}` is no time with its unit: write it as \"20ms\", \"60s\" or \"5m\""
        ))),
    }
}

fn feature() -> usize {
    128
}
fn hidden() -> Spanned<usize> {
    Spanned::new(0..0, 64)
}
fn all() -> Negatives {
    Negatives::All
}
fn one() -> Spanned<usize> {
    Spanned::new(0..0, 1)
}
fn chunk() -> Spanned<usize> {
    Spanned::new(0..0, 16)
}
fn from_scorer() -> String {
    "scorer".into()
}
fn sigmoid() -> Spanned<String> {
    Spanned::new(0..0, "sigmoid".into())
}
fn warm_up() -> f64 {
    0.05
}
fn weight_decay() -> f32 {
    1e-4
}
fn clip() -> f32 {
    1.0
}

impl Recipe {
    /// Reads and checks the file.
    pub fn load(path: &Path) -> Result<Recipe, TrainError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| TrainError::io(path, "read the recipe", source))?;
        Recipe::parse(path, &text)
    }

    /// As [`Recipe::load`], from its text.
    pub fn parse(path: &Path, text: &str) -> Result<Recipe, TrainError> {
        let place = |at: usize| place(path, text, at);
        let wrong = |at: usize, what: String, help: &str| TrainError::Recipe {
            place: place(at),
            what,
            help: help.into(),
        };
        let file: RecipeFile = toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            wrong(
                at,
                error.message().to_string(),
                "pipelines/models/demo/recipe.toml is a recipe that works",
            )
        })?;
        if *file.weir_recipe.get_ref() != 1 {
            return Err(wrong(
                file.weir_recipe.span().start,
                format!("there is no recipe form {}", file.weir_recipe.get_ref()),
                "this weir reads form 1",
            ));
        }
        let model = &file.model;
        let network = Network::new(model.arch.get_ref(), model.feature)
            .map_err(|error| wrong(model.arch.span().start, error.to_string(), "correct it"))?;
        network
            .check_tile(file.input.size as usize)
            .map_err(|error| wrong(model.arch.span().start, error.to_string(), "correct it"))?;
        let classes = model.classes.get_ref();
        if classes.len() < 2 || (1..classes.len()).any(|k| classes[..k].contains(&classes[k])) {
            return Err(wrong(
                model.classes.span().start,
                format!("{classes:?} are not two or more different classes"),
                "name every class of the manifest's column `label`",
            ));
        }
        if !classes.contains(model.positive.get_ref()) {
            return Err(wrong(
                model.positive.span().start,
                format!("`{}` is none of the classes", model.positive.get_ref()),
                "name the class that tiles shall be scored by",
            ));
        }
        let counts = [
            (&file.scorer.batch, "batch"),
            (&file.scorer.top, "top"),
            (&file.bag.batch, "batch"),
            (&file.bag.highest, "highest"),
            (&file.bag.chunk, "chunk"),
            (&model.hidden, "hidden"),
        ];
        if let Some((count, name)) = counts.iter().find(|(count, _)| *count.get_ref() == 0) {
            let what = format!("`{name}` is 0");
            return Err(wrong(count.span().start, what, "give 1 or more"));
        }
        for (epochs, steps) in [
            (&file.scorer.epochs, &file.scorer.steps),
            (&file.bag.epochs, &file.bag.steps),
        ] {
            let at = epochs.span().start;
            if *epochs.get_ref() == 0 {
                return Err(wrong(at, "`epochs` is 0".into(), "give 1 or more"));
            }
            let sound = steps.rate.is_finite()
                && steps.rate > 0.0
                && (0.0..1.0).contains(&steps.warm_up)
                && (0.0..1.0).contains(&steps.average)
                && steps.weight_decay >= 0.0
                && steps.clip > 0.0;
            if !sound {
                return Err(wrong(
                    at,
                    "the steps of this table cannot be made".into(),
                    "rate and clip are above 0, warm-up and average from 0 to below 1, weight-decay at least 0",
                ));
            }
        }
        let poolings = std::iter::once(&file.bag.normalise).chain(&file.bag.compare);
        for name in poolings {
            if !crate::pooling::TRAINABLE.contains(&name.get_ref().as_str()) {
                return Err(wrong(
                    name.span().start,
                    format!("`{}` cannot be trained", name.get_ref()),
                    &format!("there are {}", crate::pooling::TRAINABLE.join(", ")),
                ));
            }
        }
        if !["none", "sigmoid"].contains(&file.bag.link.get_ref().as_str()) {
            return Err(wrong(
                file.bag.link.span().start,
                format!("there is no link `{}`", file.bag.link.get_ref()),
                "there are none, sigmoid",
            ));
        }
        Ok(Recipe {
            path: path.to_path_buf(),
            text: text.to_string(),
            file,
            network,
        })
    }

    /// File, line and column of a byte of the recipe.
    pub fn place(&self, at: usize) -> String {
        place(&self.path, &self.text, at)
    }

    /// The classes' names.
    pub fn classes(&self) -> &[String] {
        self.file.model.classes.get_ref()
    }

    /// The index of the positive class.
    pub fn positive(&self) -> usize {
        let name = self.file.model.positive.get_ref();
        // `parse` refuses a recipe in which it is none of them.
        self.classes()
            .iter()
            .position(|class| class == name)
            .unwrap_or(0)
    }

    /// A path in the recipe is relative to it.
    pub fn beside(&self, path: &Path) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("")).join(path)
    }
}

fn place(path: &Path, text: &str, at: usize) -> String {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    format!("{}:{line}:{column}", path.display())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const DEMO: &str = include_str!("../../../pipelines/models/demo/recipe.toml");

    fn mistake(from: &str, to: &str) -> String {
        assert!(DEMO.contains(from), "{from}");
        let text = DEMO.replacen(from, to, 1);
        let error = Recipe::parse(Path::new("r.toml"), &text).unwrap_err();
        error.to_string()
    }

    fn place(from: &str) -> String {
        let before = &DEMO[..DEMO.find(from).unwrap()];
        format!("r.toml:{}:", before.matches('\n').count() + 1)
    }

    #[test]
    fn the_demo_recipe_is_sound() {
        let recipe = Recipe::parse(Path::new("r.toml"), DEMO).unwrap();
        assert_eq!(recipe.positive(), 1);
    }

    #[test]
    fn a_mistake_is_told_with_its_line() {
        for (from, to, what) in [
            ("seed = 1", "sed = 1", "sed"),
            ("weir-recipe = 1", "weir-recipe = 9", "no recipe form 9"),
            ("arch = \"small\"", "arch = \"smal\"", "smal"),
            (
                "positive = \"tumour\"",
                "positive = \"cat\"",
                "none of the classes",
            ),
            ("top = 6", "top = 0", "`top` is 0"),
            ("epochs = ", "epochs = 0 # ", "`epochs` is 0"),
            (
                "normalise = \"squared-average\"",
                "normalise = \"sparsemax\"",
                "cannot be trained",
            ),
            ("link = \"sigmoid\"", "link = \"tanh\"", "no link `tanh`"),
        ] {
            let told = mistake(from, to);
            assert!(told.contains(what), "{told}");
            assert!(
                told.starts_with(&place(from)),
                "{told}, not {}",
                place(from)
            );
        }
    }

    #[test]
    fn a_class_named_twice_and_a_tile_too_small_are_refused() {
        assert!(
            mistake("\"no-tumour\", \"tumour\"", "\"tumour\", \"tumour\"").contains("different")
        );
        assert!(mistake("size = 50", "size = 4").contains("nothing is left"));
    }
}
