//! The host's functions.

use super::call::{CallBox, SlideKey, State, lock};
use super::done::{Line, OutRow};
use super::memory::{HostBatch, Origin, RowMemory, Spec, Store};
use crate::abi;
use crate::abi::Call;
use crate::abi::column::{Batch, Dtype};
use crate::abi::host::{Host, MetricsV1};
use crate::abi::row::{Key, Row};
use crate::abi::status::{self, Status};
use crate::error::Error;
use crate::host::{slice, text};
use std::ffi::{CStr, c_char, c_void};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The harness's table, and its only extension.
pub(super) struct Table(pub Host);

// SAFETY: the table is constant.
unsafe impl Sync for Table {}

pub(super) static HOST: Table = Table(Host {
    struct_size: size_of::<Host>() as u32,
    abi_minor: abi::MINOR,
    version: c"weir-plugin's harness".as_ptr(),
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
});

static METRICS: MetricsV1 = MetricsV1 {
    struct_size: size_of::<MetricsV1>() as u32,
    reserved: 0,
    count: Some(count),
};

// Every function below is called by a plugin, as weir_plugin.h says: `call` is one that the harness gave, which it never frees while it
// lives, and what else is handed over lives until the function returns. That is the SAFETY of each block.

unsafe extern "C" fn extension(id: *const c_char) -> *const c_void {
    // SAFETY: see above.
    match unsafe { CStr::from_ptr(id) } {
        id if id == c"weir.metrics/1" => (&raw const METRICS).cast(),
        _ => std::ptr::null(),
    }
}

unsafe extern "C" fn count(call: *mut Call, name: abi::Str, by: u64) {
    // SAFETY: see above.
    let (call, name) = unsafe { (CallBox::of(call), text(name)) };
    *lock(&call.shared.counters)
        .entry(name.to_owned())
        .or_default() += by;
}

unsafe extern "C" fn log(call: *mut Call, level: i32, line: abi::Str) {
    // SAFETY: see above.
    let (call, line) = unsafe { (CallBox::of(call), text(line)) };
    lock(&call.shared.log).push(Line {
        level,
        text: line.to_owned(),
    });
}

/// # Safety
/// `error` points to an error that lives.
unsafe fn error_of(error: *const abi::status::Error) -> Error {
    // SAFETY: the caller's.
    let (message, param, help) = unsafe {
        (
            text((*error).message),
            text((*error).param),
            text((*error).help),
        )
    };
    Error::new(message).of_param(param).help(help)
}

unsafe extern "C" fn fail(call: *mut Call, error: *const abi::status::Error) {
    // SAFETY: see above.
    let (call, error) = unsafe { (CallBox::of(call), error_of(error)) };
    if let Some(mut state) = call.open_state("fail") {
        state.error = Some(error);
    }
}

unsafe extern "C" fn cancelled(call: *mut Call) -> i32 {
    // SAFETY: see above.
    let call = unsafe { CallBox::of(call) };
    call.shared.cancelled.load(Ordering::SeqCst).into()
}

/// The port's columns, or the fault that there is no such port.
fn specs<'a>(call: &'a CallBox, state: &mut State, port: u32) -> Option<&'a Vec<Spec>> {
    let specs = call.outs.get(port as usize);
    if specs.is_none() {
        state.faults.push(format!(
            "it used output {port}, which the stage does not have"
        ));
    }
    specs
}

fn fresh(specs: &[Spec], n_rows: usize) -> Vec<Store> {
    let store = |spec: &Spec| Store {
        spec: spec.clone(),
        rows: (0..n_rows)
            .map(|_| RowMemory::fresh(spec.bytes()))
            .collect(),
    };
    specs.iter().map(store).collect()
}

unsafe extern "C" fn batch_new(
    call: *mut Call,
    port: u32,
    n_rows: u32,
    source: *const u32,
) -> *mut Batch {
    // SAFETY: see above.
    let (call, source) = unsafe { (CallBox::of(call), slice(source, n_rows)) };
    let none = std::ptr::null_mut();
    let Some(mut state) = call.open_state("batch_new") else {
        return none;
    };
    let Some(input) = call.input() else {
        state.faults.push(
            "it called batch_new() where there is no input batch: batch_for() is for reduces"
                .into(),
        );
        return none;
    };
    let Some(specs) = specs(call, &mut state, port) else {
        return none;
    };
    if let [Spec { shape, .. }] = &specs[..]
        && shape.contains(&-1)
    {
        state
            .faults
            .push("it called batch_new() for a table: table() is for those".into());
        return none;
    }
    for &row in source {
        if row as usize >= input.rows.len() {
            state.faults.push(format!(
                "it made a batch of row {row}, of {} rows",
                input.rows.len()
            ));
            return none;
        }
        if !state.made.insert((port, row)) {
            state.faults.push(format!(
                "it made a batch of row {row} twice for output {port}"
            ));
            return none;
        }
    }
    let rows = source.iter().map(|row| input.rows[*row as usize]).collect();
    let origins = source.iter().map(|row| Origin::Input(*row)).collect();
    let columns = fresh(specs, source.len());
    let (live, slides) = (&call.shared.live, input.slides.clone());
    HostBatch::give(live, port, rows, slides, columns, origins, true)
}

