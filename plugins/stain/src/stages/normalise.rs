//! `stain.normalise`.

use super::scratches::Scratches;
use super::vectors::{direction, given};
use crate::density::Light;
use crate::lab::Lab;
use crate::macenko::{self, Estimate, Stains};
use crate::normaliser::{Change, Normaliser, Target};
use crate::reference::Wanted;
use crate::reinhard::{self, Colours};
use std::collections::BTreeMap;
use std::path::PathBuf;
use weir_plugin::{Batch, Call, Choice, Error, Map, Result};

/// How.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Choice)]
pub enum Method {
    /// Stain vectors.
    Macenko,
    /// Mean and deviation of colours.
    Reinhard,
}

/// What becomes of a tile that has no stains of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Choice)]
pub enum Degenerate {
    /// It goes on as it is.
    Pass,
    /// It is a failed tile.
    Fail,
}

/// Gives H&E tiles the colours of a reference.
///
/// `method = "macenko"` (Macenko et al., ISBI 2009) finds the directions of haematoxylin and eosin among a tile's optical densities
/// and replaces them, and the 99th percentile of each one's concentration, by the target's. `method = "reinhard"` (Reinhard et al.,
/// IEEE CG&A 2001) shifts and stretches the tile's colours in CIELAB until mean and standard deviation are the target's.
///
/// The target is `reference`, a picture or a file that `stain.measure` wrote; or the numbers of the method's own parameters; or,
/// without any, a published one. The source's numbers are each tile's own, so that a tile's result depends on nothing else; or,
/// with `source`, its slide's.
///
/// A tile without enough stained pixels, or with one dye only, is passed or failed as `degenerate` says. Glass stays as it is.
#[derive(weir_plugin::Stage)]
#[stage(
    map,
    id = "stain.normalise",
    deterministic,
    example = "[stage.normal]\nuse = \"stain.normalise\"\nin = \"tiles\"\nmethod = \"macenko\"\n"
)]
#[input(tiles: pixels[height, width, 3], mpp = mpp, doc = "H&E tiles")]
#[output(tiles: pixels[height, width, 3], mpp = mpp, doc = "The same tiles in the reference's colours")]
pub struct Normalise {
    /// `macenko` or `reinhard`.
    #[param(default = "macenko")]
    method: Method,
    /// Whose colours the tiles get: a PNG or JPEG of stained tissue, or a file `stain.json` of `stain.measure` (a slide's).
    #[param(exists)]
    reference: Option<PathBuf>,
    /// A folder of outputs of a run of `stain.measure`, or one of its files: tiles are then changed by their slide's numbers instead
    /// of their own, and a tile whose slide has none fails.
    #[param(exists)]
    source: Option<PathBuf>,
    /// Macenko's target: densities in red, green and blue of one unit of haematoxylin, three numbers with blanks between them; without
    /// `reference`. Default 0.5626 0.7201 0.4062, of the method's authors.
    #[param]
    haematoxylin: Option<String>,
    /// The same of eosin. Default 0.2159 0.8012 0.5581.
    #[param]
    eosin: Option<String>,
    /// Macenko's target: 99th percentiles of the concentrations of haematoxylin and eosin, two numbers. Default 1.9705 1.0308.
    #[param]
    concentrations: Option<String>,
    /// Reinhard's target: means of L (0 to 100), a and b of CIELAB, three numbers; without `reference`. Default 58.12343 26.483482
    /// -12.701005, over about 50,000 tiles of TCGA (Slideflow's preset reinhard_fast v3).
    #[param]
    mean: Option<String>,
    /// Reinhard's target: standard deviations of L, a and b. Default 14.675022 7.5744166 5.226378.
    #[param]
    deviation: Option<String>,
    /// Light that bare glass lets through, grey levels plus one.
    #[param(default = 240.0, min = 1.0, max = 256.0)]
    light: f64,
    /// Optical density (natural logarithm) below which a channel shows no dye.
    #[param(default = 0.15, min = 0.0, max = 5.0)]
    beta: f64,
    /// Macenko: percentile of the angles that stand for the two stains, in percent.
    #[param(default = 1.0, min = 0.0, max = 49.0)]
    alpha: f64,
    /// Whether pixels without dye stay as they are and out of Reinhard's numbers; false is the methods as they were published.
    #[param(default = true)]
    keep_glass: bool,
    /// Share of a tile's pixels that must be stained, 0 to 1.
    #[param(default = 0.01, min = 0.0, max = 1.0)]
    least_tissue: f64,
    /// What becomes of a tile with less, or with one dye only: `pass` it as it is, or `fail` it.
    #[param(default = "pass")]
    degenerate: Degenerate,
    ready: Option<Ready>,
    scratches: Scratches,
}

