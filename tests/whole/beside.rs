//! A plugin whose manifest is a file beside its library, through everything that is done with a plugin.

use crate::program::{Said, command, files, record, root, said, slide};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A folder with the plugin, a slide and a pipeline that hands its tiles on.
struct Stand(tempfile::TempDir);

impl Stand {
    fn new() -> Stand {
        let stand = Stand(tempfile::tempdir().unwrap());
        std::fs::create_dir(stand.at("plugins")).unwrap();
        let built = Command::new("gcc")
            .args([
                "-std=c11", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-O1",
            ])
            .arg("-I")
            .arg(root().join("plugins/abi"))
            .arg("-o")
            .arg(stand.library())
            .arg(root().join("tests/plugins/silent.c"))
            .status();
        assert!(built.unwrap().success());
        stand.describe("1.0.0");
        slide(&stand.at("a.tiff"), 6, 5, 1);
        stand.pipeline("");
        stand
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn library(&self) -> PathBuf {
        self.at("plugins/libsilent.so")
    }

    fn manifest(&self) -> PathBuf {
        self.at("plugins/silent.manifest.json")
    }

    /// Puts the manifest there, of that version.
    fn describe(&self, version: &str) {
        let text = std::fs::read_to_string(root().join("tests/plugins/silent.manifest.json"));
        let text = text.unwrap().replace("1.0.0", version);
        std::fs::write(self.manifest(), text).unwrap();
    }

    fn file(&self) -> PathBuf {
        self.at("it.weir.toml")
    }

    fn pipeline(&self, plugin: &str) {
        let text = format!(
            r#"weir = 1

[plugin.silent]
{plugin}
[stage.tiles]
use = "tile-reader"
slides = "a.tiff"
size = 64
mpp = 1.0
tissue = "none"

[stage.dark]
use = "silent.dark"
in = "tiles"
brightest = 130.0

[stage.images]
use = "image-sink"
in = "dark"
"#
        );
        std::fs::write(self.file(), text).unwrap();
    }

    fn weir<A: AsRef<std::ffi::OsStr>>(&self, arguments: &[A]) -> Said {
        let mut weir = command(arguments);
        weir.env("WEIR_PLUGIN_PATH", self.at("plugins"))
            .env_remove("WEIR_RULES");
        said(weir)
    }

    fn of_file(&self, arguments: &[&str]) -> Said {
        let file = self.file();
        let arguments = arguments.iter().map(Path::new).chain([file.as_path()]);
        self.weir(&arguments.collect::<Vec<_>>())
    }

    /// What a run writes, but for its record; and what that says of the slide.
    fn run(&self, out: &str) -> (Vec<(String, Vec<u8>)>, Value) {
        let out = self.at(out);
        self.of_file(&["run", "--out", out.to_str().unwrap()])
            .exits(0);
        let pictures = files(&out).into_iter();
        let pictures = pictures.filter(|(name, _)| name.ends_with(".png"));
        (pictures.collect(), record(&out)["slides"]["a"].clone())
    }
}

#[test]
fn it_is_listed_described_and_checked_as_any_other() {
    let stand = Stand::new();
    let list = stand.weir(&["plugin", "list"]).exits(0).out;
    assert!(
        list.contains("silent 1.0.0: Drops bright tiles (1 stage type)"),
        "{list}"
    );
    let (manifest, library) = (stand.manifest(), stand.library());
    let library = library.to_str().unwrap();
    for plugin in ["silent", library] {
        let told = stand.weir(&["plugin", "inspect", plugin]).exits(0).out;
        for part in [manifest.to_str().unwrap(), "(of both)", "silent.dark"] {
            assert!(told.contains(part), "{part} in\n{told}");
        }
        let told = stand.weir(&["plugin", "inspect", plugin, "--format", "json"]);
        let told: Value = serde_json::from_str(&told.exits(0).out).unwrap();
        assert_eq!(told["manifest"], manifest.to_str().unwrap());
        let both = Command::new("sh")
            .args(["-c", "(sha256sum < \"$0\"; sha256sum < \"$1\") | sha256sum"])
            .args([Path::new(library), &manifest])
            .output()
            .unwrap();
        let both = String::from_utf8(both.stdout).unwrap();
        assert_eq!(both.split_whitespace().next(), told["sha256"].as_str());
    }
    let stages = stand.weir(&["stages", "silent.dark"]).exits(0).out;
    assert!(stages.contains("brightest"), "{stages}");
    let checked = stand.weir(&["plugin", "check", library, "--seed", "1"]);
    assert!(checked.out.contains(" 0 failed"), "{}", checked.out);
    checked.exits(0);
}

#[test]
fn it_runs_in_this_process_and_in_its_own_with_the_same_bits() {
    let stand = Stand::new();
    stand.of_file(&["validate"]).exits(0);
    let (here, slide) = stand.run("here");
    let tally = &slide["ledgers"]["images.tiles"];
    assert!(
        !here.is_empty()
            && tally["skip"]
                .as_object()
                .is_some_and(|skip| !skip.is_empty()),
        "some tiles are bright, and others are not: {slide}"
    );
    stand.pipeline("isolate = true\n");
    let (there, again) = stand.run("there");
    assert!(there == here);
    assert_eq!(&again["ledgers"]["images.tiles"], tally);
}

#[test]
fn a_pin_holds_the_manifest_as_it_holds_the_library() {
    let stand = Stand::new();
    stand.of_file(&["plugin", "pin"]).exits(0);
    stand.of_file(&["validate"]).exits(0);
    stand.run("first");
    stand.describe("1.0.1");
    for arguments in [
        &["validate"][..],
        &["run"],
        &["run", "--locked"],
        &["graph"],
    ] {
        let refused = stand.of_file(arguments).exits(2).err;
        for part in ["error[E0507]", "silent.manifest.json together"] {
            assert!(refused.contains(part), "{part} in\n{refused}");
        }
    }
    stand.describe("1.0.0");
    stand.of_file(&["run", "--locked"]).exits(0);
}

#[test]
fn a_manifest_that_is_missing_or_that_anybody_may_write_to_is_refused_with_its_name() {
    let stand = Stand::new();
    let mode = std::fs::Permissions::from_mode(0o666);
    std::fs::set_permissions(stand.manifest(), mode).unwrap();
    let refused = stand.of_file(&["run"]).exits(2).err;
    assert!(
        refused.contains("error[E0508]")
            && refused.contains("silent.manifest.json: anybody may write to it"),
        "{refused}"
    );
    std::fs::remove_file(stand.manifest()).unwrap();
    let refused = stand.of_file(&["run"]).exits(2).err;
    assert!(
        refused.contains("error[E0503]") && refused.contains("silent.manifest.json is not there"),
        "{refused}"
    );
    let list = stand.weir(&["plugin", "list"]).exits(0).out;
    assert!(list.contains("[E0503]"), "{list}");
}
