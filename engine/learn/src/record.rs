//! What a run leaves: model folders, and the training record as JSON and as text.

use crate::TrainError;
use crate::bags::Split;
use crate::checkpoint::{Epoch, Ground};
use crate::data::Data;
use crate::evaluate::{BagFigures, Evaluation};
use crate::metrics::Interval;
use crate::recipe::Recipe;
use crate::run::write;
use serde::Serialize;
use std::path::{Path, PathBuf};
use weir_model::Weights;
use weir_pipeline::model::{ModelHeader, ModelKind};

/// The training record.
#[derive(Clone, Debug, Serialize)]
pub struct Facts {
    /// `weir 0.1.0`.
    pub made_by: String,
    /// The recipe's text.
    pub recipe: String,
    /// Digests of recipe and bags; what scored tiles.
    pub ground: Ground,
    /// What was trained and validated on.
    pub data: DataFacts,
    /// Every epoch of every phase.
    pub history: Vec<Epoch>,
    /// Every figure.
    pub evaluation: Evaluation,
}

/// What was trained and validated on.
#[derive(Clone, Debug, Serialize)]
pub struct DataFacts {
    /// Slides, bags, positive bags, tiles.
    pub train: [usize; 4],
    /// Likewise.
    pub val: [usize; 4],
    /// Fewest and most tiles of a bag.
    pub bag_size: [usize; 2],
}

impl DataFacts {
    /// Of the data.
    pub fn new(recipe: &Recipe, data: &Data) -> Self {
        let of = |split: Split| {
            let bags: Vec<_> = data.bags.iter().filter(|bag| bag.split == split).collect();
            let slides: std::collections::BTreeSet<usize> =
                bags.iter().map(|bag| bag.slide).collect();
            [
                slides.len(),
                bags.len(),
                bags.iter()
                    .filter(|bag| bag.class == recipe.positive())
                    .count(),
                bags.iter().map(|bag| bag.tiles.len()).sum(),
            ]
        };
        let sizes = || data.bags.iter().map(|bag| bag.tiles.len());
        DataFacts {
            train: of(Split::Train),
            val: of(Split::Val),
            bag_size: [sizes().min().unwrap_or(0), sizes().max().unwrap_or(0)],
        }
    }
}

impl Data {
    /// A line that says what there is.
    pub fn summary(&self, recipe: &Recipe) -> String {
        let facts = DataFacts::new(recipe, self);
        let of = |[slides, bags, positive, tiles]: [usize; 4]| {
            format!(
                "{slides} slides, {bags} bags ({positive} {}), {tiles} tiles",
                recipe.classes()[recipe.positive()]
            )
        };
        format!("train: {}; validation: {}", of(facts.train), of(facts.val))
    }
}

impl Facts {
    /// Of a run.
    pub fn new(
        recipe: &Recipe,
        data: &Data,
        ground: &Ground,
        history: &[Epoch],
        evaluation: Evaluation,
    ) -> Self {
        Facts {
            made_by: format!("weir {}", env!("CARGO_PKG_VERSION")),
            recipe: recipe.text.clone(),
            ground: ground.clone(),
            data: DataFacts::new(recipe, data),
            history: history.to_vec(),
            evaluation,
        }
    }

    /// As JSON.
    pub fn json(&self) -> Result<String, TrainError> {
        serde_json::to_string_pretty(self)
            .map(|text| text + "\n")
            .map_err(|error| TrainError::Run {
                path: "training.json".into(),
                what: error.to_string(),
                help: "this is a mistake of weir's".into(),
            })
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = format!(
            "# Training record\n\nMade by {}; tiles scored by {}. SHA-256 of the recipe {}, of the list of bags {}.\n\n",
            self.made_by, self.ground.executor, self.ground.recipe, self.ground.bags
        );
        let of = |[slides, bags, positive, tiles]: [usize; 4]| {
            format!("{slides} slides, {bags} bags, {positive} of them positive, {tiles} tiles")
        };
        text += &format!(
            "Training: {}. Validation: {}. Bags of {} to {} tiles. The list of bags is bags.csv. Training saw labels of bags alone; tile labels served the figures below and the colour baseline.\n\n",
            of(self.data.train),
            of(self.data.val),
            self.data.bag_size[0],
            self.data.bag_size[1]
        );
        text += "## A: tile AUROC\n\nOver all tiles of the truth tables; a tile that the tissue mask leaves out counts as the lowest score. The interval is a bootstrap by patient. `colour` is a linear model on the mean and deviation of red, green and blue, trained with the labels of all training tiles; `colour, bags` is the same, trained with each tile's bag's label: like for like.\n\n";
        text += "| tiles of | slides | tiles | positive | masked | AUROC of A | 95 % | colour | colour, bags |\n|---|---|---|---|---|---|---|---|---|\n";
        for group in &self.evaluation.tiles {
            text += &format!(
                "| {} | {} | {} | {} | {} | {} | {} | {} | {} |\n",
                group.group,
                group.slides,
                group.tiles,
                group.positive,
                group.masked,
                number(group.auroc),
                range(group.interval),
                number(group.colour),
                number(group.colour_bags)
            );
        }
        if let Some(first) = self.evaluation.poolings.first() {
            text += &format!(
                "\n## B: validation bags\n\n{} bags, {} positive, of {} patients; F1 is the positive class's at 0.5, the interval a bootstrap by patient. Attention is measured in the {} bags with members of both kinds (on average {} members, {} of them positive).\n\n",
                first.bags[0],
                first.bags[1],
                first.bags[2],
                first.mixed,
                number(first.members),
                number(first.positive_part)
            );
        }
        text += "| normalise | AUROC (95 %) | F1 (95 %) | macro F1 | balanced accuracy | gain G | AUROC of weights | difference | effective part |\n|---|---|---|---|---|---|---|---|---|\n";
        for pooling in &self.evaluation.poolings {
            text += &row(pooling);
        }
        text += "\nG = (M - f) / (1 - f) for the part M of attention on positive members and their part f of the bag: 1 is all, 0 is evenly spread. The best epoch of each model is the one of least validation loss, so the figures on validation bags are a little too good.\n\n## Recipe\n\n```toml\n";
        text += self.recipe.trim_end();
        text += "\n```\n";
        text
    }

