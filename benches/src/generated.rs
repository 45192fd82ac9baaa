//! Slides of any size: real tissue, mirrored over and over, written as a pyramid while it streams.

#[path = "../../engine/slide/tests/tiff_writer/mod.rs"]
#[allow(missing_docs, clippy::unwrap_used)]
mod tiff_writer;

use crate::Result;
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use tiff_writer::{Order, TiffWriter, Tiles, Value, part_jpeg, resolution};
use turbojpeg::{Compressor, Image, PixelFormat, Subsamp};
use weir_slide::{OpenOptions, Region, open};

/// A slide to make.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// Name of the file.
    pub name: &'static str,
    /// Width and height of level 0, px.
    pub side: u32,
    /// Level-0 px per px of each level, from 1 on.
    pub downsamples: &'static [u32],
    /// Width and height of a native tile, px.
    pub tile: u32,
    /// Says that it is Aperio's, 0.25 um/px, with tables that a level's tiles share and chroma halved along x only.
    pub aperio: bool,
}

/// 20,000 x 20,000 px, tiles of 256 px, JPEG quality 80, each level half of the one before.
pub const PYRAMID: Recipe = Recipe {
    name: "pyramid-20000.tiff",
    side: 20_000,
    downsamples: &[1, 2, 4, 8, 16, 32],
    tile: 256,
    aperio: false,
};

/// The same side, with the levels of a scanner by Aperio: each a quarter of the one before.
pub const APERIO: Recipe = Recipe {
    name: "aperio-20000.svs",
    side: 20_000,
    downsamples: &[1, 4, 16],
    tile: 240,
    aperio: true,
};

/// As [`PYRAMID`], so small that a run over it with a network takes a minute.
pub const SMALL: Recipe = Recipe {
    name: "pyramid-6000.tiff",
    side: 6_000,
    downsamples: &[1, 2, 4, 8],
    tile: 256,
    aperio: false,
};

const QUALITY: i32 = 80;

/// The tissue that slides are made of, at each downsample of a recipe.
struct Tissue {
    width: u32,
    height: u32,
    pixels: Vec<u8>,
}

impl Tissue {
    /// The whole of `path`, cut to whole 64ths so that it can be halved exactly.
    fn read(path: &Path) -> Result<Tissue> {
        let slide = open(path, &OpenOptions::default())?;
        let cut = |side: u64| side as u32 / 64 * 64;
        let (width, height) = (cut(slide.facts().width()), cut(slide.facts().height()));
        let mut pixels = vec![0; (width * height * 3) as usize];
        let region = Region {
            x: 0.0,
            y: 0.0,
            w: f64::from(width),
            h: f64::from(height),
        };
        slide.read(region, 0, width, height, &mut pixels)?;
        Ok(Tissue {
            width,
            height,
            pixels,
        })
    }

    /// Means of `factor` x `factor` px.
    fn reduced(&self, factor: u32) -> Tissue {
        let (width, height) = (self.width / factor, self.height / factor);
        let mut pixels = Vec::with_capacity((width * height * 3) as usize);
        let (pitch, half) = (self.width as usize * 3, factor * factor / 2);
        for y in 0..height as usize {
            for x in 0..width as usize {
                for c in 0..3 {
                    let mut sum = 0u32;
                    for row in 0..factor as usize {
                        let at = (y * factor as usize + row) * pitch + x * factor as usize * 3 + c;
                        let line = self.pixels[at..].iter().step_by(3).take(factor as usize);
                        sum += line.map(|value| u32::from(*value)).sum::<u32>();
                    }
                    pixels.push(((sum + half) / (factor * factor)) as u8);
                }
            }
        }
        Tissue {
            width,
            height,
            pixels,
        }
    }

