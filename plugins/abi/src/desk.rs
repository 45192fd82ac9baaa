//! The host's functions, for whoever hosts plugins: an engine, a child process, a harness for tests.
//!
//! [`host`] makes the table of a [`Desk`]. Its functions take what a plugin hands over apart, which is all that is unsafe about them;
//! what they come to is the desk's. Nothing unwinds into a plugin as long as no function of a desk panics on what a plugin can pass.

use crate::column::Batch;
use crate::host::{Host, MetricsV1};
use crate::status::{self, Error, Status};
use crate::{Call, MINOR, Str};
use std::borrow::Cow;
use std::ffi::{CStr, c_char, c_void};
use std::marker::PhantomData;

/// What a plugin said of an error: `weir_error`, copied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// One sentence.
    pub what: String,
    /// The parameter at fault, or empty.
    pub param: String,
    /// What to do about it, or empty.
    pub help: String,
}

impl Said {
    /// # Safety
    /// Null, or an error whose strings are readable.
    pub unsafe fn of(error: *const Error) -> Said {
        // SAFETY: the caller's.
        let of = |text: Str| unsafe { self::text(text) }.into_owned();
        // SAFETY: the caller's.
        match unsafe { error.as_ref() } {
            Some(error) => Said {
                what: of(error.message),
                param: of(error.param),
                help: of(error.help),
            },
            None => Said::default(),
        }
    }
}

/// No text that a plugin says is longer, bytes: it is for people, is kept for every tile, and stands in no account of a run's memory.
const LONGEST: usize = 16 << 10;

/// A text for people, the rest of a very long one cut off.
///
/// # Safety
/// As [`Str::bytes`].
pub unsafe fn text<'a>(of: Str) -> Cow<'a, str> {
    // SAFETY: the caller's.
    let bytes = unsafe { of.bytes() };
    match bytes.get(..LONGEST) {
        None => String::from_utf8_lossy(bytes),
        Some(_) if bytes.len() == LONGEST => String::from_utf8_lossy(bytes),
        Some(head) => {
            let n = bytes.len() - LONGEST;
            let head = String::from_utf8_lossy(head);
            Cow::Owned(format!("{head} ... ({n} further bytes are cut off)"))
        }
    }
}

/// A call of a host, as its functions see it. Of what a plugin may hand over nothing is checked but that pointers lead somewhere:
/// ports, rows and tiles may be any number.
///
/// What comes back as an error is a breach of the contract, in words that follow a plugin's name: "it spoke of row 7 of a batch of 3".
pub trait Desk: Sized + 'static {
    /// For messages.
    const VERSION: &'static CStr;

    /// The call that a plugin names; `None` where there is none.
    ///
    /// # Safety
    /// It is null, or one of this host's; whether it may be over by now says the host.
    unsafe fn find(of: *mut Call) -> Option<Self>;

    /// Notes that the plugin broke a rule, and says what the function returns.
    fn breach(&self, what: String) -> Status;

    /// A line of the run's log.
    fn log(&self, level: i32, text: &str);

    /// What went wrong.
    fn fail(&self, said: Said);

    /// Whether the run is being stopped.
    fn cancelled(&self) -> bool;

    /// Extension `weir.metrics/1`: adds to a counter.
    fn count(&self, name: &str, by: u64);

    /// The folder of the run's outputs; it lives as long as the instance.
    fn folder(&self) -> Str;

    /// A fresh batch of rows that are made of rows of the input, with one reference.
    fn batch_new(&self, port: u32, source: &[u32]) -> Result<*mut Batch, String>;

    /// A fresh batch of rows of a slide, with one reference.
    fn batch_for(&self, port: u32, slide: u64, tiles: &[u64]) -> Result<*mut Batch, String>;

    /// The input's rows to be changed, with one reference.
    fn batch_edit(&self, port: u32) -> Result<*mut Batch, String>;

    /// A reference more.
    ///
    /// # Safety
    /// The batch is this host's, and somebody has a reference.
    unsafe fn retain(batch: *const Batch);

    /// A reference less.
    ///
    /// # Safety
    /// The batch is this host's, and the reference is the caller's.
    unsafe fn release(batch: *const Batch);

    /// Hands a batch on; the reference goes with it, also on error.
    ///
    /// # Safety
    /// As [`Desk::release`].
    unsafe fn emit(&self, port: u32, batch: *mut Batch) -> Result<(), String>;

    /// Hands rows of the input on as they are, where it is seen at once that they can be and are all there are; else nothing is done,
    /// and [`Desk::pass`] is called.
    fn pass_all(&self, port: u32, rows: &[u32]) -> bool {
        let _ = (port, rows);
        false
    }

    /// Hands rows of the input on as they are.
    fn pass(&self, port: u32, rows: &[u32]) -> Result<(), String>;

    /// A row of a table port.
    fn table(&self, port: u32, source: u32, bytes: &[u8]) -> Result<(), String>;

    /// Leaves a row of the input out.
    fn skip(&self, row: u32, reason: &str) -> Result<(), String>;

    /// Fails a row of the input.
    fn fail_row(&self, row: u32, said: Said) -> Result<(), String>;

    /// Ends a call that is or will be pending.
    fn complete(&self, said: Status);

    /// A source has something again.
    ///
    /// # Safety
    /// The key is one that `open` was given, and its slide is open.
    unsafe fn wake(slide_key: *mut c_void) {
        let _ = slide_key;
    }
}

