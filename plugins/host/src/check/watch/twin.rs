//! A batch that is shown in the place of the host's: the same rows, each between fences.

use crate::check::fence::Fence;
use crate::columns::row_bytes;
use std::ffi::c_void;
use weir_abi::column::{Batch, Column};

/// Bytes to which a row is aligned when it is no shorter.
const ALIGN: usize = 16;

/// The host's batch, shown otherwise.
pub(super) struct Twin {
    head: Batch,
    columns: Vec<Column>,
    /// Per column: where each row is.
    _rows: Vec<Vec<*mut c_void>>,
    fences: Vec<Vec<Fence>>,
    /// The host's.
    pub of: *const Batch,
}

// SAFETY: what it points to is its own, or the host's batch, which any thread may read.
unsafe impl Send for Twin {}

impl Twin {
    /// The batch with each row between fences; its content copied where somebody has written it.
    ///
    /// # Safety
    /// A batch of the host's.
    pub unsafe fn fenced(of: *const Batch, copy: bool) -> Result<Box<Twin>, String> {
        // SAFETY: the caller's.
        let (head, columns) = unsafe { parts(of) };
        let n = head.n_rows as usize;
        let mut own = Vec::with_capacity(columns.len());
        let (mut all, mut fences) = (Vec::new(), Vec::new());
        for column in columns {
            // SAFETY: the caller's: lists are as long as they say.
            let rows = unsafe { std::slice::from_raw_parts(column.rows, n) };
            let mut fenced = Vec::with_capacity(n);
            for (row, &from) in rows.iter().enumerate() {
                // SAFETY: the caller's.
                let bytes = unsafe { bytes(column, row) }?;
                let align = if bytes < ALIGN {
                    column.dtype.bytes().max(1)
                } else {
                    ALIGN
                };
                let mut fence = Fence::new(bytes, align)?;
                if copy && bytes > 0 {
                    // SAFETY: the row has that many bytes, and the fence is nobody else's yet.
                    unsafe {
                        let into = fence.bytes_mut().as_mut_ptr();
                        std::ptr::copy_nonoverlapping(from.cast_const().cast(), into, bytes);
                    }
                }
                fenced.push(fence);
            }
            let rows: Vec<*mut c_void> = fenced.iter().map(Fence::start).collect();
            own.push(Column {
                rows: rows.as_ptr(),
                pitch: 0,
                ..*column
            });
            all.push(rows);
            fences.push(fenced);
        }
        Ok(Twin::boxed(of, *head, own, all, fences))
    }

    /// The batch without its rows: its columns lead nowhere.
    ///
    /// # Safety
    /// A batch of the host's.
    pub unsafe fn emptied(of: *const Batch) -> Result<Box<Twin>, String> {
        // SAFETY: the caller's.
        let (head, columns) = unsafe { parts(of) };
        let nothing = Fence::new(0, ALIGN)?;
        let rows = nothing.start().cast_const().cast();
        let own = columns.iter().map(|column| Column {
            rows,
            pitch: 0,
            ..*column
        });
        let head = Batch {
            n_rows: 0,
            n_slides: 0,
            ..*head
        };
        let own = own.collect();
        Ok(Twin::boxed(of, head, own, Vec::new(), vec![vec![nothing]]))
    }

    fn boxed(
        of: *const Batch,
        head: Batch,
        columns: Vec<Column>,
        rows: Vec<Vec<*mut c_void>>,
        fences: Vec<Vec<Fence>>,
    ) -> Box<Twin> {
        let head = Batch {
            columns: columns.as_ptr(),
            ..head
        };
        Box::new(Twin {
            head,
            columns,
            _rows: rows,
            fences,
            of,
        })
    }

    /// As the plugin knows it.
    pub fn as_ptr(&self) -> *const Batch {
        &raw const self.head
    }

    /// Whether nothing was written beside its rows.
    pub fn is_whole(&self) -> bool {
        self.fences.iter().flatten().all(Fence::is_whole)
    }

    /// Copies what was written to its rows into the host's.
    ///
    /// # Safety
    /// The host's batch may be written, and nobody writes to the rows meanwhile.
    pub unsafe fn write_back(&self) {
        // SAFETY: the caller's.
        let (_, columns) = unsafe { parts(self.of) };
        for (column, fences) in columns.iter().zip(&self.fences) {
            for (row, fence) in fences.iter().enumerate() {
                // SAFETY: the caller's; both rows have as many bytes.
                unsafe {
                    let bytes = fence.bytes();
                    let into = (*column.rows.add(row)).cast::<u8>();
                    std::ptr::copy_nonoverlapping(bytes.as_ptr(), into, bytes.len());
                }
            }
        }
    }

    /// Names of the columns, for messages.
    pub fn names(&self) -> String {
        let names = self.columns.iter().map(|column| {
            // SAFETY: the host's own text.
            String::from_utf8_lossy(unsafe { column.name.bytes() }).into_owned()
        });
        names.collect::<Vec<_>>().join(", ")
    }
}

/// # Safety
/// A batch of the host's.
pub(super) unsafe fn parts<'a>(of: *const Batch) -> (&'a Batch, &'a [Column]) {
    // SAFETY: the caller's.
    unsafe {
        let head = &*of;
        let columns = match head.n_columns {
            0 => &[],
            n => std::slice::from_raw_parts(head.columns, n as usize),
        };
        (head, columns)
    }
}

/// Bytes of a row.
///
/// # Safety
/// A column of the host's that has the row.
pub(super) unsafe fn bytes(column: &Column, row: usize) -> Result<usize, String> {
    let shape = match column.ndim {
        0 => &[],
        // SAFETY: the caller's.
        n => unsafe { std::slice::from_raw_parts(column.shape, n as usize) },
    };
    if !column.lengths.is_null() {
        // SAFETY: the caller's.
        let length = unsafe { *column.lengths.add(row) };
        return Ok(length as usize * column.dtype.bytes());
    }
    row_bytes(column.dtype, shape).ok_or_else(|| "a row has no size".to_owned())
}
