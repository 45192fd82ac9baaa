//! What comes in: batches of the host's memory.

use crate::abi;
use crate::abi::column::{CPU, Dtype, PINNED};
use crate::error::{Error, Result};
use crate::host::{Host, slice, text};
use crate::row::{Row, Slide};
use std::ffi::c_void;
use std::marker::PhantomData;

/// Rows of one port; they mix slides. It is the host's memory, and nobody changes it.
#[derive(Clone, Copy)]
pub struct Batch<'a> {
    raw: &'a abi::column::Batch,
    host: Host,
}

// SAFETY: a batch that was handed over is immutable, and its references are counted by functions that any thread may call.
unsafe impl Send for Batch<'_> {}
// SAFETY: as above.
unsafe impl Sync for Batch<'_> {}

impl<'a> Batch<'a> {
    /// # Safety
    /// `raw` points to a batch of `host` that lives and does not change for `'a`.
    pub(crate) unsafe fn new(raw: *const abi::column::Batch, host: Host) -> Batch<'a> {
        Batch {
            // SAFETY: the caller's.
            raw: unsafe { &*raw },
            host,
        }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.raw.n_rows as usize
    }

    /// Whether it has no rows.
    pub fn is_empty(&self) -> bool {
        self.raw.n_rows == 0
    }

    /// Which version each row is, and where it lies.
    pub fn rows(&self) -> &'a [Row] {
        // SAFETY: a batch has `n_rows` rows.
        unsafe { slice(self.raw.rows, self.raw.n_rows) }
    }

    /// The slide of row `i`.
    ///
    /// # Panics
    /// When there is no row `i`.
    pub fn slide(&self, i: usize) -> Slide<'a> {
        let slides = self.slides_raw();
        let place = self.rows()[i].slide as usize;
        // SAFETY: a batch's slides live as long as the batch.
        unsafe { Slide::new(slides[place]) }
    }

    /// The slides of its rows, each once.
    pub fn slides(&self) -> impl Iterator<Item = Slide<'a>> + use<'a> {
        self.slides_raw()
            .iter()
            // SAFETY: a batch's slides live as long as the batch.
            .map(|slide| unsafe { Slide::new(*slide) })
    }

    fn slides_raw(&self) -> &'a [*const abi::row::Slide] {
        // SAFETY: a batch has `n_slides` slides.
        unsafe { slice(self.raw.slides, self.raw.n_slides) }
    }

    /// The column of this name, in place.
    ///
    /// # Errors
    /// When there is none, its numbers are not `T`, it lies on a device, or its elements do not lie side by side ([`Batch::raw_column`]
    /// has such ones).
    pub fn column<T: Element>(&self, name: &str) -> Result<Column<'a, T>> {
        Column::new(self.raw_column(name)?, self.raw.n_rows)
    }

    /// The column of this name as it crossed the border: for devices and strides.
    ///
    /// # Errors
    /// When there is none.
    pub fn raw_column(&self, name: &str) -> Result<&'a abi::column::Column> {
        find(self.raw, name)
    }

    /// Names of its columns.
    pub fn columns(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        // SAFETY: a batch has `n_columns` columns, whose names live as long as the batch.
        unsafe { slice(self.raw.columns, self.raw.n_columns) }
            .iter()
            // SAFETY: as above.
            .map(|column| unsafe { text(column.name) })
    }

    /// Keeps it beyond the call, without a copy.
    pub fn hold(&self) -> Held {
        // SAFETY: the borrowed batch lives, so there is a reference.
        unsafe { self.host.retain(self.raw) };
        Held {
            raw: self.raw,
            host: self.host,
        }
    }

    /// As it crossed the border.
    pub fn raw(&self) -> &'a abi::column::Batch {
        self.raw
    }
}

/// The column of this name.
pub(crate) fn find<'a>(
    batch: &'a abi::column::Batch,
    name: &str,
) -> Result<&'a abi::column::Column> {
    // SAFETY: a batch has `n_columns` columns.
    let columns = unsafe { slice(batch.columns, batch.n_columns) };
    columns
        .iter()
        // SAFETY: a column's name lives as long as its batch.
        .find(|column| unsafe { text(column.name) } == name)
        .ok_or_else(|| {
            let known: Vec<&str> = columns
                .iter()
                // SAFETY: as above.
                .map(|column| unsafe { text(column.name) })
                .collect();
            Error::new(format!(
                "the batch has no column `{name}`: it has {}",
                known.join(", ")
            ))
        })
}

/// A batch that was kept; dropping it gives it back.
pub struct Held {
    raw: *const abi::column::Batch,
    host: Host,
}

// SAFETY: as for `Batch`.
unsafe impl Send for Held {}
// SAFETY: as for `Batch`.
unsafe impl Sync for Held {}

impl Held {
    /// The batch.
    pub fn batch(&self) -> Batch<'_> {
        // SAFETY: the reference that this holds keeps it.
        unsafe { Batch::new(self.raw, self.host) }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // SAFETY: the reference of `hold`, which nobody uses any more.
        unsafe { self.host.release(self.raw) }
    }
}

