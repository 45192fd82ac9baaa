//! The same answer to the bit, however it was come by.

use crate::program::models::Pipeline;
use crate::program::{answers, slide, weir};
use std::collections::BTreeMap;
use std::path::Path;

const SLIDES: [(&str, u32, u32); 4] = [
    ("one", 9, 7),
    ("two", 4, 3),
    ("three", 8, 8),
    ("four", 1, 1),
];

/// A pipeline over four slides in `folder`.
fn pipeline(folder: &Path, order: &[&str], reader: &str) -> String {
    for (seed, (name, columns, rows)) in SLIDES.iter().enumerate() {
        slide(
            &folder.join(format!("{name}.tiff")),
            *columns,
            *rows,
            seed as u64,
        );
    }
    let slides: Vec<String> = order.iter().map(|name| format!("{name}.tiff")).collect();
    let pipeline = Pipeline {
        slides: &slides.iter().map(String::as_str).collect::<Vec<_>>(),
        size: 64,
        mpp: 1.0,
        run: "",
        reader,
    };
    pipeline.write(folder).to_str().unwrap().to_owned()
}

fn run(file: &str, out: &Path, more: &[&str]) -> BTreeMap<String, String> {
    let mut arguments = vec!["run", file, "--out", out.to_str().unwrap()];
    arguments.extend(more);
    weir(arguments).exits(0);
    let found = answers(out);
    assert!(found.contains_key("predictions.csv"), "{:?}", found.keys());
    for (name, ..) in SLIDES {
        assert!(
            found.contains_key(&format!("{name}/tiles.csv")),
            "{name}: {:?}",
            found.keys()
        );
    }
    found
}

#[test]
fn tables_are_the_same_for_any_workers_processes_and_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let names = SLIDES.map(|(name, ..)| name);
    let file = pipeline(path, &names, "");
    let truth = run(&file, &path.join("w1"), &["-w", "1"]);
    let predictions = &truth["predictions.csv"];
    assert_eq!(
        predictions.lines().count(),
        1 + SLIDES.len(),
        "{predictions}"
    );

    for (name, more) in [
        ("w2", &["-w", "2"][..]),
        (
            "w4",
            &[
                "-w",
                "4",
                "--set",
                "run.helpers=3",
                "--set",
                "run.readers=3",
            ],
        ),
        ("p2", &["--processes", "2"]),
        ("p2w2", &["--processes", "2", "-w", "2"]),
        (
            "small",
            &["--set", "run.memory=\"2MiB\"", "--set", "run.open-slides=1"],
        ),
        ("batch", &["--set", "stage.score.run.batch=3"]),
    ] {
        assert_eq!(run(&file, &path.join(name), more), truth, "{name}");
    }

    let other = tempfile::tempdir().unwrap();
    let turned: Vec<&str> = names.iter().rev().copied().collect();
    let file = pipeline(other.path(), &turned, "order = \"random\"");
    assert_eq!(
        run(&file, &other.path().join("out"), &[]),
        truth,
        "another order of slides and tiles"
    );
}

#[test]
fn shards_together_make_what_one_run_makes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let file = pipeline(path, &SLIDES.map(|(name, ..)| name), "");
    let truth = run(&file, &path.join("whole"), &[]);
    let out = path.join("shards");
    for shard in ["1/3", "2/3", "3/3"] {
        weir([
            "run",
            &file,
            "--out",
            out.to_str().unwrap(),
            "--shard",
            shard,
        ])
        .exits(0);
    }
    assert!(
        !out.join("run.json").exists(),
        "a shard writes a record of its own"
    );
    assert!(out.join("run-2-of-3.json").exists());
    // The run that gathers computes nothing.
    let gathered = run(&file, &out, &[]);
    assert_eq!(gathered, truth);
    let record = crate::program::record(&out);
    assert_eq!(record["counts"]["skipped"], SLIDES.len());
}
