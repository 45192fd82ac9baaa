//! Damaged slides: told with their place, counted, never patched, and no other slide suffers.

use crate::program::models::Pipeline;
use crate::program::tiled::Tiled;
use crate::program::{fixture, record, slide, tissue, weir};
use serde_json::Value;
use std::path::Path;

#[test]
fn damaged_files_fail_alone_and_the_record_counts_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    for (name, seed) in [("good-one", 1), ("good-two", 2)] {
        slide(&path.join(format!("{name}.tiff")), 4, 4, seed);
    }
    let plain = Tiled {
        width: 256,
        height: 256,
        tile: 64,
        mpp: None,
    };
    let kind = |column: u32, row: u32| u64::from(row * 4 + column);
    plain
        .write(&path.join("no-mpp.tiff"), &kind, &|c, r, pixels| {
            tissue(kind(c, r), pixels)
        })
        .unwrap();
    let mut slides: Vec<String> = ["good-one.tiff", "good-two.tiff", "no-mpp.tiff"]
        .map(String::from)
        .to_vec();
    let mut bad = vec!["no-mpp".to_owned()];
    for name in ["empty.svs", "text.svs", "truncated-60pct.svs"] {
        slides.push(fixture("corrupt").join(name).to_str().unwrap().to_owned());
        bad.push(name.trim_end_matches(".svs").to_owned());
    }
    let pipeline = Pipeline {
        slides: &slides.iter().map(String::as_str).collect::<Vec<_>>(),
        size: 64,
        mpp: 1.0,
        run: "",
        reader: "",
    };
    let file = pipeline.write(path);
    let said = weir(["run", file.to_str().unwrap()]).exits(3);
    let record = record(&path.join("out"));
    assert_eq!(record["counts"]["final"], 2, "{record}");
    assert_eq!(record["counts"]["failed"], bad.len());
    assert_eq!(record["exit_code"], 3);
    for good in ["good-one", "good-two"] {
        assert_eq!(record["slides"][good]["state"], "final");
        assert_eq!(record["slides"][good]["tiles"], 16);
    }
    for bad in &bad {
        let slide = &record["slides"][bad];
        assert_eq!(slide["state"], "failed", "{bad}: {slide}");
        assert!(slide["class"].is_null());
        let what = slide["failed"]["what"].as_str().unwrap();
        assert!(
            said.err.contains(&format!("slide {bad}: {what}")),
            "{bad}\n{}",
            said.err
        );
        assert!(
            !slide["failed"]["help"].as_str().unwrap().is_empty(),
            "{bad} without a remedy"
        );
    }
    let mpp = &record["slides"]["no-mpp"]["failed"]["help"];
    assert!(mpp.as_str().unwrap().contains("default-mpp"), "{mpp}");

    // With the remedy that was told, the slide runs.
    let set = "run.default-mpp=1.0";
    weir(["run", file.to_str().unwrap(), "--set", set]).exits(3);
    let again = crate::program::record(&path.join("out"));
    assert_eq!(again["slides"]["no-mpp"]["state"], "final");
    assert_eq!(again["slides"]["no-mpp"]["mpp_origin"], "default");
}

/// The slide with three damaged tiles, at its own resolution and the native tiles' size, without a mask.
fn three_bad(folder: &Path, more: &[&str]) -> Value {
    let slide = fixture("corrupt/three-bad-tiles.svs");
    let pipeline = Pipeline {
        slides: &[slide.to_str().unwrap()],
        size: 240,
        mpp: 0.499,
        run: "",
        reader: "tissue = \"none\"",
    };
    let file = pipeline.write(folder);
    let out = folder.join("out");
    let mut arguments = vec![
        "run",
        file.to_str().unwrap(),
        "--out",
        out.to_str().unwrap(),
    ];
    arguments.extend(more);
    let said = weir(arguments).exits(3);
    for place in ["(0, 480)", "(240, 480)", "(1200, 960)"] {
        assert!(said.err.contains(place), "{place}\n{}", said.err);
    }
    record(&out)["slides"]["three-bad-tiles"].clone()
}

