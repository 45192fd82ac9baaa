//! Plugins are found, described, checked, listed and pinned without any of their code running.

use crate::libraries::Library;
use crate::program::{Said, command, fixture, root, said};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

const MANIFEST: &str = r#"{ "weir-abi": "1.0", "name": "probe", "version": "0.3.1", "summary": "For tests", "licence": "MIT",
  "stages": [ { "id": "probe.same", "summary": "Hands tiles on", "rows": "filter",
    "state": { "slide": 0 },
    "in": [ { "name": "tiles", "kind": "pixels", "shape": ["height", "width", 3], "mpp": "mpp" } ],
    "out": [ { "name": "tiles", "kind": "pixels", "shape": ["height", "width", 3], "mpp": "mpp" } ],
    "params": [ { "name": "beta", "type": "float", "default": 0.15, "min": 0, "max": 1, "doc": "A number" } ] } ],
  "readers": [ { "id": "probe", "summary": "Reads probes", "extensions": ["prb"] } ] }"#;

/// A folder with plugins, a home without any, and a pipeline that uses one.
struct Stand {
    folder: tempfile::TempDir,
}

impl Stand {
    fn new() -> Stand {
        let stand = Stand {
            folder: tempfile::tempdir().unwrap(),
        };
        std::fs::create_dir(stand.plugins()).unwrap();
        stand.library("probe", Some(MANIFEST), "weir_plugin_v1");
        stand.pipeline("# The plugin that is tried.\n[plugin.probe]   # found by its name\n");
        stand
    }

    fn plugins(&self) -> PathBuf {
        self.folder.path().join("plugins")
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("it.weir.toml")
    }

    fn mark(&self) -> PathBuf {
        self.folder.path().join("mark")
    }

    fn library(&self, name: &str, manifest: Option<&str>, entry: &str) -> PathBuf {
        let mark = &self.mark();
        let library = Library {
            manifest,
            entry,
            mark,
        };
        library.build(&self.plugins().join(format!("lib{name}.so")))
    }

    fn pipeline(&self, plugins: &str) {
        let (slide, model) = (
            fixture("slide-14082.tiff"),
            root().join("tests/diagnostics/models/a"),
        );
        let text = format!(
            r#"weir = 1

{plugins}
[run]
out = "out"

[model.a]
path = {model:?}

[stage.tiles]
use = "tile-reader"
slides = {slide:?}
size = 50
mpp = 4.0

[stage.even]
use = "probe.same"
in = "tiles"   # original pixels
beta = 0.5

[stage.score]
use = "scorer"
in = "even"
model = "a"

[stage.table]
use = "tiles-sink"
in = "score"
"#
        );
        std::fs::write(self.file(), text).unwrap();
    }

    /// `weir ARGUMENTS` with these plugins alone, under the rules of `rules`, if any.
    fn weir(&self, rules: Option<&str>, arguments: &[&str]) -> Said {
        let mut weir = command(arguments);
        weir.env("WEIR_PLUGIN_PATH", self.plugins())
            .env("XDG_DATA_HOME", self.folder.path().join("none"))
            .env_remove("WEIR_RULES");
        if let Some(rules) = rules {
            let file = self.folder.path().join("rules.toml");
            std::fs::write(&file, rules).unwrap();
            weir.env("WEIR_RULES", file);
        }
        said(weir)
    }

    fn of_file(&self, rules: Option<&str>, arguments: &[&str]) -> Said {
        let file = self.file().display().to_string();
        self.weir(rules, &[arguments, &[file.as_str()]].concat())
    }

    /// Changes the plugin's bytes.
    fn bytes(&self, change: impl FnOnce(&mut Vec<u8>)) {
        let file = self.plugins().join("libprobe.so");
        let mut bytes = std::fs::read(&file).unwrap();
        change(&mut bytes);
        std::fs::write(&file, bytes).unwrap();
    }

    fn mode(&self, name: &str, mode: u32) {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(self.folder.path().join(name), mode).unwrap();
    }

    fn nothing_ran(&self) {
        assert!(!self.mark().exists(), "code of a plugin has run");
    }
}

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
    let lines: Vec<Value> = json
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
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

#[test]
fn what_plugin_new_writes_in_c_builds_and_passes_plugin_check() {
    let folder = tempfile::tempdir().unwrap();
    let project = folder.path().join("dark");
    let weir = |arguments: &[&str]| said(command(arguments));
    let new = ["plugin", "new", "dark", "--lang", "c", "--folder"];
    weir(&[&new[..], &[project.to_str().unwrap()]].concat()).exits(0);
    let made = std::process::Command::new("make")
        .env_remove("MAKEFLAGS")
        .env_remove("MFLAGS")
        .arg("-C")
        .arg(&project)
        .output()
        .unwrap();
    let err = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "{err}");
    let library = project.join("libdark.so");
    let checked = weir(&["plugin", "check", library.to_str().unwrap()]).exits(0);
    assert!(checked.out.contains(" 0 failed,"), "{}", checked.out);
}

