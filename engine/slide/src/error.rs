//! What can be wrong with a slide, said with the place and the remedy.

use std::fmt;

/// Which kind of fault, for those who act on it; the text says the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The operating system refused: no such file, no permission, a read that failed.
    Io,
    /// No slide that this reader knows.
    NotASlide,
    /// A slide, but written in a way that this version does not read.
    Unsupported,
    /// A slide that any reader would show wrongly: turned, or with channels in pages of their own. No other reader is asked.
    Unfit,
    /// The file contradicts itself or the standard: truncated, overwritten, lost.
    Damaged,
    /// Larger than the limits allow.
    TooLarge,
    /// Something that must be known is not said anywhere, as the size of a pixel.
    Missing,
    /// What the caller asked for cannot be.
    Request,
}

/// Where in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Number of the image file directory (TIFF 6.0 section 2) in the order of reading, from 0.
    pub ifd: Option<usize>,
    /// Level of the pyramid, from 0.
    pub level: Option<usize>,
    /// Native tile or strip, row-major, from 0.
    pub tile: Option<u64>,
    /// Column and row of that tile.
    pub cell: Option<(u32, u32)>,
    /// Byte offset from the start of the file.
    pub offset: Option<u64>,
}

/// Why a slide, or a part of it, cannot be had.
///
/// Its `Display` says what is wrong, where, why, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlideError {
    /// Kind of fault.
    pub fault: Fault,
    /// The file, as it was named.
    pub path: String,
    /// Where in the file.
    pub place: Box<Place>,
    /// What is wrong and why.
    pub what: String,
    /// What to do about it; empty when nothing helps.
    pub help: String,
}

impl SlideError {
    /// A fault in the file `path`.
    pub fn new(
        fault: Fault,
        path: impl Into<String>,
        what: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        SlideError {
            fault,
            path: path.into(),
            place: Box::default(),
            what: what.into(),
            help: help.into(),
        }
    }

    /// Whether it says that the file is another reader's affair; damage is not.
    pub fn declines(&self) -> bool {
        matches!(self.fault, Fault::NotASlide | Fault::Unsupported)
    }

    /// The same with a place.
    pub fn at(mut self, place: Place) -> Self {
        *self.place = place;
        self
    }

    /// What and where, without the path and the remedy: for a failure that names its slide and has a field for the remedy.
    pub fn what_and_where(&self) -> String {
        let place = self.place.to_string();
        if place.is_empty() {
            self.what.clone()
        } else {
            format!("{} ({place})", self.what)
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if let Some(level) = self.level {
            parts.push(format!("level {level}"));
        }
        if let Some(tile) = self.tile {
            parts.push(match self.cell {
                Some((column, row)) => format!("tile {tile} at column {column}, row {row}"),
                None => format!("tile {tile}"),
            });
        }
        if let Some(ifd) = self.ifd {
            parts.push(format!("IFD {ifd}"));
        }
        if let Some(offset) = self.offset {
            parts.push(format!("byte offset {offset}"));
        }
        f.write_str(&parts.join(", "))
    }
}

impl fmt::Display for SlideError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.what_and_where())?;
        if !self.help.is_empty() {
            write!(f, "; {}", self.help)?;
        }
        Ok(())
    }
}

impl std::error::Error for SlideError {}
