//! Graphs that are sound edge by edge and yet not what was meant.

use super::Cx;
use super::stages::Draft;
use super::wiring::Link;
use crate::codes;
use crate::diagnostic::Diagnostic;
use crate::doc::Item;
use crate::model::ModelKind;
use crate::run::RunSettings;
use crate::schema::{Kind, ParamKind, Rows, Schema};
use crate::shapes::fetches;
use crate::values::Value;
use std::collections::BTreeSet;

/// Reports joined sources, dead ends, pixels that differ, bags of two models.
pub(crate) fn advise(cx: &mut Cx, drafts: &[Draft], links: &[Vec<Link>], order: &[usize]) {
    joined_sources(cx, drafts, links, order);
    // The rest would only repeat what an error already spoiled.
    if cx.found.iter().any(Diagnostic::is_error) {
        return;
    }
    let roles = |rows| {
        drafts
            .iter()
            .any(|draft| draft.schema.is_some_and(|schema| schema.rows == rows))
    };
    for (rows, noun, help) in [
        (
            Rows::Source,
            "source",
            "a source opens slides: `use = \"tile-reader\"`",
        ),
        (
            Rows::Sink,
            "sink",
            "a sink writes what was found: `use = \"predictions-sink\"`",
        ),
    ] {
        if !drafts.is_empty() && !roles(rows) {
            let title = format!("the pipeline has no {noun}");
            let last = &drafts[drafts.len() - 1];
            cx.found
                .push(Diagnostic::new(&codes::E0214, last.key, title, "the last stage").help(help));
        }
    }
    if roles(Rows::Sink) {
        dead_ends(cx, drafts, links);
    }
    for &index in order {
        other_pixels(cx, drafts, links, index);
        two_models(cx, drafts, links, index);
    }
}

/// Stages that cannot take rows back where rows may be taken back.
pub(crate) fn batch_only(cx: &mut Cx, drafts: &[Draft], run: &RunSettings, live: Option<&Item>) {
    if !run.live {
        return;
    }
    for draft in drafts {
        if draft.schema.is_some_and(|schema| schema.batch_only) {
            let title = format!(
                "stage `{}` cannot take tiles back, and a live run may withdraw them",
                draft.name
            );
            let mut found = Diagnostic::new(
                &codes::E0421,
                draft.type_span,
                title,
                "works on complete slides only",
            );
            if let Some(live) = live {
                found = found.with(live.span, "a live run");
            }
            cx.found.push(found.help("set `live = false` in [run]"));
        }
    }
}

/// A stage whose feeders stand behind different sources.
fn joined_sources(cx: &mut Cx, drafts: &[Draft], links: &[Vec<Link>], order: &[usize]) {
    let mut sources: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); drafts.len()];
    for &index in order {
        if drafts[index]
            .schema
            .is_some_and(|schema| schema.rows == Rows::Source)
        {
            sources[index].insert(index);
        }
        let mut joined: BTreeSet<usize> = BTreeSet::new();
        let mut first: Option<&Link> = None;
        let mut reported = false;
        for link in &links[index] {
            let behind = &sources[link.from];
            if let Some(first) =
                first.filter(|_| !reported && !behind.is_empty() && !joined.is_empty())
                && joined.is_disjoint(behind)
            {
                let name = |set: &BTreeSet<usize>| {
                    set.first()
                        .map_or("?", |source| drafts[*source].name.as_str())
                };
                let title = format!(
                    "stage `{}` joins slides of different sources",
                    drafts[index].name
                );
                let diagnostic = Diagnostic::new(
                    &codes::E0413,
                    link.span,
                    title,
                    format!("slides of source `{}`", name(behind)),
                )
                .with(first.span, format!("slides of source `{}`", name(&joined)));
                cx.found
                    .push(diagnostic.help("give each source a stage of its own"));
                reported = true;
            }
            first = first.or(Some(link));
            joined.extend(behind);
        }
        if reported {
            // Once is enough: what stands behind is not to blame.
            joined.clear();
        }
        sources[index].extend(joined);
    }
}

