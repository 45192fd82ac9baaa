//! What is done is not done again, and two runs do not write one folder.

use crate::program::models::Pipeline;
use crate::program::{answers, record, slide, weir};
use std::path::Path;

fn pipeline(folder: &Path) -> String {
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
    pipeline.write(folder).to_str().unwrap().to_owned()
}

#[test]
fn a_second_run_skips_what_is_done_and_again_computes_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = pipeline(folder.path());
    let out = folder.path().join("out");
    weir(["run", &file]).exits(0);
    let first = answers(&out);
    assert_eq!(record(&out)["counts"]["skipped"], 0);

    let said = weir(["run", &file]).exits(0);
    assert!(said.out.contains("done by an earlier run"), "{}", said.out);
    let second = record(&out);
    assert_eq!(
        (&second["counts"]["skipped"], &second["counts"]["final"]),
        (&2.into(), &2.into())
    );
    assert_eq!(answers(&out), first, "the tables still have every slide");

    weir(["run", &file, "--again"]).exits(0);
    assert_eq!(record(&out)["counts"]["skipped"], 0);
    assert_eq!(answers(&out), first);
}

#[test]
fn what_changed_is_computed_again_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let file = pipeline(folder.path());
    let out = folder.path().join("out");
    weir(["run", &file]).exits(0);
    let first = answers(&out);

    slide(&folder.path().join("two.tiff"), 5, 4, 77);
    weir(["run", &file]).exits(0);
    let now = record(&out);
    assert!(now["slides"]["one"]["skipped"].is_string(), "{now}");
    assert!(now["slides"]["two"]["skipped"].is_null(), "{now}");
    assert_eq!(answers(&out)["one/tiles.csv"], first["one/tiles.csv"]);
    assert_ne!(answers(&out)["two/tiles.csv"], first["two/tiles.csv"]);

    weir(["run", &file, "--set", "stage.top.highest=8"]).exits(0);
    assert_eq!(
        record(&out)["counts"]["skipped"],
        0,
        "another plan is other work"
    );
    weir([
        "run",
        &file,
        "--set",
        "stage.top.highest=8",
        "-w",
        "2",
        "--set",
        "run.memory=\"64MiB\"",
    ])
    .exits(0);
    assert_eq!(
        record(&out)["counts"]["skipped"],
        2,
        "threads and memory change no answer"
    );
}

#[test]
fn two_slides_of_one_name_are_refused_before_anything_runs() {
    let folder = tempfile::tempdir().unwrap();
    let file = pipeline(folder.path());
    std::fs::create_dir(folder.path().join("other")).unwrap();
    slide(&folder.path().join("other/one.tiff"), 2, 2, 5);
    let set = "stage.tiles.slides=[\"one.tiff\", \"other/one.tiff\"]";
    let mut command = crate::program::command(["run", &file, "--set", set]);
    command.current_dir(folder.path());
    let said = crate::program::said(command).exits(2);
    assert!(
        said.err.contains("two slides have the id `one`"),
        "{}",
        said.err
    );
    assert!(
        said.err.contains("manifest"),
        "the remedy is told: {}",
        said.err
    );
    assert!(!folder.path().join("out/predictions.csv").exists());
}

#[test]
fn a_trace_names_the_stages_and_quiet_runs_say_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = pipeline(folder.path());
    let trace = folder.path().join("trace.json");
    let said = weir(["run", &file, "-q", "--trace", trace.to_str().unwrap()]).exits(0);
    assert!(
        said.out.is_empty() && said.err.is_empty(),
        "{}{}",
        said.out,
        said.err
    );
    let text = std::fs::read_to_string(&trace).unwrap();
    serde_json::from_str::<serde_json::Value>(&text).unwrap();
    assert!(
        text.contains("\"score\"") && text.contains("budget"),
        "{}",
        &text[..300]
    );
}
