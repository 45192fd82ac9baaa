//! The slide readers of the plugins that a training's recipe names.

use super::load;
use crate::message::{Manner, Refusal};
use weir_learn::Recipe;
use weir_pipeline::{PluginAsk, PluginRefusal, Plugins as _};
use weir_plugin_host::{Loaded, Plugins};
use weir_runtime::Stop;

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
    for (name, table) in &recipe.file.plugin {
        let refuse = |code: &str, what: String, help: String| {
            let place = recipe.place(table.span().start);
            let what = format!("{place}: [{code}] plugin `{name}` cannot be used: {what}");
            Refusal::usage(what, help)
        };
        let said = table.get_ref();
        let ask = PluginAsk {
            name: name.clone(),
            path: said.path.as_deref().map(|path| recipe.beside(path)),
            version: said.version.clone(),
            sha256: said.sha256.clone(),
            isolate: false,
        };
        let refused = |refusal: PluginRefusal| {
            let file = refusal
                .file
                .map_or_else(String::new, |file| format!("{}: ", file.display()));
            refuse(
                refusal.code,
                format!("{file}{}", refusal.what),
                refusal.help.join("\n"),
            )
        };
        let plugin = catalogue.plugin(&ask).map_err(refused)?;
        let own = |what: &str, help: &str| {
            let what = format!("{}: {what}", plugin.file.display());
            refuse("E0519", what, help.to_owned())
        };
        if plugin.isolate {
            return Err(own(
                "the machine's rules give every plugin a process of its own, and a training reads slides in weir's own",
                "ask who set `isolate = \"always\"`",
            ));
        }
        if plugin.readers.is_empty() {
            return Err(own(
                "it has no slide readers, and a training takes nothing else of a plugin",
                "remove its table",
            ));
        }
        let mut loaded = plugins.loaded.iter();
        let twice = loaded.find_map(|other: &&'static Loaded| {
            let id = plugin
                .readers
                .iter()
                .find(|id| other.reader(id).is_some())?;
            Some((id, other.path()))
        });
        if let Some((id, other)) = twice {
            let what = format!(
                "{} has a slide reader `{id}`, and {} has one too",
                plugin.file.display(),
                other.display()
            );
            return Err(refuse("E0524", what, "remove one of the two tables".into()));
        }
        let admitted = catalogue.admitted(&plugin).ok_or_else(|| {
            Refusal::internal(format!("plugin `{name}` was looked at and is not there"))
        })?;
        let loaded = Loaded::new(&admitted).map_err(|refusal| {
            let what = format!("{}: {}", plugin.file.display(), refusal.what);
            refuse(refusal.code, what, refusal.help)
        })?;
        plugins.loaded.push(loaded);
    }
    Ok(plugins)
}
