//! A slide that OpenSlide has open: what was found in it, exact regions of its levels, its pictures.

use crate::library::{Library, Missing, Open, REMEDY, cache_bytes, library};
use crate::pixels::{Absent, Placed, absent, to_rgb};
use crate::sniff::sniff;
use std::cell::RefCell;
use std::ffi::CString;
use std::path::Path;
use weir_plugin::{Call, Error, Facts, Level, MppOrigin, Picture, Reader, Region, Result};

impl From<Missing> for Error {
    fn from(missing: Missing) -> Error {
        Error::unsupported(missing.to_string()).help(REMEDY)
    }
}

/// Reads with OpenSlide what it reads: Aperio, DICOM, Hamamatsu, Leica, MIRAX, Philips, Sakura, Trestle, Ventana, Zeiss and tiled TIFF
///
/// Pixels are exact, over white; a tile that the file has lost or that cannot be decoded is a failure. `openslide.mpp-x`, TIFF's
/// resolution and the objective's power say how large a pixel is, in this order.
#[derive(weir_plugin::Reader)]
#[reader(
    id = "openslide",
    extensions = ["bif", "czi", "mrxs", "ndpi", "scn", "svs", "svslide", "vms", "vmu"],
    cache(134217728, "WEIR_OPENSLIDE_CACHE"),
    parallel,
    spoils
)]
pub struct Slide {
    open: Open<'static>,
    library: &'static Library,
    vendor: String,
    absent: Absent,
    levels: Vec<Level>,
    pictures: Vec<(CString, Picture)>,
    properties: Vec<(String, String)>,
}

/// Greatest number of pixels that OpenSlide is asked for at once: 16 MiB of ARGB a thread. It also stays below the 4096 px a side
/// from which on OpenSlide itself cuts a region up, with a place for each part that is rounded down.
const BLOCK: u32 = 1 << 22;
const BLOCK_SIDE: u32 = 4096;

/// A shift of less than this many px of a level is none: pixman, which paints for OpenSlide, interpolates in steps of 1/128.
const NO_SHIFT: f64 = 1.0 / 128.0;

/// No side of a level or picture is longer, px.
const LONGEST: i64 = 1 << 30;

thread_local! {
    static ARGB: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
}

impl Reader for Slide {
    fn sniff(path: &Path, head: &[u8]) -> u8 {
        sniff(path, head)
    }

    fn open(path: &Path, _: &Call) -> Result<Slide> {
        cache_bytes()?;
        Slide::with(library()?, path)
    }

    fn facts(&self, _: &Call) -> Result<Facts> {
        let (mpp, mpp_origin) = pixel(&self.vendor, &self.properties);
        let own = |key: &str| {
            !key.starts_with("openslide.level") && !key.starts_with("openslide.associated.")
        };
        let properties = self.properties.iter().filter(|(key, _)| own(key));
        Ok(Facts {
            format: format!("{} ({})", self.vendor, self.library.version()),
            vendor: match self.vendor.as_str() {
                "generic-tiff" => "generic".into(),
                vendor => vendor.into(),
            },
            mpp,
            mpp_origin,
            levels: self.levels.clone(),
            pictures: self
                .pictures
                .iter()
                .map(|(_, picture)| picture.clone())
                .collect(),
            properties: properties.cloned().collect(),
        })
    }

    /// They are exactly the level's pixels where its downsample is a whole number, and wherever else a level-0 pixel lies within
    /// 1/128 px of the level's. OpenSlide can only be asked in whole level-0 px and places a level by the mean of its two ratios;
    /// so elsewhere it has interpolated linearly, by at most half a level-0 pixel: a quarter of the difference of two neighbours
    /// at a downsample of 2, an eighth at 4.
    fn read_region(
        &self,
        level: u32,
        x: i64,
        y: i64,
        into: &mut Region,
        call: &Call,
    ) -> Result<()> {
        let Some(of) = self.levels.get(level as usize) else {
            return Err(Error::new(format!("there is no level {level}")));
        };
        let (width, height) = (i64::from(into.width()), i64::from(into.height()));
        let (right, bottom) = (x.saturating_add(width), y.saturating_add(height));
        if x < 0 || y < 0 || right > of.width || bottom > of.height {
            into.white();
        }
        let (left, top) = (x.max(0), y.max(0));
        let (right, bottom) = (right.min(of.width), bottom.min(of.height));
        if left >= right || top >= bottom {
            return Ok(());
        }
        let (across, down) = ((right - left) as u32, (bottom - top) as u32);
        let columns = across.min(BLOCK_SIDE);
        let rows = (BLOCK / columns).clamp(1, BLOCK_SIDE);
        ARGB.with_borrow_mut(|argb| {
            for from_y in (0..down).step_by(rows as usize) {
                if call.cancelled() {
                    return Err(Error::cancelled());
                }
                for from_x in (0..across).step_by(columns as usize) {
                    let block = Block {
                        level,
                        corner: (left + i64::from(from_x), top + i64::from(from_y)),
                        size: (columns.min(across - from_x), rows.min(down - from_y)),
                    };
                    self.block(&block, of.downsample, argb, (x, y), into)?;
                }
            }
            Ok(())
        })
    }

    fn picture(&self, i: u32, into: &mut Region, _: &Call) -> Result<()> {
        let Some((name, picture)) = self.pictures.get(i as usize) else {
            return Err(Error::unsupported(format!(
                "there is no picture number {i}"
            )));
        };
        let mut argb = vec![0; picture.width as usize * picture.height as usize];
        self.open
            .picture(name, (picture.width, picture.height), &mut argb);
        check(&self.open)?;
        for (row, line) in argb.chunks_exact(picture.width as usize).enumerate() {
            // A label may be cut out of its surroundings, so nothing of it is taken for lost.
            let over_white = to_rgb(
                line,
                Absent::NotScanned,
                Placed::Exactly,
                into.row_mut(row as u32),
            );
            debug_assert_eq!(over_white, Ok(()));
        }
        Ok(())
    }
}

