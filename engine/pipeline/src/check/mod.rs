//! From a file to a plan: every mistake at once.
//!
//! Each pass goes on after a mistake and leaves out what an earlier mistake made meaningless: a stage of an unknown type is
//! checked no further, and neither are the edges to it.

mod advice;
mod cases;
mod convert;
mod fit;
mod models;
mod order;
mod overrides;
mod own;
mod parse;
mod paths;
mod plan;
mod plugins;
mod settings;
mod stages;
mod structure;
mod substitute;
mod variables;
mod wiring;

pub(crate) use convert::range_of;
pub use overrides::Overrides;
pub(crate) use own::schema_faults;
pub(crate) use settings::shown as shown_settings;
pub use settings::{RUN, STAGE_RUN};
pub(crate) use stages::KEYS as STAGE_KEYS;
pub(crate) use variables::TYPES as VARIABLE_TYPES;

use crate::cases::TestCase;
use crate::codes::{self, Code};
use crate::diagnostic::{Diagnostic, Label};
use crate::doc::{Item, Table};
use crate::model_file::said;
use crate::plan::Plan;
use crate::plugins::{Plugin, PluginRefusal, Plugins};
use crate::schema::Registry;
use crate::source::{Sources, Span};
use parse::Damage;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Largest pipeline file.
const FILE_LIMIT: u64 = 1 << 20;

/// What became of a file.
#[derive(Clone, Debug, Default)]
pub struct Checked {
    /// The plan; `None` when there are errors.
    pub plan: Option<Plan>,
    /// All mistakes, in the order of their places.
    pub diagnostics: Vec<Diagnostic>,
    /// The plugins that it names and that may be used, also when there is no plan.
    pub plugins: Vec<Plugin>,
    /// The `[[test]]` tables.
    pub tests: Vec<TestCase>,
    /// The texts that the places are in.
    pub sources: Sources,
    /// Where each setting and parameter was written, for `weir show`.
    pub written: Written,
}

/// Where things were written.
#[derive(Clone, Debug, Default)]
pub struct Written {
    /// Keys of `[run]`.
    pub(crate) run: BTreeMap<String, Item>,
    /// By stage: where its table begins, its parameters, its `run`.
    pub(crate) stages: BTreeMap<String, WrittenStage>,
    /// By model: its path.
    pub(crate) models: BTreeMap<String, Item>,
    /// By plugin: where its table begins, and its values.
    pub(crate) plugins: BTreeMap<String, (Span, BTreeMap<String, Item>)>,
}

/// Where a stage was written.
#[derive(Clone, Debug, Default)]
pub(crate) struct WrittenStage {
    pub(crate) key: Span,
    pub(crate) given: BTreeMap<String, Item>,
    pub(crate) run: BTreeMap<String, Item>,
    pub(crate) feeders: Option<Item>,
}

/// What the passes share.
pub(crate) struct Cx<'a> {
    pub(crate) registry: &'a Registry,
    environment: &'a dyn Fn(&str) -> Option<String>,
    pub(crate) sources: Sources,
    pub(crate) found: Vec<Diagnostic>,
    pub(crate) damage: Damage,
    pub(crate) models: BTreeMap<String, models::Model>,
    pub(crate) plugins: BTreeMap<String, plugins::Declared>,
}

impl Cx<'_> {
    fn text(&self, source: usize) -> String {
        self.sources
            .get(source)
            .map(|source| source.text.clone())
            .unwrap_or_default()
    }

    fn environment(&self, name: &str) -> Option<String> {
        (self.environment)(name)
    }

    /// The end of the line that a span ends in, where a line can be added; not inside of inline tables.
    fn end_of_line(&self, span: Span) -> Option<Span> {
        let source = self.sources.get(span.source).filter(|_| span.source == 0)?;
        let rest = &source.text[source.boundary(span.end)..];
        let length = rest.find('\n').unwrap_or(rest.len());
        let rest = rest[..length].trim_start_matches(']').trim_start();
        if !(rest.trim().is_empty() || rest.starts_with('#')) {
            return None;
        }
        let mut end = source.boundary(span.end) + length;
        if source.text[..end].ends_with('\r') {
            end -= 1;
        }
        Some(Span::new(span.source, end..end))
    }
}

