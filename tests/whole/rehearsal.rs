//! What scanners and faults do, played from a script: corrections, stalls, panics.

use crate::program::models::Pipeline;
use crate::program::{Said, answers, record, weir};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// Writes the demo's graph with a scripted source; returns the file.
fn rehearsal(folder: &Path, script: &[String], run: &str) -> String {
    let file = Pipeline {
        slides: &[],
        size: 32,
        mpp: 1.0,
        run,
        reader: "",
    }
    .write(folder);
    let text = std::fs::read_to_string(&file).unwrap();
    let (head, rest) = text.split_once("[stage.tiles]").unwrap();
    let (_, tail) = rest.split_once("[stage.score]").unwrap();
    let source = "[stage.tiles]\nuse = \"scripted-source\"\nscript = \"script.jsonl\"\nsize = 32\nmpp = 1.0\n\n";
    std::fs::write(&file, format!("{head}{source}[stage.score]{tail}")).unwrap();
    std::fs::write(folder.join("script.jsonl"), script.join("\n")).unwrap();
    file.to_str().unwrap().to_owned()
}

fn open(slide: &str) -> String {
    format!(r#"{{"do": "open", "slide": "{slide}", "width": 512, "height": 512}}"#)
}

/// Tile number `i` of 16 a row, in a colour of its own.
fn tile(slide: &str, i: u64, shift: u64, ms: u64) -> String {
    let (x, y) = (i % 16 * 32, i / 16 * 32);
    let rgb = [
        (37 * i + 90 + shift) % 256,
        (91 * i + shift) % 256,
        (53 * i + 40) % 256,
    ];
    format!(
        r#"{{"do": "tile", "slide": "{slide}", "x": {x}, "y": {y}, "rgb": {rgb:?}, "ms": {ms}}}"#
    )
}

fn act(what: &str, slide: &str, i: u64, more: &str) -> String {
    let (x, y) = (i % 16 * 32, i / 16 * 32);
    format!(r#"{{"do": "{what}", "slide": "{slide}", "x": {x}, "y": {y}{more}}}"#)
}

#[test]
fn corrections_that_are_resolved_leave_the_same_tables() {
    const TILES: u64 = 60;
    let mut plain = vec![open("s"), open("t")];
    for slide in ["s", "t"] {
        plain.extend((0..TILES).map(|i| tile(slide, i, 0, 0)));
    }
    // The same in the end: wrong colours, torn tiles and withdrawn ones come first, and a seal in between.
    let mut corrected = vec![open("s"), open("t")];
    for slide in ["t", "s"] {
        for i in (0..TILES).rev() {
            match i % 4 {
                0 => corrected.push(tile(slide, i, 99, 1)),
                1 => corrected.push(act("fail", slide, i, r#", "what": "torn""#)),
                2 => {
                    corrected.push(tile(slide, i, 0, 0));
                    corrected.push(act("gone", slide, i, ""));
                }
                _ => corrected.push(tile(slide, i, 0, 0)),
            }
        }
        corrected.push(format!(
            r#"{{"do": "seal", "slide": "{slide}", "end": "complete"}}"#
        ));
        corrected.extend(
            (0..TILES)
                .filter(|i| i % 4 < 3)
                .map(|i| tile(slide, i, 0, 0)),
        );
    }
    let folder = tempfile::tempdir().unwrap();
    let run = |name: &str, script: &[String], more: &[&str]| {
        let file = rehearsal(folder.path(), script, "max-failed = 0.5");
        let out = folder.path().join(name);
        let mut arguments = vec!["run", &file, "--again", "--out", out.to_str().unwrap()];
        arguments.extend(more);
        let said = weir(arguments);
        assert!(matches!(said.code, Some(0 | 3)), "{}{}", said.out, said.err);
        answers(&out)
    };
    let truth = run("plain", &plain, &[]);
    assert!(
        truth.contains_key("s/tiles.csv") && truth.contains_key("t/tiles.csv"),
        "{:?}",
        truth.keys()
    );
    for (name, more) in [
        ("one", &["-w", "1"][..]),
        ("four", &["-w", "4"]),
        ("two", &["--processes", "2"]),
    ] {
        let found = run(name, &corrected, more);
        for table in ["predictions.csv", "s/tiles.csv", "t/tiles.csv"] {
            assert_eq!(found[table], truth[table], "{name}: {table}");
        }
    }
}

/// When the last of these slides was written, after the run's start.
fn last_written(out: &Path, slides: &[String], start: SystemTime) -> Duration {
    let written = |slide: &String| {
        let path = out.join(slide).join("prediction.json");
        let time = std::fs::metadata(&path).unwrap().modified().unwrap();
        time.duration_since(start).unwrap()
    };
    slides.iter().map(written).max().unwrap()
}

#[test]
fn a_stalled_slide_keeps_no_other_waiting() {
    let slides: Vec<String> = (0..9).map(|i| format!("s{i}")).collect();
    let mut script = Vec::new();
    for slide in &slides {
        script.push(open(slide));
        // Reading takes its time asleep, so that other work on the machine changes little.
        script.extend((0..30).map(|i| tile(slide, i, 0, 40)));
    }
    let mut stalled = script.clone();
    stalled.push(open("a-stalled"));
    stalled.push(tile("a-stalled", 0, 0, 0));
    stalled.push(r#"{"do": "delay", "slide": "a-stalled", "ms": 9000}"#.into());
    stalled.push(tile("a-stalled", 1, 0, 0));

    let folder = tempfile::tempdir().unwrap();
    let mut took = Vec::new();
    for (name, script) in [("without", &script), ("with", &stalled)] {
        let file = rehearsal(folder.path(), script, "open-slides = 10\nreaders = 4");
        let out = folder.path().join(name);
        let start = SystemTime::now();
        weir(["run", &file, "--out", out.to_str().unwrap()]).exits(0);
        took.push(last_written(&out, &slides, start));
        assert_eq!(
            record(&out)["counts"]["final"].as_u64().unwrap() as usize,
            script.iter().filter(|l| l.contains("open")).count()
        );
    }
    let allowed = took[0].mul_f64(1.1);
    println!(
        "nine slides: {:?}; beside a stalled one: {:?}",
        took[0], took[1]
    );
    assert!(took[1] <= allowed, "{took:?}");
}

/// A slide that takes a minute, and one whose script panics.
fn panics(thread: &str, more: &[&str]) -> Said {
    let mut script = vec![open("a"), open("b")];
    script.push(tile("a", 0, 0, 0));
    script.push(r#"{"do": "delay", "slide": "a", "ms": 60000}"#.into());
    script.push(tile("a", 1, 0, 0));
    script.extend((0..4).map(|i| tile("b", i, 0, 0)));
    script.push(format!(
        r#"{{"do": "panic", "slide": "b", "in": "{thread}"}}"#
    ));
    script.extend((4..8).map(|i| tile("b", i, 0, 0)));
    let folder = tempfile::tempdir().unwrap();
    let file = rehearsal(folder.path(), &script, "");
    let mut arguments = vec!["run", &file];
    arguments.extend(more);
    let said = weir(arguments).exits(70);
    assert!(said.took < Duration::from_secs(6), "{:?}", said.took);
    let first = said
        .err
        .lines()
        .find(|line| line.contains("error"))
        .unwrap_or_default();
    assert!(
        first.contains("the script says so"),
        "the first message comes first:\n{}",
        said.err
    );
    if !more.contains(&"--processes") {
        assert_eq!(
            said.err.matches("error").count(),
            1,
            "and once:\n{}",
            said.err
        );
    }
    let record = record(&folder.path().join("out"));
    assert_eq!(
        (&record["exit_code"], record["fault"].is_string()),
        (&70.into(), true)
    );
    said
}

#[test]
fn a_panic_in_a_worker_ends_everything_within_seconds() {
    panics("worker", &[]);
    panics("worker", &["-w", "3"]);
}

#[test]
fn a_panic_in_a_helper_thread_ends_everything_within_seconds() {
    panics("reader", &["-w", "2"]);
}

#[test]
fn a_panic_in_one_of_two_processes_ends_both_within_seconds() {
    panics("worker", &["--processes", "2", "-w", "2"]);
}
