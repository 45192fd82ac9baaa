//! A library as an author's crate makes it: its file, its symbol, its manifest.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use weir_plugin::harness::{Library, Rows};
use weir_plugin_host::Described;

/// What cargo built of `examples/` beside this test.
fn example(name: &str) -> PathBuf {
    let here = std::env::current_exe().unwrap();
    let folder = here.parent().unwrap().parent().unwrap();
    folder.join("examples").join(format!("lib{name}.so"))
}

#[test]
fn the_file_describes_itself_without_being_loaded() {
    let described = Described::read(&example("bright")).unwrap();
    let manifest = described.manifest();
    assert_eq!(
        (manifest.name.as_str(), manifest.stages.len()),
        ("bright", 1)
    );
    let stage = &manifest.stages[0];
    assert_eq!(stage.summary, "Leaves bright tiles out.");
    assert!(stage.doc.starts_with("A tile is left out"));
}

#[test]
fn the_thirty_lines_of_the_readme_run() {
    let library = Library::open(&example("bright")).unwrap();
    let stage = library
        .stage("bright.filter")
        .unwrap()
        .set("limit", 100.0)
        .start()
        .unwrap();
    let tiles = Rows::pixels(4, 4)
        .push("a", 0, 0, &[99_u8; 48])
        .push("a", 4, 0, &[101_u8; 48]);
    let done = stage.process(tiles).unwrap();
    assert_eq!(done.kept(), [0]);
    assert_eq!(done.skipped(), [(1, "bright")]);
    stage.end().unwrap();
}
