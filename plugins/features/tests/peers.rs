//! Files against h5py, and against TRIDENT, CLAM and STAMP.
#![allow(clippy::unwrap_used, missing_docs)]

mod rows;

use std::path::Path;
use std::process::Command;

use weir_features::file::FeatureFile;
use weir_features::layout::Layout;
use weir_features::output::{Dtype, write};

use rows::{about, bytes, floats, made_up, whole};

/// A Python that has h5py: the one that WEIR_PYTHON names, Debian's (`make packages` gives it h5py), any; `None` where
/// `WEIR_WITHOUT_H5PY=1` says that these tests need none.
fn python() -> Option<String> {
    if std::env::var_os("WEIR_WITHOUT_H5PY").is_some() {
        eprintln!("skipped: WEIR_WITHOUT_H5PY is set");
        return None;
    }
    let named = std::env::var("WEIR_PYTHON").ok();
    let known = ["/usr/bin/python3".to_owned(), "python3".to_owned()];
    let found = named.into_iter().chain(known).find(|python| {
        let tried = Command::new(python).args(["-c", "import h5py"]).output();
        tried.is_ok_and(|done| done.status.success())
    });
    assert!(
        found.is_some(),
        "no Python has h5py; `make packages` installs it, WEIR_PYTHON names another Python, WEIR_WITHOUT_H5PY=1 skips these tests"
    );
    found
}

/// What a script of tests/peers prints.
fn said(python: &str, script: &str, args: &[&str]) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers");
    let done = Command::new(python)
        .arg(folder.join(script))
        .args(args)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{script} {args:?}: {errors}");
    String::from_utf8(done.stdout).unwrap()
}

fn peers(python: &str, args: &[&str]) -> String {
    said(python, "peers.py", args)
}

/// What a peer says of a file of `count` rows of `made_up` that `about` describes.
fn says(layout: Layout, dtype: Dtype, count: usize) -> serde_json::Value {
    match layout {
        Layout::Trident => serde_json::json!({
            "patch_size": 256, "patch_size_level0": 512, "overlap": if count > 1 { 64 } else { 0 },
            "level0_width": 100_000, "level0_height": 80_000, "name": "slide-ü",
            "level0_magnification": 40.0, "target_magnification": 20.0, "encoder": "made-up",
        }),
        Layout::Clam => serde_json::json!({
            "patch_size": 512, "patch_level": 0, "custom_downsample": 1, "downsample": [1.0, 1.0],
            "level_dim": [100_000, 80_000], "name": "slide-ü",
        }),
        Layout::Stamp => serde_json::json!({
            "tile_size_um": 128.0, "tile_size_px": 256, "unit": "um", "extractor": "made-up", "feat_type": "tile",
            "dtype": if dtype == Dtype::F16 { "float16" } else { "float32" },
        }),
    }
}

/// Holds what a peer read of such a file against what was written: OUT.f32, OUT.coords, and what it says.
fn hold(layout: Layout, dtype: Dtype, count: usize, out: &Path, said: &serde_json::Value) {
    let (corners, numbers) = made_up(count, 24);
    assert_eq!(said["shape"], serde_json::json!([count, 24]));
    assert_eq!(floats(&out.with_extension("f32")), numbers);
    let scale = if layout == Layout::Stamp { 0.25 } else { 1.0 };
    let truth: Vec<f64> = corners
        .iter()
        .flat_map(|(x, y)| [*x as f64 * scale, *y as f64 * scale])
        .collect();
    assert_eq!(doubles(&out.with_extension("coords")), truth);
    for (name, value) in says(layout, dtype, count).as_object().unwrap() {
        assert_eq!(&said[name], value, "{layout} {name}");
    }
}

fn doubles(path: &Path) -> Vec<f64> {
    let bytes = std::fs::read(path).unwrap();
    let (words, rest) = bytes.as_chunks::<8>();
    assert!(rest.is_empty());
    words.iter().map(|word| f64::from_le_bytes(*word)).collect()
}

/// Each type of number and some counts of rows.
fn forms() -> impl Iterator<Item = (Dtype, usize)> {
    [Dtype::F32, Dtype::F16]
        .into_iter()
        .flat_map(|dtype| [0, 1, 2500].map(|count| (dtype, count)))
}

fn put(path: &Path, layout: Layout, dtype: Dtype, count: usize) {
    let (corners, numbers) = made_up(count, 24);
    let rows = bytes(dtype, &numbers);
    write(path, &about(layout, dtype, 24), &corners, rows).unwrap();
}

