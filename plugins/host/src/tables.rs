//! A plugin's tables, copied out: a member that a shorter table of an older plugin has not is null.

use std::collections::BTreeMap;
use std::ffi::c_char;
use weir_abi::plugin::{DescribeV1, Plugin};
use weir_abi::reader::{self, Reader};
use weir_abi::stage::Stage;

/// What of a table cannot be.
pub(crate) struct Fault(pub String);

/// No plugin has more stages, or more readers: a count that is larger is none.
const MOST: u32 = 4096;

/// Bytes of the longest id.
const ID: usize = 256;

/// A type that begins with its size and of which all zeros are a value.
///
/// # Safety
/// `struct_size: u32` is its first member, and zeros are a value of it.
unsafe trait Growing: Copy {
    const NAME: &'static str;
    /// Size of the type in the first version of the ABI.
    const LEAST: usize;
}

// SAFETY: pointers, options of functions and numbers, the size first.
unsafe impl Growing for Plugin {
    const NAME: &'static str = "weir_plugin";
    const LEAST: usize = std::mem::offset_of!(Plugin, n_readers) + size_of::<u32>();
}
// SAFETY: as above.
unsafe impl Growing for Stage {
    const NAME: &'static str = "weir_stage";
    const LEAST: usize = std::mem::offset_of!(Stage, close) + size_of::<usize>();
}
// SAFETY: as above.
unsafe impl Growing for Reader {
    const NAME: &'static str = "weir_reader";
    const LEAST: usize = std::mem::offset_of!(Reader, close) + size_of::<usize>();
}
// SAFETY: as above.
unsafe impl Growing for reader::Facts {
    const NAME: &'static str = "weir_facts";
    const LEAST: usize = std::mem::offset_of!(reader::Facts, reserved) + size_of::<u32>();
}

// SAFETY: as above.
unsafe impl Growing for DescribeV1 {
    const NAME: &'static str = "weir_describe_v1";
    const LEAST: usize = size_of::<DescribeV1>();
}

/// # Safety
/// `from` is null or points to as many readable bytes as its first member says.
unsafe fn copied<T: Growing>(from: *const T) -> Result<T, Fault> {
    if from.is_null() {
        return Err(Fault(format!("a {} is null", T::NAME)));
    }
    // SAFETY: the size is the first member.
    let size = unsafe { from.cast::<u32>().read() } as usize;
    if size < T::LEAST {
        return Err(Fault(format!(
            "a {} says that it has {size} bytes, and version 1.0 of it has {}",
            T::NAME,
            T::LEAST
        )));
    }
    // SAFETY: `Growing` says so.
    let mut own: T = unsafe { std::mem::zeroed() };
    // SAFETY: both have at least that many bytes.
    unsafe {
        std::ptr::copy_nonoverlapping(
            from.cast::<u8>(),
            (&raw mut own).cast::<u8>(),
            size.min(size_of::<T>()),
        );
    }
    Ok(own)
}

/// # Safety
/// `from` is a table as the header says.
pub(crate) unsafe fn plugin(from: *const Plugin) -> Result<Plugin, Fault> {
    // SAFETY: the caller's.
    unsafe { copied(from) }
}

/// Whether a terminated text is this one; nothing is read behind the first byte that differs.
///
/// # Safety
/// `from` points to a text that nobody changes meanwhile, readable up to its end or to where it differs from `known`.
pub(crate) unsafe fn is(from: *const c_char, known: &[u8]) -> bool {
    let mut known = known.iter().copied().chain([0]).enumerate();
    // SAFETY: the caller's: all bytes before this one were the same, so none of them was the end.
    known.all(|(at, byte)| unsafe { from.cast::<u8>().add(at).read() } == byte)
}

/// A terminated id; of one without an end no more is read than the longest has.
///
/// # Safety
/// `from` points to a text that nobody changes meanwhile, readable up to its end or to the longest id's.
unsafe fn id(from: *const c_char) -> Result<String, Fault> {
    let mut text = Vec::new();
    for at in 0..=ID {
        // SAFETY: the caller's: no byte before this one was the end.
        match unsafe { from.cast::<u8>().add(at).read() } {
            0 => return Ok(String::from_utf8_lossy(&text).into_owned()),
            byte => text.push(byte),
        }
    }
    Err(Fault(format!("an id has no end within {ID} bytes")))
}

/// What describes files.
///
/// # Safety
/// `from` came from a plugin's extension of that name, as the header says.
pub(crate) unsafe fn describe(from: *const DescribeV1) -> Result<DescribeV1, Fault> {
    // SAFETY: the caller's.
    unsafe { copied(from) }
}

/// Stages by id.
///
/// # Safety
/// `of` came from a plugin as the header says.
pub(crate) unsafe fn stages(of: &Plugin) -> Result<BTreeMap<String, Stage>, Fault> {
    // SAFETY: the caller's.
    unsafe { by_id(of.stages, of.n_stages, "stage", |stage| stage.id) }
}

/// Readers by id.
///
/// # Safety
/// As [`stages`].
pub(crate) unsafe fn readers(of: &Plugin) -> Result<BTreeMap<String, Reader>, Fault> {
    // SAFETY: the caller's.
    unsafe { by_id(of.readers, of.n_readers, "reader", |reader| reader.id) }
}

/// What a reader found in a slide.
///
/// # Safety
/// `from` came from a reader's `info` as the header says.
pub(crate) unsafe fn facts(from: *const reader::Facts) -> Result<reader::Facts, Fault> {
    // SAFETY: the caller's.
    unsafe { copied(from) }
}

unsafe fn by_id<T: Growing>(
    list: *const *const T,
    count: u32,
    what: &str,
    id_of: impl Fn(&T) -> *const c_char,
) -> Result<BTreeMap<String, T>, Fault> {
    let mut all = BTreeMap::new();
    if count > MOST {
        return Err(Fault(format!(
            "it says that it has {count} {what}s, and no plugin has more than {MOST}"
        )));
    }
    if count > 0 && list.is_null() {
        return Err(Fault(format!("the list of {what}s is null")));
    }
    for at in 0..count as usize {
        // SAFETY: the list has that many entries.
        let table = unsafe { copied(*list.add(at)) }?;
        let named = id_of(&table);
        if named.is_null() {
            return Err(Fault(format!("{what} {at} has no id")));
        }
        // SAFETY: a text that lives as long as the process, the header says.
        let id = unsafe { id(named) }?;
        if all.contains_key(&id) {
            return Err(Fault(format!("two {what}s have the id `{id}`")));
        }
        all.insert(id, table);
    }
    Ok(all)
}
