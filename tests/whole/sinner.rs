//! A plugin that breaks a rule, tests/plugins/sin.c: built, run in a pipeline, and held against a run in which it breaks none.

use crate::program::models::Pipeline;
use crate::program::{Said, answers, command, record, root, slide, weir};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Lines of `[plugin.sin]` that have it run in a process of its own.
pub const APART: &str = "isolate = true";

/// The plugin, built once.
pub fn plugin() -> &'static Path {
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
pub struct Left {
    pub answers: BTreeMap<String, String>,
    pub record: serde_json::Value,
    pub err: String,
}

/// Runs the demo's graph over the slides `a` and `b` with `sin.map` behind the source and `sin.score` as scorer.
pub fn run(sin: &str, stage: &str, more: &str, exits: i32) -> Left {
    run_with("", sin, stage, more, exits)
}

/// The same with further lines of `[run]`.
pub fn run_with(settings: &str, sin: &str, stage: &str, more: &str, exits: i32) -> Left {
    let (folder, said) = said(settings, sin, stage, more);
    left(&folder.path().join("out"), said.exits(exits))
}

/// What weir says of a run, and where that was.
pub fn said(settings: &str, sin: &str, stage: &str, more: &str) -> (tempfile::TempDir, Said) {
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
    // Where nothing hangs, a slow machine may take its time.
    let timeout = match map {
        "loop" | "never" | "column" => "1s",
        _ => "20s",
    };
    let text = text
        .replace(
            "[stage.score]\nuse = \"scorer\"\nin = \"tiles\"\nmodel = \"a\"\n",
            &format!(
                "[plugin.sin]\npath = {:?}\n{more}\n\n[stage.map]\nuse = \"sin.map\"\nin = \"tiles\"\nsin = \"{map}\"\nrun = {{ timeout = {timeout:?} }}\n\n[stage.score]\nuse = \"sin.score\"\nin = \"map\"\nsin = \"{score}\"\n",
                plugin()
            ),
        )
        .replace("[model.a]\npath = \"models/a\"\n", "");
    assert!(text.contains("sin.score"), "{text}");
    std::fs::write(&file, text).unwrap();
    let said = weir(["run".as_ref(), file.as_os_str()]);
    (folder, said)
}

pub fn left(out: &Path, said: Said) -> Left {
    Left {
        answers: answers(out),
        record: record(out),
        err: said.err,
    }
}

/// Where the tiles of a run of the plugin's own stages come from.
pub enum From<'a> {
    Source,
    /// The tile-reader, by the plugin's slide reader: sins of the slides `a` and `b`.
    Reader(&'a str),
}

/// Runs the plugin's own source (or reader), scorer, reduce and sink over the slides `a` and `b`, which are open at the same time; `sin`
/// at `stage`. What the run left, and what the sink wrote of each slide that it got to.
pub fn run_own(
    from: &From,
    sin: &str,
    stage: &str,
    more: &str,
    exits: &[i32],
) -> (Left, BTreeMap<&'static str, String>) {
    let folder = tempfile::tempdir().unwrap();
    let file = own(folder.path(), from, sin, stage, more);
    let said = weir(["run".as_ref(), file.as_os_str()]);
    let code = said.code.unwrap_or(-1);
    assert!(
        exits.contains(&code),
        "{sin} at {stage}: {code}\n{}",
        said.err
    );
    let out = folder.path().join("out");
    let written = written(&out);
    (left(&out, said), written)
}

/// What such a run says on standard error until it says `word`.
pub fn hangs(from: &From, sin: &str, stage: &str, word: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = own(folder.path(), from, sin, stage, "");
    said_until(command(["run".as_ref(), file.as_os_str()]), word)
}

