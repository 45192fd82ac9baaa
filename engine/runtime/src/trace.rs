//! What each thread did when, for Perfetto and chrome://tracing.
//!
//! One file a process, in the trace event format: operators on the workers' rows, stages' code on the rows of reader and
//! helper threads, what devices ran on rows of theirs ([`DeviceSpans`]), and counters of the budget and of what waits. Times are microseconds since 1970, so that the files of
//! several processes lie on one time line (`jq -s 'map(.traceEvents) | add' a.json b.json` makes one of them).

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::ThreadId;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use timely::logging::{StartStop, TimelyEvent, TimelyEventBuilder};
use timely::worker::Worker;

/// Events that a trace keeps; about 100 bytes each in the file. What comes later is counted and left out.
const MOST: usize = 1_000_000;
/// Operators that ran for less are left out: most of them looked at an empty input.
const LEAST: Duration = Duration::from_micros(1);
/// Time between two counter values.
const COUNTER_EVERY: Duration = Duration::from_millis(10);
/// Row numbers of reader and helper threads start here; workers' are below.
const FIRST_HELPER: u32 = 100;
/// And devices' here.
const FIRST_DEVICE: u32 = 10_000;

/// A trace that is being taken. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Trace(Arc<Inner>);

struct Inner {
    process: usize,
    start: Instant,
    /// Of `start`, us since 1970.
    start_us: f64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    names: Vec<String>,
    known: HashMap<String, u32>,
    threads: HashMap<ThreadId, u32>,
    rows: Vec<(u32, String)>,
    events: Vec<Happening>,
    left_out: u64,
    counted: Option<Instant>,
}

/// Something that happened.
struct Happening {
    name: u32,
    row: u32,
    /// Since the trace's start.
    at: Duration,
    what: What,
}

