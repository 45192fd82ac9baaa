//! What the host offers a plugin: the functions of `weir_host`, on calls and batches of this process.

use crate::batch::HostBatch;
use crate::call::{At, OfSlide, Said, Task};
use crate::columns::{self, Output};
use crate::log::Level;
use std::ffi::CStr;
use std::sync::Arc;
use weir_abi::Str;
use weir_abi::column::Batch;
use weir_abi::desk::Desk;
use weir_abi::host::Host;
use weir_abi::status::Status;
use weir_record::TileId;

/// The table that every plugin gets.
pub(crate) static HOST: Host = weir_abi::desk::host::<At>();

pub(crate) const VERSION: &CStr =
    match CStr::from_bytes_with_nul(concat!("weir ", env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(version) => version,
        Err(_) => c"weir",
    };

/// Output number `port`.
fn output(outputs: &[Output], port: u32) -> Result<&Output, String> {
    outputs
        .get(port as usize)
        .ok_or_else(|| format!("it has no output number {port}"))
}

/// What a plugin is told that calls a function where there is no input.
fn no_input(function: &str) -> String {
    format!("it called {function}() in a call that has no input")
}

impl At {
    /// A fresh batch's address, with one reference for the plugin.
    fn handed(&self, batch: HostBatch) -> *mut Batch {
        HostBatch::into_ptr(Arc::new(batch.of_call(self.number)))
    }
}

impl Desk for At {
    const VERSION: &'static CStr = VERSION;

    unsafe fn find(of: *mut weir_abi::Call) -> Option<At> {
        At::find(of)
    }

    fn breach(&self, what: String) -> Status {
        At::breach(self, what)
    }

    fn log(&self, level: i32, text: &str) {
        At::log(self, Level::of(level), text);
    }

    fn fail(&self, said: Said) {
        At::fail(self, said);
    }

    fn cancelled(&self) -> bool {
        let stopped = |desk: &crate::call::Desk| desk.who().is_some_and(|who| who.stop.level() > 0);
        // A call that is over has nothing left to do.
        self.desk().map_or(true, |desk| stopped(&desk))
    }

    fn count(&self, name: &str, by: u64) {
        let who = self.desk().ok().and_then(|desk| desk.who());
        if let Some(who) = who {
            who.counters.add(&who.stage, name, by);
        }
    }

    fn folder(&self) -> Str {
        let who = self.desk().ok().and_then(|desk| desk.who());
        let folder = who.as_ref().and_then(|who| who.folder.to_str());
        // The text is the stage's, whose instances have it as long as they live.
        folder.map_or(Str::EMPTY, |folder| Str {
            ptr: folder.as_ptr().cast(),
            len: folder.len(),
        })
    }

    fn batch_new(&self, port: u32, source: &[u32]) -> Result<*mut Batch, String> {
        let mut desk = self.desk()?;
        let who = desk.who();
        let Task::Rows(rows) = &mut desk.task else {
            return Err(no_input("batch_new"));
        };
        let outputs = rows.outputs.clone();
        let output = output(&outputs, port)?;
        let slab = who.as_ref().and_then(|who| who.slab.as_ref());
        let batch = HostBatch::for_rows(output, port as usize, rows, source, slab)?;
        Ok(self.handed(batch))
    }

    fn batch_for(&self, port: u32, slide: u64, tiles: &[u64]) -> Result<*mut Batch, String> {
        let desk = self.desk()?;
        let Task::Slides(of) = &desk.task else {
            return Err("it called batch_for(), which is for a reduce".into());
        };
        let output = output(&of.outputs, port)?;
        let batch = HostBatch::for_tiles(output, port as usize, slide, tiles, &of.slides)?;
        Ok(self.handed(batch))
    }

    fn batch_edit(&self, port: u32) -> Result<*mut Batch, String> {
        let mut desk = self.desk()?;
        let who = desk.who();
        let Task::Rows(rows) = &mut desk.task else {
            return Err(no_input("batch_edit"));
        };
        let outputs = rows.outputs.clone();
        let output = output(&outputs, port)?;
        let slab = who.as_ref().and_then(|who| who.slab.as_ref());
        let batch = HostBatch::edited(output, port as usize, rows, slab)?;
        Ok(self.handed(batch))
    }

    unsafe fn retain(batch: *const Batch) {
        let batch = HostBatch::of(batch);
        // SAFETY: every batch that a plugin knows is a `HostBatch` of which somebody holds a reference; one that is retained for the
        // first time is lent, and its call is open.
        unsafe {
            (*batch).keep();
            Arc::increment_strong_count(batch);
        }
    }

    unsafe fn release(batch: *const Batch) {
        // SAFETY: as above, and the reference that ends here is the caller's.
        unsafe { Arc::decrement_strong_count(HostBatch::of(batch)) }
    }

    unsafe fn emit(&self, port: u32, batch: *mut Batch) -> Result<(), String> {
        // SAFETY: the caller gives up one reference, also when this fails.
        let batch = unsafe { Arc::from_raw(HostBatch::of(batch)) };
        if batch.call() != self.number {
            return Err("it emitted a batch that it made in another call".into());
        }
        let mut desk = self.telling()?;
        match &mut desk.task {
            Task::Rows(rows) => batch.emit_rows(port as usize, &mut rows.outcomes),
            Task::Slides(slides) => batch.emit_tiles(port as usize, &mut slides.made),
            Task::Setup | Task::Take(_) => Err("it emitted in a call that makes no rows".into()),
        }
    }

    fn pass(&self, port: u32, rows: &[u32]) -> Result<(), String> {
        let mut desk = self.telling()?;
        let Task::Rows(of) = &mut desk.task else {
            return Err(no_input("pass"));
        };
        let output = output(&of.outputs, port)?;
        of.input.pass(output, port as usize, rows, &mut of.outcomes)
    }

    fn table(&self, port: u32, source: u32, bytes: &[u8]) -> Result<(), String> {
        let mut desk = self.telling()?;
        match &mut desk.task {
            Task::Rows(rows) => {
                let body = columns::table(output(&rows.outputs, port)?, bytes)?;
                if source >= rows.input.rows() {
                    let of = rows.input.rows();
                    return Err(format!(
                        "it made a table of row {source} of a batch of {of}"
                    ));
                }
                rows.outcomes.made(source, port as usize, body)
            }
            Task::Slides(slides) => {
                let body = columns::table(output(&slides.outputs, port)?, bytes)?;
                if source != u32::MAX {
                    return Err(
                        "a table of a reduce is the slide's: its source is UINT32_MAX".into(),
                    );
                }
                slides.made.push(OfSlide {
                    port: port as usize,
                    tile: TileId::SLIDE.word(),
                    body,
                });
                Ok(())
            }
            Task::Setup | Task::Take(_) => {
                Err("it gave a table in a call that makes no rows".into())
            }
        }
    }

    fn skip(&self, row: u32, reason: &str) -> Result<(), String> {
        match &mut self.telling()?.task {
            Task::Rows(rows) => rows.outcomes.skipped(row, reason),
            _ => Err(no_input("skip")),
        }
    }

    fn fail_row(&self, row: u32, said: Said) -> Result<(), String> {
        match &mut self.telling()?.task {
            Task::Rows(rows) => rows.outcomes.failed(row, said),
            _ => Err(no_input("fail_row")),
        }
    }

    fn complete(&self, said: Status) {
        At::complete(self, said);
    }
}
