//! A stage that runs.

use super::about::About;
use super::breach;
use super::call::{CallBox, Shared, State, lock};
use super::done::{Done, Line};
use super::functions::HOST;
use super::memory::HostBatch;
use super::rows::Rows;
use super::slides::SlideBox;
use super::value::Given;
use crate::abi;
use crate::abi::stage::{PARALLEL, Stage as Table};
use crate::abi::status::{self, Status};
use crate::error::{Error, Result};
use crate::export::Declared;
use crate::row::End;
use crate::source::SlideInfo;
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::ffi::{CString, c_void};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// How long a call that was kept may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A stage of this program, to be set up.
pub fn stage<T: Declared>() -> Setup {
    let about = serde_json::from_str(&T::MANIFEST.concat())
        .map_err(Error::from)
        .and_then(|json| About::of(&json));
    Setup {
        // A library's table lives for ever, so this one does too.
        table: Box::leak(Box::new(T::TABLE)),
        about,
        values: BTreeMap::new(),
        folder: String::new(),
    }
}

/// A stage before it starts.
pub struct Setup {
    pub(super) table: &'static Table,
    pub(super) about: Result<About>,
    pub(super) values: BTreeMap<String, Json>,
    pub(super) folder: String,
}

impl Setup {
    /// A parameter's value, as it would stand in the file.
    pub fn set(mut self, param: &str, value: impl Into<Json>) -> Setup {
        self.values.insert(param.to_owned(), value.into());
        self
    }

    /// The folder of the run's outputs.
    pub fn folder(mut self, folder: &Path) -> Setup {
        self.folder = folder.to_string_lossy().into_owned();
        self
    }

    /// Creates the instance.
    ///
    /// # Errors
    /// When a parameter is none of the manifest's, or the stage refuses.
    pub fn start(self) -> Result<Stage> {
        let about = Arc::new(self.about?);
        let given = Given::new(&about, &self.values)?;
        let shared = Arc::new(Shared {
            folder: self.folder,
            ..Shared::default()
        });
        let create = self
            .table
            .create
            .ok_or_else(|| Error::new("the stage has no create()"))?;
        let call = CallBox::plain(&shared).open();
        let mut pointer = std::ptr::null_mut();
        let (values, n) = (given.values.as_ptr(), given.values.len() as u32);
        // SAFETY: as weir_plugin.h says: the values live until it returns.
        let status = unsafe { create(&HOST, call.raw(), values, n, &mut pointer) };
        finish_plain(&call, status)?;
        Ok(Stage {
            table: self.table,
            about,
            values: self.values,
            shared,
            pointer,
            one_at_a_time: Mutex::new(()),
            ended: AtomicBool::new(false),
        })
    }
}

/// Closes a call without input: its error, or what was broken.
pub(super) fn finish_plain(call: &Arc<CallBox>, status: Status) -> Result<Status> {
    let status = call.close(status, PATIENCE);
    let mut state = lock(&call.state);
    let faults = std::mem::take(&mut state.faults);
    if !faults.is_empty() {
        return Err(breach(&faults));
    }
    if status < 0 {
        return Err(failure(&mut state, status));
    }
    Ok(status)
}

/// The plugin's error, with its status.
fn failure(state: &mut State, status: Status) -> Error {
    let said = state.error.take();
    let error = Error::of(
        status,
        said.as_ref()
            .map_or("the plugin failed without a message", |it| it.message()),
    );
    match &said {
        Some(said) => error
            .of_param(said.of_which_param())
            .help(said.what_to_do()),
        None => error,
    }
}

/// A stage that runs. Dropped, it is destroyed; [`Stage::end`] also says whether it gave back what it held.
pub struct Stage {
    pub(super) table: &'static Table,
    pub(super) about: Arc<About>,
    pub(super) values: BTreeMap<String, Json>,
    pub(super) shared: Arc<Shared>,
    pub(super) pointer: *mut c_void,
    one_at_a_time: Mutex<()>,
    ended: AtomicBool,
}

// SAFETY: an instance may be called from any thread; what is no other's to call meanwhile is called under a lock, see `turn`.
unsafe impl Send for Stage {}
// SAFETY: as above.
unsafe impl Sync for Stage {}

impl Stage {
    /// The stage's id.
    pub fn id(&self) -> &str {
        &self.about.id
    }

    /// What was logged so far.
    pub fn log(&self) -> Vec<Line> {
        lock(&self.shared.log).clone()
    }

    /// What was counted so far under this name.
    pub fn counter(&self, name: &str) -> u64 {
        lock(&self.shared.counters).get(name).copied().unwrap_or(0)
    }

