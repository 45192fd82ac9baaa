//! Stored features: from files through the pool to predictions, and what damage, order, workers and kernels do to them.

use crate::program::features::{Dtype, npy, safetensors};
use crate::program::{answers, fixture, models, record, root, slide, weir};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// As the small models have.
pub(crate) const FEATURE: usize = 32;

/// Rows of a slide: numbers and corners, the same at each call.
pub(crate) fn rows(count: usize, seed: u64) -> (Vec<Vec<f32>>, Vec<(i64, i64)>) {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        // Exact in f16 and bf16.
        (state >> 57) as f32 / 64.0 - 1.0
    };
    let numbers = (0..count).map(|_| (0..FEATURE).map(|_| next()).collect());
    let corners = (0..count as i64).map(|k| (k % 50 * 256, k / 50 * 256));
    (numbers.collect(), corners.collect())
}

/// A pipeline over the feature files `slides` of `folder`, with more lines for the pool and the run.
pub(crate) fn pipeline(folder: &Path, slides: &[&str], pool: &str, run: &str) -> String {
    models::write(&folder.join("models"), 64, 1.0);
    let slides: Vec<String> = slides.iter().map(|slide| format!("{slide:?}")).collect();
    let text = format!(
        r#"weir = 1

[run]
out = "out"
{run}

[model.b]
path = "models/b"

[stage.features]
use = "embedding-reader"
slides = [{slides}]
feature = {FEATURE}

[stage.pool]
use = "attention-pool"
in = "features"
model = "b"
{pool}

[stage.classify]
use = "classifier"
in = "pool.bag"
model = "b"

[stage.predictions]
use = "predictions-sink"
in = {{ predictions = "classify" }}

[stage.table]
use = "tiles-sink"
in = {{ attention = "pool.attention" }}
"#,
        slides = slides.join(", ")
    );
    let file = folder.join("test.weir.toml");
    std::fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

/// Runs; what was written of the slides' answers.
pub(crate) fn run(file: &str, out: &Path, more: &[&str]) -> BTreeMap<String, String> {
    let mut arguments = vec!["run", file, "--out", out.to_str().unwrap()];
    arguments.extend(more);
    weir(arguments).exits(0);
    answers(out)
}

pub(crate) fn prediction(out: &Path, slide: &str) -> Value {
    let file = out.join(slide).join("prediction.json");
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

/// Numbers of a prediction, as they are written: two that differ in a bit have other texts.
pub(crate) fn logits(out: &Path, slide: &str) -> String {
    let prediction = prediction(out, slide);
    let logits = prediction
        .pointer("/prediction/logits")
        .or(prediction.get("logits"));
    logits.unwrap().to_string()
}

const COUNTS: [(&str, usize); 5] = [
    ("large", 3001),
    ("middle", 130),
    ("one", 1),
    ("none", 0),
    ("small", 17),
];

fn write_all(folder: &Path) {
    for (seed, (name, count)) in COUNTS.iter().enumerate() {
        let (numbers, corners) = rows(*count, seed as u64 + 1);
        let path = folder.join(format!("{name}.safetensors"));
        // A file without rows has the width all the same.
        if numbers.is_empty() {
            let header = format!(
                "{{\"features\":{{\"dtype\":\"F32\",\"shape\":[0,{FEATURE}],\"data_offsets\":[0,0]}}}}"
            );
            let mut file = (header.len() as u64).to_le_bytes().to_vec();
            file.extend(header.as_bytes());
            std::fs::write(&path, file).unwrap();
        } else {
            safetensors(&path, "features", Dtype::F32, &numbers, Some(&corners), &[]).unwrap();
        }
    }
}

#[test]
fn stored_features_give_the_same_tables_for_any_workers_processes_path_and_kernels() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    write_all(path);
    let file = pipeline(path, &["*.safetensors"], "", "");
    let truth = run(&file, &path.join("w1"), &["-w", "1"]);
    let table = &truth["predictions.csv"];
    assert_eq!(table.lines().count(), 1 + COUNTS.len(), "{table}");
    let tiles = truth["large/tiles.csv"].lines().count();
    assert_eq!(tiles, 1 + 3001);
    for (name, more) in [
        ("w4", &["-w", "4", "--set", "run.helpers=3"][..]),
        ("p2", &["--processes", "2"]),
        // Every bag member by member, and every bag from its matrix, several a launch.
        ("loops", &["--set", "stage.pool.whole-slide-from=1000000"]),
        ("whole", &["--set", "stage.pool.whole-slide-from=1"]),
    ] {
        assert_eq!(run(&file, &path.join(name), more), truth, "{name}");
    }
    let one = path.join("shard-1");
    let two = path.join("shard-2");
    for (out, shard) in [(&one, "1/2"), (&two, "2/2")] {
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
    for (name, _) in COUNTS {
        let name = format!("{name}/tiles.csv");
        let found = answers(&one).remove(&name).or(answers(&two).remove(&name));
        assert_eq!(found.as_ref(), truth.get(&name), "{name}");
    }
    let record = record(&path.join("w1"));
    let executor = &record["executors"]["pool"];
    assert!(executor.to_string().contains("ordered-f32/1"), "{record:#}");
}

#[test]
fn every_form_of_file_and_order_of_rows_gives_the_same_prediction() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let (numbers, corners) = rows(300, 9);
    let mut shuffled: Vec<usize> = (0..300).collect();
    shuffled.sort_by_key(|k| (k * 7919) % 300);
    let (mixed, places): (Vec<_>, Vec<_>) = shuffled
        .iter()
        .map(|k| (numbers[*k].clone(), corners[*k]))
        .unzip();
    let at = |name: &str| path.join(name);
    safetensors(
        &at("f32.safetensors"),
        "features",
        Dtype::F32,
        &numbers,
        Some(&corners),
        &[],
    )
    .unwrap();
    safetensors(
        &at("f16.safetensors"),
        "feats",
        Dtype::F16,
        &mixed,
        Some(&places),
        &[],
    )
    .unwrap();
    let words = [("tile_size", "256"), ("mpp", "0.5")];
    safetensors(
        &at("bf16.safetensors"),
        "embeddings",
        Dtype::Bf16,
        &numbers,
        Some(&corners),
        &words,
    )
    .unwrap();
    npy(&at("npy32.npy"), Dtype::F32, &mixed, Some(&places)).unwrap();
    npy(&at("npy16.npy"), Dtype::F16, &numbers, Some(&corners)).unwrap();
    let file = pipeline(path, &["*.safetensors", "*.npy"], "", "");
    let out = path.join("out");
    run(&file, &out, &[]);
    let truth = logits(&out, "f32");
    for name in ["f16", "bf16", "npy32", "npy16"] {
        assert_eq!(logits(&out, name), truth, "{name}");
    }
    let info = prediction(&out, "bf16");
    assert!(info.to_string().contains("0.5"), "{info:#}");
}

#[test]
fn the_encoder_s_features_from_a_file_say_what_they_said_in_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    slide(&path.join("s.tiff"), 6, 5, 3);
    let whole = models::Pipeline {
        slides: &["s.tiff"],
        size: 64,
        mpp: 1.0,
        run: "executor = \"burn\"",
        reader: "tissue = \"none\"",
    };
    let file = whole.write(path);
    let direct = path.join("direct");
    run(file.to_str().unwrap(), &direct, &[]);
    // The same tiles through the same encoder, by hand.
    let header = weir_pipeline::ModelHeader::load(&path.join("models/b")).unwrap();
    let choice = weir_model::Choice {
        executor: weir_model::Which::Burn,
        ..Default::default()
    };
    let encoder = weir_model::Encoder::load(&header, &choice).unwrap();
    let reader = weir_slide::open(&path.join("s.tiff"), &Default::default()).unwrap();
    let tiling =
        weir_slide::Tiling::new(reader.facts(), 64, 1.0, 0, weir_slide::Edge::Pad).unwrap();
    let (mut numbers, mut corners) = (Vec::new(), Vec::new());
    for tile in tiling.tiles() {
        let mut pixels = vec![0; 64 * 64 * 3];
        reader
            .read(tiling.region(tile), 0, 64, 64, &mut pixels)
            .unwrap();
        numbers.extend(encoder.encode(&[&pixels]).unwrap());
        corners.push((tile.x(), tile.y()));
    }
    safetensors(
        &path.join("s.safetensors"),
        "features",
        Dtype::F32,
        &numbers,
        Some(&corners),
        &[],
    )
    .unwrap();
    let file = pipeline(path, &["s.safetensors"], "", "");
    let stored = path.join("stored");
    run(&file, &stored, &[]);
    // 30 tiles, of which the direct run selects all.
    assert_eq!(logits(&stored, "s"), logits(&direct, "s"));
}

