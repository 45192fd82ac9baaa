//! A plugin that breaks a rule fails the tile at which it does, by name; every other tile of every slide is as without it.

use crate::program::models::Pipeline;
use crate::program::{Said, answers, command, record, root, slide, weir};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The plugin, built once.
pub(crate) fn plugin() -> &'static Path {
    static BUILT: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, file) = BUILT.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("libsin.so");
        let said = Command::new("gcc")
            .args(["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O1"])
            .args(["-shared", "-fPIC", "-pthread"])
            .arg("-I")
            .arg(root().join("plugins/abi"))
            .arg("-o")
            .arg(&file)
            .arg(root().join("tests/plugins/sin.c"))
            .output()
            .unwrap();
        assert!(
            said.status.success(),
            "{}",
            String::from_utf8_lossy(&said.stderr)
        );
        (folder, file)
    });
    file
}

/// What a run with the plugin left.
struct Left {
    answers: BTreeMap<String, String>,
    record: serde_json::Value,
    err: String,
}

/// Runs the demo's graph over the slides `a` and `b` with `sin.map` behind the source and `sin.score` as scorer.
fn run(sin: &str, stage: &str, more: &str, exits: i32) -> Left {
    run_with("", sin, stage, more, exits)
}

/// The same with further lines of `[run]`.
fn run_with(settings: &str, sin: &str, stage: &str, more: &str, exits: i32) -> Left {
    let folder = tempfile::tempdir().unwrap();
    for (seed, name) in ["a", "b"].into_iter().enumerate() {
        let path = folder.path().join(format!("{name}.tiff"));
        slide(&path, 6, 5, seed as u64 + 1);
    }
    let file = Pipeline {
        slides: &["a.tiff", "b.tiff"],
        size: 32,
        mpp: 1.0,
        run: &format!("max-failed = 0.5\nretries = 0\n{settings}"),
        reader: "tissue = \"none\"",
    }
    .write(folder.path());
    let text = std::fs::read_to_string(&file).unwrap();
    let of = |name: &str| if name == stage { sin } else { "none" };
    let (map, score) = (of("map"), of("score"));
    let text = text
        .replace(
            "[stage.score]\nuse = \"scorer\"\nin = \"tiles\"\nmodel = \"a\"\n",
            &format!(
                "[plugin.sin]\npath = {:?}\n{more}\n\n[stage.map]\nuse = \"sin.map\"\nin = \"tiles\"\nsin = \"{map}\"\nrun = {{ timeout = \"500ms\" }}\n\n[stage.score]\nuse = \"sin.score\"\nin = \"map\"\nsin = \"{score}\"\n",
                plugin()
            ),
        )
        .replace("[model.a]\npath = \"models/a\"\n", "");
    assert!(text.contains("sin.score"), "{text}");
    std::fs::write(&file, text).unwrap();
    let said = weir(["run".as_ref(), file.as_os_str()]).exits(exits);
    let out = folder.path().join("out");
    left(&out, said)
}

fn left(out: &Path, said: Said) -> Left {
    Left {
        answers: answers(out),
        record: record(out),
        err: said.err,
    }
}

/// Where the tiles of a run of the plugin's own stages come from.
enum From<'a> {
    Source,
    /// The tile-reader, by the plugin's slide reader: sins of the slides `a` and `b`.
    Reader(&'a str),
}

