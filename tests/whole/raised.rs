//! What a plugin raises in its own language: a panic in Rust, an exception in C++, function by function. It fails the tile or the slide
//! that it had, with the plugin's name and the place, here and in a process of its own, and the other slide is the same to the bit.

use crate::program::{record, root, weir};
use crate::sinner::{APART, written};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The stages of a run one after another, each with its type; the last one writes a file of each slide.
type Chain = &'static [(&'static str, &'static str)];

/// What a run left: why slides or tiles of them failed, and what the sink wrote of each.
struct Left {
    record: serde_json::Value,
    written: BTreeMap<&'static str, String>,
    err: String,
}

impl Left {
    /// Why the slide failed or tiles of it did, as one text.
    fn told(&self, slide: &str) -> String {
        let slide = &self.record["slides"][slide];
        let mut all = slide["failures"].to_string();
        if !slide["failed"].is_null() {
            all += &slide["failed"].to_string();
        }
        if all == "[]" { String::new() } else { all }
    }
}

/// Runs the chain over the slides `a` and `b`. `sin`: lines of the stage of that name. `glass`: of each slide of a tile-reader its bytes.
fn run(
    (name, library): (&str, &Path),
    chain: Chain,
    sin: (&str, &str),
    glass: Option<[String; 2]>,
    more: &str,
    exits: i32,
) -> Left {
    let folder = tempfile::tempdir().unwrap();
    // Here no slide has what another one's sin ends, since the other is not open then.
    let open = if more == APART { 2 } else { 1 };
    let mut text = format!(
        "weir = 1\n[run]\nout = \"out\"\nmax-failed = 0.5\nretries = 0\nopen-slides = {open}\n[plugin.{name}]\npath = {library:?}\n{more}\n"
    );
    if let Some(glass) = &glass {
        for (slide, bytes) in ["a", "b"].iter().zip(glass) {
            std::fs::write(folder.path().join(format!("{slide}.{name}")), bytes).unwrap();
        }
        text += &format!(
            "[stage.glass]\nuse = \"tile-reader\"\nslides = [\"a.{name}\", \"b.{name}\"]\nsize = 32\nmpp = 1.0\ntissue = \"none\"\n"
        );
    }
    let mut before = glass.map(|_| "glass");
    for (stage, of) in chain {
        text += &format!("[stage.{stage}]\nuse = \"{of}\"\n");
        if let Some(before) = before {
            text += &format!("in = {before:?}\n");
        }
        if *stage == sin.0 {
            text += sin.1;
        }
        before = Some(stage);
    }
    let file = folder.path().join("raised.weir.toml");
    std::fs::write(&file, text).unwrap();
    let said = weir(["run".as_ref(), file.as_os_str()]).exits(exits);
    let out = folder.path().join("out");
    Left {
        written: written(&out),
        record: record(&out),
        err: said.err,
    }
}

/// That slide `a` failed or lost a tile at `stage` with these words, and slide `b` is as in `good`.
#[track_caller]
fn lost_a(left: &Left, good: &Left, stage: &str, words: &[&str], lost: &str) {
    let of_a = left.told("a");
    let place = format!("\"stage\":\"{stage}\"");
    for word in words.iter().chain([&place.as_str()]) {
        assert!(of_a.contains(word), "{lost}: {word}: {of_a}\n{}", left.err);
    }
    assert_eq!(left.told("b"), "", "{lost}");
    assert!(!good.written["b"].is_empty());
    assert_eq!(left.written.get("b"), good.written.get("b"), "{lost}");
}

/// tests/plugins/panics.rs in a project as `weir plugin new` writes it, built as a plugin's author builds one: with the SDK of this
/// checkout and the versions of its lock file, so that nothing is asked of the network.
fn panics() -> &'static Path {
    static BUILT: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, file) = BUILT.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let project = folder.path().join("panics");
        weir([
            "plugin".as_ref(),
            "new".as_ref(),
            "--lang".as_ref(),
            "rust".as_ref(),
            "--sdk".as_ref(),
            root().join("plugins/sdk").as_os_str(),
            "--folder".as_ref(),
            project.as_os_str(),
            "panics".as_ref(),
        ])
        .exits(0);
        std::fs::copy(root().join("Cargo.lock"), project.join("Cargo.lock")).unwrap();
        std::fs::write(project.join("src/lib.rs"), PANICS_RS).unwrap();
        // Where the SDK's own tests build such a project too, so that its dependencies are built once.
        let here = std::env::current_exe().unwrap();
        let target = here.ancestors().nth(3).unwrap().join("templates");
        let said = Command::new(env!("CARGO"))
            .args(["build", "--offline", "--quiet"])
            .current_dir(&project)
            .env("CARGO_TARGET_DIR", &target)
            .output()
            .unwrap();
        let err = String::from_utf8_lossy(&said.stderr);
        assert!(said.status.success(), "{err}");
        // The next build there is another one's.
        let file = folder.path().join("libpanics.so");
        std::fs::copy(target.join("debug/libpanics.so"), &file).unwrap();
        (folder, file)
    });
    file
}

const PANICS_RS: &str = include_str!("../plugins/panics.rs");

/// File and line of the `nth` panic there that is meant by this name.
fn place(at: &str, nth: usize) -> String {
    let mark = format!(", \"{at}\"");
    let mut lines = PANICS_RS
        .lines()
        .zip(1..)
        .filter(|(line, _)| line.contains(&mark));
    let (_, line) = lines.nth(nth).unwrap();
    format!("src/lib.rs:{line}: on purpose, in {at}")
}