unsafe extern "C" fn batch_for(
    call: *mut Call,
    port: u32,
    slide: u64,
    n_rows: u32,
    tiles: *const u64,
) -> *mut Batch {
    // SAFETY: see above.
    let (call, tiles) = unsafe { (CallBox::of(call), slice(tiles, n_rows)) };
    let none = std::ptr::null_mut();
    let Some(mut state) = call.open_state("batch_for") else {
        return none;
    };
    let Some(turn) = call.turn.as_ref().filter(|turn| turn.raw.number == slide) else {
        state.faults.push(format!(
            "it called batch_for() for slide {slide}, whose turn it is not"
        ));
        return none;
    };
    let Some(specs) = specs(call, &mut state, port) else {
        return none;
    };
    let rows = tiles.iter().map(|tile| Row {
        key: Key {
            slide,
            tile: *tile,
            ..Key::default()
        },
        ..Row::default()
    });
    let (rows, columns) = (rows.collect(), fresh(specs, tiles.len()));
    let origins = vec![Origin::Slide; tiles.len()];
    let live = &call.shared.live;
    HostBatch::give(live, port, rows, vec![turn.clone()], columns, origins, true)
}

unsafe extern "C" fn batch_edit(call: *mut Call, port: u32) -> *mut Batch {
    // SAFETY: see above.
    let call = unsafe { CallBox::of(call) };
    let none = std::ptr::null_mut();
    let Some(mut state) = call.open_state("batch_edit") else {
        return none;
    };
    let (Some(input), Some(specs)) = (call.input(), specs(call, &mut state, port)) else {
        return none;
    };
    if !input.columns.iter().map(|column| &column.spec).eq(specs) {
        state.faults.push(format!(
            "it asked to edit the input for output {port}, which is of another type"
        ));
        return none;
    }
    let alone = input.references() == 1;
    let edit = |row: &Arc<RowMemory>| match alone && Arc::strong_count(row) == 1 {
        true => row.clone(),
        false => RowMemory::copy_of(row.bytes()),
    };
    let columns = input.columns.iter().map(|column| Store {
        spec: column.spec.clone(),
        rows: column.rows.iter().map(edit).collect(),
    });
    state.edited = true;
    let (columns, origins) = (columns.collect(), input.origins.clone());
    let (live, rows, slides) = (&call.shared.live, input.rows.clone(), input.slides.clone());
    HostBatch::give(live, port, rows, slides, columns, origins, true)
}

unsafe extern "C" fn batch_retain(batch: *const Batch) {
    // SAFETY: see above.
    unsafe { HostBatch::of(batch) }.retain();
}

unsafe extern "C" fn batch_release(batch: *const Batch) {
    // SAFETY: see above.
    unsafe { HostBatch::release(batch.cast_mut()) }
}

unsafe extern "C" fn emit(call: *mut Call, port: u32, batch: *mut Batch) -> Status {
    // SAFETY: see above.
    let (call, handed) = unsafe { (CallBox::of(call), HostBatch::of(batch)) };
    let status = match call.open_state("emit") {
        Some(mut state) if handed.port != port => {
            state.faults.push(format!(
                "it emitted a batch of output {} on output {port}",
                handed.port
            ));
            status::USE
        }
        Some(mut state) => {
            take_rows(&mut state, handed, port);
            status::OK
        }
        None => status::USE,
    };
    // SAFETY: emit() takes the reference, also on error.
    unsafe { HostBatch::release(batch) };
    status
}

fn take_rows(state: &mut State, batch: &HostBatch, port: u32) {
    if !batch.is_whole() {
        state
            .faults
            .push(format!("it wrote outside of a row on output {port}"));
    }
    for (i, (row, origin)) in batch.rows.iter().zip(&batch.origins).enumerate() {
        let mut values = Vec::with_capacity(batch.columns.len());
        for column in &batch.columns {
            let memory = &column.rows[i];
            if !is_finite(column.spec.dtype, memory.bytes()) {
                state.faults.push(format!(
                    "column `{}` of row {i} has a number that is not finite, or was not written",
                    column.spec.name
                ));
            }
            values.push((column.spec.clone(), memory.clone()));
        }
        state.out.push(OutRow {
            port,
            origin: *origin,
            row: *row,
            values,
        });
    }
}

fn is_finite(dtype: Dtype, bytes: &[u8]) -> bool {
    match dtype {
        Dtype::F32 => bytes
            .as_chunks::<4>()
            .0
            .iter()
            .all(|it| f32::from_ne_bytes(*it).is_finite()),
        Dtype::F64 => bytes
            .as_chunks::<8>()
            .0
            .iter()
            .all(|it| f64::from_ne_bytes(*it).is_finite()),
        _ => true,
    }
}

