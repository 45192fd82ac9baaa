//! The slides of tests/fixtures: what is found in them, which tiles they have, and what damaged ones say.

#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use weir_record::{MppOrigin, TileId};
use weir_slide::{
    Edge, Fault, OpenOptions, SlideError, SlideReader, Tiling, TissueMask, open, slide_key,
};

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/fixtures")
        .join(name)
}

fn slide(name: &str) -> Arc<dyn SlideReader> {
    open(&fixture(name), &OpenOptions::default()).unwrap()
}

fn refused(name: &str) -> SlideError {
    match open(&fixture(name), &OpenOptions::default()) {
        Ok(_) => panic!("{name} opened"),
        Err(error) => error,
    }
}

#[test]
fn an_aperio_slide_is_known_for_what_it_is() {
    let slide = slide("CMU-1-Small-Region.svs");
    let facts = slide.facts();
    assert_eq!(facts.reader, "native/aperio-svs");
    assert_eq!((facts.width(), facts.height()), (2220, 2967));
    assert_eq!(facts.levels.len(), 1);
    let (mpp, origin) = facts.require_mpp().unwrap();
    assert_eq!((mpp.0, origin), (0.499, MppOrigin::Vendor));
    assert_eq!(facts.properties["aperio.AppMag"], "20");
    let names: Vec<_> = facts.associated.iter().map(|a| a.name.as_str()).collect();
    assert_eq!(names, ["thumbnail", "label", "macro"]);
    for picture in &facts.associated {
        let read = slide.associated(&picture.name).unwrap();
        assert_eq!((read.width, read.height), (picture.width, picture.height));
        let mean = read.pixels.iter().map(|p| *p as f64).sum::<f64>() / read.pixels.len() as f64;
        assert!((60.0..250.0).contains(&mean), "{}: {mean}", picture.name);
    }
}

#[test]
fn a_generic_pyramid_is_known_for_what_it_is() {
    let slide = slide("slide-14082.tiff");
    let facts = slide.facts();
    assert_eq!(facts.reader, "native/bigtiff");
    let levels: Vec<_> = facts
        .levels
        .iter()
        .map(|l| (l.width, l.height, l.downsample))
        .collect();
    assert_eq!(
        levels,
        [
            (3000, 2550, 1.0),
            (1500, 1275, 2.0),
            (750, 638, 4.0),
            (375, 319, 8.0)
        ]
    );
    let (mpp, origin) = facts.require_mpp().unwrap();
    assert_eq!((mpp.0, origin), (4.0, MppOrigin::Resolution));
}

#[test]
fn what_is_given_beats_what_the_file_says() {
    let options = OpenOptions {
        mpp: Some(0.25),
        ..OpenOptions::default()
    };
    let slide = open(&fixture("CMU-1-Small-Region.svs"), &options).unwrap();
    let (mpp, origin) = slide.facts().require_mpp().unwrap();
    assert_eq!((mpp.0, origin), (0.25, MppOrigin::Given));
}

#[test]
fn three_tiles_of_zeros_are_three_errors_with_their_place_and_all_others_read() {
    let slide = slide("corrupt/three-bad-tiles.svs");
    let tiling = Tiling::new(slide.facts(), 240, 0.499, 0, Edge::Pad).unwrap();
    assert_eq!((tiling.columns, tiling.rows), (10, 13));
    let mut pixels = vec![0; 240 * 240 * 3];
    let mut failed = Vec::new();
    for (i, tile) in tiling.tiles().enumerate() {
        if let Err(error) = slide.read(tiling.region(tile), 0, 240, 240, &mut pixels) {
            assert_eq!(error.fault, Fault::Damaged);
            assert_eq!(error.place.tile, Some(i as u64));
            assert!(error.what.contains("all zero"), "{error}");
            failed.push(i);
        }
    }
    assert_eq!(failed, [20, 21, 45]);
    // The overview goes round them and says so, and the mask leaves them in, so that they are tried and counted.
    let picture = slide.thumbnail(600).unwrap();
    assert_eq!(picture.unread.len(), 3);
    let mask = TissueMask::of(slide.as_ref()).unwrap();
    let kept: BTreeSet<TileId> = mask.keep(&tiling, 0.9).into_iter().collect();
    for (i, tile) in tiling.tiles().enumerate() {
        assert!(!failed.contains(&i) || kept.contains(&tile), "tile {i}");
    }
}

#[test]
fn damaged_files_say_what_and_where() {
    let text = refused("corrupt/text.svs").to_string();
    assert!(
        text.contains("is no TIFF file: it begins with the text"),
        "{text}"
    );
    let empty = refused("corrupt/empty.svs").to_string();
    assert!(empty.contains("is empty"), "{empty}");
    let cut = refused("corrupt/truncated-60pct.svs");
    assert_eq!(cut.fault, Fault::Damaged);
    assert_eq!(cut.place.offset, Some(1_275_950));
    assert!(cut.what.contains("truncated"), "{cut}");
    let missing = refused("nothing.svs");
    assert_eq!(missing.fault, Fault::Io);
    assert!(missing.to_string().contains("no such file"), "{missing}");
    assert!(refused("corrupt").to_string().contains("is a folder"));
}

#[test]
fn the_tissue_mask_of_a_white_backed_slide_keeps_its_tiles() {
    let slide = slide("slide-14082.tiff");
    let tiling = Tiling::new(slide.facts(), 50, 4.0, 0, Edge::Drop).unwrap();
    assert_eq!(tiling.len(), 60 * 51);
    let started = std::time::Instant::now();
    let mask = TissueMask::of(slide.as_ref()).unwrap();
    let took = started.elapsed();
    let kept: BTreeSet<(i64, i64)> = mask
        .keep(&tiling, 0.25)
        .into_iter()
        .map(|tile| (tile.x(), tile.y()))
        .collect();
    let table = std::fs::read_to_string(fixture("slide-14082.tumour.csv")).unwrap();
    let (mut truth, mut lost, mut lost_tumour) = (0, 0, 0);
    for line in table.lines().skip(1) {
        let cells: Vec<i64> = line.split(',').map(|cell| cell.parse().unwrap()).collect();
        truth += 1;
        if !kept.contains(&(cells[0], cells[1])) {
            lost += 1;
            lost_tumour += cells[2];
        }
    }
    println!(
        "mask: threshold {}, {:.1} % tissue, {} kept of {} places; {truth} tiles in the table, {lost} lost, {lost_tumour} of them tumour; {took:?}",
        mask.threshold,
        mask.tissue() * 100.0,
        kept.len(),
        tiling.len()
    );
    assert_eq!(truth, 478);
    assert!(
        lost <= 8 && lost_tumour == 0,
        "{lost} lost, {lost_tumour} tumour"
    );
    assert!(
        kept.len() < 600,
        "{} kept: glass is let through",
        kept.len()
    );
}

#[test]
fn a_key_is_the_head_of_the_digest() {
    // printf 'slide-14082' | sha256sum
    assert_eq!(format!("{:?}", slide_key("slide-14082")).len(), 16);
    assert_eq!(format!("{:?}", slide_key("abc")), "ba7816bf8f01cfea");
}
