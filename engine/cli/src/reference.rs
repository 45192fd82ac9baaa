//! What the program knows by heart: stage types, diagnostics, the schema of pipeline files; and a file after its overrides.

use crate::args;
use crate::message::{Done, Manner, Refusal};
use crate::pipeline;
use crate::plugin;
use std::io::Write;
use std::path::{Path, PathBuf};
use weir_pipeline::{Registry, reference};
use weir_plugin_host::Described;
use weir_runtime::exit;

/// The built-in stage types and those of the plugins that are named.
fn registry(plugins: &[PathBuf]) -> Result<Registry, Refusal> {
    let catalogue = plugin::catalogue(false)?;
    let mut schemas: Vec<_> = weir_stages::registry().iter().collect();
    let mut looked: Vec<Described> = Vec::new();
    for named in plugins {
        let described = catalogue.look(named).map_err(plugin::refused)?;
        if looked
            .iter()
            .any(|known| known.file().sha256() == described.file().sha256())
        {
            continue;
        }
        if let Some((id, other)) = twice(&looked, &described) {
            return Err(plugin::refused(
                weir_plugin_host::Refusal::new(
                    "E0524",
                    format!(
                        "it has a stage type `{id}`, and {} has one too",
                        other.display()
                    ),
                    "name one of the two",
                )
                .of(described.file().path()),
            ));
        }
        schemas.extend(described.schemas());
        looked.push(described);
    }
    Ok(Registry::new(schemas))
}

/// A stage type that one of `looked` has as well, and that one's file.
fn twice<'a>(looked: &'a [Described], described: &Described) -> Option<(&'static str, &'a Path)> {
    described.schemas().iter().find_map(|schema| {
        let has = |known: &&Described| known.schemas().iter().any(|it| it.name == schema.name);
        let known = looked.iter().find(has)?;
        Some((schema.name, known.file().path()))
    })
}

/// `weir stages [NAME]`.
pub fn stages(arguments: &args::Stages, out: &mut dyn Write) -> Done {
    let mut registry = registry(&arguments.plugins)?;
    let text = match &arguments.name {
        None if arguments.markdown => reference::list_markdown(&registry),
        None => reference::list(&registry),
        Some(name) => {
            if let Some((namespace, _)) = name.split_once('.')
                && arguments.plugins.is_empty()
            {
                registry = self::registry(&[PathBuf::from(namespace)])?;
            }
            let Some(schema) = registry.get(name) else {
                let names: Vec<&str> = registry.iter().map(|schema| schema.name).collect();
                return Err(Refusal::usage(
                    format!("there is no stage type `{name}`"),
                    format!("there are {}", names.join(", ")),
                ));
            };
            if arguments.markdown {
                reference::markdown(schema)
            } else {
                reference::text(schema)
            }
        }
    };
    out.write_all(text.as_bytes())?;
    Ok(exit::DONE)
}

/// `weir explain CODE`.
pub fn explain(code: &str, out: &mut dyn Write) -> Done {
    let Some(text) = weir_pipeline::explain(code) else {
        let codes: Vec<&str> = weir_pipeline::codes::all().map(|code| code.id).collect();
        return Err(Refusal::usage(
            format!("there is no diagnostic `{code}`"),
            format!("there are {}", codes.join(", ")),
        ));
    };
    out.write_all(text.as_bytes())?;
    Ok(exit::DONE)
}

/// `weir schema`.
pub fn schema(plugins: &[PathBuf], out: &mut dyn Write) -> Done {
    let schema = weir_pipeline::json_schema(&registry(plugins)?);
    writeln!(out, "{schema:#}")?;
    Ok(exit::DONE)
}

/// `weir show FILE`.
pub fn show(file: &args::File, manner: &Manner, out: &mut dyn Write) -> Done {
    let overrides = pipeline::overrides(file)?;
    let loaded = pipeline::load(&file.file, &overrides, manner)?;
    let text = weir_pipeline::show(&loaded.plan, &loaded.checked);
    out.write_all(text.as_bytes())?;
    Ok(exit::DONE)
}
