//! The reader against OpenSlide, another implementation of the same formats.
//!
//! Level-0 pixels, on and off the native grid: both libraries decode with libjpeg-turbo, whose versions round alike, so
//! the bound is 1 grey level for any sample (0 was seen). Downsampled regions: within 2 grey levels in the mean of the
//! absolute difference from the mean over the same area of OpenSlide's level-0 pixels.
#![allow(clippy::unwrap_used)]

mod tiff_writer;

use libloading::{Library, Symbol};
use std::ffi::{CStr, CString, c_char, c_void};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tiff_writer::{Order, TiffWriter, Tiles, Value, cut, resolution};
use weir_slide::{OpenOptions, Region, SlideReader, open};

/// libopenslide, which `make setup` installs.
fn library() -> Option<Library> {
    if std::env::var_os("WEIR_WITHOUT_OPENSLIDE").is_some() {
        eprintln!("skipped: WEIR_WITHOUT_OPENSLIDE is set");
        return None;
    }
    let library = ["libopenslide.so.1", "libopenslide.so.0"]
        .into_iter()
        // SAFETY: its initialisers are those of a system library, which these tests are about.
        .find_map(|name| unsafe { Library::new(name) }.ok());
    assert!(
        library.is_some(),
        "libopenslide is not there; `make setup` installs it, WEIR_WITHOUT_OPENSLIDE=1 skips these tests"
    );
    library
}

/// A slide that OpenSlide opened.
struct OpenSlide<'a> {
    library: &'a Library,
    handle: *mut c_void,
}

impl<'a> OpenSlide<'a> {
    fn open(library: &'a Library, path: &Path) -> Self {
        let name = CString::new(path.to_str().unwrap()).unwrap();
        // SAFETY: openslide_t *openslide_open(const char *), of openslide.h; the name lives through the call.
        let handle = unsafe {
            let open: Symbol<unsafe extern "C" fn(*const c_char) -> *mut c_void> =
                library.get(b"openslide_open").unwrap();
            open(name.as_ptr())
        };
        assert!(
            !handle.is_null(),
            "OpenSlide does not know {}",
            path.display()
        );
        let slide = OpenSlide { library, handle };
        slide.check();
        slide
    }

    fn check(&self) {
        // SAFETY: const char *openslide_get_error(openslide_t *); the handle is open.
        let error = unsafe {
            let error: Symbol<unsafe extern "C" fn(*mut c_void) -> *const c_char> =
                self.library.get(b"openslide_get_error").unwrap();
            let error = error(self.handle);
            (!error.is_null()).then(|| CStr::from_ptr(error).to_string_lossy().into_owned())
        };
        assert_eq!(error, None);
    }

    /// `width` x `height` px of `level` from (`x`, `y`) in level-0 px on, as RGB over white.
    fn read(&self, (x, y): (i64, i64), level: i32, (width, height): (u32, u32)) -> Vec<u8> {
        let mut pixels = vec![0u32; (width * height) as usize];
        // SAFETY: void openslide_read_region(openslide_t *, uint32_t *, int64_t x, int64_t y, int32_t, int64_t w,
        // int64_t h); the buffer holds w * h pixels.
        unsafe {
            let read: Symbol<unsafe extern "C" fn(*mut c_void, *mut u32, i64, i64, i32, i64, i64)> =
                self.library.get(b"openslide_read_region").unwrap();
            read(
                self.handle,
                pixels.as_mut_ptr(),
                x,
                y,
                level,
                width.into(),
                height.into(),
            );
        }
        self.check();
        pixels
            .into_iter()
            .flat_map(|argb| {
                let white = 255 - (argb >> 24);
                [16, 8, 0].map(|shift| (((argb >> shift) & 255) + white) as u8)
            })
            .collect()
    }
}

impl Drop for OpenSlide<'_> {
    fn drop(&mut self) {
        // SAFETY: void openslide_close(openslide_t *); the handle is open and not used again.
        unsafe {
            let close: Symbol<unsafe extern "C" fn(*mut c_void)> =
                self.library.get(b"openslide_close").unwrap();
            close(self.handle);
        }
    }
}

fn fixture(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
    root.join(name)
}

fn slide(path: &Path) -> Arc<dyn SlideReader> {
    open(path, &OpenOptions::default()).unwrap()
}

fn region(x: f64, y: f64, w: f64, h: f64) -> Region {
    Region { x, y, w, h }
}

fn worst(a: &[u8], b: &[u8]) -> u8 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| a.abs_diff(*b)).max().unwrap()
}

fn mean_apart(a: &[u8], b: &[u8]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter()
        .zip(b)
        .map(|(a, b)| f64::from(a.abs_diff(*b)))
        .sum::<f64>()
        / a.len() as f64
}

/// Corners that lie on native tiles, between them, on odd pixels, and over the right and lower edge.
fn corners(facts: &weir_slide::Facts) -> Vec<(i64, i64)> {
    let level = &facts.levels[0];
    let (tw, th) = (i64::from(level.tile_width), i64::from(level.tile_height));
    let (width, height) = (i64::from(level.width), i64::from(level.height));
    let mut corners = Vec::new();
    for column in 0..4 {
        for row in 0..4 {
            corners.push((column * tw, row * th));
            corners.push((column * tw + tw / 2 + 1, row * th + 3 * column + 7));
        }
    }
    corners.extend([
        (width - tw, height - th),
        (width - tw / 2, height - th / 3),
        (1, height - 5),
    ]);
    corners
}

