//! Starts the built program as a user would, and keeps what it said.
#![allow(dead_code, clippy::unwrap_used)]

pub mod features;
pub mod models;
#[path = "../../engine/cli/src/cases/tiled.rs"]
pub mod tiled;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What the program said.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
    pub took: Duration,
}

impl Said {
    /// Panics with everything that was said unless the exit code is `code`.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(
            self.code,
            Some(code),
            "\n--- stdout\n{}\n--- stderr\n{}",
            self.out,
            self.err
        );
        self
    }
}

/// The project's top folder.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .unwrap()
        .to_owned()
}

pub fn fixture(name: &str) -> PathBuf {
    root().join("tests/fixtures").join(name)
}

/// `weir ARGUMENTS`, in the project's top folder.
pub fn command<I: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = I>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    command
        .args(arguments)
        .current_dir(root())
        .stdin(Stdio::null())
        // Panics would be told in more words than users see.
        .env_remove("RUST_BACKTRACE");
    command
}

/// Runs `weir ARGUMENTS` to its end.
pub fn weir<I: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = I>) -> Said {
    said(command(arguments))
}

pub fn said(mut command: Command) -> Said {
    let start = Instant::now();
    let output = command.output().unwrap();
    Said {
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
        took: start.elapsed(),
    }
}

/// Every file below `folder` by its path there, except what says when and how (`run.json`).
pub fn files(folder: &Path) -> std::collections::BTreeMap<String, Vec<u8>> {
    let mut found = std::collections::BTreeMap::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder_now) = open.pop() {
        for entry in std::fs::read_dir(&folder_now).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                let name = path
                    .strip_prefix(folder)
                    .unwrap()
                    .to_string_lossy()
                    .into_owned();
                found.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// Files whose bytes must not depend on how a run was scheduled.
pub fn answers(folder: &Path) -> std::collections::BTreeMap<String, String> {
    let tables = ["predictions.csv", "patients.csv", "worklist.csv"];
    files(folder)
        .into_iter()
        .filter(|(name, _)| name.ends_with("tiles.csv") || tables.contains(&name.as_str()))
        .map(|(name, bytes)| (name, String::from_utf8(bytes).unwrap()))
        .collect()
}

/// A mottled purple that no two kinds of tile share: tissue to every mask.
pub fn tissue(kind: u64, pixels: &mut [u8]) {
    let mut state = (kind + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for pixel in pixels.as_chunks_mut::<3>().0 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let noise = (state >> 32) as u8 / 6;
        let shade = (kind % 60) as u8;
        *pixel = [120 + noise + shade, 50 + noise, 130 + noise];
    }
}

/// Writes a slide of `columns` x `rows` different tiles of tissue of 64 px at 1 um/px; `seed` tells slides apart.
pub fn slide(path: &Path, columns: u32, rows: u32, seed: u64) {
    let slide = tiled::Tiled {
        width: columns * 64,
        height: rows * 64,
        tile: 64,
        mpp: Some(1.0),
    };
    let kind = |column: u32, row: u32| seed * 1_000_000 + u64::from(row * columns + column);
    let paint = |column, row, pixels: &mut [u8]| tissue(kind(column, row), pixels);
    slide.write(path, &kind, &paint).unwrap();
}

/// `OUT/run.json`.
pub fn record(out: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(out.join("run.json")).unwrap()).unwrap()
}

/// Waits until `done` says so; panics after `limit`.
#[track_caller]
pub fn wait_until(limit: Duration, what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(
            start.elapsed() < limit,
            "{what} did not happen within {limit:?}"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}
