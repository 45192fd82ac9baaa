//! The [`SlideReader`] over a tiled TIFF.

use super::cache::{Band, TileCache};
use super::decode::Native;
use super::family;
use super::page::{Compression, Page};
use super::resample::{self, Axis, MOST_WHOLE};
use crate::mpp::Claims;
use crate::tiff::{Source, Tiff};
use crate::{
    Associated, Facts, Fault, Level, OpenOptions, Picture, RawTile, Region, SlideError, SlideReader,
};
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use weir_record::Budget;

/// A slide that the native reader opened.
pub(crate) struct NativeSlide {
    path: PathBuf,
    options: OpenOptions,
    source: Source,
    levels: Vec<Page>,
    associated: Vec<(String, Page)>,
    facts: Facts,
    /// What can be read from, ascending by downsample.
    views: Vec<View>,
    cache: TileCache,
    number: u64,
}

/// A level, or a level decoded straight to half its size.
#[derive(Clone, Copy, Debug)]
struct View {
    index: u32,
    level: usize,
    half: bool,
    width: i64,
    height: i64,
    tile_width: i64,
    tile_height: i64,
    columns: u32,
    /// Level-0 px per px along x and y.
    dx: f64,
    dy: f64,
}

/// A cache of a slide that is opened without one.
const OWN_BUDGET: usize = 256 << 20;
/// A window of source pixels larger than this is not gathered; its tiles are added up one by one.
const WINDOW: i64 = 24 << 20;
/// A thread's buffer larger than this is given back after use.
const KEEP: usize = 32 << 20;
/// Colour of what lies outside the slide.
const OUTSIDE: u8 = 255;
/// Colour of what could not be read, in pictures for people.
const UNREAD: u8 = 128;

#[derive(Default)]
struct Scratch {
    tile: Vec<u8>,
    window: Vec<u8>,
    sums: Vec<u16>,
    line: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl NativeSlide {
    pub(crate) fn open(path: &Path, options: &OpenOptions) -> Result<Self, SlideError> {
        let tiff = Tiff::parse(Source::open(path)?)?;
        let family = family::take_apart(&tiff, &options.limits)?;
        let Tiff { source, .. } = tiff;
        let claims = Claims {
            given: options.mpp,
            vendor: family.sizes.vendor,
            resolution: family.sizes.resolution,
            objective: family.sizes.objective,
            default: options.default_mpp,
        };
        let (mpp, mpp_problem) = match claims.resolve() {
            Ok(mpp) => (mpp, None),
            Err(why) => (None, Some(why.to_string())),
        };
        let mut views: Vec<View> = Vec::new();
        let mut levels = Vec::new();
        let size = family
            .levels
            .first()
            .map_or((1.0, 1.0), |page| (page.width as f64, page.height as f64));
        for (level, page) in family.levels.iter().enumerate() {
            let (dx, dy) = downsample(size, (page.width as f64, page.height as f64));
            levels.push(Level {
                width: page.width,
                height: page.height,
                downsample: (dx + dy) / 2.0,
                tile_width: page.tile_width,
                tile_height: page.tile_height,
                columns: page.columns,
                rows: page.rows,
                encoding: page.encoding(),
            });
            let view = View {
                index: views.len() as u32,
                level,
                half: false,
                width: page.width as i64,
                height: page.height as i64,
                tile_width: page.tile_width as i64,
                tile_height: page.tile_height as i64,
                columns: page.columns,
                dx,
                dy,
            };
            views.push(view);
            let even = page.tile_width % 2 == 0 && page.tile_height % 2 == 0;
            if options.half_size_decode
                && page.compression == Compression::Jpeg
                && !page.strips
                && even
            {
                views.push(View {
                    index: views.len() as u32,
                    half: true,
                    width: (view.width + 1) / 2,
                    height: (view.height + 1) / 2,
                    tile_width: view.tile_width / 2,
                    tile_height: view.tile_height / 2,
                    dx: dx * 2.0,
                    dy: dy * 2.0,
                    ..view
                });
            }
        }
        views.sort_by(|a, b| a.dx.total_cmp(&b.dx).then(b.half.cmp(&a.half)));
        let facts = Facts {
            path: source.path().to_string(),
            reader: format!("native/{}", family.format),
            vendor: family.vendor.into(),
            levels,
            mpp,
            mpp_problem,
            associated: family
                .associated
                .iter()
                .map(|(name, page)| Associated {
                    name: name.clone(),
                    width: page.width,
                    height: page.height,
                })
                .collect(),
            properties: family.properties,
            input: source.stamp(),
            half_size_decode: options.half_size_decode,
        };
        let cache = options
            .cache
            .clone()
            .unwrap_or_else(|| TileCache::new(&Budget::new(OWN_BUDGET)));
        Ok(NativeSlide {
            path: path.to_path_buf(),
            options: options.clone(),
            number: cache.enter(),
            source,
            levels: family.levels,
            associated: family.associated,
            facts,
            views,
            cache,
        })
    }

    fn native(&self, level: usize) -> Native<'_> {
        Native {
            source: &self.source,
            limits: &self.options.limits,
            page: &self.levels[level],
            level: Some(level),
        }
    }

