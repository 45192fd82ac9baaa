//! What came of a call.

use super::memory::{Origin, RowMemory, Spec};
use crate::abi::host::{LOG_DEBUG, LOG_ERROR, LOG_INFO, LOG_WARN};
use crate::abi::row::Row;
use crate::batch::Element;
use crate::error::Error;
use std::fmt;
use std::sync::Arc;

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// As the ABI numbers them: 1 error, 2 warn, 3 info, 4 debug.
    pub level: i32,
    /// What was said.
    pub text: String,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            LOG_ERROR => "error",
            LOG_WARN => "warn",
            LOG_INFO => "info",
            LOG_DEBUG => "debug",
            _ => "?",
        };
        write!(f, "{level}: {}", self.text)
    }
}

/// A row that came out.
pub(super) struct OutRow {
    pub port: u32,
    pub origin: Origin,
    pub row: Row,
    pub values: Vec<(Spec, Arc<RowMemory>)>,
}

/// What came of a call that kept the contract.
pub struct Done {
    pub(super) ports: Vec<String>,
    pub(super) out: Vec<OutRow>,
    pub(super) n_rows: usize,
    pub(super) skipped: Vec<(usize, String)>,
    pub(super) failed: Vec<(usize, Error)>,
}

impl Done {
    fn on<'a>(&'a self, port: &str) -> impl Iterator<Item = &'a OutRow> {
        let port = self.ports.iter().position(|it| it == port);
        self.out
            .iter()
            .filter(move |row| Some(row.port as usize) == port)
    }

    /// Number of rows that came out on `port`.
    pub fn count(&self, port: &str) -> usize {
        self.on(port).count()
    }

    /// Input rows that came out on the first output, ascending.
    pub fn kept(&self) -> Vec<usize> {
        let mut kept: Vec<usize> = self
            .out
            .iter()
            .filter(|out| out.port == 0)
            .filter_map(|out| match out.origin {
                Origin::Input(row) => Some(row as usize),
                Origin::Slide => None,
            })
            .collect();
        kept.sort_unstable();
        kept
    }

    /// Input rows that were left out, and why; those about which nothing was said, with an empty reason.
    pub fn skipped(&self) -> Vec<(usize, &str)> {
        let kept = self.kept();
        (0..self.n_rows)
            .filter(|row| !kept.contains(row) && !self.failed.iter().any(|(it, _)| it == row))
            .map(|row| {
                let said = self.skipped.iter().find(|(it, _)| *it == row);
                (row, said.map_or("", |(_, reason)| reason.as_str()))
            })
            .collect()
    }

    /// Input rows of which nothing could be made, and why.
    pub fn failed(&self) -> &[(usize, Error)] {
        &self.failed
    }

    /// Of input row `i`, what came out on `port` in `column`; `None` where nothing did, or it is of another type.
    pub fn row<T: Element>(&self, port: &str, i: usize, column: &str) -> Option<&[T]> {
        let out = self
            .on(port)
            .find(|out| out.origin == Origin::Input(i as u32))?;
        value(out, column)
    }

    /// Of each row that came out on `port`, in order, where it lies and its values in `column`.
    pub fn rows<'a, T: Element>(&'a self, port: &str, column: &str) -> Vec<(&'a Row, &'a [T])> {
        self.on(port)
            .filter_map(|out| Some((&out.row, value(out, column)?)))
            .collect()
    }

    /// Of input row `i` (or of a reduce's slide, `None`), the bytes of the table row on `port`.
    pub fn table(&self, port: &str, i: Option<usize>) -> Option<&[u8]> {
        let origin = i.map_or(Origin::Slide, |i| Origin::Input(i as u32));
        let out = self.on(port).find(|out| out.origin == origin)?;
        value(out, "bytes")
    }
}

fn value<'a, T: Element>(out: &'a OutRow, column: &str) -> Option<&'a [T]> {
    let (spec, memory) = out.values.iter().find(|(spec, _)| spec.name == column)?;
    if spec.dtype != T::DTYPE {
        return None;
    }
    let bytes = memory.bytes();
    // SAFETY: the memory is 16-byte aligned, and any bytes are a `T`.
    Some(unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len() / size_of::<T>()) })
}

impl fmt::Debug for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Done")
            .field("out", &self.out.len())
            .field("skipped", &self.skipped())
            .field("failed", &self.failed)
            .finish()
    }
}
