//! Sources.

use super::stage::{OfSource, table};
use super::{Instance, run};
use crate::abi;
use crate::abi::row::{Row, Slide as RawSlide};
use crate::abi::stage::{STEP_CLOSE, STEP_FAIL, STEP_GONE, STEP_TILE, Stage};
use crate::abi::status::{self, Status};
use crate::call::Call;
use crate::export::Declared;
use crate::source::{Buffer, SlideInfo, Source, SourceSlide, Step, Tile, Waker};
use std::cell::RefCell;
use std::ffi::c_void;

/// A slide with what was said of it, whose texts the host reads after the function returned.
struct Open<S> {
    info: SlideInfo,
    slide: S,
}

thread_local! {
    /// What `slide` said last: the host copies it before it asks on.
    static SAID: RefCell<SlideInfo> = RefCell::new(SlideInfo::default());
}

/// The table of a source.
pub const fn source<T: Declared + Source>() -> Stage {
    Stage {
        slide: Some(slide::<T>),
        open: Some(open::<T>),
        next: Some(next::<T>),
        read: Some(read::<T>),
        close: Some(close::<T>),
        ..table::<T, OfSource>()
    }
}

// As in `stage`: every function is called as weir_plugin.h says, which is the SAFETY of each of its blocks.

unsafe extern "C" fn slide<T: Declared + Source>(
    pointer: *mut c_void,
    call: *mut abi::Call,
    i: u64,
    out: *mut RawSlide,
) -> Status {
    // SAFETY: see above.
    let it = unsafe { Instance::<T>::of(pointer) };
    let body = || {
        // SAFETY: see above.
        let cx = unsafe { Call::new(it.host, call, T::OUTS, std::ptr::null()) };
        let Some(info) = it.body.slide(i, &cx)? else {
            return Ok(status::END);
        };
        SAID.with_borrow_mut(|said| {
            *said = info;
            // SAFETY: see above; the texts stay until the next call on this thread.
            unsafe { said.write(out) };
        });
        Ok(status::OK)
    };
    // SAFETY: see above.
    unsafe { run(it.host, call, Some(&it.spoiled), body) }
}

unsafe extern "C" fn open<T: Declared + Source>(
    pointer: *mut c_void,
    call: *mut abi::Call,
    i: u64,
    slide_key: *mut c_void,
    out: *mut RawSlide,
    handle: *mut *mut c_void,
) -> Status {
    // SAFETY: see above.
    let it = unsafe { Instance::<T>::of(pointer) };
    let body = || {
        // SAFETY: see above.
        let cx = unsafe { Call::new(it.host, call, T::OUTS, std::ptr::null()) };
        let (info, slide) = it.body.open(i, Waker::new(it.host, slide_key), &cx)?;
        let given = Instance::give(it.host, Open { info, slide });
        // SAFETY: see above; the texts live as long as the slide.
        unsafe {
            Instance::<Open<T::Slide>>::of(given).body.info.write(out);
            *handle = given;
        }
        Ok(status::OK)
    };
    // SAFETY: see above.
    unsafe { run(it.host, call, Some(&it.spoiled), body) }
}

unsafe extern "C" fn next<T: Declared + Source>(
    handle: *mut c_void,
    call: *mut abi::Call,
    out: *mut abi::stage::Step,
) -> Status {
    // SAFETY: see above.
    let it = unsafe { Instance::<Open<T::Slide>>::of(handle) };
    let body = || {
        // SAFETY: see above.
        let cx = unsafe { Call::new(it.host, call, T::OUTS, std::ptr::null()) };
        let (kind, tile) = match it.body.slide.next(&cx)? {
            Step::Tile(tile) => (STEP_TILE, tile),
            Step::Gone(tile) => (STEP_GONE, tile),
            Step::Fail(tile, error) => {
                // SAFETY: see above.
                unsafe { it.host.fail(call, &error) };
                (STEP_FAIL, tile)
            }
            Step::Close => (STEP_CLOSE, Tile::default()),
            Step::Idle => return Ok(status::IDLE),
            Step::End => return Ok(status::END),
        };
        // SAFETY: see above.
        unsafe {
            (*out).kind = kind;
            (*out).x = tile.x;
            (*out).y = tile.y;
            (*out).width = tile.width;
            (*out).height = tile.height;
        }
        Ok(status::OK)
    };
    // SAFETY: see above.
    unsafe { run(it.host, call, Some(&it.spoiled), body) }
}

unsafe extern "C" fn read<T: Declared + Source>(
    handle: *mut c_void,
    call: *mut abi::Call,
    row: *const Row,
    into: *mut c_void,
    len: usize,
) -> Status {
    // SAFETY: see above.
    let it = unsafe { Instance::<Open<T::Slide>>::of(handle) };
    let body = || {
        // SAFETY: see above; `into` is nobody else's until the function returns.
        let (cx, row, bytes) = unsafe {
            (
                Call::new(it.host, call, T::OUTS, std::ptr::null()),
                &*row,
                bytes(into.cast(), len),
            )
        };
        it.body.slide.read(row, Buffer::new(bytes), &cx)?;
        Ok(status::OK)
    };
    // SAFETY: see above.
    unsafe { run(it.host, call, Some(&it.spoiled), body) }
}

unsafe extern "C" fn close<T: Declared + Source>(handle: *mut c_void) {
    // SAFETY: see above; nothing is called any more.
    unsafe { Instance::<Open<T::Slide>>::take_back(handle) }
}

/// # Safety
/// `ptr` points to `len` bytes that nobody else uses for `'a`, or `len` is 0.
pub(super) unsafe fn bytes<'a>(ptr: *mut u8, len: usize) -> &'a mut [u8] {
    if ptr.is_null() || len == 0 {
        return &mut [];
    }
    // SAFETY: the caller's.
    unsafe { std::slice::from_raw_parts_mut(ptr, len) }
}
