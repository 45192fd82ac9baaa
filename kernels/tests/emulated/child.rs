//! Runs a case in a child process: this test binary again, with the emulated `libcuda.so` before any other.

use std::fs::File;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::build::{library, sanitizer_runtime};
use super::{Setting, Variant};

const INSIDE: &str = "WEIR_EMU_CASE";
const SAID: &str = "case says ";

/// True in a child process. A case returns at once where it is not, so that `--ignored` on the command line is harmless.
pub fn inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// In a case: a value for [`Outcome::said`].
pub fn say(key: &str, value: impl std::fmt::Display) {
    println!("\n{SAID}{key}: {value}");
}

/// What came of a case.
#[derive(Debug)]
pub struct Outcome {
    /// The child's exit status.
    pub status: ExitStatus,
    /// Its standard output and error.
    pub output: String,
    what: String,
}

impl Outcome {
    /// The case ran and passed.
    #[track_caller]
    pub fn passed(self) -> Outcome {
        assert!(
            self.status.success() && self.output.contains("1 passed"),
            "{}: {}\n{}",
            self.what,
            self.status,
            self.output
        );
        self
    }

    /// The case failed, and `report` is among what it or the emulator printed.
    #[track_caller]
    pub fn failed_with(self, report: &str) -> Outcome {
        assert!(
            !self.status.success(),
            "{}: passed; expected {report:?}\n{}",
            self.what,
            self.output
        );
        assert!(
            self.output.contains(report),
            "{}: failed without {report:?}\n{}",
            self.what,
            self.output
        );
        self
    }

    /// The driver's calls between what the case said under two keys, where the setting has WEIR_EMU_TRACE=1: names, in order.
    #[track_caller]
    pub fn calls(&self, from: &str, to: &str) -> Vec<&str> {
        let says = |key: &str| {
            let line = format!("{SAID}{key}: ");
            let at = self.output.find(&line);
            at.unwrap_or_else(|| panic!("{}: nothing said of {key}\n{}", self.what, self.output))
        };
        self.output[says(from)..says(to)]
            .lines()
            .filter_map(|line| line.strip_prefix("driver: cu"))
            .filter(|call| call.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
            .collect()
    }

    /// What the case said under `key`.
    #[track_caller]
    pub fn said(&self, key: &str) -> String {
        let start = format!("{SAID}{key}: ");
        self.output
            .lines()
            .find_map(|line| line.strip_prefix(&start))
            .unwrap_or_else(|| panic!("{}: nothing said of {key}\n{}", self.what, self.output))
            .to_owned()
    }
}

/// Has `command` find a variant of the library as `libcuda.so`, under a setting.
///
/// # Panics
///
/// If the library cannot be built.
pub fn under(command: &mut Command, variant: Variant, setting: &Setting) {
    command
        .env("LD_LIBRARY_PATH", library(variant))
        .env("WEIR_EMU_SEED", setting.seed.to_string())
        .env("WEIR_EMU_CP", if setting.late { "late" } else { "early" })
        .env("WEIR_EMU_LAZY", u32::from(setting.lazy).to_string())
        .env("WEIR_EMU_SMS", setting.multiprocessors.to_string())
        .env(
            "WEIR_EMU_CC",
            format!("{}.{}", setting.capability.0, setting.capability.1),
        )
        .env("WEIR_EMU_WORKERS", setting.workers.to_string())
        .env("WEIR_EMU_DRIVER", setting.driver.to_string())
        .envs(
            setting
                .environment
                .iter()
                .map(|(name, value)| (name, value)),
        );
    if variant.sanitized {
        command
            .env("LD_PRELOAD", sanitizer_runtime())
            .env(
                "ASAN_OPTIONS",
                "detect_leaks=0:abort_on_error=1:detect_stack_use_after_return=0",
            )
            .env(
                "UBSAN_OPTIONS",
                "halt_on_error=1:abort_on_error=1:print_stacktrace=1",
            );
    }
}

/// Runs the ignored test `case` (its full path, such as `pool::case_ragged`) of this binary on a variant under a setting.
///
/// # Panics
///
/// If the library cannot be built, the case does not exist, or the child takes longer than the setting's patience.
#[track_caller]
pub fn run(variant: Variant, setting: &Setting, case: &str) -> Outcome {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let library = library(variant);
    let what = format!("{case} on {variant:?} under {setting:?}");
    let log = library.join(format!(
        "{}-{}.log",
        std::process::id(),
        COUNT.fetch_add(1, Ordering::Relaxed)
    ));
    let file = File::create(&log).expect("target's tmp folder is writable");
    let program = std::env::current_exe().expect("the running test has a path");
    let mut command = Command::new(program);
    command
        .args([
            "--exact",
            case,
            "--ignored",
            "--nocapture",
            "--test-threads=1",
        ])
        .stdin(Stdio::null())
        .stdout(file.try_clone().expect("a file has a second handle"))
        .stderr(file)
        .env(INSIDE, case);
    under(&mut command, variant, setting);
    let mut child = command.spawn().expect("this program starts again");
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            break status;
        }
        if start.elapsed() > Duration::from_secs(setting.patience) {
            child
                .kill()
                .and_then(|()| child.wait())
                .expect("a child can be ended");
            panic!(
                "{what}: no end after {} s\n{}",
                setting.patience,
                text(&log)
            );
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let output = text(&log);
    assert!(
        output.contains("running 1 test"),
        "{what}: this binary has no ignored test of that name\n{output}"
    );
    std::fs::remove_file(&log).expect("this test's own file");
    Outcome {
        status,
        output,
        what,
    }
}

fn text(log: &std::path::Path) -> String {
    let bytes = std::fs::read(log).expect("this test's own file");
    String::from_utf8_lossy(&bytes).into_owned()
}
