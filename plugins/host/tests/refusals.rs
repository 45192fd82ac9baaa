//! A file that is no sound plugin is refused with the reason, and nothing of it has run.
#![allow(clippy::unwrap_used)]

mod programs;

use programs::compiled_text;
use proptest::prelude::*;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use weir_plugin_host::{Admitted, Ask, Described, Policy, Refusal};

const MANIFEST: &str = r#"{ "weir-abi": "1.0", "name": "probe", "version": "0.3.1", "summary": "For tests",
  "stages": [ { "id": "probe.same", "summary": "Hands tiles on", "rows": "filter",
    "in": [ { "name": "tiles", "kind": "pixels", "shape": ["height", "width", 3], "mpp": "mpp" } ],
    "out": [ { "name": "tiles", "kind": "pixels", "shape": ["height", "width", 3], "mpp": "mpp" } ],
    "params": [ { "name": "beta", "type": "float", "default": 0.15, "min": 0, "max": 1, "doc": "A number" } ] } ] }"#;

/// A plugin whose constructor and entry leave a mark: a test that finds one has run foreign code.
fn source(manifest: Option<&str>, entry: bool) -> String {
    let quoted = manifest.map(|text| format!("{text:?}"));
    let section = quoted.map_or_else(String::new, |text| format!("WEIR_MANIFEST({text});\n"));
    let kept = if manifest.is_some() {
        "weir_manifest"
    } else {
        "\"\""
    };
    let entry = if entry {
        "weir_plugin_v1"
    } else {
        "other_entry"
    };
    format!(
        r#"#include <stdlib.h>
#include "weir_plugin.h"
{section}
static const weir_plugin plugin = {{ .struct_size = sizeof plugin, .abi_minor = WEIR_ABI_MINOR, .manifest = {kept} }};
__attribute__((constructor)) static void ran(void) {{ abort(); }}
WEIR_EXPORT weir_status {entry}(const weir_host *host, weir_call *call, const weir_plugin **out) {{
  (void)host; (void)call; *out = &plugin; return WEIR_OK;
}}
"#
    )
}

fn build(folder: &Path, name: &str, text: &str, flags: &[&str]) -> PathBuf {
    // As whoever wants it small links it: the manifest must stay.
    let flags = [&["-Wl,--gc-sections"], flags].concat();
    compiled_text(text, &folder.join(format!("{name}.so")), &flags)
}

/// A sound plugin's bytes, stripped as packages are.
fn sound() -> &'static [u8] {
    static SOUND: OnceLock<Vec<u8>> = OnceLock::new();
    SOUND.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        std::fs::read(build(
            folder.path(),
            "sound",
            &source(Some(MANIFEST), true),
            &["-s"],
        ))
        .unwrap()
    })
}

/// A sound library that has no manifest in it.
fn silent(folder: &Path, name: &str) -> PathBuf {
    build(folder, name, &source(None, true), &[])
}

fn described(bytes: &[u8]) -> Result<Described, Refusal> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("libprobe.so");
    std::fs::write(&path, bytes).unwrap();
    Described::read(&path)
}

fn refused(bytes: &[u8]) -> Refusal {
    described(bytes).unwrap_err()
}

fn ask() -> Ask {
    Ask {
        name: "probe".into(),
        ..Ask::default()
    }
}

#[test]
fn a_sound_plugin_is_described_and_admitted_without_running() {
    let plugin = Admitted::new(described(sound()).unwrap(), &ask(), Policy::Any).unwrap();
    let manifest = plugin.manifest();
    assert_eq!(
        (manifest.name.as_str(), manifest.version.to_string()),
        ("probe", "0.3.1".into())
    );
    assert_eq!(manifest.stages[0].params[0].name, "beta");
}

#[test]
fn a_file_that_was_cut_off_anywhere_is_refused() {
    for cut in (0..sound().len())
        .step_by(97)
        .chain([1, 4, 63, 64, sound().len() - 1])
    {
        let refusal = refused(&sound()[..cut]);
        assert!(
            ["E0503", "E0504", "E0506"].contains(&refusal.code),
            "{cut}: {refusal}"
        );
    }
    let half = refused(&sound()[..sound().len() / 2]);
    assert_eq!(half.code, "E0506");
    assert!(half.what.contains("bytes"), "{half}");
}