    /// The coarsest view whose resolution reaches `scale` (level-0 px per output px) within 0.1 %; level 0 when none does.
    fn view(&self, scale: f64) -> View {
        let downsamples = self.views.iter().map(|view| view.dx.max(view.dy));
        self.views[crate::tiling::level_for(downsamples, scale)]
    }

    fn request(&self, what: String) -> SlideError {
        SlideError::new(
            Fault::Request,
            &self.facts.path,
            what,
            "this is a fault of the caller, not of the slide",
        )
    }

    fn check(
        &self,
        region: Region,
        width: u32,
        height: u32,
        room: usize,
    ) -> Result<(), SlideError> {
        let Region { x, y, w, h } = region;
        if ![x, y, w, h].iter().all(|v| v.is_finite() && v.abs() < 1e9) || w <= 0.0 || h <= 0.0 {
            return Err(self.request(format!("{region:?} is no region")));
        }
        if width == 0 || height == 0 || width > 65_535 || height > 65_535 {
            return Err(self.request(format!("{width} x {height} px cannot be read at once")));
        }
        if room != width as usize * height as usize * 3 {
            return Err(self.request(format!(
                "a buffer of {room} bytes does not hold {width} x {height} px"
            )));
        }
        let (right, below) = (self.facts.width() as f64, self.facts.height() as f64);
        if x >= right || y >= below || x + w <= 0.0 || y + h <= 0.0 {
            return Err(self.request(format!(
                "{region:?} lies outside of the slide, which has {right} x {below} px"
            )));
        }
        Ok(())
    }

    /// Fills `into` with `width` x `height` px of `view` from (`x0`, `y0`) on; white outside of the slide.
    fn gather(
        &self,
        view: View,
        (x0, y0): (i64, i64),
        (width, height): (i64, i64),
        tile: &mut Vec<u8>,
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
        for row in top / view.tile_height..=(bottom - 1) / view.tile_height {
            for column in left / view.tile_width..=(right - 1) / view.tile_width {
                let (tx, ty) = (column * view.tile_width, row * view.tile_height);
                let (column, row) = (column as u32, row as u32);
                if (tx, ty, view.tile_width, view.tile_height) == (x0, y0, width, height)
                    && x1 <= view.width
                    && y1 <= view.height
                {
                    // One whole native tile: straight into the caller's buffer.
                    return match self.cache.peek(self.band(view, row), column) {
                        Some(pixels) => {
                            into.copy_from_slice(&pixels);
                            Ok(())
                        }
                        None => {
                            let index = row as u64 * view.columns as u64 + column as u64;
                            self.native(view.level).decode(index, view.half, into)
                        }
                    };
                }
                let (from_x, to_x) = (left.max(tx), right.min(tx + view.tile_width));
                let (from_y, to_y) = (top.max(ty), bottom.min(ty + view.tile_height));
                self.with_tile(view, row, column, tile, |pixels| {
                    let run = (to_x - from_x) as usize * 3;
                    for y in from_y..to_y {
                        let source = ((y - ty) * view.tile_width + from_x - tx) as usize * 3;
                        let target = (y - y0) as usize * pitch + (from_x - x0) as usize * 3;
                        into[target..target + run].copy_from_slice(&pixels[source..source + run]);
                    }
                })?;
            }
        }
        Ok(())
    }

