//! The reader against the native one on every file that both read, and what else it reads, refuses and fails.
//!
//! Bounds. Level 0 and levels whose downsample is a whole number: each sample within 1 grey level, since libjpeg-turbo's versions
//! (and OpenJPEG against hayro) round alike but for the last bit; lossless files are equal. Other levels, all of which are smaller
//! by 4 or more here: within 3, since OpenSlide interpolates, and undoing it brings back what was not lost to rounding.
#![allow(clippy::unwrap_used)]

mod adapter;

use adapter::{four, open as through_openslide, openers, there};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use weir_record::{MppOrigin, TileId};
use weir_slide::{
    Edge, Fault, OpenOptions, Region, SlideReader, Tiling, TissueMask, open, open_and_tell,
};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/fixtures")
        .join(name)
}

/// A file of the data folder, which may not be there.
fn data(name: &str) -> Option<PathBuf> {
    let Some(folder) = std::env::var_os("WEIR_DATA") else {
        eprintln!("skipped: WEIR_DATA names no folder with {name}");
        return None;
    };
    let path = PathBuf::from(folder).join(name);
    assert!(path.exists(), "{} is not there", path.display());
    Some(path)
}

/// Every slide that both readers take.
fn common() -> Vec<PathBuf> {
    let mut slides = vec![
        fixture("CMU-1-Small-Region.svs"),
        fixture("slide-14082.tiff"),
    ];
    let more = [
        "wsi/boxes.tiff",
        "wsi/cmu-crop.ome.tiff",
        "wsi/jp2k-crop.svs",
        "wsi/small.svs",
        "wsi/yb10kx5k.zstd.tiff",
        "idc/slides/slide-8863.tiff",
        "idc/slides/slide-8867.tiff",
        "idc/slides/slide-8913.tiff",
    ];
    if std::env::var_os("WEIR_DATA").is_some() {
        slides.extend(more.iter().filter_map(|name| data(name)));
    }
    slides
}

fn both(
    path: &Path,
) -> (
    std::sync::Arc<dyn SlideReader>,
    std::sync::Arc<dyn SlideReader>,
) {
    let options = OpenOptions::default();
    let native = open(path, &options).unwrap_or_else(|error| panic!("{error}"));
    let other = through_openslide(path, &options).unwrap_or_else(|error| panic!("{error}"));
    (native, other)
}

fn pixels(slide: &dyn SlideReader, region: Region, (width, height): (u32, u32)) -> Vec<u8> {
    let mut pixels = vec![0; (width * height * 3) as usize];
    slide
        .read(region, 0, width, height, &mut pixels)
        .unwrap_or_else(|error| panic!("{region:?}: {error}"));
    pixels
}

fn worst(a: &[u8], b: &[u8]) -> u8 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| a.abs_diff(*b)).max().unwrap()
}

fn mean_apart(a: &[u8], b: &[u8]) -> f64 {
    assert_eq!(a.len(), b.len());
    let sum: u64 = a
        .iter()
        .zip(b)
        .map(|(a, b)| u64::from(a.abs_diff(*b)))
        .sum();
    sum as f64 / a.len() as f64
}

/// On the native grid, off it, and over each edge of a level.
fn places(side: (u32, u32), tile: (u32, u32)) -> Vec<(i64, i64)> {
    let (width, height) = (i64::from(side.0), i64::from(side.1));
    let (tw, th) = (i64::from(tile.0), i64::from(tile.1));
    let mut places = vec![
        (0, 0),
        (-3, -5),
        (width - tw / 2, height - th / 3),
        (width - tw, height - th),
    ];
    for k in 1..4 {
        places.push((k * tw, (k % 2) * th));
        places.push((k * tw / 2 + 1, k * th / 3 + 7));
    }
    places.retain(|(x, y)| *x < width && *y < height && x + tw > 0 && y + th > 0);
    places
}

