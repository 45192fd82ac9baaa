//! `stain.measure`.

use crate::density::Light;
use crate::lab::Lab;
use crate::macenko::{Estimate, Scratch};
use crate::reinhard;
use crate::sample::sample;
use crate::slide_folder;
use crate::statistics::{FILE, Statistics};
use std::collections::BTreeMap;
use std::path::Path;
use weir_plugin::{Batch, Call, End, Error, Result, Row, Sink, Slide};

/// Writes how each slide is stained, for `stain.normalise` to take as its `reference` or `source`.
///
/// Of every tile it keeps `sample` pixels, always the same ones by the tile's size, and of a complete slide's pixels together, in the
/// order of its tiles, it takes Macenko's stain vectors and concentrations and Reinhard's mean and deviation. They stand in
/// `OUT/SLIDE/stain.json`, and depend neither on the order in which tiles came nor on the number of threads.
///
/// A slide with too little tissue, or with one dye only, has a file that says so.
#[derive(weir_plugin::Stage)]
#[stage(
    sink,
    id = "stain.measure",
    // 3 kB are kept of a tile; when a slide is complete its pixels are joined and projected, 16 kB more.
    state(slide = 4096, tile = 19600),
    example = "[stage.stain]\nuse = \"stain.measure\"\nin = \"tiles\"\n"
)]
#[input(tiles: pixels[height, width, 3], doc = "H&E tiles")]
pub struct Measure {
    /// Pixels that are kept of a tile.
    #[param(default = 1024, min = 16, max = 1024)]
    sample: usize,
    /// Light that bare glass lets through, grey levels plus one.
    #[param(default = 240.0, min = 1.0, max = 256.0)]
    light: f64,
    /// Optical density (natural logarithm) below which a channel shows no dye.
    #[param(default = 0.15, min = 0.0, max = 5.0)]
    beta: f64,
    /// Macenko: percentile of the angles that stand for the two stains, in percent.
    #[param(default = 1.0, min = 0.0, max = 49.0)]
    alpha: f64,
    /// Whether pixels without dye stay out of Reinhard's numbers.
    #[param(default = true)]
    keep_glass: bool,
    /// Share of a slide's pixels that must be stained, 0 to 1.
    #[param(default = 0.01, min = 0.0, max = 1.0)]
    least_tissue: f64,
    // Pixels by slide and tile.
    kept: BTreeMap<u64, BTreeMap<u64, Box<[u8]>>>,
}

impl Sink for Measure {
    fn take(&mut self, _: &str, tiles: &Batch, _: &Call) -> Result<()> {
        let pixels = tiles.column::<u8>("pixels")?;
        for (row, pixels) in tiles.rows().iter().zip(pixels.iter()) {
            let slide = self.kept.entry(row.key.slide).or_default();
            slide.insert(row.key.tile, sample(pixels, self.sample).into());
        }
        Ok(())
    }

    fn remove(&mut self, _: &str, rows: &[Row], _: &Call) -> Result<()> {
        for row in rows {
            if let Some(slide) = self.kept.get_mut(&row.key.slide) {
                slide.remove(&row.key.tile);
            }
        }
        Ok(())
    }

    fn complete(&mut self, slide: Slide, _: u32, end: End, call: &Call) -> Result<()> {
        let file = slide_folder::of(call.folder(), slide.id()).join(FILE);
        if end == End::Aborted {
            // What an earlier generation or run wrote is no longer true.
            return match std::fs::remove_file(&file) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    Err(failed(&file, &error))
                }
                _ => Ok(()),
            };
        }
        let statistics = self.statistics(slide);
        for why in &statistics.missing {
            call.warn(&format!("slide `{}`: {why}", slide.id()));
        }
        let text = statistics.text().map_err(Error::new)?;
        write(&file, &text).map_err(|error| failed(&file, &error))
    }

    fn close(&mut self, slide: u64) {
        self.kept.remove(&slide);
    }
}

impl Measure {
    fn statistics(&self, slide: Slide) -> Statistics {
        let tiles = self.kept.get(&slide.number());
        let pixels: Vec<u8> = tiles
            .into_iter()
            .flat_map(BTreeMap::values)
            .flatten()
            .copied()
            .collect();
        let estimate = Estimate {
            light: Light::new(self.light, self.beta),
            alpha: self.alpha,
            least: self.least_tissue,
        };
        let macenko = estimate.stains(&pixels, &mut Scratch::default());
        let reinhard = reinhard::colours(
            &Lab::default(),
            &estimate.light,
            self.keep_glass,
            self.least_tissue,
            &pixels,
        );
        let missing = [
            ("macenko", macenko.as_ref().err()),
            ("reinhard", reinhard.as_ref().err()),
        ];
        Statistics {
            weir_stain: 1,
            slide: slide.id().to_owned(),
            tiles: tiles.map_or(0, BTreeMap::len) as u64,
            pixels: (pixels.len() / 3) as u64,
            light: self.light,
            beta: self.beta,
            alpha: self.alpha,
            keep_glass: self.keep_glass,
            missing: missing
                .iter()
                .filter_map(|(method, why)| Some(format!("{method}: {}", (*why)?)))
                .collect(),
            macenko: macenko.ok(),
            reinhard: reinhard.ok(),
        }
    }
}

fn failed(file: &Path, error: &std::io::Error) -> Error {
    Error::new(format!("{} cannot be written: {error}", file.display()))
        .help("look at the folder `out` of the pipeline: its rights and its space")
}

/// Whole or not at all: under another name first.
fn write(file: &Path, text: &str) -> std::io::Result<()> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let part = file.with_extension(format!("json.{}.part", std::process::id()));
    std::fs::write(&part, text)?;
    std::fs::rename(&part, file)
}
