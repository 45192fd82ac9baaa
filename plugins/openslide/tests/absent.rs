//! A tile without bytes: in a format that leaves out what was not scanned it is white, in one that does not it is a failure.
#![allow(clippy::unwrap_used)]

#[allow(dead_code)]
mod adapter;
#[path = "../../../engine/slide/tests/tiff_writer/mod.rs"]
mod tiff_writer;

use adapter::{openers, there};
use std::path::Path;
use std::process::Command;
use tiff_writer::{Order, TiffWriter, Tiles, Value, cut, resolution};
use weir_record::MppOrigin;
use weir_slide::{Fault, OpenOptions, Region, SlideReader, open, open_and_tell};

/// What Philips' scanners say of a slide of one level, as far as OpenSlide reads it.
const PHILIPS: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<DataObject ObjectType="DPUfsImport"><Attribute Name="PIM_DP_SCANNED_IMAGES"><Array><DataObject ObjectType="DPScannedImage">
<Attribute Name="PIM_DP_IMAGE_TYPE">WSI</Attribute>
<Attribute Name="DICOM_PIXEL_SPACING">"0.00025" "0.00025"</Attribute>
<Attribute Name="PIIM_PIXEL_DATA_REPRESENTATION_SEQUENCE"><Array><DataObject ObjectType="PixelDataRepresentation">
<Attribute Name="DICOM_PIXEL_SPACING">"0.00025" "0.00025"</Attribute>
</DataObject></Array></Attribute>
</DataObject></Array></Attribute></DataObject>
"#;

/// 2 x 2 tiles of 64 px, of which the last has no bytes.
fn write(path: &Path, more: Vec<(u16, Value)>) -> Vec<u8> {
    let of = Tiles {
        width: 128,
        height: 128,
        tile: 64,
        samples: 3,
        compression: 1,
        photometric: 2,
        predictor: false,
    };
    let picture: Vec<u8> = (0..128 * 128 * 3)
        .map(|k| ((k * 7919) % 251) as u8)
        .collect();
    let mut file =
        TiffWriter::new(std::fs::File::create(path).unwrap(), Order::Little, true).unwrap();
    let mut spans = Vec::new();
    for place in 0..3 {
        let tile = cut(&picture, &of, place % 2, place / 2);
        spans.push((file.data(&tile).unwrap(), tile.len() as u64));
    }
    spans.push((0, 0));
    let mut tags = of.tags(&spans);
    tags.extend(more);
    file.directory(tags, true).unwrap();
    file.finish().unwrap();
    picture
}

fn read(slide: &dyn SlideReader, x: u32, y: u32) -> Result<Vec<u8>, weir_slide::SlideError> {
    let mut pixels = vec![0; 64 * 64 * 3];
    let region = Region {
        x: x.into(),
        y: y.into(),
        w: 64.0,
        h: 64.0,
    };
    slide.read(region, 0, 64, 64, &mut pixels).map(|()| pixels)
}

fn part(picture: &[u8], x: usize, y: usize) -> Vec<u8> {
    let row = |row: usize| picture[(row * 128 + x) * 3..][..64 * 3].to_vec();
    (y..y + 64).flat_map(row).collect()
}

#[test]
fn what_was_not_scanned_is_white_and_what_was_lost_is_a_failure() {
    if !there() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let options = OpenOptions {
        openers: openers(),
        ..OpenOptions::default()
    };
    let philips = folder.path().join("philips.tiff");
    let tags = vec![
        (270, Value::Ascii(PHILIPS.into())),
        (305, Value::Ascii("Philips DP v1.0".into())),
    ];
    let picture = write(&philips, tags);
    let (slide, choice) = open_and_tell(&philips, &options).unwrap();
    assert!(
        choice
            .native
            .unwrap()
            .what
            .contains("is a Philips TIFF file")
    );
    assert!(slide.facts().reader.starts_with("openslide/philips"));
    let (mpp, origin) = slide.facts().require_mpp().unwrap();
    assert!((mpp.0 - 0.25).abs() < 1e-9 && origin == MppOrigin::Vendor);
    for (x, y) in [(0, 0), (64, 0), (0, 64)] {
        assert_eq!(
            read(&*slide, x, y).unwrap(),
            part(&picture, x as usize, y as usize)
        );
    }
    assert!(
        read(&*slide, 64, 64)
            .unwrap()
            .iter()
            .all(|value| *value == 255)
    );
    let half = read(&*slide, 32, 64).unwrap();
    assert_eq!(half[..32 * 3], part(&picture, 32, 64)[..32 * 3]);
    assert_eq!(half[32 * 3..64 * 3], [255; 32 * 3]);

    // The same tiles in a file of nobody in particular.
    let plain = folder.path().join("plain.tiff");
    write(&plain, resolution(0.25));
    let slide = adapter::open(&plain, &options).unwrap();
    assert_eq!(read(&*slide, 0, 64).unwrap(), part(&picture, 0, 64));
    for (x, y) in [(64, 64), (32, 64), (1, 1)] {
        let error = read(&*slide, x, y).unwrap_err();
        assert_eq!(error.fault, Fault::Damaged, "{error}");
    }
}

/// Started by the test below, in a process whose WEIR_OPENSLIDE names a file that is not there.
#[test]
#[ignore = "another test starts it"]
fn in_a_process_without_the_library() {
    let options = OpenOptions {
        openers: openers(),
        ..OpenOptions::default()
    };
    let slide =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/CMU-1-Small-Region.dcm");
    let Err(error) = open(&slide, &options) else {
        panic!("it opened")
    };
    println!("said: {error}");
}

#[test]
fn a_missing_library_is_one_message_that_says_where_it_was_looked_for_and_what_to_do() {
    let said = Command::new(std::env::current_exe().unwrap())
        .args([
            "in_a_process_without_the_library",
            "--exact",
            "--ignored",
            "--nocapture",
        ])
        .env("WEIR_OPENSLIDE", "/nowhere/libopenslide.so.1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let line = said
        .lines()
        .find(|line| line.contains("said: "))
        .unwrap_or_else(|| panic!("{said}"));
    for part in [
        "is no TIFF file",
        "openslide declined it: the OpenSlide library is not there; looked for /nowhere/libopenslide.so.1",
        "`make openslide`",
        "set WEIR_OPENSLIDE",
    ] {
        assert!(line.contains(part), "{part}\n{line}");
    }
}