fn level_zero_is_the_same(library: &Library, path: &Path) {
    let (ours, theirs) = (slide(path), OpenSlide::open(library, path));
    let facts = ours.facts();
    let (width, height) = (facts.levels[0].tile_width, facts.levels[0].tile_height);
    let mut pixels = vec![0; (width * height * 3) as usize];
    let mut greatest = 0;
    for (x, y) in corners(facts) {
        let region = region(x as f64, y as f64, width.into(), height.into());
        ours.read(region, 0, width, height, &mut pixels).unwrap();
        let apart = worst(&pixels, &theirs.read((x, y), 0, (width, height)));
        assert!(
            apart <= 1,
            "{} at ({x}, {y}): off by {apart}",
            path.display()
        );
        greatest = greatest.max(apart);
    }
    println!("{}: level 0 off by at most {greatest}", path.display());
}

#[test]
fn level_zero_of_an_aperio_slide_is_the_same_on_and_off_the_grid() {
    let Some(library) = library() else { return };
    level_zero_is_the_same(&library, &fixture("CMU-1-Small-Region.svs"));
}

/// OpenJPEG and ours round the wavelets' sums differently: by one grey level at most. The slide may not lie in the repository.
#[test]
fn level_zero_of_jpeg_2000_is_the_same() {
    let Some(library) = library() else { return };
    let Some(data) = std::env::var_os("WEIR_DATA") else {
        eprintln!("skipped: WEIR_DATA names no folder with wsi/jp2k-crop.svs");
        return;
    };
    level_zero_is_the_same(&library, &PathBuf::from(data).join("wsi/jp2k-crop.svs"));
}

#[test]
fn level_zero_of_a_generic_pyramid_is_the_same_on_and_off_the_grid() {
    let Some(library) = library() else { return };
    level_zero_is_the_same(&library, &fixture("slide-14082.tiff"));
}

#[test]
fn lossless_tiles_of_both_byte_orders_are_the_same() {
    let Some(library) = library() else { return };
    let folder = tempfile::tempdir().unwrap();
    for (order, big) in [
        (Order::Little, true),
        (Order::Little, false),
        (Order::Big, true),
    ] {
        let path = folder.path().join(format!("{order:?}-{big}.tiff"));
        let of = Tiles {
            width: 700,
            height: 500,
            tile: 128,
            samples: 3,
            compression: 1,
            photometric: 2,
            predictor: false,
        };
        let picture: Vec<u8> = (0..700 * 500 * 3)
            .map(|k| ((k * 7919) % 251) as u8)
            .collect();
        let mut file = TiffWriter::new(std::fs::File::create(&path).unwrap(), order, big).unwrap();
        let mut spans = Vec::new();
        for row in 0..of.rows() {
            for column in 0..of.columns() {
                let tile = cut(&picture, &of, column, row);
                spans.push((file.data(&tile).unwrap(), tile.len() as u64));
            }
        }
        let mut tags = of.tags(&spans);
        tags.extend(resolution(0.5));
        file.directory(tags, true).unwrap();
        file.finish().unwrap();
        level_zero_is_the_same(&library, &path);
    }
}

#[test]
fn levels_of_a_pyramid_are_the_same_pixel_by_pixel() {
    let Some(library) = library() else { return };
    let path = fixture("slide-14082.tiff");
    let (ours, theirs) = (slide(&path), OpenSlide::open(&library, &path));
    for (level, of) in ours.facts().levels.iter().enumerate() {
        let side = 128u32.min(of.width).min(of.height);
        let mut pixels = vec![0; (side * side * 3) as usize];
        // Where a side is no multiple of the factor, OpenSlide takes the mean of the two ratios for the level's downsample,
        // which moves everything but the first pixel by a part of one.
        let exact = [(of.width, 3000.0), (of.height, 2550.0)];
        let exact = exact
            .iter()
            .all(|(side, zero)| f64::from(*side) * of.downsample == *zero);
        let places: &[(u32, u32)] = if exact {
            &[(0, 0), (1, 1), (0, 1)]
        } else {
            &[(0, 0)]
        };
        for &(column, row) in places {
            let x = i64::from(column * side.min(of.width - side)) * of.downsample as i64;
            let y = i64::from(row * side.min(of.height - side)) * of.downsample as i64;
            let wide = f64::from(side) * of.downsample;
            ours.read(
                region(x as f64, y as f64, wide, wide),
                0,
                side,
                side,
                &mut pixels,
            )
            .unwrap();
            let apart = worst(&pixels, &theirs.read((x, y), level as i32, (side, side)));
            assert!(apart <= 1, "level {level} at ({x}, {y}): off by {apart}");
        }
    }
}

