//! When something is broken beyond one tile or slide, everything ends within seconds and the first message is told first.

use crate::report::exit;
use std::any::Any;
use std::cell::RefCell;
use std::panic::PanicHookInfo;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// How long a run may take to end after its abort; then the process exits by force.
const GRACE: Duration = Duration::from_secs(3);
/// How long a fault that another process may have caused waits for that process's own word.
const FOR_THE_CAUSE: Duration = Duration::from_secs(1);

/// The run's abort flag and the message that set it.
#[derive(Clone, Default)]
pub struct Abort(Arc<Inner>);

type Listener = Box<dyn Fn(&str) + Send>;

#[derive(Default)]
struct Inner {
    set: AtomicBool,
    over: AtomicBool,
    first: Mutex<Option<String>>,
    workers: Mutex<Vec<Thread>>,
    told: Mutex<Vec<Listener>>,
}

impl Abort {
    /// Ends the run: keeps the first message, tells who listens, wakes every worker.
    pub fn fatal(&self, message: String) {
        {
            let mut first = lock(&self.0.first);
            if first.is_some() {
                return;
            }
            *first = Some(message.clone());
        }
        self.0.set.store(true, Ordering::SeqCst);
        self.watch(message.clone());
        for listener in lock(&self.0.told).iter() {
            listener(&message);
        }
        for worker in lock(&self.0.workers).iter() {
            worker.unpark();
        }
    }

    /// As [`Abort::fatal`], for what is probably the consequence of a fault in another process: waits for its word first.
    pub(crate) fn secondary(&self, message: String) {
        let until = Instant::now() + FOR_THE_CAUSE;
        while !self.is_set() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
        self.fatal(message);
    }

    /// Whether the run is to end.
    pub fn is_set(&self) -> bool {
        self.0.set.load(Ordering::SeqCst)
    }

    /// The first message.
    pub fn first(&self) -> Option<String> {
        lock(&self.0.first).clone()
    }

    /// The calling thread is a worker: it is woken when the run ends.
    pub(crate) fn enlist(&self) {
        lock(&self.0.workers).push(std::thread::current());
    }

    /// Wakes every worker, so that it looks at what was asked of it.
    pub(crate) fn wake_workers(&self) {
        for worker in lock(&self.0.workers).iter() {
            worker.unpark();
        }
    }

    /// Has `listener` called with the first message.
    pub(crate) fn on_fatal(&self, listener: impl Fn(&str) + Send + 'static) {
        lock(&self.0.told).push(Box::new(listener));
    }

    /// The run has ended: nobody need end it by force.
    pub(crate) fn over(&self) {
        self.0.over.store(true, Ordering::SeqCst);
    }

    /// A thread may never come back; then nothing that waits for it ends either, and the process is cut off.
    fn watch(&self, message: String) {
        let abort = self.clone();
        // Without the watch the run still ends, unless a thread hangs.
        let _ = std::thread::Builder::new()
            .name("weir-watch".into())
            .spawn(move || {
                std::thread::sleep(GRACE);
                if !abort.0.over.load(Ordering::SeqCst) {
                    eprintln!("error: internal fault: {message}");
                    eprintln!(
                        "the run did not end within {} s after that and was cut off",
                        GRACE.as_secs()
                    );
                    exit::leaves();
                    std::process::exit(exit::INTERNAL.into());
                }
            });
    }
}

fn lock<T>(value: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

thread_local! {
    /// What the hook saw of the panic that unwinds on this thread.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Keeps the panics of the run's own threads off the terminal: they are caught, and told once, in order. Panics of other
/// threads are told as before.
pub(crate) fn catch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let ours = std::thread::current()
                .name()
                .is_some_and(|name| name.starts_with("weir-") || name.starts_with("timely:"));
            if !ours {
                return before(panic);
            }
            if std::env::var_os("RUST_BACKTRACE").is_some_and(|value| value != "0") {
                before(panic);
            }
            PANIC.with(|slot| *slot.borrow_mut() = Some(describe(panic)));
        }));
    });
}

fn describe(panic: &PanicHookInfo) -> String {
    let text = text(panic.payload());
    match panic.location() {
        Some(place) => format!("{text} ({}:{})", place.file(), place.line()),
        None => text.to_owned(),
    }
}

fn text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without a message")
}

/// The text of a caught panic: which thread, what, where.
pub(crate) fn message(panic: &(dyn Any + Send)) -> String {
    let seen = PANIC
        .with(|slot| slot.borrow_mut().take())
        .unwrap_or_else(|| text(panic).to_owned());
    let thread = std::thread::current();
    let thread = match thread.name() {
        Some("weir-reader") => "a reader thread".to_owned(),
        Some("weir-helper") => "a helper thread".to_owned(),
        Some(name) => match name.strip_prefix("timely:work-") {
            Some(worker) => format!("worker {worker}"),
            None => name.to_owned(),
        },
        None => "a thread without a name".to_owned(),
    };
    format!("{thread} panicked: {seen}")
}

/// Whether a panic is what timely says when a connection to another process breaks.
pub(crate) fn is_of_a_connection(message: &str) -> bool {
    ["timely communication error", "MergeQueue poisoned"]
        .iter()
        .any(|sign| message.contains(sign))
}

/// A handle that stops a run from outside: the first request drains it, the second aborts it.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicU8>);

impl Stop {
    /// Asks for the end; returns how often that was asked now.
    pub fn request(&self) -> u8 {
        self.0.fetch_add(1, Ordering::SeqCst).saturating_add(1)
    }

    /// How often the end was asked for.
    pub fn level(&self) -> u8 {
        self.0.load(Ordering::SeqCst)
    }

    /// Another process was asked `level` times.
    pub(crate) fn raise(&self, level: u8) {
        self.0.fetch_max(level, Ordering::SeqCst);
    }
}
