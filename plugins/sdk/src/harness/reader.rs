//! A slide reader that runs.

use super::call::{CallBox, Shared};
use super::functions::HOST;
use super::stage::finish_plain;
use crate::abi;
use crate::abi::reader::Reader as Table;
use crate::error::{Error, Result};
use crate::export::DeclaredReader;
use crate::host::{slice, text};
use crate::reader::{Facts, MppOrigin, Picture};
use std::ffi::c_void;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

/// Bytes between the rows of a region, by which a write beside one shows.
const GAP: usize = 13;
const MARK: u8 = 0xA5;

/// A reader of this program.
pub fn reader<R: DeclaredReader>() -> Reader {
    Reader {
        // A library's table lives for ever, so this one does too.
        table: Box::leak(Box::new(R::TABLE)),
    }
}

/// A slide reader.
pub struct Reader {
    pub(super) table: &'static Table,
}

impl Reader {
    /// How surely a file is this reader's, 0 to 100, from its name and first 4096 bytes.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn sniff(&self, path: &Path) -> Result<i32> {
        let mut head = Vec::new();
        std::fs::File::open(path)?
            .take(4096)
            .read_to_end(&mut head)?;
        let sniff = self
            .table
            .sniff
            .ok_or_else(|| Error::new("the reader has no sniff()"))?;
        let path = path.to_string_lossy();
        // SAFETY: as weir_plugin.h says.
        Ok(unsafe { sniff(abi::Str::new(&path), head.as_ptr(), head.len()) })
    }

    /// Opens a slide.
    ///
    /// # Errors
    /// What the plugin said.
    pub fn open(&self, path: &Path) -> Result<Opened> {
        let open = self
            .table
            .open
            .ok_or_else(|| Error::new("the reader has no open()"))?;
        let path = std::path::absolute(path)?;
        let path = path.to_string_lossy();
        let shared = Arc::new(Shared::default());
        let call = CallBox::plain(&shared).open();
        let mut handle = std::ptr::null_mut();
        // SAFETY: as weir_plugin.h says.
        let status = unsafe { open(&HOST, call.raw(), abi::Str::new(&path), &mut handle) };
        finish_plain(&call, status)?;
        Ok(Opened {
            table: self.table,
            shared,
            handle,
        })
    }
}

/// A slide that a reader opened. Dropped, it is closed.
pub struct Opened {
    table: &'static Table,
    shared: Arc<Shared>,
    handle: *mut c_void,
}

// SAFETY: a handle may be used from any thread.
unsafe impl Send for Opened {}

impl Opened {
    /// What was found in it.
    ///
    /// # Errors
    /// What the plugin said.
    pub fn facts(&self) -> Result<Facts> {
        let info = self
            .table
            .info
            .ok_or_else(|| Error::new("the reader has no info()"))?;
        let call = CallBox::plain(&self.shared).open();
        let mut out = std::ptr::null();
        // SAFETY: as weir_plugin.h says.
        let status = unsafe { info(self.handle, call.raw(), &mut out) };
        finish_plain(&call, status)?;
        // SAFETY: a reader that succeeded gave its facts, which live as long as the handle.
        let facts = unsafe { out.as_ref() }.ok_or_else(|| Error::new("info() gave no facts"))?;
        // SAFETY: as above, and so do the lists and texts in it.
        Ok(unsafe { copy(facts) })
    }

    /// Pixels of a level, interleaved RGB without gaps.
    ///
    /// # Errors
    /// What the plugin said, or that it wrote outside of the region.
    pub fn region(&self, level: u32, x: i64, y: i64, width: u32, height: u32) -> Result<Vec<u8>> {
        let read = self
            .table
            .read_region
            .ok_or_else(|| Error::new("the reader has no read_region()"))?;
        self.fill(width, height, |call, into, pitch| {
            // SAFETY: as weir_plugin.h says.
            unsafe { read(self.handle, call, level, x, y, width, height, into, pitch) }
        })
    }

    /// Picture number `i`, interleaved RGB without gaps.
    ///
    /// # Errors
    /// As of [`Opened::region`].
    pub fn picture(&self, i: u32) -> Result<Vec<u8>> {
        let read = self
            .table
            .picture
            .ok_or_else(|| Error::unsupported("the reader has no picture()"))?;
        let facts = self.facts()?;
        let it = facts
            .pictures
            .get(i as usize)
            .ok_or_else(|| Error::new(format!("there is no picture number {i}")))?;
        self.fill(it.width, it.height, |call, into, pitch| {
            // SAFETY: as weir_plugin.h says.
            unsafe { read(self.handle, call, i, into, pitch) }
        })
    }

    fn fill(
        &self,
        width: u32,
        height: u32,
        read: impl FnOnce(*mut abi::Call, *mut u8, usize) -> i32,
    ) -> Result<Vec<u8>> {
        let (row, rows) = (width as usize * 3, height as usize);
        let pitch = row + GAP;
        let mut bytes = vec![MARK; pitch * rows];
        let call = CallBox::plain(&self.shared).open();
        let status = read(call.raw(), bytes.as_mut_ptr(), pitch);
        finish_plain(&call, status)?;
        let mut pixels = Vec::with_capacity(row * rows);
        for line in bytes.chunks_exact(pitch) {
            if line[row..].iter().any(|byte| *byte != MARK) {
                return Err(Error::new(
                    "the plugin broke the contract: it wrote outside of the region",
                ));
            }
            pixels.extend_from_slice(&line[..row]);
        }
        Ok(pixels)
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        if let Some(close) = self.table.close {
            // SAFETY: no call of the handle is in flight, and none follows.
            unsafe { close(self.handle) }
        }
    }
}

/// # Safety
/// Everything that `facts` points to lives.
unsafe fn copy(facts: &abi::reader::Facts) -> Facts {
    // SAFETY: the caller's.
    let owned = |it: abi::Str| unsafe { text(it) }.to_owned();
    // SAFETY: the caller's.
    let (levels, pictures, properties) = unsafe {
        (
            slice(facts.levels, facts.n_levels),
            slice(facts.pictures, facts.n_pictures),
            slice(facts.properties, facts.n_properties),
        )
    };
    Facts {
        format: owned(facts.format),
        vendor: owned(facts.vendor),
        mpp: (facts.mpp_x > 0.0).then_some((facts.mpp_x, facts.mpp_y)),
        mpp_origin: match facts.mpp_origin {
            abi::reader::MPP_VENDOR => MppOrigin::Vendor,
            abi::reader::MPP_RESOLUTION => MppOrigin::Resolution,
            abi::reader::MPP_OBJECTIVE => MppOrigin::Objective,
            _ => MppOrigin::Unknown,
        },
        levels: levels.to_vec(),
        pictures: pictures
            .iter()
            .map(|it| Picture {
                name: owned(it.name),
                width: it.width.max(0) as u32,
                height: it.height.max(0) as u32,
            })
            .collect(),
        properties: properties
            .iter()
            .map(|it| (owned(it.key), owned(it.value)))
            .collect(),
    }
}
