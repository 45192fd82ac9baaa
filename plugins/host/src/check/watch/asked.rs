//! The stage's functions as the host calls them while the stage is tried.

use super::twin::Twin;
use super::{Shown, gained_instance, inside, is_shown, lost_instance, seen, wrong};
use std::ffi::c_void;
use std::sync::{PoisonError, RwLock};
use weir_abi::Call;
use weir_abi::column::Batch;
use weir_abi::host::Host;
use weir_abi::plugin::{Entry, Plugin};
use weir_abi::row::{Row, Slide};
use weir_abi::stage::{Stage, Step};
use weir_abi::status::{self, Status};
use weir_abi::value::Value;

/// The stage's own functions.
static REAL: RwLock<Option<Real>> = RwLock::new(None);

#[derive(Clone, Copy)]
struct Real(Stage);

// SAFETY: functions, and a text that lives as long as the process.
unsafe impl Send for Real {}
// SAFETY: as above.
unsafe impl Sync for Real {}

fn real() -> Option<Stage> {
    let real = REAL.read().unwrap_or_else(PoisonError::into_inner);
    real.map(|Real(stage)| stage)
}

/// A table that stands before `real`.
pub(in crate::check) fn stage(real: &Stage) -> Stage {
    *REAL.write().unwrap_or_else(PoisonError::into_inner) = Some(Real(*real));
    Stage {
        create: real.create.and(Some(create)),
        destroy: real.destroy.and(Some(destroy)),
        process: real.process.and(Some(process)),
        remove: real.remove.and(Some(remove)),
        complete_slide: real.complete_slide.and(Some(complete_slide)),
        finish: real.finish.and(Some(finish)),
        slide: real.slide.and(Some(slide)),
        open: real.open.and(Some(open)),
        next: real.next.and(Some(next)),
        read: real.read.and(Some(read)),
        ..*real
    }
}

/// The plugin's entry, with the host's functions as they are watched.
pub(in crate::check) fn entered(entry: Entry, call: *mut Call, out: *mut *const Plugin) -> Status {
    // SAFETY: host and call live through the call, and `out` is a place for a pointer.
    inside(call, || unsafe { entry(&super::WATCHED, call, out) })
}

/// Asks every instance to complete its pending calls, as the host does when a run is being stopped; whether the stage has a
/// function for it.
pub(in crate::check) fn cancel_all() -> bool {
    let Some(cancel) = real().and_then(|real| real.cancel) else {
        return false;
    };
    let instances = seen().instances.clone();
    for me in instances {
        // SAFETY: instances that live, and `cancel` may be called from any thread.
        unsafe { cancel(me as *mut c_void) }
    }
    true
}

/// Calls the stage's own function of this name, with the call open meanwhile.
macro_rules! real {
    ($name:ident, $call:expr, ($($argument:expr),*)) => {
        match real().and_then(|real| real.$name) {
            // SAFETY: the host's own arguments, or what stands for them.
            Some(function) => inside($call, || unsafe { function($($argument),*) }),
            None => status::UNSUPPORTED,
        }
    };
}

unsafe extern "C" fn create(
    _: *const Host,
    call: *mut Call,
    values: *const Value,
    n_values: u32,
    out: *mut *mut c_void,
) -> Status {
    let said = real!(create, call, (&super::WATCHED, call, values, n_values, out));
    if said == status::OK {
        // SAFETY: the host's place for a pointer, which the plugin has filled.
        gained_instance(unsafe { *out });
    }
    said
}

unsafe extern "C" fn destroy(me: *mut c_void) {
    lost_instance(me);
    if let Some(destroy) = real().and_then(|real| real.destroy) {
        // SAFETY: the host's own argument.
        unsafe { destroy(me) }
    }
}

unsafe extern "C" fn process(
    me: *mut c_void,
    call: *mut Call,
    port: u32,
    batch: *const Batch,
) -> Status {
    let twin = match (is_shown(Shown::Fenced), is_shown(Shown::Empty)) {
        // SAFETY: the host's own batch.
        (true, _) => Some(unsafe { Twin::fenced(batch, true) }),
        // SAFETY: as above.
        (_, true) => Some(unsafe { Twin::emptied(batch) }),
        _ => None,
    };
    let shown = match twin {
        None => batch,
        Some(Ok(twin)) => {
            let shown = twin.as_ptr();
            seen().twins.insert(shown as usize, twin);
            shown
        }
        Some(Err(what)) => {
            wrong(what);
            return status::FAIL;
        }
    };
    let said = real!(process, call, (me, call, port, shown));
    let beside = seen()
        .twins
        .get(&(shown as usize))
        .filter(|twin| !twin.is_whole())
        .map(|twin| twin.names());
    if let Some(columns) = beside {
        wrong(format!("it wrote beside a row of its input ({columns})"));
    }
    said
}

unsafe extern "C" fn remove(
    me: *mut c_void,
    call: *mut Call,
    port: u32,
    rows: *const Row,
    n_rows: u32,
) -> Status {
    real!(remove, call, (me, call, port, rows, n_rows))
}

unsafe extern "C" fn complete_slide(
    me: *mut c_void,
    call: *mut Call,
    slide: *const Slide,
    rev: u32,
    end: u32,
) -> Status {
    real!(complete_slide, call, (me, call, slide, rev, end))
}

unsafe extern "C" fn finish(me: *mut c_void, call: *mut Call) -> Status {
    real!(finish, call, (me, call))
}

unsafe extern "C" fn slide(me: *mut c_void, call: *mut Call, i: u64, out: *mut Slide) -> Status {
    real!(slide, call, (me, call, i, out))
}

unsafe extern "C" fn open(
    me: *mut c_void,
    call: *mut Call,
    i: u64,
    slide_key: *mut c_void,
    out: *mut Slide,
    slide: *mut *mut c_void,
) -> Status {
    real!(open, call, (me, call, i, slide_key, out, slide))
}

unsafe extern "C" fn next(slide: *mut c_void, call: *mut Call, out: *mut Step) -> Status {
    let said = real!(next, call, (slide, call, out));
    if said == status::END {
        // The host asks no more; whoever did would have to hear the same.
        let mut step = Step {
            struct_size: size_of::<Step>() as u32,
            ..Step::default()
        };
        let again = real!(next, call, (slide, call, &mut step));
        if again != status::END {
            wrong(format!(
                "next() said that there is nothing more, and {again} when it was asked again: WEIR_END is for ever"
            ));
        }
    }
    said
}

unsafe extern "C" fn read(
    slide: *mut c_void,
    call: *mut Call,
    row: *const Row,
    into: *mut c_void,
    len: usize,
) -> Status {
    real!(read, call, (slide, call, row, into, len))
}
