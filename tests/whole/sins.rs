//! A plugin that breaks a rule fails the tile at which it does, by name; every other tile of every slide is as without it.

use crate::program::models::Pipeline;
use crate::program::{answers, record, root, slide, weir};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The plugin, built once.
fn plugin() -> &'static Path {
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
    let folder = tempfile::tempdir().unwrap();
    for (seed, name) in ["a", "b"].into_iter().enumerate() {
        let path = folder.path().join(format!("{name}.tiff"));
        slide(&path, 6, 5, seed as u64 + 1);
    }
    let file = Pipeline {
        slides: &["a.tiff", "b.tiff"],
        size: 32,
        mpp: 1.0,
        run: "max-failed = 0.5\nretries = 0\n",
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
    Left {
        answers: answers(&out),
        record: record(&out),
        err: said.err,
    }
}

/// The slide's failures, each as one line.
fn failures(left: &Left, slide: &str) -> Vec<String> {
    let all = left.record["slides"][slide]["failures"].as_array().unwrap();
    all.iter().map(ToString::to_string).collect()
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
        ("fail", "map", "the tile is cursed"),
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
        let left = run(sin, stage, "", 3);
        lost_one(sin, stage, word, &left, &good);
    }
}
