//! The native reader of the tiled-TIFF family.
//!
//! | module | what it knows |
//! |---|---|
//! | `page` | how the pixels of one directory are laid out: tiles or strips, compression, colour |
//! | `family` | which directories are levels and which are label, macro, thumbnail; vendor keys |
//! | `makers` | files that only look like a pyramid, which are declined |
//! | `decode` | the bytes of one native tile to RGB, strictly |
//! | `jpeg`, `jpeg2000` | those two codecs |
//! | `cache` | decoded native tiles, each decoded once where the budget allows |
//! | `slide` | the [`SlideReader`](crate::SlideReader) over all of it |

pub(crate) mod cache;
mod decode;
mod family;
mod jpeg;
mod jpeg2000;
mod makers;
mod ome;
mod page;
mod slide;

pub(crate) use slide::NativeSlide;
