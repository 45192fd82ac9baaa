//! `${X}` in the texts of a file.

use super::Cx;
use super::variables::Variable;
use crate::codes;
use crate::diagnostic::Diagnostic;
use crate::doc::{Data, Item, Via};
use crate::nearest::nearest;
use crate::source::Span;
use std::path::Path;

/// Puts the values in the place of `${X}` everywhere below `item`.
pub(crate) fn substitute(cx: &mut Cx, variables: &mut [Variable], item: &mut Item) {
    match &mut item.data {
        Data::Text(text) if text.contains("${") => {
            let text = std::mem::take(text);
            *item = replaced(cx, variables, item.span, &text);
        }
        Data::List(items) => {
            let mut spliced = Vec::with_capacity(items.len());
            for mut inner in std::mem::take(items) {
                substitute(cx, variables, &mut inner);
                match inner {
                    Item {
                        via: Some(_),
                        data: Data::List(many),
                        ..
                    } => spliced.extend(many),
                    one => spliced.push(one),
                }
            }
            *items = spliced;
        }
        Data::Table(table) => {
            for entry in &mut table.entries {
                substitute(cx, variables, &mut entry.value);
            }
        }
        _ => {}
    }
}

/// What stands at `span` after replacement of the variables in `text`.
fn replaced(cx: &mut Cx, variables: &mut [Variable], span: Span, text: &str) -> Item {
    let reported = Item::new(span, Data::Reported);
    let mut out = String::new();
    let mut via = None;
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, from) = rest.split_at(at);
        if let Some(before) = before.strip_suffix('$') {
            out.push_str(before);
            out.push_str("${");
            rest = &from[2..];
            continue;
        }
        out.push_str(before);
        let Some(end) = from.find('}') else {
            let place = piece(cx, span, from);
            let title = "`${` is never closed";
            cx.found.push(
                Diagnostic::new(&codes::E0206, place, title, "a name and `}` belong here")
                    .help("write `$${` for the characters `${` themselves"),
            );
            return reported;
        };
        let whole = &from[..=end];
        let Some(value) = lookup(cx, variables, span, whole) else {
            return reported;
        };
        if whole == text {
            return Item { span, ..value };
        }
        match &value.data {
            Data::Text(text) => out.push_str(text),
            Data::Integer(Some(number)) => out.push_str(&number.to_string()),
            Data::Float(number) => out.push_str(&number.to_string()),
            Data::Boolean(value) => out.push_str(&value.to_string()),
            other => {
                let place = piece(cx, span, whole);
                let title = format!("{} cannot stand inside a text", other.type_name());
                cx.found.push(Diagnostic::new(
                    &codes::E0302,
                    place,
                    title,
                    "let it stand alone",
                ));
                return reported;
            }
        }
        // A path that begins with a variable is relative to where the variable's value stands.
        if rest.len() == text.len() && at == 0 {
            via = value.via;
        }
        rest = &from[end + 1..];
    }
    out.push_str(rest);
    Item {
        span,
        data: Data::Text(out),
        via,
    }
}

/// The value of `${name}` or `${name:form}`.
fn lookup(cx: &mut Cx, variables: &mut [Variable], span: Span, whole: &str) -> Option<Item> {
    let inner = &whole[2..whole.len() - 1];
    let place = piece(cx, span, whole);
    let (name, form) = match inner.split_once(':') {
        Some((name, form)) => (name, Some(form)),
        None => (inner, None),
    };
    if name == "env" {
        let variable = form.unwrap_or("NAME");
        let title = format!("the variable `{variable}` of the environment is not declared");
        cx.found.push(
            Diagnostic::new(&codes::E0208, place, title, "a pipeline says at its top what it takes from outside").help(
                format!("declare `[var.x]` with `type = \"string\"` and `default-env = \"{variable}\"`, and write `${{x}}` here"),
            ),
        );
        return None;
    }
    let Some(variable) = variables.iter_mut().find(|variable| variable.name == name) else {
        if !cx.damage.tables_lost {
            let known = nearest(
                name,
                variables.iter().map(|variable| variable.name.as_str()),
            );
            let fix = known.map(str::to_owned);
            let at = place.part(2, 2 + name.len());
            cx.found.push(
                Diagnostic::new(
                    &codes::E0206,
                    place,
                    format!("no variable is called `{name}`"),
                    "not declared under [var]",
                )
                .did_you_mean(at, fix),
            );
        }
        return None;
    };
    variable.used = true;
    let mut value = variable.value.clone()?;
    value.via = Some(Via {
        name: name.to_owned(),
        span: value.span,
    });
    let Some(form) = form else { return Some(value) };
    const FORMS: [&str; 4] = ["stem", "name", "dir", "ext"];
    if !FORMS.contains(&form) {
        let title = format!("`{form}` is no part of a path");
        cx.found.push(
            Diagnostic::new(
                &codes::E0304,
                place,
                title,
                format!("one of {}", FORMS.join(", ")),
            )
            .did_you_mean(
                place.part(3 + name.len(), 3 + name.len() + form.len()),
                nearest(form, FORMS).map(str::to_owned),
            ),
        );
        return None;
    }
    let Data::Text(text) = &value.data else {
        let title = format!("variable `{name}` is no path");
        cx.found.push(Diagnostic::new(
            &codes::E0302,
            place,
            title,
            value.data.type_name(),
        ));
        return None;
    };
    let path = Path::new(text);
    let part = match form {
        "stem" => path
            .file_stem()
            .map(|part| part.to_string_lossy().into_owned()),
        "name" => path
            .file_name()
            .map(|part| part.to_string_lossy().into_owned()),
        "ext" => path
            .extension()
            .map(|part| part.to_string_lossy().into_owned()),
        _ => path
            .parent()
            .map(|part| match part.to_string_lossy().into_owned() {
                empty if empty.is_empty() => ".".into(),
                part => part,
            }),
    };
    value.data = Data::Text(part.unwrap_or_default());
    Some(value)
}

/// Where `part` stands in the value at `span`, as far as it stands there as written.
fn piece(cx: &Cx, span: Span, part: &str) -> Span {
    match cx.sources.slice(span).find(part) {
        Some(at) => span.part(at, at + part.len()),
        None => span,
    }
}
