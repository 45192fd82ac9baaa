//! Where plugins are found: what lies in the folders, and which folders are not looked into.

use crate::probe::{MANIFEST, Stand};
use crate::program::{Said, said};
use serde_json::Value;

fn lines(json: &str) -> Vec<Value> {
    let lines = json.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// What a list in JSON says of a folder.
fn folder<'a>(lines: &'a [Value], name: &str) -> &'a Value {
    let mut lines = lines.iter();
    lines.find(|line| line["folder"] == name).unwrap()
}

#[test]
fn the_list_names_what_cannot_be_used_and_why() {
    let stand = Stand::new();
    stand.library("plain", None, "other_entry");
    stand.library(
        "wrongly",
        Some(&MANIFEST.replace("\"probe", "\"rightly")),
        "weir_plugin_v1",
    );
    let later = stand.folder.path().join("none/weir/plugins");
    std::fs::create_dir_all(&later).unwrap();
    std::fs::copy(
        stand.plugins().join("libprobe.so"),
        later.join("libprobe.so"),
    )
    .unwrap();
    let list = stand.weir(None, &["plugin", "list"]).exits(0).out;
    for part in [
        "probe 0.3.1: For tests (1 stage type, 1 slide reader)",
        "[E0503] it is no weir plugin: it does not export `weir_plugin_v1`; it exports other_entry",
        "call the file librightly.so",
        "not used: ",
    ] {
        assert!(list.contains(part), "{part} in\n{list}");
    }
    let json = stand
        .weir(None, &["plugin", "list", "--format", "json"])
        .exits(0)
        .out;
    let lines = lines(&json);
    let named: Vec<&Value> = lines
        .iter()
        .filter(|line| line["name"] == "probe")
        .collect();
    assert_eq!(named.len(), 2, "{json}");
    assert!(
        named[0]["shadowed_by"].is_null() && named[1]["shadowed_by"].is_string(),
        "{json}"
    );
    assert!(lines.iter().any(|line| line["code"] == "E0503"));
    let doctor = stand.weir(None, &["doctor"]).out;
    assert!(
        doctor.contains("probe 0.3.1 in ") && doctor.contains("weir plugin list"),
        "{doctor}"
    );
    let warned = stand.of_file(None, &["validate"]).exits(0);
    assert!(warned.err.contains("warning[W0511]"), "{}", warned.err);
    stand.nothing_ran();
}

#[test]
fn the_list_names_the_folders_and_what_became_of_looking_into_each() {
    let stand = Stand::new();
    let (plugins, none) = (
        stand.plugins(),
        stand.folder.path().join("none/weir/plugins"),
    );
    let (plugins, none) = (plugins.to_str().unwrap(), none.to_str().unwrap());
    let list = || stand.weir(None, &["plugin", "list"]).exits(0).out;
    let json = || {
        let json = stand.weir(None, &["plugin", "list", "--format", "json"]);
        lines(&json.exits(0).out)
    };
    let said = list();
    for line in [format!("{plugins}: 1 file"), format!("{none}: not there")] {
        assert!(said.lines().any(|said| said == line), "{line} in\n{said}");
    }
    let said = json();
    let of = folder(&said, plugins);
    assert_eq!(
        (&of["state"], &of["files"]),
        (&"searched".into(), &1.into())
    );
    assert_eq!(folder(&said, none)["state"], "not-there");

    stand.mode("plugins", 0o777);
    let said = list();
    for part in [
        &format!(
            "!! {plugins}\n    [E0508] nothing in it is used, as anybody may put a file there"
        ),
        "chmod o-w",
    ] {
        assert!(said.contains(part), "{part} in\n{said}");
    }
    let said = json();
    let of = folder(&said, plugins);
    assert_eq!(
        (&of["state"], &of["code"]),
        (&"refused".into(), &"E0508".into())
    );
    let doctor = stand.weir(None, &["doctor"]).out;
    assert!(
        doctor.contains(&format!("{plugins} is not used")),
        "{doctor}"
    );
    stand.nothing_ran();
}

#[test]
fn of_a_relative_folder_it_is_said_that_nothing_is_looked_for_there() {
    let stand = Stand::new();
    let file = stand.file().display().to_string();
    let weir = |path: &str, arguments: &[&str]| -> Said {
        let mut weir = stand.command(arguments);
        // Where somebody stands who means the folder beside him.
        weir.current_dir(stand.folder.path())
            .env("WEIR_PLUGIN_PATH", path);
        said(weir)
    };
    let why = "`plugins` in WEIR_PLUGIN_PATH is relative, so nothing is looked for there";
    let help = "write it in full, as $PWD/plugins";
    let once = |said: &str| {
        for part in [why, help] {
            assert_eq!(said.matches(part).count(), 1, "{part} in\n{said}");
        }
    };
    let list = weir("plugins", &["plugin", "list"]).exits(0).out;
    assert!(list.contains("!! plugins\n    [W0515] "), "{list}");
    assert!(!list.contains("probe 0.3.1"), "{list}");
    once(&list);
    let list = weir("plugins", &["plugin", "list", "--format", "json"]);
    let list = lines(&list.exits(0).out);
    assert_eq!(folder(&list, "plugins")["code"], "W0515");

    // Where a plugin is not found.
    for arguments in [
        &["validate", &file][..],
        &["run", &file],
        &["plugin", "inspect", "probe"],
    ] {
        let told = weir("plugins", arguments).exits(2).err;
        assert!(told.contains("[E0501]"), "{told}");
        once(&told);
    }
    // Where a slide's reader may lie.
    let slide = stand.folder.path().join("slide.none");
    std::fs::write(&slide, "no slide").unwrap();
    let told = weir("plugins", &["inspect", slide.to_str().unwrap()]).exits(1);
    once(&told.err);
    // Where another one is found than may have been meant.
    let both = format!("plugins:{}", stand.plugins().display());
    let told = weir(&both, &["validate", &file]).exits(0).err;
    assert!(told.contains("warning[W0515]: plugin `probe` "), "{told}");
    once(&told);
    let told = weir(
        &format!(":{}", stand.plugins().display()),
        &["validate", &file],
    )
    .exits(0);
    assert_eq!(told.err, "", "no entry is no folder");
    stand.nothing_ran();
}
