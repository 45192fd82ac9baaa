//! Host and C plugin in one process touch no memory that is not theirs: under Valgrind, which sees every access of both, and with the
//! plugin under AddressSanitizer, whose runtime then has all of the process's heap. Each finds an overrun that is put into the plugin.
#![allow(clippy::unwrap_used)]

mod sins;

use sins::{batch, info, made, outcomes, tile, tiles, way};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use weir_pipeline::{Node, Plan, RunSettings, StageRun, Value, Values};
use weir_plugin_host::{Admitted, Ask, Described, Loaded, Plugins, Policy, stage_type};
use weir_record::{Body, Budget, Key, Slab, SlideId, TileBuf, TileId};
use weir_runtime::stage::{Batch, Prepare, Prepared, Shared, StageError};

/// The library of blur-c that the process below loads.
const BLUR: &str = "WEIR_TEST_BLUR";

/// What Valgrind ends with when it found something; nothing else does.
const FOUND: i32 = 99;

/// blur-c, compiled with these flags; `planted` reads a line behind the last of each tile.
fn blur(folder: &Path, flags: &[&str], planted: bool) -> PathBuf {
    let plugins = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let sound = std::fs::read_to_string(plugins.join("blur-c/blur.c")).unwrap();
    let last = "for (int64_t y = 1; y + 1 < height; y++)";
    assert!(sound.contains(last));
    let text = match planted {
        true => sound.replace(last, "for (int64_t y = 1; y < height; y++)"),
        false => sound,
    };
    let name = if planted { "planted" } else { "sound" };
    let (c, so) = (
        folder.join(format!("{name}.c")),
        folder.join(format!("lib{name}.so")),
    );
    std::fs::write(&c, text).unwrap();
    let built = Command::new("gcc")
        .args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-g", "-O1"])
        .args(["-fPIC", "-shared"])
        .args(flags)
        .arg("-I")
        .arg(plugins.join("abi"))
        .arg("-o")
        .args([&so, &c])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "{said}");
    so
}

/// A stage of blur-c over the host's own functions.
fn filter(library: &Path) -> Prepared {
    let ask = Ask {
        name: "blur-c".into(),
        ..Ask::default()
    };
    let described = Described::read(library).unwrap();
    let schema = &described.schemas()[0];
    let admitted = Admitted::new(described, &ask, Policy::Any).unwrap();
    let plugins = Plugins {
        loaded: vec![Loaded::new(&admitted).unwrap()],
        ..Plugins::default()
    };
    let node = Node {
        name: "sharp".into(),
        schema,
        values: Values([("sharpness-min".into(), Value::Float(25.0))].into()),
        inputs: Vec::new(),
        run: StageRun::default(),
        shapes: vec![vec![16, 16, 3]],
    };
    let plan = Plan {
        name: "test".into(),
        file: PathBuf::new(),
        run: RunSettings::default(),
        models: Default::default(),
        plugins: Vec::new(),
        nodes: Vec::new(),
        hash: String::new(),
    };
    let shared = Shared::default();
    shared
        .get_or_try("", || Ok::<_, StageError>(plugins))
        .unwrap();
    let budget = Budget::new(1 << 24);
    let prepare = Prepare {
        plan: &plan,
        node: &node,
        shared: &shared,
        budget: &budget,
        slab: &Slab::within(&budget),
    };
    (stage_type(schema).prepare)(&prepare).unwrap()
}

/// Eight tiles of 16 x 16 px, each in memory of its own: of one grey, and checkered.
fn checkered() -> Batch {
    let rows = (0..8_i64).map(|i| {
        let pixels = (0..16 * 16 * 3).map(|at| match (i % 2, at / 3 % 2) {
            (1, 1) => 255,
            _ => 10,
        });
        let data: Vec<u8> = pixels.collect();
        let key = Key {
            slide: SlideId::new(0, 1),
            tile: TileId::new(0, 0, i * 16, 0).unwrap(),
            rev: 0,
        };
        let tile = TileBuf::new(16, 16, data.into(), None).unwrap();
        (key, Body::Pixels(Arc::new(tile)), info("a"), None)
    });
    Batch::new(rows.collect(), 1)
}

