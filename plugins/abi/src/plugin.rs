//! The one symbol.

use crate::host::Host;
use crate::reader::Reader;
use crate::stage::Stage;
use crate::status::Status;
use crate::{Call, Str};
use std::ffi::{c_char, c_void};

/// Name of the one symbol.
pub const ENTRY: &str = "weir_plugin_v1";

/// Name of the ELF section of the manifest.
pub const SECTION: &str = ".weir.manifest";

/// `weir_plugin`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Plugin {
    /// Bytes of this struct that exist.
    pub struct_size: u32,
    /// [`MINOR`](crate::MINOR) that the plugin was built against.
    pub abi_minor: u32,
    /// The text of section [`SECTION`]; terminated. Null without one, where the manifest lies beside the library.
    pub manifest: *const c_char,
    /// `n_stages` of them.
    pub stages: *const *const Stage,
    /// `n_readers` of them.
    pub readers: *const *const Reader,
    /// Stages.
    pub n_stages: u32,
    /// Readers.
    pub n_readers: u32,
    /// Optional: a named extension of the plugin's.
    pub extension: Option<unsafe extern "C" fn(id: *const c_char) -> *const c_void>,
}

/// `weir_describe_v1`, a plugin's extension `weir.describe/1`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DescribeV1 {
    /// Bytes of this struct that exist.
    pub struct_size: u32,
    /// Zero.
    pub reserved: u32,
    /// Says in lines of the log what a file is to the plugin.
    pub describe: Option<unsafe extern "C" fn(*const Host, *mut Call, path: Str) -> Status>,
}

// SAFETY: the tables are constants of a library that is never unloaded, and nothing writes to them.
unsafe impl Sync for Plugin {}
// SAFETY: as above.
unsafe impl Sync for Stage {}
// SAFETY: as above.
unsafe impl Sync for Reader {}

/// Type of `weir_plugin_v1`.
pub type Entry = unsafe extern "C" fn(*const Host, *mut Call, out: *mut *const Plugin) -> Status;
