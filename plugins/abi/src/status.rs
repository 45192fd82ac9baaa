//! What a function returns, and what went wrong.

use crate::Str;

/// `weir_status`.
pub type Status = i32;

/// Done.
pub const OK: Status = 0;
/// `process` only: the plugin keeps the call.
pub const PENDING: Status = 1;
/// `next` only: nothing yet.
pub const IDLE: Status = 2;
/// Nothing more, ever.
pub const END: Status = 3;
/// This cannot be done.
pub const FAIL: Status = -1;
/// The same call may succeed later.
pub const RETRY: Status = -2;
/// A parameter is unusable.
pub const PARAM: Status = -3;
/// Out of memory.
pub const MEMORY: Status = -4;
/// The run is being stopped.
pub const CANCELLED: Status = -5;
/// A guard caught a panic.
pub const PANIC: Status = -6;
/// This slide has no such thing.
pub const UNSUPPORTED: Status = -7;
/// A host function was called against the rules.
pub const USE: Status = -8;

/// `weir_error`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Error {
    /// One sentence.
    pub message: Str,
    /// The parameter at fault, or empty.
    pub param: Str,
    /// What to do about it, or empty.
    pub help: Str,
}
