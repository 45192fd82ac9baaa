//! How good both models are, against the truth that training never saw (METHOD 5).

use crate::TrainError;
use crate::bag::BagPasses;
use crate::bags::Split;
use crate::colour::{Regression, statistics};
use crate::data::Data;
use crate::metrics::{Confusion, Interval, attention_gain, auroc, bootstrap, effective, mean};
use crate::pooling::Numerator;
use crate::recipe::Recipe;
use crate::scoring::{Scoring, score};
use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use weir_kernels::Auto;
use weir_model::Weights;
use weir_record::TileId;
use weir_slide::TissueMask;

/// What an evaluation stands on.
pub struct Ground<'a> {
    /// What was done.
    pub recipe: &'a Recipe,
    /// On what.
    pub data: &'a Data,
    /// The tiles of each bag that B sees.
    pub selection: &'a [Vec<usize>],
    /// What trained.
    pub device: &'a Device,
    /// What pools.
    pub kernels: &'a Arc<Auto>,
}

/// All figures.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Evaluation {
    /// A, on all tiles of the truth tables; empty without `truth/`.
    pub tiles: Vec<TileGroup>,
    /// B's poolings on the validation bags, the recipe's own first.
    pub poolings: Vec<BagFigures>,
}

/// A's tiles, of a split or of one slide.
#[derive(Clone, Debug, Serialize)]
pub struct TileGroup {
    /// `val`, `slide-14082`.
    pub group: String,
    /// Slides.
    pub slides: usize,
    /// Tiles of the truth tables.
    pub tiles: usize,
    /// Of the positive class.
    pub positive: usize,
    /// Left out by the tissue mask: they count as the lowest score.
    pub masked: usize,
    /// A's AUROC; the interval is by patient, so a single one has none.
    pub auroc: Option<f64>,
    /// 95 %.
    pub interval: Option<Interval>,
    /// AUROC of a linear model on six colour numbers, trained with the labels of all training tiles.
    pub colour: Option<f64>,
    /// Likewise, trained with the labels of the tiles' bags.
    pub colour_bags: Option<f64>,
}

/// One pooling on the validation bags.
#[derive(Clone, Debug, Serialize)]
pub struct BagFigures {
    /// Normalisation.
    pub normalise: String,
    /// Bags, positive bags, patients.
    pub bags: [usize; 3],
    /// With its 95 % interval by patient.
    pub auroc: Option<Interval>,
    /// F1 of the positive class at 0.5, with its 95 % interval by patient.
    pub f1: Option<Interval>,
    /// Mean of both classes' F1 at 0.5.
    pub macro_f1: f64,
    /// At 0.5.
    pub balanced_accuracy: f64,
    /// Bags with tiles of both kinds, over which the following are means.
    pub mixed: usize,
    /// Members of such a bag.
    pub members: Option<f64>,
    /// Positive part of its members.
    pub positive_part: Option<f64>,
    /// Mean weight of positive members less mean weight of negative ones.
    pub difference: Option<f64>,
    /// G: 1 when all attention lies on positive members, 0 when it is spread evenly.
    pub gain: Option<f64>,
    /// AUROC of the weights inside a bag.
    pub attention_auroc: Option<f64>,
    /// Effective number of members over their number.
    pub effective_part: Option<f64>,
}

#[derive(Deserialize)]
struct TruthLine {
    x: i64,
    y: i64,
    class: u8,
}

struct Judged {
    slide: usize,
    tile: TileId,
    positive: bool,
    score: f64,
    /// Logits of the two colour models.
    colour: [f64; 2],
}

/// Every figure. `poolings` are the trained bag models: name, numerator, weights.
pub fn evaluate(
    ground: &Ground,
    scoring: &Scoring,
    poolings: &[(String, Numerator, Weights)],
) -> Result<Evaluation, TrainError> {
    let truth = truth(ground.data)?;
    let mut evaluation = Evaluation {
        tiles: tile_groups(ground, scoring, &truth)?,
        poolings: Vec::new(),
    };
    for (name, numerator, weights) in poolings {
        let figures = bag_figures(ground, name, *numerator, weights, &truth)?;
        evaluation.poolings.push(figures);
    }
    Ok(evaluation)
}

type Truth = BTreeMap<usize, BTreeMap<TileId, bool>>;

