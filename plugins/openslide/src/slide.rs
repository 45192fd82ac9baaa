//! A slide that OpenSlide has open: what was found in it, exact regions of its levels, its pictures.

use crate::library::{Library, Missing, Open, REMEDY, library};
use crate::pixels::{Absent, Placed, absent, to_rgb};
use std::cell::RefCell;
use std::ffi::CString;
use std::fmt;
use std::path::Path;

/// Why a slide, or a part of it, cannot be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Whether the file is none of OpenSlide's, so that another reader may be asked.
    pub foreign: bool,
    /// What is wrong, in one sentence.
    pub what: String,
    /// What to do about it, or empty.
    pub help: String,
}

impl Fault {
    fn damaged(what: impl Into<String>) -> Fault {
        Fault {
            foreign: false,
            what: what.into(),
            help: String::new(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Fault {}

impl From<Missing> for Fault {
    fn from(missing: Missing) -> Fault {
        Fault {
            foreign: true,
            what: missing.to_string(),
            help: REMEDY.into(),
        }
    }
}

/// A level.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Level {
    /// px.
    pub width: u32,
    /// px.
    pub height: u32,
    /// Level-0 px per px of this level, as OpenSlide computes with it.
    pub downsample: f64,
    /// Width and height of a native tile, px, where OpenSlide says so.
    pub tile: Option<(u32, u32)>,
}

/// A picture that is no level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// As `label`.
    pub name: String,
    /// px.
    pub width: u32,
    /// px.
    pub height: u32,
    raw: CString,
}

/// Who said the size of a pixel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// A vendor's key.
    Vendor,
    /// TIFF's resolution tags.
    Resolution,
    /// The objective's power.
    Objective,
}

/// An open slide. Any number of threads may read from it.
pub struct Slide {
    open: Open<'static>,
    library: &'static Library,
    vendor: String,
    absent: Absent,
    levels: Vec<Level>,
    pictures: Vec<Picture>,
    properties: Vec<(String, String)>,
}

/// Greatest number of pixels that OpenSlide is asked for at once: 16 MiB of ARGB a thread. It also stays below the 4096 px a side
/// from which on OpenSlide itself cuts a region up, with a place for each part that is rounded down.
const BLOCK: u32 = 1 << 22;
const BLOCK_SIDE: u32 = 4096;

/// A shift of less than this many px of a level is none: pixman, which paints for OpenSlide, interpolates in steps of 1/128.
const NO_SHIFT: f64 = 1.0 / 128.0;

/// No side of a picture or level that this reads is longer.
const LONGEST: i64 = 1 << 30;

thread_local! {
    static ARGB: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
}

impl Slide {
    /// Opens the slide at `path`.
    pub fn open(path: &Path) -> Result<Slide, Fault> {
        Slide::with(library()?, path)
    }

