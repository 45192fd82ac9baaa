//! Rows and slides.

use crate::abi;
use crate::host::text;
use std::fmt;
use std::path::Path;

/// Which version of a tile, as the host names it: to be compared and handed back, not computed with.
pub use crate::abi::row::Key;

/// A row of a batch: its [`Key`], and where the tile lies (`x`, `y`, `footprint` in level-0 px, `mpp` in um/px, 0 where not known).
pub use crate::abi::row::Row;

/// [`Key::tile`] of what speaks of a slide as a whole.
pub use crate::abi::row::TILE_SLIDE;

/// A slide, as the host knows it.
#[derive(Clone, Copy)]
pub struct Slide<'a>(&'a abi::row::Slide);

impl<'a> Slide<'a> {
    /// # Safety
    /// `slide` points to a slide of ABI 1.0 or later that lives and does not change for `'a`.
    pub(crate) unsafe fn new(slide: *const abi::row::Slide) -> Slide<'a> {
        // SAFETY: the caller's.
        Slide(unsafe { &*slide })
    }

    /// [`Key::slide`] of its rows: a number within this run.
    pub fn number(self) -> u64 {
        self.0.number
    }

    /// The same in every run: for seeds and ties.
    pub fn seed(self) -> u64 {
        self.0.seed
    }

    /// Its name, unique in a run.
    pub fn id(self) -> &'a str {
        // SAFETY: the slide's texts live as long as the slide.
        unsafe { text(self.0.id) }
    }

    /// Where it was read from, as the user wrote it.
    pub fn path(self) -> &'a Path {
        // SAFETY: as in `id`.
        Path::new(unsafe { text::<'a>(self.0.path) })
    }

    /// Of the manifest of slides, or empty.
    pub fn patient(self) -> &'a str {
        // SAFETY: as in `id`.
        unsafe { text(self.0.patient) }
    }

    /// Of the manifest of slides, or empty.
    pub fn label(self) -> &'a str {
        // SAFETY: as in `id`.
        unsafe { text(self.0.label) }
    }

    /// Of the manifest of slides, or empty.
    pub fn split(self) -> &'a str {
        // SAFETY: as in `id`.
        unsafe { text(self.0.split) }
    }

    /// Width and height of level 0, px; 0 where not known.
    pub fn size(self) -> (u64, u64) {
        let px = |it: i64| u64::try_from(it).unwrap_or(0);
        (px(self.0.width), px(self.0.height))
    }

    /// um/px of level 0 along x and y.
    pub fn mpp(self) -> Option<(f64, f64)> {
        (self.0.mpp_x > 0.0 && self.0.mpp_y > 0.0).then_some((self.0.mpp_x, self.0.mpp_y))
    }

    /// Tiles that the source sends, so far.
    pub fn tiles(self) -> u64 {
        self.0.tiles
    }

    /// Side of a tile's footprint, level-0 px; 0 where not known.
    pub fn tile_footprint(self) -> f64 {
        self.0.tile_footprint
    }

    /// um/px of a tile's pixels; 0 where not known.
    pub fn tile_mpp(self) -> f64 {
        self.0.tile_mpp
    }

    /// Side of a tile, px; 0 where not known.
    pub fn tile_px(self) -> u32 {
        self.0.tile_px
    }
}

impl fmt::Debug for Slide<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slide")
            .field("number", &self.number())
            .field("id", &self.id())
            .field("size", &self.size())
            .field("mpp", &self.mpp())
            .finish_non_exhaustive()
    }
}

/// How a slide stands when a reduce or a sink is asked for its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Everything came.
    Complete,
    /// The sender fell silent.
    Incomplete,
    /// The slide failed, or the run was stopped.
    Aborted,
    /// More may come: a live run.
    Provisional,
}

impl End {
    pub(crate) fn of(end: u32) -> End {
        match end {
            abi::stage::COMPLETE => End::Complete,
            abi::stage::INCOMPLETE => End::Incomplete,
            abi::stage::PROVISIONAL => End::Provisional,
            _ => End::Aborted,
        }
    }

    pub(crate) fn code(self) -> u32 {
        match self {
            End::Complete => abi::stage::COMPLETE,
            End::Incomplete => abi::stage::INCOMPLETE,
            End::Aborted => abi::stage::ABORTED,
            End::Provisional => abi::stage::PROVISIONAL,
        }
    }
}