#[test]
fn both_readers_find_the_same_levels_and_the_same_size_of_a_pixel() {
    if !there() {
        return;
    }
    for path in common() {
        let (native, other) = both(&path);
        let (ours, theirs) = (native.facts(), other.facts());
        let name = path.display();
        // OpenSlide takes no levels out of SubIFDs.
        let ome = ours.reader == "native/ome-tiff";
        let seen = if ome { 1 } else { ours.levels.len() };
        assert_eq!(theirs.levels.len(), seen, "{name}");
        for (a, b) in ours.levels.iter().zip(&theirs.levels) {
            assert_eq!((a.width, a.height), (b.width, b.height), "{name}");
            assert!(
                (a.downsample - b.downsample).abs() < 1e-9,
                "{name}: {a:?} {b:?}"
            );
            assert_eq!(
                (a.tile_width, a.tile_height),
                (b.tile_width, b.tile_height),
                "{name}"
            );
            assert_eq!((a.columns, a.rows), (b.columns, b.rows), "{name}");
        }
        match (ours.mpp, theirs.mpp) {
            (Some((a, by)), Some((b, too))) => {
                assert!((a.0 / b.0 - 1.0).abs() < 1e-6, "{name}: {a:?} {b:?}");
                // OME's own key is not OpenSlide's affair; what it repeats in TIFF's tags is.
                assert!(
                    by == too || (ome && too == MppOrigin::Resolution),
                    "{name}: {by} {too}"
                );
            }
            (a, b) => {
                assert_eq!((a, b), (None, None), "{name}");
                assert_eq!(
                    ours.mpp_problem.is_some(),
                    theirs.mpp_problem.is_some(),
                    "{name}"
                );
            }
        }
        assert_eq!(ours.input, theirs.input);
    }
}

#[test]
fn both_readers_give_the_same_pixels_of_every_level() {
    if !there() {
        return;
    }
    for path in common() {
        let (native, other) = both(&path);
        let name = path.file_name().unwrap().display();
        for (number, level) in other.facts().levels.iter().enumerate() {
            let scale = level.downsample;
            let side = (
                level.tile_width.min(level.width),
                level.tile_height.min(level.height),
            );
            let zero = (
                f64::from(native.facts().levels[0].width),
                f64::from(native.facts().levels[0].height),
            );
            // Where both sides are whole multiples, OpenSlide's downsample is a whole number too.
            let exact = f64::from(level.width) * scale == zero.0
                && f64::from(level.height) * scale == zero.1;
            let (mut greatest, mut mean) = (0, 0.0f64);
            for (x, y) in places((level.width, level.height), side) {
                let region = Region {
                    x: x as f64 * scale,
                    y: y as f64 * scale,
                    w: f64::from(side.0) * scale,
                    h: f64::from(side.1) * scale,
                };
                let (a, b) = (
                    pixels(&*native, region, side),
                    pixels(&*other, region, side),
                );
                greatest = greatest.max(worst(&a, &b));
                mean = mean.max(mean_apart(&a, &b));
            }
            println!(
                "{name} level {number} (1/{scale}): off by at most {greatest}, {mean:.3} in the mean"
            );
            match exact {
                true => assert!(greatest <= 1, "{name} level {number}: off by {greatest}"),
                false => assert!(
                    greatest <= 3 && mean <= 0.2,
                    "{name} level {number}: off by {greatest}, {mean} in the mean"
                ),
            }
        }
    }
}

