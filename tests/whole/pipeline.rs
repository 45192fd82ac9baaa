//! Commands on pipeline files: validate, graph, show, stages, explain, schema, new, test.

use crate::program::models::{self, Pipeline};
use crate::program::{command, said, slide, weir};
use serde_json::Value;
use std::path::Path;

/// A pipeline over two small slides; further lines go to its end.
fn pipeline(folder: &Path, more: &str) -> String {
    for (seed, name) in ["one", "two"].into_iter().enumerate() {
        slide(&folder.join(format!("{name}.tiff")), 5, 4, seed as u64);
    }
    let pipeline = Pipeline {
        slides: &["one.tiff", "two.tiff"],
        size: 64,
        mpp: 1.0,
        run: "",
        reader: "",
    };
    let file = pipeline.write(folder);
    let text = std::fs::read_to_string(&file).unwrap() + more;
    std::fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

#[test]
fn a_right_file_validates_and_a_folder_of_files_does_too() {
    let folder = tempfile::tempdir().unwrap();
    let file = pipeline(folder.path(), "");
    weir(["validate", &file, "--deny-warnings"]).exits(0);
    weir(["validate", folder.path().to_str().unwrap()]).exits(0);
    weir(["validate", &file, "--set", "stage.top.highest=\"many\""]).exits(2);
    let nothing = tempfile::tempdir().unwrap();
    let said = weir(["validate", nothing.path().to_str().unwrap()]).exits(2);
    assert!(said.err.contains(".weir.toml"), "{}", said.err);
}

#[test]
fn mistakes_are_told_in_every_format() {
    let folder = tempfile::tempdir().unwrap();
    let file = pipeline(folder.path(), "");
    let wrong = ["validate", &file, "--set", "stage.tiles.sise=3"];
    let human = weir(wrong).exits(2);
    assert!(human.err.contains("error[E0301]"), "{}", human.err);
    let short = weir(wrong.into_iter().chain(["--format", "short"])).exits(2);
    assert!(
        short
            .err
            .lines()
            .any(|line| line.contains(":1:") && line.contains("error[E0301]")),
        "{}",
        short.err
    );
    let json = weir(wrong.into_iter().chain(["--format", "json"])).exits(2);
    let first: Value = serde_json::from_str(json.err.lines().next().unwrap()).unwrap();
    assert_eq!(first["code"], "E0301");
}

#[test]
fn twelve_mistakes_are_twelve_lines_with_their_places() {
    let said = weir([
        "validate",
        "tests/diagnostics/twelve.weir.toml",
        "--format",
        "short",
    ])
    .exits(2);
    let lines: Vec<&str> = said
        .err
        .lines()
        .filter(|line| line.contains(": error["))
        .collect();
    assert_eq!(lines.len(), 12, "{}", said.err);
    for line in lines {
        let mut parts = line.split(':').skip(1);
        let mut number = || parts.next().and_then(|part| part.parse::<u32>().ok());
        assert!(number().is_some() && number().is_some(), "{line}");
    }
    let run = weir(["run", "tests/diagnostics/twelve.weir.toml"]).exits(2);
    assert_eq!(run.err.matches("error[").count(), 12, "{}", run.err);
}

#[test]
fn a_run_without_slides_says_how_to_name_them() {
    let folder = tempfile::tempdir().unwrap();
    let file = pipeline(folder.path(), "");
    let said = weir(["run", &file, "--set", "stage.tiles.slides=[]"]).exits(2);
    assert!(said.err.contains("slides"), "{}", said.err);
}

#[test]
fn the_graph_is_drawn_and_a_dry_run_counts_tiles() {
    let folder = tempfile::tempdir().unwrap();
    let file = pipeline(folder.path(), "");
    let text = weir(["graph", &file]).exits(0).out;
    assert!(text.contains("score") && text.contains("memory"), "{text}");
    assert!(
        weir(["graph", &file, "--as", "dot"])
            .exits(0)
            .out
            .starts_with("digraph")
    );
    assert!(
        weir(["graph", &file, "--as", "mermaid"])
            .exits(0)
            .out
            .contains("flowchart")
    );
    let json: Value =
        serde_json::from_str(&weir(["graph", &file, "--as", "json"]).exits(0).out).unwrap();
    assert!(
        json["stages"].is_array() || json["nodes"].is_array(),
        "{json}"
    );

    let dry = weir(["graph", &file, "--slides"]).exits(0).out;
    assert!(
        dry.contains("2 slides") && dry.contains("40 tiles"),
        "{dry}"
    );
    assert!(
        !folder.path().join("out").exists(),
        "a dry run writes nothing"
    );
    let json = weir(["graph", &file, "--slides", "--as", "json"])
        .exits(0)
        .out;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["slides"].as_array().unwrap().len(), 2);
    assert_eq!(
        (&json["slides"][0]["id"], &json["slides"][0]["tiles"]),
        (&"one".into(), &20.into())
    );
    assert_eq!(json["slides"][0]["pixel_bytes"], 20 * 64 * 64 * 3);
}