/// The table of a host's functions.
pub const fn host<D: Desk>() -> Host {
    Host {
        struct_size: size_of::<Host>() as u32,
        abi_minor: MINOR,
        version: D::VERSION.as_ptr(),
        extension: Some(extension::<D>),
        log: Some(log::<D>),
        fail: Some(fail::<D>),
        cancelled: Some(cancelled::<D>),
        batch_new: Some(batch_new::<D>),
        batch_for: Some(batch_for::<D>),
        batch_edit: Some(batch_edit::<D>),
        batch_retain: Some(batch_retain::<D>),
        batch_release: Some(batch_release::<D>),
        emit: Some(emit::<D>),
        pass: Some(pass::<D>),
        table: Some(table::<D>),
        skip: Some(skip::<D>),
        fail_row: Some(fail_row::<D>),
        complete: Some(complete::<D>),
        wake: Some(wake::<D>),
        folder: Some(folder::<D>),
    }
}

/// The extensions of a host's.
struct Extensions<D>(PhantomData<D>);

impl<D: Desk> Extensions<D> {
    const METRICS: &'static MetricsV1 = &MetricsV1 {
        struct_size: size_of::<MetricsV1>() as u32,
        reserved: 0,
        count: Some(count::<D>),
    };
}

unsafe extern "C" fn extension<D: Desk>(id: *const c_char) -> *const c_void {
    if id.is_null() {
        return std::ptr::null();
    }
    // SAFETY: a C string, the header says.
    match unsafe { CStr::from_ptr(id) }.to_bytes() {
        b"weir.metrics/1" => std::ptr::from_ref(Extensions::<D>::METRICS).cast(),
        _ => std::ptr::null(),
    }
}

/// A list that a plugin hands over.
///
/// # Safety
/// `list` is null or `n` of them, which nobody changes for `'a`.
#[inline]
unsafe fn list<'a, T>(list: *const T, n: u32) -> Result<&'a [T], NoList> {
    match (n, list.is_null()) {
        (0, _) => Ok(&[]),
        (n, true) => Err(NoList(n)),
        // SAFETY: the caller's.
        (n, false) => Ok(unsafe { std::slice::from_raw_parts(list, n as usize) }),
    }
}

/// A list of so many that is null.
struct NoList(u32);

impl From<NoList> for String {
    #[cold]
    fn from(NoList(n): NoList) -> String {
        format!("it gave a list of {n} that is null")
    }
}

/// What a function that hands rows on returns.
#[inline]
fn done<D: Desk>(call: &D, said: Result<(), String>) -> Status {
    match said {
        Ok(()) => status::OK,
        Err(what) => call.breach(what),
    }
}

/// What a function that makes a batch returns.
fn made<D: Desk>(call: &D, batch: Result<*mut Batch, String>) -> *mut Batch {
    batch.unwrap_or_else(|what| {
        call.breach(what);
        std::ptr::null_mut()
    })
}

unsafe extern "C" fn count<D: Desk>(of: *mut Call, name: Str, by: u64) {
    // SAFETY: the header's rules for calls and strings.
    unsafe {
        if let Some(call) = D::find(of) {
            call.count(&text(name), by);
        }
    }
}

unsafe extern "C" fn log<D: Desk>(of: *mut Call, level: i32, line: Str) {
    // SAFETY: the header's rules for calls and strings.
    unsafe {
        if let Some(call) = D::find(of) {
            call.log(level, &text(line));
        }
    }
}

unsafe extern "C" fn fail<D: Desk>(of: *mut Call, error: *const Error) {
    // SAFETY: the header's rules for calls and errors.
    unsafe {
        if let Some(call) = D::find(of) {
            call.fail(Said::of(error));
        }
    }
}

unsafe extern "C" fn cancelled<D: Desk>(of: *mut Call) -> i32 {
    // SAFETY: the header's rules for calls.
    unsafe { D::find(of) }.map_or(0, |call| i32::from(call.cancelled()))
}

unsafe extern "C" fn batch_new<D: Desk>(
    of: *mut Call,
    port: u32,
    n_rows: u32,
    source: *const u32,
) -> *mut Batch {
    // SAFETY: the header's rules: a call, and a list of `n_rows`.
    let (call, source) = unsafe { (D::find(of), list(source, n_rows)) };
    let Some(call) = call else {
        return std::ptr::null_mut();
    };
    made(
        &call,
        source
            .map_err(String::from)
            .and_then(|source| call.batch_new(port, source)),
    )
}