const PANICS: Chain = &[
    ("tiles", "panics.grid"),
    ("map", "panics.invert"),
    ("keep", "panics.keep"),
    ("weigh", "panics.weigh"),
    ("write", "panics.write"),
];

#[test]
fn a_panic_of_a_rust_plugins_stage_is_told_with_its_place_and_costs_a_tile_or_a_slide() {
    let plugin = ("panics", panics());
    let good = run(plugin, PANICS, ("", ""), None, "", 0);
    assert_eq!(good.written["a"].lines().count(), 20);
    // The stage, its function, which panic of that name it is, and whether it costs a tile alone.
    for (stage, at, nth, tile) in [
        ("tiles", "open", 0, false),
        ("tiles", "next", 0, false),
        ("tiles", "read", 0, false),
        ("map", "map", 0, true),
        ("keep", "filter", 0, true),
        ("weigh", "row", 0, false),
        ("weigh", "complete", 0, false),
        ("write", "row", 1, false),
        ("write", "complete", 1, false),
    ] {
        for more in ["", APART] {
            let lost = format!("{at} of {stage} {more}");
            let left = run(
                plugin,
                PANICS,
                (stage, &format!("at = {at:?}\n")),
                None,
                more,
                3,
            );
            let place = place(at, nth);
            let words = ["plugin `panics` 0.1.0 panicked [E0522]", &place];
            lost_a(&left, &good, stage, &words, &lost);
            if tile {
                assert_eq!(left.record["slides"]["a"]["tiles_failed"], 1, "{lost}");
                assert_eq!(left.written["a"].lines().count(), 19, "{lost}");
            }
        }
    }
}

#[test]
fn a_panic_of_a_rust_plugins_slide_reader_is_told_with_its_place_and_costs_a_tile_or_a_slide() {
    let plugin = ("panics", panics());
    let run = |at: &str, more: &str, exits| {
        let glass = [format!("PANICS0{at}"), "PANICS1none".into()];
        run(plugin, &PANICS[1..], ("", ""), Some(glass), more, exits)
    };
    let good = run("none", "", 0);
    assert_eq!(good.written["a"].lines().count(), 20);
    for (at, nth, tile) in [
        ("open", 1, false),
        ("info", 0, false),
        ("read_region", 0, true),
    ] {
        for more in ["", APART] {
            let left = run(at, more, 3);
            let place = place(at, nth);
            let words = ["plugin `panics` 0.1.0 panicked [E0522]", &place];
            lost_a(&left, &good, "glass", &words, &format!("{at} {more}"));
            if tile {
                assert_eq!(left.record["slides"]["a"]["tiles_failed"], 1, "{at} {more}");
            }
        }
    }
    // What is no file of its reader's is a file that nobody reads.
    let left = run("sniff", "", 3);
    assert_ne!(left.told("a"), "");
    assert_eq!(left.written.get("b"), good.written.get("b"));
}

/// tests/plugins/throws.cpp, built as a plugin's author builds one.
fn throws() -> &'static Path {
    static BUILT: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, file) = BUILT.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("libthrows.so");
        let said = Command::new("g++")
            .args(["-std=c++17", "-Wall", "-Wextra", "-Werror", "-O1"])
            .args(["-shared", "-fPIC", "-fvisibility=hidden", "-I"])
            .arg(root().join("plugins/abi"))
            .arg("-o")
            .arg(&file)
            .arg(root().join("tests/plugins/throws.cpp"))
            .output()
            .unwrap();
        let err = String::from_utf8_lossy(&said.stderr);
        assert!(said.status.success(), "{err}");
        (folder, file)
    });
    file
}

const THROWS: Chain = &[
    ("tiles", "throws.grid"),
    ("third", "throws.third"),
    ("weigh", "throws.weigh"),
    ("write", "throws.write"),
];

/// A sink that is told of the tile that goes: rows of a reduce come to it when the slide has ended.
const LISTS: Chain = &[
    ("tiles", "throws.grid"),
    ("third", "throws.third"),
    ("list", "throws.list"),
];

#[test]
fn what_a_cpp_plugin_throws_is_told_with_its_words_and_costs_a_tile_or_a_slide() {
    let plugin = ("throws", throws());
    let good = run(plugin, THROWS, ("", ""), None, "", 0);
    // The rows that its reduce made of each slide, less the tile that went.
    assert_eq!(good.written["a"].lines().count(), 5);
    let apart = run(plugin, THROWS, ("", ""), None, APART, 0);
    assert_eq!(apart.written, good.written);
    let listed = run(plugin, LISTS, ("", ""), None, "", 0);
    for (stage, at) in [
        ("tiles", "open"),
        ("tiles", "next"),
        ("tiles", "read"),
        ("third", "process"),
        ("weigh", "process"),
        ("weigh", "remove"),
        ("weigh", "complete_slide"),
        ("write", "process"),
        ("list", "remove"),
        ("write", "complete_slide"),
    ] {
        for (what, word) in [
            ("error", format!("on purpose, in {at}")),
            ("number", "an exception without a message".into()),
        ] {
            for more in ["", APART] {
                let lost = format!("{what} in {at} of {stage} {more}");
                let (chain, good) = match stage {
                    "list" => (LISTS, &listed),
                    _ => (THROWS, &good),
                };
                let sin = format!("at = {at:?}\nwhat = {what:?}\n");
                let left = run(plugin, chain, (stage, &sin), None, more, 3);
                let words = ["plugin `throws` 1.0.0", word.as_str()];
                lost_a(&left, good, stage, &words, &lost);
            }
        }
    }
}
