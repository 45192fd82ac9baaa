//! What the macros write, and what they need for it.

use crate::abi::host::Host as Table;
use crate::abi::plugin::{DescribeV1, Plugin};
use crate::abi::reader::Reader;
use crate::abi::stage::Stage;
use crate::abi::status::{self, Status};
use crate::abi::{Call, MINOR, Str};
use crate::error::{Error, Result};
use crate::host::{Host, text};
use crate::param::Values;
use std::ffi::{CStr, c_char, c_void};
use std::path::Path;

pub use crate::shim::reader::reader;
pub use crate::shim::source::source;
pub use crate::shim::stage::{AtEnd, NothingAtEnd, filter, map, reduce, sink};

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
        extension: None,
    }
}

/// What `describe: ..` of `export!` names.
pub trait Describes {
    fn describe(path: &Path, call: &crate::Call<'_>) -> Result<()>;
}

/// The extension `weir.describe/1`.
pub const fn describe<D: Describes>() -> DescribeV1 {
    DescribeV1 {
        struct_size: size_of::<DescribeV1>() as u32,
        reserved: 0,
        describe: Some(describe_file::<D>),
    }
}

unsafe extern "C" fn describe_file<D: Describes>(
    host: *const Table,
    call: *mut Call,
    path: Str,
) -> Status {
    // SAFETY: as weir_plugin.h says: a host's table, which lives as long as the process.
    let Some(host) = (unsafe { Host::new(host) }) else {
        return status::FAIL;
    };
    let body = || {
        // SAFETY: the call is open while this runs, and the path lives as long.
        let (cx, path) = unsafe {
            (
                crate::Call::new(host, call, &[], std::ptr::null()),
                text(path),
            )
        };
        D::describe(Path::new(path), &cx).map(|()| status::OK)
    };
    // SAFETY: as above.
    unsafe { crate::shim::run(host, call, None, body) }
}

/// The plugin's table, with its extensions.
pub const fn extended(
    plugin: Plugin,
    extension: unsafe extern "C" fn(*const c_char) -> *const c_void,
) -> Plugin {
    Plugin {
        extension: Some(extension),
        ..plugin
    }
}

/// The extension of this id.
///
/// # Safety
/// `id` is null or terminated.
pub unsafe fn extension(id: *const c_char, describe: &'static DescribeV1) -> *const c_void {
    // SAFETY: the caller's.
    if !id.is_null() && unsafe { CStr::from_ptr(id) } == c"weir.describe/1" {
        return (&raw const *describe).cast();
    }
    std::ptr::null()
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
