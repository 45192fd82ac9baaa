//! `in`: which output feeds which input.

use super::stages::Draft;
use super::{Cx, convert};
use crate::codes;
use crate::diagnostic::Diagnostic;
use crate::doc::{Data, Item};
use crate::nearest::{list, nearest};
use crate::schema::{Kind, Port, Registry, Rows, Schema};
use crate::source::Span;

/// A resolved reference.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    /// Index of the input port.
    pub(crate) port: usize,
    /// Where the reference stands.
    pub(crate) span: Span,
    /// Index of the feeding draft.
    pub(crate) from: usize,
    /// Index of its output port; `None` when its type is not known.
    pub(crate) output: Option<usize>,
    /// Whether the kinds agree.
    pub(crate) sound: bool,
}

/// Resolves the references of every draft; by draft, sorted by port.
pub(crate) fn connect(cx: &mut Cx, drafts: &[Draft]) -> Vec<Vec<Link>> {
    drafts
        .iter()
        .map(|draft| links(cx, drafts, draft))
        .collect()
}

fn links(cx: &mut Cx, drafts: &[Draft], draft: &Draft) -> Vec<Link> {
    let mut links = Vec::new();
    let mut unresolved = Vec::new();
    if let (Some(schema), Some(key)) = (draft.schema, draft.feeders_key)
        && schema.rows == Rows::Source
    {
        let title = format!("`{}` is a source and takes no `in`", schema.name);
        cx.found.push(
            Diagnostic::new(&codes::E0410, key, title, "a source begins a graph")
                .with(draft.type_span, "the stage type"),
        );
        return links;
    }
    let mut everything_reported = false;
    match draft.feeders.as_ref().map(|item| (item, &item.data)) {
        None => {}
        Some((_, Data::Reported)) => everything_reported = true,
        Some((item, Data::Table(table))) => {
            if table.entries.is_empty() {
                convert::push(
                    cx,
                    item,
                    Diagnostic::new(&codes::E0406, item.span, "`in` names no feeder", "empty"),
                );
                everything_reported = true;
            }
            for entry in &table.entries {
                let port = match draft.schema {
                    None => None,
                    Some(schema) => {
                        match schema.ins.iter().position(|port| port.name == entry.name) {
                            Some(port) => Some(port),
                            None => {
                                no_such_input(cx, draft, schema, &entry.name, entry.key);
                                everything_reported = true;
                                None
                            }
                        }
                    }
                };
                feeders(
                    cx,
                    drafts,
                    draft,
                    port,
                    &entry.value,
                    &mut links,
                    &mut unresolved,
                );
            }
        }
        Some((item, _)) => {
            let port = draft
                .schema
                .and_then(|schema| (!schema.ins.is_empty()).then_some(0));
            feeders(cx, drafts, draft, port, item, &mut links, &mut unresolved);
        }
    }
    if let Some(schema) = draft.schema
        && !everything_reported
        && !cx.damage.may_lack_keys(draft.key)
    {
        for (index, port) in schema.ins.iter().enumerate() {
            let fed = links.iter().any(|link| link.port == index) || unresolved.contains(&index);
            if !fed && !port.optional {
                not_connected(cx, drafts, draft, schema, port, index == 0);
            }
        }
    }
    links.sort_by_key(|link| link.port);
    links
}

/// Resolves what feeds one input: a reference, or a list of them.
fn feeders(
    cx: &mut Cx,
    drafts: &[Draft],
    draft: &Draft,
    port: Option<usize>,
    item: &Item,
    links: &mut Vec<Link>,
    unresolved: &mut Vec<usize>,
) {
    let input = port.and_then(|port| draft.schema?.ins.get(port));
    let items = match &item.data {
        Data::List(items) => {
            if let Some(input) = input.filter(|input| !input.many && items.len() > 1) {
                let title = format!("input `{}` takes one stream", input.name);
                let label = format!("{} streams", items.len());
                convert::push(
                    cx,
                    item,
                    Diagnostic::new(&codes::E0409, item.span, title, label),
                );
                unresolved.extend(port);
                return;
            }
            if items.is_empty() {
                let title = "the list names no feeder";
                convert::push(
                    cx,
                    item,
                    Diagnostic::new(&codes::E0406, item.span, title, "empty"),
                );
                unresolved.extend(port);
            }
            items.as_slice()
        }
        _ => std::slice::from_ref(item),
    };
    for item in items {
        let before = links.len();
        if let Some(text) = convert::text(cx, item, "in") {
            reference(cx, drafts, draft, port, item, &text, links);
        }
        if links.len() == before {
            unresolved.extend(port);
        }
    }
}

