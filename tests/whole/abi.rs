//! Plugins that were built against the header of a released version: tests/abi holds it, and the plugin's source, as they were.

use crate::program::{files, root, weir};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Builds the plugin of every kind against the header of version 1.0.
fn built(folder: &Path, more: &[&str]) -> PathBuf {
    released(folder, "kinds", "old", more)
}

/// Builds a source of that version against the header beside it.
fn released(folder: &Path, source: &str, name: &str, more: &[&str]) -> PathBuf {
    let of_1_0 = root().join("tests/abi/v1.0");
    let source = of_1_0.join(format!("{source}.c"));
    compiled(
        &folder.join(format!("lib{name}.so")),
        &source,
        &of_1_0,
        more,
    )
}

fn compiled(file: &Path, source: &Path, headers: &Path, more: &[&str]) -> PathBuf {
    let said = Command::new("gcc")
        .args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-O1"])
        .args(["-shared", "-fPIC", "-pthread", "-I"])
        .arg(headers)
        .args(more)
        .arg("-o")
        .args([file, source])
        .output()
        .unwrap();
    let err = String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success(), "{err}");
    file.to_owned()
}

/// Runs source, map, filter, map, reduce and sink of the plugin; what the sink wrote.
fn lines(isolate: bool) -> String {
    let folder = tempfile::tempdir().unwrap();
    let plugin = built(folder.path(), &[]);
    let file = folder.path().join("old.weir.toml");
    let text = format!(
        r#"weir = 1
[run]
out = "out"
[plugin.old]
path = {plugin:?}
isolate = {isolate}
[stage.grid]
use = "old.grid"
slides = 3
[stage.light]
use = "old.invert"
in = "grid"
[stage.left]
use = "old.dark"
in = "light"
least = 230.0
[stage.mean]
use = "old.mean"
in = "left"
[stage.sum]
use = "old.sum"
in = "mean"
[stage.lines]
use = "old.lines"
in = "sum"
"#
    );
    std::fs::write(&file, text).unwrap();
    weir(["run".as_ref(), file.as_os_str()]).exits(0);
    std::fs::read_to_string(folder.path().join("out/lines.txt")).unwrap()
}

#[test]
fn a_plugin_of_every_kind_that_was_built_for_1_0_runs_in_this_host() {
    // Tile t of slide s is 255 - (20 s + t + 1), for t in 0..12; what is darker than 230 is left out.
    let mut wanted = String::new();
    // Slides have numbers in the order of their ids.
    for (name, s) in [("one", 1), ("two", 2), ("zero", 0)] {
        let left = (0..12).map(|t| 254 - (20 * s + t)).filter(|&v| v >= 230);
        let (n, sum) = left.fold((0, 0), |(n, sum), v| (n + 1, sum + v));
        wanted += &format!("{name} {n} {sum} {sum} {sum}\n");
    }
    assert_eq!(lines(false), wanted);
    assert_eq!(lines(true), wanted);
}

#[test]
fn a_reader_that_was_built_for_1_0_reads_slides_in_this_host() {
    let folder = tempfile::tempdir().unwrap();
    let plugin = built(folder.path(), &[]);
    std::fs::write(folder.path().join("grey.old"), "OLD1 100 80 77\n").unwrap();
    let file = folder.path().join("grey.weir.toml");
    let text = format!(
        "weir = 1\n[run]\nout = \"out\"\n[plugin.old]\npath = {plugin:?}\n[stage.tiles]\nuse = \"tile-reader\"\nslides = [\"grey.old\"]\nsize = 32\nmpp = 0.5\ntissue = \"none\"\n[stage.images]\nuse = \"image-sink\"\nin = \"tiles\"\n"
    );
    std::fs::write(&file, text).unwrap();
    weir(["run".as_ref(), file.as_os_str()]).exits(0);
    let record = crate::program::record(&folder.path().join("out"));
    let slide = &record["slides"]["grey"];
    assert_eq!(slide["tiles_failed"], 0, "{record}");
    assert_eq!(slide["state"], "final", "{record}");
}

#[test]
fn a_plugin_that_needs_a_later_version_is_refused_with_both_versions_and_none_of_it_runs() {
    for needs in ["1.1", "2.0"] {
        let folder = tempfile::tempdir().unwrap();
        let plugin = built(folder.path(), &[&format!("-DNEEDS=\"{needs}\"")]);
        let file = folder.path().join("old.weir.toml");
        let text = format!(
            "weir = 1\n[plugin.old]\npath = {plugin:?}\n[stage.grid]\nuse = \"old.grid\"\n[stage.end]\nuse = \"null-sink\"\nin = \"grid\"\n"
        );
        std::fs::write(&file, text).unwrap();
        let said = weir(["run".as_ref(), file.as_os_str()]).exits(2);
        for word in ["E0505", needs, "speaks 1.0"] {
            assert!(said.err.contains(word), "{}", said.err);
        }
        // What a library has to say, it says when it is loaded.
        assert!(!said.err.contains("loaded"), "{}", said.err);
    }
}

