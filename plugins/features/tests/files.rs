//! Files: against h5py and the peers' own reading calls, round trips, damage.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use proptest::prelude::*;
use weir_features::file::FeatureFile;
use weir_features::layout::Layout;
use weir_features::output::{About, Dtype, write};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

fn floats(path: &Path) -> Vec<f32> {
    let bytes = std::fs::read(path).unwrap();
    let (words, rest) = bytes.as_chunks::<4>();
    assert!(rest.is_empty());
    words.iter().map(|word| f32::from_le_bytes(*word)).collect()
}

fn whole(file: &FeatureFile) -> Vec<f32> {
    let mut all = vec![0.0; file.rows * file.width];
    for (row, into) in all.chunks_exact_mut(file.width).enumerate() {
        file.row(row, into).unwrap();
    }
    all
}

#[test]
fn each_layout_is_seen_and_read_as_the_very_numbers_that_h5py_reads() {
    let words = std::fs::read(fixture("h5py.i64")).unwrap();
    let flat: Vec<i64> = words
        .as_chunks::<8>()
        .0
        .iter()
        .map(|w| i64::from_le_bytes(*w))
        .collect();
    let corners: Vec<(i64, i64)> = flat
        .as_chunks::<2>()
        .0
        .iter()
        .map(|[x, y]| (*x, *y))
        .collect();
    for (layout, numbers) in [
        (Layout::Trident, "h5py.f32"),
        (Layout::Clam, "h5py.f32"),
        (Layout::Stamp, "h5py.f16.f32"),
    ] {
        let path = fixture(&format!("{layout}/slide-8913.h5"));
        let file = FeatureFile::open(&path, None).unwrap();
        assert_eq!((file.layout, file.rows, file.width), (layout, 291, 48));
        assert_eq!(whole(&file), floats(&fixture(numbers)));
        let read = file.corners(Some(4.0), None).unwrap();
        assert_eq!(read.at, corners);
        assert_eq!(read.side, 50.0);
        let mpp = match layout {
            Layout::Trident => file.said.mpp,
            Layout::Clam => Some(4.0),
            Layout::Stamp => file.tile_mpp(),
        };
        assert_eq!(mpp, Some(4.0));
    }
    let error = FeatureFile::open(&fixture("clam/slide-8913.h5"), Some(Layout::Stamp))
        .err()
        .unwrap();
    assert!(
        error.message().contains("has its features in `feats`"),
        "{error}"
    );
}

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

fn peers(python: &str, args: &[&str]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/peers.py");
    let done = Command::new(python)
        .arg(script)
        .args(args)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{args:?}: {said}");
    String::from_utf8(done.stdout).unwrap()
}

fn about(layout: Layout, dtype: Dtype, width: usize) -> About {
    About {
        layout,
        dtype,
        width,
        name: "slide-ü".into(),
        encoder: "made-up".into(),
        folder: "features".into(),
        size: (100_000, 80_000),
        mpp: Some(0.25),
        footprint: 512.0,
        tile_px: 256,
    }
}

/// Rows of numbers that f16 holds, and corners 384 px apart, so that tiles of 512 px overlap by 128: 64 of their own px.
fn made_up(count: usize, width: usize) -> (Vec<(i64, i64)>, Vec<f32>) {
    let corners = (0..count as i64)
        .map(|i| (i % 37 * 384, i / 37 * 384))
        .collect();
    let numbers = (0..count * width)
        .map(|i| (i * 7919 % 4001) as f32 / 8.0 - 250.0)
        .collect();
    (corners, numbers)
}

fn bytes(dtype: Dtype, numbers: &[f32]) -> Vec<u8> {
    let mut bytes = Vec::new();
    dtype.append(numbers, &mut bytes).unwrap();
    bytes
}