#[test]
fn a_file_of_another_kind_is_refused_by_what_it_is() {
    for (bytes, code, what) in [
        (&b""[..], "E0506", "no shared library"),
        (b"#!/bin/sh\n", "E0506", "no shared library"),
        (b"\x7fELF\x01\x01\x01", "E0506", "64 bits"),
    ] {
        let refusal = refused(bytes);
        assert!(
            refusal.code == code && refusal.what.contains(what),
            "{refusal}"
        );
    }
    let mut foreign = sound().to_vec();
    foreign[18..20].copy_from_slice(&243u16.to_le_bytes());
    assert!(refused(&foreign).what.contains("was built for machine 243"));
    let mut object = sound().to_vec();
    object[16..18].copy_from_slice(&1u16.to_le_bytes());
    assert!(refused(&object).what.contains("no shared library"));
}

#[test]
fn a_library_without_the_symbol_or_the_manifest_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let symbol = build(folder.path(), "symbol", &source(Some(MANIFEST), false), &[]);
    let refusal = Described::read(&symbol).unwrap_err();
    assert_eq!(refusal.code, "E0503");
    assert!(
        refusal.what.contains("weir_plugin_v1") && refusal.what.contains("other_entry"),
        "{refusal}"
    );
    let none = build(folder.path(), "none", &source(None, true), &[]);
    let refusal = Described::read(&none).unwrap_err();
    assert!(
        refusal.code == "E0503"
            && refusal.what.contains("section `.weir.manifest`")
            && refusal.what.contains("none.manifest.json is not there"),
        "{refusal}"
    );
}

#[test]
fn a_manifest_that_cannot_be_says_what_is_wrong_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut said = String::new();
    for (from, to) in [
        ("\"filter\"", "\"filler\""),
        ("\"version\"", "\"verzion\""),
        ("probe.same", "other.same"),
        ("\"beta\"", "\"use\""),
        ("0.15", "1.5"),
        ("\"float\"", "\"choice\""),
        ("\"1.0\"", "\"1\""),
        ("\"mpp\": \"mpp\"", "\"mpp\": \"$mpp\""),
        ("\"out\"", "\"sinks\""),
        ("0.3.1", "three"),
    ] {
        let text = MANIFEST.replacen(from, to, 1);
        let so = build(folder.path(), "bad", &source(Some(&text), true), &[]);
        let refusal = Described::read(&so).unwrap_err();
        assert_eq!(refusal.code, "E0504", "{refusal}");
        said.push_str(&format!("{from} -> {to}\n    {}\n", refusal.what));
    }
    insta::assert_snapshot!("manifests", said);
}

#[test]
fn a_manifest_that_a_terminal_would_not_show_as_it_is_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (n, sly) in [
        "\\u001b[31m",
        "\\u0007",
        "\\r",
        "\\u202e",
        "\\u2066",
        "\\u009b",
    ]
    .iter()
    .enumerate()
    {
        let text = MANIFEST.replacen("\"summary\": \"", &format!("\"summary\": \"{sly}"), 1);
        assert_ne!(text, MANIFEST);
        let so = build(
            folder.path(),
            &format!("sly{n}"),
            &source(Some(&text), true),
            &[],
        );
        let refusal = Described::read(&so).unwrap_err();
        assert_eq!(refusal.code, "E0504", "{refusal}");
        let what = &refusal.what;
        assert!(
            what.contains("a terminal acts on") && !what.contains(char::is_control),
            "{what:?}"
        );
    }
}