/// Stages that nothing takes from and that write nothing.
fn dead_ends(cx: &mut Cx, drafts: &[Draft], links: &[Vec<Link>]) {
    for (index, draft) in drafts.iter().enumerate() {
        let sink = draft.schema.is_none_or(|schema| schema.rows == Rows::Sink);
        let used = links.iter().flatten().any(|link| link.from == index);
        if !sink && !used {
            let title = format!("what stage `{}` sends reaches no sink", draft.name);
            cx.found.push(
                Diagnostic::new(&codes::W0412, draft.key, title, "nothing takes its output")
                    .help("connect a sink to it, or remove it"),
            );
        }
    }
}

/// Whether a stage makes other pixels of pixels.
fn changes_pixels(schema: &Schema) -> bool {
    let pixels = |ports: &[crate::schema::Port]| ports.iter().any(|port| port.kind == Kind::Pixels);
    schema.rows == Rows::Map && pixels(schema.ins) && pixels(schema.outs)
}

/// Stage types between the reader and the scorer that do not stand behind `tile-fetch`.
fn other_pixels(cx: &mut Cx, drafts: &[Draft], links: &[Vec<Link>], index: usize) {
    if !drafts[index].schema.is_some_and(fetches) {
        return;
    }
    let mut before = Vec::new();
    walk(links, index, &mut |at| {
        if drafts[at].schema.is_some_and(changes_pixels) {
            before.push(at);
        }
    });
    for at in before {
        let name = drafts[at].schema.map(|schema| schema.name);
        let mut open = vec![index];
        let mut seen = BTreeSet::new();
        let mut found = false;
        while let Some(from) = open.pop() {
            if !seen.insert(from) {
                continue;
            }
            for (user, _) in links
                .iter()
                .enumerate()
                .filter(|(_, links)| links.iter().any(|link| link.from == from))
            {
                if drafts[user].schema.is_some_and(changes_pixels) {
                    found |= drafts[user].schema.map(|schema| schema.name) == name;
                    open.push(user);
                }
            }
        }
        if !found {
            let title = format!(
                "stage `{}` changes the pixels that are scored, not those that `{}` reads again",
                drafts[at].name, drafts[index].name
            );
            let label = "reads the original pixels".to_owned();
            cx.found.push(
                Diagnostic::new(&codes::W0416, drafts[index].key, title, label)
                    .with(drafts[at].key, "changes pixels")
                    .help(format!(
                        "put a second stage with `use = \"{}\"` behind `{}`",
                        name.unwrap_or_default(),
                        drafts[index].name
                    )),
            );
        }
    }
}

/// Calls `what` for everything that feeds a stage, once each.
fn walk(links: &[Vec<Link>], index: usize, what: &mut dyn FnMut(usize)) {
    let mut seen = BTreeSet::new();
    let mut open = vec![index];
    while let Some(at) = open.pop() {
        for link in &links[at] {
            if seen.insert(link.from) {
                what(link.from);
                open.push(link.from);
            }
        }
    }
}

/// The bag model that a stage names, with its parameter.
fn bag_model(draft: &Draft) -> Option<(&'static str, &str)> {
    let param = draft
        .schema?
        .params
        .iter()
        .find(|param| param.kind == ParamKind::Model(ModelKind::Bag))?;
    match draft.values.0.get(param.name) {
        Some(Value::Text(name)) => Some((param.name, name)),
        _ => None,
    }
}

/// A stage of a bag model that is fed by a stage of another one.
fn two_models(cx: &mut Cx, drafts: &[Draft], links: &[Vec<Link>], index: usize) {
    let Some((param, name)) = bag_model(&drafts[index]) else {
        return;
    };
    let mut open: Vec<usize> = links[index].iter().map(|link| link.from).collect();
    let mut seen = BTreeSet::new();
    while let Some(at) = open.pop() {
        if !seen.insert(at) {
            continue;
        }
        let Some((_, other)) = bag_model(&drafts[at]) else {
            open.extend(links[at].iter().map(|link| link.from));
            continue;
        };
        let hash = |name: &str| Some(cx.models.get(name)?.header.as_ref()?.sha256.clone());
        if other != name && hash(other) != hash(name) {
            let place = |draft: &Draft| draft.given.get(param).map_or(draft.key, |item| item.span);
            let title = format!(
                "stage `{}` uses model `{name}` on what stage `{}` made with model `{other}`",
                drafts[index].name, drafts[at].name
            );
            cx.found.push(
                Diagnostic::new(&codes::W0418, place(&drafts[index]), title, "this model")
                    .with(place(&drafts[at]), "and this one"),
            );
        }
    }
}