fn reference(
    cx: &mut Cx,
    drafts: &[Draft],
    draft: &Draft,
    port: Option<usize>,
    item: &Item,
    text: &str,
    links: &mut Vec<Link>,
) {
    let (stage, output) = match text.split_once('.') {
        Some((stage, output)) => (stage, Some(output)),
        None => (text, None),
    };
    let Some(from) = drafts.iter().position(|other| other.name == stage) else {
        if !cx.damage.tables_lost {
            let names = || drafts.iter().map(|draft| draft.name.as_str());
            let title = format!("no stage is called `{stage}`");
            let mut diagnostic = Diagnostic::new(&codes::E0401, item.span, title, "not found");
            let at = cx.sources.slice(item.span).find(stage).unwrap_or(0);
            diagnostic = match nearest(stage, names().filter(|name| *name != draft.name)) {
                Some(near) => diagnostic
                    .did_you_mean(item.span.part(at, at + stage.len()), Some(near.to_owned())),
                // The type's name instead of the stage's is the usual slip.
                None => match drafts
                    .iter()
                    .find(|other| other.schema.is_some_and(|schema| schema.name == stage))
                {
                    Some(other) => diagnostic
                        .help("a reference is the name of a [stage.NAME] table, not its type")
                        .did_you_mean(
                            item.span.part(at, at + stage.len()),
                            Some(other.name.clone()),
                        ),
                    None => diagnostic.help(format!(
                        "the stages: {}",
                        list(&names().collect::<Vec<_>>())
                    )),
                },
            };
            convert::push(cx, item, diagnostic);
        }
        return;
    };
    let Some(port) = port else { return };
    let mut link = Link {
        port,
        span: item.span,
        from,
        output: None,
        sound: false,
    };
    if let (Some(giver), Some(taker)) = (drafts[from].schema, draft.schema) {
        link.output = self::output(cx, &drafts[from], giver, item, output);
        let Some(output) = link.output else { return };
        link.sound = kinds(cx, drafts, draft, taker, link, giver, output, item);
    }
    let twin = links.iter().find(|other| {
        link.output.is_some()
            && (other.port, other.from, other.output) == (link.port, link.from, link.output)
    });
    if let Some(twin) = twin {
        let title = format!("`{text}` feeds the input twice");
        let diagnostic = Diagnostic::new(&codes::E0415, link.span, title, "a second time");
        convert::push(cx, item, diagnostic.with(twin.span, "once here"));
    }
    links.push(link);
}

/// The output that is meant.
fn output(
    cx: &mut Cx,
    from: &Draft,
    schema: &Schema,
    item: &Item,
    name: Option<&str>,
) -> Option<usize> {
    let names: Vec<&str> = schema.outs.iter().map(|port| port.name).collect();
    match name {
        None if schema.outs.is_empty() => {
            let title = format!("stage `{}` is a sink and has no outputs", from.name);
            let diagnostic =
                Diagnostic::new(&codes::E0402, item.span, title, "nothing comes from there");
            convert::push(cx, item, diagnostic.with(from.key, "declared here"));
            None
        }
        None => Some(0),
        Some(name) => {
            let found = names.iter().position(|known| *known == name);
            if found.is_none() {
                let title = format!("stage `{}` has no output `{name}`", from.name);
                let label = format!("its outputs: {}", list(&names));
                let at = cx.sources.slice(item.span).rfind(name).unwrap_or(0);
                let only = (names.len() == 1).then(|| names[0]);
                let near = nearest(name, names.iter().copied())
                    .or(only)
                    .map(str::to_owned);
                let diagnostic = Diagnostic::new(&codes::E0402, item.span, title, label)
                    .with(from.key, "declared here")
                    .did_you_mean(item.span.part(at, at + name.len()), near);
                convert::push(cx, item, diagnostic);
            }
            found
        }
    }
}

