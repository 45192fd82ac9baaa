//! The pipelines of the plugins that ship run as they are, with the plugins that `make plugins` puts beside the program.

use crate::openslide::reads_dicom;
use crate::program::{files, fixture, record, root, weir};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The plugin's file beside the program.
fn shipped(name: &str) -> PathBuf {
    let file = Path::new(env!("CARGO_BIN_EXE_weir")).with_file_name(format!("plugins/{name}.so"));
    assert!(
        file.is_file(),
        "{} is missing: `make test` builds it, and `make plugins` alone",
        file.display()
    );
    file
}

/// Runs a pipeline of pipelines/ into a folder of its own; what it wrote.
fn run(name: &str, more: &[&str]) -> (BTreeMap<String, Vec<u8>>, serde_json::Value) {
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

fn probability(record: &serde_json::Value, slide: &str) -> f64 {
    record["slides"][slide]["probabilities"][1]
        .as_f64()
        .unwrap()
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

#[test]
fn feature_files_of_one_layout_become_those_of_another() {
    shipped("libweir_features");
    let (written, _) = run("features", &[]);
    let made: Vec<&String> = written
        .keys()
        .filter(|name| name.ends_with(".h5"))
        .collect();
    assert_eq!(made, ["features/slide-8913.h5"]);
}

/// weir finds the files for the plugin: a folder is searched for the plugin's endings, a manifest says who they are.
#[test]
fn what_a_manifest_says_of_slides_reaches_a_plugins_source() {
    shipped("libweir_features");
    let folder = tempfile::tempdir().unwrap();
    let fixtures = root().join("plugins/features/tests/fixtures");
    let list = folder.path().join("list.csv");
    let file = fixtures.join("stamp/slide-8913.h5");
    let line = format!(
        "slide,path,label,patient,mpp\nfirst,{},tumour,p1,0.5\n",
        file.display()
    );
    std::fs::write(&list, line).unwrap();
    let (written, record) = run("features", &[&format!("slides={}", list.display())]);
    assert!(
        written.contains_key("features/first.h5"),
        "{:?}",
        written.keys()
    );
    let slide = &record["slides"]["first"];
    assert_eq!(
        (&slide["label"], &slide["patient"]),
        (&"tumour".into(), &"p1".into()),
        "{slide}"
    );
    // The same in a process of its own.
    let apart = format!("slides={}", list.display());
    let (_, apart) = run(
        "features",
        &[&apart, "--set", "plugin.features.isolate=true"],
    );
    assert_eq!(apart["slides"]["first"]["label"], "tumour");

    let (written, _) = run(
        "features",
        &[&format!("slides={}", fixtures.join("trident").display())],
    );
    assert!(
        written.contains_key("features/slide-8913.h5"),
        "{:?}",
        written.keys()
    );

    let refused = |slides: &str| {
        let file = root().join("pipelines/features.weir.toml");
        let out = folder.path().join("none");
        let slides = format!("slides={slides}");
        let arguments = [
            file.to_str().unwrap(),
            &slides,
            "--out",
            out.to_str().unwrap(),
        ];
        weir([&["run"], &arguments[..]].concat()).exits(1).err
    };
    let pattern = format!("{}/trident/*.npy", fixtures.display());
    let said = refused(&pattern);
    assert!(
        said.contains("matches no file") && said.contains("`slides`"),
        "{said}"
    );
    let both = format!("[\"{0}/trident\", \"{0}/stamp\"]", fixtures.display());
    let said = refused(&both);
    assert!(
        said.contains("two slides have the id `slide-8913`"),
        "{said}"
    );
}

#[test]
fn another_model_file_under_the_same_name_is_computed_again() {
    shipped("libweir_onnx");
    let folder = tempfile::tempdir().unwrap();
    let (model, out) = (folder.path().join("it.onnx"), folder.path().join("out"));
    let file = root().join("pipelines/onnx.weir.toml");
    let set = format!("stage.score.model={model:?}");
    let arguments = [
        "run",
        file.to_str().unwrap(),
        "--out",
        out.to_str().unwrap(),
        "--set",
        &set,
    ];
    let mut bytes = std::fs::read(root().join("pipelines/models/demo/a/scorer.onnx")).unwrap();
    std::fs::write(&model, &bytes).unwrap();
    weir(arguments).exits(0);
    assert_eq!(record(&out)["counts"]["skipped"], 0);
    weir(arguments).exits(0);
    assert_eq!(record(&out)["counts"]["skipped"], 1);
    // Field 6 of a model is a text about it: the network is the same, the file is not.
    bytes.extend([0x32, 1, b'x']);
    std::fs::write(&model, &bytes).unwrap();
    weir(arguments).exits(0);
    assert_eq!(record(&out)["counts"]["skipped"], 0);

    // A folder is all that is in it, as an ONNX file with weights of its own beside it.
    let (whole, out) = (
        folder.path().join("model"),
        folder.path().join("out of a folder"),
    );
    std::fs::create_dir(&whole).unwrap();
    std::fs::rename(&model, whole.join("it.onnx")).unwrap();
    std::fs::write(whole.join("it.data"), "1").unwrap();
    let set = format!("stage.score.model={whole:?}");
    let arguments = [
        "run",
        file.to_str().unwrap(),
        "--out",
        out.to_str().unwrap(),
        "--set",
        &set,
    ];
    weir(arguments).exits(0);
    weir(arguments).exits(0);
    assert_eq!(record(&out)["counts"]["skipped"], 1);
    std::fs::write(whole.join("it.data"), "2").unwrap();
    weir(arguments).exits(0);
    assert_eq!(record(&out)["counts"]["skipped"], 0);
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
        ("libblur-c", Vec::new(), 4),
        ("libweir_stain", Vec::new(), 12),
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
            8,
        ),
        (
            "libweir_openslide",
            vec![format!("openslide.path={slide}")],
            2,
        ),
    ] {
        let file = shipped(library).display().to_string();
        let mut arguments = vec!["plugin", "check", &file, "--seed", "1"];
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