#[test]
fn both_readers_give_the_same_tiles_at_any_resolution() {
    if !there() {
        return;
    }
    for (name, sides) in [
        (
            "CMU-1-Small-Region.svs",
            [(448, 224), (500, 224), (1000, 150), (200, 224)],
        ),
        // The levels that fit best have a whole downsample.
        (
            "slide-14082.tiff",
            [(448, 224), (500, 224), (800, 224), (200, 224)],
        ),
    ] {
        let (native, other) = both(&fixture(name));
        for (side, n) in sides {
            for (x, y) in [(0.0, 0.0), (520.5, 600.25), (904.0, 1200.0)] {
                let region = Region {
                    x,
                    y,
                    w: f64::from(side),
                    h: f64::from(side),
                };
                let apart = worst(
                    &pixels(&*native, region, (n, n)),
                    &pixels(&*other, region, (n, n)),
                );
                assert!(
                    apart <= 1,
                    "{name}: {side} px at ({x}, {y}) as {n} px: off by {apart}"
                );
            }
        }
        let (a, b) = (
            native.thumbnail(700).unwrap(),
            other.thumbnail(700).unwrap(),
        );
        assert_eq!((a.width, a.height, b.unread.len()), (b.width, b.height, 0));
        assert!(
            mean_apart(&a.pixels, &b.pixels) < 2.0,
            "{name}: {}",
            mean_apart(&a.pixels, &b.pixels)
        );
        let (a, b) = (
            TissueMask::of(&*native).unwrap(),
            TissueMask::of(&*other).unwrap(),
        );
        assert!(
            (a.tissue() - b.tissue()).abs() < 0.02,
            "{name}: {} {}",
            a.tissue(),
            b.tissue()
        );
    }
}

#[test]
fn label_macro_and_thumbnail_are_the_same_pictures() {
    if !there() {
        return;
    }
    let (native, other) = both(&fixture("CMU-1-Small-Region.svs"));
    let names: BTreeSet<&str> = other
        .facts()
        .associated
        .iter()
        .map(|it| it.name.as_str())
        .collect();
    assert_eq!(names, BTreeSet::from(["label", "macro", "thumbnail"]));
    for name in names {
        let (a, b) = (
            native.associated(name).unwrap(),
            other.associated(name).unwrap(),
        );
        assert_eq!((a.width, a.height), (b.width, b.height));
        let apart = worst(&a.pixels, &b.pixels);
        assert!(apart <= 1, "{name}: off by {apart}");
    }
    let error = other.associated("tail").unwrap_err();
    assert!(error.help.contains("label, macro, thumbnail"), "{error}");
    assert_eq!(
        other.tile_raw(0, 0, 0).unwrap_err().fault,
        Fault::Unsupported
    );
}

/// Tiles that fail, row-major, when `threads` read all of them from one slide.
fn failing(slide: &dyn SlideReader, threads: usize) -> Vec<usize> {
    let tiling = Tiling::new(slide.facts(), 240, 0.499, 0, Edge::Pad).unwrap();
    let tiles: Vec<TileId> = tiling.tiles().collect();
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut pixels = vec![0; 240 * 240 * 3];
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    let Some(tile) = tiles.get(i) else { break };
                    if let Err(error) = slide.read(tiling.region(*tile), 0, 240, 240, &mut pixels) {
                        assert_eq!(error.fault, Fault::Damaged, "{error}");
                        assert_eq!(error.place.tile, Some(i as u64), "{error}");
                        failed.lock().unwrap().push(i);
                    }
                }
            });
        }
    });
    let mut failed = failed.into_inner().unwrap();
    failed.sort_unstable();
    failed
}

#[test]
fn three_bad_tiles_are_three_failures_on_one_thread_and_on_many() {
    if !there() {
        return;
    }
    let path = fixture("corrupt/three-bad-tiles.svs");
    let slide = through_openslide(&path, &OpenOptions::default()).unwrap();
    assert_eq!(failing(&*slide, 1), [20, 21, 45]);
    for _ in 0..4 {
        // A tile whose read fails because of another thread's bad tile is read again.
        assert_eq!(failing(&*slide, 6), [20, 21, 45]);
    }
    assert_eq!(failing(&*slide.reopen().unwrap(), 2), [20, 21, 45]);
    let picture = slide.thumbnail(600).unwrap();
    assert_eq!(picture.unread.len(), 3);
    let tiling = Tiling::new(slide.facts(), 240, 0.499, 0, Edge::Pad).unwrap();
    let kept: BTreeSet<TileId> = TissueMask::of(&*slide)
        .unwrap()
        .keep(&tiling, 0.9)
        .into_iter()
        .collect();
    for i in [20, 21, 45] {
        assert!(kept.contains(&tiling.tiles().nth(i).unwrap()), "tile {i}");
    }
}

