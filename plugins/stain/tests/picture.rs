//! Reference pictures as people have them.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

#[test]
fn jpeg_and_png_of_a_tile_are_the_same_picture() {
    let png = weir_stain::picture::read(&file("tumour.png")).unwrap();
    let jpeg = weir_stain::picture::read(&file("tumour.jpg")).unwrap();
    assert_eq!(png.len(), 64 * 64 * 3);
    assert_eq!(png.len(), jpeg.len());
    let apart: f64 = png
        .iter()
        .zip(&jpeg)
        .map(|(a, b)| f64::from(a.abs_diff(*b)))
        .sum();
    assert!(apart / (png.len() as f64) < 3.0, "{apart}");
}

#[test]
fn damaged_pictures_are_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    for (name, damaged) in [
        ("tumour.png", "its PNG cannot be taken"),
        ("tumour.jpg", "its JPEG cannot be decoded"),
    ] {
        let bytes = std::fs::read(file(name)).unwrap();
        for (end, what) in [
            (bytes.len() / 2, damaged),
            (20, damaged),
            (1, "neither PNG nor JPEG"),
        ] {
            let cut = folder.path().join(name);
            std::fs::write(&cut, &bytes[..end]).unwrap();
            match weir_stain::picture::read(&cut) {
                Err(error) => assert!(error.contains(what), "{name} cut at {end}: {error}"),
                Ok(_) => panic!("{name} cut at {end} was read"),
            }
        }
    }
    let error = weir_stain::picture::read(&folder.path().join("none.png")).unwrap_err();
    assert!(error.contains("cannot be read"), "{error}");
}
