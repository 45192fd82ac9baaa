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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::collections::BTreeMap;

    fn slides() -> Vec<SlideEntry> {
        [("a", "train"), ("b", "val"), ("c", "test")]
            .map(|(id, split)| SlideEntry {
                id: id.into(),
                path: id.into(),
                label: None,
                split: Some(split.into()),
                patient: None,
                mpp: None,
            })
            .to_vec()
    }

    fn classes() -> Vec<String> {
        vec!["no".into(), "yes".into()]
    }

    const GOOD: &str = "bag,slide,split,label,tiles
a1,a,train,no,0:0 50:0
a2,a,train,yes,50:50
b1,b,val,no,0:0
b2,b,val,yes,-50:7
";

    fn of(text: &str) -> Result<Vec<Bag>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bags.csv");
        std::fs::write(&path, text).unwrap();
        read(&path, &slides(), &classes()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_table_becomes_bags_of_ascending_tiles() {
        let bags = of(GOOD).unwrap();
        assert_eq!(bags.len(), 4);
        assert_eq!(
            (bags[0].slide, bags[0].split, bags[0].class),
            (0, Split::Train, 0)
        );
        assert_eq!(bags[3].tiles, [TileId::new(0, 0, -50, 7).unwrap()]);
    }

    #[test]
    fn a_patient_on_the_wrong_side_a_tile_in_two_bags_and_other_mistakes_are_told_with_their_line()
    {
        for (from, to, line, what) in [
            ("a2,a,train", "a2,a,val", 3, "the manifest says train"),
            ("b2,b,val", "b2,c,test", 5, "has no bags"),
            ("yes,50:50", "yes,50:0", 3, "stands in two bags"),
            ("yes,50:50", "yes,50-50", 3, "no corner"),
            ("yes,50:50", "yes,", 3, "has no tiles"),
            (
                "yes,50:50",
                "maybe,50:50",
                3,
                "none of the recipe's classes",
            ),
            ("b2,b", "b2,d", 5, "no slide `d`"),
            ("a2,", "a1,", 3, "two bags `a1`"),
        ] {
            let told = of(&GOOD.replacen(from, to, 1)).unwrap_err();
            assert!(told.contains(what), "{told}");
            assert!(told.contains(&format!("bags.csv:{line}:")), "{told}");
        }
    }

    #[test]
    fn a_split_without_a_class_is_refused() {
        let told = of(&GOOD.replace("b2,b,val,yes", "b2,b,val,no")).unwrap_err();
        assert!(
            told.contains("split val has no bag of class `yes`"),
            "{told}"
        );
    }

    /// What the maker of the demo's bags (pipelines/models/demo/slides.py) promises, held against its list.
    #[test]
    fn the_demos_bags_are_12_to_32_near_tiles_of_one_patient_and_the_test_slide_has_none() {
        #[derive(serde::Deserialize)]
        struct Line {
            slide: String,
            split: String,
            label: String,
            tiles: String,
        }
        let text = include_str!("../../../pipelines/models/demo/bags.csv");
        let lines: Vec<Line> = csv::Reader::from_reader(text.as_bytes())
            .deserialize()
            .map(Result::unwrap)
            .collect();
        let mut slides: BTreeMap<&str, Vec<Vec<(f64, f64)>>> = BTreeMap::new();
        for line in &lines {
            assert_ne!(line.slide, "slide-14082");
            let tiles: Vec<(f64, f64)> = line
                .tiles
                .split(' ')
                .map(|tile| tile.split_once(':').unwrap())
                .map(|(x, y)| (x.parse().unwrap(), y.parse().unwrap()))
                .collect();
            assert!((12..=32).contains(&tiles.len()), "{}", tiles.len());
            slides.entry(&line.slide).or_default().push(tiles);
        }
        for split in ["train", "val"] {
            let of: Vec<&Line> = lines.iter().filter(|line| line.split == split).collect();
            let positive = of.iter().filter(|line| line.label == "tumour").count();
            assert!(4 * positive >= of.len() && 4 * (of.len() - positive) >= of.len());
        }
        // Near: a tile's mean distance to its bag is far below that to its slide, which chance would make equal.
        let spread = |tiles: &[(f64, f64)]| {
            let far = |(a, b): (&(f64, f64), &(f64, f64))| (a.0 - b.0).hypot(a.1 - b.1);
            let pairs = tiles.iter().flat_map(|a| tiles.iter().map(move |b| (a, b)));
            pairs.map(far).sum::<f64>() / (tiles.len() * tiles.len()) as f64
        };
        let (mut inside, mut whole) = (0.0, 0.0);
        for bags in slides.values().filter(|bags| bags.len() > 3) {
            inside += bags.iter().map(|bag| spread(bag)).sum::<f64>() / bags.len() as f64;
            whole += spread(&bags.concat());
        }
        assert!(inside < 0.5 * whole, "{inside} {whole}");
    }
}
