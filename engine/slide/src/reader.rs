//! The one door to a slide's pixels.

use crate::{Fault, SlideError};
use std::collections::BTreeMap;
use std::sync::Arc;
use weir_record::{Mpp, MppOrigin};

/// A rectangle in level-0 px: left, top, width, height. It need not lie on whole pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Region {
    /// Left edge, level-0 px.
    pub x: f64,
    /// Top edge, level-0 px.
    pub y: f64,
    /// Width, level-0 px.
    pub w: f64,
    /// Height, level-0 px.
    pub h: f64,
}

/// One level of a slide's pyramid.
#[derive(Clone, Debug, PartialEq)]
pub struct Level {
    /// px.
    pub width: u32,
    /// px.
    pub height: u32,
    /// Level-0 px per px of this level; 1 for level 0. The nominal whole number where both sides are one rounding away from it.
    pub downsample: f64,
    /// Size of a native tile, px; the whole width for strips.
    pub tile_width: u32,
    /// Size of a native tile, px; the rows of a strip for strips.
    pub tile_height: u32,
    /// Native tiles in a row.
    pub columns: u32,
    /// Rows of native tiles.
    pub rows: u32,
    /// How its tiles are written, as `JPEG, YCbCr`.
    pub encoding: String,
}

/// A picture that belongs to a slide and is no level of it: label, macro, thumbnail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Associated {
    /// `label`, `macro`, `thumbnail`, or `image-N`.
    pub name: String,
    /// px.
    pub width: u32,
    /// px.
    pub height: u32,
}

/// What a reader found in a slide: what `weir inspect` prints, and all that tiling needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// Where it was read from, as it was named.
    pub path: String,
    /// The reader's name and the format, as `native/aperio-svs`.
    pub reader: String,
    /// Who made it, as `aperio`; `generic` when the file does not say.
    pub vendor: String,
    /// From the greatest to the smallest; never empty.
    pub levels: Vec<Level>,
    /// Size of a level-0 pixel and who said so; `None` when nobody did or what was said cannot be (`mpp_problem`).
    pub mpp: Option<(Mpp, MppOrigin)>,
    /// Why `mpp` is not known.
    pub mpp_problem: Option<String>,
    /// Label, macro, thumbnail and whatever else is no level.
    pub associated: Vec<Associated>,
    /// Further keys, as `aperio.AppMag`.
    pub properties: BTreeMap<String, String>,
    /// Size of the file in bytes and time of its last change (ns since 1970).
    pub input: (u64, u64),
    /// Whether tiles may be decoded straight to half size where no level fits; such pixels differ a little from a mean of four.
    pub half_size_decode: bool,
}

impl Facts {
    /// Width of level 0, px.
    pub fn width(&self) -> u64 {
        self.levels.first().map_or(0, |level| level.width as u64)
    }

    /// Height of level 0, px.
    pub fn height(&self) -> u64 {
        self.levels.first().map_or(0, |level| level.height as u64)
    }

    /// Size of a level-0 pixel and who said so; an error with the remedies when nobody did, or when what was said cannot be.
    pub fn require_mpp(&self) -> Result<(Mpp, MppOrigin), SlideError> {
        self.mpp.ok_or_else(|| {
            SlideError::new(
                Fault::Missing,
                &self.path,
                self.mpp_problem.clone().unwrap_or_else(|| {
                    "the size of a pixel is not known: no vendor key, no resolution tag, no objective power".into()
                }),
                "give it in the manifest of slides (column mpp) or for the whole run (`default-mpp` in [run], or `--set run.default-mpp=0.5`); `weir inspect` takes it as `--mpp`",
            )
        })
    }
}

/// A picture in memory: interleaved RGB, `height * width * 3` bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    /// px.
    pub width: u32,
    /// px.
    pub height: u32,
    /// Interleaved RGB, [height, width, 3].
    pub pixels: Vec<u8>,
    /// Where native tiles could not be read; those pixels are mid-grey. Only thumbnails have such places, since a picture of a
    /// slide with a bad tile is better than none; tiles never do.
    pub unread: Vec<Region>,
}

/// A native tile as it stands in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawTile {
    /// Its bytes. A JPEG stands alone: the tables that its level shares are put in.
    pub bytes: Vec<u8>,
    /// How they are written, as `JPEG, YCbCr`.
    pub encoding: String,
}

/// The tile shape that all reads of a slide go through; shared by all threads.
pub trait SlideReader: Send + Sync {
    /// What was found when the slide was opened.
    fn facts(&self) -> &Facts;

    /// Fills `into` (interleaved RGB, `width * height * 3` bytes) with `region` resampled to `width` x `height` px.
    ///
    /// The coarsest level whose resolution reaches the target's within 0.1 % is read. Where it equals the target's, pixels
    /// are copied from the nearest whole pixel on; else each output pixel is the mean over its own area (finer than level 0:
    /// linear interpolation). What lies outside the slide is white; a region wholly outside, and any damaged or missing
    /// native tile that the region touches, is an error, and `into` then holds nothing of use.
    ///
    /// `rev` is the revision of the pixels; a file has one, 0, and ignores it.
    fn read(
        &self,
        region: Region,
        rev: u32,
        width: u32,
        height: u32,
        into: &mut [u8],
    ) -> Result<(), SlideError>;

    /// The native tile at `column`, `row` of `level` as it stands in the file.
    fn tile_raw(&self, level: usize, column: u32, row: u32) -> Result<RawTile, SlideError>;

    /// A fresh handle on the same slide, for readers whose handle a bad tile can spoil.
    fn reopen(&self) -> Result<Arc<dyn SlideReader>, SlideError>;

    /// The whole slide in at most `max_side` px a side. Streamed: native tiles pass one by one, whatever the slide's size.
    /// Fails only when no native tile can be read; see [`Picture::unread`].
    fn thumbnail(&self, max_side: u32) -> Result<Picture, SlideError>;

    /// The picture called `name` in [`Facts::associated`].
    fn associated(&self, name: &str) -> Result<Picture, SlideError>;
}