/// What a program says on standard error until it says `word`; then it is ended, since by itself it would not.
pub fn said_until(mut weir: Command, word: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let err = folder.path().join("err");
    let mut run = weir
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&err).unwrap())
        .spawn()
        .unwrap();
    let start = Instant::now();
    loop {
        let said = std::fs::read_to_string(&err).unwrap();
        let ended = run.try_wait().unwrap();
        if said.contains(word) || ended.is_some() || start.elapsed() > Duration::from_secs(60) {
            run.kill().unwrap();
            run.wait().unwrap();
            assert!(ended.is_none(), "{word}: {ended:?}\n{said}");
            return said;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Writes the pipeline of such a run.
fn own(folder: &Path, from: &From, sin: &str, stage: &str, more: &str) -> PathBuf {
    let of = |name: &str| if name == stage { sin } else { "none" };
    let tiles = match from {
        From::Source => format!(
            "use = \"sin.source\"\nsin = {:?}\nrun = {{ timeout = \"2s\" }}\n",
            of("tiles")
        ),
        From::Reader(sin) => {
            for (name, sin) in [("a", *sin), ("b", "none")] {
                let bytes = format!("SINGLASS{sin}");
                std::fs::write(folder.join(format!("{name}.glass")), bytes).unwrap();
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
open-slides = 2

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
run = {{ timeout = "2s" }}

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
    let file = folder.join("own.weir.toml");
    std::fs::write(&file, text).unwrap();
    file
}

/// What the plugin's sink wrote of each slide that it got to.
pub fn written(out: &Path) -> BTreeMap<&'static str, String> {
    let of = |slide| {
        let text = std::fs::read_to_string(out.join(format!("{slide}.txt"))).ok()?;
        Some((slide, text))
    };
    ["a", "b"].into_iter().filter_map(of).collect()
}

/// That slide `a` failed, or a tile of it did, at that stage and with these words, and slide `b` came out as ever.
#[track_caller]
pub fn lost_a(sin: &str, from: &From, stage: &str, words: [&str; 2], more: &str, exits: i32) {
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
pub fn failures(left: &Left, slide: &str) -> Vec<String> {
    let all = left.record["slides"][slide]["failures"].as_array().unwrap();
    all.iter().map(ToString::to_string).collect()
}

/// The same with why the slide as a whole failed.
pub fn told(left: &Left, slide: &str) -> Vec<String> {
    let mut all = failures(left, slide);
    let of_slide = &left.record["slides"][slide]["failed"];
    all.extend((!of_slide.is_null()).then(|| of_slide.to_string()));
    all
}

/// The tables without the rows of slide `a`.
pub fn of_b(left: &Left) -> BTreeMap<String, String> {
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
pub fn lost_one(sin: &str, stage: &str, word: &str, left: &Left, good: &Left) {
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

/// What came of a run over two slides of 4 MB of tiles each, in so much memory, of which `sin.map` keeps what it is lent: exit code,
/// standard error, record and tables.
pub fn kept(sin: &str, memory: &str, more: &str) -> (Option<i32>, Left) {
    let (code, left, _) = kept_by("map", sin, memory, more);
    (code, left)
}

/// The same where the sin is of the map, of the reduce `sin.gather` or of the sink `sin.keep`; and what the sinks wrote of each slide.
pub fn kept_by(
    stage: &str,
    sin: &str,
    memory: &str,
    more: &str,
) -> (Option<i32>, Left, BTreeMap<&'static str, String>) {
    let folder = tempfile::tempdir().unwrap();
    for (seed, name) in ["a", "b"].into_iter().enumerate() {
        let path = folder.path().join(format!("{name}.tiff"));
        slide(&path, 20, 16, seed as u64 + 1);
    }
    let of = |name: &str| if name == stage { sin } else { "none" };
    let gathers = match stage {
        "gather" => format!(
            "[stage.gather]\nuse = \"sin.gather\"\nin = \"tiles\"\nsin = {sin:?}\n[stage.write]\nuse = \"sin.write\"\nin = \"gather\"\n"
        ),
        "keep" => format!("[stage.keep]\nuse = \"sin.keep\"\nin = \"tiles\"\nsin = {sin:?}\n"),
        _ => String::new(),
    };
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
sin = "{}"

[stage.score]
use = "sin.score"
in = "map"

[stage.table]
use = "tiles-sink"
in = {{ scores = "score" }}

{gathers}
"#,
        plugin(),
        of("map"),
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
    (code, left, written(&out))
}
