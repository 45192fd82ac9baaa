//! Reading speed of the native reader, as a ratio to libjpeg-turbo alone on the same native tiles.
//!
//! Both sides of a ratio run in turns, band by band of the slide, so that what else the machine does weighs on both. CPU
//! time; the time on the wall is printed beside, for two threads against one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use weir_benches::clock::{Took, machine, time};
use weir_benches::{Result, generated};
use weir_record::{Budget, TileId};
use weir_slide::{Edge, OpenOptions, SlideReader, TileCache, Tiling, open};

/// Bands that a slide is read in.
const BANDS: usize = 16;
/// What the reader may keep of decoded tiles: a quarter of it, the share of the cache.
const MEMORY: usize = 256 << 20;

struct Bench {
    slide: Arc<dyn SlideReader>,
    cache: usize,
}

impl Bench {
    fn open(recipe: &generated::Recipe) -> Result<Bench> {
        let cache = TileCache::new(&Budget::new(MEMORY));
        let bytes = cache.bytes();
        let options = OpenOptions {
            cache: Some(cache),
            ..OpenOptions::default()
        };
        Ok(Bench {
            slide: open(&generated::slide(recipe)?, &options)?,
            cache: bytes,
        })
    }

    /// The tiles of `px` px at `mpp` um/px, in the order that the tile-reader reads them in.
    fn tiles(&self, px: u32, mpp: f64) -> Result<(Tiling, Vec<TileId>)> {
        let tiling = Tiling::new(self.slide.facts(), px, mpp, 0, Edge::Drop)?;
        let mut tiles: Vec<TileId> = tiling.tiles().collect();
        tiling.file_order(&mut tiles, self.slide.facts(), self.cache);
        Ok((tiling, tiles))
    }

    /// Reads `tiles` and says what it took.
    fn read(&self, tiling: &Tiling, tiles: &[TileId]) -> Result<Took> {
        let px = tiling.grid.px;
        let mut pixels = vec![0; (px * px * 3) as usize];
        let ((), took) = time(|| {
            for &tile in tiles {
                self.slide
                    .read(tiling.region(tile), 0, px, px, &mut pixels)?;
                std::hint::black_box(&pixels);
            }
            Ok(())
        })?;
        Ok(took)
    }

    /// Decodes the native tiles `from..to` of `level`, counted row by row, from memory by libjpeg-turbo alone.
    fn raw(
        &self,
        level: usize,
        from: u32,
        to: u32,
        decoder: &mut turbojpeg::Decompressor,
    ) -> Result<Took> {
        let of = &self.slide.facts().levels[level];
        let (width, height) = (of.tile_width as usize, of.tile_height as usize);
        let streams: Vec<Vec<u8>> = (from..to)
            .map(|place| {
                Ok(self
                    .slide
                    .tile_raw(level, place % of.columns, place / of.columns)?
                    .bytes)
            })
            .collect::<Result<_>>()?;
        let mut pixels = vec![0; width * height * 3];
        let ((), took) = time(|| {
            for stream in &streams {
                let image = turbojpeg::Image {
                    pixels: pixels.as_mut_slice(),
                    width,
                    pitch: width * 3,
                    height,
                    format: turbojpeg::PixelFormat::RGB,
                };
                decoder.decompress(stream, image)?;
                std::hint::black_box(&pixels);
            }
            Ok(())
        })?;
        Ok(took)
    }

    /// CPU ns for each level px: of reading tiles of `px` px at `mpp`, and of decoding the native tiles of `level` that
    /// they come from, in turns.
    fn against_raw(&self, level: usize, px: u32, mpp: f64) -> Result<(f64, f64)> {
        let (tiling, tiles) = self.tiles(px, mpp)?;
        let of = &self.slide.facts().levels[level];
        let native = of.columns * of.rows;
        let mut decoder = turbojpeg::Decompressor::new()?;
        let (mut read, mut raw) = (Took::default(), Took::default());
        for band in 0..BANDS {
            let part = |n: usize| n * band / BANDS..n * (band + 1) / BANDS;
            read += self.read(&tiling, &tiles[part(tiles.len())])?;
            let natives = part(native as usize);
            raw += self.raw(
                level,
                natives.start as u32,
                natives.end as u32,
                &mut decoder,
            )?;
        }
        let footprint = tiling.grid.footprint / of.downsample;
        let read_px = tiles.len() as f64 * footprint * footprint;
        let raw_px = f64::from(native) * f64::from(of.tile_width) * f64::from(of.tile_height);
        Ok((
            read.cpu.as_secs_f64() * 1e9 / read_px,
            raw.cpu.as_secs_f64() * 1e9 / raw_px,
        ))
    }