/// Whether the kinds of both ends agree; reports when not.
#[allow(clippy::too_many_arguments)]
fn kinds(
    cx: &mut Cx,
    drafts: &[Draft],
    draft: &Draft,
    taker: &Schema,
    link: Link,
    giver: &Schema,
    output: usize,
    item: &Item,
) -> bool {
    let input = &taker.ins[link.port];
    let given = giver.outs[output].kind;
    if input.kind == given {
        return true;
    }
    let from = &drafts[link.from];
    let title = format!(
        "input `{}` takes {}, not {}",
        input.name,
        input.kind.name(),
        given.name()
    );
    let label = format!("{} wanted, {} given", input.kind.name(), given.name());
    let mut diagnostic = Diagnostic::new(&codes::E0403, item.span, title, label)
        .with(from.key, format!("this stage gives {}", given.name()));
    let right_output = giver.outs.iter().find(|port| port.kind == input.kind);
    let right_input = taker.ins.iter().find(|port| port.kind == given);
    let quoted = cx.sources.slice(item.span);
    if let Some(right) = right_output {
        let text = format!("\"{}.{}\"", from.name, right.name);
        diagnostic = diagnostic.fix("name the output", item.span, text);
    } else if let (Some(right), true) = (right_input, draft.feeders.as_ref() == Some(item)) {
        let text = format!("{{ {} = {quoted} }}", right.name);
        diagnostic = diagnostic.fix("name the input", item.span, text);
    } else if let Some(between) = converter(cx.registry, given, input.kind) {
        diagnostic = diagnostic.help(format!("put a stage between them: `use = \"{between}\"`"));
    }
    convert::push(cx, item, diagnostic);
    false
}

/// A stage type that makes `to` of `from`.
fn converter(registry: &Registry, from: Kind, to: Kind) -> Option<&'static str> {
    registry
        .iter()
        .find(|schema| {
            schema.ins.first().is_some_and(|port| port.kind == from)
                && schema.outs.iter().any(|port| port.kind == to)
        })
        .map(|schema| schema.name)
}

fn no_such_input(cx: &mut Cx, draft: &Draft, schema: &Schema, name: &str, key: Span) {
    let names: Vec<&str> = schema.ins.iter().map(|port| port.name).collect();
    let title = format!("`{}` has no input `{name}`", schema.name);
    let only = (names.len() == 1).then(|| names[0]);
    let near = nearest(name, names.iter().copied())
        .or(only)
        .map(str::to_owned);
    cx.found.push(
        Diagnostic::new(
            &codes::E0407,
            key,
            title,
            format!("its inputs: {}", list(&names)),
        )
        .with(draft.type_span, "the stage type")
        .did_you_mean(key, near),
    );
}

fn not_connected(
    cx: &mut Cx,
    drafts: &[Draft],
    draft: &Draft,
    schema: &Schema,
    port: &Port,
    first: bool,
) {
    let title = format!(
        "input `{}` of stage `{}` is not connected",
        port.name, draft.name
    );
    let label = format!("`{}` takes {}", schema.name, port.kind.name());
    let place = draft.feeders.as_ref().map_or(draft.key, |item| item.span);
    let mut diagnostic = Diagnostic::new(&codes::E0406, place, title, label);
    let givers: Vec<String> = drafts
        .iter()
        .filter(|other| other.name != draft.name)
        .filter_map(|other| Some((other, other.schema?)))
        .flat_map(|(other, schema)| {
            schema
                .outs
                .iter()
                .enumerate()
                .filter(|(_, out)| out.kind == port.kind)
                .map(|(index, out)| {
                    if index == 0 {
                        other.name.clone()
                    } else {
                        format!("{}.{}", other.name, out.name)
                    }
                })
        })
        .collect();
    if let [giver] = givers.as_slice()
        && draft.feeders.is_none()
    {
        let line = if first {
            format!("in = \"{giver}\"")
        } else {
            format!("in = {{ {} = \"{giver}\" }}", port.name)
        };
        diagnostic = match cx.end_of_line(draft.type_span) {
            Some(end) => diagnostic.fix("add a line", end, format!("\n{line}")),
            None => diagnostic.help(format!("add `{line}`")),
        };
    } else if !givers.is_empty() {
        diagnostic = diagnostic.help(format!("{} comes from {}", port.kind.name(), list(&givers)));
    }
    cx.found.push(diagnostic);
}
