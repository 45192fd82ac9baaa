//! A call into the plugin: what it may ask of the host meanwhile.

use crate::abi;
use crate::abi::host::{CudaV1, LOG_DEBUG, LOG_ERROR, LOG_INFO, LOG_WARN, MetricsV1};
use crate::abi::status;
use crate::batch::{Batch, Held};
use crate::error::{Error, Result};
use crate::host::{Host, check, text, with_error};
use crate::output::Output;
use std::ffi::c_void;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// An open call of the host. Every function may be called from any thread while it is open.
pub struct Call<'c> {
    host: Host,
    raw: *mut abi::Call,
    outs: &'static [&'static str],
    input: Option<&'c abi::column::Batch>,
    detached: AtomicBool,
}

// SAFETY: the host's functions on a call may be called from any thread.
unsafe impl Send for Call<'_> {}
// SAFETY: as above.
unsafe impl Sync for Call<'_> {}

/// What a filter makes of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict<'r> {
    /// It goes on as it is.
    Keep,
    /// It is left out on purpose; the reason in a word or two.
    Skip(&'r str),
}

impl<'c> Call<'c> {
    /// # Safety
    /// `raw` is an open call of `host` for as long as this lives, and `input`, where it is not null, lives as long as `'c`.
    pub(crate) unsafe fn new(
        host: Host,
        raw: *mut abi::Call,
        outs: &'static [&'static str],
        input: *const abi::column::Batch,
    ) -> Call<'c> {
        Call {
            host,
            raw,
            outs,
            // SAFETY: the caller's.
            input: unsafe { input.as_ref() },
            detached: AtomicBool::new(false),
        }
    }

    pub(crate) fn host(&self) -> Host {
        self.host
    }

    pub(crate) fn is_detached(&self) -> bool {
        self.detached.load(Ordering::Relaxed)
    }

    /// The host's name for it, for what this crate has no word for.
    pub fn raw(&self) -> *mut abi::Call {
        self.raw
    }

    /// The host's functions, for what this crate has no word for.
    pub fn raw_host(&self) -> &'static abi::host::Host {
        self.host.table()
    }

    fn log(&self, level: i32, line: &str) {
        if let Some(log) = self.host.table().log {
            // SAFETY: the call is open; the host copies the text.
            unsafe { log(self.raw, level, abi::Str::new(line)) }
        }
    }

    /// A line in the run's log.
    pub fn error(&self, line: &str) {
        self.log(LOG_ERROR, line);
    }

    /// A line in the run's log.
    pub fn warn(&self, line: &str) {
        self.log(LOG_WARN, line);
    }

    /// A line in the run's log.
    pub fn info(&self, line: &str) {
        self.log(LOG_INFO, line);
    }

    /// A line in the run's log.
    pub fn debug(&self, line: &str) {
        self.log(LOG_DEBUG, line);
    }

    /// Whether the run is being stopped: to be asked in long loops, which then return [`Error::cancelled`].
    pub fn cancelled(&self) -> bool {
        match self.host.table().cancelled {
            // SAFETY: the call is open.
            Some(cancelled) => unsafe { cancelled(self.raw) != 0 },
            None => false,
        }
    }

    /// Adds `by` to the stage's counter `name` in the run's record; nothing where the host keeps no counters.
    pub fn count(&self, name: &str, by: u64) {
        let metrics: *const MetricsV1 = self.host.extension(c"weir.metrics/1").cast();
        if metrics.is_null() {
            return;
        }
        // SAFETY: what the host hands out under this name is this struct, and lives as long as the process.
        if let Some(count) = unsafe { (*metrics).count } {
            // SAFETY: the call is open; the host copies the name.
            unsafe { count(self.raw, abi::Str::new(name), by) }
        }
    }

    /// The call's CUDA stream; `None` where the stage does not run on a device. Hosts of 1.0 run no plugin's stage on a device: it is
    /// always `None` there, and a plugin that uses a GPU opens its own stream.
    pub fn cuda(&self) -> Option<Cuda> {
        let cuda: *const CudaV1 = self.host.extension(c"weir.cuda/1").cast();
        if cuda.is_null() {
            return None;
        }
        // SAFETY: what the host hands out under this name is this struct, and lives as long as the process.
        let (device, stream) = unsafe { ((*cuda).device, (*cuda).stream?) };
        Some(Cuda {
            device,
            // SAFETY: the call is open.
            stream: unsafe { stream(self.raw) },
        })
    }

    /// The folder of the run's outputs, absolute; while a stage starts, completes a slide or finishes.
    pub fn folder(&self) -> &Path {
        match self.host.table().folder {
            // SAFETY: the call is open, and the text lives as long as the instance.
            Some(folder) => Path::new(unsafe { text(folder(self.raw)) }),
            None => Path::new(""),
        }
    }

    /// The first output.
    pub fn out(&self) -> Output<'_> {
        Output::new(self, 0)
    }

    /// The output of this name.
    ///
    /// # Errors
    /// When the stage has none.
    pub fn to(&self, name: &str) -> Result<Output<'_>> {
        match self.outs.iter().position(|out| *out == name) {
            Some(port) => Ok(Output::new(self, port as u32)),
            None => Err(Error::new(format!(
                "the stage has no output `{name}`: it has {}",
                self.outs.join(", ")
            ))),
        }
    }

    /// Rows of the input.
    pub(crate) fn n_rows(&self) -> u32 {
        self.input.map_or(0, |input| input.n_rows)
    }

    /// For filters: asks `judge` for each row of the input, hands on what is kept, skips the rest with their reasons, and fails the
    /// rows for which it returned an error.
    ///
    /// # Errors
    /// When the host refuses.
    pub fn sift<'r>(&self, mut judge: impl FnMut(usize) -> Result<Verdict<'r>>) -> Result<()> {
        let mut kept = Vec::with_capacity(self.n_rows() as usize);
        for row in 0..self.n_rows() {
            match judge(row as usize) {
                Ok(Verdict::Keep) => kept.push(row),
                Ok(Verdict::Skip(reason)) => self.skip(row as usize, reason)?,
                Err(error) => self.fail_row(row as usize, &error)?,
            }
        }
        match kept.is_empty() {
            true => Ok(()),
            false => self.out().pass(&kept),
        }
    }

    /// Leaves row `row` of the input out on purpose: of filters. The reason in a word or two, as `blurred`.
    ///
    /// # Errors
    /// When the host refuses.
    pub fn skip(&self, row: usize, reason: &str) -> Result<()> {
        let Some(skip) = self.host.table().skip else {
            return Err(Error::new("the host has no skip()"));
        };
        // SAFETY: the call is open; the host copies the reason.
        let status = unsafe { skip(self.raw, row as u32, abi::Str::new(reason)) };
        check(status, "a skipped row")
    }

    /// Nothing could be made of row `row` of the input: a failed tile. The other rows go on.
    ///
    /// # Errors
    /// When the host refuses.
    pub fn fail_row(&self, row: usize, error: &Error) -> Result<()> {
        let Some(fail_row) = self.host.table().fail_row else {
            return Err(Error::new("the host has no fail_row()"));
        };
        let status = with_error(error, |error| {
            // SAFETY: the call is open; the host copies the error.
            unsafe { fail_row(self.raw, row as u32, error) }
        });
        check(status, "a failed row")
    }

    /// Keeps the call beyond the function, to end it later from any thread: for maps and filters that wait for something. What the
    /// function returns is then not looked at.
    ///
    /// # Errors
    /// When this is no call with a batch, or it was detached before.
    pub fn detach(&self) -> Result<Detached> {
        let Some(input) = self.input else {
            return Err(Error::new("only a call with a batch can be kept"));
        };
        if self.detached.swap(true, Ordering::Relaxed) {
            return Err(Error::new("the call was kept before"));
        }
        // SAFETY: the input lives as long as the call; the reference is taken before anybody can end it.
        let batch = unsafe { Batch::new(input, self.host) }.hold();
        // SAFETY: the call is open until `Detached` completes it, and `batch` keeps the input; nothing of `'c` is used.
        let call = unsafe { Call::new(self.host, self.raw, self.outs, input) };
        // The call has one owner: what is asked of this one is no second.
        call.detached.store(true, Ordering::Relaxed);
        Ok(Detached {
            call: Some(call),
            batch: Some(batch),
        })
    }
}