/// Checks a pipeline file with what the command line and the environment say beside it.
pub fn check(
    file: &Path,
    overrides: &Overrides,
    registry: &Registry,
    plugins: &dyn Plugins,
) -> Checked {
    let environment = |name: &str| std::env::var(name).ok();
    check_in(file, overrides, registry, plugins, &environment)
}

/// The same in an environment of its own.
pub fn check_in(
    file: &Path,
    overrides: &Overrides,
    registry: &Registry,
    plugins: &dyn Plugins,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Checked {
    let name = file.display().to_string();
    let alone = |diagnostic: Diagnostic| Checked {
        diagnostics: vec![diagnostic],
        ..Checked::default()
    };
    let mut bytes = Vec::new();
    let read = File::open(file).and_then(|file| file.take(FILE_LIMIT + 1).read_to_end(&mut bytes));
    if let Err(error) = read {
        let title = format!("`{name}` cannot be read: {}", said(&error));
        let diagnostic = Diagnostic::nowhere(&codes::E0104, title);
        return alone(match paths::nearest_file(file) {
            Some(near) => diagnostic.help(format!("did you mean `{}`?", near.display())),
            None => diagnostic,
        });
    }
    if bytes.len() as u64 > FILE_LIMIT {
        let title = format!("`{name}` is larger than 1 MiB");
        return alone(
            Diagnostic::nowhere(&codes::E0105, title)
                .help("slides are named in the file, they are not the file"),
        );
    }
    match String::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => {
            check_text(file, &text, overrides, registry, plugins, environment)
        }
        Ok(text) => {
            let at = text.find('\0').unwrap_or(0);
            let line = text[..at].matches('\n').count() + 1;
            alone(Diagnostic::nowhere(
                &codes::E0102,
                format!("`{name}` is not text: a NUL character in line {line}"),
            ))
        }
        Err(error) => {
            let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
            let title = format!("`{name}` is not UTF-8 text: line {line} holds other bytes");
            alone(Diagnostic::nowhere(&codes::E0102, title).help("save it as UTF-8"))
        }
    }
}

