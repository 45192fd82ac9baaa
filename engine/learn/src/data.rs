//! The tiles that are trained on: slides, manifest, bags, pixels.

use crate::TrainError;
use crate::augment::Change;
use crate::bags::{self, Bag};
use crate::recipe::Recipe;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use weir_model::{Input, sha256};
use weir_record::TileId;
use weir_slide::input::Files;
use weir_slide::{Edge, OpenOptions, Openers, SlideEntry, SlideReader, Tiling, TissueMask, open};

/// A slide that is open.
pub struct Slide {
    /// From the manifest.
    pub entry: SlideEntry,
    /// Its pixels.
    pub reader: Arc<dyn SlideReader>,
    /// The model's tiles on it.
    pub tiling: Tiling,
}

impl Slide {
    /// Opens a slide for tiles of the recipe's size and resolution.
    fn open(entry: &SlideEntry, recipe: &Recipe, openers: &Openers) -> Result<Slide, TrainError> {
        let options = OpenOptions {
            mpp: entry.mpp,
            openers: openers.clone(),
            timeout: recipe.file.data.timeout,
            ..OpenOptions::default()
        };
        let reader = open(&entry.path, &options)?;
        let input = &recipe.file.input;
        let tiling = Tiling::new(reader.facts(), input.size, input.mpp, 0, Edge::Pad)?;
        Ok(Slide {
            entry: entry.clone(),
            reader,
            tiling,
        })
    }

    /// The pixels of a tile, appended.
    pub fn read(&self, tile: TileId, into: &mut Vec<u8>) -> Result<(), TrainError> {
        let px = self.tiling.grid.px;
        let at = into.len();
        into.resize(at + (px * px * 3) as usize, 0);
        let region = self.tiling.region(tile);
        self.reader.read(region, 0, px, px, &mut into[at..])?;
        Ok(())
    }
}

/// A tile of a bag.
#[derive(Clone, Copy, Debug)]
pub struct Tile {
    /// Place in [`Data::entries`].
    pub slide: usize,
    /// Where on it.
    pub id: TileId,
    /// Place in [`Data::bags`].
    pub bag: usize,
}

/// Everything that is trained and validated on.
pub struct Data {
    /// The folder.
    pub folder: PathBuf,
    /// Every slide of the manifest, whatever its split.
    pub entries: Vec<SlideEntry>,
    /// Those with bags, by their place in `entries`.
    slides: Vec<Option<Slide>>,
    /// In the order of the table.
    pub bags: Vec<Bag>,
    /// Tiles of all bags, one bag after the other.
    pub tiles: Vec<Tile>,
    /// Where each bag's tiles stand in `tiles`.
    ranges: Vec<Range<usize>>,
    /// Pixels of all tiles where they fit.
    held: Option<Vec<u8>>,
    /// Readers of what the native one declines.
    openers: Openers,
    input: Input,
    /// SHA-256 of the list of bags.
    pub sha256: String,
}

impl Data {
    /// Opens `folder`, which holds `manifest.csv`, the slides, and `bags.csv`; without the last, a bag is a whole slide. What the
    /// native reader declines is read by one of `openers`.
    pub fn load(folder: &Path, recipe: &Recipe, openers: &Openers) -> Result<Data, TrainError> {
        let entries = entries(folder, openers)?;
        let table = folder.join("bags.csv");
        let mut slides: Vec<Option<Slide>> = entries.iter().map(|_| None).collect();
        let list = if table.is_file() {
            bags::read(&table, &entries, recipe.classes())?
        } else {
            whole_slides(folder, &entries, &mut slides, recipe, openers)?
        };
        for bag in &list {
            if slides[bag.slide].is_none() {
                let slide = Slide::open(&entries[bag.slide], recipe, openers)?;
                slides[bag.slide] = Some(slide);
            }
        }
        let (mut tiles, mut ranges) = (Vec::new(), Vec::new());
        for (place, bag) in list.iter().enumerate() {
            let from = tiles.len();
            tiles.extend(bag.tiles.iter().map(|id| Tile {
                slide: bag.slide,
                id: *id,
                bag: place,
            }));
            ranges.push(from..tiles.len());
        }
        let input = Input::new(&recipe.file.input).map_err(TrainError::Kernel)?;
        let mut data = Data {
            folder: folder.to_path_buf(),
            entries,
            slides,
            sha256: String::new(),
            bags: list,
            tiles,
            ranges,
            held: None,
            openers: openers.clone(),
            input,
        };
        data.sha256 = sha256(data.bags_csv(recipe.classes()).as_bytes());
        let bytes = data.tiles.len() as u64 * data.input.len() as u64;
        if bytes <= recipe.file.data.memory_mib << 20 {
            let mut held = Vec::with_capacity(bytes as usize);
            for tile in 0..data.tiles.len() {
                data.pixels(tile, &mut held)?;
            }
            data.held = Some(held);
        }
        Ok(data)
    }

