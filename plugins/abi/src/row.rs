//! Keys, rows, slides.

use crate::Str;

/// `weir_key`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Key {
    /// A number within this run.
    pub slide: u64,
    /// A word whose order breaks ties.
    pub tile: u64,
    /// Number of the generation.
    pub rev: u32,
    /// Of a selected tile: the revision of its pixels.
    pub source: u32,
}

/// `WEIR_TILE_SLIDE`: the word of what speaks of a slide as a whole.
pub const TILE_SLIDE: u64 = u64::MAX;

/// `weir_row`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Row {
    /// Which version.
    pub key: Key,
    /// Left edge, level-0 px.
    pub x: i64,
    /// Top edge, level-0 px.
    pub y: i64,
    /// Side of what the tile covers, level-0 px.
    pub footprint: f64,
    /// um/px of its pixels; 0: not known.
    pub mpp: f64,
    /// Place in [`Batch::slides`](crate::column::Batch::slides).
    pub slide: u32,
    /// Zero.
    pub reserved: u32,
}

/// `weir_slide`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Slide {
    /// Bytes of this struct that exist.
    pub struct_size: u32,
    /// Zero.
    pub reserved: u32,
    /// [`Key::slide`] of its rows.
    pub number: u64,
    /// The same in every run.
    pub seed: u64,
    /// Unique in a run.
    pub id: Str,
    /// As the user wrote it.
    pub path: Str,
    /// Of the manifest.
    pub patient: Str,
    /// Of the manifest.
    pub label: Str,
    /// Of the manifest.
    pub split: Str,
    /// Level-0 px.
    pub width: i64,
    /// Level-0 px.
    pub height: i64,
    /// um/px of level 0.
    pub mpp_x: f64,
    /// um/px of level 0.
    pub mpp_y: f64,
    /// Tiles that the source sends, so far.
    pub tiles: u64,
    /// Side of a tile's footprint, level-0 px.
    pub tile_footprint: f64,
    /// um/px of a tile's pixels.
    pub tile_mpp: f64,
    /// Side of a tile, px.
    pub tile_px: u32,
    /// Zero.
    pub tile_reserved: u32,
}