#[test]
fn a_damaged_file_fails_its_slide_with_its_place_and_the_others_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    write_all(path);
    let large = std::fs::read(path.join("large.safetensors")).unwrap();
    std::fs::write(path.join("cut.safetensors"), &large[..100_000]).unwrap();
    std::fs::write(path.join("text.npy"), "no numbers at all, and no header").unwrap();
    let (mut numbers, corners) = rows(200, 4);
    numbers[7][3] = f32::NAN;
    npy(
        &path.join("holed.npy"),
        Dtype::F32,
        &numbers,
        Some(&corners),
    )
    .unwrap();
    let wide: Vec<Vec<f32>> = vec![vec![1.0; FEATURE + 1]; 3];
    npy(&path.join("wide.npy"), Dtype::F32, &wide, None).unwrap();
    let out = path.join("out");
    let file = pipeline(path, &["*.safetensors", "*.npy"], "", "");
    let said = weir(["run", &file, "--out", out.to_str().unwrap()]).exits(3);
    let told = format!("{}{}", said.out, said.err);
    for part in [
        "cut.safetensors, byte 100000: the file ends here",
        "text.npy: this is no npy file",
        "its features have 33 numbers, and the stage says feature = 32",
        "number 3 of row 7 is NaN",
    ] {
        assert!(told.contains(part), "{part}\n{told}");
    }
    let record = record(&out);
    let state = |slide: &str| record["slides"][slide]["state"].to_string();
    for (name, wanted) in [
        ("cut", "failed"),
        ("text", "failed"),
        ("wide", "failed"),
        ("holed", "final"),
        ("large", "final"),
        ("none", "no-tissue"),
    ] {
        assert!(state(name).contains(wanted), "{name}: {}", state(name));
    }
    // One of 200 rows: fewer than max-failed.
    let table = std::fs::read_to_string(out.join("holed/tiles.csv")).unwrap();
    assert_eq!(table.lines().count(), 1 + 199);
}

