//! A region is its level's own pixels wherever it lies: on levels whose downsample is no whole number, and beyond their edges.
#![allow(clippy::unwrap_used)]

#[allow(dead_code)]
mod adapter;
#[path = "../../../engine/slide/tests/tiff_writer/mod.rs"]
mod tiff_writer;

use adapter::{open as through_openslide, there};
use std::path::Path;
use std::sync::Arc;
use tiff_writer::{Order, TiffWriter, Tiles, cut, resolution};
use weir_openslide::slide::Slide;
use weir_plugin::harness;
use weir_slide::{Fault, OpenOptions, Region, SlideReader, open};

/// Width, height and interleaved RGB of a level.
struct Picture {
    width: u32,
    height: u32,
    pixels: Vec<u8>,
}

impl Picture {
    /// Noise: of all pictures the one in which neighbours differ most.
    fn noise(width: u32, height: u32) -> Picture {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64 ^ u64::from(width);
        let pixels = (0..width as usize * height as usize * 3).map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        });
        Picture {
            width,
            height,
            pixels: pixels.collect(),
        }
    }

    /// A region, white where the picture is not.
    fn region(&self, (x, y): (i64, i64), (width, height): (u32, u32)) -> Vec<u8> {
        let pixel = |x: i64, y: i64| -> [u8; 3] {
            let inside =
                (0..i64::from(self.width)).contains(&x) && (0..i64::from(self.height)).contains(&y);
            if !inside {
                return [255; 3];
            }
            let at = (y as usize * self.width as usize + x as usize) * 3;
            self.pixels[at..at + 3].try_into().unwrap()
        };
        let rows = (0..i64::from(height))
            .flat_map(|row| (0..i64::from(width)).map(move |column| (column, row)));
        rows.flat_map(|(column, row)| pixel(x + column, y + row))
            .collect()
    }
}

/// A tiled TIFF without losses, of levels of these sizes.
fn write(path: &Path, sizes: &[(u32, u32)]) -> Vec<Picture> {
    write_damaged(path, sizes, &[])
}

/// The same; of these levels the first tile lies beyond the file's end.
fn write_damaged(path: &Path, sizes: &[(u32, u32)], lost: &[usize]) -> Vec<Picture> {
    let mut file =
        TiffWriter::new(std::fs::File::create(path).unwrap(), Order::Little, true).unwrap();
    let mut pictures = Vec::new();
    for &(width, height) in sizes {
        let picture = Picture::noise(width, height);
        let of = Tiles {
            width,
            height,
            tile: 64,
            samples: 3,
            compression: 1,
            photometric: 2,
            predictor: false,
        };
        let mut spans = Vec::new();
        for row in 0..height.div_ceil(64) {
            for column in 0..width.div_ceil(64) {
                let tile = cut(&picture.pixels, &of, column, row);
                let at = match spans.is_empty() && lost.contains(&pictures.len()) {
                    true => 1 << 40,
                    false => file.data(&tile).unwrap(),
                };
                spans.push((at, tile.len() as u64));
            }
        }
        let mut tags = of.tags(&spans);
        if pictures.is_empty() {
            tags.extend(resolution(0.25));
        } else {
            // NewSubfileType: of lower resolution.
            tags.push((254, tiff_writer::Value::Long(vec![1])));
        }
        file.directory(tags, true).unwrap();
        pictures.push(picture);
    }
    file.finish().unwrap();
    pictures
}

fn worst(a: &[u8], b: &[u8]) -> u8 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| a.abs_diff(*b)).max().unwrap()
}

fn mean_apart(a: &[u8], b: &[u8]) -> f64 {
    let sum: u64 = a
        .iter()
        .zip(b)
        .map(|(a, b)| u64::from(a.abs_diff(*b)))
        .sum();
    sum as f64 / a.len() as f64
}

/// Corners over the whole of a level, at its edges, and beyond them.
fn corners(level: &Picture, (w, h): (u32, u32)) -> Vec<(i64, i64)> {
    let (width, height) = (i64::from(level.width), i64::from(level.height));
    let (w, h) = (i64::from(w), i64::from(h));
    let mut corners = vec![
        (0, 0),
        (-3, -5),
        (width - w, height - h),
        (width - w / 2, height - h / 2),
        (width - 1, 1),
        (1, height - 1),
        (-w - 10, 0),
        (width + 7, height + 7),
    ];
    for n in 0..40 {
        corners.push((n * 7919 % width, n * 104_729 % height));
    }
    corners
}

/// What rounding to whole grey levels may leave, of noise: most where two tiles meet, whose parts of a pixel are rounded each.
fn allowed(downsample: f64) -> u8 {
    match downsample {
        whole if whole.fract() == 0.0 => 0,
        near if near < 2.2 => 6,
        _ => 4,
    }
}

