//! `[var.X]`: declarations and values.

use super::{Cx, convert, parse, structure};
use crate::codes;
use crate::diagnostic::Diagnostic;
use crate::doc::{Data, Item, Table};
use crate::nearest::{list, nearest};
use crate::source::Span;
use std::path::Path;

/// A declared variable.
pub(crate) struct Variable {
    /// Its name.
    pub(crate) name: String,
    /// Where it is declared.
    key: Span,
    kind: VarKind,
    /// Its value; `None` when there is none, which was reported.
    pub(super) value: Option<Item>,
    /// Whether a `${X}` stands somewhere.
    pub(super) used: bool,
}

/// `type =` of a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VarKind {
    Text,
    Integer,
    Float,
    Boolean,
    Path,
    List,
}

/// The types, as they stand in a file.
pub(crate) const TYPES: [&str; 6] = ["string", "integer", "float", "boolean", "path", "list"];

impl VarKind {
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "string" => VarKind::Text,
            "integer" => VarKind::Integer,
            "float" => VarKind::Float,
            "boolean" => VarKind::Boolean,
            "path" => VarKind::Path,
            "list" => VarKind::List,
            _ => return None,
        })
    }

    fn words(self) -> &'static str {
        match self {
            VarKind::Text => "a text",
            VarKind::Integer => "a whole number",
            VarKind::Float => "a number",
            VarKind::Boolean => "true or false",
            VarKind::Path => "a path",
            VarKind::List => "a list of texts",
        }
    }

    fn takes(self, data: &Data) -> bool {
        match (self, data) {
            (VarKind::Text | VarKind::Path, Data::Text(_))
            | (VarKind::Integer, Data::Integer(Some(_)))
            | (VarKind::Float, Data::Float(_) | Data::Integer(Some(_)))
            | (VarKind::Boolean, Data::Boolean(_)) => true,
            (VarKind::List, Data::List(items)) => {
                items.iter().all(|item| matches!(item.data, Data::Text(_)))
            }
            _ => false,
        }
    }
}

/// Reads the declarations and finds each variable's value.
pub(crate) fn declare(cx: &mut Cx, root: &Table, given: &[(String, String)]) -> Vec<Variable> {
    let mut variables = Vec::new();
    for (name, key, table) in structure::named_tables(cx, root, "var", "variable") {
        const KEYS: [&str; 7] = [
            "type",
            "default",
            "default-env",
            "doc",
            "min",
            "max",
            "values",
        ];
        structure::known_keys(cx, table, &KEYS, &format!("[var.{name}]"));
        variables.push(variable(cx, name, key, table, given));
    }
    for (name, value) in given {
        if !variables.iter().any(|variable| variable.name == *name) {
            let text = format!("{name}={value}");
            let source = cx.sources.add("<command line>", text, Path::new(""));
            let span = Span::new(source, 0..name.len());
            let names = || variables.iter().map(|variable| variable.name.as_str());
            let known = nearest(name, names()).map(str::to_owned);
            let all: Vec<_> = names().collect();
            cx.found.push(
                Diagnostic::new(
                    &codes::E0206,
                    span,
                    format!("the pipeline has no variable `{name}`"),
                    format!("its variables: {}", list(&all)),
                )
                .did_you_mean(span, known),
            );
        }
    }
    variables
}

fn variable(
    cx: &mut Cx,
    name: &str,
    key: Span,
    table: &Table,
    given: &[(String, String)],
) -> Variable {
    let kind = match table.get("type") {
        None => {
            if !cx.damage.may_lack_keys(key) {
                cx.found.push(
                    Diagnostic::new(
                        &codes::E0306,
                        key,
                        format!("variable `{name}` has no `type`"),
                        "which type of value is it?",
                    )
                    .help(format!(
                        "add `type = \"string\"`, or one of {}",
                        TYPES.join(", ")
                    )),
                );
            }
            None
        }
        Some(entry) => {
            convert::choice(cx, &entry.value, "type", &TYPES).and_then(|text| VarKind::of(&text))
        }
    };
    for entry in [table.get("doc"), table.get("default-env")]
        .into_iter()
        .flatten()
    {
        convert::text(cx, &entry.value, &entry.name);
    }
    let mut variable = Variable {
        name: name.to_owned(),
        key,
        kind: kind.unwrap_or(VarKind::Text),
        value: None,
        used: false,
    };
    let Some(kind) = kind else { return variable };
    let value = value(cx, &variable, table, given);
    match value {
        Some(value) => variable.value = check(cx, name, kind, &value, table).then_some(value),
        None if !cx.damage.may_lack_keys(key) => {
            let upper = environment_name(name);
            cx.found.push(
                Diagnostic::new(
                    &codes::E0207,
                    key,
                    format!("variable `{name}` has no value"),
                    "no default, and none was given",
                )
                .help(format!(
                    "give it on the command line as `{name}=...`, in the environment as `{upper}`, or here as `default = ...`"
                )),
            );
        }
        None => {}
    }
    variable
}

fn environment_name(name: &str) -> String {
    format!("WEIR_VAR_{}", name.replace('-', "_").to_uppercase())
}

