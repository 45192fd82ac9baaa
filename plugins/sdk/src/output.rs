//! Where a stage's rows go.

use crate::call::Call;
use crate::draft::Draft;
use crate::error::{Error, Result};
use crate::host::{NO_BATCH, check};

/// An output port of an open call.
#[derive(Clone, Copy)]
pub struct Output<'c> {
    call: &'c Call<'c>,
    port: u32,
}

impl<'c> Output<'c> {
    pub(crate) fn new(call: &'c Call<'c>, port: u32) -> Output<'c> {
        Output { call, port }
    }

    /// A fresh batch, whose row i is made of row `source[i]` of the input; each at most once. Of maps and filters.
    ///
    /// # Errors
    /// When the host has no memory, or `source` names a row twice or one that is not there.
    pub fn make(self, source: &[u32]) -> Result<Draft<'c>> {
        let Some(batch_new) = self.call.host().table().batch_new else {
            return Err(Error::new("the host has no batch_new()"));
        };
        // SAFETY: the call is open, and `source` has as many numbers as it says.
        let raw = unsafe {
            batch_new(
                self.call.raw(),
                self.port,
                source.len() as u32,
                source.as_ptr(),
            )
        };
        self.draft(raw)
    }

    /// A fresh batch with a row for each row of the input.
    ///
    /// # Errors
    /// When the host has no memory.
    pub fn make_all(self) -> Result<Draft<'c>> {
        let all: Vec<u32> = (0..self.call.n_rows()).collect();
        self.make(&all)
    }

    /// A fresh batch of rows of a slide, by their [`tile`](crate::Key::tile)s, or [`TILE_SLIDE`](crate::TILE_SLIDE). Of reduces.
    ///
    /// # Errors
    /// When the host has no memory, or it is not this slide's turn.
    pub fn make_for(self, slide: u64, tiles: &[u64]) -> Result<Draft<'c>> {
        let Some(batch_for) = self.call.host().table().batch_for else {
            return Err(Error::new("the host has no batch_for()"));
        };
        // SAFETY: the call is open, and `tiles` has as many numbers as it says.
        let raw = unsafe {
            batch_for(
                self.call.raw(),
                self.port,
                slide,
                tiles.len() as u32,
                tiles.as_ptr(),
            )
        };
        self.draft(raw)
    }

    /// A copy of the input, to be changed. The output must be of the input's type.
    ///
    /// # Errors
    /// When the host has no memory.
    pub fn edit(self) -> Result<Draft<'c>> {
        let Some(batch_edit) = self.call.host().table().batch_edit else {
            return Err(Error::new("the host has no batch_edit()"));
        };
        // SAFETY: the call is open.
        let raw = unsafe { batch_edit(self.call.raw(), self.port) };
        self.draft(raw)
    }

    fn draft(self, raw: *mut crate::abi::column::Batch) -> Result<Draft<'c>> {
        if raw.is_null() {
            return Err(Error::memory(NO_BATCH));
        }
        // SAFETY: the host gave its only reference.
        Ok(unsafe { Draft::new(raw, self.call, self.port) })
    }

    /// Hands rows of the input on as they are, without a copy. The output must be of the input's type.
    ///
    /// # Errors
    /// When the host refuses.
    pub fn pass(self, rows: &[u32]) -> Result<()> {
        let Some(pass) = self.call.host().table().pass else {
            return Err(Error::new("the host has no pass()"));
        };
        // SAFETY: the call is open, and `rows` has as many numbers as it says.
        let status = unsafe { pass(self.call.raw(), self.port, rows.as_ptr(), rows.len() as u32) };
        check(status, "rows")
    }

    /// Hands all rows of the input on as they are.
    ///
    /// # Errors
    /// When the host refuses.
    pub fn pass_all(self) -> Result<()> {
        let all: Vec<u32> = (0..self.call.n_rows()).collect();
        self.pass(&all)
    }

    /// A row of a table port, made of row `source` of the input; of a reduce `None`, and the row is the slide's. Copied.
    ///
    /// # Errors
    /// When the host refuses.
    pub fn table(self, source: Option<usize>, bytes: &[u8]) -> Result<()> {
        let Some(table) = self.call.host().table().table else {
            return Err(Error::new("the host has no table()"));
        };
        let source = source.map_or(u32::MAX, |row| row as u32);
        // SAFETY: the call is open, and the bytes are there; the host copies them.
        let status = unsafe {
            table(
                self.call.raw(),
                self.port,
                source,
                bytes.as_ptr().cast(),
                bytes.len(),
            )
        };
        check(status, "a table")
    }
}