#[test]
fn hdf5_names_the_plugin_that_reads_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    std::fs::write(path.join("s.h5"), b"\x89HDF\r\n\x1a\n").unwrap();
    let file = pipeline(path, &["s.h5"], "", "");
    let said = weir(["run", &file, "--out", path.join("out").to_str().unwrap()]).exits(3);
    let told = format!("{}{}", said.out, said.err);
    assert!(told.contains("plugin `features`"), "{told}");
}

#[test]
fn the_fused_head_names_its_contract_and_agrees_with_the_portable_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    write_all(path);
    let portable = pipeline(path, &["*.safetensors"], "", "");
    run(&portable, &path.join("portable"), &[]);
    let fused = pipeline(path, &["*.safetensors"], "head = \"fused\"", "");
    run(&fused, &path.join("fused"), &[]);
    run(&fused, &path.join("again"), &["-w", "4"]);
    // What its bits hang on is part of what says whether a slide is done.
    let record = record(&path.join("fused"));
    let key = record["executors"]["pool"]["executor"].as_str().unwrap();
    let kinds = [
        "kernels fused/1 x86-64 avx2+fma",
        "kernels fused/1 portable",
    ];
    assert!(kinds.contains(&key), "{key}");
    let numbers = |out: &str, slide: &str| -> Vec<f64> {
        serde_json::from_str(&logits(&path.join(out), slide)).unwrap()
    };
    for (name, count) in COUNTS {
        assert_eq!(
            logits(&path.join("fused"), name),
            logits(&path.join("again"), name),
            "{name}"
        );
        let text = prediction(&path.join("fused"), name).to_string();
        assert!(text.contains("fused/1") && text.contains(key), "{text}");
        for (a, b) in numbers("fused", name).iter().zip(numbers("portable", name)) {
            assert!((a - b).abs() < 1e-4, "{name}: {a} {b}");
        }
        assert_eq!(numbers("fused", name).len(), if count == 0 { 0 } else { 2 });
    }
}

#[test]
fn memory_stays_within_the_budget_however_large_the_files_are() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    for seed in 0..6u64 {
        let (numbers, corners) = rows(4000, seed + 1);
        let file = path.join(format!("s{seed}.safetensors"));
        safetensors(&file, "features", Dtype::F32, &numbers, Some(&corners), &[]).unwrap();
    }
    let file = pipeline(path, &["*.safetensors"], "", "memory = \"8MiB\"");
    let out = path.join("out");
    run(&file, &out, &[]);
    let record = record(&out);
    let peak = record
        .pointer("/memory/budget_peak")
        .and_then(Value::as_u64);
    let peak = peak.unwrap();
    assert!(0 < peak && peak <= 8 << 20, "{peak}");
    assert!(logits(&out, "s5").contains(','));
}

