//! Several processes: they find each other or say who is missing, answer as one would, and end together.
//!
//! This executable is also the process that it starts: `WEIR_TEST_PROCESS` makes it one.
#![allow(clippy::unwrap_used)]

mod synthetic;

use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use synthetic::{Panics, Scenario, answers, settings};
use weir_pipeline::{OnError, Place, RunSettings};
use weir_runtime::{Cluster, Options, Stop, cluster, exit};

/// What a started process does.
#[derive(Clone, serde::Serialize, serde::Deserialize)]
struct Part {
    process: usize,
    addresses: Vec<String>,
    workers: usize,
    plan: String,
    slides: usize,
    join_ms: u64,
    /// One slide cannot be opened.
    closed: bool,
    on_error_stop: bool,
    panics: Option<String>,
    /// Slides stall for a minute, and the end is asked for after this time.
    stop_after_ms: Option<u64>,
    /// Slides stall for a minute.
    stalls: bool,
    trace: Option<std::path::PathBuf>,
}

impl Part {
    fn scenario(&self) -> Scenario {
        let mut scenario = Scenario::of(self.slides, 150);
        if self.closed {
            scenario.slides[1].closed = true;
        }
        if self.stalls {
            for slide in &mut scenario.slides {
                slide.stalls = Duration::from_secs(60);
            }
        }
        scenario.panics = self.panics.as_deref().map(|place| match place {
            "reader" => Panics::Reader,
            "helper" => Panics::Helper,
            "worker" => Panics::Worker,
            other => panic!("{other}"),
        });
        scenario
    }

    fn act(&self) -> i32 {
        let settings = RunSettings {
            workers: self.workers,
            on_error: if self.on_error_stop {
                OnError::Stop
            } else {
                OnError::Continue
            },
            ..settings()
        };
        let mut plan = self.scenario().plan(Place::First, settings);
        plan.hash = self.plan.clone();
        let stop = Stop::default();
        if let Some(ms) = self.stop_after_ms {
            let stop = stop.clone();
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(ms));
                stop.request();
            });
        }
        let options = Options {
            stop,
            trace: self.trace.clone(),
            cluster: Some(Cluster {
                process: self.process,
                addresses: self.addresses.clone(),
                join_timeout: Duration::from_millis(self.join_ms),
            }),
            ..Options::default()
        };
        let (outcome, seen) = self.scenario().run_plan(plan, options);
        match outcome {
            Ok(outcome) => {
                if self.process == 0 {
                    for (slide, answer) in answers(&seen) {
                        println!("{slide} {answer}");
                    }
                    println!("{} slides", outcome.slides.len());
                } else {
                    assert!(answers(&seen).is_empty() && outcome.slides.is_empty());
                }
                outcome.exit_code() as i32
            }
            Err(error) => {
                eprintln!("error: {error}");
                error.exit_code() as i32
            }
        }
    }
}

/// Not a test: what the started processes are.
#[test]
fn part() {
    let Ok(part) = std::env::var("WEIR_TEST_PROCESS") else {
        return;
    };
    let part: Part = serde_json::from_str(&part).unwrap();
    std::process::exit(part.act());
}

fn parts(processes: usize, workers: usize, slides: usize) -> Vec<Part> {
    let addresses = cluster::local_addresses(processes).unwrap();
    let part = |process| Part {
        process,
        addresses: addresses.clone(),
        workers,
        plan: "one".into(),
        slides,
        join_ms: 20_000,
        closed: false,
        on_error_stop: false,
        panics: None,
        stop_after_ms: None,
        stalls: false,
        trace: None,
    };
    (0..processes).map(part).collect()
}

fn start(part: &Part) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["part", "--exact", "--nocapture"])
        .env("WEIR_TEST_PROCESS", serde_json::to_string(part).unwrap())
        .env_remove("RUST_BACKTRACE")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Starts all and waits for all; nobody may take longer than `limit`.
fn run(parts: &[Part], limit: Duration) -> Vec<Output> {
    let since = Instant::now();
    let started: Vec<Child> = parts.iter().map(start).collect();
    finish(started, since, limit)
}

