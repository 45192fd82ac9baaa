//! `weir doctor`: what this machine has and what is missing, each with the remedy.
//!
//! Nothing here can end the program: CUDA's driver is opened behind a probe that cannot panic.

mod cuda;
mod plugins;

use crate::args::Format;
use crate::message::{Done, Manner, Refusal};
use crate::shown;
use serde_json::json;
use std::io::Write;
use std::path::{Path, PathBuf};
use weir_libraries::Place;
use weir_model::executor::onnxruntime;
use weir_runtime::exit;

/// How a finding is to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Judgement {
    /// As it should be.
    Good,
    /// Works without it, slower or with less.
    Note,
    /// A run will fail.
    Bad,
}

/// One thing that was looked at.
#[derive(Debug)]
struct Finding {
    name: &'static str,
    judgement: Judgement,
    what: String,
    remedy: String,
}

fn finding(name: &'static str, judgement: Judgement, what: String, remedy: &str) -> Finding {
    Finding {
        name,
        judgement,
        what,
        remedy: remedy.to_owned(),
    }
}

fn good(name: &'static str, what: String) -> Finding {
    finding(name, Judgement::Good, what, "")
}

/// Looks at everything and prints it; exit code 1 when a run would fail.
pub fn doctor(folder: &Path, manner: &Manner, out: &mut dyn Write) -> Done {
    let mut findings = vec![
        good("weir", env!("CARGO_PKG_VERSION").to_owned()),
        processor(),
        memory(),
        open_files(),
        onnx_runtime(),
        good(
            "burn",
            format!(
                "{}, on the processor; always there",
                weir_model::executor::burn::VERSION
            ),
        ),
    ];
    findings.extend(cuda::findings());
    findings.extend([openslide(), plugins::finding(), disk(folder)]);
    for finding in &findings {
        match manner.format {
            Format::Json => writeln!(
                out,
                "{}",
                json!({
                    "name": finding.name,
                    "state": match finding.judgement {
                        Judgement::Good => "good",
                        Judgement::Note => "note",
                        Judgement::Bad => "bad",
                    },
                    "what": finding.what,
                    "remedy": finding.remedy,
                })
            )?,
            _ => {
                let mark = match finding.judgement {
                    Judgement::Good => "ok",
                    Judgement::Note => "--",
                    Judgement::Bad => "!!",
                };
                writeln!(out, "{mark}  {:<13}{}", finding.name, finding.what)?;
                if !finding.remedy.is_empty() {
                    writeln!(out, "                 {}", finding.remedy)?;
                }
            }
        }
    }
    let bad = findings
        .iter()
        .filter(|finding| finding.judgement == Judgement::Bad)
        .count();
    if bad > 0 {
        return Err(Refusal::failed(
            format!(
                "{} would keep a run from succeeding",
                shown::counted(bad as u64, "finding")
            ),
            "see the lines that begin with !!",
        ));
    }
    Ok(exit::DONE)
}

fn processor() -> Finding {
    match std::thread::available_parallelism() {
        Ok(cores) => good("processor", shown::counted(cores.get() as u64, "core")),
        Err(error) => finding(
            "processor",
            Judgement::Note,
            format!("the number of cores is not known: {error}"),
            "give [run] readers and helpers in the pipeline file",
        ),
    }
}

/// Bytes of a line of /proc/meminfo, as `MemAvailable:   1234 kB`.
fn kib_line(text: &str, key: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
    let number: u64 = rest
        .trim_start_matches(':')
        .split_whitespace()
        .next()?
        .parse()
        .ok()?;
    Some(number * 1024)
}

fn memory() -> Finding {
    const NAME: &str = "memory";
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    match (kib_line(&text, "MemTotal"), kib_line(&text, "MemAvailable")) {
        (Some(total), Some(free)) => {
            let what = format!("{}, {} free", shown::bytes(total), shown::bytes(free));
            // The default budget, and about as much again for models, libraries and the allocator.
            if free < 2 << 30 {
                finding(
                    NAME,
                    Judgement::Note,
                    what,
                    "give a smaller budget than the default of 1 GiB, as --set run.memory='\"256MiB\"'",
                )
            } else {
                good(NAME, what)
            }
        }
        _ => finding(
            NAME,
            Judgement::Note,
            "not known: /proc/meminfo cannot be read".into(),
            "give [run] memory in the pipeline file",
        ),
    }
}

fn open_files() -> Finding {
    const NAME: &str = "open files";
    let text = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let limit = text
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))
        .and_then(|rest| rest.split_whitespace().next().map(str::to_owned));
    match limit.as_deref().map(|limit| (limit, limit.parse::<u64>())) {
        Some((_, Ok(files))) if files < 256 => finding(
            NAME,
            Judgement::Note,
            format!("at most {files}"),
            "many workers with many open slides need more: ulimit -n 4096",
        ),
        Some((limit, _)) => good(NAME, format!("at most {limit}")),
        None => finding(
            NAME,
            Judgement::Note,
            "the limit is not known".into(),
            "see ulimit -n",
        ),
    }
}

