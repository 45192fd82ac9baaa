//! The host's functions.

use crate::abi;
use crate::abi::status::{self, Status};
use crate::error::{Error, Result};
use std::ffi::{CStr, c_void};

/// A host whose functions are all there.
#[derive(Clone, Copy)]
pub(crate) struct Host(&'static abi::host::Host);

// SAFETY: the table is constant, and its functions may be called from any thread.
unsafe impl Send for Host {}
// SAFETY: as above.
unsafe impl Sync for Host {}

/// The host has not said why; its log may.
pub(crate) const NO_BATCH: &str =
    "the host has no memory for the batch, or refused it; its log says which";

impl Host {
    /// `None` when something that ABI 1.0 has is missing.
    ///
    /// # Safety
    /// `host` is null or a host's table, which lives as long as the process.
    pub(crate) unsafe fn new(host: *const abi::host::Host) -> Option<Host> {
        if host.is_null() {
            return None;
        }
        // SAFETY: every host has its first member; the whole is only read where it says that it is there.
        let size = unsafe { (&raw const (*host).struct_size).read() } as usize;
        if size < size_of::<abi::host::Host>() {
            return None;
        }
        // SAFETY: the caller's, and the size was looked at.
        let table = unsafe { &*host };
        let whole = table.extension.is_some()
            && table.log.is_some()
            && table.fail.is_some()
            && table.cancelled.is_some()
            && table.batch_new.is_some()
            && table.batch_for.is_some()
            && table.batch_edit.is_some()
            && table.batch_retain.is_some()
            && table.batch_release.is_some()
            && table.emit.is_some()
            && table.pass.is_some()
            && table.table.is_some()
            && table.skip.is_some()
            && table.fail_row.is_some()
            && table.complete.is_some()
            && table.wake.is_some()
            && table.folder.is_some();
        whole.then_some(Host(table))
    }

    /// The table, for functions that need the host as it was handed over.
    pub(crate) fn table(self) -> &'static abi::host::Host {
        self.0
    }

    /// Hands an error over.
    ///
    /// # Safety
    /// `call` is an open call of this host.
    pub(crate) unsafe fn fail(self, call: *mut abi::Call, error: &Error) {
        with_error(error, |error| {
            if let Some(fail) = self.0.fail {
                // SAFETY: the caller's; the host copies.
                unsafe { fail(call, error) }
            }
        });
    }

    /// A named extension.
    pub(crate) fn extension(self, id: &CStr) -> *const c_void {
        match self.0.extension {
            // SAFETY: any thread may ask at any time.
            Some(extension) => unsafe { extension(id.as_ptr()) },
            None => std::ptr::null(),
        }
    }

    /// # Safety
    /// `batch` is a batch of this host, of which the caller has a reference.
    pub(crate) unsafe fn retain(self, batch: *const abi::column::Batch) {
        if let Some(retain) = self.0.batch_retain {
            // SAFETY: the caller's.
            unsafe { retain(batch) }
        }
    }

    /// # Safety
    /// `batch` is a batch of this host, of which the caller has a reference that it uses no more.
    pub(crate) unsafe fn release(self, batch: *const abi::column::Batch) {
        if let Some(release) = self.0.batch_release {
            // SAFETY: the caller's.
            unsafe { release(batch) }
        }
    }
}

/// Lends the error in the ABI's form.
pub(crate) fn with_error<R>(error: &Error, lend: impl FnOnce(&abi::status::Error) -> R) -> R {
    lend(&abi::status::Error {
        message: abi::Str::new(error.message()),
        param: abi::Str::new(error.of_which_param()),
        help: abi::Str::new(error.what_to_do()),
    })
}

/// A host function's status as a result.
pub(crate) fn check(status: Status, what: &str) -> Result<()> {
    match status {
        status::OK => Ok(()),
        status::CANCELLED => Err(Error::cancelled()),
        status::MEMORY => Err(Error::memory(format!("the host has no memory for {what}"))),
        other => Err(Error::new(format!(
            "the host refused {what} (status {other}); its log says why"
        ))),
    }
}

/// The text that a `Str` borrows; empty where it is no UTF-8, which the ABI excludes.
///
/// # Safety
/// As [`abi::Str::bytes`].
pub(crate) unsafe fn text<'a>(text: abi::Str) -> &'a str {
    // SAFETY: the caller's.
    std::str::from_utf8(unsafe { text.bytes() }).unwrap_or_default()
}

/// Rows `n` from `ptr`, of which a null pointer has none.
///
/// # Safety
/// `ptr` is null or points to `n` values that live and do not change for `'a`.
pub(crate) unsafe fn slice<'a, T>(ptr: *const T, n: u32) -> &'a [T] {
    if ptr.is_null() || n == 0 {
        return &[];
    }
    // SAFETY: the caller's.
    unsafe { std::slice::from_raw_parts(ptr, n as usize) }
}