/// A call that outlived its function. Dropped, it has failed.
pub struct Detached {
    call: Option<Call<'static>>,
    /// As long as the call is there.
    batch: Option<Held>,
}

impl Detached {
    /// Its batch.
    pub fn batch(&self) -> Batch<'_> {
        match &self.batch {
            Some(batch) => batch.batch(),
            None => unreachable!("complete() consumes it"),
        }
    }

    /// What may be asked of the host until it is completed.
    pub fn call(&self) -> &Call<'_> {
        match &self.call {
            Some(call) => call,
            None => unreachable!("complete() consumes it"),
        }
    }

    /// Ends the call.
    pub fn complete(mut self, result: Result<()>) {
        self.end(result);
    }

    fn end(&mut self, result: Result<()>) {
        let Some(call) = self.call.take() else { return };
        // The host takes what is held longer than its call for kept.
        self.batch = None;
        let status = match &result {
            Ok(()) => status::OK,
            Err(error) => {
                // SAFETY: the call is open.
                unsafe { call.host.fail(call.raw, error) };
                error.status()
            }
        };
        if let Some(complete) = call.host.table().complete {
            // SAFETY: the call is open, and this ends it once: `call` was taken.
            unsafe { complete(call.raw, status) }
        }
    }
}

impl Drop for Detached {
    fn drop(&mut self) {
        self.end(Err(Error::new(
            "the plugin gave the call up without a result",
        )));
    }
}

/// Where a stage's work on a CUDA device belongs.
#[derive(Clone, Copy, Debug)]
pub struct Cuda {
    /// Number of the device.
    pub device: i32,
    /// CUstream: work is put on it and not waited for; inputs are ready in its order.
    pub stream: *mut c_void,
}
