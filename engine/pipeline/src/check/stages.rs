//! `[stage.X]`: its type and its parameters.

use super::{Cx, convert, parse, plugins, settings, structure};
use crate::codes;
use crate::diagnostic::{Diagnostic, Edit};
use crate::doc::{Item, Table};
use crate::nearest::nearest;
use crate::plan::StageRun;
use crate::schema::{Param, ParamKind, Schema};
use crate::source::Span;
use crate::values::{Value, Values};
use std::collections::BTreeMap;
use std::path::Path;

/// Keys of a stage that are no parameters.
pub(crate) const KEYS: [&str; 4] = ["use", "in", "run", "doc"];

/// A stage on its way to a node.
pub(crate) struct Draft {
    /// Its name.
    pub(crate) name: String,
    /// Where its table begins.
    pub(crate) key: Span,
    /// Where its type is named.
    pub(crate) type_span: Span,
    /// Its type; `None` when that is not known, which was reported.
    pub(crate) schema: Option<&'static Schema>,
    /// Its `in`.
    pub(crate) feeders: Option<Item>,
    /// Where `in` stands.
    pub(crate) feeders_key: Option<Span>,
    /// Its parameters; what did not fit is not there.
    pub(crate) values: Values,
    /// The given parameters as they were written.
    pub(crate) given: BTreeMap<String, Item>,
    /// Its `run = { .. }`.
    pub(crate) run: StageRun,
    /// The values of `run = { .. }` as they were written.
    pub(crate) run_given: BTreeMap<String, Item>,
}

/// Reads all stages.
pub(crate) fn read(cx: &mut Cx, root: &Table) -> Vec<Draft> {
    let mut drafts = Vec::new();
    for (name, key, table) in structure::named_tables(cx, root, "stage", "stage") {
        drafts.push(stage(cx, name, key, table));
    }
    let none = root.get("stage").is_none_or(|entry| {
        entry
            .value
            .table()
            .is_some_and(|table| table.entries.is_empty())
    });
    if none && !cx.damage.may_lack_keys(Span::default()) {
        cx.found.push(
            Diagnostic::new(&codes::E0210, Span::default(), codes::E0210.title, "")
                .help("`weir new pipeline FILE` writes a pipeline to start from"),
        );
    }
    drafts
}

fn stage(cx: &mut Cx, name: &str, key: Span, table: &Table) -> Draft {
    let mut draft = Draft {
        name: name.to_owned(),
        key,
        type_span: key,
        schema: None,
        feeders: table.get("in").map(|entry| entry.value.clone()),
        feeders_key: table.get("in").map(|entry| entry.key),
        values: Values::default(),
        given: BTreeMap::new(),
        run: StageRun::default(),
        run_given: BTreeMap::new(),
    };
    if let Some(entry) = table.get("doc") {
        convert::text(cx, &entry.value, "doc");
    }
    if let Some(entry) = table.get("run") {
        draft.run = settings::stage_run(cx, &entry.value, &mut draft.run_given);
    }
    let Some(entry) = table.get("use") else {
        if !cx.damage.may_lack_keys(key) {
            cx.found.push(
                Diagnostic::new(
                    &codes::E0203,
                    key,
                    format!("stage `{name}` has no `use`"),
                    "which stage type is it?",
                )
                .help("add `use = \"TYPE\"`; `weir stages` lists the types"),
            );
        }
        return draft;
    };
    draft.type_span = entry.value.span;
    let Some(text) = convert::text(cx, &entry.value, "use") else {
        return draft;
    };
    draft.schema = cx
        .registry
        .get(&text)
        .or_else(|| plugins::stage_type(cx, &text));
    let Some(schema) = draft.schema else {
        unknown_type(cx, &entry.value, &text, key);
        return draft;
    };
    let params = Params {
        owner: format!("`{}`", schema.name),
        unknown: &codes::E0301,
        params: schema.params,
        skip: &KEYS,
        example: schema.example,
        at: draft.type_span,
        key,
    };
    draft.values = params.check(cx, table, &mut draft.given);
    draft
}

fn unknown_type(cx: &mut Cx, item: &Item, text: &str, key: Span) {
    if let Some((namespace, _)) = text.split_once('.') {
        return plugins::unknown_type(cx, item, text, namespace, key);
    }
    let title = format!("no stage type is called `{text}`");
    let names = || cx.registry.iter().map(|schema| schema.name);
    let near = nearest(text, names()).map(|near| format!("\"{near}\""));
    let mut diagnostic = Diagnostic::new(&codes::E0204, item.span, title, "unknown stage type");
    diagnostic = match near {
        Some(near) => diagnostic.did_you_mean(item.span, Some(near)),
        None => diagnostic.help("`weir stages` lists the types"),
    };
    convert::push(cx, item, diagnostic);
}

