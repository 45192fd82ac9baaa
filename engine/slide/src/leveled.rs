//! Slides of a reader that knows levels and their pixels, made into the full [`SlideReader`].
//!
//! A further reader says what it found and fills rectangles of a level. Everything else is here and is the native reader's own:
//! which size of a pixel holds, which level is read, how it is resampled, the streamed overview, what is refused. A handle that an
//! error has spoilt is thrown away and the read is tried once more, alone on a fresh one, since another tile's damage may have
//! been what spoilt it.

use crate::mpp::Claims;
use crate::sample::{self, OUTSIDE, Pyramid, View};
use crate::{
    Associated, Facts, Fault, Level, OpenOptions, Picture, Place, RawTile, Region, SlideError,
    SlideReader,
};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::UNIX_EPOCH;

/// Who said the size of a pixel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// A vendor's key.
    Vendor,
    /// A resolution tag.
    Resolution,
    /// The objective's power.
    Objective,
}

/// A level that a further reader found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FoundLevel {
    /// px.
    pub width: u32,
    /// px.
    pub height: u32,
    /// Level-0 px per px of this level.
    pub downsample: f64,
    /// Width and height of a native tile, px, where it has any.
    pub tile: Option<(u32, u32)>,
}

/// What a further reader found in a slide.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// As `mirax`.
    pub format: String,
    /// Who made it, as `mirax`.
    pub vendor: String,
    /// um along x and y of a level-0 pixel, and who said so; not judged.
    pub pixel: Option<((f64, f64), Said)>,
    /// From the greatest to the smallest; at least one.
    pub levels: Vec<FoundLevel>,
    /// Label, macro, thumbnail, in the order of [`Handle::picture`].
    pub pictures: Vec<Associated>,
    /// Further keys, as `mirax.GENERAL.SLIDE_NAME`.
    pub properties: BTreeMap<String, String>,
}

/// A slide that a further reader has open.
pub trait Handle: Send + Sync {
    /// What was found in it.
    fn found(&self) -> Result<Found, SlideError>;

    /// Fills `into`, rows `pitch` bytes apart, with exactly the `size` px of `level` from `corner` on, which lie inside the
    /// level: interleaved RGB over white. Damage is an error.
    fn read_region(
        &self,
        level: u32,
        corner: (u32, u32),
        size: (u32, u32),
        into: &mut [u8],
        pitch: usize,
    ) -> Result<(), SlideError>;

    /// Fills `into` with picture number `index` of [`Found::pictures`], whose size is `size`: interleaved RGB, rows side by side.
    fn picture(&self, index: usize, size: (u32, u32), into: &mut [u8]) -> Result<(), SlideError>;
}

/// Where a slide's handles come from.
pub trait Handles: Send + Sync {
    /// Opens the slide once more.
    fn open(&self) -> Result<Arc<dyn Handle>, SlideError>;

    /// Whether one handle may be read from by several threads at once.
    fn parallel(&self) -> bool;

    /// Whether a handle is of no use after an error.
    fn spoils(&self) -> bool;
}

/// Native tiles of a level that has none, px.
const NO_TILES: u32 = 512;

/// A slide of a further reader.
pub struct LeveledSlide {
    path: PathBuf,
    reader: String,
    options: OpenOptions,
    handles: Arc<dyn Handles>,
    /// Handles in nobody's use; of a reader that is parallel, the one that all use.
    ready: Mutex<Vec<Arc<dyn Handle>>>,
    facts: Facts,
    views: Vec<View>,
}

impl LeveledSlide {
    /// Opens a handle and takes in what it found. `reader` is the reader's name, as `openslide`.
    pub fn open(
        reader: &str,
        path: &Path,
        options: &OpenOptions,
        handles: Arc<dyn Handles>,
    ) -> Result<LeveledSlide, SlideError> {
        let handle = handles.open()?;
        let found = handle.found()?;
        let shown = path.display().to_string();
        check(&found, options).map_err(|(fault, what)| {
            SlideError::new(fault, &shown, format!("{what} (read by {reader})"), "")
        })?;
        let claim = |by: Said| found.pixel.filter(|(_, who)| *who == by).map(|(um, _)| um);
        let claims = Claims {
            given: options.mpp,
            vendor: claim(Said::Vendor),
            resolution: claim(Said::Resolution),
            // Claims speak of the objective's power, 10 um/px divided by it.
            objective: claim(Said::Objective).map(|(x, _)| 10.0 / x),
            default: options.default_mpp,
        };
        let (mpp, mpp_problem) = match claims.resolve() {
            Ok(mpp) => (mpp, None),
            Err(why) => (None, Some(why.to_string())),
        };
        let views = views(&found.levels);
        let levels = found.levels.iter().zip(&views).map(|(level, view)| {
            let (tile_width, tile_height) = (view.tile_width as u32, view.tile_height as u32);
            Level {
                width: level.width,
                height: level.height,
                downsample: (view.dx + view.dy) / 2.0,
                tile_width,
                tile_height,
                columns: view.columns,
                rows: level.height.div_ceil(tile_height),
                encoding: format!("as {reader} decodes it"),
            }
        });
        let facts = Facts {
            path: shown.clone(),
            reader: format!("{reader}/{}", found.format),
            vendor: found.vendor,
            levels: levels.collect(),
            mpp,
            mpp_problem,
            associated: found.pictures,
            properties: found.properties,
            input: stamp(path, &shown)?,
            half_size_decode: false,
        };
        let mut views = views;
        views.sort_by(|a, b| a.dx.total_cmp(&b.dx));
        Ok(LeveledSlide {
            path: path.to_owned(),
            reader: reader.to_owned(),
            options: options.clone(),
            handles,
            ready: Mutex::new(vec![handle]),
            facts,
            views,
        })
    }

