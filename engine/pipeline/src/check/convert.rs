//! Values of the file to values of the plan.

use super::{Cx, paths};
use crate::codes;
use crate::diagnostic::{Diagnostic, Edit};
use crate::doc::{Data, Item};
use crate::nearest::nearest;
use crate::schema::ParamKind;
use crate::units;
use crate::values::Value;

/// A value as `kind` wants it; reports what does not fit. `key` names it in messages.
pub(crate) fn value(cx: &mut Cx, item: &Item, key: &str, kind: &ParamKind) -> Option<Value> {
    match kind {
        ParamKind::Integer { min, max } => integer(cx, item, key, *min, *max).map(Value::Integer),
        ParamKind::Float { min, max } => float(cx, item, key, *min, *max).map(Value::Float),
        ParamKind::Boolean => match item.data {
            Data::Boolean(value) => Some(Value::Boolean(value)),
            _ => wrong_type(cx, item, key, "true or false"),
        },
        ParamKind::Text => text(cx, item, key).map(Value::Text),
        ParamKind::Choice(choices) => choice(cx, item, key, choices).map(Value::Text),
        ParamKind::Bytes => bytes(cx, item, key).map(Value::Bytes),
        ParamKind::Duration => duration(cx, item, key).map(Value::Duration),
        ParamKind::Path { exists } => {
            let found = text(cx, item, key)?;
            let path = paths::resolve(cx, item, &found);
            if *exists && !paths::check_exists(cx, item, &found, &path) {
                return None;
            }
            Some(Value::Path(path))
        }
        ParamKind::Model(kind) => {
            let name = text(cx, item, key)?;
            super::models::check_use(cx, item, &name, *kind).then_some(Value::Text(name))
        }
        ParamKind::Slides => {
            let mut found = Vec::new();
            let mut sound = true;
            for (item, text) in texts(cx, item, key)? {
                let path = paths::resolve(cx, &item, &text);
                let pattern = text.contains(['*', '?', '[', '{']);
                sound &= pattern || paths::check_exists(cx, &item, &text, &path);
                found.push(path.to_string_lossy().into_owned());
            }
            sound.then_some(Value::Texts(found))
        }
        ParamKind::Texts => {
            let found = texts(cx, item, key)?;
            Some(Value::Texts(
                found.into_iter().map(|(_, text)| text).collect(),
            ))
        }
    }
}

/// Reports a mistake of a value, and where the value comes from when it comes through a variable.
pub(crate) fn push(cx: &mut Cx, item: &Item, diagnostic: Diagnostic) {
    let diagnostic = match &item.via {
        Some(via) if via.span != item.span => {
            let mut diagnostic = diagnostic.with(
                via.span,
                format!("`${{{}}}` has its value from here", via.name),
            );
            // An edit of the text at the place of use would mend nothing.
            diagnostic.fix = None;
            diagnostic
        }
        _ => diagnostic,
    };
    cx.found.push(diagnostic);
}

fn wrong_type<T>(cx: &mut Cx, item: &Item, key: &str, wanted: &str) -> Option<T> {
    if item.is_reported() {
        return None;
    }
    let title = format!("`{key}` takes {wanted}");
    let label = format!("this is {}", item.data.type_name());
    let mut diagnostic = Diagnostic::new(&codes::E0302, item.span, title, label);
    let written = cx.sources.slice(item.span).to_owned();
    match &item.data {
        Data::Text(text) if wanted.contains("number") && text.trim().parse::<f64>().is_ok() => {
            diagnostic = diagnostic.fix("without quotes", item.span, text.trim());
        }
        Data::Text(text)
            if wanted == "true or false" && matches!(text.as_str(), "true" | "false") =>
        {
            diagnostic = diagnostic.fix("without quotes", item.span, text.as_str());
        }
        Data::Integer(_) | Data::Float(_) | Data::Boolean(_) | Data::Date
            if wanted.starts_with("a text") =>
        {
            diagnostic = diagnostic.fix("with quotes", item.span, format!("\"{written}\""));
        }
        Data::List(items) if items.len() == 1 && !wanted.contains("list") => {
            let inner = cx.sources.slice(items[0].span).to_owned();
            diagnostic = diagnostic.fix("without brackets", item.span, inner);
        }
        _ => {}
    }
    push(cx, item, diagnostic);
    None
}

fn integer(cx: &mut Cx, item: &Item, key: &str, min: i64, max: i64) -> Option<i64> {
    match item.data {
        Data::Integer(Some(number)) if (min..=max).contains(&number) => Some(number),
        Data::Integer(_) => out_of_range(cx, item, key, &range(min, max, i64::MIN, i64::MAX)),
        // A variable of type float, or a number that was written with a point, may be whole all the same.
        Data::Float(number) if number.fract() == 0.0 && number.abs() < 9e15 => {
            let whole = number as i64;
            if (min..=max).contains(&whole) {
                return Some(whole);
            }
            out_of_range(cx, item, key, &range(min, max, i64::MIN, i64::MAX))
        }
        _ => wrong_type(cx, item, key, "a whole number"),
    }
}

fn float(cx: &mut Cx, item: &Item, key: &str, min: f64, max: f64) -> Option<f64> {
    let number = match item.data {
        Data::Integer(Some(number)) => number as f64,
        Data::Integer(None) => f64::INFINITY,
        Data::Float(number) => number,
        _ => return wrong_type(cx, item, key, "a number"),
    };
    if number >= min && number <= max {
        return Some(number);
    }
    out_of_range(cx, item, key, &range(min, max, f64::MIN, f64::MAX))
}