#[test]
fn a_region_is_the_levels_own_pixels_whatever_its_downsample() {
    if !there() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for small in [
        (669, 518),
        (250, 194),
        (2001, 1613),
        (1501, 1209),
        (1250, 1007),
        (1001, 811),
        (756, 610),
    ] {
        let large = small.0 > 700;
        let zero = if large { (3003, 2419) } else { (1003, 777) };
        let path = folder.path().join(format!("{}.tiff", small.0));
        let levels = write(&path, &[zero, small]);
        let slide = harness::reader::<Slide>().open(&path).unwrap();
        let downsample = slide.facts().unwrap().levels[1].downsample;
        // A level of a million px is read from its corner.
        let allowed = match small.0 * small.1 <= 1 << 20 {
            true => 0,
            false => allowed(downsample),
        };
        let (mut greatest, mut mean) = (0, 0.0f64);
        for size in [(1, 1), (7, 5), (60, 45), small] {
            let mut corners = corners(&levels[1], size);
            if size == small {
                corners = vec![(0, 0), (-3, -5), (20, 10)];
            }
            for corner in corners {
                let got = slide.region(1, corner.0, corner.1, size.0, size.1).unwrap();
                let wanted = levels[1].region(corner, size);
                greatest = greatest.max(worst(&got, &wanted));
                if size.0 > 7 {
                    mean = mean.max(mean_apart(&got, &wanted));
                }
            }
        }
        println!("1/{downsample}: off by at most {greatest}, {mean:.3} in the mean");
        assert!(
            greatest <= allowed && mean <= 0.5,
            "1/{downsample}: off by {greatest}, {mean} in the mean"
        );
        // Level 0 is never interpolated.
        for corner in corners(&levels[0], (60, 45)) {
            let got = slide.region(0, corner.0, corner.1, 60, 45).unwrap();
            assert_eq!(got, levels[0].region(corner, (60, 45)), "{corner:?}");
        }
    }
}

/// Where a level is half a pixel beside another of nearly its size, half a grey level would grow without bound.
#[test]
fn a_region_that_cannot_be_had_exactly_is_refused() {
    if !there() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("twins.tiff");
    let levels = write(&path, &[(3003, 2419), (3002, 2418)]);
    let slide = harness::reader::<Slide>().open(&path).unwrap();
    let refused = slide.region(1, 1501, 1209, 20, 20).unwrap_err();
    assert!(
        refused.message().contains("level 1 has no exact pixels at"),
        "{}",
        refused.message()
    );
    assert!(refused.what_to_do().contains("another level"));
    let got = slide.region(1, 0, 0, 20, 20).unwrap();
    assert_eq!(got, levels[1].region((0, 0), (20, 20)));
}

type Both = (Arc<dyn SlideReader>, Arc<dyn SlideReader>);

fn both(path: &Path) -> Both {
    let options = OpenOptions::default();
    (
        open(path, &options).unwrap(),
        through_openslide(path, &options).unwrap(),
    )
}

#[test]
fn beyond_a_levels_edge_both_readers_give_white_and_beyond_the_slide_both_refuse() {
    if !there() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("levels.tiff");
    let levels = write(&path, &[(3003, 2419), (1501, 1209), (750, 604)]);
    let (native, other) = both(&path);
    for (number, level) in levels.iter().enumerate() {
        let facts = &native.facts().levels[number];
        assert_eq!(facts.downsample, other.facts().levels[number].downsample);
        let scale = facts.downsample;
        let size = (48, 36);
        for corner in corners(level, size) {
            let region = Region {
                x: corner.0 as f64 * scale,
                y: corner.1 as f64 * scale,
                w: f64::from(size.0) * scale,
                h: f64::from(size.1) * scale,
            };
            let read = |slide: &dyn SlideReader| {
                let mut pixels = vec![7; (size.0 * size.1 * 3) as usize];
                slide
                    .read(region, 0, size.0, size.1, &mut pixels)
                    .map(|()| pixels)
            };
            match (read(&*native), read(&*other)) {
                (Ok(ours), Ok(theirs)) => {
                    assert_eq!(
                        ours,
                        level.region(corner, size),
                        "level {number} {corner:?}"
                    );
                    let apart = worst(&ours, &theirs);
                    let allowed = [0, 6, 0][number];
                    assert!(apart <= allowed, "level {number} {corner:?}: {apart}");
                }
                (Err(ours), Err(theirs)) => {
                    assert_eq!((ours.fault, &ours.what), (theirs.fault, &theirs.what));
                    assert_eq!(ours.fault, Fault::Request);
                }
                (ours, theirs) => panic!(
                    "level {number} {corner:?}: {:?} {:?}",
                    ours.map(|_| ()),
                    theirs.map(|_| ())
                ),
            }
        }
    }
}

/// What lies between a region and the place from which it is read must not fail it.
#[test]
fn a_damaged_tile_fails_the_regions_that_touch_it_alone() {
    if !there() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("damaged.tiff");
    let levels = write_damaged(&path, &[(3003, 2419), (750, 604), (188, 151)], &[1]);
    let slide = through_openslide(&path, &OpenOptions::default()).unwrap();
    let scale = slide.facts().levels[1].downsample;
    let read = |(x, y): (i64, i64)| {
        let mut pixels = vec![0; 40 * 40 * 3];
        let region = Region {
            x: x as f64 * scale,
            y: y as f64 * scale,
            w: 40.0 * scale,
            h: 40.0 * scale,
        };
        slide.read(region, 0, 40, 40, &mut pixels).map(|()| pixels)
    };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for corner in [
                    (100, 100),
                    (300, 7),
                    (0, 10),
                    (64, 70),
                    (600, 500),
                    (40, 40),
                ] {
                    let touches = corner.0 < 64 && corner.1 < 64;
                    match read(corner) {
                        Ok(pixels) => {
                            let apart = worst(&pixels, &levels[1].region(corner, (40, 40)));
                            assert!(!touches && apart <= 4, "{corner:?}: {apart}");
                        }
                        Err(error) => {
                            assert!(touches, "{corner:?}: {error}");
                            assert_eq!(error.fault, Fault::Damaged);
                        }
                    }
                }
            });
        }
    });
}