#[test]
fn h5py_and_the_peers_reading_calls_open_what_is_written() {
    let Some(python) = python() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    for layout in Layout::ALL {
        for dtype in [Dtype::F32, Dtype::F16] {
            for count in [0, 1, 2500] {
                let (corners, numbers) = made_up(count, 24);
                let path = folder.path().join(format!("{layout}-{dtype:?}-{count}.h5"));
                write(
                    &path,
                    &about(layout, dtype, 24),
                    &corners,
                    bytes(dtype, &numbers),
                )
                .unwrap();
                let out = folder.path().join("out");
                let (path, out) = (path.to_str().unwrap(), out.to_str().unwrap());
                let said = peers(&python, &["read", layout.name(), path, out]);
                let said: serde_json::Value = serde_json::from_str(&said).unwrap();
                assert_eq!(said["shape"], serde_json::json!([count, 24]));
                assert_eq!(floats(Path::new(&format!("{out}.f32"))), numbers);
                let places = std::fs::read(format!("{out}.coords")).unwrap();
                let scale = if layout == Layout::Stamp { 0.25 } else { 1.0 };
                let truth: Vec<f64> = corners
                    .iter()
                    .flat_map(|(x, y)| [*x as f64 * scale, *y as f64 * scale])
                    .collect();
                let read: Vec<f64> = places
                    .as_chunks::<8>()
                    .0
                    .iter()
                    .map(|w| f64::from_le_bytes(*w))
                    .collect();
                assert_eq!(read, truth);
                let expected = match layout {
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
                };
                for (name, value) in expected.as_object().unwrap() {
                    assert_eq!(&said[name], value, "{layout} {name}");
                }
            }
        }
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read_back(
        places in prop::collection::btree_set((-1_000_000_i64..15_000_000, -1_000_000_i64..15_000_000), 0..40),
        width in 1_usize..70,
        seed: u32,
        layout in prop::sample::select(Layout::ALL.to_vec()),
        half: bool,
        mpp in 0.1_f64..4.0,
    ) {
        let dtype = if half { Dtype::F16 } else { Dtype::F32 };
        // um in f32, as STAMP has them, are whole px again up to 2^23 px.
        let near = |value: i64| if layout == Layout::Stamp { value / 2 } else { value };
        let corners: BTreeSet<_> = places.into_iter().map(|(x, y)| (near(x), near(y))).collect();
        let corners: Vec<_> = corners.into_iter().collect();
        let number = |i: usize| {
            let word = (i as u32).wrapping_mul(2_654_435_761).wrapping_add(seed);
            half::f16::from_bits((word >> 16) as u16 & 0xfbff).to_f32()
        };
        let numbers: Vec<f32> = (0..corners.len() * width).map(number).collect();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.h5");
        let about = About { mpp: Some(mpp), ..about(layout, dtype, width) };
        write(&path, &about, &corners, bytes(dtype, &numbers)).unwrap();
        let file = FeatureFile::open(&path, None).unwrap();
        prop_assert_eq!((file.layout, file.rows, file.width), (layout, corners.len(), width));
        prop_assert_eq!(whole(&file), numbers);
        let read = file.corners(Some(mpp), None).unwrap();
        prop_assert!((read.side - 512.0).abs() < 1e-9);
        prop_assert_eq!(read.at, corners);
    }
}

/// Opens it and reads all of it, whatever comes of that.
fn try_all(path: &Path) -> Result<usize, weir_plugin::Error> {
    let file = FeatureFile::open(path, None)?;
    file.corners(Some(4.0), None)?;
    let mut row = vec![0.0; file.width];
    // A damaged row is a failed tile, and the others go on.
    Ok((0..file.rows)
        .filter(|at| file.row(*at, &mut row).is_ok())
        .count())
}

#[test]
fn a_file_cut_off_anywhere_is_refused_or_fails_rows() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut.h5");
    for layout in Layout::ALL {
        let bytes = std::fs::read(fixture(&format!("{layout}/slide-8913.h5"))).unwrap();
        let mut refused = 0;
        for length in (0..bytes.len()).step_by(997) {
            std::fs::write(&path, &bytes[..length]).unwrap();
            match try_all(&path) {
                Err(error) => {
                    assert!(!error.message().is_empty());
                    assert!(!error.message().contains("panic"), "{error}");
                    refused += 1;
                }
                Ok(rows) => assert!(rows < 291, "{layout} cut at {length} has all rows"),
            }
        }
        assert!(refused > 0);
    }
}

#[test]
fn damage_anywhere_is_an_error_or_other_numbers_and_never_a_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("damaged.h5");
    let mut state = 88_172_645_463_325_252_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as usize
    };
    for layout in Layout::ALL {
        let bytes = std::fs::read(fixture(&format!("{layout}/slide-8913.h5"))).unwrap();
        for turn in 0..400 {
            let mut damaged = bytes.clone();
            // What describes the arrays stands at the beginning.
            let zone = if turn % 2 == 0 { 4096 } else { damaged.len() };
            for _ in 0..=random() % 4 {
                let at = random() % zone;
                damaged[at] = match random() % 3 {
                    0 => 0xff,
                    1 => random() as u8,
                    _ => damaged[at] ^ 1 << (random() % 8),
                };
            }
            std::fs::write(&path, &damaged).unwrap();
            if let Err(error) = try_all(&path) {
                assert!(
                    !error.message().contains("panic"),
                    "{layout} {turn}: {error}"
                );
            }
        }
    }
}

