//! From a path to a reader.

use crate::native::NativeSlide;
use crate::native::cache::TileCache;
use crate::opener::{Choice, Openers};
use crate::tiff::is_tiff;
use crate::{Fault, SlideError, SlideReader};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use weir_record::Budget;

/// What is refused before memory is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest side of a level, px. [`TileId`](weir_record::TileId) cannot say more than 15.7 million.
    pub max_side: u32,
    /// Largest native tile or strip, decoded, bytes.
    pub max_tile_bytes: u64,
    /// Largest native tile or strip as it stands in the file, bytes.
    pub max_encoded_bytes: u64,
    /// Largest label, macro or thumbnail, decoded, bytes.
    pub max_picture_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_side: 15_000_000,
            max_tile_bytes: 64 << 20,
            max_encoded_bytes: 64 << 20,
            max_picture_bytes: 512 << 20,
        }
    }
}

/// How a slide is opened.
#[derive(Clone, Default)]
pub struct OpenOptions {
    /// Size of a level-0 pixel, um, as given on the command line or in the manifest; it beats what the file says.
    pub mpp: Option<f64>,
    /// Size of a level-0 pixel, um, where nobody says anything.
    pub default_mpp: Option<f64>,
    /// Cache of decoded native tiles; one for all slides of a process, so that one budget holds. `None`: one of its own.
    pub cache: Option<TileCache>,
    /// What is refused.
    pub limits: Limits,
    /// Decode JPEG straight to half the size where no level fits. Faster, but such pixels differ a little from a mean of four.
    pub half_size_decode: bool,
    /// Readers of further formats, asked where the native reader declines.
    pub openers: Openers,
    /// How long one call into a further reader may take, from the first look at a file on, before it is ended where it has a process of
    /// its own, and told of elsewhere; `None`: as long as its kind has by itself.
    pub timeout: Option<Duration>,
    /// Whom the memory is missing that such a reader shares with its process; `None`: nobody counts it.
    pub budget: Option<Budget>,
}

/// Whether the native reader takes files that begin with `head` (16 bytes are enough). Whether it can read one shows when it is
/// opened.
pub fn sniff(head: &[u8]) -> bool {
    is_tiff(head)
}

/// Opens the slide at `path`: with the native reader, and where that declines the format, with the one of
/// [`OpenOptions::openers`] that is surest of it. What the native reader knows but finds damaged is an error.
pub fn open(path: &Path, options: &OpenOptions) -> Result<Arc<dyn SlideReader>, SlideError> {
    open_and_tell(path, options).map(|(slide, _)| slide)
}

/// [`open`], with which reader took the slide and why.
pub fn open_and_tell(
    path: &Path,
    options: &OpenOptions,
) -> Result<(Arc<dyn SlideReader>, Choice), SlideError> {
    if path.is_dir() {
        return Err(SlideError::new(
            Fault::NotASlide,
            path.display().to_string(),
            "is a folder",
            "name a slide file; a folder as input stands for the slides in it",
        ));
    }
    match NativeSlide::open(path, options) {
        Ok(slide) => {
            let choice = Choice {
                reader: "native".into(),
                native: None,
                asked: Vec::new(),
            };
            Ok((Arc::new(slide), choice))
        }
        Err(error) if error.declines() && path.is_file() => {
            options.openers.open(path, options, error)
        }
        Err(error) => Err(error),
    }
}

/// Whether the file at `path` begins as a slide does that this version reads.
pub(crate) fn begins_as_slide(path: &Path) -> bool {
    let mut head = Vec::with_capacity(16);
    File::open(path)
        .and_then(|file| file.take(16).read_to_end(&mut head))
        .is_ok_and(|_| sniff(&head))
}