fn onnx_runtime() -> Finding {
    const NAME: &str = "onnxruntime";
    match onnxruntime::library(None) {
        Ok(library) => {
            let cuda = library
                .path
                .parent()
                .map(|folder| folder.join("libonnxruntime_providers_cuda.so"))
                .is_some_and(|provider| provider.is_file());
            let with = if cuda { "with" } else { "without" };
            good(
                NAME,
                format!(
                    "{}, {}, {with} its CUDA provider",
                    library.version,
                    library.path.display()
                ),
            )
        }
        Err(error) => finding(
            NAME,
            Judgement::Note,
            error.to_string(),
            "without it the networks run in burn, at a third to two thirds of the speed",
        ),
    }
}

/// The file of this name in the folders where the loader looks.
fn library(names: &[&str]) -> Option<PathBuf> {
    let mut folders: Vec<PathBuf> = std::env::var_os("LD_LIBRARY_PATH")
        .map(|paths| std::env::split_paths(&paths).collect())
        .unwrap_or_default();
    folders.extend(
        [
            "/usr/lib/x86_64-linux-gnu",
            "/usr/lib/aarch64-linux-gnu",
            "/lib/x86_64-linux-gnu",
            "/usr/lib64",
            "/usr/lib/wsl/lib",
            "/usr/local/lib",
            "/usr/local/nvidia/lib64",
            "/usr/lib",
        ]
        .map(PathBuf::from),
    );
    folders
        .iter()
        .flat_map(|folder| names.iter().map(move |name| folder.join(name)))
        .find(|path| path.exists())
}

fn openslide() -> Finding {
    const NAME: &str = "openslide";
    let found = weir_libraries::openslide()
        .into_iter()
        .find_map(|place| match place {
            Place::Named(path) => Some(path),
            Place::Here(path) => Some(path),
            Place::System(name) => library(&[name]),
        });
    let Some(path) = found else {
        return finding(
            NAME,
            Judgement::Note,
            "not found; only the plugin `openslide` needs it, for formats that weir does not read itself".into(),
            "`make openslide` takes it out of the PyPI wheel `openslide-bin`, or set WEIR_OPENSLIDE to the file",
        );
    };
    if !path.is_file() {
        return finding(
            NAME,
            Judgement::Note,
            format!(
                "WEIR_OPENSLIDE names {}, and there is no such file",
                path.display()
            ),
            "correct it, or leave it unset",
        );
    }
    let name = path.file_name().unwrap_or_default();
    let old = name == weir_libraries::OPENSLIDE[1];
    let version = if old { " (3.4: no DICOM, no CZI)" } else { "" };
    good(
        NAME,
        format!(
            "{}{version}, for the plugin `openslide`{}",
            path.display(),
            plugins::cache_of("openslide")
        ),
    )
}

fn disk(folder: &Path) -> Finding {
    const NAME: &str = "outputs";
    let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let Some(there) = absolute.ancestors().find(|part| part.is_dir()) else {
        return finding(
            NAME,
            Judgement::Bad,
            format!("{}: no folder above it exists", folder.display()),
            "give another one with --out",
        );
    };
    if let Err(error) = tempfile::tempfile_in(there) {
        return finding(
            NAME,
            Judgement::Bad,
            format!("{} cannot be written: {error}", there.display()),
            "give another folder with --out, or change its permissions",
        );
    }
    match rustix::fs::statvfs(there) {
        Ok(disk) => {
            let free = disk.f_bavail * disk.f_frsize;
            let what = format!("{}: {} free", folder.display(), shown::bytes(free));
            // Tables and pictures of a slide take some megabytes.
            if free < 256 << 20 {
                finding(
                    NAME,
                    Judgement::Note,
                    what,
                    "a slide's tables and pictures take some megabytes: make room",
                )
            } else {
                good(NAME, what)
            }
        }
        Err(error) => finding(
            NAME,
            Judgement::Note,
            format!("{}: the free space is not known: {error}", folder.display()),
            "see df",
        ),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_line_of_meminfo_is_read_in_bytes() {
        let text = "MemTotal:       24000000 kB\nMemFree:  1 kB\nMemAvailable:   2048 kB\n";
        assert_eq!(kib_line(text, "MemAvailable"), Some(2048 * 1024));
        assert_eq!(kib_line(text, "Swap"), None);
        assert_eq!(kib_line("MemTotal: much kB", "MemTotal"), None);
    }

    #[test]
    fn a_folder_that_does_not_exist_yet_is_judged_by_the_one_above() {
        let folder = tempfile::tempdir().unwrap();
        let finding = disk(&folder.path().join("a/b"));
        assert_eq!(finding.judgement, Judgement::Good, "{finding:?}");
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        std::fs::set_permissions(
            folder.path(),
            std::os::unix::fs::PermissionsExt::from_mode(0o555),
        )
        .unwrap();
        // The administrator may write anywhere, so this half shows something only for others.
        if std::fs::write(folder.path().join("probe"), "").is_err() {
            assert_eq!(disk(&folder.path().join("a")).judgement, Judgement::Bad);
        }
    }
}