/// A part of a region that lies inside its level and is read at once.
struct Block {
    level: u32,
    /// px of the level.
    corner: (i64, i64),
    size: (u32, u32),
}

impl Slide {
    fn with(library: &'static Library, path: &Path) -> Result<Slide> {
        let name = CString::new(path.as_os_str().as_encoded_bytes())
            .map_err(|_| Error::unsupported("its path holds a zero byte"))?;
        let version = library.version();
        let Some(open) = library.slide(&name) else {
            let error = Error::unsupported(format!("OpenSlide {version} does not know it"));
            return Err(match !library.at_least(4) && needs_four(path) {
                true => error.help(
                    "DICOM needs OpenSlide 4.0, CZI 4.0.1: `make openslide`, or set WEIR_OPENSLIDE to libopenslide.so.1",
                ),
                false => error,
            });
        };
        check(&open)?;
        let properties = open.properties();
        let get = |key: &str| find(&properties, key);
        let vendor = get("openslide.vendor")
            .map(str::to_owned)
            .or_else(|| library.vendor(&name))
            .unwrap_or_else(|| "unknown".into());
        let absent = absent(&vendor, get("dicom.DimensionOrganizationType"));
        let mut levels = Vec::new();
        for level in 0..open.levels() {
            let (width, height) = open.size(level);
            if !(1..LONGEST).contains(&width) || !(1..LONGEST).contains(&height) {
                return Err(Error::new(format!(
                    "level {level} has {width} x {height} px"
                )));
            }
            // Not every driver has native tiles, or says so.
            let tile = |side: &str| -> i64 {
                let side = get(&format!("openslide.level[{level}].tile-{side}"));
                side.and_then(|side| side.parse().ok()).unwrap_or(0)
            };
            levels.push(Level {
                width,
                height,
                downsample: open.downsample(level),
                tile_width: tile("width"),
                tile_height: tile("height"),
            });
        }
        let side = |value: i64| u32::try_from(value).ok().filter(|side| *side > 0);
        let pictures = open
            .pictures()
            .into_iter()
            .filter_map(|(raw, (width, height))| {
                let picture = Picture {
                    name: raw.to_string_lossy().into_owned(),
                    width: side(width)?,
                    height: side(height)?,
                };
                Some((raw, picture))
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

    /// Reads `block` into its place in `into`, whose corner is `origin`.
    fn block(
        &self,
        block: &Block,
        downsample: f64,
        argb: &mut Vec<u32>,
        origin: (i64, i64),
        into: &mut Region,
    ) -> Result<()> {
        let Block {
            level,
            corner,
            size,
        } = *block;
        let (x, x_exact) = place(corner.0, downsample);
        let (y, y_exact) = place(corner.1, downsample);
        let placed = match x_exact && y_exact {
            true => Placed::Exactly,
            false => Placed::Between,
        };
        let width = size.0 as usize;
        argb.resize(width * size.1 as usize, 0);
        self.open.read(argb, (x, y), level as i32, size);
        check(&self.open)?;
        let from = (corner.0 - origin.0) as usize * 3;
        for (row, line) in argb.chunks_exact(width).enumerate() {
            let y = corner.1 + row as i64;
            let out = &mut into.row_mut((y - origin.1) as u32)[from..from + width * 3];
            to_rgb(line, self.absent, placed, out).map_err(|column| {
                let x = corner.0 + column as i64;
                Error::new(format!(
                    "level {level} has no pixel at ({x}, {y}): the file lacks the data of a tile that it should hold"
                ))
            })?;
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
fn check(open: &Open<'_>) -> Result<()> {
    match open.error() {
        Some(what) => Err(Error::new(format!("OpenSlide: {what}"))),
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
fn pixel(vendor: &str, properties: &[(String, String)]) -> (Option<(f64, f64)>, MppOrigin) {
    let number = |key: &str| {
        let value: f64 = find(properties, key)?.trim().parse().ok()?;
        (value.is_finite() && value > 0.0).then_some(value)
    };
    if let (Some(x), Some(y)) = (number("openslide.mpp-x"), number("openslide.mpp-y")) {
        // OpenSlide computes it from TIFF's tags where no maker says more.
        let said = match vendor {
            "generic-tiff" => MppOrigin::Resolution,
            _ => MppOrigin::Vendor,
        };
        return (Some((x, y)), said);
    }
    let unit = match find(properties, "tiff.ResolutionUnit") {
        Some("inch") => Some(25_400.0),
        Some("centimeter") => Some(10_000.0),
        _ => None,
    };
    if let (Some(unit), Some(x), Some(y)) =
        (unit, number("tiff.XResolution"), number("tiff.YResolution"))
    {
        return (Some((unit / x, unit / y)), MppOrigin::Resolution);
    }
    match number("openslide.objective-power") {
        Some(power) => (Some((10.0 / power, 10.0 / power)), MppOrigin::Objective),
        None => (None, MppOrigin::Unknown),
    }
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
        assert_eq!(of("aperio", 0), (Some((0.499, 0.499)), MppOrigin::Vendor));
        assert_eq!(
            of("generic-tiff", 0),
            (Some((0.499, 0.499)), MppOrigin::Resolution)
        );
        assert_eq!(of("aperio", 2), (Some((4.0, 4.0)), MppOrigin::Resolution));
        assert_eq!(
            pixel("aperio", &properties(&all[2..3])),
            (Some((0.5, 0.5)), MppOrigin::Objective)
        );
        assert_eq!(pixel("aperio", &[]), (None, MppOrigin::Unknown));
    }
}
