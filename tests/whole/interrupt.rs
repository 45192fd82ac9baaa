//! Runs that are stopped: by a person, by kill -9, by another run.

use crate::program::models::Pipeline;
use crate::program::tiled::Tiled;
use crate::program::{answers, command, files, record, said, slide, tissue, wait_until, weir};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A pipeline over a short slide and one that takes many seconds.
fn pipeline(folder: &Path) -> String {
    slide(&folder.join("a-short.tiff"), 4, 4, 1);
    let long = Tiled {
        width: 64 * 400,
        height: 64 * 200,
        tile: 64,
        mpp: Some(1.0),
    };
    let kind = |column: u32, row: u32| u64::from(column % 7 + 7 * (row % 5));
    long.write(&folder.join("b-long.tiff"), &kind, &|c, r, pixels| {
        tissue(kind(c, r), pixels)
    })
    .unwrap();
    let pipeline = Pipeline {
        slides: &["a-short.tiff", "b-long.tiff"],
        size: 64,
        mpp: 1.0,
        run: "executor = \"burn\"",
        reader: "tissue = \"none\"",
    };
    pipeline.write(folder).to_str().unwrap().to_owned()
}

/// Starts a run whose long slide is at work when this returns.
fn started(file: &str, more: &[&str]) -> Child {
    let mut arguments = vec!["run", file, "--format", "json"];
    arguments.extend(more);
    let mut child = command(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let out = Path::new(file).parent().unwrap().join("out");
    wait_until(Duration::from_secs(60), "the first slide's end", || {
        assert!(
            child.try_wait().unwrap().is_none(),
            "the run ended by itself"
        );
        out.join("a-short/prediction.json").exists()
    });
    child
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill")
        .args([&format!("-{name}"), &child.id().to_string()])
        .status()
        .unwrap();
    assert!(sent.success());
}

/// The exit code, within `limit`.
#[track_caller]
fn ended(child: &mut Child, limit: Duration) -> Option<i32> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        if start.elapsed() > limit {
            child.kill().unwrap();
            panic!("still running after {limit:?}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn one_request_drains_the_run_and_leaves_a_record() {
    for name in ["INT", "TERM"] {
        let folder = tempfile::tempdir().unwrap();
        let file = pipeline(folder.path());
        let mut child = started(&file, &[]);
        signal(&child, name);
        assert_eq!(
            ended(&mut child, Duration::from_secs(20)),
            Some(130),
            "{name}"
        );
        let out = folder.path().join("out");
        let record = record(&out);
        assert_eq!(
            (&record["state"], &record["exit_code"]),
            (&"interrupted".into(), &130.into())
        );
        assert_eq!(record["slides"]["a-short"]["state"], "final");
        assert_eq!(record["slides"]["b-long"]["state"], "interrupted");
        assert!(record["slides"]["b-long"]["class"].is_null());
        let table = std::fs::read_to_string(out.join("predictions.csv")).unwrap();
        assert!(
            table.contains("a-short"),
            "what is done is in the table: {table}"
        );
    }
}

#[test]
fn two_requests_abort_within_seconds() {
    let folder = tempfile::tempdir().unwrap();
    let file = pipeline(folder.path());
    let mut child = started(&file, &[]);
    signal(&child, "INT");
    signal(&child, "INT");
    // Two signals of one kind that come at once are one to the kernel.
    std::thread::sleep(Duration::from_millis(50));
    if child.try_wait().unwrap().is_none() {
        signal(&child, "INT");
    }
    assert_eq!(ended(&mut child, Duration::from_secs(5)), Some(130));
}

#[test]
fn processes_are_stopped_through_the_one_that_started_them() {
    let folder = tempfile::tempdir().unwrap();
    let file = pipeline(folder.path());
    let mut child = started(&file, &["--processes", "2"]);
    signal(&child, "INT");
    assert_eq!(ended(&mut child, Duration::from_secs(20)), Some(130));
    assert_eq!(record(&folder.path().join("out"))["state"], "interrupted");
}

#[test]
fn kill_9_leaves_whole_files_only_and_the_next_run_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let file = pipeline(folder.path());
    let out = folder.path().join("out");
    let mut child = started(&file, &[]);
    child.kill().unwrap();
    child.wait().unwrap();
    for (name, bytes) in files(&out) {
        let last = name.rsplit('/').next().unwrap_or(&name);
        if last.starts_with('.') || last.contains(".part") {
            continue;
        }
        let text = String::from_utf8_lossy(&bytes);
        if last.ends_with(".json") {
            serde_json::from_slice::<serde_json::Value>(&bytes)
                .unwrap_or_else(|error| panic!("{name}: {error}"));
        } else if last.ends_with(".jsonl") {
            for line in text.lines() {
                serde_json::from_str::<serde_json::Value>(line)
                    .unwrap_or_else(|error| panic!("{name}: {error}"));
            }
        } else {
            assert!(text.ends_with('\n'), "{name} is cut short");
        }
    }
    assert!(!out.join("b-long").join("prediction.json").exists());

    // The long slide is left out, so that the test is short: what is done is found again.
    let set = format!(
        "stage.tiles.slides=[{:?}]",
        folder.path().join("a-short.tiff")
    );
    weir(["run", &file, "--set", &set]).exits(0);
    assert!(record(&out)["slides"]["a-short"]["skipped"].is_string());
    assert!(answers(&out).contains_key("a-short/tiles.csv"));
}

#[test]
fn a_second_run_keeps_off_a_folder_that_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let file = pipeline(folder.path());
    let mut child = started(&file, &[]);
    let said = weir(["run", &file]).exits(2);
    assert!(
        said.err
            .contains(&format!("another run (process {})", child.id())),
        "{}",
        said.err
    );
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_process_that_nobody_joins_says_who_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let file = pipeline(folder.path());
    let hosts: PathBuf = folder.path().join("hosts");
    let ports: Vec<String> = free_ports(2)
        .iter()
        .map(|port| format!("127.0.0.1:{port}"))
        .collect();
    std::fs::write(&hosts, ports.join("\n")).unwrap();
    let hosts = hosts.to_str().unwrap().to_owned();
    let command = command([
        "run",
        &file,
        "--hosts",
        &hosts,
        "--process",
        "0",
        "--join-timeout",
        "2",
    ]);
    let said = said(command).exits(1);
    assert!(
        said.err.contains(&ports[1]) || said.err.contains("process 1"),
        "{}",
        said.err
    );
    assert!(said.took < Duration::from_secs(10), "{:?}", said.took);
}

fn free_ports(n: usize) -> Vec<u16> {
    let listeners: Vec<_> = (0..n)
        .map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap())
        .collect();
    listeners
        .iter()
        .map(|listener| listener.local_addr().unwrap().port())
        .collect()
}