/// The value by precedence: default, `default-env`, `WEIR_VAR_X`, command line. Text that is no value was reported and is
/// [`Data::Reported`].
fn value(
    cx: &mut Cx,
    variable: &Variable,
    table: &Table,
    given: &[(String, String)],
) -> Option<Item> {
    let (name, kind) = (variable.name.as_str(), variable.kind);
    let mut texts: Vec<Span> = Vec::new();
    for (_, text) in given.iter().filter(|(other, _)| other == name) {
        let whole = format!("{name}={text}");
        let source = cx
            .sources
            .add("<command line>", whole.as_str(), Path::new(""));
        texts.push(Span::new(source, name.len() + 1..whole.len()));
    }
    if texts.is_empty() {
        let default = table
            .get("default-env")
            .and_then(|entry| entry.value.text());
        let names = [Some(environment_name(name)), default.map(str::to_owned)];
        let found = names
            .into_iter()
            .flatten()
            .find_map(|name| Some((cx.environment(&name)?, name)));
        if let Some((text, name)) = found {
            let length = text.len();
            let source = cx.sources.add(format!("<{name}>"), text, Path::new(""));
            texts.push(Span::new(source, 0..length));
        }
    }
    let Some(last) = texts.last().copied() else {
        return table.get("default").map(|entry| entry.value.clone());
    };
    if kind != VarKind::List {
        return Some(read(cx, kind, last));
    }
    let mut items = Vec::new();
    for span in texts {
        match read(cx, kind, span).data {
            Data::List(found) => items.extend(found),
            _ => return Some(Item::new(span, Data::Reported)),
        }
    }
    Some(Item::new(last, Data::List(items)))
}

/// A text of the command line or the environment as a value.
fn read(cx: &mut Cx, kind: VarKind, span: Span) -> Item {
    let text = cx.sources.slice(span).to_owned();
    let data = match kind {
        VarKind::Text | VarKind::Path => Data::Text(text),
        VarKind::Integer => match text.trim().parse() {
            Ok(number) => Data::Integer(Some(number)),
            Err(_) => Data::Text(text),
        },
        VarKind::Float => text.trim().parse().map_or(Data::Text(text), Data::Float),
        VarKind::Boolean => text.trim().parse().map_or(Data::Text(text), Data::Boolean),
        VarKind::List if text.trim_start().starts_with('[') => {
            return parse::value(cx, span).unwrap_or(Item::new(span, Data::Reported));
        }
        VarKind::List => Data::List(vec![Item::new(span, Data::Text(text))]),
    };
    Item::new(span, data)
}

/// Whether a value fits its declaration; reports when not.
fn check(cx: &mut Cx, name: &str, kind: VarKind, value: &Item, table: &Table) -> bool {
    if value.is_reported() {
        return false;
    }
    if !kind.takes(&value.data) {
        let title = format!("variable `{name}` is {}", kind.words());
        let got = match &value.data {
            Data::Integer(None) => "this number is too large",
            data => data.type_name(),
        };
        let label = format!("{} wanted, {got} given", kind.words());
        let mut diagnostic = Diagnostic::new(&codes::E0209, value.span, title, label);
        if let Some(entry) = table
            .get("type")
            .filter(|entry| entry.value.span.source != value.span.source)
        {
            diagnostic = diagnostic.with(entry.value.span, "declared here");
        }
        cx.found.push(diagnostic);
        return false;
    }
    let number = |item: &Item| match item.data {
        Data::Integer(Some(number)) => Some(number as f64),
        Data::Float(number) => Some(number),
        _ => None,
    };
    for (bound, below) in [("min", true), ("max", false)] {
        let Some(entry) = table.get(bound) else {
            continue;
        };
        let Some(limit) = number(&entry.value) else {
            let title = format!("`{bound}` of variable `{name}` must be a number");
            cx.found.push(Diagnostic::new(
                &codes::E0302,
                entry.value.span,
                title,
                entry.value.data.type_name(),
            ));
            return false;
        };
        let Some(found) = number(value) else {
            let title = format!("variable `{name}` is {} and has no `{bound}`", kind.words());
            cx.found.push(Diagnostic::new(
                &codes::E0202,
                entry.key,
                title,
                "only numbers have a range",
            ));
            return false;
        };
        if found < limit && below || found > limit && !below || found.is_nan() {
            let title = format!("variable `{name}` is out of range");
            let label = format!("{} {limit}", if below { "at least" } else { "at most" });
            cx.found.push(
                Diagnostic::new(&codes::E0209, value.span, title, label)
                    .with(entry.value.span, "declared here"),
            );
            return false;
        }
    }
    let Some(entry) = table.get("values") else {
        return true;
    };
    let Data::List(allowed) = &entry.value.data else {
        let title = format!("`values` of variable `{name}` must be a list");
        cx.found.push(Diagnostic::new(
            &codes::E0302,
            entry.value.span,
            title,
            entry.value.data.type_name(),
        ));
        return false;
    };
    if allowed.iter().any(|item| item.data == value.data) {
        return true;
    }
    let allowed: Vec<String> = allowed
        .iter()
        .map(|item| cx.sources.slice(item.span).to_owned())
        .collect();
    let title = format!("variable `{name}` has a value that is not allowed");
    cx.found.push(
        Diagnostic::new(
            &codes::E0209,
            value.span,
            title,
            format!("one of {}", allowed.join(", ")),
        )
        .with(entry.value.span, "declared here"),
    );
    false
}

/// Warns of variables that nothing uses.
pub(crate) fn unused(cx: &mut Cx, variables: &[Variable]) {
    for variable in variables.iter().filter(|variable| !variable.used) {
        if cx.damage.tables_lost || cx.found.iter().any(Diagnostic::is_error) {
            // What uses it may be among the mistakes.
            return;
        }
        let title = format!("nothing uses variable `{}`", variable.name);
        let label = format!("no `${{{}}}` stands in the file", variable.name);
        cx.found
            .push(Diagnostic::new(&codes::W0211, variable.key, title, label));
    }
}