/// The words for a range; a bound at the type's own end is none.
fn range<T: PartialOrd + std::fmt::Display>(min: T, max: T, least: T, most: T) -> String {
    match (min > least, max < most) {
        (true, true) => format!("{min} to {max}"),
        (true, false) => format!("at least {min}"),
        (false, true) => format!("at most {max}"),
        (false, false) => "a finite number".into(),
    }
}

/// The words for the range of a parameter; `None` when it has none.
pub(crate) fn range_of(kind: &ParamKind) -> Option<String> {
    match kind {
        ParamKind::Integer { min, max } => Some(range(*min, *max, i64::MIN, i64::MAX)),
        ParamKind::Float { min, max } if *min > f64::MIN || *max < f64::MAX => {
            Some(range(*min, *max, f64::MIN, f64::MAX))
        }
        _ => None,
    }
}

fn out_of_range<T>(cx: &mut Cx, item: &Item, key: &str, wanted: &str) -> Option<T> {
    let written = match &item.data {
        Data::Integer(Some(number)) => number.to_string(),
        Data::Float(number) => number.to_string(),
        _ => cx.sources.slice(item.span).to_owned(),
    };
    let title = format!("`{key}` cannot be {written}");
    let diagnostic = Diagnostic::new(
        &codes::E0305,
        item.span,
        title,
        format!("{wanted} is allowed"),
    );
    push(cx, item, diagnostic);
    None
}

/// A text.
pub(crate) fn text(cx: &mut Cx, item: &Item, key: &str) -> Option<String> {
    match &item.data {
        Data::Text(text) => Some(text.clone()),
        _ => wrong_type(cx, item, key, "a text"),
    }
}

/// One of a few texts.
pub(crate) fn choice(cx: &mut Cx, item: &Item, key: &str, choices: &[&str]) -> Option<String> {
    let Data::Text(text) = &item.data else {
        let quoted: Vec<String> = choices
            .iter()
            .map(|choice| format!("\"{choice}\""))
            .collect();
        return wrong_type(cx, item, key, &format!("one of {}", quoted.join(", ")));
    };
    if choices.contains(&text.as_str()) {
        return Some(text.clone());
    }
    let title = format!("`{key}` cannot be `{text}`");
    let label = format!("one of {}", choices.join(", "));
    let mut diagnostic = Diagnostic::new(&codes::E0304, item.span, title, label);
    if let Some(near) = nearest(text, choices.iter().copied()) {
        diagnostic = diagnostic.fix("did you mean", item.span, format!("\"{near}\""));
    }
    push(cx, item, diagnostic);
    None
}

/// A list of texts, each with its place; a single text is a list of one.
fn texts(cx: &mut Cx, item: &Item, key: &str) -> Option<Vec<(Item, String)>> {
    let items = match &item.data {
        Data::Text(text) => return Some(vec![(item.clone(), text.clone())]),
        Data::List(items) => items,
        _ => return wrong_type(cx, item, key, "a text or a list of texts"),
    };
    let mut found = Vec::with_capacity(items.len());
    let mut sound = true;
    for inner in items {
        match &inner.data {
            Data::Text(text) => found.push((inner.clone(), text.clone())),
            _ => {
                sound = false;
                wrong_type::<()>(cx, inner, key, "a text or a list of texts");
            }
        }
    }
    sound.then_some(found)
}

fn bytes(cx: &mut Cx, item: &Item, key: &str) -> Option<u64> {
    match &item.data {
        Data::Integer(Some(bytes)) if *bytes >= 0 => Some(*bytes as u64),
        Data::Integer(_) => out_of_range(cx, item, key, "0 bytes and more"),
        Data::Text(text) => match units::bytes(text) {
            Some(bytes) => Some(bytes),
            None => bad_unit(cx, item, key, text, "size", "64MiB", &units::BYTES),
        },
        _ => wrong_type(cx, item, key, "a size, as \"64MiB\""),
    }
}

fn duration(cx: &mut Cx, item: &Item, key: &str) -> Option<std::time::Duration> {
    match &item.data {
        Data::Text(text) => match units::duration(text) {
            Some(duration) => Some(duration),
            None => bad_unit(cx, item, key, text, "duration", "20ms", &units::DURATIONS),
        },
        _ => {
            if !item.is_reported() {
                let title = format!("`{key}` takes a duration, as \"20ms\"");
                let mut diagnostic = Diagnostic::new(
                    &codes::E0302,
                    item.span,
                    title,
                    format!("this is {}", item.data.type_name()),
                );
                if let Data::Integer(Some(number)) = item.data {
                    diagnostic = diagnostic.fix("with a unit", item.span, format!("\"{number}s\""));
                }
                push(cx, item, diagnostic);
            }
            None
        }
    }
}

fn bad_unit<T>(
    cx: &mut Cx,
    item: &Item,
    key: &str,
    text: &str,
    noun: &str,
    example: &str,
    table: &[(&str, u64)],
) -> Option<T> {
    let title = format!("`{key}` is no {noun}: `{text}`");
    let label = format!("a number and a unit, as \"{example}\"");
    let mut diagnostic = Diagnostic::new(&codes::E0309, item.span, title, label);
    if let Some(mended) = units::mend(text, table) {
        let edit = Edit {
            span: item.span,
            text: format!("\"{mended}\""),
        };
        diagnostic = diagnostic.fixes("write", vec![edit]);
    } else {
        let units: Vec<_> = table.iter().map(|(unit, _)| *unit).collect();
        diagnostic = diagnostic.help(format!("units: {}", units.join(", ")));
    }
    push(cx, item, diagnostic);
    None
}
