//! Batches: their memory, and who holds them.

use super::slides::SlideBox;
use crate::abi;
use crate::abi::column::{CPU, Column, Device, Dtype, WRITABLE};
use crate::abi::row::Row;
use std::cell::UnsafeCell;
use std::ffi::c_void;
use std::sync::Arc;
use std::sync::atomic::{AtomicIsize, AtomicU32, Ordering};

/// Bytes before and behind a row by which a write beside it shows.
const MARGIN: usize = 64;
const MARK: u8 = 0xA5;

/// A row's bytes, 16-byte aligned.
pub(super) struct RowMemory {
    words: UnsafeCell<Box<[u128]>>,
    len: usize,
}

// SAFETY: only the plugin writes, through pointers, and only rows that are its alone; that it does is what is tested.
unsafe impl Send for RowMemory {}
// SAFETY: as above.
unsafe impl Sync for RowMemory {}

impl RowMemory {
    /// All bits set: a float that nobody writes is no number.
    pub fn fresh(len: usize) -> Arc<RowMemory> {
        let words = (len + 2 * MARGIN).div_ceil(16);
        let mut words = vec![u128::MAX; words].into_boxed_slice();
        let base: *mut u8 = words.as_mut_ptr().cast();
        // SAFETY: the margins lie within the words.
        unsafe {
            base.write_bytes(MARK, MARGIN);
            base.add(MARGIN + len).write_bytes(MARK, MARGIN);
        }
        Arc::new(RowMemory {
            words: UnsafeCell::new(words),
            len,
        })
    }

    pub fn copy_of(bytes: &[u8]) -> Arc<RowMemory> {
        let memory = RowMemory::fresh(bytes.len());
        // SAFETY: so many bytes are there, and nobody else has them yet.
        unsafe {
            memory
                .ptr()
                .copy_from_nonoverlapping(bytes.as_ptr(), bytes.len())
        };
        memory
    }

    fn base(&self) -> *mut u8 {
        // SAFETY: the box itself is never replaced.
        unsafe { (*self.words.get()).as_mut_ptr().cast() }
    }

    pub fn ptr(&self) -> *mut u8 {
        // SAFETY: the margin lies within the words.
        unsafe { self.base().add(MARGIN) }
    }

    pub fn bytes(&self) -> &[u8] {
        // SAFETY: so many bytes are there; a plugin that writes to them meanwhile breaks the contract.
        unsafe { std::slice::from_raw_parts(self.ptr(), self.len) }
    }

    /// Whether nobody wrote beside it.
    pub fn is_whole(&self) -> bool {
        // SAFETY: the margins lie within the words.
        let (before, after) = unsafe {
            (
                std::slice::from_raw_parts(self.base(), MARGIN),
                std::slice::from_raw_parts(self.ptr().add(self.len), MARGIN),
            )
        };
        before.iter().chain(after).all(|byte| *byte == MARK)
    }
}

/// A column's type.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Spec {
    pub name: String,
    pub dtype: Dtype,
    /// -1: as long as each row's bytes.
    pub shape: Vec<i64>,
}

impl Spec {
    pub fn new(name: &str, dtype: Dtype, shape: &[i64]) -> Spec {
        Spec {
            name: name.into(),
            dtype,
            shape: shape.into(),
        }
    }

    /// Bytes of a row, of which an open dimension counts as one.
    pub fn bytes(&self) -> usize {
        let elements: i64 = self.shape.iter().map(|extent| (*extent).abs()).product();
        elements as usize * self.dtype.bytes()
    }
}

/// A column of a batch.
#[derive(Clone)]
pub(super) struct Store {
    pub spec: Spec,
    pub rows: Vec<Arc<RowMemory>>,
}

/// What a row of a batch was made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Origin {
    /// A row of the input.
    Input(u32),
    /// A reduce's, of a slide.
    Slide,
}