    /// `side` x `side` px from (`x`, `y`) on of the plane that mirroring it over and over makes.
    fn cut(&self, x: u32, y: u32, side: u32, into: &mut Vec<u8>) {
        let mirror = |at: u32, side: u32| {
            let at = at % (2 * side);
            if at < side { at } else { 2 * side - 1 - at }
        };
        into.clear();
        for row in 0..side {
            let line = (mirror(y + row, self.height) * self.width) as usize * 3;
            for column in 0..side {
                let at = line + mirror(x + column, self.width) as usize * 3;
                into.extend_from_slice(&self.pixels[at..at + 3]);
            }
        }
    }
}

/// The folder of generated slides: `WEIR_BENCH_DATA`, else `weir-benches` in the system's folder for temporary files.
pub fn folder() -> PathBuf {
    std::env::var_os("WEIR_BENCH_DATA")
        .map_or_else(|| std::env::temp_dir().join("weir-benches"), PathBuf::from)
}

/// The file of `recipe`, made when it is not there yet.
pub fn slide(recipe: &Recipe) -> Result<PathBuf> {
    let path = folder().join(recipe.name);
    if path.is_file() {
        return Ok(path);
    }
    std::fs::create_dir_all(folder())?;
    let source =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/CMU-1-Small-Region.svs");
    let part = path.with_extension("part");
    write(recipe, &Tissue::read(&source)?, &part)?;
    std::fs::rename(&part, &path)?;
    Ok(path)
}

fn write(recipe: &Recipe, tissue: &Tissue, path: &Path) -> Result<()> {
    let mut file = TiffWriter::new(BufWriter::new(File::create(path)?), Order::Little, true)?;
    let mut compressor = Compressor::new()?;
    compressor.set_quality(QUALITY)?;
    compressor.set_subsamp(if recipe.aperio {
        Subsamp::Sub2x1
    } else {
        Subsamp::Sub2x2
    })?;
    let mut pixels = Vec::new();
    let mut directories = Vec::new();
    for &downsample in recipe.downsamples {
        let tissue = tissue.reduced(downsample);
        let level = Tiles {
            width: recipe.side / downsample,
            height: recipe.side / downsample,
            tile: recipe.tile,
            samples: 3,
            compression: 7,
            photometric: 6,
            predictor: false,
        };
        let (mut spans, mut shared) = (Vec::new(), None);
        for place in 0..level.columns() * level.rows() {
            let (column, row) = (place % level.columns(), place / level.columns());
            tissue.cut(
                column * level.tile,
                row * level.tile,
                level.tile,
                &mut pixels,
            );
            let side = level.tile as usize;
            let jpeg = compressor.compress_to_vec(Image {
                pixels: pixels.as_slice(),
                width: side,
                pitch: side * 3,
                height: side,
                format: PixelFormat::RGB,
            })?;
            let bytes = if recipe.aperio {
                let (tables, rest) = part_jpeg(&jpeg);
                shared.get_or_insert(tables);
                rest
            } else {
                jpeg
            };
            spans.push((file.data(&bytes)?, bytes.len() as u64));
        }
        let mut tags = level.tags(&spans);
        tags.push((
            530,
            Value::Short(if recipe.aperio {
                vec![2, 1]
            } else {
                vec![2, 2]
            }),
        ));
        if let Some(tables) = shared {
            tags.push((347, Value::Undefined(tables)));
        }
        if recipe.aperio {
            tags.push((
                270,
                Value::Ascii(format!(
                    "Aperio Image Library v11.2.1 \r\n{0}x{0} [0,0 {0}x{0}] ({1}x{1}) JPEG/YCbCr Q={QUALITY}|AppMag = 40|MPP = 0.2500",
                    level.width, level.tile
                )),
            ));
        } else {
            tags.push((254, Value::Long(vec![u32::from(downsample > 1)])));
            tags.extend(resolution(0.25 * f64::from(downsample)));
        }
        directories.push(tags);
    }
    for tags in directories {
        file.directory(tags, true)?;
    }
    file.finish()?;
    Ok(())
}
