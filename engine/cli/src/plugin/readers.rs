//! The slide readers of the plugins that a training's recipe names.

use super::load;
use crate::message::{Manner, Refusal};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use weir_learn::Recipe;
use weir_learn::recipe::PluginRecipe;
use weir_pipeline::{Plugin, PluginAsk, Plugins as _};
use weir_plugin_host::{Admitted, Catalogue, Isolated, Loaded, PATIENCE, Plugins, Program};
use weir_runtime::Stop;

/// Why a plugin is not used: code, what is wrong, what to do.
type Fault = (&'static str, String, String);

/// Loads the recipe's plugins, as a pipeline's are; what cannot be used is told at its table's place.
pub fn readers(recipe: &Recipe, stop: &Stop, manner: &Manner) -> Result<Plugins, Refusal> {
    let mut plugins = Plugins {
        log: load::log(*manner),
        stop: stop.clone(),
        ..Plugins::default()
    };
    if recipe.file.plugin.is_empty() {
        return Ok(plugins);
    }
    let catalogue = super::catalogue(false)?;
    // Ids of readers, and whose they are.
    let mut known = BTreeMap::new();
    for (name, table) in &recipe.file.plugin {
        admitted(&catalogue, name, table.get_ref(), recipe)
            .and_then(|(plugin, admitted)| own(&plugin, admitted, &mut known, &mut plugins))
            .map_err(|(code, what, help)| {
                let place = recipe.place(table.span().start);
                let what = format!("{place}: [{code}] plugin `{name}` cannot be used: {what}");
                Refusal::usage(what, help)
            })?;
    }
    Ok(plugins)
}

fn admitted(
    catalogue: &Catalogue,
    name: &str,
    said: &PluginRecipe,
    recipe: &Recipe,
) -> Result<(Plugin, Arc<Admitted>), Fault> {
    let ask = PluginAsk {
        name: name.to_owned(),
        path: said.path.as_deref().map(|path| recipe.beside(path)),
        version: said.version.clone(),
        sha256: said.sha256.clone(),
        isolate: said.isolate,
    };
    let plugin = catalogue.plugin(&ask).map_err(|refusal| {
        let file = refusal.file.map(|file| format!("{}: ", file.display()));
        let what = format!("{}{}", file.unwrap_or_default(), refusal.what);
        (refusal.code, what, refusal.help.join("\n"))
    })?;
    let admitted = catalogue.admitted(&plugin).ok_or_else(|| {
        let what = "it was looked at and is not there".into();
        let help = "this is a fault of weir: please report it".into();
        ("E0501", what, help)
    })?;
    Ok((plugin, admitted))
}

/// Adds a plugin that has readers, and none that another one has as well.
fn own(
    plugin: &Plugin,
    admitted: Arc<Admitted>,
    known: &mut BTreeMap<String, PathBuf>,
    plugins: &mut Plugins,
) -> Result<(), Fault> {
    let file = plugin.file.display();
    if plugin.readers.is_empty() {
        let what = format!(
            "{file}: it has no slide readers, and a training takes nothing else of a plugin"
        );
        return Err(("E0513", what, "remove its table".into()));
    }
    let mut ids = plugin.readers.iter();
    if let Some((id, other)) = ids.find_map(|id| Some((id, known.get(id)?))) {
        let what = format!(
            "{file} has a slide reader `{id}`, and {} has one too",
            other.display()
        );
        return Err(("E0524", what, "remove one of the two tables".into()));
    }
    let loaded = match plugin.isolate {
        true => Isolated::new(admitted, Program::default()).and_then(|isolated| {
            isolated.loaded()?;
            plugins.isolated.push(isolated);
            Ok(())
        }),
        false => Loaded::heard(&admitted, &plugins.log, PATIENCE)
            .map(|loaded| plugins.loaded.push(loaded)),
    };
    loaded.map_err(|refusal| {
        let what = format!("{file}: {}", refusal.what);
        (refusal.code, what, refusal.help)
    })?;
    let ids = plugin.readers.iter();
    known.extend(ids.map(|id| (id.clone(), plugin.file.clone())));
    Ok(())
}
