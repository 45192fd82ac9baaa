//! Fresh batches that hold a pattern when the plugin gets them, so that what it leaves unwritten is seen.

use super::twin::{bytes, parts};
use super::{Seen, seen};
use std::collections::{BTreeMap, BTreeSet};
use weir_abi::column::Batch;

/// A row of a column of an output: output, slide, tile, column. The same whatever batches the rows came in.
pub(in crate::check) type Place = (u32, u64, u64, usize);

/// What a row of a column still held of the pattern when it was emitted.
#[derive(Clone, Debug)]
pub(in crate::check) struct Left {
    /// In its batch.
    pub row: usize,
    /// The column's name.
    pub column: String,
    /// How many numbers a row has.
    pub numbers: usize,
    /// Those all of whose bytes are the pattern's.
    pub unwritten: BTreeSet<usize>,
}

/// What was emitted since the pattern was chosen.
pub(super) struct Filled {
    pattern: u8,
    /// Batches that were filled and not yet emitted.
    fresh: BTreeSet<usize>,
    left: BTreeMap<Place, Left>,
}

/// From now on fresh batches hold this in every byte.
pub(in crate::check) fn fill_with(pattern: u8) {
    seen().filled = Some(Filled {
        pattern,
        fresh: BTreeSet::new(),
        left: BTreeMap::new(),
    });
}

/// Ends that: what rows of fresh batches held when they were emitted.
pub(in crate::check) fn left_unwritten() -> BTreeMap<Place, Left> {
    seen()
        .filled
        .take()
        .map_or_else(BTreeMap::new, |it| it.left)
}

/// Fills a batch where that is wanted.
///
/// # Safety
/// A batch that the host has just made, and that nobody else knows yet.
pub(super) unsafe fn fill(batch: *const Batch) {
    let mut all = seen();
    let Some(filled) = &mut all.filled else {
        return;
    };
    // SAFETY: the caller's.
    let (head, columns) = unsafe { parts(batch) };
    for column in columns {
        for row in 0..head.n_rows as usize {
            // SAFETY: the column has the row, which has that many bytes.
            unsafe {
                // What has no size has nothing to fill.
                let len = bytes(column, row).unwrap_or(0);
                (*column.rows.add(row))
                    .cast::<u8>()
                    .write_bytes(filled.pattern, len);
            }
        }
    }
    filled.fresh.insert(batch as usize);
}

/// The batch is emitted: what of it is as it was filled.
///
/// # Safety
/// A batch that the plugin has and hands on now.
pub(super) unsafe fn emitted(port: u32, batch: *const Batch) {
    let mut all = seen();
    let Seen {
        filled: Some(filled),
        ..
    } = &mut *all
    else {
        return;
    };
    if !filled.fresh.remove(&(batch as usize)) {
        return;
    }
    // SAFETY: the caller's; `rows` are as many as the batch has.
    let (head, columns, rows) = unsafe {
        let (head, columns) = parts(batch);
        let rows = match head.n_rows {
            0 => &[],
            n => std::slice::from_raw_parts(head.rows, n as usize),
        };
        (head, columns, rows)
    };
    debug_assert_eq!(rows.len(), head.n_rows as usize);
    for (number, column) in columns.iter().enumerate() {
        for (row, of) in rows.iter().enumerate() {
            // SAFETY: the column has the row, which has that many bytes.
            let held = unsafe {
                let len = bytes(column, row).unwrap_or(0);
                match len {
                    0 => &[],
                    len => std::slice::from_raw_parts((*column.rows.add(row)).cast::<u8>(), len),
                }
            };
            let each = held.chunks_exact(column.dtype.bytes().max(1));
            let numbers = each.len();
            let as_filled = |number: &[u8]| number.iter().all(|&byte| byte == filled.pattern);
            let unwritten = each.enumerate().filter(|(_, number)| as_filled(number));
            let left = Left {
                row,
                // SAFETY: the host's own text.
                column: String::from_utf8_lossy(unsafe { column.name.bytes() }).into_owned(),
                numbers,
                unwritten: unwritten.map(|(at, _)| at).collect(),
            };
            let place = (port, of.key.slide, of.key.tile, number);
            filled.left.insert(place, left);
        }
    }
}
