//! The pipelines of the plugins that ship run as they are, with the plugins that `make plugins` puts beside the program.

use crate::openslide::reads_dicom;
use crate::program::{command, files, fixture, record, root, said, weir};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The plugin's file beside the program.
pub fn shipped(name: &str) -> PathBuf {
    let file = Path::new(env!("CARGO_BIN_EXE_weir")).with_file_name(format!("plugins/{name}.so"));
    assert!(
        file.is_file(),
        "{} is missing: `make test` builds it, and `make plugins` alone",
        file.display()
    );
    file
}

/// Runs a pipeline of pipelines/ into a folder of its own; what it wrote.
pub fn run(name: &str, more: &[&str]) -> (BTreeMap<String, Vec<u8>>, serde_json::Value) {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let file = root().join(format!("pipelines/{name}.weir.toml"));
    let mut arguments = vec![
        "run",
        file.to_str().unwrap(),
        "--out",
        out.to_str().unwrap(),
    ];
    arguments.extend(more);
    weir(arguments).exits(0);
    (files(&out), record(&out))
}

#[test]
fn blurred_tiles_are_dropped_with_a_reason_and_the_others_stay() {
    shipped("libblur-c");
    let counted = |more: &[&str]| {
        let (files, record) = run("blur-c", more);
        let slide = &record["slides"]["slide-14082"];
        let ledger = &slide["ledgers"]["images.tiles"];
        assert_eq!(ledger["fail"], 0, "{record:#}");
        let pictures = files.keys().filter(|name| name.ends_with(".png")).count();
        assert_eq!(ledger["value"], pictures, "{ledger}");
        let blurred = ledger["skip"]["sharp: blurred"].as_u64().unwrap_or(0);
        assert_eq!(blurred + pictures as u64, slide["tiles"].as_u64().unwrap());
        // Said where people look, too.
        assert_eq!(record["counts"]["tiles_left_out"], blurred);
        blurred
    };
    // The demo's slide is sharp; at twice its least sharpness some of it goes, and at the greatest limit all.
    assert_eq!(counted(&[]), 0);
    let some = counted(&["--set", "stage.sharp.sharpness-min=3000"]);
    let all = counted(&["--set", "stage.sharp.sharpness-min=1040400"]);
    assert!(0 < some && some < all, "{some} of {all}");
}

#[test]
fn stains_are_normalised_to_the_same_pixels_in_process_and_isolated() {
    shipped("libweir_stain");
    let (here, record) = run("stain", &[]);
    assert!(here.len() > 3, "{:?}", here.keys());
    assert_eq!(record["slides"]["slide-14082"]["tiles_failed"], 0);
    let (apart, record) = run("stain", &["--set", "plugin.stain.isolate=true"]);
    assert_eq!(record["plugins"]["stain"]["isolate"], true);
    let pixels = |all: &BTreeMap<String, Vec<u8>>| -> BTreeMap<String, Vec<u8>> {
        all.iter()
            .filter(|(name, _)| name.ends_with(".png") || name.ends_with("stain.json"))
            .map(|(name, bytes)| (name.clone(), bytes.clone()))
            .collect()
    };
    assert!(pixels(&here).len() > 1);
    assert_eq!(pixels(&here), pixels(&apart));
}

/// Each pipeline's outputs, whoever has the plugin's code in its process.
#[test]
fn pipelines_of_plugins_that_ship_write_the_same_bytes_in_process_and_isolated() {
    for (pipeline, library, sets) in [
        (
            "blur-c",
            "libblur-c",
            &["stage.sharp.sharpness-min=3000"][..],
        ),
        ("features", "libweir_features", &[]),
        ("stain", "libweir_stain", &[]),
        ("openslide", "libweir_openslide", &[]),
        (
            "onnx",
            "libweir_onnx",
            &[
                "stage.score.memory=\"32MiB\"",
                "stage.encode.memory=\"32MiB\"",
            ],
        ),
    ] {
        shipped(library);
        if pipeline == "openslide" && !reads_dicom() {
            continue;
        }
        let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
        let of = |isolate: bool| {
            let isolate = format!("plugin.{pipeline}.isolate={isolate}");
            let (mut files, record) = run(pipeline, &[&sets[..], &["--set", &isolate]].concat());
            for (id, slide) in record["slides"].as_object().unwrap() {
                assert!(slide["failed"].is_null(), "{pipeline}: {id}: {slide}");
                assert_eq!(slide["tiles_failed"], 0, "{pipeline}: {id}: {slide}");
            }
            // When it was made, how long it took, and who held the folder, differ.
            files.retain(|name, _| !name.ends_with("run.json") && name != ".weir-lock");
            files
        };
        let (here, apart) = (of(false), of(true));
        let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
        assert!(!here.is_empty(), "{pipeline}");
        assert_eq!(names(&here), names(&apart), "{pipeline}");
        for (name, bytes) in &here {
            assert!(*bytes == apart[name], "{pipeline}: {name} differs");
        }
    }
}

