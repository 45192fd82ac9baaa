//! Parameters.

use crate::Str;

/// Optional, without a default, not given.
pub const UNSET: u32 = 0;
/// `i` is 0 or 1.
pub const BOOL: u32 = 1;
/// `i`.
pub const INT: u32 = 2;
/// `f`.
pub const FLOAT: u32 = 3;
/// `s`.
pub const STRING: u32 = 4;
/// `n` items. Of a parameter `slides` each is a [`STRING`] with items of its own: the file's path in `s`, um/px or 0 in `f`, and
/// [`SLIDE_ITEMS`] texts.
pub const LIST: u32 = 5;
/// Texts of a slide in a list of slides: id, patient, label, split.
pub const SLIDE_ITEMS: u32 = 4;

/// `weir_value`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Value {
    /// [`UNSET`] to [`LIST`].
    pub kind: u32,
    /// Items of a list.
    pub n: u32,
    /// A whole number.
    pub i: i64,
    /// A number.
    pub f: f64,
    /// A text.
    pub s: Str,
    /// `n` of them.
    pub items: *const Value,
}

impl Value {
    /// No value.
    pub const UNSET: Value = Value {
        kind: UNSET,
        n: 0,
        i: 0,
        f: 0.0,
        s: Str::EMPTY,
        items: std::ptr::null(),
    };
}
