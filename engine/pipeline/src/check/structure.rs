//! The tables of a file and their keys.

use super::Cx;
use crate::codes;
use crate::diagnostic::Diagnostic;
use crate::doc::{Data, Table};
use crate::nearest::{list, nearest};
use crate::source::Span;

/// What stands at the top of a file.
pub(crate) const TOP: [&str; 9] = [
    "weir", "name", "doc", "var", "run", "model", "plugin", "stage", "test",
];

/// Most stages of a file.
const STAGES: usize = 4096;

/// Checks the top of the file: version and keys.
pub(crate) fn top(cx: &mut Cx, root: &Table) {
    match root.get("weir") {
        Some(entry) if entry.value.data == Data::Integer(Some(1)) => {}
        Some(entry) if entry.value.is_reported() => {}
        Some(entry) => {
            let span = entry.value.span;
            cx.found.push(
                Diagnostic::new(
                    &codes::E0201,
                    span,
                    "this version of weir reads pipelines of format 1",
                    "another format",
                )
                .fix("write", span, "1"),
            );
        }
        None if cx.damage.may_lack_keys(Span::default()) => {}
        None => {
            let start = Span::default();
            let at = start_of_text(cx);
            cx.found.push(
                Diagnostic::new(
                    &codes::E0201,
                    at,
                    "the file does not say which format it is written in",
                    "`weir = 1` belongs before everything else",
                )
                .fix("add a line", start, "weir = 1\n"),
            );
        }
    }
    known_keys(cx, root, &TOP, "a pipeline file");
    for name in ["name", "doc"] {
        if let Some(entry) = root.get(name) {
            super::convert::text(cx, &entry.value, name);
        }
    }
}

/// The first character of the file, where what is missing at its top is shown.
fn start_of_text(cx: &Cx) -> Span {
    let text = cx.sources.get(0).map_or("", |source| source.text.as_str());
    let start = text.len() - text.trim_start().len();
    let length = text[start..].chars().next().map_or(0, char::len_utf8);
    Span::new(0, start..start + length)
}

/// Reports keys of a table that are none of `known`.
pub(crate) fn known_keys(cx: &mut Cx, table: &Table, known: &[&str], place: &str) {
    for entry in &table.entries {
        if known.contains(&entry.name.as_str()) {
            continue;
        }
        cx.found.push(
            Diagnostic::new(
                &codes::E0202,
                entry.key,
                format!("{place} has no key `{}`", entry.name),
                format!("its keys: {}", list(known)),
            )
            .did_you_mean(
                entry.key,
                nearest(&entry.name, known.iter().copied()).map(str::to_owned),
            ),
        );
    }
}

/// The tables `[kind.NAME]` with sound names: name, where it stands, table.
pub(crate) fn named_tables<'r>(
    cx: &mut Cx,
    root: &'r Table,
    kind: &str,
    noun: &str,
) -> Vec<(&'r str, Span, &'r Table)> {
    let Some(entry) = root.get(kind) else {
        return Vec::new();
    };
    let Some(tables) = entry.value.table() else {
        if !entry.value.is_reported() {
            cx.found.push(
                Diagnostic::new(
                    &codes::E0302,
                    entry.key,
                    format!("`{kind}` is not a table of tables"),
                    format!("this is {}", entry.value.data.type_name()),
                )
                .help(format!("a {noun} has a table of its own: [{kind}.NAME]")),
            );
        }
        return Vec::new();
    };
    if kind == "stage" && tables.entries.len() > STAGES {
        cx.found.push(Diagnostic::new(
            &codes::E0105,
            entry.key,
            format!("{} stages", tables.entries.len()),
            format!("at most {STAGES} are taken"),
        ));
        return Vec::new();
    }
    let mut found = Vec::new();
    for entry in &tables.entries {
        let Some(table) = entry.value.table() else {
            if !entry.value.is_reported() {
                cx.found.push(
                    Diagnostic::new(
                        &codes::E0302,
                        entry.key,
                        format!("`{}` is not a table", entry.name),
                        format!("this is {}", entry.value.data.type_name()),
                    )
                    .help(format!("a {noun} has a table of its own: [{kind}.NAME]")),
                );
            }
            continue;
        };
        if !is_name(&entry.name) {
            bad_name(cx, &entry.name, entry.key, noun);
        }
        found.push((entry.name.as_str(), entry.key, table));
    }
    found
}

/// Whether it is lower-case letters, digits and hyphens, a letter first.
pub(crate) fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

fn bad_name(cx: &mut Cx, name: &str, key: Span, noun: &str) {
    let mut mended: String = name
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    mended = mended.trim_matches('-').to_owned();
    let diagnostic = Diagnostic::new(
        &codes::E0205,
        key,
        format!("`{name}` is no name for a {noun}"),
        "lower-case letters, digits and hyphens, a letter first",
    );
    cx.found.push(if is_name(&mended) {
        diagnostic.fix("write", key, mended)
    } else {
        diagnostic
    });
}
