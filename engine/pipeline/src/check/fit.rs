//! Edges whose shapes do not agree.

use super::Cx;
use super::stages::Draft;
use super::wiring::Link;
use crate::codes;
use crate::diagnostic::{Diagnostic, Edit};
use crate::model::ModelHeader;
use crate::schema::{Kind, ModelField};
use crate::shapes::{Because, Conflict, Number, Shape, Staged, unify};
use crate::source::Span;
use crate::values::Value;
use std::collections::BTreeMap;

/// Unifies the shapes of sound drafts; reports what does not agree. Shapes by place in `order`.
pub(crate) fn check(
    cx: &mut Cx,
    drafts: &[Draft],
    links: &[Vec<Link>],
    order: &[usize],
) -> Vec<Vec<Shape>> {
    // Only a prefix-closed part of the graph can be unified: stages whose type is known, fed by such stages.
    let mut place = vec![None; drafts.len()];
    let mut stages = Vec::new();
    let mut kept = Vec::new();
    for &index in order {
        let Some(schema) = drafts[index].schema else {
            continue;
        };
        let inputs = links[index].iter().filter_map(|link| {
            let output = link.output.filter(|_| link.sound)?;
            Some((link.port, place[link.from]?, output, *link))
        });
        let inputs: Vec<_> = inputs.collect();
        place[index] = Some(stages.len());
        stages.push(Staged {
            schema,
            values: &drafts[index].values,
            inputs: inputs
                .iter()
                .map(|(port, from, output, _)| (*port, *from, *output))
                .collect(),
        });
        kept.push((
            index,
            inputs
                .into_iter()
                .map(|(.., link)| link)
                .collect::<Vec<_>>(),
        ));
    }
    let headers: BTreeMap<String, ModelHeader> = cx
        .models
        .iter()
        .filter_map(|(name, model)| Some((name.clone(), model.header.clone()?)))
        .collect();
    let models = headers
        .iter()
        .map(|(name, header)| (name.as_str(), header))
        .collect();
    let (shapes, conflicts) = unify(&stages, &models);
    let drafts: Vec<&Draft> = kept.iter().map(|(index, _)| &drafts[*index]).collect();
    // One model that does not fit its reader is one mistake, however many stages it reaches.
    let mut told: Vec<(Option<Because>, Option<Because>)> = Vec::new();
    for conflict in &conflicts {
        let link = kept[conflict.stage].1[conflict.input];
        let first = conflict.dims.first().or(conflict.mpp.as_ref());
        let key = (
            first.map(|(wanted, _)| wanted.because),
            first.map(|(_, given)| given.because),
        );
        if first.is_some() && told.contains(&key) {
            continue;
        }
        told.push(key);
        let diagnostic = explain(cx, &drafts, &headers, conflict, link, &stages);
        cx.found.push(diagnostic);
    }
    shapes
}

fn explain(
    cx: &Cx,
    drafts: &[&Draft],
    headers: &BTreeMap<String, ModelHeader>,
    conflict: &Conflict,
    link: Link,
    stages: &[Staged],
) -> Diagnostic {
    let taker = drafts[conflict.stage];
    let port = &stages[conflict.stage].schema.ins[link.port];
    if let Some((wanted, given)) = conflict.ranks {
        let title = format!(
            "input `{}` takes {wanted} dimensions, not {given}",
            port.name
        );
        return Diagnostic::new(&codes::E0404, link.span, title, "shapes of different ranks");
    }
    let pairs = || conflict.dims.iter().chain(&conflict.mpp);
    let model = pairs().find_map(|(wanted, _)| match wanted.because {
        Because::Model {
            stage,
            param,
            field: ModelField::InputSize | ModelField::InputMpp,
        } => model_of(drafts[stage], param, headers),
        _ => None,
    });
    if let (Kind::Pixels, Some((name, header))) = (port.kind, model) {
        return untrained(cx, drafts, conflict, link, taker, name, header);
    }
    let Some((wanted, given)) = pairs().next() else {
        return Diagnostic::new(&codes::E0404, link.span, codes::E0404.title, "");
    };
    if port.kind == Kind::Pixels {
        return other_tiles(cx, drafts, headers, conflict, link, taker, port.name);
    }
    let title = format!(
        "input `{}` of stage `{}` takes {} of {}, not {}",
        port.name,
        taker.name,
        port.kind.name(),
        wanted.value,
        given.value
    );
    let label = format!("{} wanted, {} given", wanted.value, given.value);
    let mut diagnostic = Diagnostic::new(&codes::E0404, link.span, title, label);
    for number in [wanted, given] {
        let (span, text) = reason(drafts, headers, number);
        if span != link.span {
            diagnostic = diagnostic.with(span, text);
        }
    }
    diagnostic
}

/// Tiles of another size or um/px than the model was trained on.
fn untrained(
    cx: &Cx,
    drafts: &[&Draft],
    conflict: &Conflict,
    link: Link,
    taker: &Draft,
    name: &str,
    header: &ModelHeader,
) -> Diagnostic {
    let given = tiles(conflict, |(_, given)| given);
    let wanted = format!("{} px at {} um/px", header.input.size, header.input.mpp);
    let title = format!(
        "model `{name}` was trained on tiles of {wanted}, and stage `{}` gets {}",
        taker.name, given
    );
    let diagnostic = Diagnostic::new(&codes::E0419, link.span, title, format!("{wanted} wanted"));
    let (diagnostic, edits) = set_at_the_reader(cx, drafts, conflict, diagnostic);
    let diagnostic = diagnostic
        .help("a network says nothing about tiles that are unlike those that it was trained on");
    if edits.is_empty() {
        diagnostic
    } else {
        diagnostic.fixes("give the model the tiles that it knows", edits)
    }
}

