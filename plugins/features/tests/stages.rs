//! The two stages, run as weir runs them.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::json;
use weir_features::reader::Reader;
use weir_features::writer::Writer;
use weir_plugin::harness::{self, Rows, Sent, Stage};
use weir_plugin::{End, SlideInfo};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The files below a folder, as weir finds them for the plugin.
fn below(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let entries = std::fs::read_dir(path).unwrap();
    let mut files: Vec<PathBuf> = entries
        .flat_map(|entry| below(&entry.unwrap().path()))
        .collect();
    files.retain(|file| file.extension().is_some_and(|ending| ending == "h5"));
    files
}

fn reader(slides: &[&Path], width: u32) -> Stage {
    let files: Vec<PathBuf> = slides.iter().flat_map(|path| below(path)).collect();
    let slides: Vec<&str> = files.iter().map(|path| text(path)).collect();
    harness::stage::<Reader>()
        .set("slides", json!(slides))
        .set("features", width)
        .start()
        .unwrap()
}

/// Every row of a slide, by its corner.
type Sheet = BTreeMap<(i64, i64), Vec<f32>>;

fn sheet(stage: &Stage, i: u64) -> (SlideInfo, Sheet) {
    let slide = stage.open(i).unwrap();
    let sent = slide.run(|tile| tile.width as usize * 4).unwrap();
    let rows = sent.iter().map(|sent| match sent {
        Sent::Tile(tile, Ok(_)) => ((tile.x, tile.y), sent.features().unwrap()),
        other => panic!("{other:?}"),
    });
    (slide.info.clone(), rows.collect())
}

fn writer(folder: &Path, layout: &str, width: usize) -> Stage {
    harness::stage::<Writer>()
        .folder(folder)
        .set("features", width as u32)
        .set("layout", layout)
        .set("encoder", "colour-statistics")
        .start()
        .unwrap()
}

fn rows(info: &SlideInfo, sheet: &Sheet) -> Rows {
    let width = sheet.values().next().map_or(1, Vec::len);
    let rows = Rows::features(width)
        .slide(info.clone())
        .scale(info.tile_footprint, info.tile_mpp);
    sheet
        .iter()
        .fold(rows, |rows, ((x, y), row)| rows.push(&info.id, *x, *y, row))
}

#[test]
fn what_one_layout_holds_goes_through_every_other_and_back_as_the_same_numbers() {
    for from in ["trident", "clam", "stamp"] {
        let source = fixture(&format!("{from}/slide-8913.h5"));
        let stage = reader(&[&source], 48);
        let (info, truth) = sheet(&stage, 0);
        stage.end().unwrap();
        assert_eq!(truth.len(), 291);
        for to in ["trident", "clam", "stamp"] {
            let folder = tempfile::tempdir().unwrap();
            // CLAM's files say no mpp, which a manifest would.
            let info = SlideInfo {
                mpp: Some((4.0, 4.0)),
                ..info.clone()
            };
            let sink = writer(folder.path(), to, 48);
            sink.take("features", rows(&info, &truth)).unwrap();
            sink.complete("slide-8913", 0, End::Complete).unwrap();
            sink.close("slide-8913");
            sink.finish().unwrap();
            sink.end().unwrap();
            let stage = reader(&[&folder.path().join("features")], 48);
            let (again, read) = sheet(&stage, 0);
            stage.end().unwrap();
            let lossy = to == "stamp" && from != "stamp";
            for ((at, row), (again, read)) in truth.iter().zip(&read) {
                assert_eq!(at, again);
                for (a, b) in row.iter().zip(read) {
                    let near = (a - b).abs() <= a.abs() / 2048.0 + 1e-7;
                    assert!(if lossy { near } else { a == b }, "{from} {to}: {a} {b}");
                }
            }
            assert_eq!(read.len(), truth.len());
            assert_eq!(
                (again.tile_footprint, again.tile_px),
                (50.0, 50),
                "{from} {to}"
            );
            assert_eq!(again.id, "slide-8913");
            if to != "stamp" && from != "stamp" {
                assert_eq!(again.size, (3250, 2200), "{from} {to}");
            }
            if to != "clam" {
                assert_eq!(again.mpp, Some((4.0, 4.0)), "{from} {to}");
            }
        }
    }
}