#[test]
fn h5py_and_the_peers_reading_calls_open_what_is_written() {
    let Some(python) = python() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    for layout in Layout::ALL {
        for (dtype, count) in forms() {
            let path = folder.path().join(format!("{layout}-{dtype:?}-{count}.h5"));
            put(&path, layout, dtype, count);
            let out = folder.path().join("out");
            let (path, to) = (path.to_str().unwrap(), out.to_str().unwrap());
            let said = peers(&python, &["read", layout.name(), path, to]);
            hold(
                layout,
                dtype,
                count,
                &out,
                &serde_json::from_str(&said).unwrap(),
            );
        }
    }
}

/// The programs themselves: a checkout of each, and a Python that has what they import.
fn programs() -> (String, Vec<(Layout, String)>) {
    let named = |name: &str| std::env::var(name).ok().filter(|path| !path.is_empty());
    let python = named("WEIR_FEATURE_PEERS").expect("WEIR_FEATURE_PEERS names a Python");
    let checkouts = [
        (Layout::Trident, "WEIR_TRIDENT"),
        (Layout::Clam, "WEIR_CLAM"),
        (Layout::Stamp, "WEIR_STAMP"),
    ];
    let there = checkouts
        .into_iter()
        .filter_map(|(layout, name)| Some((layout, named(name)?)))
        .collect();
    (python, there)
}

fn original(python: &str, args: &[&str]) -> serde_json::Value {
    serde_json::from_str(&said(python, "originals.py", args)).unwrap()
}

#[test]
#[ignore = "needs checkouts of the three programs: make feature-peers"]
fn the_programs_themselves_read_what_is_written() {
    let (python, programs) = programs();
    for (layout, checkout) in programs {
        let root = tempfile::tempdir().unwrap();
        let folder = match layout {
            Layout::Clam => root.path().join("h5_files"),
            Layout::Trident | Layout::Stamp => root.path().to_owned(),
        };
        let name = |(dtype, count)| format!("{dtype:?}-{count}");
        for (dtype, count) in forms() {
            let path = folder.join(name((dtype, count))).with_extension("h5");
            put(&path, layout, dtype, count);
        }
        let root = root.path().to_str().unwrap();
        let said = original(&python, &["read", layout.name(), &checkout, root]);
        for (dtype, count) in forms() {
            let name = name((dtype, count));
            hold(layout, dtype, count, &folder.join(&name), &said[&name]);
        }
        println!("{layout}: {}", said["F32-2500"]);
    }
}

#[test]
#[ignore = "needs checkouts of the three programs: make feature-peers"]
fn what_the_programs_themselves_write_is_read() {
    let (python, programs) = programs();
    let slide =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/CMU-1-Small-Region.svs");
    for (layout, checkout) in programs {
        let root = tempfile::tempdir().unwrap();
        let args = [slide.to_str().unwrap(), root.path().to_str().unwrap()];
        let said = original(
            &python,
            &["make", layout.name(), &checkout, args[0], args[1]],
        );
        let path = root.path().join("CMU-1-Small-Region.h5");
        let file = FeatureFile::open(&path, None).unwrap();
        assert_eq!(said["shape"], serde_json::json!([file.rows, file.width]));
        assert_eq!(whole(&file), floats(&path.with_extension("f32")));
        let mpp = 0.499;
        let read = file.corners(Some(mpp), None).unwrap();
        let truth = doubles(&path.with_extension("coords"));
        let scale = if layout == Layout::Stamp { mpp } else { 1.0 };
        for (corner, place) in read.at.iter().zip(truth.as_chunks::<2>().0) {
            let away = |px: i64, place: f64| (px as f64 - place / scale).abs();
            assert!(away(corner.0, place[0]) <= 0.5 && away(corner.1, place[1]) <= 0.5);
        }
        let side = match layout {
            Layout::Trident | Layout::Clam => 256.0,
            Layout::Stamp => 128.0 / mpp,
        };
        assert_eq!(read.side, side);
        println!("{layout}: {} rows of {}", file.rows, file.width);
    }
}

#[test]
fn what_h5py_writes_in_many_ways_is_read_as_the_same_numbers() {
    let Some(python) = python() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    peers(&python, &["make", folder.path().to_str().unwrap()]);
    let mut seen = 0;
    for path in std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
    {
        if path.extension().is_none_or(|end| end != "h5") {
            continue;
        }
        let file = FeatureFile::open(&path, None)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(
            whole(&file),
            floats(&path.with_extension("f32")),
            "{}",
            path.display()
        );
        let corners = file.corners(None, None).unwrap();
        assert_eq!(corners.side, 256.0);
        let at = |i: usize| ((i % 40 * 256) as i64, (i / 40 * 256) as i64);
        assert_eq!(corners.at, (0..file.rows).map(at).collect::<Vec<_>>());
        seen += 1;
    }
    assert_eq!(seen, 33);
}
