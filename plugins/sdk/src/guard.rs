//! No panic leaves the plugin.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

thread_local! {
    /// Guards on this thread's stack.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    /// Where the last panic under a guard began.
    static PLACE: RefCell<String> = const { RefCell::new(String::new()) };
}

static HOOK: Once = Once::new();

/// Runs `body`; a panic comes back as a message with its file and line.
///
/// A panic under a guard prints nothing, since the message goes to the host. A library has its own copy of the standard library, and
/// with it its own hook, so the host's is not touched; where both are one program, as in tests, the earlier hook stays for others.
pub(crate) fn guard<R>(body: impl FnOnce() -> R) -> Result<R, String> {
    HOOK.call_once(|| {
        let earlier = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if DEPTH.get() == 0 {
                return earlier(info);
            }
            let place = info
                .location()
                .map_or_else(String::new, |at| format!("{}:{}", at.file(), at.line()));
            PLACE.set(place);
        }));
    });
    DEPTH.set(DEPTH.get() + 1);
    // What a panic left behind is not used again: the shims poison the instance.
    let result = catch_unwind(AssertUnwindSafe(body));
    DEPTH.set(DEPTH.get() - 1);
    result.map_err(|payload| {
        let text = payload
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "no message".into());
        // A payload is any value: dropping it may panic too.
        let _ = catch_unwind(AssertUnwindSafe(move || drop(payload)));
        format!("the plugin panicked at {}: {text}", PLACE.take())
    })
}