/// The same for a text that would stand in `file`.
pub fn check_text(
    file: &Path,
    text: &str,
    overrides: &Overrides,
    registry: &Registry,
    plugins: &dyn Plugins,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Checked {
    let folder = file.parent().unwrap_or(Path::new(""));
    let mut cx = Cx {
        registry,
        environment,
        sources: Sources::default(),
        found: Vec::new(),
        damage: Damage::default(),
        models: BTreeMap::new(),
        plugins: BTreeMap::new(),
    };
    // A mark at the beginning is no part of the text.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let main = cx.sources.add(file.display().to_string(), text, folder);
    let mut root = parse::document(&mut cx, main);
    overrides::apply(&mut cx, &mut root, overrides);
    let (plan, tests, written) = passes(&mut cx, root, file, overrides, plugins);
    let damage = std::mem::take(&mut cx.damage);
    cx.found.retain(|found| {
        found.code == &codes::E0101 || !found.span().is_some_and(|span| damage.spoils(span))
    });
    cx.found.sort_by_key(|found| {
        (
            found
                .span()
                .map_or((0, 0), |span| (span.source, span.start)),
            found.code.id,
        )
    });
    cx.found.dedup();
    let plan = plan.filter(|_| !cx.found.iter().any(Diagnostic::is_error));
    let plugins = cx.plugins.into_values();
    Checked {
        plan,
        plugins: plugins.filter_map(|declared| declared.plugin).collect(),
        diagnostics: cx.found,
        tests,
        sources: cx.sources,
        written,
    }
}

fn passes(
    cx: &mut Cx,
    mut root: Table,
    file: &Path,
    overrides: &Overrides,
    plugins: &dyn Plugins,
) -> (Option<Plan>, Vec<TestCase>, Written) {
    structure::top(cx, &root);
    let mut variables = variables::declare(cx, &root, &overrides.variables);
    for entry in &mut root.entries {
        if entry.name != "var" {
            substitute::substitute(cx, &mut variables, &mut entry.value);
        }
    }
    models::declare(cx, &root);
    plugins::declare(cx, &root, plugins);
    let drafts = stages::read(cx, &root);
    let mut written = Written::default();
    let run = settings::run(cx, &root, &mut written.run);
    let links = wiring::connect(cx, &drafts);
    let order = order::order(cx, &drafts, &links);
    let mut shapes = Vec::new();
    if let Some(order) = &order {
        shapes = fit::check(cx, &drafts, &links, order);
        advice::advise(cx, &drafts, &links, order);
    }
    advice::batch_only(cx, &drafts, &run, written.run.get("live"));
    let tests = cases::read(cx, &root, &drafts);
    variables::unused(cx, &variables);
    models::unused(cx);
    let plan = order
        .filter(|_| !cx.found.iter().any(Diagnostic::is_error))
        .and_then(|order| plan::make(cx, &root, file, run, &drafts, &links, &order, &shapes));
    written.fill(cx, &root, drafts);
    (plan, tests, written)
}

impl Written {
    fn fill(&mut self, cx: &Cx, root: &Table, drafts: Vec<stages::Draft>) {
        for draft in drafts {
            let stage = WrittenStage {
                key: draft.key,
                given: draft.given,
                run: draft.run_given,
                feeders: draft.feeders,
            };
            self.stages.insert(draft.name, stage);
        }
        for name in cx.models.keys() {
            let table = root
                .get("model")
                .and_then(|entry| entry.value.table()?.get(name));
            if let Some(path) = table.and_then(|entry| entry.value.table()?.get("path")) {
                self.models.insert(name.clone(), path.value.clone());
            }
        }
        for (name, declared) in &cx.plugins {
            let place = (declared.key, declared.given.clone());
            self.plugins.insert(name.clone(), place);
        }
    }
}

impl Checked {
    /// Whether nothing can run with what was found.
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(Diagnostic::is_error)
    }

    /// The executor of a stage makes other numbers of a tile among others than of the tile alone, which was found when its model
    /// was loaded.
    pub fn not_deterministic(&self, stage: &str, executor: &str, device: &str) -> Diagnostic {
        let title = format!(
            "what stage `{stage}` makes of a tile depends on its neighbours ({executor} on {device})"
        );
        let diagnostic = match self.written.stages.get(stage) {
            Some(written) => Diagnostic::new(&codes::W0417, written.key, title, "this stage"),
            None => Diagnostic::nowhere(&codes::W0417, title),
        };
        diagnostic.help(
            "run.json says `deterministic: false`; `--device cpu` gives the same answer always",
        )
    }

    /// A plugin is refused after the check, as by the system's loader: the message at its table's place.
    pub fn plugin_refused(&self, name: &str, refusal: PluginRefusal) -> Diagnostic {
        let place = self.written.plugins.get(name);
        plugins::refused_later(name, place.map(|(key, given)| (*key, given)), refusal)
    }

    /// A stage of a plugin went wrong while it ran (E0520 to E0523): the message at the stage's place.
    pub fn stage_failed(
        &self,
        code: &'static Code,
        stage: &str,
        what: &str,
        help: &str,
    ) -> Diagnostic {
        let title = format!("stage `{stage}`: {what}");
        let diagnostic = match self.written.stages.get(stage) {
            Some(written) => Diagnostic::new(code, written.key, title, "this stage"),
            None => Diagnostic::nowhere(code, title),
        };
        match help {
            "" => diagnostic,
            help => diagnostic.help(help),
        }
    }

    /// A stage refused one of its parameters: the message at the parameter, or at the stage where it has its default.
    pub fn refused_parameter(
        &self,
        stage: &str,
        param: &str,
        what: &str,
        help: &str,
    ) -> Diagnostic {
        let mut diagnostic = self.refused(stage, what, help);
        diagnostic.title = format!("stage `{stage}` refused its parameter `{param}`: {what}");
        let written = self.written.stages.get(stage);
        if let Some(item) = written.and_then(|written| written.given.get(param)) {
            let label = Label {
                span: item.span,
                text: "this parameter".into(),
            };
            diagnostic.labels.insert(0, label);
        }
        diagnostic
    }

    /// A stage could not make itself ready: the message that says so at the stage's place.
    pub fn refused(&self, stage: &str, what: &str, help: &str) -> Diagnostic {
        let title = format!("stage `{stage}` cannot start: {what}");
        let diagnostic = match self.written.stages.get(stage) {
            Some(written) => Diagnostic::new(&codes::E0303, written.key, title, "this stage"),
            None => Diagnostic::nowhere(&codes::E0303, title),
        };
        if help.is_empty() {
            diagnostic
        } else {
            diagnostic.help(help)
        }
    }
}
