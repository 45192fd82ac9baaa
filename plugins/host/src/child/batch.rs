//! A batch as a plugin in a child process sees it: the header's struct over memory that the host shares.

use super::blocks::Block;
use crate::batch::live::{self, Noted, References};
use crate::columns::{Part, row_bytes};
use crate::isolate::memory::Mapping;
use crate::isolate::message::{
    LENT, Lies, OwnSlide, ROW, SLIDE, read_column, read_row, read_slide,
};
use crate::wire::{Garbage, Reader};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use weir_abi::column::{Batch, Column};
use weir_abi::row::{Row, Slide};

/// Slides, as batches point to them.
#[derive(Debug)]
pub(super) struct Slides {
    _own: Vec<OwnSlide>,
    pointers: Vec<*const Slide>,
}

// SAFETY: the pointers lead to its own slides, which nothing changes.
unsafe impl Send for Slides {}
// SAFETY: as above.
unsafe impl Sync for Slides {}

impl Slides {
    pub fn new(own: Vec<OwnSlide>) -> Slides {
        let pointers = own.iter().map(|own| &raw const own.slide).collect();
        Slides {
            _own: own,
            pointers,
        }
    }

    pub fn first(&self) -> Option<&Slide> {
        self._own.first().map(|own| &own.slide)
    }
}

/// What inputs lie in.
#[derive(Debug, Default)]
pub(super) struct Memories {
    /// To which inputs are copied.
    pub copied: Option<Arc<Mapping>>,
    /// Where the host's tiles lie.
    pub shown: Option<Arc<Mapping>>,
    /// Calls whose inputs were kept, and are no more.
    released: Arc<Mutex<Vec<u64>>>,
}