#[test]
fn whole_slides_of_twenty_thousand_vectors_of_1024_numbers_have_the_bits_of_pooling_tile_by_tile() {
    const WIDE: usize = 1024;
    const ROWS: usize = 20_000;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let file = pipeline(path, &["*.npy"], "", "memory = \"512MiB\"");
    let text = std::fs::read_to_string(&file).unwrap();
    let text = text.replace(
        &format!("feature = {FEATURE}"),
        &format!("feature = {WIDE}"),
    );
    std::fs::write(&file, text).unwrap();
    models::write_wide(&path.join("models"), 64, 1.0, WIDE as u32);
    // A row is one of the narrow ones over and over, so that the files are made in no time.
    for (seed, name) in [(1, "s"), (2, "t")] {
        let (narrow, _) = rows(ROWS, seed);
        let wide: Vec<Vec<f32>> = narrow
            .iter()
            .map(|row| row.repeat(WIDE / FEATURE))
            .collect();
        npy(&path.join(format!("{name}.npy")), Dtype::F16, &wide, None).unwrap();
    }
    let out = path.join("out");
    run(&file, &out, &[]);
    for slide in ["s", "t"] {
        let said = prediction(&out, slide);
        assert_eq!(said["bag"]["members"], ROWS, "{said}");
        assert_eq!(said["state"], "final", "{said}");
    }
    assert_ne!(logits(&out, "s"), logits(&out, "t"));
    // One worker's answer is that of two, and the one-pass kernel's that of the plain loop over members.
    let alone = path.join("alone");
    run(&file, &alone, &["--workers", "1"]);
    let members = path.join("members");
    let more = ROWS + 1;
    let never = format!("stage.pool.whole-slide-from={more}");
    run(&file, &members, &["--set", &never]);
    for slide in ["s", "t"] {
        assert_eq!(logits(&out, slide), logits(&alone, slide));
        assert_eq!(logits(&out, slide), logits(&members, slide));
    }
}

#[test]
fn the_example_pipeline_runs_and_its_test_holds() {
    let folder = tempfile::tempdir().unwrap();
    let file = root().join("pipelines/embeddings.weir.toml");
    let file = file.to_str().unwrap();
    let out = folder.path().join("out");
    let said = weir(["run", file, "--out", out.to_str().unwrap()]).exits(0);
    assert!(said.out.contains("slide-14082: tumour ("), "{}", said.out);
    weir(["test", file]).exits(0);
    weir(["validate", "--deny-warnings", file]).exits(0);
}

/// Writes the fixture anew from what the demo selects: cargo test --test whole -- --ignored fixture_of_the_demo
#[test]
#[ignore = "writes tests/fixtures/features"]
fn fixture_of_the_demo_s_own_features() {
    let folder = tempfile::tempdir().unwrap();
    let demo = root().join("pipelines/demo.weir.toml");
    let out = folder.path().join("out");
    weir([
        "run",
        demo.to_str().unwrap(),
        "--out",
        out.to_str().unwrap(),
        "--executor",
        "burn",
    ])
    .exits(0);
    let table = std::fs::read_to_string(out.join("slide-14082/tiles.csv")).unwrap();
    let mut lines = table.lines();
    let columns: Vec<&str> = lines.next().unwrap().split(',').collect();
    let of = |name: &str| columns.iter().position(|column| *column == name).unwrap();
    let (x, y, weight) = (of("x"), of("y"), of("weight"));
    let header = weir_pipeline::ModelHeader::load(&root().join("pipelines/models/demo/b")).unwrap();
    let choice = weir_model::Choice {
        executor: weir_model::Which::Burn,
        ..Default::default()
    };
    let encoder = weir_model::Encoder::load(&header, &choice).unwrap();
    let reader = weir_slide::open(&fixture("slide-14082.tiff"), &Default::default()).unwrap();
    let tiling =
        weir_slide::Tiling::new(reader.facts(), 50, 4.0, 0, weir_slide::Edge::Pad).unwrap();
    let (mut numbers, mut corners) = (Vec::new(), Vec::new());
    for line in lines {
        let cells: Vec<&str> = line.split(',').collect();
        if cells[weight].is_empty() {
            continue;
        }
        let (x, y) = (cells[x].parse().unwrap(), cells[y].parse().unwrap());
        let tile = weir_record::TileId::new(0, 0, x, y).unwrap();
        let mut pixels = vec![0; 50 * 50 * 3];
        reader
            .read(tiling.region(tile), 0, 50, 50, &mut pixels)
            .unwrap();
        numbers.extend(encoder.encode(&[&pixels]).unwrap());
        corners.push((x, y));
    }
    let to = fixture("features");
    std::fs::create_dir_all(&to).unwrap();
    let words = [("tile_size", "50"), ("mpp", "4")];
    safetensors(
        &to.join("slide-14082.safetensors"),
        "features",
        Dtype::F32,
        &numbers,
        Some(&corners),
        &words,
    )
    .unwrap();
}
