//! What a child process offers a plugin: the functions of `weir_host`.
//!
//! Each checks what can be checked here, so that a plugin hears of its mistakes as it would in the host's process, and writes the
//! rest down. The host does over again whatever is written down, with its own functions and their checks.

use super::batch::{Lot, What};
use super::call::{ChildCall, Task};
use crate::isolate::answer::Deed;
use crate::isolate::message::row_bytes;
use crate::offer::{VERSION, list, said, text};
use std::ffi::{CStr, c_char, c_void};
use std::sync::Arc;
use weir_abi::Str;
use weir_abi::column::Batch;
use weir_abi::host::{Host, MetricsV1};
use weir_abi::row::{Key, Row};
use weir_abi::status::{self, Error, Status};
use weir_record::TileId;

/// The table that a plugin gets in a child process.
pub(super) static HOST: Host = Host {
    struct_size: size_of::<Host>() as u32,
    abi_minor: weir_abi::MINOR,
    version: VERSION.as_ptr(),
    extension: Some(extension),
    log: Some(log),
    fail: Some(fail),
    cancelled: Some(cancelled),
    batch_new: Some(batch_new),
    batch_for: Some(batch_for),
    batch_edit: Some(batch_edit),
    batch_retain: Some(batch_retain),
    batch_release: Some(batch_release),
    emit: Some(emit),
    pass: Some(pass),
    table: Some(table),
    skip: Some(skip),
    fail_row: Some(fail_row),
    complete: Some(complete),
    wake: Some(wake),
    folder: Some(folder),
};

static METRICS: MetricsV1 = MetricsV1 {
    struct_size: size_of::<MetricsV1>() as u32,
    reserved: 0,
    count: Some(count),
};

/// # Safety
/// It is null or a call that is not over.
unsafe fn call<'a>(of: *mut weir_abi::Call) -> Option<&'a ChildCall> {
    // SAFETY: the caller's; a call lives as long as it may be named.
    unsafe { of.cast::<ChildCall>().cast_const().as_ref() }
}

unsafe extern "C" fn extension(id: *const c_char) -> *const c_void {
    if id.is_null() {
        return std::ptr::null();
    }
    // SAFETY: a C string, the header says.
    match unsafe { CStr::from_ptr(id) }.to_bytes() {
        b"weir.metrics/1" => (&raw const METRICS).cast(),
        _ => std::ptr::null(),
    }
}

unsafe extern "C" fn count(of: *mut weir_abi::Call, name: Str, by: u64) {
    // SAFETY: the header's rules for calls and strings.
    unsafe {
        if let Some(call) = call(of) {
            let name = text(name);
            call.note(Deed::Count { name, by });
        }
    }
}

unsafe extern "C" fn log(of: *mut weir_abi::Call, level: i32, line: Str) {
    // SAFETY: the header's rules for calls and strings.
    unsafe {
        if let Some(call) = call(of) {
            call.line(level, &text(line));
        }
    }
}

unsafe extern "C" fn fail(of: *mut weir_abi::Call, error: *const Error) {
    // SAFETY: the header's rules for calls and errors.
    unsafe {
        if let Some(call) = call(of) {
            call.note(Deed::Fail(said(error)));
        }
    }
}

unsafe extern "C" fn cancelled(of: *mut weir_abi::Call) -> i32 {
    // SAFETY: the header's rules for calls.
    unsafe { call(of) }.map_or(0, |call| i32::from(call.world.stopped()))
}

fn handed(lot: Result<Arc<Lot>, String>, call: &ChildCall) -> *mut Batch {
    match lot {
        Ok(lot) => {
            lot.belongs_to(call.number);
            Lot::into_ptr(lot)
        }
        Err(what) => {
            call.breach(what);
            std::ptr::null_mut()
        }
    }
}

fn of_rows(call: &ChildCall, port: u32, source: &[u32]) -> Result<Arc<Lot>, String> {
    let Task::Rows(input) = &call.task else {
        return Err("it called batch_new() in a call that has no input".into());
    };
    input.check(source)?;
    let rows = source
        .iter()
        .map(|&row| input.rows()[row as usize])
        .collect();
    let what = What::Rows(source.to_vec());
    call.fresh(port, what, rows, input.slides().clone())
}

