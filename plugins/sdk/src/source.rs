//! Sources: they open slides and send their tiles.

use crate::abi;
use crate::call::Call;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::row::Row;
use std::ffi::c_void;

/// Opens slides. `slide` is asked from 0 on until it says that there is none.
pub trait Source: Send + Sync + 'static {
    /// An open slide.
    type Slide: SourceSlide;

    /// As [`Map::start`](crate::Map::start).
    ///
    /// # Errors
    /// As there.
    fn start(&mut self, _call: &Call) -> Result<()> {
        Ok(())
    }

    /// As [`Map::size`](crate::Map::size).
    fn size(&self, _port: &str, _symbol: &str) -> Option<u64> {
        None
    }

    /// Slide number `i`: its id and path at least; `None` behind the last.
    ///
    /// # Errors
    /// The run does not start.
    fn slide(&self, i: u64, call: &Call) -> Result<Option<SlideInfo>>;

    /// Opens slide number `i`, and says the rest of it. May take its time.
    ///
    /// # Errors
    /// This slide fails; the others go on.
    fn open(&self, i: u64, waker: Waker, call: &Call) -> Result<(SlideInfo, Self::Slide)>;
}

/// A slide that a source opened. Dropped when nothing of it is used any more.
pub trait SourceSlide: Send + Sync + 'static {
    /// What comes next; returns at once. One call at a time, maybe while tiles are read.
    ///
    /// # Errors
    /// The slide fails.
    fn next(&self, call: &Call) -> Result<Step>;

    /// Fills `into` with the tile's pixels or features, all of it. Several at once.
    ///
    /// # Errors
    /// The tile is a failed tile.
    fn read(&self, row: &Row, into: Buffer, call: &Call) -> Result<()>;
}

/// What a source says of a slide. Texts may be empty; numbers that nobody knows are 0.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SlideInfo {
    /// Unique in a run: the name in a manifest, else the file's stem.
    pub id: String,
    /// As the user wrote it.
    pub path: String,
    /// Of a manifest.
    pub patient: String,
    /// Of a manifest.
    pub label: String,
    /// Of a manifest.
    pub split: String,
    /// Width and height of level 0, px.
    pub size: (u64, u64),
    /// um/px of level 0 along x and y.
    pub mpp: Option<(f64, f64)>,
    /// Tiles that it will send, so far as is known.
    pub tiles: u64,
    /// Side of a tile's footprint, level-0 px.
    pub tile_footprint: f64,
    /// um/px of a tile's pixels.
    pub tile_mpp: f64,
    /// Side of a tile, px.
    pub tile_px: u32,
}

impl SlideInfo {
    /// Writes what is known over what the host set.
    ///
    /// # Safety
    /// `out` points to a slide of ABI 1.0 or later; the texts are used as long as `self` lives and does not change.
    pub(crate) unsafe fn write(&self, out: *mut abi::row::Slide) {
        let px = |it: u64| i64::try_from(it).unwrap_or(i64::MAX);
        let (mpp_x, mpp_y) = self.mpp.unwrap_or_default();
        // SAFETY: the caller's; a host of 1.0 has all of these members.
        unsafe {
            (*out).id = abi::Str::new(&self.id);
            (*out).path = abi::Str::new(&self.path);
            (*out).patient = abi::Str::new(&self.patient);
            (*out).label = abi::Str::new(&self.label);
            (*out).split = abi::Str::new(&self.split);
            (*out).width = px(self.size.0);
            (*out).height = px(self.size.1);
            (*out).mpp_x = mpp_x;
            (*out).mpp_y = mpp_y;
            (*out).tiles = self.tiles;
            (*out).tile_footprint = self.tile_footprint;
            (*out).tile_mpp = self.tile_mpp;
            (*out).tile_px = self.tile_px;
        }
    }
}

/// A tile that a source speaks of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tile {
    /// Left edge, level-0 px; may be negative.
    pub x: i64,
    /// Top edge, level-0 px; may be negative.
    pub y: i64,
    /// px; of features, the vector's width.
    pub width: u32,
    /// px; of features, 1.
    pub height: u32,
}

/// What a source does next of a slide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A tile that `read` will fill: new, or with other content than before.
    Tile(Tile),
    /// The tile is withdrawn.
    Gone(Tile),
    /// The tile cannot be had.
    Fail(Tile, Error),
    /// What was sent since the last one belongs together.
    Close,
    /// Nothing yet; the host asks again soon, or once the [`Waker`] says so.
    Idle,
    /// The slide is complete.
    End,
}

/// Tells the host that a slide's `next` has something again. From any thread, while the slide is open. Hosts of 1.0 ask again by
/// themselves, and this does nothing there.
#[derive(Clone, Copy)]
pub struct Waker {
    host: Host,
    key: *mut c_void,
}

// SAFETY: any thread may wake; the key is only handed back.
unsafe impl Send for Waker {}
// SAFETY: as above.
unsafe impl Sync for Waker {}

impl Waker {
    pub(crate) fn new(host: Host, key: *mut c_void) -> Waker {
        Waker { host, key }
    }

    /// `next` has something again.
    pub fn wake(&self) {
        if let Some(wake) = self.host.table().wake {
            // SAFETY: the host keeps the key as long as the slide is open.
            unsafe { wake(self.key) }
        }
    }
}

/// The host's memory for a tile's content.
pub struct Buffer<'a>(&'a mut [u8]);

impl<'a> Buffer<'a> {
    pub(crate) fn new(bytes: &'a mut [u8]) -> Buffer<'a> {
        Buffer(bytes)
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is nothing to fill.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Interleaved RGB, row-major.
    pub fn pixels(self) -> &'a mut [u8] {
        self.0
    }

    /// A feature vector.
    ///
    /// # Errors
    /// When the memory is none of f32.
    pub fn features(self) -> Result<&'a mut [f32]> {
        // SAFETY: any four bytes are an f32.
        let (before, numbers, after) = unsafe { self.0.align_to_mut::<f32>() };
        if before.is_empty() && after.is_empty() {
            return Ok(numbers);
        }
        Err(Error::new("the host's memory is not that of f32 numbers"))
    }
}