#[test]
fn a_dry_run_tells_slides_that_will_fail() {
    let folder = tempfile::tempdir().unwrap();
    let file = pipeline(folder.path(), "");
    std::fs::write(folder.path().join("two.tiff"), "no slide").unwrap();
    let said = weir(["graph", &file, "--slides"]).exits(3);
    assert!(said.out.contains("20 tiles"), "{}", said.out);
    assert!(said.err.contains("slide two"), "{}", said.err);
}

#[test]
fn stages_explanations_and_the_schema_come_from_one_place() {
    let list = weir(["stages"]).exits(0).out;
    for name in [
        "tile-reader",
        "scorer",
        "top-k",
        "heatmap-sink",
        "null-sink",
    ] {
        assert!(list.contains(name), "{name}\n{list}");
        let one = weir(["stages", name]).exits(0).out;
        assert!(
            one.contains(&format!("use = \"{name}\"")),
            "{name} shows an example\n{one}"
        );
        assert!(
            weir(["stages", name, "--markdown"])
                .exits(0)
                .out
                .contains('|'),
            "{name}"
        );
    }
    let said = weir(["stages", "tile-raeder"]).exits(2);
    assert!(said.err.contains("tile-reader"), "{}", said.err);
    assert!(weir(["explain", "E0301"]).exits(0).out.contains("E0301"));
    assert!(weir(["explain", "e0301"]).exits(0).out.contains("E0301"));
    weir(["explain", "E9999"]).exits(2);
    let schema: Value = serde_json::from_str(&weir(["schema"]).exits(0).out).unwrap();
    assert!(schema["$schema"].is_string());
}

#[test]
fn show_says_where_each_value_came_from() {
    let folder = tempfile::tempdir().unwrap();
    let file = pipeline(folder.path(), "");
    let text = weir(["show", &file, "--set", "stage.top.highest=8"])
        .exits(0)
        .out;
    let line = text
        .lines()
        .find(|line| line.trim_start().starts_with("highest"))
        .unwrap();
    assert!(line.contains('8') && line.contains("--set"), "{line}");
}

#[test]
fn a_new_pipeline_validates_and_is_never_written_over_another() {
    let folder = tempfile::tempdir().unwrap();
    models::write(&folder.path().join("models"), 64, 1.0);
    slide(&folder.path().join("one.tiff"), 3, 3, 1);
    let run = |arguments: &[&str]| {
        let mut command = command(arguments);
        command.current_dir(folder.path());
        said(command)
    };
    run(&["new", "pipeline", "mine.weir.toml", "--models", "models"]).exits(0);
    run(&["validate", "mine.weir.toml", "--var", "slides=one.tiff"]).exits(0);
    run(&["run", "mine.weir.toml", "slides=one.tiff"]).exits(0);
    assert!(folder.path().join("out/one/heatmap.png").exists());
    let said = run(&["new", "pipeline", "mine.weir.toml", "--models", "models"]).exits(2);
    assert!(said.err.contains("is there already"), "{}", said.err);
    let said = run(&["new", "pipeline", "other.weir.toml", "--models", "nowhere"]).exits(2);
    assert!(said.err.contains("weir train"), "{}", said.err);
}

#[test]
fn tests_in_a_file_run_and_a_failed_one_shows_what_was_expected() {
    let folder = tempfile::tempdir().unwrap();
    let file = pipeline(
        folder.path(),
        r#"
[[test]]
name = "three purple tiles"
feed = { stage = "tiles", colour = [150, 60, 160], count = 3 }
expect = { tiles = { values = 3, failed = 0 }, top = { values = 3 }, classify = { values = 1 }, table = { failed = 0 } }

[[test]]
name = "wrong on purpose"
feed = { stage = "tiles", colour = [255, 255, 255] }
expect = { score = { values = 2 } }
"#,
    );
    weir(["test", &file, "--only", "three purple tiles"]).exits(0);
    let said = weir(["test", &file]).exits(1);
    assert!(
        said.out.contains("ok      three purple tiles")
            && said.out.contains("FAILED  wrong on purpose"),
        "{}",
        said.out
    );
    assert!(
        said.err.contains("error[E0609]") && said.err.contains("2 expected, 1 found"),
        "{}",
        said.err
    );
    assert!(
        !folder.path().join("out").exists(),
        "a test leaves nothing behind"
    );
    let said = weir(["test", &file, "--only", "four"]).exits(2);
    assert!(said.err.contains("three purple tiles"), "{}", said.err);
}
