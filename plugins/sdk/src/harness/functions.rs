//! The host's functions.

use super::about::Port;
use super::call::{CallBox, State, lock};
use super::done::{Line, OutRow};
use super::memory::{HostBatch, Origin, RowMemory, Spec, Store};
use crate::abi;
use crate::abi::column::{Batch, Dtype};
use crate::abi::desk::{Desk, Said};
use crate::abi::host::Host;
use crate::abi::row::{Key, Row};
use crate::abi::status::Status;
use crate::error::Error;
use std::collections::BTreeSet;
use std::ffi::CStr;
use std::sync::MutexGuard;
use std::sync::atomic::Ordering;

/// The harness's table.
pub(super) static HOST: Host = abi::desk::host::<&'static CallBox>();

fn error(said: Said) -> Error {
    Error::new(said.what).of_param(said.param).help(said.help)
}

/// That a row was made of one row of the input more than once, in the host's words.
fn twice(row: u32) -> String {
    format!("it made two rows of row {row} on one output")
}

/// The columns of output `port`.
fn specs(call: &CallBox, port: u32) -> Result<&Vec<Spec>, String> {
    call.outs
        .get(port as usize)
        .ok_or_else(|| format!("it used output {port}, which the stage does not have"))
}

fn is_of_type(batch: &HostBatch, specs: &[Spec]) -> bool {
    batch.columns.iter().map(|column| &column.spec).eq(specs)
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

/// The state of a call that is open.
fn open<'a>(call: &'a CallBox, function: &str) -> Result<MutexGuard<'a, State>, String> {
    let state = lock(&call.state);
    match state.closed {
        false => Ok(state),
        true => Err(format!("it called {function}() after the call had ended")),
    }
}

/// The same, when there is such a row of its input.
fn with_row<'a>(
    call: &'a CallBox,
    row: u32,
    function: &str,
) -> Result<MutexGuard<'a, State>, String> {
    let state = open(call, function)?;
    let n_rows = call.input().map_or(0, |input| input.rows.len());
    match (row as usize) < n_rows {
        true => Ok(state),
        false => Err(format!(
            "it called {function}() for row {row}, of {n_rows} rows"
        )),
    }
}

impl CallBox {
    /// What the manifest says of output `port`.
    fn output(&self, port: u32) -> Option<&Port> {
        self.about.as_ref()?.outs.get(port as usize)
    }

    /// Whether a reduce may make rows of these tiles: in the host's words where it may not.
    fn check_tiles(&self, port: u32, slide: u64, tiles: &[u64]) -> Result<(), String> {
        let mut seen = BTreeSet::new();
        if !tiles.iter().all(|tile| seen.insert(tile)) {
            return Err("it gave a tile two rows on one output".into());
        }
        let Some(out) = self.output(port) else {
            return Ok(());
        };
        if matches!(out.kind.as_str(), "pixels" | "table") {
            return Err(format!(
                "it called batch_for() for output `{}`, which carries {}",
                out.name, out.kind
            ));
        }
        let of_slide = matches!(out.kind.as_str(), "bag" | "predictions");
        let given = lock(&self.shared.given);
        for &tile in tiles {
            if of_slide != (tile == abi::row::TILE_SLIDE) {
                return Err(format!(
                    "output `{}` carries {}, whose rows are {}",
                    out.name,
                    out.kind,
                    if of_slide {
                        "the slide's: their tile is WEIR_TILE_SLIDE"
                    } else {
                        "tiles'"
                    }
                ));
            }
            if !of_slide && !given.iter().any(|it| (it.1, it.2) == (slide, tile)) {
                return Err(format!(
                    "it made a row of a tile that it was not given, {tile:#x}"
                ));
            }
        }
        Ok(())
    }
}