    fn band(&self, view: View, row: u32) -> Band {
        Band {
            slide: self.number,
            view: view.index,
            row,
        }
    }

    /// Calls `use_it` with a native tile, from the cache or decoded into `scratch`.
    fn with_tile(
        &self,
        view: View,
        row: u32,
        column: u32,
        scratch: &mut Vec<u8>,
        use_it: impl FnOnce(&[u8]),
    ) -> Result<(), SlideError> {
        let index = row as u64 * view.columns as u64 + column as u64;
        let bytes = (view.tile_width * view.tile_height * 3) as usize;
        let native = self.native(view.level);
        let cached = self
            .cache
            .get(self.band(view, row), column, bytes, |into| {
                native.decode(index, view.half, into)
            })?;
        match cached {
            Some(pixels) => use_it(&pixels),
            None => {
                native.decode(index, view.half, sized(scratch, bytes))?;
                use_it(&scratch[..bytes]);
            }
        }
        Ok(())
    }

    /// Adds up `region` at `width` x `height` px, each native tile once and one at a time. Tiles that cannot be read are left
    /// `UNREAD` and named in the picture.
    fn sum_up(
        &self,
        view: View,
        region: Region,
        (width, height): (u32, u32),
        strict: bool,
    ) -> Result<Picture, SlideError> {
        let x = Axis::new(
            region.x / view.dx,
            region.w / view.dx / width as f64,
            width as usize,
            view.width,
        );
        let y = Axis::new(
            region.y / view.dy,
            region.h / view.dy / height as f64,
            height as usize,
            view.height,
        );
        let pitch = width as usize * 3;
        let mut sums = vec![0f32; pitch * height as usize];
        let white: Vec<f32> = (0..width as usize)
            .map(|c| x.inside(c, view.width))
            .collect();
        for (r, line) in sums.chunks_exact_mut(pitch).enumerate() {
            let inside = y.inside(r, view.height);
            for (rgb, part) in line.as_chunks_mut::<3>().0.iter_mut().zip(&white) {
                *rgb = [OUTSIDE as f32 * (1.0 - inside * part).max(0.0) + 0.5; 3];
            }
        }
        let ((x0, x1), (y0, y1)) = (x.span(), y.span());
        let (left, right) = (x0.max(0), x1.min(view.width));
        let (top, bottom) = (y0.max(0), y1.min(view.height));
        let mut unread = Vec::new();
        let (mut first_error, mut any) = (None, false);
        let mut tile = Vec::new();
        let mut line = Vec::new();
        let native = self.native(view.level);
        if left < right && top < bottom {
            for row in top / view.tile_height..=(bottom - 1) / view.tile_height {
                for column in left / view.tile_width..=(right - 1) / view.tile_width {
                    let (tx, ty) = (column * view.tile_width, row * view.tile_height);
                    let (from_x, to_x) = (left.max(tx), right.min(tx + view.tile_width));
                    let (from_y, to_y) = (top.max(ty), bottom.min(ty + view.tile_height));
                    let index = row as u64 * view.columns as u64 + column as u64;
                    let bytes = (view.tile_width * view.tile_height * 3) as usize;
                    match native.decode(index, view.half, sized(&mut tile, bytes)) {
                        Ok(()) => any = true,
                        Err(error) if strict => return Err(error),
                        Err(error) => {
                            first_error.get_or_insert(error);
                            unread.push(Region {
                                x: from_x as f64 * view.dx,
                                y: from_y as f64 * view.dy,
                                w: (to_x - from_x) as f64 * view.dx,
                                h: (to_y - from_y) as f64 * view.dy,
                            });
                            tile[..bytes].fill(UNREAD);
                        }
                    }
                    let columns = x.touched(from_x, to_x);
                    for sy in from_y..to_y {
                        let source = &tile[((sy - ty) * view.tile_width) as usize * 3..];
                        line.clear();
                        for c in columns.clone() {
                            let (first, weights) = x.taps(c);
                            let mut rgb = [0f32; 3];
                            for (k, weight) in weights.iter().enumerate() {
                                let sx = first + k as i64;
                                if (from_x..to_x).contains(&sx) {
                                    let at = (sx - tx) as usize * 3;
                                    for (sum, value) in rgb.iter_mut().zip(&source[at..at + 3]) {
                                        *sum += weight * *value as f32;
                                    }
                                }
                            }
                            line.extend_from_slice(&rgb);
                        }
                        for r in y.touched(sy, sy + 1) {
                            let (first, weights) = y.taps(r);
                            let Some(weight) = weights.get((sy - first) as usize) else {
                                continue;
                            };
                            let from = r * pitch + columns.start * 3;
                            for (sum, value) in sums[from..from + line.len()].iter_mut().zip(&line)
                            {
                                *sum += weight * value;
                            }
                        }
                    }
                }
            }
        }
        if let Some(error) = first_error
            && !any
        {
            return Err(error);
        }
        Ok(Picture {
            width,
            height,
            pixels: sums.iter().map(|sum| *sum as u8).collect(),
            unread,
        })
    }
}

