//! The plugins that the files of these tests name: compiled once, in folders of their own. Nothing of them may run.

use crate::libraries::Library;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use weir_pipeline::{About, Checked, Diagnostic, PluginRefusal, codes};
use weir_plugin_host::{Catalogue, Folders, Policy, Rules};

/// A filter of pixels, and a reduce that takes nothing back.
const STAGES: &str = r#"[
  { "id": "NAME.same", "summary": "Hands tiles on", "rows": "filter",
    "in": [ { "name": "tiles", "kind": "pixels", "shape": ["height", "width", 3], "mpp": "mpp" } ],
    "out": [ { "name": "tiles", "kind": "pixels", "shape": ["height", "width", 3], "mpp": "mpp" } ],
    "params": [ { "name": "beta", "type": "float", "default": 0.15, "min": 0, "max": 1, "doc": "A number" } ] },
  { "id": "NAME.settle", "summary": "Sums scores up", "rows": "reduce", "deliver": "generation", "batch-only": true,
    "in": [ { "name": "scores", "kind": "scores", "shape": ["height", "width", "classes"] } ],
    "out": [ { "name": "scores", "kind": "scores", "shape": ["height", "width", "classes"] } ] } ]"#;

fn manifest(name: &str) -> String {
    format!(
        r#"{{ "weir-abi": "1.0", "name": "{name}", "version": "0.3.1", "summary": "For tests", "stages": {} }}"#,
        STAGES.replace("NAME", name)
    )
}

/// Two folders. Statics are not dropped, so they lie in the target folder, where the next run makes them anew.
fn folders() -> &'static [PathBuf; 2] {
    static FOLDERS: OnceLock<[PathBuf; 2]> = OnceLock::new();
    FOLDERS.get_or_init(|| {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("diagnostics-plugins");
        let _ = std::fs::remove_dir_all(&root);
        let folders = ["first", "second"].map(|name| root.join(name));
        for folder in &folders {
            std::fs::create_dir_all(folder).unwrap();
        }
        let mark = root.join("mark");
        let build = |folder: &Path, name: &str, text: Option<&str>, entry: &str| {
            let library = Library {
                manifest: text,
                entry,
                mark: &mark,
            };
            library.build(&folder.join(format!("lib{name}.so")))
        };
        let [first, second] = &folders;
        let sound = |folder: &Path, name: &str| {
            build(folder, name, Some(&manifest(name)), "weir_plugin_v1")
        };
        sound(first, "probe");
        sound(first, "twice");
        sound(second, "twice");
        let open = sound(first, "open");
        std::fs::set_permissions(&open, PermissionsExt::from_mode(0o666)).unwrap();
        build(first, "plain", None, "weir_plugin_v2");
        let garbled = manifest("garbled").replace("\"filter\"", "\"filler\"");
        build(first, "garbled", Some(&garbled), "weir_plugin_v1");
        let newer = manifest("newer").replace("\"1.0\"", "\"1.2\"");
        build(first, "newer", Some(&newer), "weir_plugin_v1");
        for name in ["glass", "lens"] {
            let readers = format!(
                r#"{{ "weir-abi": "1.0", "name": "{name}", "version": "0.3.1", "summary": "For tests",
                  "readers": [ {{ "id": "mirax", "summary": "Reads slides", "extensions": ["mrxs"] }} ] }}"#
            );
            build(first, name, Some(&readers), "weir_plugin_v1");
        }
        let foreign = sound(first, "foreign");
        let mut bytes = std::fs::read(&foreign).unwrap();
        bytes[18..20].copy_from_slice(&243u16.to_le_bytes());
        std::fs::write(&foreign, bytes).unwrap();
        folders
    })
}

/// `named`: folders more, as WEIR_PLUGIN_PATH names them.
pub fn catalogue(rules: Rules, named: Vec<PathBuf>) -> Catalogue {
    let folders = named.into_iter().chain(folders().clone());
    Catalogue::new(Folders::only(folders), rules)
}

/// As a machine's owner may say.
pub fn rules(word: &str) -> Rules {
    Rules {
        plugins: match word {
            "none" => Policy::None,
            "pinned" => Policy::Pinned,
            other => panic!("{other}"),
        },
        said_by: format!("`plugins = \"{word}\"` in /etc/weir/weir.toml"),
        ..Rules::default()
    }
}

/// Messages of loading and of the run.
pub fn later(checked: &Checked, of: &str, rest: &str) -> Diagnostic {
    let (id, name) = rest.split_once(' ').unwrap();
    let code = codes::find(id).unwrap();
    let (what, help) = match id {
        "E0509" => (
            "the system's loader says: libtiff.so.9: cannot open shared object file: No such file or directory",
            "`ldd FILE` shows what it needs: install what is not found",
        ),
        "E0510" => ("it refused to start: no licence for this machine", ""),
        "E0513" => (
            "its manifest has the stage `probe.settle`, and the loaded plugin does not hand it over",
            "",
        ),
        "E0514" => (
            "cannot start: plugin `probe` 0.3.1: its library is not there",
            "install it",
        ),
        "E0520" => (
            "plugin `probe` 0.3.1 lost 2 of 64 tiles at slide `a`, tile (512, 0)",
            "",
        ),
        "E0521" => (
            "the process of plugin `probe` was killed by signal 6 (Aborted) at slide `a`, tiles (512, 0) to (4096, 0)",
            "it was started again (1 of 2)",
        ),
        "E0522" => (
            "plugin `probe` panicked: index out of bounds, src/lib.rs:17",
            "",
        ),
        "E0523" => (
            "plugin `probe` took longer than 60s at slide `a`, tile (512, 0)",
            "",
        ),
        other => panic!("{other}"),
    };
    if of == "stage" {
        return checked.stage_failed(code, name, what, help);
    }
    let help = [help.to_owned()];
    let refusal = PluginRefusal {
        code: code.id,
        about: About::Path,
        file: checked.plugins.first().map(|plugin| plugin.file.clone()),
        what: what.into(),
        help: help.into_iter().filter(|help| !help.is_empty()).collect(),
    };
    checked.plugin_refused(name, refusal)
}

/// Without what is of this machine and compiler.
pub fn masked(text: &str) -> String {
    let [first, second] = folders();
    let mut text = text
        .replace(&first.display().to_string(), "/first")
        .replace(&second.display().to_string(), "/second")
        .replace("AArch64", "x86-64");
    let hex = |at: usize, text: &str| {
        text.get(at..at + 64)
            .is_some_and(|piece| piece.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    // Hashes of models are the same everywhere; those of libraries stand behind these words.
    let words = "cannot be used: its SHA-256 is ";
    if let Some(at) = text.find(words).map(|at| at + words.len())
        && hex(at, &text)
    {
        text.replace_range(at..at + 64, "HASH");
    }
    text
}

#[test]
fn no_code_of_a_plugin_runs_while_files_are_checked() {
    crate::enter_root();
    for name in crate::names() {
        crate::checked(&name);
    }
    let root = folders()[0].parent().unwrap();
    assert!(!root.join("mark").exists(), "a constructor has run");
}