/// What else of the ABI a plugin of 1.0 uses, in one run: calls that end on another thread, parameters of every type, tables, picks, rows
/// of tiles and of slides from a reduce, steps of every kind, a reader. Files of the run by their names.
fn more(isolate: bool) -> BTreeMap<String, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let (old, more) = (built(path, &[]), released(path, "more", "more", &[]));
    let takes = root().join("tests/plugins/takes.c");
    let takes = compiled(
        &path.join("libtakes.so"),
        &takes,
        &root().join("plugins/abi"),
        &[],
    );
    std::fs::write(path.join("label.more"), "MORE").unwrap();
    let run = |name: &str, exits: i32, graph: &str| {
        let file = path.join(format!("{name}.weir.toml"));
        let text = format!(
            "weir = 1\n[run]\nout = \"{name}\"\nmax-failed = 0.5\n[plugin.old]\npath = {old:?}\n[plugin.more]\npath = {more:?}\nisolate = {isolate}\n[plugin.takes]\npath = {takes:?}\n{graph}"
        );
        std::fs::write(&file, text).unwrap();
        weir(["run".as_ref(), file.as_os_str()]).exits(exits)
    };
    let rest = r#"
[stage.later]
use = "more.later"
in = "tiles"
[stage.notes]
use = "more.notes"
in = "tiles"
text = "ab"
list = ["x", "y"]
way = "down"
room = "4KiB"
wait = "3ms"
on = true
[stage.picks]
use = "takes.picks"
in = "notes"
as = "picks"
[stage.lines]
use = "takes.table"
in = "notes.notes"
as = "lines"
[stage.weigh]
use = "more.weigh"
in = "later"
[stage.told]
use = "takes.table"
in = "weigh.notes"
as = "told"
[stage.table]
use = "tiles-sink"
in = { scores = "later", attention = "weigh" }
[stage.predictions]
use = "predictions-sink"
in = "weigh.says"
"#;
    run(
        "grid",
        0,
        &format!("[stage.tiles]\nuse = \"old.grid\"\nslides = 2\n{rest}"),
    );
    run(
        "label",
        0,
        &format!(
            "[stage.tiles]\nuse = \"tile-reader\"\nslides = [\"label.more\"]\nsize = 8\nmpp = 0.5\ntissue = \"none\"\n{rest}"
        ),
    );
    run(
        "live",
        3,
        "[stage.live]\nuse = \"more.live\"\n[stage.features]\nuse = \"takes.features\"\nin = \"live\"\nas = \"live\"\n",
    );
    let mut all = BTreeMap::new();
    for name in ["grid", "label", "live"] {
        for (file, bytes) in files(&path.join(name)) {
            // When what ended differs from run to run.
            if ![".weir-lock", "run.json", "predictions.jsonl"].contains(&file.as_str()) {
                let text = String::from_utf8(bytes).unwrap();
                let text = text.replace(path.to_str().unwrap(), "");
                all.insert(format!("{name}/{file}"), text);
            }
        }
    }
    all
}

#[test]
fn what_else_a_plugin_of_1_0_may_do_runs_in_this_host() {
    let here = more(false);
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    // Tile t of slide s is 20 s + t + 1, which is its score; its weight is its share of their sum.
    for (name, s) in [("zero", 0), ("one", 1)] {
        let sum: u32 = (0..12).map(|t| 20 * s + t + 1).sum();
        let table = lines(&here[&format!("grid/{name}/tiles.csv")]);
        assert_eq!(table.len(), 13);
        for (t, row) in (0..12).zip(&table[1..]) {
            let (x, y, score) = (t % 4 * 16, t / 4 * 16, 20 * s + t + 1);
            let weight = score as f32 / sum as f32;
            let wanted = format!("{x},{y},16,16,0.5,{score},,0,0,{weight},0,0");
            assert_eq!(*row, wanted);
        }
        let notes = lines(&here[&format!("grid/{name}.lines.txt")]);
        assert_eq!(notes.len(), 12);
        for note in notes {
            assert!(note.ends_with(" ab||2:x|1:down|4096|3000000|1"), "{note}");
        }
        assert_eq!(lines(&here[&format!("grid/{name}.picks.txt")]).len(), 12);
        let told = &here[&format!("grid/{name}.told.txt")];
        assert_eq!(told, "-1 -1 12 of generation 0, 0\n");
        let prediction = &here[&format!("grid/{name}/prediction.json")];
        let prediction: serde_json::Value = serde_json::from_str(prediction).unwrap();
        assert_eq!(prediction["class"], "0", "{prediction}");
        assert_eq!(prediction["state"], "final", "{prediction}");
    }
    let table = lines(&here["label/label/tiles.csv"]);
    assert_eq!(table[1..], ["0,0,8,8,0.5,255,,0,0,1,0,0"]);
    // Of its three tiles one is withdrawn, and one is torn.
    assert_eq!(here["live/live.live.txt"], "256 0 256 0.5\n");
    let apart = more(true);
    assert_eq!(
        here.keys().collect::<Vec<_>>(),
        apart.keys().collect::<Vec<_>>()
    );
    for (name, text) in &here {
        // A pick's number is its place in the batch that it came in; a prediction says when its slide was written.
        if name.ends_with("prediction.json") {
            let of = |text: &str| {
                let all: serde_json::Value = serde_json::from_str(text).unwrap();
                ["class", "logits", "probabilities", "coverage"].map(|key| all[key].clone())
            };
            assert_eq!(of(&apart[name]), of(text), "{name}");
        } else if !name.ends_with(".picks.txt") {
            assert_eq!(apart[name], *text, "{name}");
        }
    }
}
