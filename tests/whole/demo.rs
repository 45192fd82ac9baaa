//! The demo, as `make demo` runs it.

use crate::program::{answers, command, files, fixture, record, root, said};
use serde_json::Value;
use std::collections::HashMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

#[test]
fn the_demo_predicts_and_writes_everything_from_any_folder() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let file = root().join("pipelines/demo.weir.toml");
    let mut command = command(["run", file.to_str().unwrap(), "--out", "out"]);
    command.current_dir(folder.path());
    let said = said(command).exits(0);
    assert!(said.out.contains("slide-14082: tumour ("), "{}", said.out);
    assert!(
        said.out.contains("took ") && said.out.contains("tiles/s"),
        "{}",
        said.out
    );
    assert!(said.out.contains("heatmap.png"), "{}", said.out);

    for name in [
        "run.json",
        "predictions.csv",
        "predictions.jsonl",
        "worklist.csv",
        "patients.csv",
    ] {
        assert!(out.join(name).is_file(), "{name}");
    }
    let slide = out.join("slide-14082");
    for name in [
        "prediction.json",
        "tiles.csv",
        "heatmap.png",
        "tiles.geojson",
    ] {
        assert!(slide.join(name).is_file(), "{name}");
    }
    let png = std::fs::read(slide.join("heatmap.png")).unwrap();
    assert!(png.starts_with(b"\x89PNG") && png.len() > 10_000);
    let geojson: Value =
        serde_json::from_slice(&std::fs::read(slide.join("tiles.geojson")).unwrap()).unwrap();
    assert_eq!(geojson["type"], "FeatureCollection");

    let record = record(&out);
    assert_eq!(
        (
            &record["state"],
            &record["exit_code"],
            &record["deterministic"]
        ),
        (&"done".into(), &0.into(), &true.into())
    );
    let told = &record["slides"]["slide-14082"];
    assert_eq!(
        (&told["mpp"], &told["mpp_origin"]),
        (&4.0.into(), &"resolution".into())
    );
    assert!(told["tiles"].as_u64().unwrap() > 300, "{told}");
    let stages = record["stages"].as_array().unwrap();
    let took = |name| stages.iter().find(|stage| stage["name"] == name).unwrap();
    assert_eq!(took("score")["rows"], told["tiles"]);
    assert_eq!(took("chosen")["rows"], told["bag"]);
    let shown = geojson["features"].as_array().unwrap().len() as u64;
    assert_eq!(told["bag"], shown, "the selected tiles are shown");

    let auroc = auroc(&slide.join("tiles.csv"));
    println!("tile AUROC on slide-14082: {auroc:.4}");
    assert!(auroc >= 0.93, "{auroc}");
}

#[test]
fn the_demo_s_tables_do_not_depend_on_workers_or_processes_in_either_executor() {
    let file = root().join("pipelines/demo.weir.toml");
    let slides = format!(
        "slides=[{:?}, {:?}]",
        fixture("slide-14082.tiff"),
        fixture("CMU-1-Small-Region.svs")
    );
    for executor in ["burn", "auto"] {
        let tables = |more: &[&str]| {
            let folder = tempfile::tempdir().unwrap();
            let out = folder.path().join("out");
            let mut arguments = vec!["run", file.to_str().unwrap(), &slides];
            arguments.extend(["--executor", executor, "--out", out.to_str().unwrap()]);
            arguments.extend(more);
            said(command(arguments)).exits(0);
            answers(&out)
        };
        let one = tables(&[]);
        assert!(one.len() >= 4, "{:?}", one.keys());
        for more in [["--workers", "4"], ["--processes", "2"]] {
            assert!(tables(&more) == one, "{executor}, {more:?}");
        }
    }
}