fn finish(mut started: Vec<Child>, since: Instant, limit: Duration) -> Vec<Output> {
    let mut late = false;
    while started
        .iter_mut()
        .any(|child| child.try_wait().unwrap().is_none())
    {
        if since.elapsed() > limit {
            late = true;
            started.iter_mut().for_each(|child| child.kill().unwrap());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let outputs: Vec<Output> = started
        .into_iter()
        .map(|child| child.wait_with_output().unwrap())
        .collect();
    assert!(
        !late,
        "not over within {limit:?}: {:?}",
        outputs.iter().map(err).collect::<Vec<_>>()
    );
    outputs
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Lines of standard output behind what the test harness prints.
fn lines(output: &Output) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines()
        .map(|line| line.trim_start_matches("test part ... ").to_owned())
        .filter(|line| !line.is_empty() && !line.starts_with("running "))
        .collect()
}

#[track_caller]
fn codes(outputs: &[Output], code: u8) {
    for (process, output) in outputs.iter().enumerate() {
        assert_eq!(
            output.status.code(),
            Some(code as i32),
            "process {process}: {}",
            err(output)
        );
    }
}

const SOON: Duration = Duration::from_secs(5);
const RUN: Duration = Duration::from_secs(30);

#[test]
fn several_processes_answer_as_one_and_print_nothing_else() {
    for (processes, workers) in [(2, 1), (2, 2), (3, 1)] {
        let parts = parts(processes, workers, 7);
        let outputs = run(&parts, RUN);
        codes(&outputs, exit::DONE);
        let mut wanted: Vec<String> = parts[0]
            .scenario()
            .truth()
            .iter()
            .map(|(slide, answer)| format!("{slide} {answer}"))
            .collect();
        wanted.push("7 slides".into());
        assert_eq!(lines(&outputs[0]), wanted);
        for other in &outputs[1..] {
            assert_eq!(lines(other), Vec::<String>::new());
            assert_eq!(err(other), "");
        }
    }
}

#[test]
fn the_exit_code_is_the_same_everywhere() {
    let mut parts = parts(2, 1, 4);
    parts.iter_mut().for_each(|part| part.closed = true);
    codes(&run(&parts, RUN), exit::PARTLY);
    let addresses = cluster::local_addresses(2).unwrap();
    for part in &mut parts {
        part.on_error_stop = true;
        part.stalls = true;
        part.addresses = addresses.clone();
    }
    codes(&run(&parts, RUN), exit::FAILED);
}

#[test]
fn a_stop_in_any_process_drains_all() {
    for asked in [0, 1] {
        let mut parts = parts(2, 2, 6);
        parts.iter_mut().for_each(|part| part.stalls = true);
        parts[asked].stop_after_ms = Some(700);
        let outputs = run(&parts, SOON);
        codes(&outputs, exit::INTERRUPTED);
        assert!(lines(&outputs[0]).last().unwrap().ends_with(" slides"));
    }
}

#[test]
fn who_is_missing_is_named_within_the_time_out() {
    let mut all = parts(3, 1, 3);
    all.iter_mut().for_each(|part| part.join_ms = 700);
    let missing = all.remove(1);
    let outputs = run(&all, SOON);
    codes(&outputs, exit::FAILED);
    for output in &outputs {
        let told = err(output);
        assert!(told.contains("no word from process 1"), "{told}");
        assert!(told.contains(&missing.addresses[1]), "{told}");
    }
    // Without process 0 the others say so themselves.
    let mut all = parts(2, 1, 3);
    all.iter_mut().for_each(|part| part.join_ms = 500);
    let outputs = run(&all[1..], SOON);
    codes(&outputs, exit::FAILED);
    assert!(
        err(&outputs[0]).contains("no word from process 0"),
        "{}",
        err(&outputs[0])
    );
}

#[test]
fn processes_that_do_not_run_the_same_say_what_differs() {
    type Change = fn(&mut Part);
    let cases: [(Change, &str); 3] = [
        (
            |part| part.plan = "two".into(),
            "process 1 has another plan than process 0: two instead of one",
        ),
        (
            |part| part.workers = 3,
            "process 1 has another number of workers than process 0: 3 instead of 1",
        ),
        (
            |part| part.slides = 9,
            "process 1 has other slides than process 0",
        ),
    ];
    for (change, told) in cases {
        let mut parts = parts(2, 1, 4);
        change(&mut parts[1]);
        let outputs = run(&parts, SOON);
        codes(&outputs, exit::FAILED);
        for output in &outputs {
            assert!(err(output).contains(told), "{}", err(output));
        }
    }
}

#[test]
fn a_panic_in_one_process_ends_all_with_its_message() {
    for (guilty, place, workers) in [
        (1, "worker", 1),
        (1, "worker", 2),
        (0, "worker", 2),
        (1, "helper", 2),
        (1, "reader", 1),
    ] {
        let mut parts = parts(2, workers, 6);
        parts[guilty].panics = Some(place.into());
        parts.iter_mut().for_each(|part| part.stalls = true);
        let outputs = run(&parts, SOON);
        codes(&outputs, exit::INTERNAL);
        for output in &outputs {
            let told = err(output);
            let first = told.lines().next().unwrap_or_default();
            assert!(
                first.contains("was told to panic"),
                "{place} in process {guilty}: {told}"
            );
            assert_eq!(told.lines().count(), 1, "nothing but the cause: {told}");
        }
        let other = err(&outputs[1 - guilty]);
        assert!(other.contains(&format!("process {guilty}: ")), "{other}");
    }
}

#[test]
fn a_process_that_is_killed_ends_the_others() {
    let mut parts = parts(3, 2, 6);
    parts.iter_mut().for_each(|part| part.stalls = true);
    let mut started: Vec<Child> = parts.iter().map(start).collect();
    std::thread::sleep(Duration::from_millis(800));
    let mut killed = started.remove(1);
    killed.kill().unwrap();
    killed.wait().unwrap();
    let outputs = finish(started, Instant::now(), SOON);
    codes(&outputs, exit::INTERNAL);
    for output in &outputs {
        let told = err(output);
        assert!(told.lines().next().unwrap().contains("process 1"), "{told}");
        assert!(told.contains("was lost"), "{told}");
    }
}

#[test]
fn each_process_writes_its_trace() {
    let folder = tempfile::tempdir().unwrap();
    let mut parts = parts(2, 1, 3);
    parts
        .iter_mut()
        .for_each(|part| part.trace = Some(folder.path().join("trace.json")));
    codes(&run(&parts, RUN), exit::DONE);
    for process in 0..2 {
        let text =
            std::fs::read_to_string(folder.path().join(format!("trace.{process}.json"))).unwrap();
        let trace: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert!(
            trace["traceEvents"]
                .as_array()
                .unwrap()
                .iter()
                .all(|event| event["pid"] == process)
        );
    }
}

#[test]
fn a_hosts_file_is_read_with_its_mistakes_named() {
    let folder = tempfile::tempdir().unwrap();
    let read = |text: &str| {
        let file = folder.path().join("hosts");
        std::fs::write(&file, text).unwrap();
        cluster::hosts(&file).map_err(|error| error.to_string())
    };
    let good = read("# two machines\nnode-1:4200\n\n  node-2:4200 # the big one\n[::1]:4201\n");
    assert_eq!(good.unwrap(), ["node-1:4200", "node-2:4200", "[::1]:4201"]);
    for (text, told) in [
        (
            "node-1:4200\nnode-2\n",
            "hosts:2: `node-2` is not host:port",
        ),
        ("node-1:0\n", "hosts:1: `node-1:0` is not host:port"),
        ("node-1:70000\n", "is not host:port"),
        ("a b:1\n", "is not host:port"),
        ("a:1\nb:2\na:1\n", "hosts:3: `a:1` stands there twice"),
        ("# nobody\n", "names no process"),
    ] {
        let error = read(text).unwrap_err();
        assert!(error.contains(told), "{error}");
    }
    let error = cluster::hosts(&folder.path().join("none"))
        .unwrap_err()
        .to_string();
    assert!(error.contains("cannot be read"), "{error}");
}
