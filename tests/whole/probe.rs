//! A plugin that leaves a mark when any of its code runs, in a folder of its own, and a pipeline that uses it.

use crate::libraries::Library;
use crate::program::{Said, command, fixture, root, said};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

pub const MANIFEST: &str = r#"{ "weir-abi": "1.0", "name": "probe", "version": "0.3.1", "summary": "For tests", "licence": "MIT",
  "stages": [ { "id": "probe.same", "summary": "Hands tiles on", "rows": "filter",
    "state": { "slide": 0 },
    "in": [ { "name": "tiles", "kind": "pixels", "shape": ["height", "width", 3], "mpp": "mpp" } ],
    "out": [ { "name": "tiles", "kind": "pixels", "shape": ["height", "width", 3], "mpp": "mpp" } ],
    "params": [ { "name": "beta", "type": "float", "default": 0.15, "min": 0, "max": 1, "doc": "A number" } ] } ],
  "readers": [ { "id": "probe", "summary": "Reads probes", "extensions": ["prb"] } ] }"#;

/// A folder with plugins, a home without any, and a pipeline that uses one.
pub struct Stand {
    pub folder: tempfile::TempDir,
}

impl Stand {
    pub fn new() -> Stand {
        let stand = Stand {
            folder: tempfile::tempdir().unwrap(),
        };
        std::fs::create_dir(stand.plugins()).unwrap();
        stand.library("probe", Some(MANIFEST), "weir_plugin_v1");
        stand.pipeline("# The plugin that is tried.\n[plugin.probe]   # found by its name\n");
        stand
    }

    pub fn plugins(&self) -> PathBuf {
        self.folder.path().join("plugins")
    }

    pub fn file(&self) -> PathBuf {
        self.folder.path().join("it.weir.toml")
    }

    pub fn mark(&self) -> PathBuf {
        self.folder.path().join("mark")
    }

    pub fn library(&self, name: &str, manifest: Option<&str>, entry: &str) -> PathBuf {
        let mark = &self.mark();
        let library = Library {
            manifest,
            entry,
            mark,
        };
        library.build(&self.plugins().join(format!("lib{name}.so")))
    }

    pub fn pipeline(&self, plugins: &str) {
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

    /// `weir ARGUMENTS` with these plugins, and no rules but the machine's.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut weir = command(arguments);
        weir.env("WEIR_PLUGIN_PATH", self.plugins())
            .env("XDG_DATA_HOME", self.folder.path().join("none"))
            .env_remove("WEIR_RULES");
        weir
    }

    /// The same under the rules of `rules`, if any.
    pub fn weir(&self, rules: Option<&str>, arguments: &[&str]) -> Said {
        let mut weir = self.command(arguments);
        if let Some(rules) = rules {
            let file = self.folder.path().join("rules.toml");
            std::fs::write(&file, rules).unwrap();
            weir.env("WEIR_RULES", file);
        }
        said(weir)
    }

    pub fn of_file(&self, rules: Option<&str>, arguments: &[&str]) -> Said {
        let file = self.file().display().to_string();
        self.weir(rules, &[arguments, &[file.as_str()]].concat())
    }

    /// Changes the plugin's bytes.
    pub fn bytes(&self, change: impl FnOnce(&mut Vec<u8>)) {
        let file = self.plugins().join("libprobe.so");
        let mut bytes = std::fs::read(&file).unwrap();
        change(&mut bytes);
        std::fs::write(&file, bytes).unwrap();
    }

    pub fn mode(&self, name: &str, mode: u32) {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(self.folder.path().join(name), mode).unwrap();
    }

    pub fn nothing_ran(&self) {
        assert!(!self.mark().exists(), "code of a plugin has run");
    }
}
