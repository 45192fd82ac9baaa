//! Text to tree, reading on after faults.

use super::Cx;
use crate::codes;
use crate::diagnostic::Diagnostic;
use crate::doc::{Data, Entry, Item, Table};
use crate::source::Span;
use std::ops::Range;
use toml::de::{DeTable, DeValue};

/// What faults of syntax spoil in the file: there, nothing else is reported.
#[derive(Clone, Debug, Default)]
pub(crate) struct Damage {
    /// Bytes of the lines with a fault.
    lines: Vec<Range<usize>>,
    /// Bytes of the tables with a fault, from their header to the next one's.
    tables: Vec<Range<usize>>,
    /// Whole tables were lost, so what is not found may stand in the file all the same.
    pub(crate) tables_lost: bool,
    /// So many faults that the file is no pipeline.
    beyond_count: bool,
}

/// Most faults that are kept; far more than are printed.
const FAULTS: usize = 500;

impl Damage {
    /// Whether a mistake at `span` may be nothing but the consequence of a fault.
    pub(crate) fn spoils(&self, span: Span) -> bool {
        span.source == 0
            && (self.beyond_count
                || self.lines.iter().any(|line| {
                    span.start < line.end.max(line.start + 1) && line.start <= span.end
                }))
    }

    /// Whether keys of the table with its header at `span` may be lost.
    pub(crate) fn may_lack_keys(&self, span: Span) -> bool {
        self.tables_lost
            || span.source == 0 && self.tables.iter().any(|table| table.contains(&span.start))
    }
}

/// Parses a source of `cx` as a document.
pub(crate) fn document(cx: &mut Cx, source: usize) -> Table {
    let text = cx.text(source);
    let (root, errors) = DeTable::parse_recoverable(&text);
    let root = table(source, root.get_ref());
    faults(cx, source, &text, errors);
    if source == 0 && !cx.damage.lines.is_empty() {
        cx.damage.tables_lost = headers(&text).iter().any(|(_, name)| !holds(&root, name));
    }
    root
}

/// Parses a piece of a source as one value.
pub(crate) fn value(cx: &mut Cx, span: Span) -> Option<Item> {
    let text = cx.sources.slice(span).to_owned();
    let (value, errors) = DeValue::parse_recoverable(&text);
    if !errors.is_empty() {
        let errors = errors.into_iter().map(|error| {
            let at = error.span().unwrap_or(0..0);
            (
                at.start + span.start..at.end + span.start,
                error.message().to_owned(),
            )
        });
        report(cx, span.source, errors.collect());
        return None;
    }
    let mut item = item(span.source, value.span(), value.get_ref());
    shift(&mut item, span.start);
    Some(item)
}

fn shift(item: &mut Item, by: usize) {
    item.span.start += by;
    item.span.end += by;
    if let Data::List(items) = &mut item.data {
        items.iter_mut().for_each(|item| shift(item, by));
    }
}

fn table(source: usize, found: &DeTable) -> Table {
    let entries = found
        .iter()
        .map(|(key, value)| Entry {
            name: key.get_ref().to_string(),
            key: Span::new(source, key.span()),
            value: item(source, value.span(), value.get_ref()),
        })
        .collect();
    Table { entries }
}

fn item(source: usize, span: Range<usize>, value: &DeValue) -> Item {
    let data = match value {
        DeValue::String(text) => Data::Text(text.to_string()),
        DeValue::Integer(digits) => {
            Data::Integer(i64::from_str_radix(digits.as_str(), digits.radix()).ok())
        }
        DeValue::Float(digits) => match digits.as_str().parse() {
            Ok(number) => Data::Float(number),
            Err(_) => Data::Reported,
        },
        DeValue::Boolean(value) => Data::Boolean(*value),
        DeValue::Datetime(_) => Data::Date,
        DeValue::Array(items) => Data::List(
            items
                .iter()
                .map(|value| item(source, value.span(), value.get_ref()))
                .collect(),
        ),
        DeValue::Table(found) => Data::Table(table(source, found)),
    };
    Item::new(Span::new(source, span), data)
}

