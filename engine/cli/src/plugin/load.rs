//! The plugins of a plan, loaded for a run.

use crate::message::{Manner, Refusal};
use crate::pipeline;
use std::collections::BTreeMap;
use std::sync::Mutex;
use weir_pipeline::{About, Checked, Code, Diagnostic, Plan, Plugin, PluginRefusal, codes};
use weir_plugin_host::{
    Catalogue, Isolated, Level, Loaded, Log, PATIENCE, Plugins, Program, stage_type,
};
use weir_runtime::stage::{StageError, StageType};
use weir_runtime::{Stop, exit};

/// Lines of one stage and level that are printed; a plugin that says the same of every tile would bury all else.
const LINES: usize = 20;

/// Loads them; what cannot be loaded is told at its place in the file.
pub fn load(
    plan: &Plan,
    checked: &Checked,
    catalogue: &Catalogue,
    stop: &Stop,
    manner: &Manner,
) -> Result<(Plugins, Vec<StageType>), Refusal> {
    load_some(plan, checked, catalogue, stop, manner, |_| true)
}

/// The same of those that are `wanted`; the code of the others is not run.
pub fn load_some(
    plan: &Plan,
    checked: &Checked,
    catalogue: &Catalogue,
    stop: &Stop,
    manner: &Manner,
    wanted: impl Fn(&Plugin) -> bool,
) -> Result<(Plugins, Vec<StageType>), Refusal> {
    let mut plugins = Plugins {
        log: log(*manner),
        stop: stop.clone(),
        ..Plugins::default()
    };
    let mut types = weir_stages::types().to_vec();
    let mut refused = Vec::new();
    let all = plan.plugins.iter().filter(|plugin| wanted(plugin));
    // Processes are started first and load their plugins beside each other.
    let mut apart = BTreeMap::new();
    for plugin in all.clone().filter(|plugin| plugin.isolate) {
        if let Some(admitted) = catalogue.admitted(plugin) {
            let isolated = Isolated::new(admitted, Program::default());
            apart.insert(&plugin.name, isolated);
        }
    }
    for plugin in all {
        let Some(admitted) = catalogue.admitted(plugin) else {
            return Err(Refusal::internal(format!(
                "plugin `{}` was checked and is not there",
                plugin.name
            )));
        };
        let loaded = match apart.remove(&plugin.name) {
            Some(isolated) => isolated.and_then(|isolated| {
                isolated.loaded()?;
                plugins.isolated.push(isolated);
                Ok(())
            }),
            None => Loaded::heard(&admitted, &plugins.log, PATIENCE)
                .map(|loaded| plugins.loaded.push(loaded)),
        };
        match loaded {
            Ok(()) => {}
            Err(refusal) => {
                let refusal = PluginRefusal {
                    code: refusal.code,
                    about: About::Table,
                    file: refusal.path,
                    what: refusal.what,
                    help: vec![refusal.help],
                };
                refused.push(checked.plugin_refused(&plugin.name, refusal));
            }
        }
        types.extend(plugin.schemas.iter().map(stage_type));
    }
    if refused.is_empty() {
        return Ok((plugins, types));
    }
    pipeline::print(&refused, &checked.sources, manner);
    Err(Refusal::Told(exit::USAGE))
}

/// A stage that cannot be made ready, at its place in the file; at the parameter, where it blames one. What a plugin says besides has a
/// code of plugins: that of the breach or death that the host found in it, else E0514.
pub fn not_ready(checked: &Checked, plan: &Plan, stage: &str, error: &StageError) -> Diagnostic {
    if let Some(param) = &error.param {
        return checked.refused_parameter(stage, param, &error.what, &error.help);
    }
    if !of_plugin(plan, stage) {
        return checked.refused(stage, &error.what, &error.help);
    }
    let (code, what) = coded(&error.what);
    checked.stage_failed(code, stage, &format!("cannot start: {what}"), &error.help)
}

/// Whether the stage's type is a plugin's.
pub fn of_plugin(plan: &Plan, stage: &str) -> bool {
    let node = plan.nodes.iter().find(|node| node.name == stage);
    node.is_some_and(|node| node.schema.name.contains('.'))
}

/// The code that the host put into its message, and the message without it.
fn coded(what: &str) -> (&'static Code, String) {
    let marked = what.find(" [E05").and_then(|at| {
        let code = codes::find(what.get(at + 2..at + 7)?)?;
        Some((code, what.replacen(what.get(at..at + 8)?, "", 1)))
    });
    marked.unwrap_or((&codes::E0514, what.to_owned()))
}

/// Lines of plugins, on standard error.
pub fn log(manner: Manner) -> Log {
    let counts: Mutex<BTreeMap<(String, &'static str), usize>> = Mutex::default();
    Log::to(move |level, stage, text| {
        if level == Level::Debug || (level == Level::Info && manner.quiet) {
            return;
        }
        let mut counts = counts
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let count = counts.entry((stage.to_owned(), level.name())).or_default();
        *count += 1;
        let (text, help) = match *count {
            n if n < LINES => (format!("{stage}: {text}"), ""),
            LINES => (
                format!("{stage}: {text}"),
                "further lines of this stage are left out",
            ),
            _ => return,
        };
        match level {
            Level::Error => manner.error(&text, help),
            Level::Warn => manner.warning(&text, help),
            Level::Info | Level::Debug => manner.note(&text, help),
        }
    })
}
