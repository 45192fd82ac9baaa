//! ONNX files in a pipeline: what they are to the plugin that ships, which tiles they take, and what they answer.

use crate::program::{record, root, weir};
use crate::shipped::{run, shipped};
use std::path::Path;

fn probability(record: &serde_json::Value, slide: &str) -> f64 {
    record["slides"][slide]["probabilities"][1]
        .as_f64()
        .unwrap()
}

#[test]
fn tiles_unlike_an_onnx_files_are_told_with_their_units_and_what_to_change() {
    shipped("libweir_onnx");
    let file = root().join("pipelines/onnx.weir.toml");
    let sets = [
        "--set",
        "stage.score.mpp=0.5",
        "--set",
        "stage.score.size=224",
    ];
    let arguments = [&["validate", file.to_str().unwrap()], &sets[..]].concat();
    let told = weir(arguments).exits(2);
    let told = format!("{}{}", told.out, told.err);
    for part in [
        "[E0404]",
        "stage `score` takes tiles of 224 px at 0.5 um/px, not 50 px at 4 um/px",
        "give the stage the tiles that it takes",
    ] {
        assert!(told.contains(part), "{part} in\n{told}");
    }
}

#[test]
fn what_a_file_is_to_a_plugin_is_told_of_the_file() {
    let library = shipped("libweir_onnx");
    let models = root().join("plugins/onnx/tests/models");
    let inspect = |plugin: &str, file: &Path, more: &[&str]| {
        let asked = [
            "plugin",
            "inspect",
            plugin,
            "--file",
            file.to_str().unwrap(),
        ];
        weir([&asked[..], more].concat())
    };
    let two = models.join("two.onnx");
    let told = inspect("onnx", &two, &["--format", "json"]).exits(0).out;
    let json: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!(json["plugin"], "onnx");
    assert_eq!(json["file"], two.to_str().unwrap());
    let lines: Vec<&str> = json["says"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| line.as_str().unwrap())
        .collect();
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with("no stage takes it: it has 2 inputs")),
        "{lines:?}"
    );
    let text = root().join("README.md");
    let told = inspect("onnx", &text, &[]).exits(2).err;
    assert!(
        told.contains("README.md")
            && !told.contains("E05")
            && !told.contains(library.to_str().unwrap()),
        "{told}"
    );
    shipped("libblur-c");
    let told = inspect("blur-c", &text, &[]).exits(2).err;
    assert!(
        told.contains("it describes no files") && !told.contains("E05"),
        "{told}"
    );
}

#[test]
fn another_model_file_under_the_same_name_is_computed_again() {
    shipped("libweir_onnx");
    let folder = tempfile::tempdir().unwrap();
    let (model, out) = (folder.path().join("it.onnx"), folder.path().join("out"));
    let file = root().join("pipelines/onnx.weir.toml");
    // How many slides a run leaves out, as an earlier one did them.
    let skipped = |model: &Path, out: &Path| {
        let set = format!("stage.score.model={model:?}");
        let (file, to) = (file.to_str().unwrap(), out.to_str().unwrap());
        weir(["run", file, "--out", to, "--set", &set]).exits(0);
        record(out)["counts"]["skipped"].clone()
    };
    let mut bytes = std::fs::read(root().join("pipelines/models/demo/a/scorer.onnx")).unwrap();
    std::fs::write(&model, &bytes).unwrap();
    assert_eq!(skipped(&model, &out), 0);
    assert_eq!(skipped(&model, &out), 1);
    // Field 6 of a model is a text about it: the network is the same, the file is not.
    bytes.extend([0x32, 1, b'x']);
    std::fs::write(&model, &bytes).unwrap();
    assert_eq!(skipped(&model, &out), 0);

    // A folder is all that is in it, as an ONNX file with weights of its own beside it.
    let (whole, out) = (
        folder.path().join("model"),
        folder.path().join("out of a folder"),
    );
    std::fs::create_dir(&whole).unwrap();
    std::fs::rename(&model, whole.join("it.onnx")).unwrap();
    std::fs::write(whole.join("it.data"), "1").unwrap();
    assert_eq!(skipped(&whole, &out), 0);
    assert_eq!(skipped(&whole, &out), 1);
    std::fs::write(whole.join("it.data"), "2").unwrap();
    assert_eq!(skipped(&whole, &out), 0);
}

#[test]
fn the_demos_networks_answer_alike_as_onnx_files() {
    shipped("libweir_onnx");
    let model = root().join("pipelines/models/demo/a/scorer.onnx");
    let told = weir([
        "plugin",
        "inspect",
        "onnx",
        "--file",
        model.to_str().unwrap(),
    ])
    .exits(0);
    assert!(told.out.contains("50"), "{}", told.out);
    let (_, onnx) = run("onnx", &[]);
    let (_, own) = run("demo", &[]);
    let (onnx, own) = (
        probability(&onnx, "slide-14082"),
        probability(&own, "slide-14082"),
    );
    // The files keep the weights as f16.
    assert!((onnx - own).abs() < 5e-3, "{onnx} and {own}");
}
