//! A slide that OpenSlide has open: what was found in it, exact regions of its levels, its pictures.

use crate::between::{Lines, Start, on_pixel, start, start_rounded_down, undo};
use crate::library::{CZI, DICOM, Library, Missing, Open, REMEDY, cache_bytes, library};
use crate::pixels::{Absent, absent, to_rgb};
use crate::sniff::sniff;
use std::cell::RefCell;
use std::ffi::CString;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
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
    /// For [`Slide::far`].
    far: Mutex<Option<Arc<Open<'static>>>>,
    name: CString,
    library: &'static Library,
    vendor: String,
    absent: Absent,
    /// Leica's driver does, to whole pixels of a level; all others interpolate.
    rounds_down: bool,
    levels: Vec<Level>,
    pictures: Vec<(CString, Picture)>,
    properties: Vec<(String, String)>,
}

/// Greatest number of pixels that OpenSlide is asked for at once: 16 MiB of ARGB a thread. It also stays below the 4096 px a side
/// from which on OpenSlide itself cuts a region up, with a place for each part that is rounded down.
const BLOCK: u32 = 1 << 22;
const BLOCK_SIDE: u32 = 4096;

/// px that are read rather than undoing what was interpolated, which takes OpenSlide four times as long a px.
const EXACTLY: u64 = 1 << 20;

/// What may be read beside a block, along one axis, to have its pixels exactly.
const BESIDE: u32 = 64;

/// No side of a level or picture is longer, px.
const LONGEST: i64 = 1 << 30;

/// What a thread works in.
#[derive(Default)]
struct Scratch {
    argb: Vec<u32>,
    lines: Lines,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
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

    /// They are the level's pixels: exactly where its downsample is a whole number, and else within what
    /// [`between`](crate::between) says.
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
        let columns = across.min(BLOCK_SIDE - BESIDE);
        let rows = (BLOCK / (columns + BESIDE) - BESIDE).min(BLOCK_SIDE - BESIDE);
        SCRATCH.with_borrow_mut(|scratch| {
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
                    self.block(&block, of.downsample, scratch, (x, y), into)?;
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
            let over_white = to_rgb(line, Absent::NotScanned, into.row_mut(row as u32));
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
            return Err(match needs(path) {
                Some((format, said, version)) if !library.at_least(version) => error.help(format!(
                    "{format} needs OpenSlide {said}: `make openslide` gets it, or set WEIR_OPENSLIDE to such a libopenslide.so.1"
                )),
                _ => error,
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
            far: Mutex::default(),
            name,
            library,
            rounds_down: vendor == "leica",
            vendor,
            absent,
            levels,
            pictures,
            properties,
        })
    }

    /// Where to read `block` from along x and y when nothing is to be undone; `None` where that is too far off.
    fn exact(&self, block: &Block, downsample: f64) -> Option<(Start, Start)> {
        let ((x, y), (width, height)) = (block.corner, block.size);
        if self.rounds_down {
            return None;
        }
        let exact = |at: i64, side: u32| {
            let most = BLOCK_SIDE.saturating_sub(side);
            on_pixel(at, downsample, most.into())
        };
        let (x, y) = (exact(x, width)?, exact(y, height)?);
        let read = u64::from(x.before + width) * u64::from(y.before + height);
        ((x.before, y.before) == (0, 0) || read <= EXACTLY).then_some((x, y))
    }

    /// The same beside the block, at most.
    fn near(&self, block: &Block, downsample: f64) -> Result<(Start, Start)> {
        let (x, y) = block.corner;
        let start = |at: i64| {
            let start = match self.rounds_down {
                true => start_rounded_down(at, downsample),
                false => start(at, downsample),
            };
            start.ok_or_else(|| {
                Error::unsupported(format!(
                    "level {} has no exact pixels at {at}: OpenSlide interpolates, and with a downsample of {downsample} too much to undo it",
                    block.level
                ))
                .help("read another level: a tile's size or mpp chooses it")
            })
        };
        Ok((start(x)?, start(y)?))
    }

    /// Whether `read` succeeds that also reads what is not asked for: what is damaged there must spoil neither the handle that all
    /// use nor the region. Its own handle may have been spoilt by another such read, so a second error is this one's.
    fn far(&self, mut read: impl FnMut(&Open) -> Result<()>) -> Result<bool> {
        let fresh = || {
            let open = self.library.slide(&self.name);
            open.ok_or_else(|| Error::new("OpenSlide does not open it once more"))
        };
        let handle = || self.far.lock().unwrap_or_else(PoisonError::into_inner);
        let common = {
            let mut far = handle();
            match &*far {
                Some(common) => common.clone(),
                None => far.insert(Arc::new(fresh()?)).clone(),
            }
        };
        if read(&common).is_ok() {
            return Ok(true);
        }
        handle().take_if(|far| Arc::ptr_eq(far, &common));
        Ok(read(&fresh()?).is_ok())
    }

    /// Reads `block` into its place in `into`, whose corner is `origin`.
    fn block(
        &self,
        block: &Block,
        downsample: f64,
        Scratch { argb, lines }: &mut Scratch,
        origin: (i64, i64),
        into: &mut Region,
    ) -> Result<()> {
        let Block {
            level,
            corner,
            size,
        } = *block;
        let mut read = |open: &Open, x: Start, y: Start| {
            let around = |start: Start, size: u32| start.before + size + start.behind;
            let (across, down) = (around(x, size.0), around(y, size.1));
            argb.resize(across as usize * down as usize, 0);
            open.read(argb, (x.zero, y.zero), level as i32, (across, down));
            check(open)
        };
        let (x, y) = match self.exact(block, downsample) {
            Some((x, y)) if (x.before, y.before) == (0, 0) => {
                read(&self.open, x, y)?;
                (x, y)
            }
            Some((x, y)) if self.far(|open| read(open, x, y))? => (x, y),
            _ => {
                let (x, y) = self.near(block, downsample)?;
                read(&self.open, x, y)?;
                (x, y)
            }
        };
        let width = (x.before + size.0 + x.behind) as usize;
        undo(argb, width, (x.off, y.off), lines);
        let from = (corner.0 - origin.0) as usize * 3;
        let lines = argb.chunks_exact(width).skip(y.before as usize);
        for (row, line) in lines.take(size.1 as usize).enumerate() {
            let line = &line[x.before as usize..][..size.0 as usize];
            let y = corner.1 + row as i64;
            let out = &mut into.row_mut((y - origin.1) as u32)[from..from + line.len() * 3];
            to_rgb(line, self.absent, out).map_err(|column| {
                let x = corner.0 + column as i64;
                Error::new(format!(
                    "level {level} has no pixel at ({x}, {y}): the file lacks the data of a tile that it should hold"
                ))
            })?;
        }
        Ok(())
    }
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

/// What a file is that older versions of OpenSlide do not read, and the version that does.
fn needs(path: &Path) -> Option<(&'static str, &'static str, [u32; 3])> {
    use std::io::Read;
    let mut head = [0; 132];
    let mut file = std::fs::File::open(path).ok()?;
    file.read_exact(&mut head).ok()?;
    if &head[128..] == b"DICM" {
        return Some(("DICOM", "4.0", DICOM));
    }
    head.starts_with(b"ZISRAWFILE")
        .then_some(("CZI", "4.0.1", CZI))
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
