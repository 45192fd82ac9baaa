//! TIFF 6.0 and BigTIFF as a structure of directories; no pixels.
//!
//! Everything in the file is taken for hostile: every offset and count is checked against the file's length before memory
//! is asked for, and chains of directories that turn back on themselves are refused.

mod directory;
mod source;
pub(crate) mod tags;

pub(crate) use directory::{Directory, Tiff, is_tiff};
pub(crate) use source::Source;
