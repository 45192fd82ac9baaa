//! Ranges that Nsight shows on its timeline, where NVIDIA's library for them is installed; else nothing.

use libloading::Library;
use std::ffi::{CString, c_char, c_int};

type Push = unsafe extern "C" fn(*const c_char) -> c_int;
type Pop = unsafe extern "C" fn() -> c_int;

/// The library, if it is there.
#[derive(Debug)]
pub struct Ranges {
    calls: Option<(Push, Pop)>,
    // Keeps the calls valid.
    _library: Option<Library>,
}

/// Ends its range when it goes.
#[derive(Debug)]
pub struct Range<'a>(&'a Ranges);

impl Ranges {
    /// Names under which the library is known: with CUDA's toolkit, and with its later interface.
    const NAMES: [&'static str; 4] = [
        "libnvToolsExt.so.1",
        "libnvToolsExt.so",
        "libnvtx3interop.so.1",
        "libnvtx3interop.so",
    ];

    /// Looks for the library.
    pub fn find() -> Ranges {
        Self::NAMES
            .iter()
            .find_map(|name| {
                // SAFETY: these libraries run nothing when they are loaded but their own set-up.
                let library = unsafe { Library::new(*name) }.ok()?;
                // SAFETY: the types are those of nvToolsExt.h.
                let push = *unsafe { library.get::<Push>(b"nvtxRangePushA\0") }.ok()?;
                // SAFETY: the same.
                let pop = *unsafe { library.get::<Pop>(b"nvtxRangePop\0") }.ok()?;
                Some(Ranges {
                    calls: Some((push, pop)),
                    _library: Some(library),
                })
            })
            .unwrap_or(Ranges::none())
    }

    /// No library.
    pub fn none() -> Ranges {
        Ranges {
            calls: None,
            _library: None,
        }
    }

    /// Whether ranges go anywhere.
    pub fn found(&self) -> bool {
        self.calls.is_some()
    }

    /// Begins a range.
    pub fn range(&self, name: &str) -> Range<'_> {
        if let (Some((push, _)), Ok(name)) = (self.calls, CString::new(name)) {
            // SAFETY: a string that ends with 0 and lives through the call, which copies it.
            unsafe { push(name.as_ptr()) };
        }
        Range(self)
    }
}

impl Drop for Range<'_> {
    fn drop(&mut self) {
        if let Some((_, pop)) = self.0.calls {
            // SAFETY: takes nothing; the library is loaded while `Ranges` lives.
            unsafe { pop() };
        }
    }
}