#[test]
fn three_bad_tiles_are_three_failures_and_127_tiles() {
    let folder = tempfile::tempdir().unwrap();
    let failed = three_bad(folder.path(), &[]);
    assert_eq!(
        (&failed["state"], &failed["tiles_failed"], &failed["tiles"]),
        (&"failed".into(), &3.into(), &130.into())
    );
    assert_eq!(
        (
            &failed["ledgers"]["top.scores"]["value"],
            &failed["ledgers"]["top.scores"]["fail"]
        ),
        (&127.into(), &3.into())
    );
    assert!(failed["class"].is_null());

    let passed = three_bad(folder.path(), &["--set", "run.max-failed=0.05"]);
    assert_eq!(
        (&passed["state"], &passed["tiles_failed"]),
        (&"final".into(), &3.into())
    );
    assert!(passed["class"].is_string());
    let places: Vec<_> = passed["failures"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| (f["x"].as_i64(), f["y"].as_i64()))
        .collect();
    for place in [(0, 480), (240, 480), (1200, 960)] {
        assert!(
            places.contains(&(Some(place.0), Some(place.1))),
            "{place:?} in {places:?}"
        );
    }
    let table =
        std::fs::read_to_string(folder.path().join("out/three-bad-tiles/tiles.csv")).unwrap();
    assert_eq!(
        table.lines().count(),
        1 + 127,
        "no row for what could not be read"
    );
}

#[test]
fn too_many_failed_tiles_fail_a_slide_in_a_pipeline_of_a_sink_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (file, out) = (
        folder.path().join("read.weir.toml"),
        folder.path().join("out"),
    );
    let text = format!(
        "weir = 1\n[stage.tiles]\nuse = \"tile-reader\"\nslides = [{:?}]\nsize = 240\nmpp = 0.499\ntissue = \"none\"\n\
         [stage.nothing]\nuse = \"null-sink\"\nin = \"tiles\"\n",
        fixture("corrupt/three-bad-tiles.svs")
    );
    std::fs::write(&file, text).unwrap();
    let (file, folder) = (file.to_str().unwrap(), out.to_str().unwrap());
    let run = |more: &[&str]| {
        let said = weir([&["run", file, "--out", folder], more].concat()).exits(3);
        (said, record(&out)["slides"]["three-bad-tiles"].clone())
    };
    let (said, slide) = run(&[]);
    assert_eq!(slide["state"], "failed", "{slide}");
    let why = "3 of 130 tiles failed, more than 1 %";
    assert_eq!(slide["failed"]["what"], why);
    assert_eq!(slide["failed"]["stage"], "nothing");
    assert!(said.err.contains(why), "{}", said.err);
    let (_, slide) = run(&["--set", "run.max-failed=0.05"]);
    assert_eq!(
        (&slide["state"], &slide["tiles_failed"]),
        (&"final".into(), &3.into())
    );
}

#[test]
fn every_file_of_the_shared_collection_has_its_event() {
    let Some(data) = std::env::var_os("WEIR_DATA") else {
        eprintln!("skipped: WEIR_DATA is not set");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let mut slides = vec![
        fixture("CMU-1-Small-Region.svs")
            .to_str()
            .unwrap()
            .to_owned(),
    ];
    for entry in std::fs::read_dir(Path::new(&data).join("corrupt")).unwrap() {
        slides.push(entry.unwrap().path().to_str().unwrap().to_owned());
    }
    assert!(slides.len() > 5, "{slides:?}");
    let pipeline = Pipeline {
        slides: &slides.iter().map(String::as_str).collect::<Vec<_>>(),
        size: 240,
        mpp: 0.499,
        run: "open-slides = 2",
        reader: "tissue = \"none\"",
    };
    let file = pipeline.write(folder.path());
    weir(["run", file.to_str().unwrap()]).exits(3);
    let record = record(&folder.path().join("out"));
    assert_eq!(record["slides"].as_object().unwrap().len(), slides.len());
    for (id, slide) in record["slides"].as_object().unwrap() {
        if id == "CMU-1-Small-Region" {
            assert_eq!(slide["state"], "final", "{slide}");
        } else {
            assert_eq!(slide["state"], "failed", "{id}: {slide}");
            let told = slide["failed"]["what"].as_str().unwrap();
            assert!(told.len() >= 8, "{id}: {told}");
        }
    }
}
