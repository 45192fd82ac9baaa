//! `weir validate`: every mistake of every file at once.

use crate::args;
use crate::message::{Done, Manner, Refusal};
use crate::pipeline;
use crate::plugin;
use std::path::{Path, PathBuf};
use weir_pipeline::Overrides;
use weir_runtime::exit;

/// What pipeline files in folders end in.
const ENDING: &str = ".weir.toml";

/// Checks files; exit code 2 when one has mistakes.
pub fn validate(arguments: &args::Validate, manner: &Manner) -> Done {
    let overrides = Overrides {
        variables: pipeline::variables(&arguments.variables)?,
        set: arguments.set.clone(),
        ..Overrides::default()
    };
    let registry = weir_stages::registry();
    let plugins = plugin::catalogue(false)?;
    let mut wrong = false;
    for file in files(&arguments.files)? {
        let checked = weir_pipeline::check(&file, &overrides, &registry, &plugins);
        pipeline::print(&checked.diagnostics, &checked.sources, manner);
        wrong |= checked.has_errors() || arguments.deny_warnings && !checked.diagnostics.is_empty();
    }
    Ok(if wrong { exit::USAGE } else { exit::DONE })
}

/// The files that are named, and those in the folders that are named.
fn files(named: &[PathBuf]) -> Result<Vec<PathBuf>, Refusal> {
    let mut files = Vec::new();
    for path in named {
        if path.is_dir() {
            let found = in_folder(path)?;
            if found.is_empty() {
                return Err(Refusal::usage(
                    format!("{} holds no pipeline file", path.display()),
                    format!("pipeline files in folders end in {ENDING}"),
                ));
            }
            files.extend(found);
        } else {
            files.push(path.clone());
        }
    }
    Ok(files)
}

fn in_folder(folder: &Path) -> Result<Vec<PathBuf>, Refusal> {
    let mut files = Vec::new();
    for entry in walkdir::WalkDir::new(folder).sort_by_file_name() {
        let entry = entry.map_err(|error| {
            Refusal::usage(
                format!("{} cannot be searched: {error}", folder.display()),
                "check its permissions",
            )
        })?;
        if entry.file_type().is_file() && entry.file_name().to_string_lossy().ends_with(ENDING) {
            files.push(entry.into_path());
        }
    }
    Ok(files)
}