/// The tests themselves are held to plugins that break their rules beside the host; here is what a user sees of them.
#[test]
fn check_names_each_test_how_it_ended_and_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join("libbad.so");
    let built = std::process::Command::new("gcc")
        .args(["-std=gnu11", "-O1", "-shared", "-fPIC", "-pthread", "-I"])
        .args([root().join("plugins/abi"), "-o".into(), library.clone()])
        .arg(root().join("plugins/host/tests/check/bad.c"))
        .status()
        .unwrap();
    assert!(built.success());
    let glass = folder.path().join("a.glass");
    let mut bytes = b"BADGLASS".to_vec();
    bytes.extend([64, 0, 0, 0, 48, 0, 0, 0]);
    bytes.extend([9; 64 * 48]);
    std::fs::write(&glass, bytes).unwrap();
    let check = |sin: &str, arguments: &[&str]| {
        let mut weir = command(["plugin", "check", library.to_str().unwrap()]);
        weir.args(arguments)
            .args(["--seed", "5"])
            .env("WEIR_BAD", sin);
        said(weir)
    };
    let good = check("", &["--only", "bad.map", "--only", "bad.tiles"]).exits(0);
    for part in [
        "ok",
        "bad.map: no-overrun",
        "bad.tiles: steps-in-order",
        "skipped",
        "it leaves no call pending",
        " 0 failed,",
        "; seed 5",
    ] {
        assert!(good.out.contains(part), "{part} in\n{}", good.out);
    }
    let without = check("", &["--only", "bad: "]).exits(0).out;
    assert!(
        without.contains("give --slide FILE, or --set bad.path=FILE"),
        "{without}"
    );
    let glass = glass.to_str().unwrap();
    let set = format!("bad.path={glass}");
    for given in [["--slide", glass], ["--set", &set]] {
        let with = check("", &["--only", "bad: ", given[0], given[1]])
            .exits(0)
            .out;
        assert!(with.contains(" 0 failed, 0 skipped"), "{with}");
    }
    let failed = check("late", &["--only", "bad.map: pending", "--format", "json"])
        .exits(1)
        .out;
    let lines: Vec<Value> = failed
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines[0]["test"], "pending-completes-once");
    assert_eq!(lines[0]["verdict"], "failed");
    assert_eq!(lines[1]["failed"], 1);
    assert_eq!(
        (&lines[1]["plugin"], &lines[1]["version"]),
        (&"bad".into(), &"0.1.0".into())
    );
    assert_eq!(lines[1]["sha256"].as_str().map(str::len), Some(64));
    let told = check("", &["--set", "bad.map.lvel=3"]).exits(2).err;
    assert!(
        told.contains("[E0301]") && told.contains("did you mean level"),
        "{told}"
    );
    // A test that dies says how to see it die, and that is so.
    let dead = check("dies", &["--only", "bad.map: panic-contained"])
        .exits(1)
        .out;
    let again = "--in-process --only 'bad.map: panic-contained' --seed 5";
    assert!(dead.contains(again), "{dead}");
    let here = [
        "--only",
        "bad.map: one-row",
        "--only",
        "bad.weigh: ",
        "--in-process",
    ];
    let here = check("", &here).exits(0).out;
    assert!(here.contains(" 0 failed,"), "{here}");
    let dies = ["--only", "bad.map: panic-contained", "--in-process"];
    let dies = check("dies", &dies);
    assert!(dies.code.is_none(), "{}", dies.out);
    let cut = folder.path().join("libcut.so");
    std::fs::write(&cut, &std::fs::read(&library).unwrap()[..9000]).unwrap();
    let cut = ["plugin", "check", cut.to_str().unwrap(), "--format", "json"];
    let refused = said(command(cut)).exits(1).out;
    let lines: Vec<Value> = refused
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines[0]["test"], "manifest-valid");
    assert_eq!(lines[0]["verdict"], "failed");
    assert_eq!(lines[1]["sha256"].as_str().map(str::len), Some(64));
    let help = check("", &["--help"]).exits(0).out;
    let page = std::fs::read_to_string(root().join("plugins/README.md")).unwrap();
    let all = check("", &["--slide", glass, "--format", "json"])
        .exits(0)
        .out;
    for line in all.lines().filter(|line| line.contains("\"test\"")) {
        let test: Value = serde_json::from_str(line).unwrap();
        let name = test["test"].as_str().unwrap();
        assert!(help.contains(name), "{name} in\n{help}");
        assert!(
            page.contains(&format!("`{name}`")),
            "{name} in plugins/README.md"
        );
    }
    let none = check("", &["--only", "nonsense"]).exits(2);
    assert!(none.err.contains("no test has that name"), "{}", none.err);
}
