//! `stain.separate`.

use super::scratches::Scratches;
use super::vectors::direction;
use crate::density::Light;
use crate::macenko::Estimate;
use crate::normaliser::Target;
use crate::recolour::Recolour;
use crate::reference::Wanted;
use crate::separate::{self, RUIFROK};
use crate::vector::Vector;
use std::collections::BTreeMap;
use std::path::PathBuf;
use weir_plugin::{Batch, Call, Choice, Error, Map, Result};

/// Where the stains' directions come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Choice)]
pub enum Method {
    /// They are fixed.
    Ruifrok,
    /// They are the tile's own.
    Macenko,
}

/// What a picture shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Choice)]
pub enum Show {
    /// Grey.
    Density,
    /// The stain's colour.
    Colour,
}

/// What becomes of a tile that has no stains of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Choice)]
pub enum Degenerate {
    /// The fixed directions are taken.
    Fixed,
    /// It is a failed tile.
    Fail,
}

/// Splits H&E tiles into a picture of haematoxylin, one of eosin and one of what is neither.
///
/// Colour deconvolution by Ruifrok and Johnston (2001): densities are written in a basis of the two stains' directions, each of
/// length 1, and the direction perpendicular to both, the residual. With `c` the coordinate of a stain and `s` its direction a
/// picture's grey levels are `light * exp(-c) - 1` in all channels (`show = "density"`, read back by `c = ln(light / (v + 1))`), or
/// `light * exp(-c s) - 1` (`show = "colour"`). Less than nothing of a stain is brighter than the light; 0 to 255 is held.
///
/// The directions are fixed (`method = "ruifrok"`), or each tile's own (`method = "macenko"`), or with `source` its slide's.
#[derive(weir_plugin::Stage)]
#[stage(
    map,
    id = "stain.separate",
    deterministic,
    example = "[stage.stains]\nuse = \"stain.separate\"\nin = \"tiles\"\n"
)]
#[input(tiles: pixels[height, width, 3], mpp = mpp, doc = "H&E tiles")]
#[output(haematoxylin: pixels[height, width, 3], mpp = mpp, doc = "Haematoxylin alone")]
#[output(eosin: pixels[height, width, 3], mpp = mpp, doc = "Eosin alone")]
#[output(residual: pixels[height, width, 3], mpp = mpp, doc = "What is neither")]
pub struct Separate {
    /// `ruifrok`: fixed directions; `macenko`: each tile's own.
    #[param(default = "ruifrok")]
    method: Method,
    /// `density`: grey, readable as concentrations; `colour`: as the slide would look with this stain alone.
    #[param(default = "density")]
    show: Show,
    /// Fixed densities in red, green and blue of haematoxylin, three numbers with blanks between them.
    #[param(default = "0.65 0.70 0.29")]
    haematoxylin: String,
    /// The same of eosin.
    #[param(default = "0.07 0.99 0.11")]
    eosin: String,
    /// A folder of outputs of a run of `stain.measure`, or one of its files: with `method = "macenko"`, directions are then the slide's
    /// instead of the tile's, and a tile whose slide has none fails.
    #[param(exists)]
    source: Option<PathBuf>,
    /// Light that bare glass lets through, grey levels plus one.
    #[param(default = 240.0, min = 1.0, max = 256.0)]
    light: f64,
    /// Optical density (natural logarithm) below which a channel shows no dye.
    #[param(default = 0.15, min = 0.0, max = 5.0)]
    beta: f64,
    /// Percentile of the angles that stand for the two stains, in percent.
    #[param(default = 1.0, min = 0.0, max = 49.0)]
    alpha: f64,
    /// Share of a tile's pixels that must be stained for `method = "macenko"`, 0 to 1.
    #[param(default = 0.01, min = 0.0, max = 1.0)]
    least_tissue: f64,
    /// What becomes of a tile with less, or with one dye only: the `fixed` directions are taken, or it is to `fail`.
    #[param(default = "fixed")]
    degenerate: Degenerate,
    ready: Option<Ready>,
    scratches: Scratches,
}

/// Haematoxylin, eosin, residual.
type Pictures = [Recolour; 3];

struct Ready {
    estimate: Estimate,
    fixed: Pictures,
    // By slide, where the source is measured.
    sources: Option<BTreeMap<String, Pictures>>,
}

/// Names of the outputs.
const OUTPUTS: [&str; 3] = ["haematoxylin", "eosin", "residual"];