enum What {
    Span { took: Duration, rows: u64 },
    Counter(Vec<(&'static str, u64)>),
}

/// What devices ran, for the trace; in [`Shared`](crate::stage::Shared). Without a trace nothing is kept.
#[derive(Default)]
pub struct DeviceSpans(OnceLock<Trace>);

impl DeviceSpans {
    /// Whether somebody wants to know.
    pub fn wanted(&self) -> bool {
        self.0.get().is_some()
    }

    /// `what` ran on `device` (as `cuda:0`) from `since` on.
    pub fn add(&self, device: &str, what: &str, since: Instant, took: Duration) {
        if let Some(trace) = self.0.get() {
            trace.device(device, what, since, took);
        }
    }

    pub(crate) fn follow(&self, trace: &Trace) {
        // A process has one trace.
        let _ = self.0.set(trace.clone());
    }
}

impl Trace {
    pub(crate) fn new(process: usize) -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
        Trace(Arc::new(Inner {
            process,
            start: Instant::now(),
            start_us: since_1970.map_or(0.0, |time| time.as_secs_f64() * 1e6),
            state: Mutex::default(),
        }))
    }

    /// The calling thread worked on `rows` rows of a stage from `since` until now.
    pub(crate) fn span(&self, stage: &str, since: Instant, rows: u64) {
        let took = since.elapsed();
        let mut state = self.lock();
        let (name, row) = (state.name(stage), state.this_thread());
        let at = since.saturating_duration_since(self.0.start);
        state.push(name, row, at, What::Span { took, rows });
    }

    /// Something of the name `what` ran on the device `device`, from `since` on.
    pub(crate) fn device(&self, device: &str, what: &str, since: Instant, took: Duration) {
        let mut state = self.lock();
        let (name, row) = (state.name(what), state.device(device));
        let at = since.saturating_duration_since(self.0.start);
        state.push(name, row, at, What::Span { took, rows: 0 });
    }

    /// Values of a counter now; at most one in ten milliseconds is kept. Returns whether this one was.
    pub(crate) fn due(&self) -> bool {
        let mut state = self.lock();
        let due = state.counted.is_none_or(|at| at.elapsed() >= COUNTER_EVERY);
        if due {
            state.counted = Some(Instant::now());
        }
        due
    }

    /// Values of the counter `name` now.
    pub(crate) fn counter(&self, name: &str, values: Vec<(&'static str, u64)>) {
        let at = self.0.start.elapsed();
        let mut state = self.lock();
        let name = state.name(name);
        state.push(name, 0, at, What::Counter(values));
    }

    /// Follows a worker's operators; before its dataflow is built.
    pub(crate) fn follow(&self, worker: &Worker, index: usize) {
        let (Some(mut log), Some(timer)) = (worker.log_register(), worker.timer()) else {
            return;
        };
        self.lock()
            .rows
            .push((index as u32, format!("worker {index}")));
        let offset = timer.saturating_duration_since(self.0.start);
        let trace = self.clone();
        let mut names: HashMap<usize, u32> = HashMap::new();
        let mut open: Vec<(usize, Duration)> = Vec::new();
        log.insert::<TimelyEventBuilder, _>("timely", move |_, events| {
            let Some(events) = events else { return };
            let mut state = trace.lock();
            for (at, event) in events.drain(..) {
                match event {
                    // The dataflow itself is a row of everything that its operators do.
                    TimelyEvent::Operates(operator) if operator.addr.len() > 1 => {
                        let name = state.name(&operator.name);
                        names.insert(operator.id, name);
                    }
                    TimelyEvent::Schedule(schedule) => match schedule.start_stop {
                        StartStop::Start => open.push((schedule.id, at)),
                        StartStop::Stop => {
                            let Some((id, since)) = open.pop() else {
                                continue;
                            };
                            let took = at.saturating_sub(since);
                            if let Some(name) = names.get(&id)
                                && took >= LEAST
                            {
                                let what = What::Span { took, rows: 0 };
                                state.push(*name, index as u32, since + offset, what);
                            }
                        }
                    },
                    _ => {}
                }
            }
        });
    }

    /// Writes the whole file.
    pub(crate) fn write(&self, file: &Path) -> io::Result<()> {
        let state = self.lock();
        let pid = self.0.process;
        let mut text = String::new();
        let partial = beside(file, "partial");
        let mut to = io::BufWriter::new(std::fs::File::create(&partial)?);
        let name = |id: u32| &state.names[id as usize];
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let _ = write!(
            text,
            "{{\"displayTimeUnit\":\"ms\",\"otherData\":{{\"left_out\":{}}},\"traceEvents\":[\n\
             {{\"name\":\"process_name\",\"ph\":\"M\",\"pid\":{pid},\"args\":{{\"name\":\"weir process {pid}\"}}}}",
            state.left_out
        );
        for (row, thread) in &state.rows {
            let _ = write!(
                text,
                ",\n{{\"name\":\"thread_name\",\"ph\":\"M\",\"pid\":{pid},\"tid\":{row},\"args\":{{\"name\":{}}}}}",
                quoted(thread)
            );
        }
        for event in &state.events {
            let ts = self.0.start_us + event.at.as_secs_f64() * 1e6;
            let _ = write!(
                text,
                ",\n{{\"name\":{},\"pid\":{pid},\"tid\":{},\"ts\":{ts:.3},",
                quoted(name(event.name)),
                event.row
            );
            let _ = match &event.what {
                What::Span { took, rows: 0 } => {
                    write!(
                        text,
                        "\"ph\":\"X\",\"dur\":{:.3}}}",
                        took.as_secs_f64() * 1e6
                    )
                }
                What::Span { took, rows } => write!(
                    text,
                    "\"ph\":\"X\",\"dur\":{:.3},\"args\":{{\"rows\":{rows}}}}}",
                    took.as_secs_f64() * 1e6
                ),
                What::Counter(values) => {
                    let values: Vec<String> = values
                        .iter()
                        .map(|(name, value)| format!("\"{name}\":{value}"))
                        .collect();
                    write!(text, "\"ph\":\"C\",\"args\":{{{}}}}}", values.join(","))
                }
            };
            to.write_all(text.as_bytes())?;
            text.clear();
        }
        text.push_str("\n]}\n");
        to.write_all(text.as_bytes())?;
        to.into_inner()?.sync_all()?;
        std::fs::rename(partial, file)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn name(&mut self, name: &str) -> u32 {
        if let Some(known) = self.known.get(name) {
            return *known;
        }
        let id = self.names.len() as u32;
        self.names.push(name.to_owned());
        self.known.insert(name.to_owned(), id);
        id
    }

    fn this_thread(&mut self) -> u32 {
        let thread = std::thread::current();
        let next = FIRST_HELPER + self.threads.len() as u32;
        let rows = &mut self.rows;
        *self.threads.entry(thread.id()).or_insert_with(|| {
            let name = thread.name().unwrap_or("thread");
            rows.push((
                next,
                format!("{} {}", name.trim_start_matches("weir-"), next),
            ));
            next
        })
    }

    /// The row of a device.
    fn device(&mut self, device: &str) -> u32 {
        let known = self
            .rows
            .iter()
            .find(|(row, name)| *row >= FIRST_DEVICE && name == device);
        if let Some((row, _)) = known {
            return *row;
        }
        let row = FIRST_DEVICE
            + self
                .rows
                .iter()
                .filter(|(row, _)| *row >= FIRST_DEVICE)
                .count() as u32;
        self.rows.push((row, device.to_owned()));
        row
    }

    fn push(&mut self, name: u32, row: u32, at: Duration, what: What) {
        if self.events.len() < MOST {
            self.events.push(Happening {
                name,
                row,
                at,
                what,
            });
        } else {
            self.left_out += 1;
        }
    }
}

/// The trace's file of one process of `processes`: `trace.json`, or `trace.1.json` and so on when there are several.
pub(crate) fn file_of(file: &Path, process: usize, processes: usize) -> PathBuf {
    if processes == 1 {
        return file.to_owned();
    }
    match file.extension() {
        Some(ending) => file.with_extension(format!("{process}.{}", ending.to_string_lossy())),
        None => beside(file, &process.to_string()),
    }
}

fn beside(file: &Path, ending: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_a_device_ran_stands_on_a_row_of_its_own() {
        let (trace, spans) = (Trace::new(0), DeviceSpans::default());
        let now = Instant::now();
        spans.add("cuda:0", "lost", now, Duration::from_millis(1));
        assert!(!spans.wanted());
        spans.follow(&trace);
        trace.span("encode", now, 3);
        spans.add("cuda:0", "pool, upload", now, Duration::from_millis(1));
        spans.add("cuda:0", "pool, kernel", now, Duration::from_millis(2));
        spans.add("cuda:1", "pool, kernel", now, Duration::from_millis(2));
        let file = tempfile::NamedTempFile::new().unwrap();
        trace.write(file.path()).unwrap();
        let text = std::fs::read_to_string(file.path()).unwrap();
        let trace: serde_json::Value = serde_json::from_str(&text).unwrap();
        let events = trace["traceEvents"].as_array().unwrap();
        let row_of = |name: &str| {
            let named = events.iter().find(|event| event["args"]["name"] == name);
            named.unwrap()["tid"].clone()
        };
        let on = |row: &serde_json::Value| -> Vec<String> {
            let spans = events
                .iter()
                .filter(|event| event["ph"] == "X" && event["tid"] == *row);
            spans
                .map(|event| event["name"].as_str().unwrap().to_owned())
                .collect()
        };
        assert_eq!(on(&row_of("cuda:0")), ["pool, upload", "pool, kernel"]);
        assert_eq!(on(&row_of("cuda:1")), ["pool, kernel"]);
    }
}