    /// The instance, where it takes one call at a time: of reduces and sinks, whose state is theirs alone in every call, and of what
    /// does not say that it is parallel.
    fn turn(&self) -> Option<MutexGuard<'_, ()>> {
        let alone = self.table.complete_slide.is_some() || self.table.flags & PARALLEL == 0;
        alone.then(|| lock(&self.one_at_a_time))
    }

    /// From now on the run is being stopped.
    pub fn stop(&self) {
        self.shared.cancelled.store(true, Ordering::SeqCst);
        if let Some(cancel) = self.table.cancel {
            // SAFETY: from any thread, while the instance lives.
            unsafe { cancel(self.pointer) }
        }
    }

    /// A size that the manifest left open: of an output, the dimension of that name.
    ///
    /// # Errors
    /// When the stage does not know it.
    pub fn size(&self, port: &str, symbol: &str) -> Result<i64> {
        let port = self.about.output(port)?;
        self.resolve(port, symbol)
    }

    pub(super) fn resolve(&self, port: u32, symbol: &str) -> Result<i64> {
        let resolve = self
            .table
            .resolve
            .ok_or_else(|| Error::new(format!("the stage cannot say the size `{symbol}`")))?;
        let name = CString::new(symbol).map_err(Error::from)?;
        let call = CallBox::plain(&self.shared).open();
        let mut size = 0;
        let turn = self.turn();
        // SAFETY: as weir_plugin.h says.
        let status = unsafe { resolve(self.pointer, call.raw(), port, name.as_ptr(), &mut size) };
        drop(turn);
        finish_plain(&call, status)?;
        if size <= 0 {
            return Err(Error::new(format!(
                "the stage says that `{symbol}` is {size}"
            )));
        }
        Ok(size)
    }

    /// Of maps and filters: one call with these rows.
    ///
    /// # Errors
    /// What the plugin said, or what it broke of the contract.
    pub fn process(&self, rows: Rows) -> Result<Done> {
        self.hand_over(0, rows, true)
    }

    /// Of reduces and sinks: rows on the input of this name.
    ///
    /// # Errors
    /// As of [`Stage::process`].
    pub fn take(&self, port: &str, rows: Rows) -> Result<()> {
        self.hand_over(self.about.input(port)?, rows, false)
            .map(|_| ())
    }

    fn hand_over(&self, port: u32, rows: Rows, counted: bool) -> Result<Done> {
        let process = self
            .table
            .process
            .ok_or_else(|| Error::new("the stage has no process()"))?;
        let outs = if counted {
            self.outs(port, rows.shape())?
        } else {
            Vec::new()
        };
        if !counted {
            let (rows, _) = rows.places(&self.shared.slides);
            let given = rows.iter().map(|row| (port, row.key.slide, row.key.tile));
            lock(&self.shared.given).extend(given);
        }
        let input = rows.batch(&self.shared.slides, &self.shared.live, port);
        let call = CallBox {
            about: counted.then(|| self.about.clone()),
            outs,
            input,
            ..CallBox::plain(&self.shared)
        }
        .open();
        let before: Vec<Vec<u8>> = contents(&call).map(<[u8]>::to_vec).collect();
        let turn = self.turn();
        // SAFETY: as weir_plugin.h says: the batch is held until the call has ended.
        let status = unsafe { process(self.pointer, call.raw(), port, input) };
        let status = call.close(status, PATIENCE);
        drop(turn);
        let mut state = lock(&call.state);
        if !contents(&call).eq(before.iter().map(Vec::as_slice)) {
            state.faults.push("it wrote to its input".into());
        }
        let n_rows = before_rows(&call);
        if status == status::OK && counted {
            call.check_rows(&mut state);
        }
        let done = self.done(&mut state, status, n_rows);
        drop(state);
        // SAFETY: the harness's reference; the call is closed, so nobody looks at it through the call.
        unsafe { HostBatch::release(input) };
        done
    }

    fn done(&self, state: &mut State, status: Status, n_rows: usize) -> Result<Done> {
        let late = std::mem::take(&mut *lock(&self.shared.faults));
        let mut faults = std::mem::take(&mut state.faults);
        faults.extend(
            late.into_iter()
                .filter(|fault| !faults.contains(fault))
                .collect::<Vec<_>>(),
        );
        if status > 0 {
            faults.push(format!(
                "it returned {status}, which is none of the statuses of this function"
            ));
        }
        if !faults.is_empty() {
            return Err(breach(&faults));
        }
        if status < 0 {
            return Err(failure(state, status));
        }
        Ok(Done {
            ports: self
                .about
                .outs
                .iter()
                .map(|port| port.name.clone())
                .collect(),
            out: std::mem::take(&mut state.out),
            n_rows,
            skipped: std::mem::take(&mut state.skipped),
            failed: std::mem::take(&mut state.failed),
        })
    }

    /// Of reduces and sinks: these rows hold no more.
    ///
    /// # Errors
    /// As of [`Stage::process`].
    pub fn remove(&self, port: &str, rows: &Rows) -> Result<()> {
        let remove = self
            .table
            .remove
            .ok_or_else(|| Error::new("the stage has no remove()"))?;
        let port = self.about.input(port)?;
        let (rows, _slides) = rows.places(&self.shared.slides);
        let call = CallBox::plain(&self.shared).open();
        let _turn = self.turn();
        // SAFETY: as weir_plugin.h says: the rows live until it returns.
        let status = unsafe {
            remove(
                self.pointer,
                call.raw(),
                port,
                rows.as_ptr(),
                rows.len() as u32,
            )
        };
        finish_plain(&call, status)?;
        let mut given = lock(&self.shared.given);
        for row in &rows {
            given.remove(&(port, row.key.slide, row.key.tile));
        }
        Ok(())
    }

    fn known(&self, slide: &str) -> Arc<SlideBox> {
        let unknown = || {
            let info = SlideInfo {
                id: slide.into(),
                path: slide.into(),
                ..SlideInfo::default()
            };
            self.shared.slides.get(&info)
        };
        self.shared.slides.known(slide).unwrap_or_else(unknown)
    }

    /// Of reduces and sinks: everything of the slide up to this generation came.
    ///
    /// # Errors
    /// As of [`Stage::process`].
    pub fn complete(&self, slide: &str, generation: u32, end: End) -> Result<Done> {
        let complete = self
            .table
            .complete_slide
            .ok_or_else(|| Error::new("the stage has no complete_slide()"))?;
        let slide = self.known(slide);
        let call = CallBox {
            about: Some(self.about.clone()),
            outs: self.outs(0, None)?,
            turn: Some(slide.clone()),
            ..CallBox::plain(&self.shared)
        }
        .open();
        let turn = self.turn();
        // SAFETY: as weir_plugin.h says.
        let status =
            unsafe { complete(self.pointer, call.raw(), &slide.raw, generation, end.code()) };
        let status = call.close(status, PATIENCE);
        drop(turn);
        self.done(&mut lock(&call.state), status, 0)
    }

    /// Of reduces and sinks: the slide's state may be dropped.
    pub fn close(&self, slide: &str) {
        if let Some(close) = self.table.close_slide {
            let _turn = self.turn();
            // SAFETY: as weir_plugin.h says.
            unsafe { close(self.pointer, self.known(slide).raw.number) }
        }
    }

    /// Of sinks: the run is over.
    ///
    /// # Errors
    /// As of [`Stage::process`].
    pub fn finish(&self) -> Result<()> {
        let Some(finish) = self.table.finish else {
            return Ok(());
        };
        let call = CallBox::plain(&self.shared).open();
        let _turn = self.turn();
        // SAFETY: as weir_plugin.h says.
        let status = unsafe { finish(self.pointer, call.raw()) };
        finish_plain(&call, status).map(|_| ())
    }

    /// Destroys it.
    ///
    /// # Errors
    /// When it still holds batches, or broke the contract outside of a call.
    pub fn end(self) -> Result<()> {
        self.destroy();
        let mut faults = std::mem::take(&mut *lock(&self.shared.faults));
        match self.shared.live.load(Ordering::SeqCst) {
            0 => {}
            live => faults.push(format!(
                "{live} batches were retained or made, and never released"
            )),
        }
        match faults.is_empty() {
            true => Ok(()),
            false => Err(breach(&faults)),
        }
    }

    fn destroy(&self) {
        if self.ended.swap(true, Ordering::SeqCst) {
            return;
        }
        if let Some(destroy) = self.table.destroy {
            // SAFETY: no call is in flight, since those borrow the stage, and none follows.
            unsafe { destroy(self.pointer) }
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.destroy();
    }
}

/// The bytes of the input's rows.
fn contents(call: &CallBox) -> impl Iterator<Item = &[u8]> {
    let columns = call
        .input()
        .map(|input| input.columns.as_slice())
        .unwrap_or_default();
    columns
        .iter()
        .flat_map(|column| column.rows.iter().map(|row| row.bytes()))
}

fn before_rows(call: &CallBox) -> usize {
    call.input().map_or(0, |input| input.rows.len())
}

/// The slide as the ABI has it.
pub(super) fn blank() -> abi::row::Slide {
    abi::row::Slide {
        struct_size: size_of::<abi::row::Slide>() as u32,
        ..abi::row::Slide::default()
    }
}
