//! The plugin ABI in Rust: `weir_plugin.h`, member by member.
//!
//! The header is the specification; what a member means, who owns it and when a function may be called stands there and only
//! there. Names are the header's without `weir_`; functions are `Option`s, since a C table may leave one out. A test holds every
//! offset, size and constant against a C compiler's and against a snapshot.
//!
//! | module | header |
//! |---|---|
//! | [`status`] | what a function returns, errors |
//! | [`row`] | keys, rows, slides |
//! | [`mod@column`] | devices, dtypes, columns, batches |
//! | [`value`] | parameters |
//! | [`host`] | what the host offers, extensions |
//! | [`stage`] | stages |
//! | [`reader`] | slide readers |
//! | [`plugin`] | the one symbol |
//! | [`desk`] | the host's functions, for whoever hosts plugins |
//!
//! Structs that begin with `struct_size` grow at their end: the other side's may be shorter than the type here. They are reached by
//! raw pointer, and a member is read only where [`has!`] says that it exists.

pub mod column;
pub mod desk;
pub mod host;
pub mod plugin;
pub mod reader;
pub mod row;
pub mod stage;
pub mod status;
pub mod value;

use std::marker::PhantomData;

/// The header's text.
pub const HEADER: &str = include_str!("../weir_plugin.h");

/// The text of the header for C++17, which includes the other one.
pub const HEADER_CPP: &str = include_str!("../weir_plugin.hpp");

/// Plugins of another major version are refused.
pub const MAJOR: u32 = 1;

/// Plugins of a greater minor version are refused.
pub const MINOR: u32 = 0;

/// Whether `*$object`, of type `$type`, has `$member`: its `struct_size` reaches over it.
///
/// `$object` is a pointer to a struct of the other side whose first member is `struct_size: u32`; evaluate inside `unsafe`.
#[macro_export]
macro_rules! has {
    ($type:ty, $object:expr, $member:ident) => {{
        let object: *const $type = $object;
        let end = ::std::mem::offset_of!($type, $member)
            + $crate::size_of_member(|it: &$type| &raw const it.$member);
        (&raw const (*object).struct_size).read() as usize >= end
    }};
}

/// Size of the member to which `_member` points; for [`has!`].
#[doc(hidden)]
pub const fn size_of_member<T, M>(_member: fn(&T) -> *const M) -> usize {
    size_of::<M>()
}

/// `weir_str`: UTF-8 with a length, not terminated.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Str {
    /// May be null where `len` is 0.
    pub ptr: *const u8,
    /// Bytes.
    pub len: usize,
}

impl Str {
    /// No text.
    pub const EMPTY: Str = Str {
        ptr: std::ptr::null(),
        len: 0,
    };

    /// Borrows `text`: it must outlive the call that this is handed to.
    pub const fn new(text: &str) -> Str {
        Str {
            ptr: text.as_ptr(),
            len: text.len(),
        }
    }

    /// The bytes, which the other side says are UTF-8.
    ///
    /// # Safety
    /// `ptr` points to `len` bytes that live and do not change for `'a`, or `len` is 0.
    pub unsafe fn bytes<'a>(self) -> &'a [u8] {
        if self.len == 0 || self.ptr.is_null() {
            return &[];
        }
        // SAFETY: the caller's.
        unsafe { std::slice::from_raw_parts(self.ptr, self.len) }
    }
}

impl Default for Str {
    fn default() -> Str {
        Str::EMPTY
    }
}

/// `weir_call`: the host's; a plugin only hands it back.
#[repr(C)]
#[derive(Debug)]
pub struct Call {
    _opaque: [u8; 0],
    _neither_send_nor_sync: PhantomData<(*mut u8, std::marker::PhantomPinned)>,
}
