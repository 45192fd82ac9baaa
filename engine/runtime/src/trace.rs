//! What each thread did when, for Perfetto and chrome://tracing.
//!
//! One file a process, in the trace event format: operators on the workers' rows, stages' code on the rows of reader and
//! helper threads, and counters of the budget and of what waits. Times are microseconds since 1970, so that the files of
//! several processes lie on one time line (`jq -s 'map(.traceEvents) | add' a.json b.json` makes one of them).

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
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