/// `truth/SLIDE.csv` (x,y,class with 1 = positive) of every slide that has one.
fn truth(data: &Data) -> Result<Truth, TrainError> {
    let mut all = Truth::new();
    for (place, entry) in data.entries.iter().enumerate() {
        let path = data.folder.join("truth").join(format!("{}.csv", entry.id));
        if !path.is_file() {
            continue;
        }
        let wrong = |what: String| {
            TrainError::Data {
            place: path.display().to_string(),
            what,
            help: "a truth table is x,y,class: level-0 px of the top left corner, 1 for the positive class".into(),
        }
        };
        let mut table = csv::Reader::from_path(&path).map_err(|e| wrong(e.to_string()))?;
        let mut slide = BTreeMap::new();
        for line in table.deserialize() {
            let line: TruthLine = line.map_err(|e: csv::Error| wrong(e.to_string()))?;
            let tile = TileId::new(0, 0, line.x, line.y)
                .ok_or_else(|| wrong(format!("{}, {} lies on no slide", line.x, line.y)))?;
            slide.insert(tile, line.class == 1);
        }
        all.insert(place, slide);
    }
    Ok(all)
}

fn tile_groups(
    ground: &Ground,
    scoring: &Scoring,
    truth: &Truth,
) -> Result<Vec<TileGroup>, TrainError> {
    let data = ground.data;
    let mut judged: Vec<Judged> = Vec::new();
    let mut rows: Vec<[f64; 6]> = Vec::new();
    for (&slide, tiles) in truth {
        let open = data.open(slide, ground.recipe)?;
        let mask = TissueMask::of(open.reader.as_ref())?;
        let mut pixels = Vec::new();
        for (tile, positive) in tiles {
            pixels.clear();
            open.read(*tile, &mut pixels)?;
            let tissue = mask.fraction(open.tiling.region(*tile));
            let score = if tissue >= ground.recipe.file.evaluate.tissue_min {
                f64::from(score(
                    &scoring.probabilities(&pixels)?,
                    ground.recipe.positive(),
                ))
            } else {
                f64::NEG_INFINITY
            };
            rows.push(statistics(&pixels));
            judged.push(Judged {
                slide,
                tile: *tile,
                positive: *positive,
                score,
                colour: [f64::NAN; 2],
            });
        }
    }
    let split = |slide: usize| data.entries[slide].split.as_deref().unwrap_or("");
    let mut bag_label: BTreeMap<(usize, TileId), bool> = BTreeMap::new();
    for bag in data.bags.iter().filter(|bag| bag.split == Split::Train) {
        let positive = bag.class == ground.recipe.positive();
        bag_label.extend(bag.tiles.iter().map(|tile| ((bag.slide, *tile), positive)));
    }
    // Each model's training tiles and their labels.
    let own = |tile: &Judged| (split(tile.slide) == "train").then_some(tile.positive);
    let bags = |tile: &Judged| bag_label.get(&(tile.slide, tile.tile)).copied();
    let labels: [Vec<Option<bool>>; 2] = [
        judged.iter().map(own).collect(),
        judged.iter().map(bags).collect(),
    ];
    for (model, labels) in labels.iter().enumerate() {
        let (known, labels): (Vec<[f64; 6]>, Vec<bool>) = rows
            .iter()
            .zip(labels)
            .filter_map(|(row, label)| Some((*row, (*label)?)))
            .unzip();
        if !known.is_empty() {
            let regression = Regression::train(&known, &labels);
            for (tile, row) in judged.iter_mut().zip(&rows) {
                tile.colour[model] = regression.logit(row);
            }
        }
    }
    let mut groups = Vec::new();
    for name in ["val", "test", "train"] {
        groups.extend(group(ground, name, &judged, |slide| split(slide) == name));
    }
    // Single slides where there are enough tiles for a figure.
    for &slide in truth.keys() {
        let of = judged.iter().filter(|tile| tile.slide == slide);
        let (n, p) = of.fold((0, 0), |(n, p), t| (n + 1, p + usize::from(t.positive)));
        if n >= 200 && p > 0 && p < n {
            let name = data.entries[slide].id.clone();
            groups.extend(group(ground, &name, &judged, |other| other == slide));
        }
    }
    Ok(groups)
}

fn group(
    ground: &Ground,
    name: &str,
    judged: &[Judged],
    belongs: impl Fn(usize) -> bool,
) -> Option<TileGroup> {
    let tiles: Vec<&Judged> = judged.iter().filter(|tile| belongs(tile.slide)).collect();
    if tiles.is_empty() {
        return None;
    }
    let mut by_patient: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    let mut slides: Vec<usize> = Vec::new();
    for (place, tile) in tiles.iter().enumerate() {
        by_patient
            .entry(ground.patient(tile.slide))
            .or_default()
            .push(place);
        slides.push(tile.slide);
    }
    slides.dedup();
    let of = |items: &[usize], key: &dyn Fn(&Judged) -> f64| {
        let scores: Vec<f64> = items.iter().map(|i| key(tiles[*i])).collect();
        let truth: Vec<bool> = items.iter().map(|i| tiles[*i].positive).collect();
        auroc(&scores, &truth)
    };
    let all: Vec<usize> = (0..tiles.len()).collect();
    let clusters: Vec<Vec<usize>> = by_patient.into_values().collect();
    let interval = if clusters.len() > 1 {
        // Tiles are many, so fewer samples than for bags say as much.
        ground.bootstrap(&clusters, 300, |items| of(items, &|tile| tile.score))
    } else {
        None
    };
    Some(TileGroup {
        group: name.to_string(),
        slides: slides.len(),
        tiles: tiles.len(),
        positive: tiles.iter().filter(|tile| tile.positive).count(),
        masked: tiles
            .iter()
            .filter(|tile| tile.score == f64::NEG_INFINITY)
            .count(),
        auroc: of(&all, &|tile| tile.score),
        interval,
        colour: of(&all, &|tile| tile.colour[0]),
        colour_bags: of(&all, &|tile| tile.colour[1]),
    })
}