impl Desk for &'static CallBox {
    const VERSION: &'static CStr = c"weir-plugin's harness";

    unsafe fn find(call: *mut abi::Call) -> Option<Self> {
        // SAFETY: a call that the harness gave, of which none is ever freed.
        (!call.is_null()).then(|| unsafe { CallBox::of(call) })
    }

    fn breach(&self, what: String) -> Status {
        let mut state = lock(&self.state);
        if state.closed {
            lock(&self.shared.faults).push(what.clone());
        }
        state.faults.push(what);
        abi::status::USE
    }

    fn log(&self, level: i32, text: &str) {
        lock(&self.shared.log).push(Line {
            level,
            text: text.to_owned(),
        });
    }

    fn fail(&self, said: Said) {
        let told = open(self, "fail").map(|mut state| state.error = Some(error(said)));
        if let Err(what) = told {
            self.breach(what);
        }
    }

    // A call that is gone has nothing to go on for.
    fn cancelled(&self) -> bool {
        let state = lock(&self.state);
        let gone = state.closed || state.completed.is_some();
        gone || self.shared.cancelled.load(Ordering::SeqCst)
    }

    fn count(&self, name: &str, by: u64) {
        *lock(&self.shared.counters)
            .entry(name.to_owned())
            .or_default() += by;
    }

    fn folder(&self) -> abi::Str {
        abi::Str::new(&self.shared.folder)
    }

    fn batch_new(&self, port: u32, source: &[u32]) -> Result<*mut Batch, String> {
        let mut state = open(self, "batch_new")?;
        let input = self.input().ok_or(
            "it called batch_new() where there is no input batch: batch_for() is for reduces",
        )?;
        let specs = specs(self, port)?;
        if let [Spec { shape, .. }] = &specs[..]
            && shape.contains(&-1)
        {
            return Err("it called batch_new() for a table: table() is for those".into());
        }
        for &row in source {
            let rows = input.rows.len();
            if row as usize >= rows {
                return Err(format!("it made a batch of row {row}, of {rows} rows"));
            }
            if !state.made.insert((port, row)) {
                return Err(twice(row));
            }
        }
        let rows = source.iter().map(|row| input.rows[*row as usize]).collect();
        let origins = source.iter().map(|row| Origin::Input(*row)).collect();
        let columns = fresh(specs, source.len());
        let (live, slides) = (&self.shared.live, input.slides.clone());
        Ok(HostBatch::give(
            live, port, rows, slides, columns, origins, true,
        ))
    }

    fn batch_for(&self, port: u32, slide: u64, tiles: &[u64]) -> Result<*mut Batch, String> {
        let _open = open(self, "batch_for")?;
        let turn = self.turn.as_ref().filter(|turn| turn.raw.number == slide);
        let turn = turn.ok_or_else(|| {
            format!("it called batch_for() for slide {slide}, whose turn it is not")
        })?;
        let specs = specs(self, port)?;
        self.check_tiles(port, slide, tiles)?;
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
        let live = &self.shared.live;
        Ok(HostBatch::give(
            live,
            port,
            rows,
            vec![turn.clone()],
            columns,
            origins,
            true,
        ))
    }

    fn batch_edit(&self, port: u32) -> Result<*mut Batch, String> {
        let mut state = open(self, "batch_edit")?;
        let input = self
            .input()
            .ok_or("it called batch_edit() where there is no input batch")?;
        if let Some(out) = self.output(port)
            && out.kind != "pixels"
        {
            return Err(format!(
                "output `{}` carries {}, and only pixels are edited in place",
                out.name, out.kind
            ));
        }
        if !is_of_type(input, specs(self, port)?) {
            return Err(format!(
                "it asked to edit the input for output {port}, which is of another type"
            ));
        }
        for row in 0..input.rows.len() as u32 {
            if !state.made.insert((port, row)) {
                return Err(twice(row));
            }
        }
        let columns = input.columns.iter().map(|column| Store {
            spec: column.spec.clone(),
            rows: column
                .rows
                .iter()
                .map(|row| RowMemory::copy_of(row.bytes()))
                .collect(),
        });
        let (columns, origins) = (columns.collect(), input.origins.clone());
        let (live, rows, slides) = (&self.shared.live, input.rows.clone(), input.slides.clone());
        Ok(HostBatch::give(
            live, port, rows, slides, columns, origins, true,
        ))
    }

    unsafe fn retain(batch: *const Batch) {
        // SAFETY: the caller's.
        unsafe { HostBatch::of(batch) }.retain();
    }

    unsafe fn release(batch: *const Batch) {
        // SAFETY: the caller's.
        unsafe { HostBatch::release(batch.cast_mut()) }
    }

    unsafe fn emit(&self, port: u32, batch: *mut Batch) -> Result<(), String> {
        // SAFETY: the caller's.
        let handed = unsafe { HostBatch::of(batch) };
        let said = open(self, "emit").and_then(|mut state| match handed.port == port {
            true => {
                take_rows(&mut state, handed, port);
                Ok(())
            }
            false => Err(format!(
                "it emitted a batch of output {} on output {port}",
                handed.port
            )),
        });
        // SAFETY: emit() takes the reference, also on error.
        unsafe { HostBatch::release(batch) };
        said
    }

    fn pass(&self, port: u32, rows: &[u32]) -> Result<(), String> {
        let mut state = open(self, "pass")?;
        let input = self
            .input()
            .ok_or("it called pass() where there is no input batch")?;
        if !is_of_type(input, specs(self, port)?) {
            return Err(format!(
                "it passed rows on output {port}, which is of another type than the input"
            ));
        }
        for &row in rows {
            let place = input
                .rows
                .get(row as usize)
                .ok_or_else(|| format!("it passed row {row}, of {} rows", input.rows.len()))?;
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
        Ok(())
    }

    fn table(&self, port: u32, source: u32, bytes: &[u8]) -> Result<(), String> {
        let mut state = open(self, "table")?;
        let (origin, row) = match (self.input(), &self.turn) {
            (Some(input), _) if (source as usize) < input.rows.len() => {
                (Origin::Input(source), input.rows[source as usize])
            }
            (_, Some(turn)) if source == u32::MAX => {
                let key = Key {
                    slide: turn.raw.number,
                    tile: abi::row::TILE_SLIDE,
                    ..Key::default()
                };
                let row = Row {
                    key,
                    ..Row::default()
                };
                (Origin::Slide, row)
            }
            _ => {
                return Err(format!(
                    "it made a table of row {source}, which there is not"
                ));
            }
        };
        let spec = Spec::new("bytes", Dtype::U8, &[-1]);
        if *specs(self, port)? != [spec.clone()] {
            return Err(format!(
                "it called table() for output {port}, which is none"
            ));
        }
        state.out.push(OutRow {
            port,
            origin,
            row,
            values: vec![(spec, RowMemory::copy_of(bytes))],
        });
        Ok(())
    }

    fn skip(&self, row: u32, reason: &str) -> Result<(), String> {
        let mut state = with_row(self, row, "skip")?;
        state.skipped.push((row as usize, reason.to_owned()));
        Ok(())
    }

    fn fail_row(&self, row: u32, said: Said) -> Result<(), String> {
        let mut state = with_row(self, row, "fail_row")?;
        state.failed.push((row as usize, error(said)));
        Ok(())
    }

    fn complete(&self, status: Status) {
        let told = open(self, "complete").map(|mut state| {
            if state.completed.replace(status).is_some() {
                state.faults.push("it completed the call twice".into());
            }
        });
        match told {
            Ok(()) => self.ended.notify_all(),
            Err(what) => {
                self.breach(what);
            }
        }
    }
}