unsafe extern "C" fn pass(call: *mut Call, port: u32, rows: *const u32, n_rows: u32) -> Status {
    // SAFETY: see above.
    let (call, rows) = unsafe { (CallBox::of(call), slice(rows, n_rows)) };
    let Some(mut state) = call.open_state("pass") else {
        return status::USE;
    };
    let (Some(input), Some(specs)) = (call.input(), specs(call, &mut state, port)) else {
        return status::USE;
    };
    if !input.columns.iter().map(|column| &column.spec).eq(specs) {
        state.faults.push(format!(
            "it passed rows on output {port}, which is of another type than the input"
        ));
        return status::USE;
    }
    for &row in rows {
        let Some(place) = input.rows.get(row as usize) else {
            state
                .faults
                .push(format!("it passed row {row}, of {} rows", input.rows.len()));
            return status::USE;
        };
        let values = input
            .columns
            .iter()
            .map(|column| (column.spec.clone(), column.rows[row as usize].clone()));
        let out = OutRow {
            port,
            origin: Origin::Input(row),
            row: *place,
            values: values.collect(),
        };
        state.out.push(out);
    }
    status::OK
}

unsafe extern "C" fn table(
    call: *mut Call,
    port: u32,
    source: u32,
    bytes: *const c_void,
    len: usize,
) -> Status {
    // SAFETY: see above.
    let (call, bytes) = unsafe {
        (
            CallBox::of(call),
            abi::Str {
                ptr: bytes.cast(),
                len,
            }
            .bytes(),
        )
    };
    let Some(mut state) = call.open_state("table") else {
        return status::USE;
    };
    let (origin, row) = match (call.input(), &call.turn) {
        (Some(input), _) if (source as usize) < input.rows.len() => {
            (Origin::Input(source), input.rows[source as usize])
        }
        (_, Some(turn)) if source == u32::MAX => {
            let key = Key {
                slide: turn.raw.number,
                tile: abi::row::TILE_SLIDE,
                ..Key::default()
            };
            (
                Origin::Slide,
                Row {
                    key,
                    ..Row::default()
                },
            )
        }
        _ => {
            state.faults.push(format!(
                "it made a table of row {source}, which there is not"
            ));
            return status::USE;
        }
    };
    let spec = Spec::new("bytes", Dtype::U8, &[-1]);
    match specs(call, &mut state, port) {
        Some(specs) if *specs == [spec.clone()] => {
            let values = vec![(spec, RowMemory::copy_of(bytes))];
            state.out.push(OutRow {
                port,
                origin,
                row,
                values,
            });
            status::OK
        }
        Some(_) => {
            state.faults.push(format!(
                "it called table() for output {port}, which is none"
            ));
            status::USE
        }
        None => status::USE,
    }
}

/// The call's state, when there is such a row of its input.
fn with_row(call: &CallBox, row: u32, what: &str, note: impl FnOnce(&mut State)) -> Status {
    let Some(mut state) = call.open_state(what) else {
        return status::USE;
    };
    let n_rows = call.input().map_or(0, |input| input.rows.len());
    if row as usize >= n_rows {
        state.faults.push(format!(
            "it called {what}() for row {row}, of {n_rows} rows"
        ));
        return status::USE;
    }
    note(&mut state);
    status::OK
}

unsafe extern "C" fn skip(call: *mut Call, row: u32, reason: abi::Str) -> Status {
    // SAFETY: see above.
    let (call, reason) = unsafe { (CallBox::of(call), text(reason)) };
    with_row(call, row, "skip", |state| {
        state.skipped.push((row as usize, reason.to_owned()));
    })
}

unsafe extern "C" fn fail_row(
    call: *mut Call,
    row: u32,
    error: *const abi::status::Error,
) -> Status {
    // SAFETY: see above.
    let (call, error) = unsafe { (CallBox::of(call), error_of(error)) };
    with_row(call, row, "fail_row", |state| {
        state.failed.push((row as usize, error))
    })
}

unsafe extern "C" fn complete(call: *mut Call, status: Status) {
    // SAFETY: see above.
    let call = unsafe { CallBox::of(call) };
    let Some(mut state) = call.open_state("complete") else {
        return;
    };
    if state.completed.replace(status).is_some() {
        state.faults.push("it completed the call twice".into());
    }
    call.ended.notify_all();
}

unsafe extern "C" fn wake(key: *mut c_void) {
    // SAFETY: see above: the slide is open.
    let key = unsafe { SlideKey::of(key) };
    *lock(&key.woken) = true;
    key.bell.notify_all();
}

unsafe extern "C" fn folder(call: *mut Call) -> abi::Str {
    // SAFETY: see above.
    let call = unsafe { CallBox::of(call) };
    abi::Str::new(&call.shared.folder)
}