/// Mean over the area of each output pixel, in f64, straight from the definition.
fn area_mean(pixels: &[u8], side: u32, n: u32) -> Vec<u8> {
    let scale = f64::from(side) / f64::from(n);
    let cover = |i: u32| {
        let (from, to) = (f64::from(i) * scale, f64::from(i + 1) * scale);
        (from.floor() as u32..(to.ceil() as u32).min(side))
            .map(move |k| (k, to.min(f64::from(k) + 1.0) - from.max(f64::from(k))))
    };
    let mut out = Vec::with_capacity((n * n * 3) as usize);
    for row in 0..n {
        for column in 0..n {
            for c in 0..3 {
                let mut sum = 0.0;
                for (y, wy) in cover(row) {
                    for (x, wx) in cover(column) {
                        sum += wx * wy * f64::from(pixels[((y * side + x) * 3 + c) as usize]);
                    }
                }
                out.push((sum / (scale * scale)).round() as u8);
            }
        }
    }
    out
}

/// `level` is the one of whose pixels OpenSlide's mean is taken, and its factor.
fn downsampled(library: &Library, path: &Path, (level, factor): (i32, u32), sides: &[(u32, u32)]) {
    let (ours, theirs) = (slide(path), OpenSlide::open(library, path));
    let name = path.file_name().unwrap().display();
    for &(side, n) in sides {
        let mut greatest = 0.0f64;
        for (x, y) in [(0, 0), (520, 600), (904, 1200)] {
            let wide = f64::from(side);
            let mut pixels = vec![0; (n * n * 3) as usize];
            ours.read(region(x as f64, y as f64, wide, wide), 0, n, n, &mut pixels)
                .unwrap();
            let truth = {
                let side = side / factor;
                area_mean(&theirs.read((x, y), level, (side, side)), side, n)
            };
            let apart = mean_apart(&pixels, &truth);
            assert!(
                apart <= 2.0,
                "{name}: {side} px at ({x}, {y}) as {n} px: {apart}"
            );
            greatest = greatest.max(apart);
        }
        println!("{name}: {side} px as {n} px: at most {greatest:.3} in the mean");
    }
}

#[test]
fn downsampled_regions_of_a_single_level_are_the_mean_over_their_area() {
    let Some(library) = library() else { return };
    let sides = [(448, 224), (896, 224), (500, 224), (1000, 150), (333, 332)];
    downsampled(&library, &fixture("CMU-1-Small-Region.svs"), (0, 1), &sides);
}

/// Level 1 has exactly half the sides; the smaller ones were stretched to whole sides by their maker.
#[test]
fn downsampled_regions_of_a_jpeg_pyramid_are_within_two_grey_levels() {
    let Some(library) = library() else { return };
    let sides = [(448, 224), (500, 224), (800, 224), (333, 332)];
    downsampled(&library, &fixture("slide-14082.tiff"), (0, 1), &sides);
}

/// A factor of 4, as Aperio's scanners have it. Where the target lies between two levels, the finer one is resampled, by
/// OpenSlide's users as by weir; its pixels are means already, so the mean of level 0 is not what comes out.
#[test]
fn downsampled_regions_of_a_pyramid_of_fours_are_means_of_the_level_that_fits() {
    let Some(library) = library() else { return };
    let source = slide(&fixture("CMU-1-Small-Region.svs"));
    let (width, height) = (2216u32, 2964u32);
    let mut zero = vec![0; (width * height * 3) as usize];
    let all = region(0.0, 0.0, width.into(), height.into());
    source.read(all, 0, width, height, &mut zero).unwrap();
    let (w, h) = (width / 4, height / 4);
    let mut one = Vec::with_capacity((w * h * 3) as usize);
    for at in 0..w * h * 3 {
        let (x, y, c) = (at / 3 % w, at / 3 / w, at % 3);
        let sum: u32 = (0..16)
            .map(|k| ((y * 4 + k / 4) * width + x * 4 + k % 4) * 3 + c)
            .map(|from| u32::from(zero[from as usize]))
            .sum();
        one.push(((sum + 8) / 16) as u8);
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pyramid.tiff");
    let mut file =
        TiffWriter::new(std::fs::File::create(&path).unwrap(), Order::Little, true).unwrap();
    for (number, (picture, width, height)) in [(&zero, width, height), (&one, w, h)]
        .into_iter()
        .enumerate()
    {
        let of = Tiles {
            width,
            height,
            tile: 256,
            samples: 3,
            compression: 1,
            photometric: 2,
            predictor: false,
        };
        let mut spans = Vec::new();
        for place in 0..of.columns() * of.rows() {
            let tile = cut(picture, &of, place % of.columns(), place / of.columns());
            spans.push((file.data(&tile).unwrap(), tile.len() as u64));
        }
        let mut tags = of.tags(&spans);
        tags.push((254, Value::Long(vec![u32::from(number > 0)])));
        file.directory(tags, true).unwrap();
    }
    file.finish().unwrap();
    downsampled(
        &library,
        &path,
        (0, 1),
        &[(448, 224), (896, 224), (700, 224)],
    );
    downsampled(
        &library,
        &path,
        (1, 4),
        &[(896, 224), (1000, 224), (1200, 150)],
    );
}