#[test]
fn foreign_files_are_refused_by_what_they_have() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("foreign.h5");
    let refused = |path: &Path| {
        FeatureFile::open(path, None)
            .err()
            .unwrap()
            .message()
            .to_owned()
    };
    for content in [
        &b""[..],
        b"\x89PNG\r\n\x1a\n",
        b"\x89HDF\r\n\x1a\n",
        &[0; 4096],
    ] {
        std::fs::write(&path, content).unwrap();
        assert!(refused(&path).contains("cannot be read as HDF5"));
    }
    assert!(refused(folder.path()).contains("cannot be read as HDF5"));
    let make = |build: &dyn Fn(&mut hdf5_pure::FileBuilder)| {
        let mut builder = hdf5_pure::FileBuilder::new();
        build(&mut builder);
        builder.write(&path).unwrap();
        refused(&path)
    };
    let what = make(&|b| {
        b.create_dataset("image").with_f32_data(&[1.0]);
    });
    assert!(
        what.contains("no array `features` or `feats`; it has: image"),
        "{what}"
    );
    let what = make(&|b| {
        b.create_dataset("features")
            .with_f32_data(&[1.0, 2.0])
            .with_shape(&[2]);
    });
    assert!(what.contains("has the shape [2]"), "{what}");
    let what = make(&|b| {
        b.create_dataset("features")
            .with_f32_data(&[1.0, 2.0])
            .with_shape(&[2, 1]);
        b.create_dataset("coords")
            .with_i64_data(&[1, 2])
            .with_shape(&[1, 2]);
    });
    assert!(
        what.contains("`coords` has 1 rows of 2 numbers, and there are 2 rows"),
        "{what}"
    );
    let what = make(&|b| {
        b.create_dataset("feats")
            .with_f32_data(&[1.0, 2.0])
            .with_shape(&[2, 1]);
        b.create_dataset("coords")
            .with_f32_data(&[0.0, 0.0, 10.0, 0.0])
            .with_shape(&[2, 2]);
    });
    assert!(
        what.contains("does not say the unit of its places"),
        "{what}"
    );
}

#[test]
fn a_number_that_is_none_fails_its_row_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nan.h5");
    let mut builder = hdf5_pure::FileBuilder::new();
    let numbers = [1.0, 2.0, f32::NAN, 4.0, 5.0, 1e18];
    builder
        .create_dataset("features")
        .with_f32_data(&numbers)
        .with_shape(&[3, 2]);
    builder.write(&path).unwrap();
    let file = FeatureFile::open(&path, None).unwrap();
    let mut row = [0.0; 2];
    file.row(0, &mut row).unwrap();
    assert_eq!(row, [1.0, 2.0]);
    let error = file.row(1, &mut row).unwrap_err();
    assert!(
        error.message().starts_with("number 0 of row 1 is NaN"),
        "{error}"
    );
    assert!(file.row(2, &mut row).is_err());
    // Without places the rows lie in a square.
    assert_eq!(
        file.corners(None, Some(10.0)).unwrap().at,
        [(0, 0), (10, 0), (0, 10)]
    );
}

#[test]
fn stamps_older_files_and_clams_other_levels_have_their_own_scale() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("old.h5");
    let file = |build: &dyn Fn(&mut hdf5_pure::FileBuilder)| {
        let mut builder = hdf5_pure::FileBuilder::new();
        build(&mut builder);
        builder.write(&path).unwrap();
        FeatureFile::open(&path, None).unwrap()
    };
    // Version 1: counted in 224ths of 256 um.
    let first = file(&|b| {
        b.create_dataset("feats")
            .with_f32_data(&[1.0, 2.0])
            .with_shape(&[2, 1]);
        b.create_dataset("coords")
            .with_f32_data(&[0.0, 224.0, 224.0, 448.0])
            .with_shape(&[2, 2]);
    });
    let corners = first.corners(Some(0.5), None).unwrap();
    assert_eq!(
        (corners.at, corners.side),
        (vec![(0, 512), (512, 1024)], 512.0)
    );
    assert_eq!(first.tile_mpp(), Some(256.0 / 224.0));
    // Version 2.0.
    let second = file(&|b| {
        b.set_attr("tile_size", hdf5_pure::AttrValue::I64(256));
        b.set_attr("unit", hdf5_pure::AttrValue::VarLenString("um".into()));
        b.create_dataset("feats")
            .with_f32_data(&[1.0])
            .with_shape(&[1, 1]);
        b.create_dataset("coords")
            .with_f32_data(&[256.0, 512.0])
            .with_shape(&[1, 2]);
    });
    assert_eq!(second.corners(Some(0.5), None).unwrap().at, [(512, 1024)]);
    let error = second.corners(None, None).unwrap_err();
    assert!(
        error.message().contains("nobody says the size of a px"),
        "{error}"
    );
    // CLAM at level 1 of a slide whose levels are 4 apart.
    let clam = file(&|b| {
        b.create_dataset("features")
            .with_f32_data(&[1.0])
            .with_shape(&[1, 1]);
        b.create_dataset("coords")
            .with_i32_data(&[1024, 2048])
            .with_shape(&[1, 2])
            .set_attr("patch_size", hdf5_pure::AttrValue::I64(256))
            .set_attr("patch_level", hdf5_pure::AttrValue::I64(1))
            .set_attr("downsample", hdf5_pure::AttrValue::F64Array(vec![4.0, 4.0]))
            .set_attr(
                "level_dim",
                hdf5_pure::AttrValue::I64Array(vec![5000, 4000]),
            );
    });
    assert_eq!(clam.layout, Layout::Clam);
    assert_eq!(clam.corners(None, None).unwrap().side, 1024.0);
    assert_eq!(
        (clam.said.size, clam.said.tile_px),
        (Some((20_000, 16_000)), Some(256.0))
    );
}