impl Map for Separate {
    fn start(&mut self, _: &Call) -> Result<()> {
        let estimate = Estimate {
            light: Light::new(self.light, self.beta),
            alpha: self.alpha,
            least: self.least_tissue,
        };
        let haematoxylin = direction("haematoxylin", Some(&self.haematoxylin), RUIFROK[0])?;
        let eosin = direction("eosin", Some(&self.eosin), RUIFROK[1])?;
        let fixed = self
            .pictures(&estimate.light, haematoxylin, eosin)
            .ok_or_else(|| {
                Error::param("eosin", "it has the direction of `haematoxylin`")
                    .help("give two different stains")
            })?;
        let sources = match &self.source {
            Some(_) if self.method == Method::Ruifrok => {
                return Err(Error::param(
                    "source",
                    "it is of method = \"macenko\", and this is \"ruifrok\"",
                )
                .help("leave it out, or change the method"));
            }
            Some(path) => Some(self.sources(&estimate, path)?),
            None => None,
        };
        self.ready = Some(Ready {
            estimate,
            fixed,
            sources,
        });
        Ok(())
    }

    fn map(&self, tiles: &Batch, call: &Call) -> Result<()> {
        let Some(ready) = &self.ready else {
            return Err(Error::new("the stage was not started"));
        };
        let pixels = tiles.column::<u8>("pixels")?;
        let mut going = Vec::with_capacity(tiles.len());
        let mut own: Vec<Option<Box<Pictures>>> = Vec::with_capacity(tiles.len());
        let mut degenerate = 0;
        for row in 0..tiles.len() {
            let pictures = match self.method {
                Method::Macenko if ready.sources.is_none() => {
                    match self.of_tile(ready, pixels.row(row)) {
                        Ok(pictures) => Some(Box::new(pictures)),
                        Err(_) if self.degenerate == Degenerate::Fixed => {
                            degenerate += 1;
                            None
                        }
                        Err(error) => {
                            call.fail_row(row, &error)?;
                            continue;
                        }
                    }
                }
                Method::Ruifrok | Method::Macenko => None,
            };
            let slide = tiles.slide(row).id();
            if ready
                .sources
                .as_ref()
                .is_some_and(|sources| !sources.contains_key(slide))
            {
                let error = Error::new(format!("`source` has no statistics of slide `{slide}`"))
                    .help("run stain.measure over this slide first");
                call.fail_row(row, &error)?;
                continue;
            }
            going.push(row as u32);
            own.push(pictures);
        }
        if degenerate > 0 {
            call.count("degenerate", degenerate);
        }
        if going.is_empty() {
            return Ok(());
        }
        for (place, output) in OUTPUTS.into_iter().enumerate() {
            let mut draft = call.to(output)?.make(&going)?;
            let mut made = draft.column_mut::<u8>("pixels")?;
            for (row, (from, own)) in going.iter().zip(&own).enumerate() {
                let from = *from as usize;
                let slides = ready
                    .sources
                    .as_ref()
                    .and_then(|sources| sources.get(tiles.slide(from).id()));
                let pictures = own.as_deref().or(slides).unwrap_or(&ready.fixed);
                let into = made.row_mut(row);
                into.copy_from_slice(pixels.row(from));
                pictures[place].apply(into);
            }
            draft.emit()?;
        }
        Ok(())
    }
}

impl Separate {
    fn pictures(&self, light: &Light, haematoxylin: Vector, eosin: Vector) -> Option<Pictures> {
        let show = match self.show {
            Show::Density => separate::Show::Density,
            Show::Colour => separate::Show::Colour,
        };
        let matrices = separate::matrices(haematoxylin, eosin, show)?;
        Some(matrices.map(|matrix| Recolour::new(light, &matrix, false)))
    }

    fn of_tile(&self, ready: &Ready, tile: &[u8]) -> Result<Pictures> {
        let found = self
            .scratches
            .with(|scratch| ready.estimate.stains(tile, scratch));
        let stains = found.map_err(|why| {
            Error::new(format!("its stains cannot be told: {why}"))
                .help("degenerate = \"fixed\" splits such tiles by the fixed directions")
        })?;
        self.pictures(&ready.estimate.light, stains.haematoxylin, stains.eosin)
            .ok_or_else(|| Error::new("its two stains have one direction"))
    }

    fn sources(
        &self,
        estimate: &Estimate,
        path: &std::path::Path,
    ) -> Result<BTreeMap<String, Pictures>> {
        let wanted = Wanted {
            stains: true,
            estimate,
            keep_glass: true,
        };
        let targets = wanted.sources(path).map_err(|what| {
            Error::param("source", what)
                .help("name the `out` folder of a run of stain.measure with the same settings")
        })?;
        let pictures = targets
            .into_iter()
            .filter_map(|(slide, target)| match target {
                Target::Stains(stains) => Some((
                    slide,
                    self.pictures(&estimate.light, stains.haematoxylin, stains.eosin)?,
                )),
                Target::Colours(_) => None,
            });
        Ok(pictures.collect())
    }
}
