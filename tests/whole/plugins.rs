//! Plugins are described, shown and checked without any of their code running.

use crate::probe::{MANIFEST, Stand};
use crate::program::Said;
use serde_json::Value;

#[test]
fn a_plugin_is_known_in_full_without_being_run() {
    let stand = Stand::new();
    let said = stand.of_file(None, &["validate"]).exits(0);
    assert_eq!((said.out.as_str(), said.err.as_str()), ("", ""));
    let graph = stand.of_file(None, &["graph"]).exits(0).out;
    assert!(graph.contains("probe.same"), "{graph}");
    let shown = stand.of_file(None, &["show"]).exits(0).out;
    assert!(
        shown.contains("[plugin.probe]") && shown.contains("sha256 = "),
        "{shown}"
    );

    let described = stand.weir(None, &["stages", "probe.same"]).exits(0).out;
    for part in [
        "probe.same: Hands tiles on",
        "rows: filter",
        "pixels [height x width x 3 at mpp um/px]",
        "default 0.15",
        "use = \"probe.same\"",
    ] {
        assert!(described.contains(part), "{part} in\n{described}");
    }
    let file = stand.plugins().join("libprobe.so").display().to_string();
    for plugin in ["probe", file.as_str()] {
        let list = stand
            .weir(None, &["stages", "--plugin", plugin])
            .exits(0)
            .out;
        assert!(
            list.contains("tile-reader") && list.contains("probe.same"),
            "{list}"
        );
        let schema = stand
            .weir(None, &["schema", "--plugin", plugin])
            .exits(0)
            .out;
        let schema: Value = serde_json::from_str(&schema).unwrap();
        let types = &schema["properties"]["stage"]["additionalProperties"]["allOf"];
        let of = |entry: &&Value| entry["if"]["properties"]["use"]["const"] == "probe.same";
        let entry = types.as_array().unwrap().iter().find(of).unwrap();
        assert_eq!(entry["then"]["properties"]["beta"]["else"]["maximum"], 1.0);
        let inspected = stand
            .weir(None, &["plugin", "inspect", plugin])
            .exits(0)
            .out;
        for part in [
            "probe 0.3.1: For tests",
            "MIT",
            "1 stage type, 1 slide reader",
            ".prb",
            "beta: number, 0 to 1; default 0.15",
        ] {
            assert!(inspected.contains(part), "{part} in\n{inspected}");
        }
        let json = stand
            .weir(None, &["plugin", "inspect", plugin, "--format", "json"])
            .exits(0)
            .out;
        let json: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["weir-abi"], "1.0");
        assert_eq!(json["stages"][0]["id"], "probe.same");
        assert!(inspected.contains(json["sha256"].as_str().unwrap()));
    }
    let said = stand.weir(None, &["stages", "other.same"]).exits(2);
    assert!(
        said.err.contains("[E0501]") && said.err.contains("libother.so"),
        "{}",
        said.err
    );
    let said = stand.weir(None, &["stages", "probe.sane"]).exits(2);
    assert!(said.err.contains("probe.same"), "{}", said.err);
    stand.nothing_ran();
}

#[test]
fn two_files_of_one_plugin_are_refused_with_both_where_one_was_meant() {
    let stand = Stand::new();
    let first = stand.plugins().join("libprobe.so");
    let other = stand.library(
        "other",
        Some(&MANIFEST.replace("0.3.1", "0.3.2")),
        "weir_plugin_v1",
    );
    let (first, other) = (first.to_str().unwrap(), other.to_str().unwrap());
    for command in ["stages", "schema"] {
        let said = stand.weir(None, &[command, "--plugin", first, "--plugin", other]);
        let said = said.exits(2).err;
        for part in ["[E0524]", "`probe.same`", first, other] {
            assert!(said.contains(part), "{part} in\n{said}");
        }
        // The same bytes twice are one plugin.
        stand
            .weir(None, &[command, "--plugin", first, "--plugin", "probe"])
            .exits(0);
    }
    stand.nothing_ran();
}

#[test]
fn a_plugin_with_readers_only_may_be_named_and_its_path_is_the_files() {
    let stand = Stand::new();
    let readers = r#"{ "weir-abi": "1.0", "name": "glass", "version": "2.0.0", "summary": "Reads",
      "readers": [ { "id": "glass", "summary": "Reads glass" } ] }"#;
    let library = stand.library("glass", Some(readers), "weir_plugin_v1");
    let beside = stand.folder.path().join("beside.so");
    std::fs::rename(library, &beside).unwrap();
    stand.pipeline(
        "[plugin.probe]\n\n[plugin.glass]\npath = \"beside.so\"\nversion = \"2\"\nisolate = true\n",
    );
    let shown = stand.of_file(None, &["show"]).exits(0).out;
    assert!(
        shown.contains("[plugin.glass]") && shown.contains("version = \"=2.0.0\""),
        "{shown}"
    );
    let hash = |said: Said| said.exits(0).out;
    let with = hash(stand.of_file(None, &["graph", "--as", "json"]));
    stand.pipeline("[plugin.probe]\n");
    let without = hash(stand.of_file(None, &["graph", "--as", "json"]));
    let of = |text: &str| serde_json::from_str::<Value>(text).unwrap()["hash"].clone();
    assert!(
        of(&with).is_string() && of(&with) != of(&without),
        "what is read with is part of the plan"
    );
    stand.nothing_ran();
}

#[test]
fn inspect_shows_a_plugin_for_a_later_weir_and_says_that_it_does_not_run_here() {
    let stand = Stand::new();
    let later = MANIFEST.replace("\"weir-abi\": \"1.0\"", "\"weir-abi\": \"1.9\"");
    let file = stand.library("probe", Some(&later), "weir_plugin_v1");
    let file = file.to_str().unwrap();
    for format in [&[][..], &["--format", "json"]] {
        let arguments = [&["plugin", "inspect", file], format].concat();
        let said = stand.weir(None, &arguments).exits(2);
        assert!(said.out.contains("1.9"), "{}", said.out);
        for word in ["E0505", "this weir speaks 1.0", file] {
            assert!(said.err.contains(word), "{word}: {}", said.err);
        }
    }
    stand.nothing_ran();
}