/// Sets the byte count of a tile of the first directory of a classic little-endian TIFF to 0.
fn strike_out(bytes: &mut [u8], tile: usize) {
    let u16_at =
        |bytes: &[u8], at: usize| u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap());
    let u32_at = |bytes: &[u8], at: usize| {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
    };
    let first = u32_at(bytes, 4);
    let entry = (0..u16_at(bytes, first) as usize)
        .map(|k| first + 2 + k * 12)
        .find(|at| u16_at(bytes, *at) == 325)
        .unwrap();
    let wide = if u16_at(bytes, entry + 2) == 3 { 2 } else { 4 };
    let at = u32_at(bytes, entry + 8) + tile * wide;
    bytes[at..at + wide].fill(0);
}

/// OpenSlide reads a tile of byte count 0 as transparent, without an error.
#[test]
fn a_tile_that_the_file_has_lost_is_a_failure_and_not_a_white_square() {
    if !there() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lost.svs");
    let mut bytes = std::fs::read(fixture("CMU-1-Small-Region.svs")).unwrap();
    strike_out(&mut bytes, 33);
    std::fs::write(&path, bytes).unwrap();
    let slide = through_openslide(&path, &OpenOptions::default()).unwrap();
    assert_eq!(failing(&*slide, 2), [33]);
    let mut pixels = vec![0; 10 * 10 * 3];
    let touching = Region {
        x: 3.0 * 240.0 - 5.0,
        y: 3.0 * 240.0 + 5.0,
        w: 10.0,
        h: 10.0,
    };
    let error = slide.read(touching, 0, 10, 10, &mut pixels).unwrap_err();
    assert!(error.what.contains("no pixel at (720, 725)"), "{error}");
    let beside = Region {
        x: 3.0 * 240.0 - 10.0,
        ..touching
    };
    slide.read(beside, 0, 10, 10, &mut pixels).unwrap();
}

#[test]
fn damaged_files_do_not_open_or_do_not_read() {
    if !there() {
        return;
    }
    let mut refused = vec![
        fixture("corrupt/truncated-60pct.svs"),
        fixture("corrupt/empty.svs"),
        fixture("corrupt/text.svs"),
    ];
    let more = ["broken.svs", "truncated.ome.tiff", "unopenable.tiff"];
    if std::env::var_os("WEIR_DATA").is_some() {
        refused.extend(
            more.iter()
                .filter_map(|name| data(&format!("corrupt/{name}"))),
        );
    }
    let options = OpenOptions {
        openers: openers(),
        ..OpenOptions::default()
    };
    for path in refused {
        match through_openslide(&path, &options) {
            Err(error) => println!("{error}"),
            Ok(_) => panic!("{} opened", path.display()),
        }
        let Err(error) = open(&path, &options) else {
            panic!("{} opened", path.display())
        };
        println!("{error}");
    }
    if let Some(path) = data("corrupt/unreadable.svs") {
        let slide = through_openslide(
            &path,
            &OpenOptions {
                mpp: Some(0.5),
                ..options
            },
        );
        if let Ok(slide) = slide {
            let tiling = Tiling::new(slide.facts(), 224, 0.5, 0, Edge::Pad).unwrap();
            let mut pixels = vec![0; 224 * 224 * 3];
            let read = tiling.tiles().filter(|tile| {
                slide
                    .read(tiling.region(*tile), 0, 224, 224, &mut pixels)
                    .is_ok()
            });
            assert_eq!(read.count(), 0);
        }
    }
}

