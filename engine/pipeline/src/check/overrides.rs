//! What the command line changes of a file before it is checked.

use super::{Cx, parse};
use crate::codes;
use crate::diagnostic::Diagnostic;
use crate::doc::{Data, Entry, Item, Table};
use crate::source::Span;
use std::path::{Path, PathBuf};

/// What the command line says beside the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `NAME=value`, in order; of a list variable, all values of the same name count.
    pub variables: Vec<(String, String)>,
    /// `--set KEY=VALUE`, whole.
    pub set: Vec<String>,
    /// Instead of `run.out`; relative to the working directory.
    pub out: Option<PathBuf>,
    /// Instead of `run.workers`.
    pub workers: Option<usize>,
    /// Instead of `run.devices`.
    pub device: Option<String>,
    /// Instead of `run.executor`.
    pub executor: Option<String>,
}

/// Lays `--set` and the options of `weir run` over the tree.
pub(crate) fn apply(cx: &mut Cx, root: &mut Table, overrides: &Overrides) {
    for text in &overrides.set {
        let source = cx.sources.add("<--set>", text.as_str(), Path::new(""));
        let before = cx.found.len();
        let found = parse::document(cx, source);
        let whole = Span::new(source, 0..text.len());
        if cx.found.len() > before {
            cx.found.truncate(before);
            cx.found.push(refused(whole, text));
        } else if let [_] = found.entries.as_slice() {
            merge(cx, root, found);
        } else {
            cx.found.push(refused(whole, text));
        }
    }
    let text = |text: &str| Data::Text(text.to_owned());
    let mut options: Vec<(&str, &str, String, Data)> = Vec::new();
    if let Some(out) = &overrides.out {
        let out = out.to_string_lossy().into_owned();
        options.push(("<--out>", "out", out.clone(), Data::Text(out)));
    }
    if let Some(workers) = overrides.workers {
        let data = Data::Integer(i64::try_from(workers).ok());
        options.push(("<--workers>", "workers", workers.to_string(), data));
    }
    if let Some(device) = &overrides.device {
        options.push(("<--device>", "devices", device.clone(), text(device)));
    }
    if let Some(executor) = &overrides.executor {
        options.push(("<--executor>", "executor", executor.clone(), text(executor)));
    }
    for (name, key, text, data) in options {
        let source = cx.sources.add(name, text.as_str(), Path::new(""));
        let span = Span::new(source, 0..text.len());
        let mut value = Item::new(span, data);
        if key == "devices" {
            value = Item::new(span, Data::List(vec![value]));
        }
        let run = Table {
            entries: vec![entry(key, span, value)],
        };
        let run = Item::new(span, Data::Table(run));
        let overlay = Table {
            entries: vec![entry("run", span, run)],
        };
        merge(cx, root, overlay);
    }
}

fn entry(name: &str, key: Span, value: Item) -> Entry {
    Entry {
        name: name.to_owned(),
        key,
        value,
    }
}

/// An override that is not `KEY=VALUE` in TOML.
fn refused(span: Span, text: &str) -> Diagnostic {
    let diagnostic = Diagnostic::new(
        &codes::E0213,
        span,
        format!("`--set {text}` is not KEY=VALUE with a TOML value"),
        "a path with dots, `=`, and a TOML value belong here",
    );
    match text.split_once('=') {
        Some((key, value)) if !value.is_empty() && !value.contains(['"', '\'', '[', '{', '\n']) => {
            let key = key.trim();
            let value = value.trim();
            diagnostic.help(format!(
                "a text needs quotes inside the shell's: --set '{key}=\"{value}\"'"
            ))
        }
        _ => diagnostic.help("for example: --set stage.top.highest=64"),
    }
}

/// Lays `overlay` over `base`: tables by their keys, everything else whole.
fn merge(cx: &Cx, base: &mut Table, overlay: Table) {
    for entry in overlay.entries {
        // `a.b = 1` goes into a; `a = { b = 1 }` replaces it.
        let whole = cx.sources.slice(entry.value.span).starts_with('{');
        match base.get_mut(&entry.name) {
            None => base.entries.push(entry),
            Some(known) => match (&mut known.value.data, entry.value.data) {
                (Data::Table(known), Data::Table(overlay)) if !whole => merge(cx, known, overlay),
                (_, data) => {
                    known.value = Item::new(entry.value.span, data);
                    known.key = entry.key;
                }
            },
        }
    }
}
