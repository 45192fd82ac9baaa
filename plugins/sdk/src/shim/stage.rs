//! Maps, filters, reduces, sinks.

use super::{Instance, run, run_with_batch};
use crate::abi;
use crate::abi::column::Batch as RawBatch;
use crate::abi::row::{Row, Slide as RawSlide};
use crate::abi::stage::{DETERMINISTIC, PARALLEL, Stage};
use crate::abi::status::{self, Status};
use crate::abi::value::Value;
use crate::batch::Batch;
use crate::call::Call;
use crate::error::{Error, Result};
use crate::export::Declared;
use crate::guard::guard;
use crate::host::{Host, slice};
use crate::param::Values;
use crate::row::{End, Slide};
use crate::source::Source;
use crate::stage::{Filter, Finish, Map, Reduce, Sink};
use std::ffi::{CStr, c_char, c_void};
use std::marker::PhantomData;

/// What the kinds have in common, by a name for each kind, since the traits are several.
pub(crate) trait Kind<T> {
    fn start(stage: &mut T, call: &Call) -> Result<()>;
    fn size(stage: &T, port: &str, symbol: &str) -> Option<u64>;
}

/// Maps and filters.
pub(crate) trait Work<T>: Kind<T> {
    fn process(stage: &T, batch: &Batch, call: &Call) -> Result<()>;
    fn cancel(stage: &T);
}

/// Reduces and sinks.
pub(crate) trait Collect<T>: Kind<T> {
    fn take(stage: &mut T, port: &str, batch: &Batch, call: &Call) -> Result<()>;
    fn remove(stage: &mut T, port: &str, rows: &[Row], call: &Call) -> Result<()>;
    fn complete(stage: &mut T, slide: Slide, rev: u32, end: End, call: &Call) -> Result<()>;
    fn close(stage: &mut T, slide: u64);
}

pub(crate) struct OfMap;
pub(crate) struct OfFilter;
pub(crate) struct OfReduce;
pub(crate) struct OfSink;
pub(crate) struct OfSource;

macro_rules! kind {
    ($name:ident: $trait:ident) => {
        impl<T: $trait> Kind<T> for $name {
            fn start(stage: &mut T, call: &Call) -> Result<()> {
                stage.start(call)
            }
            fn size(stage: &T, port: &str, symbol: &str) -> Option<u64> {
                stage.size(port, symbol)
            }
        }
    };
}

kind!(OfMap: Map);
kind!(OfFilter: Filter);
kind!(OfReduce: Reduce);
kind!(OfSource: Source);

impl<T: Sink> Kind<T> for OfSink {
    fn start(stage: &mut T, call: &Call) -> Result<()> {
        stage.start(call)
    }
    fn size(_: &T, _: &str, _: &str) -> Option<u64> {
        None
    }
}

macro_rules! work {
    ($name:ident: $trait:ident::$process:ident) => {
        impl<T: $trait> Work<T> for $name {
            fn process(stage: &T, batch: &Batch, call: &Call) -> Result<()> {
                stage.$process(batch, call)
            }
            fn cancel(stage: &T) {
                stage.cancel()
            }
        }
    };
}

work!(OfMap: Map::map);
work!(OfFilter: Filter::filter);

macro_rules! collect {
    ($name:ident: $trait:ident) => {
        impl<T: $trait> Collect<T> for $name {
            fn take(stage: &mut T, port: &str, batch: &Batch, call: &Call) -> Result<()> {
                stage.take(port, batch, call)
            }
            fn remove(stage: &mut T, port: &str, rows: &[Row], call: &Call) -> Result<()> {
                stage.remove(port, rows, call)
            }
            fn complete(
                stage: &mut T,
                slide: Slide,
                rev: u32,
                end: End,
                call: &Call,
            ) -> Result<()> {
                stage.complete(slide, rev, end, call)
            }
            fn close(stage: &mut T, slide: u64) {
                stage.close(slide)
            }
        }
    };
}

collect!(OfReduce: Reduce);
collect!(OfSink: Sink);

/// A table with what every stage has.
pub(super) const fn table<T: Declared, K: Kind<T>>() -> Stage {
    let parallel = if T::PARALLEL { PARALLEL } else { 0 };
    let deterministic = if T::DETERMINISTIC { DETERMINISTIC } else { 0 };
    Stage {
        flags: parallel | deterministic,
        id: T::ID.as_ptr(),
        create: Some(create::<T, K>),
        destroy: Some(destroy::<T>),
        resolve: Some(resolve::<T, K>),
        ..Stage::EMPTY
    }
}