#[test]
fn a_demo_that_is_killed_at_any_moment_leaves_whole_files_only() {
    let file = root().join("pipelines/demo.weir.toml");
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let mut written = 0;
    let run = |out: &Path| {
        let arguments = ["run", file.to_str().unwrap(), "--again", "--quiet", "--out"];
        let mut run = command(arguments);
        run.arg(out).stderr(Stdio::null()).spawn().unwrap()
    };
    // A whole run says how long one takes on this machine, so that the moments lie all over it.
    let start = Instant::now();
    assert!(run(&folder.path().join("whole")).wait().unwrap().success());
    let whole = start.elapsed();
    for moment in 0..16 {
        let mut child = run(&out);
        std::thread::sleep(whole * moment / 14);
        // It may have ended by itself.
        let _ = child.kill();
        child.wait().unwrap();
        if !out.exists() {
            continue;
        }
        for (name, bytes) in files(&out) {
            let last = name.rsplit('/').next().unwrap_or(&name);
            if last.starts_with('.') || last.ends_with(".part") {
                continue;
            }
            written += 1;
            match last.rsplit('.').next() {
                Some("json" | "geojson") => {
                    let whole: Result<Value, _> = serde_json::from_slice(&bytes);
                    assert!(whole.is_ok(), "{name}");
                }
                // PNG 1.2, section 4.1.4: the last chunk is IEND, which is empty, and its CRC.
                Some("png") => assert!(bytes.ends_with(b"IEND\xae\x42\x60\x82"), "{name}"),
                _ => assert!(bytes.ends_with(b"\n"), "{name}"),
            }
        }
    }
    assert!(written > 0, "no run came so far as to write");
}

#[test]
fn the_demo_s_models_are_small_and_their_record_says_what_they_reach() {
    let models = root().join("pipelines/models/demo");
    let bytes: u64 = ["a", "b"]
        .iter()
        .map(|name| models.join(name).join("weights.safetensors"))
        .map(|path| std::fs::metadata(path).unwrap().len())
        .sum();
    assert!(bytes < 4_000_000, "{bytes}");
    let record = std::fs::read_to_string(models.join("a/training.md")).unwrap();
    let figure = |of: &str| -> f64 {
        let row = record
            .lines()
            .find(|line| line.starts_with(&format!("| {of} |")))
            .unwrap();
        row.split('|').nth(6).unwrap().trim().parse().unwrap()
    };
    assert!(figure("val") >= 0.90 && figure("slide-14082") >= 0.93);
    for of in ["squared-average", "softmax", "mean", "max"] {
        assert!(record.contains(&format!("| {of} |")), "{of}");
    }
}

/// Area under the ROC curve of the scores over all tiles of the truth table; a tile that the mask left out counts as the lowest.
fn auroc(tiles: &Path) -> f64 {
    let rows = |path: &Path, columns: [&str; 3]| -> Vec<[String; 3]> {
        let text = std::fs::read_to_string(path).unwrap();
        let mut lines = text.lines().filter(|line| !line.starts_with('#'));
        let header: Vec<&str> = lines.next().unwrap().split(',').collect();
        let at = columns.map(|name| header.iter().position(|title| *title == name).unwrap());
        lines
            .map(|line| {
                let cells: Vec<&str> = line.split(',').collect();
                at.map(|at| cells[at].to_owned())
            })
            .collect()
    };
    let mut scores = HashMap::new();
    for [x, y, score] in rows(tiles, ["x", "y", "score"]) {
        scores.insert((x, y), score.parse::<f64>().unwrap());
    }
    let (mut tumour, mut normal) = (Vec::new(), Vec::new());
    for [x, y, class] in rows(&fixture("slide-14082.tumour.csv"), ["x", "y", "class"]) {
        let score = scores.get(&(x, y)).copied().unwrap_or(f64::NEG_INFINITY);
        if class == "1" {
            tumour.push(score)
        } else {
            normal.push(score)
        }
    }
    assert_eq!((tumour.len(), normal.len()), (197, 281));
    let mut wins = 0.0;
    for t in &tumour {
        for n in &normal {
            wins += if t > n {
                1.0
            } else if t == n {
                0.5
            } else {
                0.0
            };
        }
    }
    wins / (tumour.len() * normal.len()) as f64
}
