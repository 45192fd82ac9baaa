//! Sources: they open slides, say what comes of them, and read its pixels.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use weir_record::{Body, Event, Failure, Seal, SlideId, SlideInfo, SlideKey, TileId};

/// Opens slides and sends their versions.
///
/// The slide's worker asks the [`Script`] what comes next; leases are taken there; pixels are read on reader threads and
/// arrive in any order.
pub trait Source: Send + Sync {
    /// The slides, sorted by id. Number n lives in process n mod P.
    fn slides(&self) -> &[SlideRef];

    /// Opens a slide; on a reader thread, so it may take its time. A failure ends that slide only.
    fn open(&self, slide: &SlideRef) -> Result<OpenedSlide, Failure>;
}

/// A slide before it is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlideRef {
    /// The name in the manifest, else the file's stem.
    pub id: String,
    /// Digest of `id`.
    pub key: SlideKey,
    /// As the user wrote it.
    pub path: String,
}

/// An open slide.
pub struct OpenedSlide {
    /// What is known of it; sent ahead of everything else.
    pub info: Arc<SlideInfo>,
    /// What to send, in order.
    pub script: Box<dyn Script>,
    /// Reads pixels.
    pub reader: Arc<dyn TileReader>,
}

/// What a source sends of one slide, in order. Revisions are the script's affair:
/// a batch source sends each tile once at rev 0; others use [`Generations`](weir_record::Generations).
pub trait Script: Send {
    /// The next step. Called on the worker, so it returns at once; when nothing is known yet it says [`Step::Wait`].
    fn next(&mut self) -> Step;

    /// The run is being stopped: from now on no [`Step::Tile`] or [`Step::Feature`], only the steps that end the slide as
    /// [`End::Aborted`](weir_record::End::Aborted): an outcome for every version that a seal already speaks of, then the seals.
    fn stop(&mut self);
}

/// What a source does next.
#[derive(Clone, Debug)]
pub enum Step {
    /// Read this version's pixels and send them.
    Tile {
        /// The tile.
        tile: TileId,
        /// Its revision.
        rev: u32,
        /// Width of its pixels.
        width: u32,
        /// Height of its pixels.
        height: u32,
    },
    /// Read this version's feature vector and send it.
    Feature {
        /// The tile.
        tile: TileId,
        /// Its revision.
        rev: u32,
        /// Numbers of the vector.
        width: u32,
    },
    /// Send this outcome as it is: Gone, Skip or Fail.
    Outcome {
        /// The tile.
        tile: TileId,
        /// Its revision.
        rev: u32,
        /// Gone, Skip or Fail.
        body: Body,
    },
    /// Send a seal. It may come before the versions that it counts.
    Seal {
        /// The generation.
        rev: u32,
        /// Number and check of its versions.
        seal: Seal,
    },
    /// Send news.
    Event(Event),
    /// Nothing yet: ask again after this time.
    Wait(Duration),
    /// Nothing more, ever.
    Done,
}

/// Reads a slide's pixels, or its features; shared by the reader threads and by tile-fetch.
pub trait TileReader: Send + Sync {
    /// Fills `into` (interleaved RGB, `width * height * 3` bytes of the step) with the tile's pixels as of `rev`.
    /// Everything is written or an error is returned; pixels are never invented.
    fn read(&self, tile: TileId, rev: u32, into: &mut [u8]) -> Result<(), ReadError>;

    /// Fills `into` with the tile's feature vector as of `rev`, for sources that send [`Step::Feature`]. Every number is
    /// finite, or an error is returned.
    fn feature(&self, _tile: TileId, _rev: u32, _into: &mut [f32]) -> Result<(), ReadError> {
        Err(ReadError::Damaged("this source has no features".into()))
    }

    /// The whole slide in at most `max_side` px a side, for pictures; streamed, never a whole level in memory.
    fn overview(&self, _max_side: u32) -> Result<Overview, ReadError> {
        Err(ReadError::Damaged(
            "this source has no overview of its slides".into(),
        ))
    }
}

/// A small picture of a whole slide.
#[derive(Clone, Debug, PartialEq)]
pub struct Overview {
    /// px.
    pub width: u32,
    /// px.
    pub height: u32,
    /// Interleaved RGB.
    pub pixels: Vec<u8>,
}

/// The slides that are open in this process, so that tile-fetch and sinks reach the pixels that the source reads from.
/// One for the process, in [`Shared`](super::Shared); the source operator enters a slide before its first row and takes it out when every
/// sink is done with it.
#[derive(Default)]
pub struct OpenSlides(Mutex<HashMap<SlideId, Arc<dyn TileReader>>>);

impl OpenSlides {
    /// The reader of an open slide.
    pub fn get(&self, slide: SlideId) -> Option<Arc<dyn TileReader>> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&slide)
            .cloned()
    }

    /// Enters a slide.
    pub fn enter(&self, slide: SlideId, reader: Arc<dyn TileReader>) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(slide, reader);
    }

    /// Takes a slide out.
    pub fn leave(&self, slide: SlideId) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&slide);
    }
}

/// Why a tile could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// The store no longer has that revision.
    Superseded,
    /// Damaged, or unreadable: what, with the place in the file.
    Damaged(String),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::Superseded => f.write_str("that revision is no longer stored"),
            ReadError::Damaged(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for ReadError {}