/// The table of a map.
pub const fn map<T: Declared + Map>() -> Stage {
    Stage {
        process: Some(work_process::<T, OfMap>),
        cancel: Some(work_cancel::<T, OfMap>),
        ..table::<T, OfMap>()
    }
}

/// The table of a filter.
pub const fn filter<T: Declared + Filter>() -> Stage {
    Stage {
        process: Some(work_process::<T, OfFilter>),
        cancel: Some(work_cancel::<T, OfFilter>),
        ..table::<T, OfFilter>()
    }
}

/// The table of a reduce.
pub const fn reduce<T: Declared + Reduce>() -> Stage {
    Stage {
        process: Some(take::<T, OfReduce>),
        remove: if T::BATCH_ONLY {
            None
        } else {
            Some(remove::<T, OfReduce>)
        },
        complete_slide: Some(complete::<T, OfReduce>),
        close_slide: Some(close::<T, OfReduce>),
        ..table::<T, OfReduce>()
    }
}

/// What the end of the run is to a sink. `#[derive(Stage)]` asks for `AtEnd::<S>::FINISH` of its `S`: the constant of the type itself,
/// which is there where `S` is a [`Finish`], goes before that of [`NothingAtEnd`].
pub struct AtEnd<T>(PhantomData<T>);

/// As `weir_stage.finish`.
type FinishFn = unsafe extern "C" fn(*mut c_void, *mut abi::Call) -> Status;

/// A sink that has nothing to do then.
pub trait NothingAtEnd {
    /// None.
    const FINISH: Option<FinishFn> = None;
}

impl<T> NothingAtEnd for AtEnd<T> {}

impl<T: Declared + Finish> AtEnd<T> {
    /// [`Finish::finish`].
    pub const FINISH: Option<FinishFn> = Some(finish::<T>);
}

/// The table of a sink.
pub const fn sink<T: Declared + Sink>(finish: Option<FinishFn>) -> Stage {
    Stage {
        process: Some(take::<T, OfSink>),
        remove: Some(remove::<T, OfSink>),
        complete_slide: Some(complete::<T, OfSink>),
        close_slide: Some(close::<T, OfSink>),
        finish,
        ..table::<T, OfSink>()
    }
}

// Every function below is called as weir_plugin.h says, which is the SAFETY of each of its blocks: `pointer` is what `create` gave and
// not yet destroyed, `call` is open, and what else is handed over lives until the function returns.

pub(super) unsafe extern "C" fn create<T: Declared, K: Kind<T>>(
    host: *const abi::host::Host,
    call: *mut abi::Call,
    values: *const Value,
    n_values: u32,
    out: *mut *mut c_void,
) -> Status {
    // SAFETY: the host's table, which lives as long as the process.
    let Some(host) = (unsafe { Host::new(host) }) else {
        return status::FAIL;
    };
    let body = || {
        // SAFETY: see above.
        let (values, cx) = unsafe {
            (
                Values::new(values, n_values),
                Call::new(host, call, T::OUTS, std::ptr::null()),
            )
        };
        if values.len() != T::PARAMS {
            return Err(Error::new(format!(
                "the host gave {} values for {} parameters",
                values.len(),
                T::PARAMS
            )));
        }
        let mut stage = T::from_values(&values)?;
        K::start(&mut stage, &cx)?;
        // SAFETY: see above.
        unsafe { *out = Instance::give(host, stage) };
        Ok(status::OK)
    };
    // SAFETY: see above.
    unsafe { run(host, call, None, body) }
}

unsafe extern "C" fn destroy<T>(pointer: *mut c_void) {
    // SAFETY: see above; nothing is called any more.
    unsafe { Instance::<T>::take_back(pointer) }
}

unsafe extern "C" fn resolve<T: Declared, K: Kind<T>>(
    pointer: *mut c_void,
    call: *mut abi::Call,
    port: u32,
    symbol: *const c_char,
    size: *mut i64,
) -> Status {
    // SAFETY: see above.
    let it = unsafe { Instance::<T>::of(pointer) };
    let body = || {
        // SAFETY: see above; the text is terminated.
        let symbol = unsafe { CStr::from_ptr(symbol) }.to_string_lossy();
        let port = T::OUTS.get(port as usize).copied().unwrap_or_default();
        let known = K::size(&it.body, port, &symbol).and_then(|size| i64::try_from(size).ok());
        match known {
            Some(known) => {
                // SAFETY: see above.
                unsafe { *size = known };
                Ok(status::OK)
            }
            None => Err(Error::new(format!(
                "the stage does not know the size `{symbol}` of its output `{port}`"
            ))),
        }
    };
    // SAFETY: see above.
    unsafe { run(it.host, call, Some(&it.spoiled), body) }
}

