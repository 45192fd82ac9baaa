//! The library as weir loads it.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use weir_plugin::harness::{Library, Rows};

/// What cargo built beside this test.
fn library() -> PathBuf {
    std::env::current_exe()
        .unwrap()
        .parent()
        .unwrap()
        .join("libweir_stain.so")
}

// Level 239 is the light itself: nothing of any stain, in every picture.
#[test]
fn the_file_has_its_three_stages() {
    let library = Library::open(&library()).unwrap();
    for (id, outputs) in [
        ("stain.normalise", &["tiles"][..]),
        ("stain.separate", &["haematoxylin", "eosin", "residual"]),
    ] {
        let stage = library.stage(id).unwrap().start().unwrap();
        let done = stage
            .process(Rows::pixels(8, 8).push("a", 0, 0, &[239_u8; 192]))
            .unwrap();
        for output in outputs {
            assert_eq!(
                done.row::<u8>(output, 0, "pixels").unwrap(),
                [239; 192],
                "{id}"
            );
        }
        stage.end().unwrap();
    }
    library
        .stage("stain.measure")
        .unwrap()
        .start()
        .unwrap()
        .end()
        .unwrap();
}