fn of_tiles(call: &ChildCall, port: u32, slide: u64, tiles: &[u64]) -> Result<Arc<Lot>, String> {
    let Task::Slide(slides) = &call.task else {
        return Err("it called batch_for(), which is for a reduce".into());
    };
    let about = slides
        .first()
        .filter(|about| about.number == slide)
        .ok_or_else(|| format!("it made rows of slide {slide}, which is not open"))?;
    let rows = tiles.iter().map(|&tile| {
        let mut row = Row {
            key: Key {
                slide,
                tile,
                rev: 0,
                source: 0,
            },
            ..Row::default()
        };
        let tile = TileId::from_word(tile);
        if tile != TileId::SLIDE {
            (row.x, row.y) = (tile.x(), tile.y());
            (row.footprint, row.mpp) = (about.tile_footprint, about.tile_mpp);
        }
        row
    });
    let what = What::Tiles {
        slide,
        tiles: tiles.to_vec(),
    };
    call.fresh(port, what, rows.collect(), slides.clone())
}

fn edited(call: &ChildCall, port: u32) -> Result<Arc<Lot>, String> {
    let Task::Rows(input) = &call.task else {
        return Err("it called batch_edit() in a call that has no input".into());
    };
    let output = call.output(port)?;
    if output.kind != weir_pipeline::Kind::Pixels {
        return Err(format!(
            "output `{}` carries {}, and only pixels are edited in place",
            output.name,
            output.kind.name()
        ));
    }
    let source: Vec<u32> = (0..input.rows().len() as u32).collect();
    let lot = of_rows(call, port, &source)?;
    let differs = || format!("output `{}` has another type than the input", output.name);
    let ([from], [to]) = (input.columns(), lot.columns()) else {
        return Err(differs());
    };
    // SAFETY: both columns are this process's own and say how many sides a row has.
    let shapes = unsafe {
        (
            std::slice::from_raw_parts(from.shape, from.ndim as usize),
            std::slice::from_raw_parts(to.shape, to.ndim as usize),
        )
    };
    if from.dtype != to.dtype || shapes.0 != shapes.1 {
        return Err(differs());
    }
    let bytes = row_bytes(to.dtype, shapes.1).ok_or_else(differs)?;
    for row in 0..source.len() {
        // SAFETY: both have that many rows of that many bytes, in different memory.
        unsafe {
            let (from, to) = (*from.rows.add(row), *to.rows.add(row));
            std::ptr::copy_nonoverlapping(from.cast::<u8>(), to.cast::<u8>(), bytes);
        }
    }
    Ok(lot)
}

unsafe extern "C" fn batch_new(
    of: *mut weir_abi::Call,
    port: u32,
    n_rows: u32,
    source: *const u32,
) -> *mut Batch {
    // SAFETY: the header's rules: a call, and a list of `n_rows`.
    let (call, source) = unsafe { (call(of), list(source, n_rows)) };
    let (Some(call), Some(source)) = (call, source) else {
        return std::ptr::null_mut();
    };
    handed(of_rows(call, port, source), call)
}

unsafe extern "C" fn batch_for(
    of: *mut weir_abi::Call,
    port: u32,
    slide: u64,
    n_rows: u32,
    tiles: *const u64,
) -> *mut Batch {
    // SAFETY: the header's rules: a call, and a list of `n_rows`.
    let (call, tiles) = unsafe { (call(of), list(tiles, n_rows)) };
    let (Some(call), Some(tiles)) = (call, tiles) else {
        return std::ptr::null_mut();
    };
    handed(of_tiles(call, port, slide, tiles), call)
}

unsafe extern "C" fn batch_edit(of: *mut weir_abi::Call, port: u32) -> *mut Batch {
    // SAFETY: the header's rules for calls.
    match unsafe { call(of) } {
        Some(call) => handed(edited(call, port), call),
        None => std::ptr::null_mut(),
    }
}

unsafe extern "C" fn batch_retain(batch: *const Batch) {
    if !batch.is_null() {
        // SAFETY: every batch that a plugin knows here is a `Lot` of which somebody holds a reference.
        unsafe { Arc::increment_strong_count(Lot::of(batch)) }
    }
}

unsafe extern "C" fn batch_release(batch: *const Batch) {
    if !batch.is_null() {
        // SAFETY: as above, and the reference that ends here is the caller's.
        unsafe { Arc::decrement_strong_count(Lot::of(batch)) }
    }
}