/// The lot, as a user has it: three slides in each layout, one source a layout.
#[test]
fn every_file_of_the_shared_data_is_read_as_the_same_slides() {
    let Some(data) = std::env::var_os("WEIR_DATA") else {
        eprintln!("skipped: WEIR_DATA, the folder of shared data, is not set");
        return;
    };
    let features = PathBuf::from(data).join("features");
    let read = |layout: &str| {
        let stage = reader(&[&features.join(layout)], 48);
        let slides = stage.slides().unwrap();
        let sheets: BTreeMap<String, (SlideInfo, Sheet)> = (0..slides.len() as u64)
            .map(|i| sheet(&stage, i))
            .map(|(info, sheet)| (info.id.clone(), (info, sheet)))
            .collect();
        stage.end().unwrap();
        sheets
    };
    let [trident, clam, stamp] = ["trident", "clam", "stamp"].map(read);
    let rows: Vec<_> = trident
        .iter()
        .map(|(id, (_, sheet))| (id.as_str(), sheet.len()))
        .collect();
    assert_eq!(
        rows,
        [
            ("slide-8863", 325),
            ("slide-8867", 547),
            ("slide-8913", 291)
        ]
    );
    for (id, (info, truth)) in &trident {
        assert_eq!(info.mpp, Some((4.0, 4.0)));
        assert_eq!((info.tile_footprint, info.tile_px), (50.0, 50));
        assert_eq!(&clam[id].1, truth, "{id}");
        let (other, halves) = &stamp[id];
        assert_eq!((other.tile_footprint, other.tile_px), (50.0, 50));
        assert!(halves.keys().eq(truth.keys()), "{id}");
        for (half, full) in halves.values().flatten().zip(truth.values().flatten()) {
            assert!((half - full).abs() <= full.abs() / 2048.0 + 1e-7, "{id}");
        }
    }
    assert_eq!((clam.len(), stamp.len()), (3, 3));
}

#[test]
fn a_file_of_another_width_or_none_at_all_fails_its_slide_and_the_others_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("broken.h5");
    std::fs::write(&broken, "no HDF5").unwrap();
    let good = fixture("clam/slide-8913.h5");
    let stage = reader(&[&broken, &good], 48);
    assert_eq!(stage.slides().unwrap().len(), 2);
    let error = stage.open(0).err().unwrap();
    assert!(
        error
            .message()
            .contains("broken.h5: it cannot be read as HDF5"),
        "{error}"
    );
    assert_eq!(sheet(&stage, 1).1.len(), 291);
    stage.end().unwrap();

    let stage = reader(&[&good], 128);
    let error = stage.open(0).err().unwrap();
    assert!(
        error
            .message()
            .contains("its features have 48 numbers, and the stage says features = 128"),
        "{error}"
    );
    stage.end().unwrap();
}

#[test]
fn a_manifest_says_id_label_patient_and_mpp() {
    let file = fixture("stamp/slide-8913.h5");
    let listed = json!([{
        "path": text(&file), "id": "first", "label": "tumour", "patient": "p1", "mpp": 0.5
    }]);
    let stage = harness::stage::<Reader>()
        .set("slides", listed)
        .set("features", 48)
        .start()
        .unwrap();
    let (info, read) = sheet(&stage, 0);
    assert_eq!(
        (&*info.id, &*info.label, &*info.patient, info.mpp),
        ("first", "tumour", "p1", Some((0.5, 0.5)))
    );
    // Tiles of 200 um and 50 px: at 0.5 um/px they cover 400 px, and lie as far apart in proportion.
    assert_eq!(
        (info.tile_footprint, info.tile_px, info.tile_mpp),
        (400.0, 50, 4.0)
    );
    assert_eq!(
        *read.keys().min_by_key(|(x, y)| (*x, *y)).unwrap(),
        (800, 3200)
    );
    stage.end().unwrap();
}

#[test]
fn a_slide_without_rows_is_a_file_that_says_its_width() {
    for layout in ["trident", "clam", "stamp"] {
        let folder = tempfile::tempdir().unwrap();
        let sink = writer(folder.path(), layout, 7);
        let info = SlideInfo {
            id: "none".into(),
            path: "none".into(),
            mpp: Some((0.5, 0.5)),
            size: (1000, 1000),
            tile_footprint: 256.0,
            tile_px: 256,
            ..SlideInfo::default()
        };
        // The harness learns of a slide by a batch; its only row is withdrawn again.
        let row = || {
            Rows::features(7)
                .slide(info.clone())
                .push("none", 0, 0, &[1.0_f32; 7])
        };
        sink.take("features", row()).unwrap();
        sink.remove("features", &row()).unwrap();
        sink.complete("none", 0, End::Complete).unwrap();
        sink.end().unwrap();
        let stage = reader(&[&folder.path().join("features")], 7);
        let (again, read) = sheet(&stage, 0);
        assert_eq!((read.len(), again.tile_footprint), (0, 256.0), "{layout}");
        stage.end().unwrap();
    }
}