impl Drop for NativeSlide {
    fn drop(&mut self) {
        self.cache.leave(self.number);
    }
}

impl SlideReader for NativeSlide {
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
        self.check(region, width, height, into.len())?;
        let (w, h) = (width as i64, height as i64);
        let scale = (region.w / width as f64).min(region.h / height as f64);
        let view = self.view(scale);
        let (ox, oy) = (region.x / view.dx, region.y / view.dy);
        let (sx, sy) = (
            region.w / view.dx / width as f64,
            region.h / view.dy / height as f64,
        );
        SCRATCH.with(|scratch| {
            let mut scratch = scratch.borrow_mut();
            let Scratch {
                tile,
                window,
                sums,
                line,
            } = &mut *scratch;
            let done = if (sx - 1.0).abs() <= 1e-3 && (sy - 1.0).abs() <= 1e-3 {
                // A region inside the slide stays inside the level, whose sides are rounded.
                let start = |origin: f64, side: i64, n: i64, end: f64, slide: u64| {
                    let start = origin.round() as i64;
                    if end <= slide as f64 && start + n > side && n <= side {
                        side - n
                    } else {
                        start
                    }
                };
                let x0 = start(ox, view.width, w, region.x + region.w, self.facts.width());
                let y0 = start(oy, view.height, h, region.y + region.h, self.facts.height());
                self.gather(view, (x0, y0), (w, h), tile, into)
            } else if let Some(factor) = whole_factor((sx, ox, w), (sy, oy, h))
                && w * h * (factor * factor) as i64 * 3 <= WINDOW
            {
                let (fw, fh) = (w * factor as i64, h * factor as i64);
                let bytes = (fw * fh * 3) as usize;
                self.gather(
                    view,
                    (ox.round() as i64, oy.round() as i64),
                    (fw, fh),
                    tile,
                    sized(window, bytes),
                )
                .map(|()| {
                    resample::whole(
                        &window[..bytes],
                        fw as usize,
                        factor,
                        width as usize,
                        sums,
                        into,
                    );
                })
            } else {
                let x = Axis::new(ox, sx, width as usize, view.width);
                let y = Axis::new(oy, sy, height as usize, view.height);
                let ((x0, x1), (y0, y1)) = (x.span(), y.span());
                let (ww, wh) = (x1 - x0, y1 - y0);
                if ww * wh * 3 <= WINDOW {
                    let bytes = (ww * wh * 3) as usize;
                    self.gather(view, (x0, y0), (ww, wh), tile, sized(window, bytes))
                        .map(|()| {
                            resample::area(&window[..bytes], ww as usize, &x, &y, line, into);
                        })
                } else {
                    self.sum_up(view, region, (width, height), true)
                        .map(|picture| into.copy_from_slice(&picture.pixels))
                }
            };
            for buffer in [tile, window] {
                if buffer.capacity() > KEEP {
                    *buffer = Vec::new();
                }
            }
            done
        })
    }

    fn tile_raw(&self, level: usize, column: u32, row: u32) -> Result<RawTile, SlideError> {
        match self.levels.get(level) {
            Some(page) if column < page.columns && row < page.rows => self
                .native(level)
                .raw(row as u64 * page.columns as u64 + column as u64),
            _ => Err(self.request(format!(
                "there is no native tile at column {column}, row {row} of level {level}"
            ))),
        }
    }

    fn reopen(&self) -> Result<Arc<dyn SlideReader>, SlideError> {
        Ok(Arc::new(NativeSlide::open(&self.path, &self.options)?))
    }

    fn thumbnail(&self, max_side: u32) -> Result<Picture, SlideError> {
        let (width, height) = (self.facts.width(), self.facts.height());
        let most = max_side.clamp(1, 16_384) as f64;
        let scale = (width.max(height) as f64 / most).max(1.0);
        let side = |n: u64| ((n as f64 / scale).round() as u32).max(1);
        let region = Region {
            x: 0.0,
            y: 0.0,
            w: width as f64,
            h: height as f64,
        };
        self.sum_up(self.view(scale), region, (side(width), side(height)), false)
    }

    fn associated(&self, name: &str) -> Result<Picture, SlideError> {
        let Some((_, page)) = self.associated.iter().find(|(known, _)| known == name) else {
            return Err(SlideError::new(
                Fault::Request,
                &self.facts.path,
                format!("has no picture called `{name}`"),
                format!(
                    "it has: {}",
                    self.associated
                        .iter()
                        .map(|(name, _)| name.as_str())
                        .collect::<Vec<_>>()
                        .join(", ")
                ),
            ));
        };
        let bytes = page.width as u64 * page.height as u64 * 3;
        if bytes > self.options.limits.max_picture_bytes {
            return Err(SlideError::new(
                Fault::TooLarge,
                &self.facts.path,
                format!("its picture `{name}` takes {bytes} bytes"),
                "",
            ));
        }
        let native = Native {
            source: &self.source,
            limits: &self.options.limits,
            page,
            level: None,
        };
        let (width, height) = (page.width as usize, page.height as usize);
        let mut pixels = vec![0; bytes as usize];
        let mut tile = vec![0; page.rgb_bytes()];
        for index in 0..page.cells() {
            native.decode(index, false, &mut tile)?;
            let (tw, th) = (page.tile_width as usize, page.tile_height as usize);
            let x = (index % page.columns as u64) as usize * tw;
            let y = (index / page.columns as u64) as usize * th;
            let run = tw.min(width - x) * 3;
            for row in 0..th.min(height - y) {
                let target = ((y + row) * width + x) * 3;
                pixels[target..target + run].copy_from_slice(&tile[row * tw * 3..][..run]);
            }
        }
        Ok(Picture {
            width: page.width,
            height: page.height,
            pixels,
            unread: Vec::new(),
        })
    }
}

