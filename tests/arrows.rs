//! The house has one-way arrows: which crate may know which stands here, and the manifests are held against it.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Crate -> crates of the workspace that it may depend on (dev-dependencies aside).
const ARROWS: &[(&str, &[&str])] = &[
    ("record", &[]),
    ("kernels", &[]),
    ("libraries", &[]),
    ("abi", &[]),
    ("plugin", &["abi", "plugin-derive"]),
    ("plugin-derive", &[]),
    ("plugin-openslide", &["plugin", "libraries"]),
    (
        "plugin-host",
        &["abi", "record", "slide", "pipeline", "runtime"],
    ),
    ("plugin-stain", &["plugin"]),
    ("plugin-features", &["plugin"]),
    ("plugin-onnx", &["plugin", "libraries"]),
    ("bench-kernels", &["kernels"]),
    ("slide", &["record"]),
    ("pipeline", &["record"]),
    ("model", &["record", "kernels", "pipeline", "libraries"]),
    ("runtime", &["record", "pipeline"]),
    ("views", &["record", "pipeline", "runtime"]),
    (
        "stages",
        &["record", "slide", "model", "kernels", "pipeline", "runtime"],
    ),
    (
        "learn",
        &[
            "record", "slide", "model", "kernels", "pipeline", "runtime", "stages",
        ],
    ),
];

/// Library -> folders that may name it.
const CONFINED: &[(&str, &[&str])] = &[
    ("timely", &["engine/runtime", "engine/views"]),
    ("differential-dataflow", &["engine/views"]),
    ("burn", &["engine/model", "engine/learn"]),
    ("ort", &["engine/model", "plugins/onnx"]),
    ("clap", &["engine/cli"]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .unwrap()
        .to_owned()
}

fn dependencies(folder: &str) -> BTreeSet<String> {
    let manifest = std::fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
    let manifest: toml::Table = manifest.parse().unwrap();
    let Some(dependencies) = manifest.get("dependencies") else {
        return BTreeSet::new();
    };
    let dependencies = dependencies.as_table().unwrap();
    dependencies.keys().cloned().collect()
}

fn folder(name: &str) -> String {
    match name {
        "kernels" => "kernels".into(),
        "abi" => "plugins/abi".into(),
        "plugin" => "plugins/sdk".into(),
        "plugin-derive" => "plugins/sdk/derive".into(),
        "plugin-openslide" => "plugins/openslide".into(),
        "plugin-host" => "plugins/host".into(),
        "plugin-stain" => "plugins/stain".into(),
        "plugin-features" => "plugins/features".into(),
        "plugin-onnx" => "plugins/onnx".into(),
        "bench-kernels" => "benches/kernels".into(),
        _ => format!("engine/{name}"),
    }
}

#[test]
fn crates_depend_only_along_the_arrows() {
    let allowed: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    for (name, may) in allowed {
        for dependency in dependencies(&folder(name)) {
            if let Some(other) = dependency.strip_prefix("weir-") {
                assert!(may.contains(&other), "{name} must not depend on {other}");
            }
        }
    }
}

#[test]
fn libraries_stay_in_their_rooms() {
    let mut folders: Vec<String> = ARROWS.iter().map(|(name, _)| folder(name)).collect();
    folders.push("engine/cli".into());
    for (library, rooms) in CONFINED {
        for folder in &folders {
            if dependencies(folder).contains(*library) {
                assert!(
                    rooms.contains(&folder.as_str()),
                    "{folder} must not name {library}"
                );
            }
        }
    }
}

#[test]
fn unsafe_code_stays_in_its_rooms() {
    // record/slab, kernels/cuda, abi, sdk, plugin-host and the loaders of libraries (DESIGN 2).
    let rooms = [
        // The slab's memory that plugins' processes read.
        "engine/record/src/arena.rs",
        "kernels/src/cuda",
        // Views of memory; vectors of AVX2; products of matrices.
        "kernels/src/view.rs",
        "kernels/src/auto/tests/",
        "kernels/src/cpu/",
        "engine/model/src",
        "plugins/",
        // Views of device memory, a matrix product, two of NVIDIA's libraries.
        "benches/kernels/src/device.rs",
        "benches/kernels/src/ceilings.rs",
        "benches/kernels/src/cublas.rs",
        "benches/kernels/src/nvtx.rs",
    ];
    for (name, _) in ARROWS {
        let source = root().join(folder(name)).join("src");
        for file in walk(&source) {
            let shown = file
                .strip_prefix(root())
                .unwrap()
                .to_string_lossy()
                .into_owned();
            if rooms.iter().any(|room| shown.starts_with(room)) {
                continue;
            }
            let text = std::fs::read_to_string(&file).unwrap();
            let block = text.lines().position(|line| {
                let code = line.split("//").next().unwrap_or_default();
                code.contains("unsafe {")
                    || code.contains("unsafe fn")
                    || code.contains("unsafe impl")
            });
            assert_eq!(block, None, "unsafe code in {shown}");
        }
    }
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(walk(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            files.push(path);
        }
    }
    files
}
