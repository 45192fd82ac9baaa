//! Stages.

use crate::Call;
use crate::column::Batch;
use crate::host::Host;
use crate::row::{Row, Slide};
use crate::status::Status;
use crate::value::Value;
use std::ffi::{c_char, c_void};

/// `process` of one instance may run on several threads at once.
pub const PARALLEL: u32 = 1;
/// Same rows, same bits, whatever their batch.
pub const DETERMINISTIC: u32 = 2;

/// Everything came.
pub const COMPLETE: u32 = 0;
/// The sender fell silent.
pub const INCOMPLETE: u32 = 1;
/// The slide failed, or the run was stopped.
pub const ABORTED: u32 = 2;
/// More may come.
pub const PROVISIONAL: u32 = 3;

/// A tile that `read` will fill.
pub const STEP_TILE: u32 = 1;
/// The tile is withdrawn.
pub const STEP_GONE: u32 = 2;
/// The tile cannot be had.
pub const STEP_FAIL: u32 = 3;
/// What was sent since the last one belongs together.
pub const STEP_CLOSE: u32 = 4;

/// `weir_step`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Step {
    /// Bytes of this struct that exist.
    pub struct_size: u32,
    /// [`STEP_TILE`] to [`STEP_CLOSE`].
    pub kind: u32,
    /// Left edge, level-0 px.
    pub x: i64,
    /// Top edge, level-0 px.
    pub y: i64,
    /// px; of features, the vector's width.
    pub width: u32,
    /// px.
    pub height: u32,
}

/// `create`.
pub type Create = unsafe extern "C" fn(
    *const Host,
    *mut Call,
    values: *const Value,
    n_values: u32,
    out: *mut *mut c_void,
) -> Status;

/// `weir_stage`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Stage {
    /// Bytes of this struct that exist.
    pub struct_size: u32,
    /// [`PARALLEL`], [`DETERMINISTIC`].
    pub flags: u32,
    /// The manifest's; terminated.
    pub id: *const c_char,
    /// Every stage.
    pub create: Option<Create>,
    /// Every stage.
    pub destroy: Option<unsafe extern "C" fn(*mut c_void)>,
    /// Every stage; optional.
    pub resolve: Option<
        unsafe extern "C" fn(
            *mut c_void,
            *mut Call,
            port: u32,
            symbol: *const c_char,
            size: *mut i64,
        ) -> Status,
    >,
    /// Every stage; optional.
    pub cancel: Option<unsafe extern "C" fn(*mut c_void)>,
    /// Map, filter, reduce, sink.
    pub process:
        Option<unsafe extern "C" fn(*mut c_void, *mut Call, port: u32, *const Batch) -> Status>,
    /// Reduce, sink.
    pub remove: Option<
        unsafe extern "C" fn(
            *mut c_void,
            *mut Call,
            port: u32,
            rows: *const Row,
            n_rows: u32,
        ) -> Status,
    >,
    /// Reduce, sink.
    pub complete_slide: Option<
        unsafe extern "C" fn(*mut c_void, *mut Call, *const Slide, rev: u32, end: u32) -> Status,
    >,
    /// Reduce, sink; optional.
    pub close_slide: Option<unsafe extern "C" fn(*mut c_void, slide: u64)>,
    /// Sink; optional.
    pub finish: Option<unsafe extern "C" fn(*mut c_void, *mut Call) -> Status>,
    /// Source.
    pub slide:
        Option<unsafe extern "C" fn(*mut c_void, *mut Call, i: u64, out: *mut Slide) -> Status>,
    /// Source.
    pub open: Option<
        unsafe extern "C" fn(
            *mut c_void,
            *mut Call,
            i: u64,
            slide_key: *mut c_void,
            out: *mut Slide,
            slide: *mut *mut c_void,
        ) -> Status,
    >,
    /// Source.
    pub next: Option<unsafe extern "C" fn(*mut c_void, *mut Call, out: *mut Step) -> Status>,
    /// Source.
    pub read: Option<
        unsafe extern "C" fn(
            *mut c_void,
            *mut Call,
            *const Row,
            into: *mut c_void,
            len: usize,
        ) -> Status,
    >,
    /// Source.
    pub close: Option<unsafe extern "C" fn(*mut c_void)>,
}

impl Stage {
    /// A table without functions, to be filled.
    pub const EMPTY: Stage = Stage {
        struct_size: size_of::<Stage>() as u32,
        flags: 0,
        id: c"".as_ptr(),
        create: None,
        destroy: None,
        resolve: None,
        cancel: None,
        process: None,
        remove: None,
        complete_slide: None,
        close_slide: None,
        finish: None,
        slide: None,
        open: None,
        next: None,
        read: None,
        close: None,
    };
}