/// A number that a column may hold.
///
/// # Safety
/// Every pattern of its bytes is a value, and it has the size that the dtype says.
pub unsafe trait Element: Copy + Send + Sync + 'static {
    /// As the ABI names it.
    const DTYPE: Dtype;
    /// As `f32`.
    const NAME: &'static str;
}

macro_rules! elements {
    ($($type:ident $dtype:ident),*) => {$(
        // SAFETY: a plain number of the dtype's size.
        unsafe impl Element for $type {
            const DTYPE: Dtype = Dtype::$dtype;
            const NAME: &'static str = stringify!($type);
        }
    )*};
}

elements!(u8 U8, u32 U32, u64 U64, i32 I32, i64 I64, f32 F32, f64 F64);

/// Values of a column, a slice a row.
pub struct Column<'a, T> {
    pub(crate) rows: &'a [*mut c_void],
    pub(crate) lengths: Option<&'a [u64]>,
    /// Elements of a row; where there are lengths, of a unit of them.
    pub(crate) size: usize,
    pub(crate) shape: &'a [i64],
    of: PhantomData<&'a T>,
}

impl<T> Clone for Column<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Column<'_, T> {}

// SAFETY: shared views of numbers.
unsafe impl<T: Sync> Send for Column<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Column<'_, T> {}

impl<'a, T: Element> Column<'a, T> {
    /// Looks once at everything on which `row` relies.
    pub(crate) fn new(column: &'a abi::column::Column, n_rows: u32) -> Result<Column<'a, T>> {
        // SAFETY: a column's name lives as long as its batch.
        let name = unsafe { text(column.name) };
        let refuse = |what: String| Err(Error::new(format!("column `{name}`: {what}")));
        if column.dtype != T::DTYPE {
            let Dtype { code, bits, lanes } = column.dtype;
            return refuse(format!(
                "its numbers are of dtype code {code}, {bits} bits, {lanes} lanes, not {}",
                T::NAME
            ));
        }
        if column.device.kind != CPU && column.device.kind != PINNED {
            return refuse(format!(
                "it lies on a device of kind {}, not in the processor's memory",
                column.device.kind
            ));
        }
        // SAFETY: a column has `ndim` numbers of shape, and of strides where it has strides.
        let (shape, strides) = unsafe {
            (
                slice(column.shape, column.ndim.max(0) as u32),
                slice(column.strides, column.ndim.max(0) as u32),
            )
        };
        let (size, dense) = measure(shape, strides);
        if !dense {
            return refuse("its elements do not lie side by side".into());
        }
        let open = shape.contains(&-1);
        if open && column.lengths.is_null() {
            return refuse("its rows' lengths are missing".into());
        }
        // SAFETY: a column has a pointer a row, and a length a row where a dimension is open.
        let (rows, lengths) = unsafe {
            (
                slice(column.rows, n_rows),
                open.then(|| slice(column.lengths, n_rows)),
            )
        };
        if rows
            .iter()
            .any(|row| !row.cast::<T>().is_aligned() || (row.is_null() && size > 0 && !open))
        {
            return refuse("a row's pointer is null or not aligned".into());
        }
        Ok(Column {
            rows,
            lengths,
            size,
            shape,
            of: PhantomData,
        })
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether it has no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Shape of a row; -1 for a dimension that differs from row to row.
    pub fn shape(&self) -> &'a [i64] {
        self.shape
    }

    /// The values of row `i`, row-major.
    ///
    /// # Panics
    /// When there is no row `i`.
    pub fn row(&self, i: usize) -> &'a [T] {
        let (ptr, len) = self.place(i);
        if ptr.is_null() || len == 0 {
            return &[];
        }
        // SAFETY: `new` looked at the pointer; the host says that so many elements of this dtype are there for `'a`.
        unsafe { std::slice::from_raw_parts(ptr, len) }
    }

    /// The rows in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &'a [T]> + use<'a, T> {
        let column = *self;
        (0..self.len()).map(move |i| column.row(i))
    }

    pub(crate) fn place(&self, i: usize) -> (*mut T, usize) {
        let len = match self.lengths {
            Some(lengths) => self.size.saturating_mul(lengths[i] as usize),
            None => self.size,
        };
        (self.rows[i].cast(), len)
    }
}

/// Elements of a row without its open dimension, and whether they lie side by side.
fn measure(shape: &[i64], strides: &[i64]) -> (usize, bool) {
    let (mut size, mut dense) = (1_usize, true);
    for (i, &extent) in shape.iter().enumerate().rev() {
        if let Some(&stride) = strides.get(i) {
            dense &= extent == 1 || i64::try_from(size).is_ok_and(|size| size == stride);
        }
        // An open dimension before others would need its lengths for the strides; only the first may be open then.
        if extent >= 0 {
            size = size.saturating_mul(usize::try_from(extent).unwrap_or(usize::MAX));
        }
    }
    (size, dense)
}