struct Ready {
    normaliser: Normaliser,
    // By slide, where the source is measured.
    sources: Option<BTreeMap<String, Change>>,
}

impl Map for Normalise {
    fn start(&mut self, _: &Call) -> Result<()> {
        let estimate = Estimate {
            light: Light::new(self.light, self.beta),
            alpha: self.alpha,
            least: self.least_tissue,
        };
        let wanted = Wanted {
            stains: self.method == Method::Macenko,
            estimate: &estimate,
            keep_glass: self.keep_glass,
        };
        let target = self.target(&wanted)?;
        let sources = match &self.source {
            Some(path) => Some(wanted.sources(path).map_err(|what| {
                Error::param("source", what)
                    .help("name the `out` folder of a run of stain.measure with the same settings")
            })?),
            None => None,
        };
        let normaliser = Normaliser {
            estimate,
            keep_glass: self.keep_glass,
            target,
            lab: Lab::default(),
        };
        let sources = sources.map(|sources| {
            let known = sources.into_iter();
            known
                .filter_map(|(slide, source)| Some((slide, normaliser.known(&source)?)))
                .collect()
        });
        self.ready = Some(Ready {
            normaliser,
            sources,
        });
        Ok(())
    }

    fn map(&self, tiles: &Batch, call: &Call) -> Result<()> {
        let Some(ready) = &self.ready else {
            return Err(Error::new("the stage was not started"));
        };
        // Every row is looked at before any is changed: edited rows are the input's own memory.
        let fates = self.fates(ready, tiles)?;
        let failed = fates
            .iter()
            .filter(|fate| matches!(fate, Fate::Fail(_)))
            .count();
        let passed = fates
            .iter()
            .filter(|fate| matches!(fate, Fate::Pass))
            .count();
        if passed > 0 {
            call.count("degenerate", passed as u64);
        }
        if failed == 0 {
            return self.edit(ready, &fates, call);
        }
        let mut going = Vec::with_capacity(fates.len() - failed);
        for (row, fate) in fates.iter().enumerate() {
            match fate {
                Fate::Fail(error) => call.fail_row(row, error)?,
                Fate::Pass | Fate::Change(_) => going.push(row as u32),
            }
        }
        if going.is_empty() {
            return Ok(());
        }
        let pixels = tiles.column::<u8>("pixels")?;
        let mut draft = call.out().make(&going)?;
        let mut made = draft.column_mut::<u8>("pixels")?;
        for (row, from) in going.iter().enumerate() {
            let into = made.row_mut(row);
            into.copy_from_slice(pixels.row(*from as usize));
            if let Fate::Change(change) = &fates[*from as usize] {
                ready.normaliser.apply(change.get(), into);
            }
        }
        draft.emit()
    }
}

/// What becomes of a row.
enum Fate<'s> {
    Pass,
    Change(Known<'s>),
    Fail(Error),
}

/// A change of one tile or of its slide.
enum Known<'s> {
    Tile(Change),
    Slide(&'s Change),
}

impl Known<'_> {
    fn get(&self) -> &Change {
        match self {
            Known::Tile(change) => change,
            Known::Slide(change) => change,
        }
    }
}