/// A table of parameters: of a stage, of `[run]`, of `run = { .. }`.
pub(crate) struct Params<'a> {
    /// Whose they are, in messages.
    pub(crate) owner: String,
    /// The code for a key that is none of them.
    pub(crate) unknown: &'static codes::Code,
    /// The parameters.
    pub(crate) params: &'a [Param],
    /// Keys that are checked elsewhere.
    pub(crate) skip: &'a [&'a str],
    /// A table that works, from which lines to add are taken.
    pub(crate) example: &'a str,
    /// What says which parameters there are.
    pub(crate) at: Span,
    /// Where the table begins.
    pub(crate) key: Span,
}

impl Params<'_> {
    /// Checks every key; defaults are filled in. `given` gets the values as they were written.
    pub(crate) fn check(
        &self,
        cx: &mut Cx,
        table: &Table,
        given: &mut BTreeMap<String, Item>,
    ) -> Values {
        let mut values = Values::default();
        for entry in &table.entries {
            if self.skip.contains(&entry.name.as_str()) {
                continue;
            }
            let Some(param) = self.params.iter().find(|param| param.name == entry.name) else {
                self.unknown(cx, &entry.name, entry.key);
                continue;
            };
            given.insert(entry.name.clone(), entry.value.clone());
            if let Some(value) = convert::value(cx, &entry.value, param.name, &param.kind) {
                values.0.insert(entry.name.clone(), value);
            }
        }
        for param in self.params {
            if table.get(param.name).is_some() {
                continue;
            }
            if let Some(value) = default(cx, param) {
                values.0.insert(param.name.to_owned(), value);
            } else if param.required && !cx.damage.may_lack_keys(self.key) {
                self.missing(cx, param);
            }
        }
        values
    }

    fn unknown(&self, cx: &mut Cx, name: &str, key: Span) {
        let names = || self.params.iter().map(|param| param.name);
        let near = nearest(name, names().chain(self.skip.iter().copied())).map(str::to_owned);
        let title = format!("{} has no parameter `{name}`", self.owner);
        let mut diagnostic = Diagnostic::new(self.unknown, key, title, "not a parameter of it");
        if self.at != self.key {
            diagnostic = diagnostic.with(self.at, "the stage type");
        }
        if near.is_none() {
            let all: Vec<&str> = names().collect();
            diagnostic = diagnostic.help(match all.is_empty() {
                true => "it has no parameters".to_owned(),
                false => format!("its parameters: {}", all.join(", ")),
            });
        }
        cx.found.push(diagnostic.did_you_mean(key, near));
    }

    fn missing(&self, cx: &mut Cx, param: &Param) {
        let title = format!("{} needs the parameter `{}`", self.owner, param.name);
        let mut diagnostic = Diagnostic::new(
            &codes::E0306,
            self.key,
            title,
            format!("no `{}` here", param.name),
        );
        if self.at != self.key {
            diagnostic = diagnostic.with(self.at, "the stage type");
        }
        let line = self.example.lines().find(|line| {
            let rest = line.trim_start().strip_prefix(param.name);
            rest.is_some_and(|rest| rest.trim_start().starts_with('='))
        });
        let line = match line {
            Some(line) => line.split(" #").next().unwrap_or(line).trim().to_owned(),
            None => format!("{} = ...", param.name),
        };
        diagnostic = match cx.end_of_line(self.at) {
            Some(end) if !line.ends_with("...") => {
                let edit = Edit {
                    span: end,
                    text: format!("\n{line}"),
                };
                diagnostic
                    .help(param.doc)
                    .fixes("add a line, for example", vec![edit])
            }
            _ => diagnostic.help(format!("add `{line}`: {}", param.doc)),
        };
        cx.found.push(diagnostic);
    }
}

/// A parameter's default. One that does not fit is a fault of the schema, which [`crate::reference::faults`] finds.
pub(crate) fn default(cx: &mut Cx, param: &Param) -> Option<Value> {
    let text = param.default?;
    let base = cx
        .sources
        .get(0)
        .map_or_else(Default::default, |file| file.base.clone());
    let source = cx.sources.add("<default>", text, Path::new(&base));
    let before = cx.found.len();
    let kind = match param.kind {
        // A default path need not be there before the run makes it.
        ParamKind::Path { .. } => ParamKind::Path { exists: false },
        kind => kind,
    };
    let value = parse::value(cx, Span::new(source, 0..text.len()))
        .and_then(|item| convert::value(cx, &item, param.name, &kind));
    cx.found.truncate(before);
    cx.sources.pop();
    value
}
