//! Pipeline files on the command line: overrides, checking, messages, slides.

use crate::args;
use crate::args::Format;
use crate::message::{Manner, Refusal};
use crate::plugin;
use std::io::{self, Write};
use std::path::Path;
use weir_pipeline::render::Style;
use weir_pipeline::{Checked, Diagnostic, Overrides, Plan, Sources};
use weir_plugin_host::Catalogue;
use weir_runtime::exit;
use weir_slide::SlideEntry;

/// A file that was checked and found right.
pub struct Loaded {
    /// What runs.
    pub plan: Plan,
    /// Everything else that is known of the file.
    pub checked: Checked,
}

/// The overrides that a command line holds.
pub fn overrides(file: &args::File) -> Result<Overrides, Refusal> {
    Ok(Overrides {
        variables: variables(&file.variables)?,
        set: file.set.clone(),
        ..Overrides::default()
    })
}

/// `NAME=VALUE`, parted.
pub fn variables(texts: &[String]) -> Result<Vec<(String, String)>, Refusal> {
    texts
        .iter()
        .map(|text| match text.split_once('=') {
            Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
            None => Err(Refusal::usage(
                format!("`{text}` is no NAME=VALUE"),
                "values of the file's variables are given as slides=a.svs; other keys with --set KEY=VALUE",
            )),
        })
        .collect()
}

/// Checks `file`, prints what was found, and goes on only when nothing is wrong.
pub fn load(file: &Path, overrides: &Overrides, manner: &Manner) -> Result<Loaded, Refusal> {
    load_with(file, overrides, &plugin::catalogue(false)?, manner)
}

/// The same with plugins from `plugins`, which keeps those of the plan for whoever loads them.
pub fn load_with(
    file: &Path,
    overrides: &Overrides,
    plugins: &Catalogue,
    manner: &Manner,
) -> Result<Loaded, Refusal> {
    let registry = weir_stages::registry();
    let mut checked = weir_pipeline::check(file, overrides, &registry, plugins);
    print(&checked.diagnostics, &checked.sources, manner);
    match checked.plan.take() {
        Some(plan) => Ok(Loaded { plan, checked }),
        None => Err(Refusal::Told(exit::USAGE)),
    }
}

/// Prints diagnostics on standard error, as the flags say.
pub fn print(diagnostics: &[Diagnostic], sources: &Sources, manner: &Manner) {
    if diagnostics.is_empty() {
        return;
    }
    let style = match manner.format {
        Format::Human => Style::Human {
            color: manner.color,
        },
        Format::Short => Style::Short,
        Format::Json => Style::Json,
    };
    let text = weir_pipeline::render::all(diagnostics, sources, style);
    // Nobody is left to be told when standard error is closed.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// The slides that the plan's sources will read, by the name of the source: what cannot be read at all, and slides that share
/// an id, end the run before it starts.
pub fn slides(plan: &Plan) -> Result<Vec<(String, Vec<SlideEntry>)>, Refusal> {
    let mut found = Vec::new();
    let plugins = plan.plugins.iter();
    let endings: Vec<String> = plugins.flat_map(|it| it.extensions.clone()).collect();
    for node in &plan.nodes {
        // What a plugin's source reads is found when it is made ready, by the endings that its manifest names.
        if node.schema.name.contains('.') {
            continue;
        }
        let Some(entries) = weir_stages::inputs::of_node(node, &endings) else {
            continue;
        };
        let entries = entries.map_err(|errors| {
            let what: Vec<String> = errors
                .iter()
                .map(|error| format!("{}: {}", error.place, error.what))
                .collect();
            let mut help: Vec<&str> = errors.iter().map(|error| error.help.as_str()).collect();
            help.dedup();
            Refusal::usage(
                format!("stage `{}`: {}", node.name, what.join("\n")),
                help.join("\n"),
            )
        })?;
        if entries.is_empty() {
            return Err(Refusal::usage(
                format!("stage `{}` has no slides to read", node.name),
                "name files, folders, patterns or manifests in `slides`; where that is a variable, as slides=FOLDER behind the file",
            ));
        }
        found.push((node.name.clone(), entries));
    }
    Ok(found)
}
