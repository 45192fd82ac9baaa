//! Batches that a plugin fills.

use crate::abi;
use crate::abi::column::WRITABLE;
use crate::batch::{Batch, Column, Element, find};
use crate::call::Call;
use crate::error::{Error, Result};
use crate::host::{check, text};
use crate::row::Row;

/// A batch of an output port, in the host's memory; filled, then [emitted](Draft::emit). Dropped, it is given back.
pub struct Draft<'c> {
    raw: *mut abi::column::Batch,
    call: &'c Call<'c>,
    port: u32,
}

// SAFETY: a batch that was not emitted is its holder's alone, and its references are counted by functions that any thread may call.
unsafe impl Send for Draft<'_> {}
// SAFETY: as above: what changes it takes `&mut`.
unsafe impl Sync for Draft<'_> {}

impl<'c> Draft<'c> {
    /// # Safety
    /// `raw` is a batch of this call's host of which the caller has the only reference.
    pub(crate) unsafe fn new(
        raw: *mut abi::column::Batch,
        call: &'c Call<'c>,
        port: u32,
    ) -> Draft<'c> {
        Draft { raw, call, port }
    }

    fn batch(&self) -> &abi::column::Batch {
        // SAFETY: the reference that this has keeps it.
        unsafe { &*self.raw }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.batch().n_rows as usize
    }

    /// Whether it has no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Which version each row is, and where it lies.
    pub fn rows(&self) -> &[Row] {
        // SAFETY: the reference that this has keeps it.
        unsafe { Batch::new(self.raw, self.call.host()) }.rows()
    }

    /// The column of this name, to be read.
    ///
    /// # Errors
    /// As [`Batch::column`].
    pub fn column<T: Element>(&self, name: &str) -> Result<Column<'_, T>> {
        Column::new(find(self.batch(), name)?, self.batch().n_rows)
    }

    /// The column of this name, to be written. Of a fresh batch the content is undefined.
    ///
    /// # Errors
    /// As [`Batch::column`], and when it is not this plugin's to write.
    pub fn column_mut<T: Element>(&mut self, name: &str) -> Result<ColumnMut<'_, T>> {
        let column = find(self.batch(), name)?;
        if column.flags & WRITABLE == 0 {
            return Err(Error::new(format!("column `{name}` may not be written to")));
        }
        Ok(ColumnMut(Column::new(column, self.batch().n_rows)?))
    }

    /// Copies `values` into row `i` of the column, all of them.
    ///
    /// # Errors
    /// As [`Draft::column_mut`], when there is no such row, and when it has another number of elements.
    pub fn set<T: Element>(&mut self, name: &str, i: usize, values: &[T]) -> Result<()> {
        let mut column = self.column_mut::<T>(name)?;
        if i >= column.len() {
            return Err(Error::new(format!(
                "column `{name}` has {} rows, so no row {i}",
                column.len()
            )));
        }
        let row = column.row_mut(i);
        if row.len() != values.len() {
            return Err(Error::new(format!(
                "column `{name}` takes {} numbers a row, not {}",
                row.len(),
                values.len()
            )));
        }
        row.copy_from_slice(values);
        Ok(())
    }

    /// The columns as they crossed the border: for devices.
    pub fn raw_column(&self, name: &str) -> Result<&abi::column::Column> {
        find(self.batch(), name)
    }

    /// Names of its columns.
    pub fn columns(&self) -> Vec<&str> {
        // SAFETY: the reference that this has keeps the batch, and with it the columns and their names.
        unsafe { crate::host::slice(self.batch().columns, self.batch().n_columns) }
            .iter()
            // SAFETY: as above.
            .map(|column| unsafe { text(column.name) })
            .collect()
    }

    /// Hands it on.
    pub fn emit(self) -> Result<()> {
        let (raw, call, port) = (self.raw, self.call, self.port);
        // The host takes the reference, also on error.
        std::mem::forget(self);
        let Some(emit) = call.host().table().emit else {
            return Err(Error::new("the host has no emit()"));
        };
        // SAFETY: the call is open, and the reference is handed over.
        check(unsafe { emit(call.raw(), port, raw) }, "a batch")
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        // SAFETY: the only reference, which nobody uses any more.
        unsafe { self.call.host().release(self.raw) }
    }
}

/// Values of a column, a slice a row, to be written.
pub struct ColumnMut<'a, T>(Column<'a, T>);

impl<T: Element> ColumnMut<'_, T> {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it has no rows.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Shape of a row.
    pub fn shape(&self) -> &[i64] {
        self.0.shape()
    }

    /// Row `i`, row-major.
    ///
    /// # Panics
    /// When there is no row `i`.
    pub fn row_mut(&mut self, i: usize) -> &mut [T] {
        let (ptr, len) = self.0.place(i);
        if ptr.is_null() || len == 0 {
            return &mut [];
        }
        // SAFETY: the column is writable, so the row is its holder's alone, and `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(ptr, len) }
    }

    /// All rows at once, each exclusively: for threads.
    pub fn rows_mut(&mut self) -> impl ExactSizeIterator<Item = &mut [T]> + Send {
        let column = self.0;
        (0..column.len()).map(move |i| {
            let (ptr, len) = column.place(i);
            if ptr.is_null() || len == 0 {
                return &mut [][..];
            }
            // SAFETY: as in `row_mut`; rows of a writable column do not overlap, and each index comes once.
            unsafe { std::slice::from_raw_parts_mut(ptr, len) }
        })
    }
}