/// Runs the plugin's own source (or reader), scorer, reduce and sink over the slides `a` and `b`, one after the other; `sin` at `stage`.
/// What the run left, and what the sink wrote of each slide that it got to.
fn run_own(
    from: &From,
    sin: &str,
    stage: &str,
    more: &str,
    exits: &[i32],
) -> (Left, BTreeMap<&'static str, String>) {
    let folder = tempfile::tempdir().unwrap();
    let of = |name: &str| if name == stage { sin } else { "none" };
    let tiles = match from {
        From::Source => format!(
            "use = \"sin.source\"\nsin = {:?}\nrun = {{ timeout = \"2s\" }}\n",
            of("tiles")
        ),
        From::Reader(sin) => {
            for (name, sin) in [("a", *sin), ("b", "none")] {
                let bytes = format!("SINGLASS{sin}");
                std::fs::write(folder.path().join(format!("{name}.glass")), bytes).unwrap();
            }
            "use = \"tile-reader\"\nslides = [\"a.glass\", \"b.glass\"]\nsize = 32\nmpp = 1.0\ntissue = \"none\"\nrun = { timeout = \"2s\" }\n".to_owned()
        }
    };
    let text = format!(
        r#"weir = 1

[run]
out = "out"
max-failed = 0.5
retries = 0
open-slides = 1

[plugin.sin]
path = {:?}
{more}

[stage.tiles]
{tiles}
[stage.score]
use = "sin.score"
in = "tiles"
sin = {:?}

[stage.pick]
use = "sin.pick"
in = "score"
sin = {:?}
run = {{ timeout = "500ms" }}

[stage.write]
use = "sin.write"
in = "pick"
sin = {:?}
run = {{ timeout = "2s" }}

[stage.table]
use = "tiles-sink"
in = {{ scores = "score" }}
"#,
        plugin(),
        of("score"),
        of("pick"),
        of("write"),
    );
    let file = folder.path().join("own.weir.toml");
    std::fs::write(&file, text).unwrap();
    let said = weir(["run".as_ref(), file.as_os_str()]);
    let code = said.code.unwrap_or(-1);
    assert!(
        exits.contains(&code),
        "{sin} at {stage}: {code}\n{}",
        said.err
    );
    let out = folder.path().join("out");
    let written = ["a", "b"].into_iter().filter_map(|slide| {
        let text = std::fs::read_to_string(out.join(format!("{slide}.txt"))).ok()?;
        Some((slide, text))
    });
    let written = written.collect();
    (left(&out, said), written)
}