#[test]
fn a_stage_that_allocates_names_a_size_that_is_always_there() {
    let folder = tempfile::tempdir().unwrap();
    let with = |memory: &str, param: &str| {
        let text = MANIFEST
            .replacen("\"rows\"", &format!("\"memory\": {memory:?}, \"rows\""), 1)
            .replacen("\"params\": [", &format!("\"params\": [ {param}"), 1);
        Described::read(&build(
            folder.path(),
            "own",
            &source(Some(&text), true),
            &[],
        ))
    };
    let room = |more: &str| {
        format!("{{ \"name\": \"room\", \"type\": \"bytes\", \"doc\": \"Bytes\"{more} }}, ")
    };
    let given = with("room", &room(", \"default\": \"8MiB\"")).unwrap();
    assert_eq!(given.manifest().stages[0].memory.as_deref(), Some("room"));
    with("room", &room(", \"required\": true")).unwrap();
    // One that is not there, one that is no size, one that may be left out.
    for (memory, param) in [
        ("rooom", room(", \"required\": true")),
        ("beta", room(", \"required\": true")),
        ("room", room("")),
    ] {
        let refusal = with(memory, &param).unwrap_err();
        assert_eq!(refusal.code, "E0504", "{refusal}");
        assert_eq!(
            refusal.what,
            format!(
                "its manifest is invalid: stage `probe.same`: `memory` names `{memory}`, which is no parameter of type \"bytes\" that is required or has a default"
            )
        );
    }
}

#[test]
fn abi_version_name_pin_and_policy_are_held_before_anything_is_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let refuse = |ask: &Ask, policy| {
        let refusal = Admitted::new(described(sound()).unwrap(), ask, policy).unwrap_err();
        (refusal.code, refusal.what)
    };
    let newer = MANIFEST.replace("\"1.0\"", "\"1.2\"");
    let newer = Described::read(&build(
        folder.path(),
        "newer",
        &source(Some(&newer), true),
        &[],
    ));
    let newer = newer.unwrap();
    assert_eq!(newer.foreign().unwrap().code, "E0505");
    let refusal = Admitted::new(newer, &ask(), Policy::Any).unwrap_err();
    assert_eq!(
        (refusal.code, refusal.what.as_str()),
        (
            "E0505",
            "plugin `probe` 0.3.1 needs plugin ABI 1.2, and this weir speaks 1.0"
        )
    );
    let named = Ask {
        name: "stain".into(),
        ..Ask::default()
    };
    assert_eq!(refuse(&named, Policy::Any).0, "E0504");
    let version = Ask {
        version: Some("^0.4".parse().unwrap()),
        ..ask()
    };
    assert_eq!(refuse(&version, Policy::Any).0, "E0512");
    let pin = Ask {
        sha256: Some("0".repeat(64)),
        ..ask()
    };
    let (code, what) = refuse(&pin, Policy::Any);
    assert!(code == "E0507" && what.contains(&"0".repeat(64)), "{what}");
    assert_eq!(refuse(&ask(), Policy::None).0, "E0508");
    assert_eq!(refuse(&ask(), Policy::Pinned).0, "E0508");
    let pinned = Ask {
        sha256: Some(described(sound()).unwrap().file().sha256().to_uppercase()),
        ..ask()
    };
    assert!(Admitted::new(described(sound()).unwrap(), &pinned, Policy::Pinned).is_ok());
}

#[test]
fn a_pipe_is_no_plugin_and_nobody_waits_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("libprobe.so");
    let made = std::process::Command::new("mkfifo")
        .arg(&pipe)
        .status()
        .unwrap();
    assert!(made.success());
    let (done, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || done.send(weir_plugin_host::PluginFile::read(&pipe).map(drop)));
    let read = told.recv_timeout(std::time::Duration::from_secs(20));
    let refusal = read.unwrap().unwrap_err();
    assert!(refusal.code.starts_with("E05"), "{refusal}");
}

/// Whoever may write to the folder of a link decides where it leads.
#[test]
fn a_link_in_a_folder_that_all_may_write_to_is_refused_wherever_it_leads() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let folder = tempfile::tempdir().unwrap();
    let so = build(folder.path(), "probe", &source(Some(MANIFEST), true), &[]);
    let open = folder.path().join("open");
    std::fs::create_dir_all(open.join("deep")).unwrap();
    symlink(&so, open.join("deep/link.so")).unwrap();
    symlink(open.join("deep"), folder.path().join("by")).unwrap();
    let chain = folder.path().join("chain.so");
    symlink("by/link.so", &chain).unwrap();
    let read = |path: &Path| weir_plugin_host::PluginFile::read(path).map(drop);
    assert_eq!(read(&chain), Ok(()));
    for mode in [0o777, 0o1777] {
        std::fs::set_permissions(open.join("deep"), PermissionsExt::from_mode(mode)).unwrap();
        for path in [&chain, &open.join("deep/link.so")] {
            let refusal = read(path).unwrap_err();
            assert_eq!(refusal.code, "E0508", "{refusal}");
            let deep = open.join("deep");
            assert!(refusal.what.contains(&*deep.to_string_lossy()), "{refusal}");
        }
        assert_eq!(read(&so), Ok(()));
    }
}

