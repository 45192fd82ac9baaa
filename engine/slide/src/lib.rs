//! Slides: one reader trait, the native reader of the tiled-TIFF family, resolutions, tiles, tissue, inputs.
//!
//! | module | what it knows |
//! |---|---|
//! | [`reader`] | [`SlideReader`], the one door to pixels, and [`Facts`] |
//! | [`open`](mod@open) | from a path to a reader, and what is refused before memory is asked for |
//! | [`opener`] | readers of further formats, asked where the native one declines |
//! | [`leveled`] | from levels and their pixels to the whole [`SlideReader`] |
//! | [`tiling`] | where tiles lie at an exact resolution, and in which order they are read |
//! | [`mpp`] | how large a pixel is, and who says so |
//! | [`tissue`] | which tiles hold tissue |
//! | [`input`] | paths, folders, patterns and manifests to a sorted list of slides |
//! | [`error`] | what is wrong, where, why, and what to do |
//!
//! The native reader takes Aperio SVS, tiled TIFF and BigTIFF with or without pyramid, and OME-TIFF with SubIFDs; tiles or
//! strips; JPEG, Aperio's JPEG 2000, Deflate, LZW, ZSTD or uncompressed; 8-bit gray, RGB, RGBA and YCbCr. Everything else is
//! refused with what it is and what to do.
//!
//! Three rules hold everywhere:
//! * **Pixels are never invented.** A native tile that is damaged, missing or empty is an error with its place.
//! * **Nothing in a file is believed** before it is checked: offsets against the file's length, sizes against [`Limits`], a
//!   codec's header against the tile's size.
//! * **Coordinates are level-0 pixels**, from the top left.

pub mod error;
pub mod input;
pub mod leveled;
pub mod mpp;
mod native;
pub mod open;
pub mod opener;
pub mod reader;
mod resample;
mod sample;
mod tiff;
pub mod tiling;
pub mod tissue;

pub use error::{Fault, Place, SlideError};
pub use input::{InputError, SlideEntry, slide_key};
pub use native::cache::TileCache;
pub use open::{Limits, OpenOptions, open, open_and_tell, sniff};
pub use opener::{Asked, Choice, Opener, Openers};
pub use reader::{Associated, Facts, Level, Picture, RawTile, Region, SlideReader};
pub use tiling::{Edge, Tiling};
pub use tissue::TissueMask;
