//! What a child process offers a plugin: the functions of `weir_host`.
//!
//! Each checks what can be checked here, so that a plugin hears of its mistakes as it would in the host's process, and writes the
//! rest down. The host does over again whatever is written down, with its own functions and their checks.

use super::batch::{Lot, What};
use super::call::{At, COMPLETED, ChildCall, Task, World};
use crate::batch::live::{Noted, References};
use crate::columns::row_bytes;
use crate::isolate::answer::{Deed, Spots};
use crate::offer::{LENT, VERSION};
use std::ffi::CStr;
use std::sync::{Arc, PoisonError};
use weir_abi::Str;
use weir_abi::column::Batch;
use weir_abi::desk::{Desk, Said};
use weir_abi::host::Host;
use weir_abi::row::{Key, Row};
use weir_abi::status::{self, Status};
use weir_pipeline::Kind;
use weir_record::TileId;

/// The table that a plugin gets in a child process.
pub(super) static HOST: Host = weir_abi::desk::host::<At>();

fn of_rows(call: &ChildCall, port: u32, source: &[u32]) -> Result<Arc<Lot>, String> {
    let Task::Rows(input, asked) = &call.task else {
        return Err("it called batch_new() in a call that has no input".into());
    };
    call.output(port)?;
    input.check(source)?;
    asked.lock().unwrap_or_else(PoisonError::into_inner).note(
        port as usize,
        input.rows().len() as u32,
        source,
    )?;
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
    let Task::Rows(input, _) = &call.task else {
        return Err("it called batch_edit() in a call that has no input".into());
    };
    let output = call.output(port)?;
    if output.kind != Kind::Pixels {
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

impl At {
    fn call(&self) -> Result<&ChildCall, String> {
        match self {
            At::Open(call) => Ok(call),
            At::Over(_) => Err("it used a call that was over".into()),
        }
    }

    fn world(&self) -> &World {
        match self {
            At::Open(call) => &call.world,
            At::Over(world) => world,
        }
    }

    /// That the call has an input with these rows.
    fn with_rows(&self, rows: &[u32], function: &str) -> Result<&ChildCall, String> {
        let call = self.call()?;
        match &call.task {
            Task::Rows(input, _) => input.check(rows).map(|()| call),
            _ => Err(format!(
                "it called {function}() in a call that has no input"
            )),
        }
    }
}

/// A batch was named that is none of the plugin's, in the call that the thread is in; a thread of the plugin's own is in none, and
/// the batch's own call may be known.
fn stray(what: &str, of: Option<At>) {
    if let Some(call) = At::here().or(of) {
        Desk::breach(&call, what.into());
    }
}

/// A fresh batch's address, with one reference for the plugin.
fn handed(call: &ChildCall, lot: Arc<Lot>) -> *mut Batch {
    lot.references().belongs_to(call.number);
    lot.references().hand();
    Lot::into_ptr(lot)
}

impl Desk for At {
    const VERSION: &'static CStr = VERSION;

    unsafe fn find(of: *mut weir_abi::Call) -> Option<At> {
        At::find(of)
    }

    fn breach(&self, what: String) -> Status {
        match self {
            At::Open(call) => call.breach(what),
            At::Over(world) => {
                world.broken(&what);
                status::USE
            }
        }
    }

    fn log(&self, level: i32, text: &str) {
        self.world().line(level, text);
    }

    fn fail(&self, said: Said) {
        if let At::Open(call) = self {
            call.fail(said);
        }
    }

    fn cancelled(&self) -> bool {
        // A call that is over has nothing left to do.
        !matches!(self, At::Open(_)) || self.world().stopped()
    }

    fn count(&self, name: &str, by: u64) {
        if let At::Open(call) = self {
            call.count(name, by);
        }
    }

    fn folder(&self) -> Str {
        // There is one world, and it lives as long as the process.
        Str::new(self.world().folder())
    }

    fn batch_new(&self, port: u32, source: &[u32]) -> Result<*mut Batch, String> {
        let call = self.call()?;
        Ok(handed(call, of_rows(call, port, source)?))
    }

    fn batch_for(&self, port: u32, slide: u64, tiles: &[u64]) -> Result<*mut Batch, String> {
        let call = self.call()?;
        Ok(handed(call, of_tiles(call, port, slide, tiles)?))
    }

    fn batch_edit(&self, port: u32) -> Result<*mut Batch, String> {
        let call = self.call()?;
        Ok(handed(call, edited(call, port)?))
    }

    unsafe fn retain(batch: *const Batch) {
        if Lot::retained(batch) {
            return;
        }
        // One that is retained for the first time is an input whose call is open.
        let call = Lot::named(batch, References::call).and_then(At::numbered);
        match &call {
            Some(At::Open(open)) if open.lend(batch) => {}
            _ => stray("it retained a batch that it did not have", call),
        }
    }

    unsafe fn release(batch: *const Batch) {
        match Lot::named(batch, References::hand_back) {
            // SAFETY: the reference that ends here was the plugin's: one that was only lent to it is the host's.
            Some(true) => unsafe { Arc::decrement_strong_count(Lot::of(batch)) },
            _ => stray("it released a batch that it did not have", None),
        }
    }

    unsafe fn emit(&self, port: u32, batch: *mut Batch) -> Result<(), String> {
        if Lot::named(batch, References::hand_back) != Some(true) {
            return Err(LENT.into());
        }
        // SAFETY: the reference was the plugin's, which gives it up, also when this fails.
        let lot = unsafe { Arc::from_raw(Lot::of(batch)) };
        let call = self.call()?;
        if lot.references().call() != call.number {
            return Err("it emitted a batch that it made in another call".into());
        }
        let deed = match lot.emit(port)? {
            (What::Rows(source), spots) => Deed::Rows {
                port,
                source: source.clone(),
                spots: Spots(spots),
            },
            (What::Tiles { slide, tiles }, spots) => Deed::Tiles {
                port,
                slide: *slide,
                tiles: tiles.clone(),
                spots: Spots(spots),
            },
        };
        call.tell(&deed, Some(lot.clone()))
    }

    fn pass(&self, port: u32, rows: &[u32]) -> Result<(), String> {
        let call = self.with_rows(rows, "pass")?;
        call.output(port)?;
        if rows.is_empty() {
            // Nothing to tell: any number of them is none.
            return call.may_tell();
        }
        let rows = rows.to_vec();
        call.tell(&Deed::Pass { port, rows }, None)
    }

    fn table(&self, port: u32, source: u32, bytes: &[u8]) -> Result<(), String> {
        let deed = Deed::Table {
            port,
            source,
            bytes,
        };
        self.call()?.tell(&deed, None)
    }

    fn skip(&self, row: u32, reason: &str) -> Result<(), String> {
        let call = self.with_rows(&[row], "skip")?;
        let reason = reason.to_owned();
        call.tell(&Deed::Skip { row, reason }, None)
    }

    fn fail_row(&self, row: u32, said: Said) -> Result<(), String> {
        let call = self.with_rows(&[row], "fail_row")?;
        call.tell(&Deed::FailRow { row, said }, None)
    }

    fn complete(&self, said: Status) {
        match self {
            At::Open(call) => call.complete(said),
            At::Over(_) => {
                self.breach(COMPLETED.into());
            }
        }
    }
}