impl Memories {
    /// Numbers of the calls whose inputs the plugin has let go of since it was asked last.
    pub fn released(&self) -> Vec<u64> {
        std::mem::take(&mut *self.released.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A batch. References are an `Arc`'s.
#[repr(C)]
pub(super) struct Lot {
    /// First, so that its address is the batch's.
    head: Batch,
    rows: Vec<Row>,
    columns: Vec<Column>,
    _parts: Vec<Part>,
    slides: Arc<Slides>,
    references: Arc<References>,
    of: Of,
}

// SAFETY: what is written through a batch's pointers is memory that the plugin was given to write; everything else only reads.
unsafe impl Send for Lot {}
// SAFETY: as above.
unsafe impl Sync for Lot {}

enum Of {
    Input {
        /// The memory that something of it was copied to.
        copied: Option<Arc<Mapping>>,
        _shown: Option<Arc<Mapping>>,
        /// Of the call that it came with.
        number: u64,
        kept: AtomicBool,
        released: Arc<Mutex<Vec<u64>>>,
    },
    Made {
        port: u32,
        what: What,
        spots: Vec<u8>,
        _blocks: Vec<Block>,
        emitted: AtomicBool,
    },
}

/// Which rows a plugin makes.
#[derive(Clone, Debug)]
pub(super) enum What {
    /// Of these rows of the input.
    Rows(Vec<u32>),
    /// Of these tiles of a slide.
    Tiles { slide: u64, tiles: Vec<u64> },
}

/// What the host is told of a batch that is emitted, with its [`Spots`](crate::isolate::answer::Spots) as they are written.
pub(super) type Emitted<'a> = (&'a What, &'a [u8]);

impl Lot {
    /// The first reference that is the plugin's to an input which it was lent, and whose call is open.
    pub fn retain(self: &Arc<Lot>) {
        self.references.hand();
        std::mem::forget(self.clone());
    }

    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    pub fn slides(&self) -> &Arc<Slides> {
        &self.slides
    }

    fn new(rows: Vec<Row>, slides: Arc<Slides>, parts: Vec<Part>, of: Of) -> Lot {
        let columns: Vec<Column> = parts.iter().map(Part::column).collect();
        Lot {
            head: Batch {
                struct_size: size_of::<Batch>() as u32,
                n_rows: rows.len() as u32,
                n_columns: columns.len() as u32,
                n_slides: slides.pointers.len() as u32,
                rows: rows.as_ptr(),
                columns: columns.as_ptr(),
                slides: slides.pointers.as_ptr(),
            },
            rows,
            columns,
            _parts: parts,
            slides,
            references: Arc::default(),
            of,
        }
    }

    /// An input: what lies in the memories.
    pub fn read(from: &mut Reader, memories: &Memories, number: u64) -> Result<Lot, Garbage> {
        let rows = from.list::<ROW, _>(read_row)?;
        let slides = from.list::<SLIDE, _>(read_slide)?;
        let columns = from.list::<LENT, _>(read_column)?;
        let n = rows.len();
        let mut parts = Vec::new();
        let mut copied = false;
        for column in columns {
            let fixed = row_bytes(column.dtype, &column.shape);
            copied |= column.rows.iter().any(|at| matches!(at, Lies::Copied(_)));
            if column.rows.len() != n || (fixed.is_none() && column.lengths.len() != n) {
                return Err(Garbage("a column of another length than its batch"));
            }
            let pointers = column.rows.iter().enumerate().map(|(row, &at)| {
                let bytes = match fixed {
                    Some(bytes) => Some(bytes),
                    None => usize::try_from(column.lengths[row])
                        .ok()
                        .and_then(|n| n.checked_mul(column.dtype.bytes())),
                };
                let (memory, at) = match at {
                    Lies::Copied(at) => (&memories.copied, at),
                    Lies::Shown(at) => (&memories.shown, at),
                };
                let found = memory.as_ref().and_then(|memory| memory.at(at, bytes?));
                found
                    .map(|pointer| pointer.cast())
                    .ok_or(Garbage("a row outside of the memory"))
            });
            let pointers = pointers.collect::<Result<_, _>>()?;
            let mut part = Part::new(column.name, column.dtype, column.shape, pointers);
            part.lengths = column.lengths;
            parts.push(part);
        }
        let of = Of::Input {
            copied: memories.copied.clone().filter(|_| copied),
            _shown: memories.shown.clone(),
            number,
            kept: AtomicBool::new(false),
            released: memories.released.clone(),
        };
        Ok(Lot::new(rows, Arc::new(Slides::new(slides)), parts, of))
    }

    /// Notes that the plugin keeps it beyond its call, so that the host is told when it does no more. Whether something of it was
    /// copied.
    pub fn keep(&self) -> bool {
        match &self.of {
            Of::Input { kept, copied, .. } => {
                kept.store(true, Ordering::SeqCst);
                copied.is_some()
            }
            Of::Made { .. } => false,
        }
    }

    /// Fresh rows for an output.
    pub fn made(
        port: u32,
        what: What,
        rows: Vec<Row>,
        slides: Arc<Slides>,
        parts: Vec<Part>,
        spots: Vec<u8>,
        blocks: Vec<Block>,
    ) -> Lot {
        let of = Of::Made {
            port,
            what,
            spots,
            _blocks: blocks,
            emitted: AtomicBool::new(false),
        };
        Lot::new(rows, slides, parts, of)
    }

    /// What the host is told when the batch is emitted on `port`.
    pub fn emit(&self, on: u32) -> Result<Emitted<'_>, String> {
        let Of::Made {
            port,
            what,
            spots,
            emitted,
            ..
        } = &self.of
        else {
            return Err("it emitted its input: pass() hands rows on as they are".into());
        };
        if *port != on {
            return Err(format!(
                "it made a batch for output {port} and emitted it on {on}"
            ));
        }
        if emitted.swap(true, Ordering::SeqCst) {
            return Err("it emitted a batch twice".into());
        }
        Ok((what, spots))
    }

    /// That the rows are this batch's.
    pub fn check(&self, source: &[u32]) -> Result<(), String> {
        let n = self.rows.len();
        match source.iter().find(|&&row| row as usize >= n) {
            None => Ok(()),
            Some(row) => Err(format!("it spoke of row {row} of a batch of {n}")),
        }
    }
}

// SAFETY: as it is declared above; a child process notes no others.
unsafe impl Noted for Lot {
    #[inline]
    fn references(&self) -> &Arc<References> {
        &self.references
    }
}

impl Drop for Lot {
    fn drop(&mut self) {
        live::gone(std::ptr::from_ref(self).addr());
    }
}

impl Drop for Of {
    fn drop(&mut self) {
        if let Of::Input {
            number,
            kept,
            released,
            ..
        } = self
            && kept.load(Ordering::SeqCst)
        {
            let mut released = released.lock().unwrap_or_else(PoisonError::into_inner);
            released.push(*number);
        }
    }
}
