//! The [`SlideReader`] over a tiled TIFF.

use super::cache::{Band, TileCache};
use super::decode::Native;
use super::family;
use super::makers;
use super::page::{Compression, Page};
use crate::mpp::Claims;
use crate::sample::{self, OUTSIDE, Pyramid, View, downsample, sized};
use crate::tiff::{Source, Tiff};
use crate::{
    Associated, Facts, Fault, Level, OpenOptions, Picture, RawTile, Region, SlideError, SlideReader,
};
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

/// A cache of a slide that is opened without one.
const OWN_BUDGET: usize = 256 << 20;

impl NativeSlide {
    pub(crate) fn open(path: &Path, options: &OpenOptions) -> Result<Self, SlideError> {
        let source = Source::open(path)?;
        makers::decline_by_name(path, &source)?;
        let tiff = Tiff::parse(source)?;
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
}

impl Pyramid for NativeSlide {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn views(&self) -> &[View] {
        &self.views
    }

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

    fn tile(&self, view: View, row: u32, column: u32, into: &mut [u8]) -> Result<(), SlideError> {
        let index = row as u64 * view.columns as u64 + column as u64;
        self.native(view.level).decode(index, view.half, into)
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
        sample::read(self, region, (width, height), into)
    }

    fn tile_raw(&self, level: usize, column: u32, row: u32) -> Result<RawTile, SlideError> {
        match self.levels.get(level) {
            Some(page) if column < page.columns && row < page.rows => self
                .native(level)
                .raw(row as u64 * page.columns as u64 + column as u64),
            _ => Err(sample::request(
                self,
                format!("there is no native tile at column {column}, row {row} of level {level}"),
            )),
        }
    }

    fn reopen(&self) -> Result<Arc<dyn SlideReader>, SlideError> {
        Ok(Arc::new(NativeSlide::open(&self.path, &self.options)?))
    }

    fn thumbnail(&self, max_side: u32) -> Result<Picture, SlideError> {
        sample::thumbnail(self, max_side)
    }

    fn associated(&self, name: &str) -> Result<Picture, SlideError> {
        let Some((_, page)) = self.associated.iter().find(|(known, _)| known == name) else {
            return Err(sample::no_picture(self, name));
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
