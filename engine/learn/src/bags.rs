//! Bags: which tiles share a label. Training sees nothing else of the truth.

use crate::TrainError;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use weir_record::TileId;
use weir_slide::SlideEntry;

/// What a bag is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Split {
    /// Trained on.
    Train,
    /// The best epoch is chosen on it.
    Val,
}

impl Split {
    /// As in the tables.
    pub fn name(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::Val => "val",
        }
    }
}

/// Tiles of one slide with one label.
#[derive(Clone, Debug, PartialEq)]
pub struct Bag {
    /// As `slide-10254-003`.
    pub name: String,
    /// Place in the list of slides.
    pub slide: usize,
    /// What it is for.
    pub split: Split,
    /// Place in the list of classes.
    pub class: usize,
    /// In ascending order, none twice.
    pub tiles: Vec<TileId>,
}

#[derive(Deserialize)]
struct Line {
    bag: String,
    slide: String,
    split: String,
    label: String,
    tiles: String,
}

/// Reads `bags.csv`: `bag,slide,split,label,tiles`, where `tiles` is `x:y x:y ...`, top-left corners in level-0 px.
///
/// A bag's split must be its slide's in the manifest, so that no patient stands on both sides; slides of another split than
/// train and val have no bags; no tile lies in two bags.
pub fn read(
    path: &Path,
    slides: &[SlideEntry],
    classes: &[String],
) -> Result<Vec<Bag>, TrainError> {
    let mut table = csv::Reader::from_path(path).map_err(|error| wrong(path, None, error))?;
    let places: BTreeMap<&str, usize> = slides
        .iter()
        .enumerate()
        .map(|(place, slide)| (slide.id.as_str(), place))
        .collect();
    let mut bags = Vec::new();
    let mut names = BTreeSet::new();
    let mut used = BTreeSet::new();
    let headers = table
        .headers()
        .map_err(|error| wrong(path, None, error))?
        .clone();
    for record in table.records() {
        let record = record.map_err(|error| wrong(path, None, error))?;
        let at = record.position().map(csv::Position::line);
        let line: Line = record
            .deserialize(Some(&headers))
            .map_err(|error| wrong(path, at, error))?;
        let slide = *places.get(line.slide.as_str()).ok_or_else(|| {
            wrong(
                path,
                at,
                format!("the manifest has no slide `{}`", line.slide),
            )
        })?;
        let entry = &slides[slide];
        if entry.split.as_deref() != Some(line.split.as_str()) {
            let said = entry.split.as_deref().unwrap_or("none");
            return Err(wrong(
                path,
                at,
                format!(
                    "bag `{}` is of split {}, but the manifest says {said} of its slide",
                    line.bag, line.split
                ),
            ));
        }
        let split = split(&line.split).ok_or_else(|| {
            wrong(
                path,
                at,
                format!("split `{}` has no bags: train or val", line.split),
            )
        })?;
        let class = class(classes, &line.label).ok_or_else(|| {
            wrong(
                path,
                at,
                format!(
                    "label `{}` is none of the recipe's classes {classes:?}",
                    line.label
                ),
            )
        })?;
        let mut tiles = BTreeSet::new();
        for corner in line.tiles.split_ascii_whitespace() {
            let tile = corner
                .split_once(':')
                .and_then(|(x, y)| TileId::new(0, 0, x.parse().ok()?, y.parse().ok()?))
                .ok_or_else(|| {
                    wrong(
                        path,
                        at,
                        format!("`{corner}` is no corner x:y in level-0 px"),
                    )
                })?;
            if !used.insert((slide, tile)) {
                return Err(wrong(
                    path,
                    at,
                    format!("the tile {corner} stands in two bags"),
                ));
            }
            tiles.insert(tile);
        }
        if tiles.is_empty() {
            return Err(wrong(path, at, format!("bag `{}` has no tiles", line.bag)));
        }
        if !names.insert(line.bag.clone()) {
            return Err(wrong(
                path,
                at,
                format!("there are two bags `{}`", line.bag),
            ));
        }
        bags.push(Bag {
            name: line.bag,
            slide,
            split,
            class,
            tiles: tiles.into_iter().collect(),
        });
    }
    check(&bags, path, classes)?;
    Ok(bags)
}

/// Whether both splits hold every class.
pub fn check(bags: &[Bag], path: &Path, classes: &[String]) -> Result<(), TrainError> {
    for (split, name) in [(Split::Train, "train"), (Split::Val, "val")] {
        for (class, label) in classes.iter().enumerate() {
            if !bags
                .iter()
                .any(|bag| bag.split == split && bag.class == class)
            {
                return Err(wrong(
                    path,
                    None,
                    format!("split {name} has no bag of class `{label}`"),
                ));
            }
        }
    }
    Ok(())
}

/// `train` or `val`.
pub fn split(name: &str) -> Option<Split> {
    match name {
        "train" => Some(Split::Train),
        "val" => Some(Split::Val),
        _ => None,
    }
}

/// The place of `label` among the classes.
pub fn class(classes: &[String], label: &str) -> Option<usize> {
    classes.iter().position(|class| class == label)
}

fn wrong(path: &Path, line: Option<u64>, what: impl ToString) -> TrainError {
    TrainError::Data {
        place: line.map_or_else(
            || path.display().to_string(),
            |line| format!("{}:{line}", path.display()),
        ),
        what: what.to_string(),
        help: "a bag is bag,slide,split,label,tiles with tiles as `x:y x:y`; pipelines/models/demo/slides.py writes such a table".into(),
    }
}