    fn with(library: &'static Library, path: &Path) -> Result<Slide, Fault> {
        let foreign = |what: String, help: &str| Fault {
            foreign: true,
            what,
            help: help.into(),
        };
        let name = CString::new(path.as_os_str().as_encoded_bytes())
            .map_err(|_| foreign("its path holds a zero byte".into(), "rename it"))?;
        let version = library.version();
        let Some(open) = library.slide(&name) else {
            let newer = !library.at_least(4) && needs_four(path);
            return Err(foreign(
                format!("OpenSlide {version} does not know it"),
                match newer {
                    true => {
                        "DICOM and CZI need OpenSlide 4: `make openslide`, or set WEIR_OPENSLIDE to libopenslide.so.1"
                    }
                    false => "",
                },
            ));
        };
        check(&open)?;
        let properties = open.properties();
        let get = |key: &str| find(&properties, key);
        let vendor = get("openslide.vendor")
            .map(str::to_owned)
            .or_else(|| library.vendor(&name))
            .unwrap_or_else(|| "unknown".into());
        let absent = absent(&vendor, get("dicom.DimensionOrganizationType"));
        let side = |value: i64| {
            u32::try_from(value)
                .ok()
                .filter(|side| (1..LONGEST as u32).contains(side))
        };
        let mut levels = Vec::new();
        for level in 0..open.levels() {
            let (width, height) = open.size(level);
            let (Some(width), Some(height)) = (side(width), side(height)) else {
                return Err(Fault::damaged(format!(
                    "level {level} has {width} x {height} px"
                )));
            };
            let tile = |side: &str| -> Option<u32> {
                get(&format!("openslide.level[{level}].tile-{side}"))?
                    .parse()
                    .ok()
                    .filter(|side| *side > 0)
            };
            levels.push(Level {
                width,
                height,
                downsample: open.downsample(level),
                tile: tile("width").zip(tile("height")),
            });
        }
        let pictures = open
            .pictures()
            .into_iter()
            .filter_map(|(raw, (width, height))| {
                Some(Picture {
                    name: raw.to_string_lossy().into_owned(),
                    width: side(width)?,
                    height: side(height)?,
                    raw,
                })
            })
            .collect();
        check(&open)?;
        Ok(Slide {
            open,
            library,
            vendor,
            absent,
            levels,
            pictures,
            properties,
        })
    }

    /// OpenSlide's name of the format, as `aperio`.
    pub fn vendor(&self) -> &str {
        &self.vendor
    }

    /// OpenSlide's version, as `4.0.1`.
    pub fn version(&self) -> &str {
        self.library.version()
    }

    /// What a transparent pixel of it means.
    pub fn absent(&self) -> Absent {
        self.absent
    }

    /// From the greatest to the smallest.
    pub fn levels(&self) -> &[Level] {
        &self.levels
    }

    /// Label, macro, thumbnail.
    pub fn pictures(&self) -> &[Picture] {
        &self.pictures
    }

