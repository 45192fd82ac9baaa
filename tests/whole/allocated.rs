//! What a plugin's stage says that it allocates is part of `run.memory`: too little for it is a mistake of the file.

use crate::libraries::Library;
use crate::program::{command, fixture, said};
use std::path::{Path, PathBuf};

const MANIFEST: &str = r#"{ "weir-abi": "1.0", "name": "heavy", "version": "1.0.0", "summary": "Allocates", "stages": [
  { "id": "heavy.map", "summary": "Hands tiles on", "rows": "map", "concurrency": "per-worker", "memory": "room",
    "params": [ { "name": "room", "type": "bytes", "default": "64MiB", "doc": "Bytes of an instance" } ],
    "in": [ { "name": "tiles", "kind": "pixels", "shape": ["height", "width", 3], "mpp": "mpp" } ],
    "out": [ { "name": "tiles", "kind": "pixels", "shape": ["height", "width", 3], "mpp": "mpp" } ] } ] }"#;

/// The pipeline, with further lines of the plugin's and the stage's table, where none of the plugin's code may run.
fn pipeline(folder: &Path, plugin: &str, stage: &str) -> PathBuf {
    let mark = folder.join("mark");
    let library = Library {
        manifest: Some(MANIFEST),
        entry: "weir_plugin_v1",
        mark: &mark,
    };
    let library = library.build(&folder.join("libheavy.so"));
    let text = format!(
        "weir = 1\n\n[plugin.heavy]\npath = {library:?}\n{plugin}\n\
         [run]\nhelpers = 3\nmemory = \"100MiB\"\n\n\
         [stage.tiles]\nuse = \"tile-reader\"\nslides = {:?}\nsize = 50\nmpp = 4.0\n\n\
         [stage.own]\nuse = \"heavy.map\"\nin = \"tiles\"\n{stage}\n\
         [stage.nothing]\nuse = \"null-sink\"\nin = \"own\"\n",
        fixture("slide-14082.tiff")
    );
    let file = folder.join("it.weir.toml");
    std::fs::write(&file, text).unwrap();
    file
}

#[test]
fn a_memory_that_is_too_little_for_what_a_stage_allocates_is_refused_before_anything_runs() {
    for plugin in ["", "isolate = true\n"] {
        let folder = tempfile::tempdir().unwrap();
        let file = pipeline(folder.path(), plugin, "");
        let weir = |arguments: &[&str]| {
            said(command(
                arguments.iter().map(Path::new).chain([file.as_path()]),
            ))
        };
        for arguments in [&["validate"][..], &["run"]] {
            let refused = weir(arguments).exits(2).err;
            for part in [
                "error[E0602]",
                "memory = \"100MiB\"",
                "192MiB of what stage `own` allocates, by 3 instances",
                "`stage.own.room` says how much an instance of it allocates",
            ] {
                assert!(refused.contains(part), "{part} in\n{refused}");
            }
        }
        // Enough, fewer instances, or less for each.
        weir(&["validate", "--set", "run.memory=\"256MiB\""]).exits(0);
        weir(&["validate", "--set", "run.helpers=1"]).exits(0);
        weir(&["validate", "--set", "stage.own.room=\"16MiB\""]).exits(0);
        let graph = weir(&["graph", "--set", "run.memory=\"256MiB\""]).exits(0);
        assert!(graph.out.contains("192.0 MiB"), "{}", graph.out);
        assert!(
            !folder.path().join("mark").exists(),
            "code of the plugin ran"
        );
    }
}