    /// What `model.toml` holds of it.
    fn table(&self, phase: &str) -> toml::Table {
        let mut table = toml::Table::new();
        table.insert("made-by".into(), self.made_by.clone().into());
        table.insert("record".into(), "training.md".into());
        table.insert("recipe-sha256".into(), self.ground.recipe.clone().into());
        table.insert("bags-sha256".into(), self.ground.bags.clone().into());
        let epochs = self.history.iter().filter(|epoch| epoch.phase == phase);
        let best = epochs.clone().rfind(|epoch| epoch.best);
        table.insert("epochs".into(), (epochs.count() as i64).into());
        if let Some(best) = best {
            table.insert("best-epoch".into(), (best.epoch as i64).into());
            table.insert("validation-bag-auroc".into(), round(best.val_auroc).into());
        }
        if phase == "scorer" {
            for group in &self.evaluation.tiles {
                if let Some(auroc) = group.auroc {
                    table.insert(format!("tile-auroc-{}", group.group), round(auroc).into());
                }
            }
        }
        table
    }
}

fn row(pooling: &BagFigures) -> String {
    let with = |interval: Option<Interval>| {
        interval.map_or("-".to_string(), |i| {
            format!("{:.3} ({:.3} to {:.3})", i.value, i.low, i.high)
        })
    };
    format!(
        "| {} | {} | {} | {:.3} | {:.3} | {} | {} | {} | {} |\n",
        pooling.normalise,
        with(pooling.auroc),
        with(pooling.f1),
        pooling.macro_f1,
        pooling.balanced_accuracy,
        number(pooling.gain),
        number(pooling.attention_auroc),
        number(pooling.difference),
        number(pooling.effective_part)
    )
}

fn number(value: Option<f64>) -> String {
    value.map_or("-".into(), |value| format!("{value:.3}"))
}

fn range(interval: Option<Interval>) -> String {
    interval.map_or("-".into(), |i| format!("{:.3} to {:.3}", i.low, i.high))
}

fn round(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

/// Every epoch as CSV.
pub fn metrics_csv(history: &[Epoch]) -> String {
    let mut table = csv::Writer::from_writer(Vec::new());
    for epoch in history {
        // Writing into memory cannot fail.
        let _ = table.serialize(epoch);
    }
    let bytes = table.into_inner().unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The folder of A.
pub fn write_scorer(
    folder: &Path,
    recipe: &Recipe,
    weights: &Weights,
    facts: &Facts,
) -> Result<(), TrainError> {
    let header = header(recipe, ModelKind::Scorer, facts.table("scorer"));
    write_model(folder, header, weights, facts)
}

/// The folder of B.
pub fn write_bag(
    folder: &Path,
    recipe: &Recipe,
    normalise: &str,
    weights: &Weights,
    facts: &Facts,
) -> Result<(), TrainError> {
    let table = facts.table(&format!("bag-{normalise}"));
    let bag = &recipe.file.bag;
    let header = ModelHeader {
        hidden: *recipe.file.model.hidden.get_ref() as u32,
        gated: recipe.file.model.gated,
        normalise: normalise.to_string(),
        link: bag.link.get_ref().clone(),
        power: (normalise == "power").then(|| bag.power.unwrap_or(2.0)),
        contract: "ordered-f32/1".into(),
        ..header(recipe, ModelKind::Bag, table)
    };
    write_model(folder, header, weights, facts)
}

fn header(recipe: &Recipe, kind: ModelKind, training: toml::Table) -> ModelHeader {
    let model = &recipe.file.model;
    ModelHeader {
        format: 1,
        kind,
        arch: model.arch.get_ref().clone(),
        feature: model.feature as u32,
        hidden: 0,
        gated: false,
        classes: recipe.classes().to_vec(),
        positive: model.positive.get_ref().clone(),
        input: recipe.file.input.clone(),
        normalise: String::new(),
        link: String::new(),
        power: None,
        contract: String::new(),
        sha256: String::new(),
        training: Some(training),
        folder: PathBuf::new(),
    }
}

fn write_model(
    folder: &Path,
    mut header: ModelHeader,
    weights: &Weights,
    facts: &Facts,
) -> Result<(), TrainError> {
    header.sha256 = weights.save(&folder.join("weights.safetensors"))?;
    let text = toml::to_string(&header).map_err(|error| TrainError::Run {
        path: folder.join("model.toml"),
        what: error.to_string(),
        help: "this is a mistake of weir's".into(),
    })?;
    write(&folder.join("training.md"), facts.text().as_bytes())?;
    write(&folder.join("training.json"), facts.json()?.as_bytes())?;
    write(&folder.join("model.toml"), text.as_bytes())
}
