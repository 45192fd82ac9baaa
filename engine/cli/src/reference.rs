//! What the program knows by heart: stage types, diagnostics, the schema of pipeline files; and a file after its overrides.

use crate::args;
use crate::message::{Done, Manner, Refusal};
use crate::pipeline;
use std::io::Write;
use weir_runtime::exit;

/// `weir stages [NAME]`.
pub fn stages(arguments: &args::Stages, out: &mut dyn Write) -> Done {
    let registry = weir_stages::registry();
    let text = match &arguments.name {
        None if arguments.markdown => weir_pipeline::reference::list_markdown(&registry),
        None => weir_pipeline::reference::list(&registry),
        Some(name) => {
            let Some(schema) = registry.get(name) else {
                let names: Vec<&str> = registry.iter().map(|schema| schema.name).collect();
                return Err(Refusal::usage(
                    format!("there is no stage type `{name}`"),
                    format!("there are {}", names.join(", ")),
                ));
            };
            if arguments.markdown {
                weir_pipeline::reference::markdown(schema)
            } else {
                weir_pipeline::reference::text(schema)
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
pub fn schema(out: &mut dyn Write) -> Done {
    let schema = weir_pipeline::json_schema(&weir_stages::registry());
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