#[test]
fn a_slide_that_failed_has_no_file_and_one_that_grows_has_its_latest() {
    let folder = tempfile::tempdir().unwrap();
    let sink = writer(folder.path(), "trident", 2);
    let row = |x: i64, value: f32| Rows::features(2).push("a", x, 0, &[value; 2]);
    let path = folder.path().join("features/a.h5");
    sink.take("features", row(0, 1.0)).unwrap();
    sink.complete("a", 0, End::Aborted).unwrap();
    sink.complete("a", 0, End::Incomplete).unwrap();
    assert!(!path.exists());
    sink.complete("a", 1, End::Provisional).unwrap();
    sink.take("features", row(256, 2.0)).unwrap();
    sink.take("features", row(0, 3.0).rev(1)).unwrap();
    let read = || {
        let stage = reader(&[&path], 2);
        let rows: Vec<_> = sheet(&stage, 0).1.into_iter().collect();
        stage.end().unwrap();
        rows
    };
    assert_eq!(read(), [((0, 0), vec![1.0, 1.0])]);
    sink.complete("a", 2, End::Complete).unwrap();
    assert_eq!(read(), [((0, 0), vec![3.0; 2]), ((256, 0), vec![2.0; 2])]);
    let names: Vec<_> = std::fs::read_dir(folder.path().join("features"))
        .unwrap()
        .collect();
    assert_eq!(
        names.len(),
        1,
        "what was half written is not left: {names:?}"
    );
    sink.end().unwrap();
}

#[test]
fn a_file_of_an_earlier_run_goes_when_its_slide_fails_or_is_run_anew_and_no_others_does() {
    let folder = tempfile::tempdir().unwrap();
    let features = folder.path().join("features");
    std::fs::create_dir(&features).unwrap();
    let path = |id: &str| features.join(format!("{id}.h5"));
    let row = |id: &str, value: f32| Rows::features(2).push(id, 0, 0, &[value; 2]);
    for (case, end) in [
        ("aborted", Some(End::Aborted)),
        ("incomplete", Some(End::Incomplete)),
        ("unfit", Some(End::Complete)),
        ("died", None),
        ("withdrawn", Some(End::Provisional)),
    ] {
        for id in ["a", "b"] {
            std::fs::write(path(id), "of an earlier run").unwrap();
        }
        let sink = writer(folder.path(), "trident", 2);
        let value = if case == "unfit" { f32::NAN } else { 1.0 };
        sink.take("features", row("a", value)).unwrap();
        assert!(!path("a").exists(), "{case}");
        // As if it had been written by the part of a run that came before.
        std::fs::write(path("a"), "of an earlier run").unwrap();
        if let Some(end) = end {
            assert_eq!(sink.complete("a", 0, end).is_err(), case == "unfit");
            assert_eq!(path("a").exists(), end == End::Provisional, "{case}");
        }
        sink.close("a");
        assert!(!path("a").exists(), "{case}");
        assert_eq!(std::fs::read(path("b")).unwrap(), b"of an earlier run");
        sink.end().unwrap();
    }
}

#[test]
fn ids_that_no_file_can_have_and_pixels_that_are_not_square_are_refused_by_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let told = |id: &str, mpp: (f64, f64)| {
        let info = SlideInfo {
            id: id.into(),
            path: id.into(),
            mpp: Some(mpp),
            ..SlideInfo::default()
        };
        let sink = writer(folder.path(), "stamp", 2);
        let rows = Rows::features(2).slide(info).push(id, 0, 0, &[1.0_f32; 2]);
        sink.take("features", rows).unwrap();
        let error = sink.complete(id, 0, End::Complete).err();
        sink.end().unwrap();
        error
    };
    assert_eq!(told("square", (0.5, 0.502)), None);
    let error = told("oblong", (0.5, 0.25)).unwrap();
    assert!(
        error
            .message()
            .contains("pixels of slide `oblong` are 0.5 x 0.25 um"),
        "{error}"
    );
    let error = told(&"x".repeat(250), (0.5, 0.5)).unwrap();
    assert!(error.what_to_do().contains("too long"), "{error}");
}

#[test]
fn a_number_that_f16_does_not_hold_fails_its_slide_and_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let sink = writer(folder.path(), "stamp", 2);
    let info = |id: &str| SlideInfo {
        id: id.into(),
        path: id.into(),
        mpp: Some((0.5, 0.5)),
        ..SlideInfo::default()
    };
    let rows = Rows::features(2)
        .slide(info("big"))
        .slide(info("small"))
        .push("big", 512, 0, &[1.0_f32, 1e6])
        .push("small", 0, 0, &[1.0_f32, 2.0]);
    sink.take("features", rows).unwrap();
    let error = sink.complete("big", 0, End::Complete).err().unwrap();
    assert!(
        error
            .message()
            .contains("of the tile at (512, 0), number 1 is 1000000, greater than 65504"),
        "{error}"
    );
    assert_eq!(error.what_to_do(), "set dtype = \"f32\"");
    sink.complete("small", 0, End::Complete).unwrap();
    assert!(folder.path().join("features/small.h5").exists());
    assert!(!folder.path().join("features/big.h5").exists());
    sink.end().unwrap();
}

#[test]
fn a_folder_outside_the_runs_is_refused() {
    for folder in ["../x", "/tmp/x", ""] {
        let setup = harness::stage::<Writer>()
            .set("features", 2)
            .set("folder", folder);
        assert_eq!(
            setup.start().err().unwrap().of_which_param(),
            "folder",
            "{folder}"
        );
    }
}