    /// Keys and values, sorted, without what levels and pictures say already.
    pub fn properties(&self) -> impl Iterator<Item = (&str, &str)> {
        self.properties
            .iter()
            .filter(|(key, _)| {
                !key.starts_with("openslide.level") && !key.starts_with("openslide.associated.")
            })
            .map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// um along x and y of a level-0 pixel, and who said so.
    pub fn pixel(&self) -> Option<((f64, f64), Said)> {
        pixel(&self.vendor, &self.properties)
    }

    /// Fills `into`, rows `pitch` bytes apart, with the `width` x `height` px of `level` from (`x`, `y`) on, in px of that level:
    /// interleaved RGB, white outside of the level.
    ///
    /// They are exactly the level's pixels where its downsample is a whole number, and wherever else a level-0 pixel lies within
    /// 1/128 px of the level's. OpenSlide can only be asked in whole level-0 px and places a level by the mean of its two ratios;
    /// so elsewhere it has interpolated linearly, by at most half a level-0 pixel: a quarter of the difference of two neighbours
    /// at a downsample of 2, an eighth at 4.
    pub fn read_region(
        &self,
        level: u32,
        (x, y): (i64, i64),
        (width, height): (u32, u32),
        into: &mut [u8],
        pitch: usize,
    ) -> Result<(), Fault> {
        let Some(of) = self.levels.get(level as usize) else {
            return Err(Fault::damaged(format!("there is no level {level}")));
        };
        let (right, bottom) = (
            x.saturating_add(width.into()),
            y.saturating_add(height.into()),
        );
        let whole = x >= 0 && y >= 0 && right <= of.width.into() && bottom <= of.height.into();
        if !whole {
            for row in into.chunks_mut(pitch).take(height as usize) {
                let end = row.len().min(width as usize * 3);
                row[..end].fill(255);
            }
        }
        let (left, top) = (x.max(0), y.max(0));
        let (right, bottom) = (right.min(of.width.into()), bottom.min(of.height.into()));
        if left >= right || top >= bottom {
            return Ok(());
        }
        let (across, down) = ((right - left) as u32, (bottom - top) as u32);
        let columns = across.min(BLOCK_SIDE);
        let rows = (BLOCK / columns).clamp(1, BLOCK_SIDE);
        ARGB.with_borrow_mut(|argb| {
            for from_y in (0..down).step_by(rows as usize) {
                for from_x in (0..across).step_by(columns as usize) {
                    let size = (columns.min(across - from_x), rows.min(down - from_y));
                    let corner = (left + i64::from(from_x), top + i64::from(from_y));
                    let at = (corner.1 - y) as usize * pitch + (corner.0 - x) as usize * 3;
                    self.block(
                        level,
                        of.downsample,
                        corner,
                        size,
                        argb,
                        &mut into[at..],
                        pitch,
                    )?;
                }
            }
            Ok(())
        })
    }

    /// A part of a region that lies inside the level.
    #[allow(clippy::too_many_arguments)]
    fn block(
        &self,
        level: u32,
        downsample: f64,
        corner: (i64, i64),
        size: (u32, u32),
        argb: &mut Vec<u32>,
        into: &mut [u8],
        pitch: usize,
    ) -> Result<(), Fault> {
        let ((x, x_exact), (y, y_exact)) =
            (place(corner.0, downsample), place(corner.1, downsample));
        let placed = match x_exact && y_exact {
            true => Placed::Exactly,
            false => Placed::Between,
        };
        let (width, height) = (size.0 as usize, size.1 as usize);
        argb.resize(width * height, 0);
        self.open.read(argb, (x, y), level as i32, size);
        check(&self.open)?;
        for (row, line) in argb.chunks_exact(width).enumerate() {
            let from = row * pitch;
            to_rgb(line, self.absent, placed, &mut into[from..from + width * 3]).map_err(|column| {
                let (x, y) = (corner.0 + column as i64, corner.1 + row as i64);
                Fault::damaged(format!(
                    "level {level} has no pixel at ({x}, {y}): the file lacks the data of a tile that it should hold"
                ))
            })?;
        }
        Ok(())
    }

    /// Fills `into` with picture number `index`: interleaved RGB over white, rows side by side.
    pub fn picture(&self, index: usize, into: &mut [u8], pitch: usize) -> Result<(), Fault> {
        let Some(picture) = self.pictures.get(index) else {
            return Err(Fault::damaged(format!(
                "there is no picture number {index}"
            )));
        };
        let (width, height) = (picture.width as usize, picture.height as usize);
        let mut argb = vec![0; width * height];
        self.open
            .picture(&picture.raw, (picture.width, picture.height), &mut argb);
        check(&self.open)?;
        for (line, row) in argb.chunks_exact(width).zip(into.chunks_mut(pitch)) {
            // A label may be cut out of its surroundings.
            let _ = to_rgb(
                line,
                Absent::NotScanned,
                Placed::Exactly,
                &mut row[..width * 3],
            );
        }
        Ok(())
    }
}

/// The level-0 pixel to ask for so that pixel `at` of a level comes first, and whether it lies exactly there.
fn place(at: i64, downsample: f64) -> (i64, bool) {
    let exact = at as f64 * downsample;
    // OpenSlide divides again; what comes out a little above a pixel is that pixel, what comes out below is not.
    let above = |zero: i64| (0.0..NO_SHIFT).contains(&(zero as f64 / downsample - at as f64));
    [exact.round() as i64, exact.ceil() as i64]
        .into_iter()
        .find(|zero| above(*zero))
        .map_or((exact.round() as i64, false), |zero| (zero, true))
}

/// Whether OpenSlide has come to grief over the slide.
fn check(open: &Open<'_>) -> Result<(), Fault> {
    match open.error() {
        Some(what) => Err(Fault::damaged(format!("OpenSlide: {what}"))),
        None => Ok(()),
    }
}

fn find<'a>(properties: &'a [(String, String)], key: &str) -> Option<&'a str> {
    let at = properties
        .binary_search_by(|(known, _)| known.as_str().cmp(key))
        .ok()?;
    Some(&properties[at].1)
}