/// Tiles of another size or um/px than a stage takes, by its type or its own parameters.
fn other_tiles(
    cx: &Cx,
    drafts: &[&Draft],
    headers: &BTreeMap<String, ModelHeader>,
    conflict: &Conflict,
    link: Link,
    taker: &Draft,
    port: &str,
) -> Diagnostic {
    let wanted = tiles(conflict, |(wanted, _)| wanted);
    let title = format!(
        "input `{port}` of stage `{}` takes tiles of {wanted}, not {}",
        taker.name,
        tiles(conflict, |(_, given)| given)
    );
    let mut diagnostic =
        Diagnostic::new(&codes::E0404, link.span, title, format!("{wanted} wanted"));
    let pairs = || conflict.dims.iter().chain(&conflict.mpp);
    let given = pairs().map(|(_, given)| given);
    // What a parameter gives is told with what to change.
    let given = given.filter(|number| !matches!(number.because, Because::Param { .. }));
    let mut told = Vec::new();
    for number in pairs().map(|(wanted, _)| wanted).chain(given) {
        let (span, text) = reason(drafts, headers, number);
        if span != link.span && !told.contains(&number.because) {
            diagnostic = diagnostic.with(span, text);
        }
        told.push(number.because);
    }
    let (diagnostic, edits) = set_at_the_reader(cx, drafts, conflict, diagnostic);
    if edits.is_empty() {
        diagnostic
    } else {
        diagnostic.fixes("give the stage the tiles that it takes", edits)
    }
}

/// What of a conflict is a tile's, in words: as "50 px at 4 um/px".
fn tiles(conflict: &Conflict, which: impl Fn(&(Number, Number)) -> &Number) -> String {
    let mut words: Vec<String> = Vec::new();
    for pair in &conflict.dims {
        // No tile is that small, and no picture has more channels.
        let unit = match pair.0.value.max(pair.1.value) <= 4.0 {
            true => "channels",
            false => "px",
        };
        let word = format!("{} {unit}", which(pair).value);
        if !words.contains(&word) {
            words.push(word);
        }
    }
    let mut words = vec![words.join(" x ")];
    if let Some(pair) = &conflict.mpp {
        words.push(format!("{} um/px", which(pair).value));
    }
    words.retain(|word| !word.is_empty());
    words.join(" at ")
}

/// Where the reader has its numbers from, and the changes by which it sends what is wanted.
fn set_at_the_reader(
    cx: &Cx,
    drafts: &[&Draft],
    conflict: &Conflict,
    mut diagnostic: Diagnostic,
) -> (Diagnostic, Vec<Edit>) {
    let mut edits = Vec::new();
    for (wanted, number) in conflict.dims.first().into_iter().chain(&conflict.mpp) {
        let Because::Param { stage, param } = number.because else {
            continue;
        };
        let reader = drafts[stage];
        match reader.given.get(param) {
            Some(item) => {
                diagnostic = diagnostic.with(item.span, format!("`{param}` is set here"));
                if let Some(via) = &item.via {
                    diagnostic = diagnostic.with(
                        via.span,
                        format!("`${{{}}}` has its value from here", via.name),
                    );
                }
                if item.via.is_none() && item.span.source == 0 {
                    edits.push(Edit {
                        span: item.span,
                        text: decimal(param, wanted.value),
                    });
                }
            }
            None => {
                diagnostic = diagnostic.with(
                    reader.type_span,
                    format!("`{param}` is {} when it is not set", number.value),
                );
                if let Some(end) = cx
                    .end_of_line(reader.type_span)
                    .filter(|end| end.source == 0)
                {
                    edits.push(Edit {
                        span: end,
                        text: format!("\n{param} = {}", decimal(param, wanted.value)),
                    });
                }
            }
        }
    }
    (diagnostic, edits)
}

/// A number as it would stand in the file; um/px keep their point.
fn decimal(param: &str, value: f64) -> String {
    if param.contains("mpp") {
        format!("{value:?}")
    } else {
        value.to_string()
    }
}

fn model_of<'a>(
    draft: &Draft,
    param: &str,
    headers: &'a BTreeMap<String, ModelHeader>,
) -> Option<(&'a str, &'a ModelHeader)> {
    let Some(Value::Text(name)) = draft.values.0.get(param) else {
        return None;
    };
    headers
        .get_key_value(name)
        .map(|(name, header)| (name.as_str(), header))
}

/// Where a number comes from, in words.
fn reason(
    drafts: &[&Draft],
    headers: &BTreeMap<String, ModelHeader>,
    number: &Number,
) -> (Span, String) {
    let value = number.value;
    match number.because {
        Because::Type { stage } => (drafts[stage].type_span, format!("{value} by its type")),
        Because::Param { stage, param } => {
            let draft = drafts[stage];
            let span = draft
                .given
                .get(param)
                .map_or(draft.type_span, |item| item.span);
            (span, format!("`{param}` is {value}"))
        }
        Because::Model {
            stage,
            param,
            field,
        } => {
            let draft = drafts[stage];
            let span = draft
                .given
                .get(param)
                .map_or(draft.type_span, |item| item.span);
            let what = match field {
                ModelField::InputSize => "takes tiles of",
                ModelField::InputMpp => "takes um/px of",
                ModelField::Feature => "has features of",
                ModelField::Classes => "has classes:",
            };
            let name = model_of(draft, param, headers).map_or("?", |(name, _)| name);
            (span, format!("model `{name}` {what} {value}"))
        }
    }
}