fn bag_figures(
    ground: &Ground,
    normalise: &str,
    numerator: Numerator,
    weights: &Weights,
    truth: &Truth,
) -> Result<BagFigures, TrainError> {
    let data = ground.data;
    let passes = BagPasses {
        recipe: ground.recipe,
        data,
        selection: ground.selection,
        numerator,
        pool: numerator.passes(ground.kernels),
        device: ground.device,
    };
    let net = passes.net(weights, &ground.device.clone().inner())?;
    let positive = ground.recipe.positive();
    let (mut scores, mut labels) = (Vec::new(), Vec::new());
    let mut by_patient: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    // Members, positive part, difference, gain, AUROC, effective part of each mixed bag.
    let mut mixed: Vec<[f64; 6]> = Vec::new();
    for (place, bag) in data.bags.iter().enumerate() {
        if bag.split != Split::Val {
            continue;
        }
        let verdict = passes.judge(&net, place)?;
        by_patient
            .entry(ground.patient(bag.slide))
            .or_default()
            .push(scores.len());
        scores.push(verdict.probabilities[positive]);
        labels.push(bag.class == positive);
        let Some(slide) = truth.get(&bag.slide) else {
            continue;
        };
        let kinds: Vec<bool> = ground.selection[place]
            .iter()
            .filter_map(|tile| slide.get(&data.tiles[*tile].id).copied())
            .collect();
        let attention = &verdict.pooled.weights;
        if kinds.len() != attention.len() {
            continue;
        }
        if let Some(gain) = attention_gain(attention, &kinds) {
            let side = |kind: bool| {
                let of = attention.iter().zip(&kinds).filter(|(_, k)| **k == kind);
                mean(of.map(|(w, _)| *w)).unwrap_or(f64::NAN)
            };
            let n = kinds.len() as f64;
            mixed.push([
                n,
                kinds.iter().filter(|k| **k).count() as f64 / n,
                side(true) - side(false),
                gain,
                auroc(attention, &kinds).unwrap_or(f64::NAN),
                effective(attention) / n,
            ]);
        }
    }
    let clusters: Vec<Vec<usize>> = by_patient.into_values().collect();
    let pick = |items: &[usize]| -> (Vec<f64>, Vec<bool>) {
        items.iter().map(|i| (scores[*i], labels[*i])).unzip()
    };
    let samples = ground.recipe.file.evaluate.bootstrap;
    let confusion = Confusion::at(0.5, &scores, &labels);
    let column = |k: usize| mean(mixed.iter().map(|row| row[k]));
    Ok(BagFigures {
        normalise: normalise.to_string(),
        bags: [
            scores.len(),
            labels.iter().filter(|l| **l).count(),
            clusters.len(),
        ],
        auroc: ground.bootstrap(&clusters, samples, |items| {
            let (scores, labels) = pick(items);
            auroc(&scores, &labels)
        }),
        f1: ground.bootstrap(&clusters, samples, |items| {
            let (scores, labels) = pick(items);
            Some(Confusion::at(0.5, &scores, &labels).f1())
        }),
        macro_f1: confusion.macro_f1(),
        balanced_accuracy: confusion.balanced_accuracy(),
        mixed: mixed.len(),
        members: column(0),
        positive_part: column(1),
        difference: column(2),
        gain: column(3),
        attention_auroc: column(4),
        effective_part: column(5),
    })
}

impl Ground<'_> {
    /// The patient of a slide; a slide without one is its own.
    fn patient(&self, slide: usize) -> &str {
        let entry = &self.data.entries[slide];
        entry.patient.as_deref().unwrap_or(&entry.id)
    }

    fn bootstrap(
        &self,
        clusters: &[Vec<usize>],
        samples: u32,
        measure: impl Fn(&[usize]) -> Option<f64>,
    ) -> Option<Interval> {
        bootstrap(clusters, samples, self.recipe.file.seed, measure)
    }
}
