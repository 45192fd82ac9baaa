//! What runs is what somebody trusts: pins, the machine's rules, and files that cannot be what they say.

use crate::machine::Machine;
use crate::probe::{MANIFEST, Stand};
use crate::program::{command, record, root};
use crate::shipped::shipped;
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;

#[test]
fn a_pin_is_written_beside_the_comments_and_holds_the_file_to_its_bytes() {
    let stand = Stand::new();
    let before = std::fs::read_to_string(stand.file()).unwrap();
    let refused = stand.of_file(None, &["run", "--locked"]).exits(2);
    assert!(
        refused.err.contains("error[E0508]") && refused.err.contains("`--locked` says so"),
        "{}",
        refused.err
    );

    let file = stand.file().display().to_string();
    let said = stand
        .weir(None, &["plugin", "pin", &file, "other"])
        .exits(2);
    assert!(said.err.contains("[plugin.other]"), "{}", said.err);
    let pinned = stand.of_file(None, &["plugin", "pin"]).exits(0).out;
    let hash = pinned.split_whitespace().nth(2).unwrap();
    let after = std::fs::read_to_string(stand.file()).unwrap();
    assert_eq!(
        after.replacen(&format!("sha256 = \"{hash}\"\n"), "", 1),
        before
    );
    assert_ne!(after, before);
    stand
        .weir(None, &["plugin", "pin", &file, "probe"])
        .exits(0);
    assert_eq!(std::fs::read_to_string(stand.file()).unwrap(), after);

    // Pinned, it passes the rules.
    stand
        .of_file(Some("plugins = \"pinned\""), &["validate"])
        .exits(0);
    let run = stand.of_file(None, &["run", "--locked"]);
    assert!(!run.err.contains("E0508"), "{}", run.err);
    assert_ne!(run.code, Some(0), "the loaded library hands no stage over");

    // Other bytes do not, until they are pinned.
    std::fs::remove_file(stand.mark()).ok();
    stand.library(
        "probe",
        Some(&MANIFEST.replace("0.3.1", "0.3.2")),
        "weir_plugin_v1",
    );
    for arguments in [&["validate"][..], &["run"], &["run", "--locked"]] {
        let said = stand.of_file(None, arguments).exits(2);
        assert!(
            said.err.contains("error[E0507]") && said.err.contains(hash),
            "{}",
            said.err
        );
    }
    stand.of_file(None, &["plugin", "pin"]).exits(0);
    stand.of_file(None, &["validate"]).exits(0);
    stand.nothing_ran();
}

#[test]
fn the_machines_rules_hold_whatever_a_file_says() {
    let stand = Stand::new();
    for (rules, what) in [
        ("plugins = \"none\"", "no plugins are allowed here"),
        (
            "plugins = \"pinned\"",
            "only pinned plugins are allowed here",
        ),
        ("plugin = \"none\"", "there is no rule `plugin`"),
    ] {
        for arguments in [&["validate"][..], &["run"], &["graph"]] {
            let said = stand.of_file(Some(rules), arguments).exits(2);
            assert!(
                said.err.contains(what) && said.err.contains("rules.toml"),
                "{}",
                said.err
            );
        }
    }
    // Also where no file names the plugin and its code would run.
    let (library, file) = (stand.plugins().join("libprobe.so"), stand.file());
    let (library, file) = (library.to_str().unwrap(), file.to_str().unwrap());
    let tried = ["plugin", "check", library];
    let asked = ["plugin", "inspect", library, "--file", file];
    for (rules, arguments) in [
        ("plugins = \"none\"", &tried[..]),
        ("plugins = \"none\"", &asked),
        ("plugins = \"pinned\"", &tried),
        ("plugins = \"pinned\"", &asked),
        ("isolate = \"always\"", &asked),
    ] {
        let said = stand.weir(Some(rules), arguments).exits(2);
        for part in ["[E0508]", rules, "rules.toml says so"] {
            assert!(said.err.contains(part), "{part} in\n{}", said.err);
        }
    }
    let said = stand
        .of_file(Some("isolate = \"always\""), &["show"])
        .exits(0);
    assert!(said.out.contains("isolate = true"), "{}", said.out);
    let file = stand.plugins().join("libprobe.so");
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o666)).unwrap();
    let said = stand.of_file(None, &["run"]).exits(2);
    assert!(said.err.contains("anybody may write to it"), "{}", said.err);
    stand.nothing_ran();
}

