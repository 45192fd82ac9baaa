//! What `weir plugin new` writes: it builds, its own tests pass, and its stage runs.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use weir_plugin::harness::{Library, Rows};
use weir_plugin_host::Described;
use weir_plugin_host::check::{self, Order, Verdict};
use weir_plugin_host::new::{Language, project};

fn run(command: &mut Command) {
    let out = command.output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{command:?} failed: {said}");
}

fn skips_bright_tiles(library: &Path, name: &str) {
    assert_eq!(Described::read(library).unwrap().manifest().name, name);
    let stage = Library::open(library)
        .unwrap()
        .stage(&format!("{name}.filter"))
        .unwrap();
    let stage = stage.set("limit", 100.0).start().unwrap();
    let tiles = Rows::pixels(2, 2)
        .push("a", 0, 0, &[90_u8; 12])
        .push("a", 2, 0, &[110_u8; 12]);
    let done = stage.process(tiles).unwrap();
    assert_eq!(done.kept(), [0]);
    assert_eq!(done.skipped(), [(1, "bright")]);
    stage.end().unwrap();
}

/// The environment variable that makes this program one test's process.
const ERRAND: &str = "WEIR_TEST_ERRAND";

/// In a process of its own: what `weir plugin trial` does.
#[test]
fn a_test_of_the_checks() {
    if std::env::var_os(ERRAND).is_some() {
        let errand = std::env::args().next_back().unwrap();
        println!("\n{}", check::child(&errand));
        // The harness would say more, and what is found is the last line.
        std::process::exit(0);
    }
}

/// That `weir plugin check` finds nothing.
fn passes_the_checks(library: &Path) {
    let order = Order {
        file: library.to_owned(),
        seed: 7,
        timeout: Duration::from_secs(60),
        only: Vec::new(),
        set: Vec::new(),
        slide: None,
    };
    let mut passed = 0;
    for test in check::plan(&order).unwrap() {
        let mut program = Command::new(std::env::current_exe().unwrap());
        program
            .args(["--exact", "a_test_of_the_checks", "--nocapture", "--"])
            .env(ERRAND, "1");
        let found = check::run(&order, &test, program);
        assert_ne!(found.verdict, Verdict::Failed, "{found:?}");
        passed += usize::from(found.verdict == Verdict::Passed);
    }
    assert!(passed > 15, "{passed}");
}

#[test]
fn a_new_project_in_c_builds_and_runs() {
    let folder = tempfile::tempdir().unwrap();
    project("dark-tiles", Language::C, folder.path(), None).unwrap();
    let mut make = Command::new("make");
    make.env_remove("MAKEFLAGS")
        .env_remove("MFLAGS")
        .env("CFLAGS", "-O2 -Werror");
    run(make.arg("-C").arg(folder.path()));
    let library = folder.path().join("libdark-tiles.so");
    skips_bright_tiles(&library, "dark-tiles");
    passes_the_checks(&library);
}

/// With the SDK of this checkout and the versions of its lock file, so nothing is asked of the network.
#[test]
fn a_new_project_in_rust_builds_and_runs() {
    let sdk = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().unwrap();
    project("dark-tiles", Language::Rust, folder.path(), Some(sdk)).unwrap();
    let root = sdk.ancestors().nth(2).unwrap();
    std::fs::copy(root.join("Cargo.lock"), folder.path().join("Cargo.lock")).unwrap();
    // Beside the other builds, so that its dependencies are built once.
    let here = std::env::current_exe().unwrap();
    let target: PathBuf = here.ancestors().nth(3).unwrap().join("templates");
    let cargo = |what: &[&str]| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo
            .args(what)
            .args(["--offline", "--quiet"])
            .current_dir(folder.path());
        run(cargo.env("CARGO_TARGET_DIR", &target));
    };
    cargo(&["test"]);
    cargo(&["build"]);
    let library = target.join("debug/libdark_tiles.so");
    skips_bright_tiles(&library, "dark-tiles");
    passes_the_checks(&library);
}
