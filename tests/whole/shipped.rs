//! The pipelines of the plugins that ship run as they are, with the plugins that `make plugins` puts beside the program.

use crate::openslide::reads_dicom;
use crate::program::{command, files, fixture, record, root, said, weir};
use half::f16;
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

#[test]
fn feature_files_of_one_layout_become_those_of_another() {
    shipped("libweir_features");
    let (written, _) = run("features", &[]);
    let made: Vec<&String> = written
        .keys()
        .filter(|name| name.ends_with(".h5"))
        .collect();
    assert_eq!(made, ["features/slide-8913.h5"]);
    let rows = stamp(&written["features/slide-8913.h5"]);
    // What h5py reads in the source's file, by place; STAMP's are f16, and its places um.
    let fixture = |name: &str| {
        let file = format!("plugins/features/tests/fixtures/{name}");
        std::fs::read(root().join(file)).unwrap()
    };
    let (numbers, places) = (fixture("h5py.f32"), fixture("h5py.i64"));
    let numbers = numbers.as_chunks::<4>().0.iter();
    let numbers: Vec<f32> = numbers.map(|word| f32::from_le_bytes(*word)).collect();
    let places = places.as_chunks::<8>().0.iter();
    let places: Vec<i64> = places.map(|word| i64::from_le_bytes(*word)).collect();
    let mut truth: Vec<Row> = places
        .as_chunks::<2>()
        .0
        .iter()
        .zip(numbers.chunks(48))
        .map(|([x, y], row)| {
            let row = row.iter().map(|number| f16::from_f32(*number)).collect();
            ([*x as f32 * 4.0, *y as f32 * 4.0], row)
        })
        .collect();
    truth.sort_by(|([ax, ay], _), ([bx, by], _)| ay.total_cmp(by).then(ax.total_cmp(bx)));
    assert_eq!(truth.len(), 291);
    assert!(rows == truth, "the rows are not the source's");
}

/// Place, um, and numbers.
type Row = ([f32; 2], Vec<f16>);

/// The rows of a file that is in STAMP's layout.
fn stamp(bytes: &[u8]) -> Vec<Row> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("it.h5");
    std::fs::write(&path, bytes).unwrap();
    let file = hdf5_pure::File::open(&path).unwrap();
    let mut names = file.root().datasets().unwrap();
    names.sort();
    assert_eq!(names, ["coords", "feats"]);
    let said = file.root().attrs().unwrap();
    for name in [
        "stamp_version",
        "extractor",
        "unit",
        "tile_size_um",
        "tile_size_px",
    ] {
        assert!(said.contains_key(name), "{name} of {said:?}");
    }
    let (feats, coords) = (
        file.dataset("feats").unwrap(),
        file.dataset("coords").unwrap(),
    );
    let shape = feats.shape().unwrap();
    assert_eq!(coords.shape().unwrap(), [shape[0], 2]);
    let raw = feats.read_raw().unwrap();
    assert_eq!(raw.len() as u64, shape[0] * shape[1] * 2, "f16");
    let words = raw.as_chunks::<2>().0.iter();
    let numbers: Vec<f16> = words.map(|word| f16::from_le_bytes(*word)).collect();
    let places = coords.read_f32().unwrap();
    let rows = numbers.chunks(shape[1] as usize);
    let places = places.as_chunks::<2>().0.iter().copied();
    places.zip(rows.map(<[f16]>::to_vec)).collect()
}

/// CLAM's files say no mpp, and STAMP's need it.
#[test]
fn the_runs_default_mpp_is_a_plugins_slides_too() {
    shipped("libweir_features");
    let clam = root().join("plugins/features/tests/fixtures/clam");
    let slides = format!("slides={}", clam.display());
    let folder = tempfile::tempdir().unwrap();
    let file = root().join("pipelines/features.weir.toml");
    let out = folder.path().join("out");
    // What an earlier run left of a slide that fails now goes.
    let earlier = out.join("features/slide-8913.h5");
    std::fs::create_dir_all(out.join("features")).unwrap();
    std::fs::write(&earlier, "of an earlier run").unwrap();
    let other = out.join("features/other.h5");
    std::fs::write(&other, "of another slide").unwrap();
    let arguments = [
        "run",
        file.to_str().unwrap(),
        &slides,
        "--out",
        out.to_str().unwrap(),
    ];
    let said = weir(arguments);
    assert_ne!(said.code, Some(0), "{said:?}");
    assert!(
        said.err.contains("nobody says the slide's mpp") && said.err.contains("run.default-mpp"),
        "{said:?}"
    );
    assert!(!earlier.exists());
    assert!(other.exists());
    for more in [
        "plugin.features.isolate=false",
        "plugin.features.isolate=true",
    ] {
        let more = ["--set", "run.default-mpp=4", "--set", more];
        let (written, record) = run("features", &[&[slides.as_str()], &more[..]].concat());
        let slide = &record["slides"]["slide-8913"];
        assert_eq!(slide["mpp"], 4.0, "{slide}");
        assert_eq!(stamp(&written["features/slide-8913.h5"]).len(), 291);
    }
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
        weir([&["run"], &arguments[..]].concat()).exits(2).err
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
        let mut arguments = vec!["plugin", "check", plugin, "--seed", "1"];
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