unsafe extern "C" fn batch_for<D: Desk>(
    of: *mut Call,
    port: u32,
    slide: u64,
    n_rows: u32,
    tiles: *const u64,
) -> *mut Batch {
    // SAFETY: the header's rules: a call, and a list of `n_rows`.
    let (call, tiles) = unsafe { (D::find(of), list(tiles, n_rows)) };
    let Some(call) = call else {
        return std::ptr::null_mut();
    };
    made(
        &call,
        tiles
            .map_err(String::from)
            .and_then(|tiles| call.batch_for(port, slide, tiles)),
    )
}

unsafe extern "C" fn batch_edit<D: Desk>(of: *mut Call, port: u32) -> *mut Batch {
    // SAFETY: the header's rules for calls.
    match unsafe { D::find(of) } {
        Some(call) => made(&call, call.batch_edit(port)),
        None => std::ptr::null_mut(),
    }
}

unsafe extern "C" fn batch_retain<D: Desk>(batch: *const Batch) {
    if !batch.is_null() {
        // SAFETY: the header's rules: a batch of the host's of which somebody has a reference.
        unsafe { D::retain(batch) }
    }
}

unsafe extern "C" fn batch_release<D: Desk>(batch: *const Batch) {
    if !batch.is_null() {
        // SAFETY: as above, and the reference that ends here is the plugin's.
        unsafe { D::release(batch) }
    }
}

unsafe extern "C" fn emit<D: Desk>(of: *mut Call, port: u32, batch: *mut Batch) -> Status {
    // SAFETY: the header's rules for calls.
    let call = unsafe { D::find(of) };
    match (call, batch.is_null()) {
        (Some(call), false) => {
            // SAFETY: the plugin gives up a reference of its own.
            let said = unsafe { call.emit(port, batch) };
            done(&call, said)
        }
        (Some(call), true) => call.breach("it emitted a null batch".into()),
        (None, false) => {
            // SAFETY: as above.
            unsafe { D::release(batch) };
            status::USE
        }
        (None, true) => status::USE,
    }
}

unsafe extern "C" fn pass<D: Desk>(
    of: *mut Call,
    port: u32,
    rows: *const u32,
    n_rows: u32,
) -> Status {
    // SAFETY: the header's rules: a call, and a list of `n_rows`.
    let (call, rows) = unsafe { (D::find(of), list(rows, n_rows)) };
    let Some(call) = call else {
        return status::USE;
    };
    match rows {
        Ok(rows) if call.pass_all(port, rows) => status::OK,
        rows => pass_each(call, port, rows),
    }
}

/// What is not passed at once.
#[inline(never)]
fn pass_each<D: Desk>(call: D, port: u32, rows: Result<&[u32], NoList>) -> Status {
    let rows = rows.map_err(String::from);
    done(&call, rows.and_then(|rows| call.pass(port, rows)))
}

unsafe extern "C" fn table<D: Desk>(
    of: *mut Call,
    port: u32,
    source: u32,
    bytes: *const c_void,
    len: usize,
) -> Status {
    // SAFETY: the header's rules for calls.
    let Some(call) = (unsafe { D::find(of) }) else {
        return status::USE;
    };
    let said = match (len, bytes.is_null()) {
        (0, _) => call.table(port, source, &[]),
        (_, true) => Err("it gave a table of null".into()),
        (len, false) => {
            // SAFETY: `len` bytes, the header says; they are copied.
            let bytes = unsafe { std::slice::from_raw_parts(bytes.cast::<u8>(), len) };
            call.table(port, source, bytes)
        }
    };
    done(&call, said)
}

unsafe extern "C" fn skip<D: Desk>(of: *mut Call, row: u32, reason: Str) -> Status {
    // SAFETY: the header's rules for calls and strings.
    unsafe {
        match D::find(of) {
            Some(call) => done(&call, call.skip(row, &text(reason))),
            None => status::USE,
        }
    }
}

unsafe extern "C" fn fail_row<D: Desk>(of: *mut Call, row: u32, error: *const Error) -> Status {
    // SAFETY: the header's rules for calls and errors.
    unsafe {
        match D::find(of) {
            Some(call) => done(&call, call.fail_row(row, Said::of(error))),
            None => status::USE,
        }
    }
}

unsafe extern "C" fn complete<D: Desk>(of: *mut Call, said: Status) {
    // SAFETY: the header's rules for calls.
    if let Some(call) = unsafe { D::find(of) } {
        call.complete(said);
    }
}

unsafe extern "C" fn wake<D: Desk>(slide_key: *mut c_void) {
    // SAFETY: the header's rule for the key.
    unsafe { D::wake(slide_key) }
}

unsafe extern "C" fn folder<D: Desk>(of: *mut Call) -> Str {
    // SAFETY: the header's rules for calls.
    unsafe { D::find(of) }.map_or(Str::EMPTY, |call| call.folder())
}