/// A batch. The ABI's struct comes first, so a pointer to one is a pointer to the other.
#[repr(C)]
pub(super) struct HostBatch {
    raw: abi::column::Batch,
    refs: AtomicU32,
    /// Batches that are alive, of the harness.
    live: Arc<AtomicIsize>,
    pub rows: Vec<Row>,
    pub slides: Vec<Arc<SlideBox>>,
    pub columns: Vec<Store>,
    pub origins: Vec<Origin>,
    pub port: u32,
    slide_pointers: Vec<*const abi::row::Slide>,
    raw_columns: Vec<Column>,
    pointers: Vec<Vec<*mut c_void>>,
    lengths: Vec<Vec<u64>>,
}

impl HostBatch {
    /// A batch with one reference.
    pub fn give(
        live: &Arc<AtomicIsize>,
        port: u32,
        rows: Vec<Row>,
        slides: Vec<Arc<SlideBox>>,
        columns: Vec<Store>,
        origins: Vec<Origin>,
        writable: bool,
    ) -> *mut abi::column::Batch {
        live.fetch_add(1, Ordering::SeqCst);
        let mut batch = Box::new(HostBatch {
            raw: abi::column::Batch {
                struct_size: size_of::<abi::column::Batch>() as u32,
                n_rows: rows.len() as u32,
                n_columns: columns.len() as u32,
                n_slides: slides.len() as u32,
                rows: std::ptr::null(),
                columns: std::ptr::null(),
                slides: std::ptr::null(),
            },
            refs: AtomicU32::new(1),
            live: live.clone(),
            slide_pointers: slides.iter().map(|slide| &raw const slide.raw).collect(),
            raw_columns: Vec::new(),
            pointers: Vec::new(),
            lengths: Vec::new(),
            rows,
            slides,
            columns,
            origins,
            port,
        });
        for store in &batch.columns {
            let open = store.spec.shape.contains(&-1);
            let unit = store.spec.bytes().max(1);
            batch.lengths.push(match open {
                true => store
                    .rows
                    .iter()
                    .map(|row| (row.len / unit) as u64)
                    .collect(),
                false => Vec::new(),
            });
            batch
                .pointers
                .push(store.rows.iter().map(|row| row.ptr().cast()).collect());
        }
        for (i, store) in batch.columns.iter().enumerate() {
            let open = !batch.lengths[i].is_empty();
            batch.raw_columns.push(Column {
                name: abi::Str::new(&store.spec.name),
                rows: batch.pointers[i].as_ptr(),
                shape: store.spec.shape.as_ptr(),
                strides: std::ptr::null(),
                lengths: if open {
                    batch.lengths[i].as_ptr()
                } else {
                    std::ptr::null()
                },
                pitch: 0,
                device: Device { kind: CPU, id: 0 },
                dtype: store.spec.dtype,
                ndim: store.spec.shape.len() as i32,
                flags: if writable { WRITABLE } else { 0 },
                reserved: 0,
            });
        }
        // These lie on the heap, so they hold when the box is given away.
        batch.raw.rows = batch.rows.as_ptr();
        batch.raw.columns = batch.raw_columns.as_ptr();
        batch.raw.slides = batch.slide_pointers.as_ptr();
        Box::into_raw(batch).cast()
    }

    /// # Safety
    /// `raw` came from `give` and somebody holds a reference for `'a`.
    pub unsafe fn of<'a>(raw: *const abi::column::Batch) -> &'a HostBatch {
        // SAFETY: the caller's; the ABI's struct is the first member.
        unsafe { &*raw.cast::<HostBatch>() }
    }

    pub fn retain(&self) {
        self.refs.fetch_add(1, Ordering::SeqCst);
    }

    /// Whether nobody wrote beside a row.
    pub fn is_whole(&self) -> bool {
        self.columns
            .iter()
            .all(|column| column.rows.iter().all(|row| row.is_whole()))
    }

    /// # Safety
    /// As `of`; the caller's reference is used no more.
    pub unsafe fn release(raw: *mut abi::column::Batch) {
        let batch = raw.cast::<HostBatch>();
        // SAFETY: the caller's.
        let last = unsafe { (*batch).refs.fetch_sub(1, Ordering::SeqCst) } == 1;
        if last {
            // SAFETY: the last reference.
            let batch = unsafe { Box::from_raw(batch) };
            batch.live.fetch_sub(1, Ordering::SeqCst);
        }
    }
}