    /// A handle: of a parallel reader the common one, else one that nobody uses meanwhile.
    fn take(&self) -> Result<Arc<dyn Handle>, SlideError> {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        if self.handles.parallel() {
            if let Some(common) = ready.first() {
                return Ok(common.clone());
            }
            // Under the lock, so that one is opened and not one a thread.
            let common = self.handles.open()?;
            ready.push(common.clone());
            return Ok(common);
        }
        match ready.pop() {
            Some(free) => Ok(free),
            None => {
                drop(ready);
                self.handles.open()
            }
        }
    }

    fn give_back(&self, handle: Arc<dyn Handle>) {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.handles.parallel() || ready.is_empty() {
            ready.push(handle);
        }
    }

    fn forget(&self, handle: &Arc<dyn Handle>) {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        ready.retain(|known| !Arc::ptr_eq(known, handle));
    }

    fn with<T>(
        &self,
        mut use_it: impl FnMut(&dyn Handle) -> Result<T, SlideError>,
    ) -> Result<T, SlideError> {
        let handle = self.take()?;
        let first = use_it(handle.as_ref());
        if first.is_ok() || !self.handles.spoils() {
            self.give_back(handle);
            return first;
        }
        self.forget(&handle);
        if !self.handles.parallel() {
            return first;
        }
        // Another read may have spoilt it: alone on a handle of its own, the error is this read's.
        drop(handle);
        let own = self.handles.open()?;
        let second = use_it(own.as_ref());
        if second.is_ok() {
            self.give_back(own);
        }
        second
    }

    /// The part of `size` px from `corner` on that lies inside `view`, into its place in `into`.
    fn inside(
        &self,
        view: View,
        (x0, y0): (i64, i64),
        (width, height): (i64, i64),
        into: &mut [u8],
    ) -> Result<(), SlideError> {
        let (x1, y1) = (x0 + width, y0 + height);
        if x0 < 0 || y0 < 0 || x1 > view.width || y1 > view.height {
            into.fill(OUTSIDE);
        }
        let (left, top) = (x0.max(0), y0.max(0));
        let (right, bottom) = (x1.min(view.width), y1.min(view.height));
        if left >= right || top >= bottom {
            return Ok(());
        }
        let pitch = width as usize * 3;
        let from = (top - y0) as usize * pitch + (left - x0) as usize * 3;
        let to = from + (bottom - top - 1) as usize * pitch + (right - left) as usize * 3;
        let (corner, size) = (
            (left as u32, top as u32),
            ((right - left) as u32, (bottom - top) as u32),
        );
        self.with(|handle| {
            handle.read_region(view.level as u32, corner, size, &mut into[from..to], pitch)
        })
        .map_err(|error| {
            let cell =
                |x: i64, y: i64| ((x / view.tile_width) as u32, (y / view.tile_height) as u32);
            let (column, row) = cell(left, top);
            let one = cell(right - 1, bottom - 1) == (column, row);
            let place = Place {
                level: Some(view.level),
                tile: one.then(|| row as u64 * view.columns as u64 + column as u64),
                cell: one.then_some((column, row)),
                ..*error.place
            };
            error.at(place)
        })
    }
}

/// What can be read from, in the order of `levels`.
fn views(levels: &[FoundLevel]) -> Vec<View> {
    let size = levels
        .first()
        .map_or((1.0, 1.0), |zero| (zero.width as f64, zero.height as f64));
    levels
        .iter()
        .enumerate()
        .map(|(index, level)| {
            let (dx, dy) = sample::downsample(size, (level.width as f64, level.height as f64));
            // A reader that knows better than the sizes, which some formats pad, is believed. The mean of both ratios is no
            // knowledge, and the whole number is the level's own.
            let ratios = (size.0 / level.width as f64 + size.1 / level.height as f64) / 2.0;
            let says = |other: f64| (level.downsample / other - 1.0).abs() <= 1e-6;
            let (dx, dy) = match says(ratios) || says(dx) {
                true => (dx, dy),
                false => (level.downsample, level.downsample),
            };
            let (tile_width, tile_height) = level.tile.unwrap_or((NO_TILES, NO_TILES));
            View {
                index: index as u32,
                level: index,
                half: false,
                width: level.width as i64,
                height: level.height as i64,
                tile_width: tile_width as i64,
                tile_height: tile_height as i64,
                columns: level.width.div_ceil(tile_width),
                dx,
                dy,
            }
        })
        .collect()
}