/// That slide `a` failed, or a tile of it did, at that stage and with these words, and slide `b` came out as ever.
#[track_caller]
fn lost_a(sin: &str, from: &From, stage: &str, words: [&str; 2], more: &str, exits: i32) {
    static GOOD: [OnceLock<(Left, BTreeMap<&'static str, String>)>; 2] =
        [OnceLock::new(), OnceLock::new()];
    let reader = matches!(from, From::Reader(_));
    let (good, wrote) = GOOD[usize::from(reader)].get_or_init(|| {
        let none = if reader {
            From::Reader("none")
        } else {
            From::Source
        };
        run_own(&none, "none", "", "", &[0])
    });
    assert_eq!(wrote.len(), 2);
    let (left, written) = run_own(from, sin, stage, more, &[exits]);
    let of_a = told(&left, "a").join("\n");
    let place = format!("\"stage\":\"{stage}\"");
    for word in words.into_iter().chain([place.as_str()]) {
        assert!(
            of_a.contains(word),
            "{sin} at {stage}: {word}: {of_a}\n{}",
            left.err
        );
    }
    assert_eq!(told(&left, "b"), [""; 0], "{sin} at {stage}");
    assert_eq!(written.get("b"), wrote.get("b"), "{sin} at {stage}");
    assert_ne!(of_b(&left).len(), 0);
    assert_eq!(of_b(&left), of_b(good), "{sin} at {stage}");
}

/// The slide's failures, each as one line.
fn failures(left: &Left, slide: &str) -> Vec<String> {
    let all = left.record["slides"][slide]["failures"].as_array().unwrap();
    all.iter().map(ToString::to_string).collect()
}

/// The same with why the slide as a whole failed.
fn told(left: &Left, slide: &str) -> Vec<String> {
    let mut all = failures(left, slide);
    let of_slide = &left.record["slides"][slide]["failed"];
    all.extend((!of_slide.is_null()).then(|| of_slide.to_string()));
    all
}

/// The tables without the rows of slide `a`.
fn of_b(left: &Left) -> BTreeMap<String, String> {
    let mut tables = BTreeMap::new();
    for (name, text) in &left.answers {
        if name.starts_with("a/") || name.starts_with("slides/a/") {
            continue;
        }
        let of_a = |row: &&str| row.split(',').take(2).any(|cell| cell == "a");
        let rows: Vec<&str> = text.lines().filter(|row| !of_a(row)).collect();
        tables.insert(name.clone(), rows.join("\n"));
    }
    tables
}

/// That slide `a` lost one tile, at that stage and with these words, and slide `b` nothing.
#[track_caller]
fn lost_one(sin: &str, stage: &str, word: &str, left: &Left, good: &Left) {
    let told = failures(left, "a");
    assert_eq!(told.len(), 1, "{sin}: {told:?}\n{}", left.err);
    assert!(told[0].contains(word), "{sin}: {}", told[0]);
    let place = format!("\"stage\":\"{stage}\"");
    assert!(told[0].contains(&place), "{sin}: {}", told[0]);
    let named = told[0].contains("plugin `sin` 0.1.0");
    assert!(named, "{sin}: {}", told[0]);
    // Which tile it was.
    let failed = &left.record["slides"]["a"]["failures"][0];
    assert!(
        failed["x"].is_u64() && failed["y"].is_u64(),
        "{sin}: {failed}"
    );
    assert_eq!(left.record["slides"]["a"]["tiles_failed"], 1, "{sin}");
    assert_eq!(failures(left, "b"), [""; 0], "{sin}");
    assert_ne!(of_b(left).len(), 0);
    assert_eq!(of_b(left), of_b(good), "{sin}");
}

#[test]
fn what_kills_a_plugins_process_fails_the_tile_that_it_had_alone() {
    let apart = "isolate = true";
    let good = run("none", "map", apart, 0);
    assert_eq!(good.answers, run("none", "map", "", 0).answers);
    for (sin, word) in [
        ("abort", "E0521"),
        ("segfault", "E0521"),
        ("exit", "E0521"),
        ("overrun", "E0521"),
        ("loop", "E0523"),
    ] {
        let left = run(sin, "map", apart, 3);
        lost_one(sin, "map", word, &left, &good);
    }
}

#[test]
fn what_a_plugin_does_wrong_at_a_tile_fails_that_tile_alone() {
    let good = run("none", "map", "", 0);
    for (sin, stage, word) in [
        ("fail", "map", "the slide is cursed"),
        ("silent", "map", "failed without a word"),
        ("retry", "map", "asks to be tried again"),
        ("status", "map", "returned 77"),
        ("lost", "map", "neither made nor failed"),
        ("twice", "map", "two outcomes"),
        ("both", "map", "and made as well"),
        ("complete", "map", "completed a call twice"),
        ("row", "map", "of a batch of"),
        ("port", "map", "no output number 7"),
        ("null", "map", "null batch"),
        ("panic", "map", "src/lib.rs:1: on purpose"),
        ("nan", "score", "every number must be finite"),
    ] {
        for more in ["", APART] {
            let left = run(sin, stage, more, 3);
            lost_one(sin, stage, word, &left, &good);
        }
    }
}

const APART: &str = "isolate = true";

#[test]
fn what_a_source_does_wrong_at_a_slide_fails_that_slide_alone() {
    for (sin, words) in [
        ("fail", ["the slide is cursed", "lift the curse"]),
        ("silent", ["plugin `sin` 0.1.0", "failed without a word"]),
        ("panic", ["plugin `sin` 0.1.0", "src/lib.rs:1: on purpose"]),
        ("status", ["plugin `sin` 0.1.0", "returned 77"]),
        ("row", ["plugin `sin` 0.1.0", "where no slide reaches"]),
        ("port", ["plugin `sin` 0.1.0", "of kind 9"]),
        ("shape", ["plugin `sin` 0.1.0", "a tile of 7 x 32 px"]),
        ("read", ["the tile is cursed", "\"x\":0,\"y\":0"]),
        ("count", ["plugin `sin` 0.1.0", "no slide has more than"]),
        ("nan", ["plugin `sin` 0.1.0", "um/px is NaN"]),
    ] {
        lost_a(sin, &From::Source, "tiles", words, "", 3);
    }
}

#[test]
fn what_a_reduce_does_wrong_at_a_slide_fails_that_slide_alone() {
    for (sin, words) in [
        ("fail", ["the slide is cursed", "lift the curse"]),
        ("silent", ["plugin `sin` 0.1.0", "failed without a word"]),
        ("panic", ["plugin `sin` 0.1.0", "src/lib.rs:1: on purpose"]),
        ("status", ["plugin `sin` 0.1.0", "returned 77"]),
        (
            "row",
            ["plugin `sin` 0.1.0", "a tile that it was not given"],
        ),
        ("twice", ["plugin `sin` 0.1.0", "a tile two rows"]),
        ("nan", ["plugin `sin` 0.1.0", "must be finite"]),
    ] {
        for more in ["", "isolate = true"] {
            lost_a(sin, &From::Source, "pick", words, more, 3);
        }
    }
}

#[test]
fn what_a_sink_does_wrong_at_a_slide_fails_the_run_after_the_other_slides() {
    for (sin, words) in [
        ("fail", ["the slide is cursed", "write"]),
        ("silent", ["plugin `sin` 0.1.0", "failed without a word"]),
        ("panic", ["plugin `sin` 0.1.0", "src/lib.rs:1: on purpose"]),
        ("status", ["plugin `sin` 0.1.0", "returned 77"]),
    ] {
        lost_a(sin, &From::Source, "write", words, "", 1);
    }
}

#[test]
fn what_a_slide_reader_does_wrong_at_a_slide_fails_that_slide_alone() {
    for (sin, words) in [
        ("fail", ["the glass is cursed", "sin"]),
        ("shape", ["plugin `sin` 0.1.0", "E0520"]),
        ("null", ["plugin `sin` 0.1.0", "E0520"]),
        ("read", ["the tile is cursed", "level 0"]),
        ("status", ["plugin `sin` 0.1.0", "returned 77"]),
        ("complete", ["plugin `sin` 0.1.0", "completed a call twice"]),
        ("row", ["plugin `sin` 0.1.0", "has no input"]),
    ] {
        lost_a(sin, &From::Reader(sin), "tiles", words, "", 3);
    }
}

#[test]
fn what_kills_the_process_of_a_source_a_reduce_or_a_sink_fails_the_slide_that_it_had_alone() {
    for (stage, sins, exits) in [
        ("tiles", &["abort", "segfault", "exit", "overrun"][..], 3),
        ("pick", &["abort", "segfault", "exit", "overrun"], 3),
        ("write", &["abort", "segfault", "exit", "overrun"], 1),
    ] {
        for sin in sins {
            let words = ["plugin `sin` 0.1.0", "E0521"];
            lost_a(sin, &From::Source, stage, words, APART, exits);
        }
    }
    let words = ["plugin `sin` 0.1.0", "E0523"];
    for (stage, exits) in [("tiles", 3), ("pick", 3), ("write", 1)] {
        lost_a("loop", &From::Source, stage, words, APART, exits);
    }
}

#[test]
fn what_kills_the_process_of_a_slide_reader_fails_the_region_that_it_read_alone() {
    for sin in ["abort", "segfault"] {
        let words = ["plugin `sin` 0.1.0", "E0521"];
        lost_a(sin, &From::Reader(sin), "tiles", words, APART, 3);
    }
}

#[test]
fn a_slide_reader_that_hangs_in_its_own_process_fails_the_region_that_it_read_alone() {
    let words = ["plugin `sin` 0.1.0 did not answer within 2s", "E0523"];
    let began = Instant::now();
    lost_a("loop", &From::Reader("loop"), "tiles", words, APART, 3);
    // It is the stage's time, and not the reader's own.
    assert!(began.elapsed() < Duration::from_secs(30));
}

/// An endless loop in weir's own process: the thread that is in it never comes back, and the run does. One helper: the plugin is serial,
/// and a call that waits for the one that hangs may be late with it.
#[test]
fn a_call_that_loops_for_ever_fails_its_tile_by_its_plugins_name_and_the_run_ends() {
    let good = run("none", "map", "", 0);
    let left = run_with("helpers = 1\n", "loop", "map", "", 3);
    lost_one("loop", "map", "E0523", &left, &good);
    let told = failures(&left, "a").join("\n");
    assert!(told.contains("plugin `sin` 0.1.0"), "{told}");
}

#[test]
fn a_plugin_that_keeps_batches_or_leaves_threads_behind_ends_its_run_as_any_other() {
    let good = run("none", "map", "", 0);
    for sin in ["leak", "thread"] {
        for more in ["", APART] {
            let left = run(sin, "map", more, 0);
            assert_eq!(left.answers, good.answers, "{sin} {more}");
            assert_eq!(failures(&left, "a"), [""; 0], "{sin} {more}");
            // What a process kept ends with it.
            let leaks = left
                .err
                .contains("map: plugin `sin` 0.1.0 was destroyed and has not given back 1 batch");
            assert_eq!(leaks, sin == "leak" && more.is_empty(), "{}", left.err);
        }
    }
    let (good, wrote) = run_own(&From::Source, "none", "", "", &[0]);
    for (sin, stage) in [
        ("thread", "tiles"),
        ("thread", "score"),
        ("thread", "pick"),
        ("thread", "write"),
        ("leak", "score"),
        ("leak", "pick"),
        ("leak", "write"),
    ] {
        for more in ["", APART] {
            let (left, written) = run_own(&From::Source, sin, stage, more, &[0]);
            assert_eq!(left.answers, good.answers, "{sin} at {stage} {more}");
            assert_eq!(written, wrote, "{sin} at {stage} {more}");
            let leaks = left.err.contains("has not given back");
            assert_eq!(leaks, sin == "leak" && more.is_empty(), "{}", left.err);
        }
    }
}

/// What came of a run over two slides of 4 MB of tiles each, in so much memory, of which `sin.map` keeps what it is lent: exit code,
/// standard error, record and tables.
fn kept(sin: &str, memory: &str, more: &str) -> (Option<i32>, Left) {
    let folder = tempfile::tempdir().unwrap();
    for (seed, name) in ["a", "b"].into_iter().enumerate() {
        let path = folder.path().join(format!("{name}.tiff"));
        slide(&path, 20, 16, seed as u64 + 1);
    }
    let text = format!(
        r#"weir = 1

[run]
out = "out"
memory = "{memory}"
max-failed = 0.5
retries = 0

[plugin.sin]
path = {:?}
{more}

[stage.tiles]
use = "tile-reader"
slides = ["a.tiff", "b.tiff"]
size = 32
mpp = 1.0
tissue = "none"

[stage.map]
use = "sin.map"
in = "tiles"
sin = "{sin}"

[stage.score]
use = "sin.score"
in = "map"

[stage.table]
use = "tiles-sink"
in = {{ scores = "score" }}
"#,
        plugin(),
    );
    let file = folder.path().join("kept.weir.toml");
    std::fs::write(&file, text).unwrap();
    let err = folder.path().join("err");
    let mut run = command(["run".as_ref(), file.as_os_str()])
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&err).unwrap())
        .spawn()
        .unwrap();
    let start = Instant::now();
    while run.try_wait().unwrap().is_none() {
        if start.elapsed() > Duration::from_secs(120) {
            run.kill().unwrap();
            let said = std::fs::read_to_string(&err).unwrap();
            panic!("{sin} {more}: the run does not end\n{said}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let code = run.wait().unwrap().code();
    let out = folder.path().join("out");
    let left = Left {
        answers: answers(&out),
        record: record(&out),
        err: std::fs::read_to_string(&err).unwrap(),
    };
    (code, left)
}

/// With every lent tile kept, the memory is used up in the midst of the first slide: then no tile can be read, so nothing more comes to
/// the plugin, and the run would stand still.
#[test]
fn a_plugin_that_keeps_all_that_it_is_lent_is_named_and_its_run_ends() {
    let (code, left) = kept("hoard", "4MiB", "");
    assert_eq!(code, Some(3), "{}", left.err);
    for part in [
        "map: plugin `sin` 0.1.0 keeps ",
        "beyond their calls, the first of slide `",
        "has not given back",
    ] {
        assert!(left.err.contains(part), "{part}: {}", left.err);
    }
    let slides = left.record["slides"].to_string();
    for slide in ["a", "b"] {
        assert!(!told(&left, slide).is_empty(), "{slides}\n{}", left.err);
    }
    for part in [
        "plugin `sin` 0.1.0 broke the contract [E0520]: it keeps ",
        "may keep a sixteenth of the run's memory",
        "\"stage\":\"map\"",
    ] {
        assert!(slides.contains(part), "{part}: {slides}");
    }
}

#[test]
fn a_process_that_keeps_all_that_it_is_lent_is_ended_and_the_answers_are_as_ever() {
    let (_, good) = kept("none", "64MiB", APART);
    let (code, left) = kept("hoard", "64MiB", APART);
    assert_eq!(code, Some(0), "{}", left.err);
    assert_eq!(left.answers, good.answers);
    for part in [
        "map: plugin `sin` 0.1.0 broke the contract [E0520]: it keeps ",
        "it is started again (1 of 100)",
    ] {
        assert!(left.err.contains(part), "{part}: {}", left.err);
    }
}

/// Rows of a table of tiles.
fn rows(left: &Left) -> Vec<&str> {
    let tables = left
        .answers
        .iter()
        .filter(|(name, _)| name.ends_with("tiles.csv"));
    tables.flat_map(|(_, text)| text.lines()).collect()
}

/// In its own process a thread that writes into an input after the call dies of it, whenever that is: rows may fail, none may change.
#[test]
fn a_thread_that_writes_to_an_input_after_its_call_changes_no_bit_where_it_is_isolated() {
    let (good, _) = run_own(&From::Source, "none", "", "", &[0]);
    let (left, _) = run_own(&From::Source, "late", "score", APART, &[0, 3]);
    assert!(left.err.contains("E0521"), "{}", left.err);
    let lost = [failures(&left, "a"), failures(&left, "b")].concat();
    assert!(lost.len() < 3, "{lost:?}");
    // A tile that failed has a row that says so and no score.
    let wanted = rows(&good);
    let other = rows(&left)
        .iter()
        .filter(|row| !wanted.contains(row))
        .count();
    assert!(other <= lost.len(), "{other} rows differ, {lost:?}");
}

#[test]
fn a_call_that_is_never_completed_fails_its_tile_when_its_time_is_over() {
    let good = run("none", "map", "", 0);
    lost_one(
        "never",
        "map",
        "E0523",
        &run("never", "map", APART, 3),
        &good,
    );
    lost_one(
        "never",
        "map",
        "within 500ms",
        &run("never", "map", "", 3),
        &good,
    );
}

#[test]
fn a_call_that_is_never_completed_in_process_is_named_as_its_plugins() {
    let left = run("never", "map", "", 3);
    let told = failures(&left, "a").join("\n");
    assert!(
        told.contains("E0523") && told.contains("plugin `sin` 0.1.0"),
        "{told}"
    );
}

#[test]
fn a_call_that_is_completed_after_it_returned_is_told_of_and_harms_nobody() {
    let good = run("none", "map", "", 0);
    let left = run("late-complete", "map", "", 0);
    assert_eq!(left.answers, good.answers);
    assert!(left.err.contains("complete"), "{}", left.err);
    assert_eq!(run("late-complete", "map", APART, 0).answers, good.answers);
}