#[test]
fn what_the_native_reader_takes_stays_its_own_and_what_it_declines_is_asked_for() {
    if !there() {
        return;
    }
    let options = OpenOptions {
        openers: openers(),
        ..OpenOptions::default()
    };
    let (_, choice) = open_and_tell(&fixture("CMU-1-Small-Region.svs"), &options).unwrap();
    assert_eq!(
        (choice.reader.as_str(), choice.native, choice.asked),
        ("native", None, Vec::new())
    );
    // Damage of a file that the native reader knows is no reason to ask another.
    let Err(error) = open(&fixture("corrupt/truncated-60pct.svs"), &options) else {
        panic!("it opened")
    };
    assert!(
        error.fault == Fault::Damaged && !error.what.contains("openslide"),
        "{error}"
    );
    let Err(error) = open(&fixture("corrupt/text.svs"), &options) else {
        panic!("it opened")
    };
    assert!(
        error.what.ends_with("; openslide does not know it"),
        "{error}"
    );
    let Err(error) = open(&fixture("corrupt/text.svs"), &OpenOptions::default()) else {
        panic!("it opened")
    };
    assert!(error.help.contains("[plugin.openslide]"), "{error}");
    let path = fixture("CMU-1-Small-Region.dcm");
    if !four() {
        return;
    }
    let (slide, choice) = open_and_tell(&path, &options).unwrap();
    assert!(slide.facts().reader.starts_with("openslide/dicom (4."));
    assert_eq!(
        (choice.reader.as_str(), choice.asked[0].score),
        ("openslide", 90)
    );
    assert!(choice.native.unwrap().what.contains("is no TIFF file"));
}

/// Level 0 holds the very JPEG tiles of the Aperio slide. Of the smaller levels of the whole series only the sizes are held: their
/// frames are YCbCr though the files say RGB, and at the edges smaller than a frame, which OpenSlide refuses.
#[test]
fn dicom_has_the_size_the_tiles_and_the_pictures_of_the_slide_that_it_was_made_from() {
    if !there() || !four() {
        return;
    }
    let aperio = open(&fixture("CMU-1-Small-Region.svs"), &OpenOptions::default()).unwrap();
    let mut series = vec![fixture("CMU-1-Small-Region.dcm")];
    if let Some(folder) = data("dicom/cmu1-small") {
        // Any file of a series stands for the slide.
        series.extend([folder.join("00.dcm"), folder.join("07.dcm")]);
    }
    for (number, path) in series.iter().enumerate() {
        let dicom = through_openslide(path, &OpenOptions::default()).unwrap();
        let facts = dicom.facts();
        assert_eq!((facts.width(), facts.height()), (2220, 2967));
        let (mpp, origin) = facts.require_mpp().unwrap();
        assert!((mpp.0 - 0.499).abs() < 1e-9 && origin == MppOrigin::Vendor);
        assert_eq!(failing(&*dicom, 2), Vec::<usize>::new());
        for (size, mpp) in [(240, 0.499), (224, 0.7)] {
            let tiling = Tiling::new(facts, size, mpp, 0, Edge::Pad).unwrap();
            for tile in tiling.tiles() {
                let region = tiling.region(tile);
                let apart = worst(
                    &pixels(&*aperio, region, (size, size)),
                    &pixels(&*dicom, region, (size, size)),
                );
                assert!(
                    apart <= 1,
                    "{number} at {mpp}: {region:?} is off by {apart}"
                );
            }
        }
        let nominal: Vec<f64> = facts.levels.iter().map(|level| level.downsample).collect();
        if number == 0 {
            assert_eq!(nominal, [1.0]);
            let (a, b) = (
                TissueMask::of(&*aperio).unwrap(),
                TissueMask::of(&*dicom).unwrap(),
            );
            assert!(
                (a.tissue() - b.tissue()).abs() < 0.01,
                "{} {}",
                a.tissue(),
                b.tissue()
            );
            continue;
        }
        assert_eq!(nominal, [1.0, 2.0, 4.0, 8.0, 16.0]);
        let label = dicom.associated("label").unwrap();
        assert_eq!((label.width, label.height), (387, 463));
        assert!(!dicom.thumbnail(700).unwrap().unread.is_empty());
    }
}
