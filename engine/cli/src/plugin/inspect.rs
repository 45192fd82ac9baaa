//! `weir plugin inspect`.

use crate::args::Format;
use crate::message::{Done, Manner, Refusal};
use serde_json::Value;
use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;
use weir_pipeline::reference;
use weir_plugin_host::{Admitted, Ask, Described, Loaded, PATIENCE};
use weir_runtime::exit;

/// Prints everything that is known of a plugin without running it.
pub fn inspect(plugin: &Path, manner: &Manner, out: &mut dyn Write) -> Done {
    let described = super::catalogue(false)?
        .look(plugin)
        .map_err(super::refused)?;
    match manner.format {
        Format::Json => writeln!(out, "{}", json(&described)?)?,
        _ => out.write_all(text(&described).as_bytes())?,
    }
    // What it is can be told; that it does not run here is told too.
    match described.foreign() {
        Some(refusal) => Err(super::refused(refusal)),
        None => Ok(exit::DONE),
    }
}

/// Prints what a file is to a plugin, in the plugin's own words; its code runs for that.
pub fn file(plugin: &Path, file: &Path, manner: &Manner, out: &mut dyn Write) -> Done {
    let catalogue = super::catalogue(false)?;
    catalogue.rules().unnamed(true).map_err(super::refused)?;
    let described = catalogue.look(plugin).map_err(super::refused)?;
    let ask = Ask {
        name: described.manifest().name.clone(),
        ..Ask::default()
    };
    let admitted =
        Admitted::new(described, &ask, catalogue.rules().plugins).map_err(super::refused)?;
    let loaded =
        Loaded::heard(&admitted, &super::load::log(*manner), PATIENCE).map_err(super::refused)?;
    let (name, version) = (&loaded.manifest().name, &loaded.manifest().version);
    let lines = loaded.describe(file).map_err(|said| {
        Refusal::usage(
            format!(
                "plugin `{name}` {version} does not say what {} is: {}",
                file.display(),
                said.what
            ),
            said.help,
        )
    })?;
    match manner.format {
        Format::Json => {
            let said = serde_json::json!({
                "plugin": name, "version": version.to_string(), "file": file, "says": lines,
            });
            writeln!(out, "{said}")?;
        }
        _ => {
            for line in &lines {
                writeln!(out, "{line}")?;
            }
        }
    }
    Ok(exit::DONE)
}

/// The manifest as it is, with the file and its hash.
fn json(described: &Described) -> Result<Value, Refusal> {
    let mut value = serde_json::to_value(described.manifest())
        .map_err(|error| Refusal::internal(format!("a manifest cannot be written: {error}")))?;
    value["file"] = described.file().path().to_string_lossy().into();
    value["sha256"] = described.file().sha256().into();
    if let Some(beside) = described.file().beside() {
        value["manifest"] = beside.path().to_string_lossy().into();
    }
    Ok(value)
}

fn text(described: &Described) -> String {
    let (file, manifest) = (described.file(), described.manifest());
    let mut text = format!(
        "{} {}: {}\n",
        manifest.name, manifest.version, manifest.summary
    );
    let licence = match manifest.licence.as_str() {
        "" => "not said",
        licence => licence,
    };
    let beside = file.beside();
    let beside = beside.map(|beside| ("manifest", beside.path().display().to_string()));
    for (key, value) in [("file", file.path().display().to_string())]
        .into_iter()
        .chain(beside)
        .chain([
            (
                "sha256",
                match file.beside() {
                    Some(_) => format!("{} (of both)", file.sha256()),
                    None => file.sha256().to_owned(),
                },
            ),
            ("ABI", manifest.weir_abi.clone()),
            ("licence", licence.to_owned()),
            (
                "holds",
                super::list::holds(manifest.stages.len(), manifest.readers.len()),
            ),
        ])
    {
        // Writing to a String does not fail.
        let _ = writeln!(text, "{key:<9}{value}");
    }
    for reader in &manifest.readers {
        let endings: Vec<String> = reader
            .extensions
            .iter()
            .map(|ending| format!(".{ending}"))
            .collect();
        let _ = writeln!(text, "\nreader {}: {}", reader.id, reader.summary);
        if !endings.is_empty() {
            let _ = writeln!(text, "  files {}", endings.join(", "));
        }
        if let Some(cache) = &reader.cache {
            let _ = writeln!(text, "  cache {}", super::cache(cache));
        }
    }
    for (schema, stage) in described.schemas().iter().zip(&manifest.stages) {
        let _ = write!(text, "\n{}", reference::text(schema));
        if let Some(param) = &stage.memory {
            let _ = writeln!(text, "\n  allocates what `{param}` says, out of run.memory");
        }
    }
    text
}