/// A buffer's first `bytes` bytes, grown when it is shorter.
fn sized(buffer: &mut Vec<u8>, bytes: usize) -> &mut [u8] {
    if buffer.len() < bytes {
        buffer.resize(bytes, 0);
    }
    &mut buffer[..bytes]
}

/// Level-0 px per px of a level along x and y: the nominal whole number where both sides are one rounding away from it (OpenSlide
/// takes the mean of the two ratios, which shifts what is far from the corner).
fn downsample(zero: (f64, f64), level: (f64, f64)) -> (f64, f64) {
    let (x, y) = (zero.0 / level.0, zero.1 / level.1);
    let nominal = ((x + y) / 2.0).round().max(1.0);
    let near = |side: f64, have: f64| (side / nominal - have).abs() < 1.0;
    if near(zero.0, level.0) && near(zero.1, level.1) {
        (nominal, nominal)
    } else {
        (x, y)
    }
}

/// The whole factor that both axes are scaled by, when they begin on a pixel and drift less than a twentieth of one.
fn whole_factor(x: (f64, f64, i64), y: (f64, f64, i64)) -> Option<usize> {
    let factor = x.0.round();
    let fits = |(scale, origin, n): (f64, f64, i64)| {
        (scale - factor).abs() * n as f64 <= 0.05 && (origin - origin.round()).abs() <= 0.05
    };
    ((2.0..=MOST_WHOLE).contains(&factor) && fits(x) && fits(y)).then_some(factor as usize)
}