/// Batches, errors, rows alone, copies, batches that are kept and released late, counters, calls that end on another thread: of
/// blur-c, and of the C plugin whose author errs in every way that a process survives.
#[test]
#[ignore = "run by the tests below, under what watches memory"]
fn alone_calls_of_every_kind() {
    let Some(library) = std::env::var_os(BLUR) else {
        panic!("{BLUR} names no library");
    };
    let Prepared::Work(work) = filter(Path::new(&library)) else {
        panic!("no filter");
    };
    for _ in 0..3 {
        let mut all = checkered();
        work.run(&mut all).unwrap();
        for i in 0..all.len() {
            let kept = matches!(all.outcome(i, 0), Some(Body::Pixels(_)));
            assert_eq!(kept, i % 2 == 1, "row {i}");
        }
    }
    drop(work);
    let here = way(false);
    for (id, hows) in [
        (
            "sins.pass",
            &[
                "", "skip", "fail", "lose", "later", "row", "status", "count", "log", "twice",
            ][..],
        ),
        ("sins.invert", &["", "edit", "double", "port", "retain"][..]),
        ("sins.mean", &["", "nan"][..]),
    ] {
        for how in hows {
            let made = made(id, how, &here).unwrap();
            outcomes(made.work(), &tiles());
            // What was kept of this call is released in the next one, or when the instance is destroyed.
            let _ = made.work().run(&mut batch(&[tile(0, 0, 1)]));
        }
    }
    assert!(made("sins.pass", "refuse", &here).is_err());
}

/// This program again, with that test alone.
fn alone(program: &mut Command, library: &Path) -> Output {
    program
        .args(["--exact", "alone_calls_of_every_kind", "--ignored"])
        .args(["--test-threads", "1"])
        .env(BLUR, library)
        .env_remove("RUST_BACKTRACE")
        .output()
        .unwrap()
}

fn told(output: &Output) -> String {
    [&output.stdout[..], &output.stderr]
        .map(String::from_utf8_lossy)
        .concat()
}

fn under_valgrind(library: &Path) -> Output {
    let mut valgrind = Command::new("valgrind");
    valgrind
        .arg(format!("--error-exitcode={FOUND}"))
        .args(["--quiet", "--leak-check=full", "--show-leak-kinds=definite"])
        .args(["--errors-for-leak-kinds=definite", "--fair-sched=yes"])
        .arg(std::env::current_exe().unwrap());
    alone(&mut valgrind, library)
}

#[test]
fn host_and_c_plugin_are_clean_under_valgrind() {
    let found = Command::new("valgrind").arg("--version").output();
    assert!(
        found.is_ok(),
        "valgrind is missing: `make test` installs it, and `make packages` alone"
    );
    let folder = tempfile::tempdir().unwrap();
    let sound = under_valgrind(&blur(folder.path(), &[], false));
    assert_eq!(sound.status.code(), Some(0), "{}", told(&sound));
    let planted = under_valgrind(&blur(folder.path(), &[], true));
    let said = told(&planted);
    assert_eq!(planted.status.code(), Some(FOUND), "{said}");
    assert!(
        said.contains("memfd:weir-plugin") && said.contains("0 bytes after a block of size 768"),
        "{said}"
    );
}

/// The host is not compiled with it, which takes a compiler that is not stable; but its allocations, and what it copies and frees, go
/// through the sanitizer's runtime, which comes first in the process. Leaks are Valgrind's affair: the compiler that is started here
/// has some.
fn under_the_sanitizer(library: &Path) -> Output {
    let found = Command::new("gcc")
        .arg("-print-file-name=libasan.so")
        .output()
        .unwrap();
    let runtime = String::from_utf8(found.stdout).unwrap();
    let mut program = Command::new(std::env::current_exe().unwrap());
    program
        .env("LD_PRELOAD", runtime.trim())
        .env("ASAN_OPTIONS", "detect_leaks=0:abort_on_error=0");
    alone(&mut program, library)
}

#[test]
fn host_and_c_plugin_are_clean_with_the_address_sanitizer() {
    let folder = tempfile::tempdir().unwrap();
    let flags = ["-fsanitize=address"];
    let sound = under_the_sanitizer(&blur(folder.path(), &flags, false));
    assert_eq!(sound.status.code(), Some(0), "{}", told(&sound));
    let planted = under_the_sanitizer(&blur(folder.path(), &flags, true));
    let said = told(&planted);
    assert_ne!(planted.status.code(), Some(0), "{said}");
    assert!(
        said.contains("heap-buffer-overflow") && said.contains("luma"),
        "{said}"
    );
}