unsafe extern "C" fn emit(of: *mut weir_abi::Call, port: u32, batch: *mut Batch) -> Status {
    // SAFETY: the header's rules for calls.
    let call = unsafe { call(of) };
    if batch.is_null() {
        return call.map_or(status::USE, |call| call.breach("it emitted a null batch"));
    }
    // SAFETY: the caller gives up one reference, also when this fails.
    let lot = unsafe { Arc::from_raw(Lot::of(batch)) };
    let Some(call) = call else { return status::USE };
    if !lot.is_of(call.number) {
        return call.breach("it emitted a batch that it made in another call");
    }
    let deed = match lot.emit(port) {
        Ok((What::Rows(source), columns)) => Deed::Rows {
            port,
            source: source.clone(),
            columns: columns.to_vec(),
        },
        Ok((What::Tiles { slide, tiles }, columns)) => Deed::Tiles {
            port,
            slide: *slide,
            tiles: tiles.clone(),
            columns: columns.to_vec(),
        },
        Err(what) => return call.breach(what),
    };
    call.tell(deed, Some(lot))
}

unsafe extern "C" fn pass(
    of: *mut weir_abi::Call,
    port: u32,
    rows: *const u32,
    n_rows: u32,
) -> Status {
    // SAFETY: the header's rules: a call, and a list of `n_rows`.
    let (call, rows) = unsafe { (call(of), list(rows, n_rows)) };
    let (Some(call), Some(rows)) = (call, rows) else {
        return status::USE;
    };
    let Task::Rows(input) = &call.task else {
        return call.breach("it called pass() in a call that has no input");
    };
    match call.output(port).and_then(|_| input.check(rows)) {
        Ok(()) => {
            let rows = rows.to_vec();
            call.tell(Deed::Pass { port, rows }, None)
        }
        Err(what) => call.breach(what),
    }
}

unsafe extern "C" fn table(
    of: *mut weir_abi::Call,
    port: u32,
    source: u32,
    bytes: *const c_void,
    len: usize,
) -> Status {
    // SAFETY: the header's rules for calls.
    let Some(call) = (unsafe { call(of) }) else {
        return status::USE;
    };
    if bytes.is_null() && len > 0 {
        return call.breach("it gave a table of null");
    }
    let bytes = match len {
        0 => &[],
        // SAFETY: `len` bytes, the header says; they are copied.
        len => unsafe { std::slice::from_raw_parts(bytes.cast::<u8>(), len) },
    };
    let deed = Deed::Table {
        port,
        source,
        bytes: bytes.to_vec(),
    };
    call.tell(deed, None)
}

/// That a call has such a row; else what the function returns.
fn row(call: &ChildCall, at: u32) -> Result<u32, Status> {
    let Task::Rows(input) = &call.task else {
        return Err(call.breach("it spoke of a row in a call that has no input"));
    };
    match input.check(&[at]) {
        Ok(()) => Ok(at),
        Err(what) => Err(call.breach(what)),
    }
}

unsafe extern "C" fn skip(of: *mut weir_abi::Call, at: u32, reason: Str) -> Status {
    // SAFETY: the header's rules for calls and strings.
    unsafe {
        let Some(call) = call(of) else {
            return status::USE;
        };
        match row(call, at) {
            Ok(row) => {
                let reason = text(reason);
                call.tell(Deed::Skip { row, reason }, None)
            }
            Err(status) => status,
        }
    }
}

unsafe extern "C" fn fail_row(of: *mut weir_abi::Call, at: u32, error: *const Error) -> Status {
    // SAFETY: the header's rules for calls and errors.
    unsafe {
        let Some(call) = call(of) else {
            return status::USE;
        };
        match row(call, at) {
            Ok(row) => {
                let said = said(error);
                call.tell(Deed::FailRow { row, said }, None)
            }
            Err(status) => status,
        }
    }
}

unsafe extern "C" fn complete(of: *mut weir_abi::Call, said: Status) {
    if of.is_null() {
        return;
    }
    let of = of.cast::<ChildCall>().cast_const();
    // SAFETY: the call is not over before this; a reference of its own keeps it until nothing here needs it.
    let call = unsafe {
        Arc::increment_strong_count(of);
        Arc::from_raw(of)
    };
    call.complete(said);
}

unsafe extern "C" fn wake(slide_key: *mut c_void) {
    // A source of a plugin is asked again after a while in any case; it has no bell to ring.
    let _ = slide_key;
}

unsafe extern "C" fn folder(of: *mut weir_abi::Call) -> Str {
    // SAFETY: the header's rules for calls.
    match unsafe { call(of) } {
        Some(call) => Str::new(call.world.folder()),
        None => Str::EMPTY,
    }
}