#[test]
fn a_library_without_the_section_is_described_by_the_manifest_beside_it_and_known_by_both() {
    let folder = tempfile::tempdir().unwrap();
    let so = silent(folder.path(), "libprobe");
    let beside = folder.path().join("probe.manifest.json");
    let admitted = |sha256: Option<&str>| {
        let ask = Ask {
            sha256: sha256.map(str::to_owned),
            ..ask()
        };
        Admitted::new(Described::read(&so)?, &ask, Policy::Any)
    };
    assert_eq!(admitted(None).unwrap_err().code, "E0503");
    std::fs::write(&beside, MANIFEST).unwrap();
    let plugin = admitted(None).unwrap();
    assert_eq!(plugin.manifest().name, "probe");
    assert_eq!(plugin.file().beside().unwrap().path(), beside);
    let hash = plugin.file().sha256().to_owned();
    admitted(Some(&hash)).unwrap();
    // The manifest is as much of the plugin as the library: a default that was changed makes it another.
    std::fs::write(&beside, MANIFEST.replacen("0.15", "0.25", 1)).unwrap();
    let refusal = admitted(Some(&hash)).unwrap_err();
    assert_eq!(refusal.code, "E0507");
    assert!(
        refusal.what.contains("of it and") && refusal.what.contains("probe.manifest.json together"),
        "{refusal}"
    );
    let changed = admitted(None).unwrap();
    assert_ne!(changed.file().sha256(), hash);
    let default = |plugin: &Admitted| plugin.manifest().stages[0].params[0].default.clone();
    assert_eq!(default(&changed), Some(serde_json::json!(0.25)));
    std::fs::write(&beside, MANIFEST).unwrap();
    assert_eq!(admitted(Some(&hash)).unwrap().file().sha256(), hash);
    let mut library = std::fs::read(&so).unwrap();
    library.push(0);
    std::fs::write(&so, library).unwrap();
    assert_eq!(admitted(Some(&hash)).unwrap_err().code, "E0507");
    // What is no manifest is refused as it is in a section.
    for (text, what) in [
        ("", "it is empty"),
        ("{}", "missing field"),
        ("{\"weir-abi\":\"9.0\"}", "needs plugin ABI 9.0"),
        ("{}\0", "it holds a zero byte"),
    ] {
        std::fs::write(&beside, text).unwrap();
        let refusal = admitted(None).unwrap_err();
        assert!(refusal.what.contains(what), "{text}: {refusal}");
    }
}

#[test]
fn the_section_wins_and_a_manifest_beside_it_may_only_say_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let so = folder.path().join("libprobe.so");
    let beside = folder.path().join("probe.manifest.json");
    std::fs::write(&so, sound()).unwrap();
    let alone = Described::read(&so).unwrap();
    // Other spaces are no other manifest.
    let value: serde_json::Value = serde_json::from_str(MANIFEST).unwrap();
    std::fs::write(&beside, value.to_string()).unwrap();
    let both = Described::read(&so).unwrap();
    assert_eq!(both.file().sha256(), alone.file().sha256());
    assert!(both.file().beside().is_none());
    for other in [MANIFEST.replacen("0.15", "0.25", 1), "{".into()] {
        std::fs::write(&beside, other).unwrap();
        let refusal = Described::read(&so).unwrap_err();
        assert_eq!(refusal.code, "E0504");
        assert!(
            refusal
                .what
                .contains("probe.manifest.json beside it say different things"),
            "{refusal}"
        );
    }
}

proptest! {
    /// Whatever is in a file, it is a plugin or a refusal: no panic, and nothing runs.
    #[test]
    fn bytes_that_were_changed_anywhere_are_a_plugin_or_a_refusal(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20)
    ) {
        let mut bytes = sound().to_vec();
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        let _ = described(&bytes);
    }
}
