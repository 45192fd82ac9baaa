//! Files: the fixtures' numbers, round trips, damage, what is refused.
#![allow(clippy::unwrap_used, missing_docs)]

mod rows;

use std::collections::BTreeSet;
use std::path::Path;

use proptest::prelude::*;
use weir_features::file::FeatureFile;
use weir_features::layout::Layout;
use weir_features::output::{About, Dtype, write};

use rows::{about, bytes, fixture, floats, whole};

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
    for (file, other) in [
        (Layout::Clam, Layout::Trident),
        (Layout::Trident, Layout::Clam),
    ] {
        let path = fixture(&format!("{file}/slide-8913.h5"));
        let error = FeatureFile::open(&path, Some(other)).err().unwrap();
        let said = format!(
            "layout = \"{other}\", and what this file says of its `coords` only {file} writes"
        );
        assert!(error.message().contains(&said), "{error}");
    }
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

/// As TRIDENT writes it of an encoder that does not say how wide its vectors are.
#[test]
fn a_slide_without_patches_has_no_rows_though_its_file_says_no_width() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("none.h5");
    let make = |features: &[u64], places: &[i64]| {
        let mut builder = hdf5_pure::FileBuilder::new();
        builder
            .create_dataset("features")
            .with_f32_data(&vec![1.0; features[0] as usize])
            .with_shape(features);
        builder
            .create_dataset("coords")
            .with_i64_data(places)
            .with_shape(&[places.len() as u64 / 2, 2]);
        builder.write(&path).unwrap();
        FeatureFile::open(&path, None)
    };
    let file = make(&[0], &[]).unwrap();
    assert_eq!(
        (file.layout, file.rows, file.width),
        (Layout::Trident, 0, 0)
    );
    assert_eq!(file.corners(None, None).unwrap().at, []);
    let error = make(&[0], &[256, 512]).err().unwrap();
    assert!(error.message().contains("`coords` has 1 rows"), "{error}");
    let error = make(&[3], &[]).err().unwrap();
    assert!(error.message().contains("has the shape [3]"), "{error}");
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