/// The file in /etc itself, not one that the environment names.
#[test]
fn what_the_machines_owner_wrote_into_etc_is_obeyed_by_a_whole_run() {
    let Some(machine) = Machine::new() else {
        println!("SKIPPED: this system lets nobody have an /etc of his own (unshare --mount)");
        return;
    };
    shipped("libblur-c");
    let asked = ["plugin", "inspect", "blur-c", "--format", "json"];
    let asked = machine.said(command(asked)).exits(0).out;
    let asked: Value = serde_json::from_str(&asked).unwrap();
    let pin = format!("plugin.blur-c.sha256={}", asked["sha256"]);
    let folder = tempfile::tempdir().unwrap();
    let lax = folder.path().join("lax.toml");
    std::fs::write(&lax, "plugins = \"any\"\nisolate = \"asked\"\n").unwrap();
    let file = root().join("pipelines/blur-c.weir.toml");
    let out = |name: &str| folder.path().join(name);
    let run = |name: &str, more: &[&str]| {
        let (file, out) = (file.to_str().unwrap(), out(name));
        let mut weir = command(["run", file, "--out", out.to_str().unwrap()]);
        // Nobody allows himself anything.
        weir.args(more).env("WEIR_RULES", &lax);
        machine.said(weir)
    };
    for (rules, more, what) in [
        (
            "plugins = \"pinned\"",
            &[][..],
            "only pinned plugins are allowed here",
        ),
        (
            "plugins = \"none\"",
            &["--set", &pin],
            "no plugins are allowed here",
        ),
    ] {
        machine.rules(rules);
        let told = run("none", more).exits(2).err;
        let by = format!("`{rules}` in /etc/weir/weir.toml says so");
        for part in ["error[E0508]", what, &by] {
            assert!(told.contains(part), "{part} in\n{told}");
        }
    }
    machine.rules("plugin = \"none\"");
    let told = run("none", &[]).exits(2).err;
    let part = "/etc/weir/weir.toml: there is no rule `plugin`";
    assert!(told.contains(part), "{told}");
    assert!(!out("none").exists(), "something ran");

    machine.rules("plugins = \"pinned\"");
    run("pinned", &["--set", &pin]).exits(0);
    let isolated = |name: &str| record(&out(name))["plugins"]["blur-c"]["isolate"].clone();
    assert_eq!(isolated("pinned"), false);
    machine.rules("isolate = \"always\"");
    run("isolated", &[]).exits(0);
    assert_eq!(isolated("isolated"), true);
}

/// A file that is no sound plugin, or lies where anybody may change it: how, what is said of it.
type Unsound = (&'static str, fn(&Stand), [&'static str; 2]);

const UNSOUND: [Unsound; 8] = [
    (
        "truncated",
        |stand| stand.bytes(|whole| whole.truncate(whole.len() / 2)),
        ["E0506", "[plugin.probe]"],
    ),
    (
        "of another architecture",
        |stand| stand.bytes(|whole| whole[18] = 183),
        ["E0506", "AArch64"],
    ),
    (
        "without the symbol",
        |stand| drop(stand.library("probe", Some(MANIFEST), "other_entry")),
        ["E0503", "`weir_plugin_v1`"],
    ),
    (
        "without a manifest",
        |stand| drop(stand.library("probe", None, "weir_plugin_v1")),
        ["E0503", "manifest"],
    ),
    (
        "of another hash",
        |stand| {
            stand.pipeline(&format!("[plugin.probe]\nsha256 = \"{:064}\"\n", 1));
        },
        ["E0507", "sha256"],
    ),
    (
        "a file that anybody may write",
        |stand| stand.mode("plugins/libprobe.so", 0o666),
        ["E0508", "libprobe.so"],
    ),
    (
        "in a folder that anybody may write",
        |stand| stand.mode("plugins", 0o777),
        ["E0508", "plugins"],
    ),
    (
        "that needs a later header",
        |stand| {
            drop(stand.library(
                "probe",
                Some(&MANIFEST.replace("\"weir-abi\": \"1.0\"", "\"weir-abi\": \"1.9\"")),
                "weir_plugin_v1",
            ));
        },
        ["E0505", "1.9"],
    ),
];

#[test]
fn what_cannot_be_trusted_is_refused_with_the_reason_and_nothing_of_it_runs() {
    // That code would leave its mark: the sound file does, when it is run.
    let stand = Stand::new();
    stand.of_file(None, &["run"]);
    assert!(stand.mark().exists());
    for (what, make, words) in UNSOUND {
        let stand = Stand::new();
        make(&stand);
        for command in ["validate", "run"] {
            let said = stand.of_file(None, &[command]).exits(2);
            for word in words {
                assert!(said.err.contains(word), "{command}, {what}: {}", said.err);
            }
            assert!(
                said.err.contains("help: "),
                "{command}, {what}: {}",
                said.err
            );
        }
        stand.weir(None, &["plugin", "list"]).exits(0);
        stand.nothing_ran();
    }
}