#[test]
fn a_missing_library_is_one_message_with_what_to_do() {
    shipped("libweir_onnx");
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let file = root().join("pipelines/onnx.weir.toml");
    for isolate in ["false", "true"] {
        let mut weir = command([
            "run",
            file.to_str().unwrap(),
            "--out",
            out.to_str().unwrap(),
            "--set",
            &format!("plugin.onnx.isolate={isolate}"),
            "--set",
            "run.memory=\"16GiB\"",
        ]);
        weir.env("WEIR_ONNXRUNTIME", "/nowhere/libonnxruntime.so");
        let told = said(weir).exits(1).err;
        for part in [
            "error[E0514]: stage `score`: cannot start: plugin `onnx` ",
            "/nowhere/libonnxruntime.so",
            "onnx.weir.toml:",
            "[stage.score]",
            "help: ",
            "make setup",
        ] {
            assert!(told.contains(part), "{part} in\n{told}");
        }
    }
    // A reader's: of slides that need it, once for all of them.
    shipped("libweir_openslide");
    let file = root().join("pipelines/openslide.weir.toml");
    let slides = folder.path().join("slides");
    std::fs::create_dir(&slides).unwrap();
    let link = |name: &str, to: &str| {
        std::os::unix::fs::symlink(fixture(to), slides.join(name)).unwrap();
        format!("\"{}\"", slides.join(name).display())
    };
    let dicom = ["a.dcm", "b.dcm", "c.dcm"].map(|name| link(name, "CMU-1-Small-Region.dcm"));
    let native = link("d.tiff", "slide-14082.tiff");
    let run = |slides: &[&String], name: &str| {
        let list: Vec<&str> = slides.iter().map(|slide| slide.as_str()).collect();
        let slides = format!("slides=[{}]", list.join(","));
        let out = folder.path().join(name);
        let mut weir = command([
            "run",
            file.to_str().unwrap(),
            &slides,
            "--out",
            out.to_str().unwrap(),
        ]);
        weir.env("WEIR_OPENSLIDE", "/nowhere/libopenslide.so.1");
        said(weir)
    };
    let all: Vec<&String> = dicom.iter().chain([&native]).collect();
    let told = run(&all, "all");
    assert_ne!(told.code, Some(0), "{told:?}");
    assert_eq!(
        told.err
            .matches("the OpenSlide library is not there")
            .count(),
        1,
        "{told:?}"
    );
    assert!(
        told.err.contains(
            "tiles: slides a, b, c: openslide declined it: the OpenSlide library is not there"
        ) && told.err.contains("`make openslide`"),
        "{told:?}"
    );
    assert!(told.out.contains("d: "), "{told:?}");
    // What needs no library runs without one.
    run(&[&native], "native").exits(0);
}

#[test]
fn a_dicom_slide_is_classified_through_openslide() {
    shipped("libweir_openslide");
    if !reads_dicom() {
        return;
    }
    let (_, record) = run("openslide", &[]);
    let slide = &record["slides"]["CMU-1-Small-Region"];
    assert_eq!(slide["state"], "final", "{slide}");
    assert_eq!(slide["tiles_failed"], 0, "{slide}");
}

#[test]
fn each_plugin_that_ships_passes_plugin_check() {
    let at = |name: &str| root().join(name).display().to_string();
    let onnx = |stage: &str, what: &str| format!("onnx.{stage}.{what}");
    let scorer = at("pipelines/models/demo/a/scorer.onnx");
    let encoder = at("pipelines/models/demo/b/encoder.onnx");
    let features = at("plugins/features/tests/fixtures/trident/slide-8913.h5");
    let slide = fixture("slide-14082.tiff").display().to_string();
    // What only the user knows, and how many tests are left out for want of it or of the ability.
    for (library, given, skipped) in [
        ("libblur-c", Vec::new(), 5),
        ("libweir_stain", Vec::new(), 15),
        (
            "libweir_onnx",
            vec![
                onnx("scorer", &format!("model={scorer}")),
                onnx("scorer", "classes=2"),
                onnx("scorer", "size=50"),
                onnx("scorer", "mpp=4"),
                onnx("encoder", &format!("model={encoder}")),
                onnx("encoder", "features=128"),
                onnx("encoder", "size=50"),
                onnx("encoder", "mpp=4"),
            ],
            4,
        ),
        (
            "libweir_features",
            vec![
                format!("features.reader.slides={features}"),
                "features.reader.features=48".to_owned(),
                "features.writer.features=48".to_owned(),
            ],
            10,
        ),
        (
            "libweir_openslide",
            vec![format!("openslide.path={slide}")],
            2,
        ),
    ] {
        let file = shipped(library).display().to_string();
        // By its name as well as by its file.
        let plugin = if library == "libblur-c" {
            "blur-c"
        } else {
            &file
        };
        // A busy machine has the time that memory must stay the same over.
        let mut arguments = vec!["plugin", "check", plugin, "--seed", "1", "--timeout", "300"];
        for one in &given {
            arguments.extend(["--set", one]);
        }
        let said = weir(arguments);
        let ended = format!(" passed, 0 failed, {skipped} skipped; seed 1");
        assert!(
            said.out.contains(&ended),
            "{library}: {}{}",
            said.out,
            said.err
        );
        assert_eq!(said.code, Some(0), "{library}");
    }
}