/// The native reader's chain: a vendor's key, TIFF's resolution, the objective's power.
fn pixel(vendor: &str, properties: &[(String, String)]) -> Option<((f64, f64), Said)> {
    let number = |key: &str| {
        let value: f64 = find(properties, key)?.trim().parse().ok()?;
        (value.is_finite() && value > 0.0).then_some(value)
    };
    if let (Some(x), Some(y)) = (number("openslide.mpp-x"), number("openslide.mpp-y")) {
        // OpenSlide computes it from TIFF's tags where no maker says more.
        let said = match vendor {
            "generic-tiff" => Said::Resolution,
            _ => Said::Vendor,
        };
        return Some(((x, y), said));
    }
    let unit = match find(properties, "tiff.ResolutionUnit") {
        Some("inch") => Some(25_400.0),
        Some("centimeter") => Some(10_000.0),
        _ => None,
    };
    if let (Some(unit), Some(x), Some(y)) =
        (unit, number("tiff.XResolution"), number("tiff.YResolution"))
    {
        return Some(((unit / x, unit / y), Said::Resolution));
    }
    let power = number("openslide.objective-power")?;
    Some(((10.0 / power, 10.0 / power), Said::Objective))
}

/// Whether the file is of a format that OpenSlide reads from version 4 on.
fn needs_four(path: &Path) -> bool {
    use std::io::Read;
    let mut head = [0; 132];
    std::fs::File::open(path)
        .and_then(|mut file| file.read_exact(&mut head))
        .is_ok_and(|()| &head[128..] == b"DICM" || head.starts_with(b"ZISRAWFILE"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn properties(of: &[(&str, &str)]) -> Vec<(String, String)> {
        let mut all: Vec<_> = of
            .iter()
            .map(|(key, value)| (key.to_string(), value.to_string()))
            .collect();
        all.sort();
        all
    }

    #[test]
    fn whole_downsamples_are_placed_exactly_and_others_within_half_a_level_0_pixel() {
        for downsample in [1.0, 2.0, 4.0, 16.0, 32.0] {
            for at in [0, 1, 239, 4095, 70_001] {
                assert_eq!(place(at, downsample), (at * downsample as i64, true));
            }
        }
        for downsample in [
            1.999_663_072_776_280_3,
            3.998_432_601_880_878,
            16.012_820_512_820_51,
        ] {
            for at in 0..3000 {
                let (zero, exact) = place(at, downsample);
                let off = zero as f64 / downsample - at as f64;
                assert!(off.abs() <= 0.5 / downsample + 1e-9, "{at} {off}");
                assert_eq!(exact, (0.0..NO_SHIFT).contains(&off));
            }
            assert_eq!(place(0, downsample), (0, true));
        }
    }

    #[test]
    fn the_size_of_a_pixel_comes_from_the_first_that_speaks() {
        let all = [
            ("openslide.mpp-x", "0.499"),
            ("openslide.mpp-y", "0.499"),
            ("openslide.objective-power", "20"),
            ("tiff.ResolutionUnit", "centimeter"),
            ("tiff.XResolution", "2500"),
            ("tiff.YResolution", "2500"),
        ];
        let of = |vendor: &str, from: usize| pixel(vendor, &properties(&all[from..]));
        assert_eq!(of("aperio", 0), Some(((0.499, 0.499), Said::Vendor)));
        assert_eq!(
            of("generic-tiff", 0),
            Some(((0.499, 0.499), Said::Resolution))
        );
        assert_eq!(of("aperio", 2), Some(((4.0, 4.0), Said::Resolution)));
        assert_eq!(
            pixel("aperio", &properties(&all[2..3])),
            Some(((0.5, 0.5), Said::Objective))
        );
        assert_eq!(pixel("aperio", &[]), None);
    }
}