unsafe extern "C" fn work_process<T: Declared, K: Work<T>>(
    pointer: *mut c_void,
    call: *mut abi::Call,
    _port: u32,
    batch: *const RawBatch,
) -> Status {
    // SAFETY: see above.
    let it = unsafe { Instance::<T>::of(pointer) };
    let host = it.host;
    // SAFETY: see above.
    unsafe {
        run_with_batch(host, call, T::OUTS, batch, &it.spoiled, |cx| {
            K::process(&it.body, &Batch::new(batch, host), cx)
        })
    }
}

unsafe extern "C" fn work_cancel<T: Declared, K: Work<T>>(pointer: *mut c_void) {
    // SAFETY: see above.
    let it = unsafe { Instance::<T>::of(pointer) };
    if let Err(panic) = guard(|| K::cancel(&it.body)) {
        eprintln!("{panic}");
    }
}

/// The stage itself, to be changed.
///
/// # Safety
/// As `Instance::of`, and no other call of the instance is in flight: reduces and sinks are serial.
unsafe fn exclusive<'a, T>(pointer: *mut c_void) -> &'a mut Instance<T> {
    // SAFETY: the caller's.
    unsafe { &mut *pointer.cast::<Instance<T>>() }
}

/// A call into a reduce or a sink.
///
/// # Safety
/// As `exclusive`, and `call` is open.
unsafe fn collect<T: Declared>(
    pointer: *mut c_void,
    call: *mut abi::Call,
    body: impl FnOnce(&mut T, Host, &Call) -> Result<()>,
) -> Status {
    // SAFETY: the caller's.
    let Instance {
        host,
        spoiled,
        body: stage,
    } = unsafe { exclusive::<T>(pointer) };
    let host = *host;
    // SAFETY: the caller's.
    let cx = unsafe { Call::new(host, call, T::OUTS, std::ptr::null()) };
    // SAFETY: the caller's.
    unsafe {
        run(host, call, Some(spoiled), || {
            body(stage, host, &cx).map(|()| status::OK)
        })
    }
}

fn input<T: Declared>(port: u32) -> &'static str {
    T::INS.get(port as usize).copied().unwrap_or_default()
}

unsafe extern "C" fn take<T: Declared, K: Collect<T>>(
    pointer: *mut c_void,
    call: *mut abi::Call,
    port: u32,
    batch: *const RawBatch,
) -> Status {
    // SAFETY: see above.
    unsafe {
        collect::<T>(pointer, call, |stage, host, cx| {
            K::take(stage, input::<T>(port), &Batch::new(batch, host), cx)
        })
    }
}

unsafe extern "C" fn remove<T: Declared, K: Collect<T>>(
    pointer: *mut c_void,
    call: *mut abi::Call,
    port: u32,
    rows: *const Row,
    n_rows: u32,
) -> Status {
    // SAFETY: see above.
    unsafe {
        collect::<T>(pointer, call, |stage, _, cx| {
            K::remove(stage, input::<T>(port), slice(rows, n_rows), cx)
        })
    }
}

unsafe extern "C" fn complete<T: Declared, K: Collect<T>>(
    pointer: *mut c_void,
    call: *mut abi::Call,
    slide: *const RawSlide,
    rev: u32,
    end: u32,
) -> Status {
    // SAFETY: see above.
    unsafe {
        collect::<T>(pointer, call, |stage, _, cx| {
            K::complete(stage, Slide::new(slide), rev, End::of(end), cx)
        })
    }
}

unsafe extern "C" fn close<T: Declared, K: Collect<T>>(pointer: *mut c_void, slide: u64) {
    // SAFETY: see above.
    let it = unsafe { exclusive::<T>(pointer) };
    if let Err(panic) = guard(|| K::close(&mut it.body, slide)) {
        it.spoiled.store(true, std::sync::atomic::Ordering::Relaxed);
        eprintln!("{panic}");
    }
}

unsafe extern "C" fn finish<T: Declared + Finish>(
    pointer: *mut c_void,
    call: *mut abi::Call,
) -> Status {
    // SAFETY: see above.
    unsafe { collect::<T>(pointer, call, |stage, _, cx| stage.finish(cx)) }
}