impl Normalise {
    fn target(&self, wanted: &Wanted) -> Result<Target> {
        let own = [
            ("haematoxylin", &self.haematoxylin, true),
            ("eosin", &self.eosin, true),
            ("concentrations", &self.concentrations, true),
            ("mean", &self.mean, false),
            ("deviation", &self.deviation, false),
        ];
        for (name, value, stains) in own {
            if value.is_none() {
                continue;
            }
            if self.reference.is_some() {
                return Err(Error::param(
                    name,
                    "the target is given twice, here and as `reference`",
                )
                .help("leave one of them out"));
            }
            if stains != wanted.stains {
                let (method, other) = if stains {
                    ("macenko", "reinhard")
                } else {
                    ("reinhard", "macenko")
                };
                return Err(Error::param(
                    name,
                    format!("it is of method = \"{method}\", and this is \"{other}\""),
                )
                .help("leave it out, or change the method"));
            }
        }
        if let Some(path) = &self.reference {
            return wanted.read(path).map_err(|what| {
                Error::param("reference", what)
                    .help("take a PNG or JPEG in colours (RGB) of tissue with nuclei and stroma, or a file of stain.measure with the same settings")
            });
        }
        if wanted.stains {
            let published = macenko::REFERENCE;
            let stains = Stains {
                haematoxylin: direction(
                    "haematoxylin",
                    self.haematoxylin.as_deref(),
                    published.haematoxylin,
                )?,
                eosin: direction("eosin", self.eosin.as_deref(), published.eosin)?,
                concentrations: given(
                    "concentrations",
                    self.concentrations.as_deref(),
                    published.concentrations,
                )?,
            };
            let at = if self.concentrations.is_some() {
                "concentrations"
            } else {
                "eosin"
            };
            stains.check().map_err(|what| Error::param(at, what))?;
            return Ok(Target::Stains(stains));
        }
        let published = reinhard::REFERENCE;
        let colours = Colours {
            mean: given("mean", self.mean.as_deref(), published.mean)?,
            deviation: given("deviation", self.deviation.as_deref(), published.deviation)?,
        };
        colours
            .check()
            .map_err(|what| Error::param("deviation", what))?;
        Ok(Target::Colours(colours))
    }

    fn fates<'s>(&self, ready: &'s Ready, tiles: &Batch) -> Result<Vec<Fate<'s>>> {
        if let Some(sources) = &ready.sources {
            let of = |row: usize| {
                let slide = tiles.slide(row).id();
                match sources.get(slide) {
                    Some(change) => Fate::Change(Known::Slide(change)),
                    None => Fate::Fail(
                        Error::new(format!("`source` has no statistics of slide `{slide}`"))
                            .help("run stain.measure over this slide first"),
                    ),
                }
            };
            return Ok((0..tiles.len()).map(of).collect());
        }
        let pixels = tiles.column::<u8>("pixels")?;
        let fates = self.scratches.with(|scratch| {
            let of = |tile: &[u8]| match ready.normaliser.change(tile, scratch) {
                Ok(change) => Fate::Change(Known::Tile(change)),
                Err(_) if self.degenerate == Degenerate::Pass => Fate::Pass,
                Err(why) => Fate::Fail(
                    Error::new(format!("its stains cannot be told: {why}"))
                        .help("degenerate = \"pass\" lets such tiles go on as they are"),
                ),
            };
            pixels.iter().map(of).collect()
        });
        Ok(fates)
    }

    fn edit(&self, ready: &Ready, fates: &[Fate], call: &Call) -> Result<()> {
        let mut draft = call.out().edit()?;
        let mut made = draft.column_mut::<u8>("pixels")?;
        for (row, fate) in fates.iter().enumerate() {
            if let Fate::Change(change) = fate {
                ready.normaliser.apply(change.get(), made.row_mut(row));
            }
        }
        draft.emit()
    }
}