    /// What `threads` threads took together to read all tiles of `px` px at `mpp`: CPU of all, wall of the whole.
    fn threads(&self, px: u32, mpp: f64, threads: usize) -> Result<(Took, usize)> {
        let (tiling, tiles) = self.tiles(px, mpp)?;
        let next = AtomicUsize::new(0);
        let start = std::time::Instant::now();
        let parts: Vec<std::result::Result<Took, String>> = std::thread::scope(|scope| {
            let run = || -> Result<Took> {
                let mut sum = Took::default();
                loop {
                    // A few at a time, in file order, as the reader threads of a run take them.
                    let from = next.fetch_add(16, Ordering::Relaxed);
                    if from >= tiles.len() {
                        return Ok(sum);
                    }
                    sum += self.read(&tiling, &tiles[from..(from + 16).min(tiles.len())])?;
                }
            };
            let handles: Vec<_> = (0..threads)
                .map(|_| scope.spawn(move || run().map_err(|error| error.to_string())))
                .collect();
            let lost = || Err("a thread panicked".to_string());
            handles
                .into_iter()
                .map(|handle| handle.join().unwrap_or_else(|_| lost()))
                .collect()
        });
        let mut took = Took::default();
        for part in parts {
            took += part?;
        }
        took.wall = start.elapsed();
        Ok((took, tiles.len()))
    }
}

fn main() -> Result<()> {
    println!("Reader: {}", machine());
    println!(
        "20,000 x 20,000 px of real tissue, JPEG quality 80; one thread; each ratio is of CPU time, both sides in turns\n"
    );
    println!("| what is read | ns/px, weir | ns/px, libjpeg-turbo alone | ratio | wanted |");
    println!("|---|---|---|---|---|");
    let pyramid = Bench::open(&generated::PYRAMID)?;
    let mpp = pyramid.slide.facts().require_mpp()?.0.0;
    let row = |what: &str, (read, raw): (f64, f64), ratio: String, wanted: &str| {
        println!("| {what} | {read:.2} | {raw:.2} | {ratio} | {wanted} |");
    };
    let pair = pyramid.against_raw(0, 256, mpp)?;
    row(
        "level 0, native tiles of 256 px",
        pair,
        format!("{:.2} of its speed", pair.1 / pair.0),
        ">= 0.80",
    );
    let pair = pyramid.against_raw(1, 224, 2.0 * mpp)?;
    row(
        "level 1, tiles of 224 px at its mpp",
        pair,
        format!("{:.2} of its speed", pair.1 / pair.0),
        ">= 0.72",
    );
    let aperio = Bench::open(&generated::APERIO)?;
    let pair = aperio.against_raw(0, 224, 0.5)?;
    row(
        "Aperio 1, 4, 16: tiles of 224 px at twice the mpp",
        pair,
        format!("{:.2} times its CPU", pair.0 / pair.1),
        "<= 2.2",
    );
    println!(
        "\nTiles of 224 px at the mpp of level 1, by threads. The last column is what the CPU times allow: what the wall shows\nhangs on how many of this machine's cores are free now.\n"
    );
    println!(
        "| threads | tiles/s | CPU us a tile | times one thread, wall | wanted | times one thread, by CPU |"
    );
    println!("|---|---|---|---|---|---|");
    // Three rounds in turns, the best of each: what else runs takes from the wall what it likes.
    let mut best = [(f64::MAX, 0.0, 0); 2];
    for _ in 0..3 {
        for (threads, best) in [1, 2].into_iter().zip(&mut best) {
            let (took, tiles) = pyramid.threads(224, 2.0 * mpp, threads)?;
            if took.wall.as_secs_f64() < best.0 {
                *best = (took.wall.as_secs_f64(), took.cpu.as_secs_f64(), tiles);
            }
        }
    }
    for (threads, (wall, cpu, tiles)) in [1, 2].into_iter().zip(best) {
        println!(
            "| {threads} | {:.0} | {:.0} | {:.2} | {} | {:.2} |",
            tiles as f64 / wall,
            cpu / tiles as f64 * 1e6,
            best[0].0 / wall,
            if threads == 2 { ">= 1.8" } else { "" },
            threads as f64 * best[0].1 / cpu,
        );
    }
    Ok(())
}