/// Reports faults, the first of each line: the others are mostly its consequences.
fn faults(cx: &mut Cx, source: usize, text: &str, errors: Vec<toml::de::Error>) {
    let mut errors: Vec<_> = errors
        .into_iter()
        .map(|error| (error.span().unwrap_or(0..0), error.message().to_owned()))
        .collect();
    if errors.len() > FAULTS {
        errors.sort_by_key(|(at, _)| at.start);
        errors.truncate(FAULTS);
        cx.damage.beyond_count = true;
    }
    if source == 0 {
        let headers = headers(text);
        for (at, _) in &errors {
            let at = at.start.min(text.len());
            cx.damage.lines.push(line(text, at));
            let before = headers.iter().rev().find(|(start, _)| *start <= at);
            let behind = headers.iter().find(|(start, _)| *start > at);
            cx.damage.tables.push(
                before.map_or(0, |(start, _)| *start)
                    ..behind.map_or(text.len() + 1, |(start, _)| *start),
            );
        }
    }
    report(cx, source, errors);
}

fn report(cx: &mut Cx, source: usize, mut errors: Vec<(Range<usize>, String)>) {
    let text = cx.text(source);
    errors.sort_by_key(|(at, _)| (at.start, at.end));
    let mut last = None;
    for (at, message) in errors {
        let start = line(&text, at.start.min(text.len())).start;
        if last.replace(start) == Some(start) {
            continue;
        }
        let span = Span::new(source, at);
        let title = format!("not valid TOML: {}", message.replace('\n', ", "));
        let mut diagnostic = Diagnostic::new(&codes::E0101, span, title, "");
        if let Some((span, quoted)) = unquoted(&text, source, start) {
            diagnostic = diagnostic.fix("a text needs quotes", span, quoted);
        }
        cx.found.push(diagnostic);
    }
}

/// On a line `key = some-word`, the word and how it should have been written.
fn unquoted(text: &str, source: usize, start: usize) -> Option<(Span, String)> {
    let line = &text[line(text, start)];
    let (key, rest) = line.split_once('=')?;
    let word = rest.split('#').next()?.trim();
    let plain = |word: &str| {
        word.starts_with(|c: char| c.is_ascii_alphabetic() || "./_~".contains(c))
            && word
                .chars()
                .all(|c| c.is_alphanumeric() || "-_./:~".contains(c))
    };
    if !plain(word) || key.contains(['"', '\'']) || matches!(word, "true" | "false" | "inf" | "nan")
    {
        return None;
    }
    let at = start + key.len() + 1 + rest.find(word)?;
    Some((
        Span::new(source, at..at + word.len()),
        format!("\"{word}\""),
    ))
}

/// Bytes of the line around `at`.
fn line(text: &str, at: usize) -> Range<usize> {
    let bytes = text.as_bytes();
    let at = at.min(bytes.len());
    let start = bytes[..at]
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |n| n + 1);
    let end = bytes[at..]
        .iter()
        .position(|byte| *byte == b'\n')
        .map_or(bytes.len(), |n| at + n);
    start..end
}

/// Where each `[table]` begins, and its name.
fn headers(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        let trimmed = line.trim();
        if trimmed.starts_with('[') && !trimmed.contains('=') {
            let name = trimmed.trim_start_matches('[');
            let name = name.split([']', '#', ' ']).next().unwrap_or_default();
            found.push((offset, name));
        }
        offset += line.len();
    }
    found
}

/// Whether the table of this dotted name is in the tree. Names that are not plain are taken to be there.
fn holds(root: &Table, name: &str) -> bool {
    let plain = |part: &str| {
        !part.is_empty()
            && part
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
    };
    let mut table = Some(root);
    for part in name.split('.') {
        if !plain(part) {
            return true;
        }
        let Some(entry) = table.and_then(|table| table.get(part)) else {
            return table.is_none();
        };
        table = entry.value.table();
    }
    true
}
