//! `weir plugin list`.

use crate::args::Format;
use crate::message::{Done, Manner};
use crate::shown;
use serde_json::{Value, json};
use std::io::Write;
use weir_plugin_host::beside::Beside;
use weir_plugin_host::catalogue::{self, Listed};
use weir_plugin_host::{Folders, Policy, Refusal};
use weir_runtime::exit;

/// Prints every file in the folders: what it is, or why it cannot be used.
pub fn list(manner: &Manner, out: &mut dyn Write) -> Done {
    let catalogue = super::catalogue(false)?;
    let folders = catalogue.folders();
    let found = catalogue::list(folders);
    if manner.format == Format::Json {
        for each in &found {
            writeln!(out, "{}", json(each))?;
        }
        return Ok(exit::DONE);
    }
    for each in &found {
        out.write_all(text(each).as_bytes())?;
    }
    if found.is_empty() {
        writeln!(out, "no plugins; looked into")?;
        for folder in folders.iter() {
            writeln!(out, "  {}", folder.display())?;
        }
    }
    if catalogue.rules().plugins != Policy::Any {
        writeln!(out, "{} holds for all of them", catalogue.rules().said_by)?;
    }
    Ok(exit::DONE)
}

/// `2 stage types, 1 slide reader`.
pub fn holds(stages: usize, readers: usize) -> String {
    let parts = [(stages, "stage type"), (readers, "slide reader")];
    let parts = parts.into_iter().filter(|(n, _)| *n > 0);
    let parts: Vec<String> = parts
        .map(|(n, noun)| shown::counted(n as u64, noun))
        .collect();
    parts.join(", ")
}

fn text(found: &Result<Listed, Refusal>) -> String {
    let listed = match found {
        Ok(listed) => listed,
        Err(refusal) => return refused(refusal),
    };
    let manifest = match &listed.plugin {
        Ok(plugin) => plugin.manifest(),
        Err(refusal) => return refused(refusal),
    };
    let mut text = format!(
        "{} {}: {} ({})\n    {}\n",
        manifest.name,
        manifest.version,
        manifest.summary,
        holds(manifest.stages.len(), manifest.readers.len()),
        listed.path.display()
    );
    if let Some(other) = &listed.shadowed_by {
        text.push_str(&format!("    not used: {} comes first\n", other.display()));
    }
    text
}

fn refused(refusal: &Refusal) -> String {
    let path = refusal.path.as_deref();
    let path = path.map_or_else(String::new, |path| path.display().to_string());
    format!(
        "!! {path}\n    [{}] {}\n    {}\n",
        refusal.code, refusal.what, refusal.help
    )
}

fn json(found: &Result<Listed, Refusal>) -> Value {
    let listed = match found {
        Ok(listed) => listed,
        Err(refusal) => return of_refusal(refusal),
    };
    match &listed.plugin {
        Ok(plugin) => {
            let manifest = plugin.manifest();
            let stages = manifest.stages.iter().map(|stage| stage.id.as_str());
            let readers = manifest.readers.iter().map(|reader| reader.id.as_str());
            json!({
                "file": listed.path,
                "name": manifest.name,
                "version": manifest.version.to_string(),
                "summary": manifest.summary,
                "sha256": plugin.file().sha256(),
                "manifest": plugin.file().beside().map(Beside::path),
                "stages": stages.collect::<Vec<_>>(),
                "readers": readers.collect::<Vec<_>>(),
                "shadowed_by": listed.shadowed_by,
            })
        }
        Err(refusal) => of_refusal(refusal),
    }
}

fn of_refusal(refusal: &Refusal) -> Value {
    json!({ "file": refusal.path, "code": refusal.code, "what": refusal.what, "help": refusal.help })
}

/// What `weir doctor` says of the folders: those that are there with what they hold, and whether anything cannot be used.
pub fn summary(folders: &Folders) -> (String, bool) {
    let found = catalogue::list(folders);
    let mut parts = Vec::new();
    for folder in folders.iter().filter(|folder| folder.is_dir()) {
        let names = found.iter().flatten().filter_map(|listed| {
            let here = listed.path.parent() == Some(folder);
            let manifest = listed.plugin.as_ref().ok()?.manifest();
            here.then(|| format!("{} {}", manifest.name, manifest.version))
        });
        let names: Vec<String> = names.collect();
        let names = match names.as_slice() {
            [] => "none".into(),
            names => names.join(", "),
        };
        let part = format!("{} in {}", names, folder.display());
        if !parts.contains(&part) {
            parts.push(part);
        }
    }
    let sound = found
        .iter()
        .all(|found| found.as_ref().is_ok_and(|listed| listed.plugin.is_ok()));
    if parts.is_empty() {
        let folders: Vec<String> = folders
            .iter()
            .map(|folder| folder.display().to_string())
            .collect();
        parts.push(format!("none; none of {} is there", folders.join(", ")));
    }
    (parts.join("; "), sound)
}
