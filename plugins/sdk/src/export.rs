//! What the macros write, and what they need for it.

use crate::abi::host::Host as Table;
use crate::abi::plugin::Plugin;
use crate::abi::reader::Reader;
use crate::abi::stage::Stage;
use crate::abi::status::{self, Status};
use crate::abi::{Call, MINOR};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::param::Values;
use std::ffi::CStr;

pub use crate::shim::reader::reader;
pub use crate::shim::source::source;
pub use crate::shim::stage::{filter, map, reduce, sink};

/// What `#[derive(Stage)]` knows of a stage.
pub trait Declared: Sized + 'static {
    const ID: &'static CStr;
    /// Its part of the manifest, in pieces.
    const MANIFEST: &'static [&'static str];
    const PARALLEL: bool;
    const DETERMINISTIC: bool;
    const BATCH_ONLY: bool;
    const INS: &'static [&'static str];
    const OUTS: &'static [&'static str];
    const PARAMS: usize;
    const TABLE: Stage;

    fn from_values(values: &Values<'_>) -> Result<Self>;
}

/// What `#[derive(Reader)]` knows of a reader.
pub trait DeclaredReader: crate::reader::Reader {
    const ID: &'static CStr;
    const MANIFEST: &'static [&'static str];
    const PARALLEL: bool;
    const SPOILS: bool;
    const TABLE: Reader;
}

/// The manifest's `weir-abi`.
pub const ABI: &str = "1.0";

const _: () = assert!(crate::abi::MAJOR == 1 && MINOR == 0, "`ABI` says another");

/// Bytes of all pieces together.
pub const fn length(parts: &[&[&str]]) -> usize {
    let (mut length, mut i) = (0, 0);
    while i < parts.len() {
        let mut j = 0;
        while j < parts[i].len() {
            length += parts[i][j].len();
            j += 1;
        }
        i += 1;
    }
    length
}

/// All pieces side by side.
pub const fn join<const N: usize>(parts: &[&[&str]]) -> [u8; N] {
    let mut out = [0; N];
    let (mut at, mut i) = (0, 0);
    while i < parts.len() {
        let mut j = 0;
        while j < parts[i].len() {
            let bytes = parts[i][j].as_bytes();
            let mut k = 0;
            while k < bytes.len() {
                out[at] = bytes[k];
                at += 1;
                k += 1;
            }
            j += 1;
        }
        i += 1;
    }
    out
}

/// Whether a stage's id begins with the plugin's name and a dot.
pub const fn is_of(id: &CStr, name: &str) -> bool {
    let (id, name) = (id.to_bytes(), name.as_bytes());
    if id.len() <= name.len() || id[name.len()] != b'.' {
        return false;
    }
    let mut i = 0;
    while i < name.len() {
        if id[i] != name[i] {
            return false;
        }
        i += 1;
    }
    true
}

/// The plugin's table.
pub const fn plugin(
    manifest: &'static [u8],
    stages: &'static [&'static Stage],
    readers: &'static [&'static Reader],
) -> Plugin {
    Plugin {
        struct_size: size_of::<Plugin>() as u32,
        abi_minor: MINOR,
        manifest: manifest.as_ptr().cast(),
        // A reference has the layout of a pointer.
        stages: stages.as_ptr().cast(),
        readers: readers.as_ptr().cast(),
        n_stages: stages.len() as u32,
        n_readers: readers.len() as u32,
    }
}

/// The body of `weir_plugin_v1`.
///
/// # Safety
/// As weir_plugin.h says of it.
pub unsafe fn enter(
    host: *const Table,
    call: *mut Call,
    out: *mut *const Plugin,
    plugin: &'static Plugin,
) -> Status {
    // SAFETY: the caller's.
    let Some(host) = (unsafe { Host::new(host) }) else {
        // Whatever it is, it has no fail() that could be trusted.
        return status::FAIL;
    };
    if out.is_null() {
        // SAFETY: the call is open.
        unsafe {
            host.fail(
                call,
                &Error::new("weir_plugin_v1 was called without a place for its table"),
            )
        };
        return status::FAIL;
    }
    // SAFETY: the caller's.
    unsafe { *out = plugin };
    status::OK
}
