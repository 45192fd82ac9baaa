//! Plugins that were built against the header of a released version: tests/abi holds it, and the plugin's source, as they were.

use crate::program::{root, weir};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Builds the plugin of every kind against the header of version 1.0.
fn built(folder: &Path, more: &[&str]) -> PathBuf {
    let file = folder.join("libold.so");
    let of_1_0 = root().join("tests/abi/v1.0");
    let said = Command::new("gcc")
        .args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-O1"])
        .args(["-shared", "-fPIC", "-I"])
        .arg(&of_1_0)
        .args(more)
        .arg("-o")
        .arg(&file)
        .arg(of_1_0.join("kinds.c"))
        .output()
        .unwrap();
    let err = String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success(), "{err}");
    file
}

/// Runs source, map, filter, map, reduce and sink of the plugin; what the sink wrote.
fn lines(isolate: bool) -> String {
    let folder = tempfile::tempdir().unwrap();
    let plugin = built(folder.path(), &[]);
    let file = folder.path().join("old.weir.toml");
    let text = format!(
        r#"weir = 1
[run]
out = "out"
[plugin.old]
path = {plugin:?}
isolate = {isolate}
[stage.grid]
use = "old.grid"
slides = 3
[stage.light]
use = "old.invert"
in = "grid"
[stage.left]
use = "old.dark"
in = "light"
least = 230.0
[stage.mean]
use = "old.mean"
in = "left"
[stage.sum]
use = "old.sum"
in = "mean"
[stage.lines]
use = "old.lines"
in = "sum"
"#
    );
    std::fs::write(&file, text).unwrap();
    weir(["run".as_ref(), file.as_os_str()]).exits(0);
    std::fs::read_to_string(folder.path().join("out/lines.txt")).unwrap()
}

#[test]
fn a_plugin_of_every_kind_that_was_built_for_1_0_runs_in_this_host() {
    // Tile t of slide s is 255 - (20 s + t + 1), for t in 0..12; what is darker than 230 is left out.
    let mut wanted = String::new();
    // Slides have numbers in the order of their ids.
    for (name, s) in [("one", 1), ("two", 2), ("zero", 0)] {
        let left = (0..12).map(|t| 254 - (20 * s + t)).filter(|&v| v >= 230);
        let (n, sum) = left.fold((0, 0), |(n, sum), v| (n + 1, sum + v));
        wanted += &format!("{name} {n} {sum} {sum} {sum}\n");
    }
    assert_eq!(lines(false), wanted);
    assert_eq!(lines(true), wanted);
}

#[test]
fn a_reader_that_was_built_for_1_0_reads_slides_in_this_host() {
    let folder = tempfile::tempdir().unwrap();
    let plugin = built(folder.path(), &[]);
    std::fs::write(folder.path().join("grey.old"), "OLD1 100 80 77\n").unwrap();
    let file = folder.path().join("grey.weir.toml");
    let text = format!(
        "weir = 1\n[run]\nout = \"out\"\n[plugin.old]\npath = {plugin:?}\n[stage.tiles]\nuse = \"tile-reader\"\nslides = [\"grey.old\"]\nsize = 32\nmpp = 0.5\ntissue = \"none\"\n[stage.images]\nuse = \"image-sink\"\nin = \"tiles\"\n"
    );
    std::fs::write(&file, text).unwrap();
    weir(["run".as_ref(), file.as_os_str()]).exits(0);
    let record = crate::program::record(&folder.path().join("out"));
    let slide = &record["slides"]["grey"];
    assert_eq!(slide["tiles_failed"], 0, "{record}");
    assert_eq!(slide["state"], "final", "{record}");
}

#[test]
fn a_plugin_that_needs_a_later_version_is_refused_with_both_versions_and_none_of_it_runs() {
    for needs in ["1.1", "2.0"] {
        let folder = tempfile::tempdir().unwrap();
        let plugin = built(folder.path(), &[&format!("-DNEEDS=\"{needs}\"")]);
        let file = folder.path().join("old.weir.toml");
        let text = format!(
            "weir = 1\n[plugin.old]\npath = {plugin:?}\n[stage.grid]\nuse = \"old.grid\"\n[stage.end]\nuse = \"null-sink\"\nin = \"grid\"\n"
        );
        std::fs::write(&file, text).unwrap();
        let said = weir(["run".as_ref(), file.as_os_str()]).exits(2);
        for word in ["E0505", needs, "speaks 1.0"] {
            assert!(said.err.contains(word), "{}", said.err);
        }
        // What a library has to say, it says when it is loaded.
        assert!(!said.err.contains("loaded"), "{}", said.err);
    }
}