/// Bytes of so many pixels: of sizes that a file makes up, more than any limit and not what is left when they overflow.
fn bytes(width: u32, height: u32) -> u64 {
    (width as u64 * height as u64).saturating_mul(3)
}

/// What a reader found is not believed either.
fn check(found: &Found, options: &OpenOptions) -> Result<(), (Fault, String)> {
    if found.levels.is_empty() {
        return Err((Fault::Damaged, "has no level".into()));
    }
    for (number, level) in found.levels.iter().enumerate() {
        let most = options.limits.max_side;
        if level.width > most || level.height > most {
            return Err((
                Fault::TooLarge,
                format!(
                    "its level {number} has {} x {} px; at most {most} a side are read",
                    level.width, level.height
                ),
            ));
        }
        let (width, height) = level.tile.unwrap_or((NO_TILES, NO_TILES));
        let sound = level.width > 0
            && level.height > 0
            && level.downsample.is_finite()
            && level.downsample > 0.999
            && width > 0
            && height > 0
            && bytes(width, height) <= options.limits.max_tile_bytes;
        if !sound {
            return Err((
                Fault::Damaged,
                format!("its level {number} cannot be: {level:?}"),
            ));
        }
    }
    Ok(())
}

/// Size in bytes and time of the last change, ns since 1970.
fn stamp(path: &Path, shown: &str) -> Result<(u64, u64), SlideError> {
    let meta = std::fs::metadata(path).map_err(|error| {
        let what = format!("cannot be looked at: {error}");
        SlideError::new(Fault::Io, shown, what, "check the path")
    })?;
    let changed = meta
        .modified()
        .ok()
        .and_then(|time| time.duration_since(UNIX_EPOCH).ok())
        .map_or(0, |since| since.as_nanos() as u64);
    Ok((meta.len(), changed))
}

impl Pyramid for LeveledSlide {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn views(&self) -> &[View] {
        &self.views
    }

    fn gather(
        &self,
        view: View,
        corner: (i64, i64),
        size: (i64, i64),
        _: &mut Vec<u8>,
        into: &mut [u8],
    ) -> Result<(), SlideError> {
        self.inside(view, corner, size, into)
    }

    fn tile(&self, view: View, row: u32, column: u32, into: &mut [u8]) -> Result<(), SlideError> {
        let corner = (
            column as i64 * view.tile_width,
            row as i64 * view.tile_height,
        );
        self.inside(view, corner, (view.tile_width, view.tile_height), into)
    }
}

impl SlideReader for LeveledSlide {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn read(
        &self,
        region: Region,
        _rev: u32,
        width: u32,
        height: u32,
        into: &mut [u8],
    ) -> Result<(), SlideError> {
        sample::read(self, region, (width, height), into)
    }

    fn tile_raw(&self, _: usize, _: u32, _: u32) -> Result<RawTile, SlideError> {
        Err(SlideError::new(
            Fault::Unsupported,
            &self.facts.path,
            format!(
                "{} gives pixels, not tiles as they stand in the file",
                self.reader
            ),
            "read the tile's pixels",
        ))
    }

    fn reopen(&self) -> Result<Arc<dyn SlideReader>, SlideError> {
        Ok(Arc::new(LeveledSlide::open(
            &self.reader,
            &self.path,
            &self.options,
            self.handles.clone(),
        )?))
    }

    fn thumbnail(&self, max_side: u32) -> Result<Picture, SlideError> {
        sample::thumbnail(self, max_side)
    }

    fn associated(&self, name: &str) -> Result<Picture, SlideError> {
        let pictures = &self.facts.associated;
        let Some(index) = pictures.iter().position(|picture| picture.name == name) else {
            return Err(sample::no_picture(self, name));
        };
        let (width, height) = (pictures[index].width, pictures[index].height);
        let bytes = bytes(width, height);
        if bytes > self.options.limits.max_picture_bytes {
            return Err(SlideError::new(
                Fault::TooLarge,
                &self.facts.path,
                format!("its picture `{name}` takes {bytes} bytes"),
                "",
            ));
        }
        let mut pixels = vec![0; bytes as usize];
        self.with(|handle| handle.picture(index, (width, height), &mut pixels))?;
        Ok(Picture {
            width,
            height,
            pixels,
            unread: Vec::new(),
        })
    }
}