    /// Places in `tiles` of a bag's tiles.
    pub fn members(&self, bag: usize) -> Range<usize> {
        self.ranges[bag].clone()
    }

    /// The slide of a tile.
    pub fn entry(&self, tile: usize) -> &SlideEntry {
        &self.entries[self.tiles[tile].slide]
    }

    /// Pixels of a tile, interleaved RGB, appended.
    pub fn pixels(&self, tile: usize, into: &mut Vec<u8>) -> Result<(), TrainError> {
        if let Some(held) = &self.held {
            let len = self.input.len();
            into.extend_from_slice(&held[tile * len..(tile + 1) * len]);
            return Ok(());
        }
        let Tile { slide, id, .. } = self.tiles[tile];
        match &self.slides[slide] {
            Some(slide) => slide.read(id, into),
            None => Err(TrainError::Data {
                place: self.entries[slide].id.clone(),
                what: "the slide is not open".into(),
                help: "this is a mistake of weir's".into(),
            }),
        }
    }

    /// The changed tiles as the network's numbers [tiles, 3, size, size].
    pub fn numbers(
        &self,
        tiles: impl Iterator<Item = (usize, Change)>,
    ) -> Result<Vec<f32>, TrainError> {
        let (mut numbers, mut pixels, mut changed) = (Vec::new(), Vec::new(), Vec::new());
        for (tile, change) in tiles {
            pixels.clear();
            self.pixels(tile, &mut pixels)?;
            change.apply(&pixels, self.input.size(), &mut changed);
            self.input
                .append(&changed, &mut numbers)
                .map_err(TrainError::Executor)?;
        }
        Ok(numbers)
    }

    /// The list of bags as `bags.csv`.
    pub fn bags_csv(&self, classes: &[String]) -> String {
        let mut table = csv::Writer::from_writer(Vec::new());
        // Writing into memory cannot fail, and every line has five cells.
        let _ = table.write_record(["bag", "slide", "split", "label", "tiles"]);
        for bag in &self.bags {
            let tiles: Vec<String> = bag
                .tiles
                .iter()
                .map(|tile| format!("{}:{}", tile.x(), tile.y()))
                .collect();
            let _ = table.write_record([
                &bag.name,
                &self.entries[bag.slide].id,
                bag.split.name(),
                &classes[bag.class],
                &tiles.join(" "),
            ]);
        }
        let bytes = table.into_inner().unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Opens any slide of the manifest, for evaluation.
    pub fn open(&self, slide: usize, recipe: &Recipe) -> Result<Slide, TrainError> {
        Slide::open(&self.entries[slide], recipe, &self.openers)
    }
}

/// The slides of the folder's manifest.
fn entries(folder: &Path, openers: &Openers) -> Result<Vec<SlideEntry>, TrainError> {
    let manifest = folder.join("manifest.csv");
    if !manifest.is_file() {
        return Err(TrainError::Data {
            place: folder.display().to_string(),
            what: "holds no manifest.csv".into(),
            help: "write one: slide,label,split,patient,mpp; pipelines/models/demo/slides.py makes the demo's".into(),
        });
    }
    let files = Files::SLIDES.and(&openers.extensions());
    weir_slide::input::files(&["manifest.csv".to_string()], folder, &files)
        .map_err(TrainError::Manifest)
}

/// A bag for each slide of split train or val: its tissue.
fn whole_slides(
    folder: &Path,
    entries: &[SlideEntry],
    slides: &mut [Option<Slide>],
    recipe: &Recipe,
    openers: &Openers,
) -> Result<Vec<Bag>, TrainError> {
    let manifest = folder.join("manifest.csv");
    let mut list = Vec::new();
    for (place, entry) in entries.iter().enumerate() {
        let Some(split) = entry.split.as_deref().and_then(bags::split) else {
            continue;
        };
        let label = entry.label.as_deref().unwrap_or_default();
        let class = bags::class(recipe.classes(), label).ok_or_else(|| TrainError::Data {
            place: manifest.display().to_string(),
            what: format!("slide `{}` has the label `{label}`", entry.id),
            help: format!("it is one of {:?}", recipe.classes()),
        })?;
        let slide = Slide::open(entry, recipe, openers)?;
        let mask = TissueMask::of(slide.reader.as_ref())?;
        let mut tiles = mask.keep(&slide.tiling, recipe.file.data.tissue_min);
        tiles.sort();
        slides[place] = Some(slide);
        if !tiles.is_empty() {
            list.push(Bag {
                name: entry.id.clone(),
                slide: place,
                split,
                class,
                tiles,
            });
        }
    }
    bags::check(&list, &manifest, recipe.classes())?;
    Ok(list)
}
