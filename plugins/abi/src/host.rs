//! What the host offers.

use crate::column::Batch;
use crate::status::{Error, Status};
use crate::{Call, Str};
use std::ffi::{c_char, c_void};

/// [`Host::log`]'s level.
pub const LOG_ERROR: i32 = 1;
/// [`Host::log`]'s level.
pub const LOG_WARN: i32 = 2;
/// [`Host::log`]'s level.
pub const LOG_INFO: i32 = 3;
/// [`Host::log`]'s level.
pub const LOG_DEBUG: i32 = 4;

/// `weir_host`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Host {
    /// Bytes of this struct that exist.
    pub struct_size: u32,
    /// [`MINOR`](crate::MINOR) of the host.
    pub abi_minor: u32,
    /// For messages; terminated.
    pub version: *const c_char,
    /// A named extension.
    pub extension: Option<unsafe extern "C" fn(id: *const c_char) -> *const c_void>,
    /// A line in the run's log.
    pub log: Option<unsafe extern "C" fn(*mut Call, level: i32, text: Str)>,
    /// What went wrong.
    pub fail: Option<unsafe extern "C" fn(*mut Call, *const Error)>,
    /// Whether the run is being stopped.
    pub cancelled: Option<unsafe extern "C" fn(*mut Call) -> i32>,
    /// A fresh batch of input rows.
    pub batch_new: Option<
        unsafe extern "C" fn(*mut Call, port: u32, n_rows: u32, source: *const u32) -> *mut Batch,
    >,
    /// A fresh batch of a reduce's rows.
    pub batch_for: Option<
        unsafe extern "C" fn(
            *mut Call,
            port: u32,
            slide: u64,
            n_rows: u32,
            tiles: *const u64,
        ) -> *mut Batch,
    >,
    /// A copy of the input, to be changed.
    pub batch_edit: Option<unsafe extern "C" fn(*mut Call, port: u32) -> *mut Batch>,
    /// Keeps a batch.
    pub batch_retain: Option<unsafe extern "C" fn(*const Batch)>,
    /// Keeps it no longer.
    pub batch_release: Option<unsafe extern "C" fn(*const Batch)>,
    /// Hands a batch on.
    pub emit: Option<unsafe extern "C" fn(*mut Call, port: u32, *mut Batch) -> Status>,
    /// Hands input rows on as they are.
    pub pass:
        Option<unsafe extern "C" fn(*mut Call, port: u32, rows: *const u32, n_rows: u32) -> Status>,
    /// A row of a table port.
    pub table: Option<
        unsafe extern "C" fn(
            *mut Call,
            port: u32,
            source: u32,
            bytes: *const c_void,
            len: usize,
        ) -> Status,
    >,
    /// Leaves an input row out.
    pub skip: Option<unsafe extern "C" fn(*mut Call, row: u32, reason: Str) -> Status>,
    /// Fails an input row.
    pub fail_row: Option<unsafe extern "C" fn(*mut Call, row: u32, *const Error) -> Status>,
    /// Ends a pending call.
    pub complete: Option<unsafe extern "C" fn(*mut Call, Status)>,
    /// A source has something again.
    pub wake: Option<unsafe extern "C" fn(slide_key: *mut c_void)>,
    /// The folder of the run's outputs.
    pub folder: Option<unsafe extern "C" fn(*mut Call) -> Str>,
}

/// `weir_cuda_v1`, the extension `weir.cuda/1`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct CudaV1 {
    /// Bytes of this struct that exist.
    pub struct_size: u32,
    /// Number of the device.
    pub device: i32,
    /// The call's CUstream.
    pub stream: Option<unsafe extern "C" fn(*mut Call) -> *mut c_void>,
}

/// `weir_metrics_v1`, the extension `weir.metrics/1`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct MetricsV1 {
    /// Bytes of this struct that exist.
    pub struct_size: u32,
    /// Zero.
    pub reserved: u32,
    /// Adds to a counter.
    pub count: Option<unsafe extern "C" fn(*mut Call, name: Str, by: u64)>,
}

// SAFETY: the table is a constant, and its pointers lead to constants.
unsafe impl Sync for Host {}
// SAFETY: as above.
unsafe impl Sync for CudaV1 {}
// SAFETY: as above.
unsafe impl Sync for MetricsV1 {}
