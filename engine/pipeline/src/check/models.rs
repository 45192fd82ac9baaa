//! `[model.X]`.

use super::{Cx, convert, paths, structure};
use crate::codes;
use crate::diagnostic::Diagnostic;
use crate::doc::{Item, Table};
use crate::model::{ModelHeader, ModelKind};
use crate::model_file::{FaultKind, check_weights};
use crate::nearest::{list, nearest};
use crate::source::Span;
use std::collections::BTreeMap;

/// A declared model.
pub(crate) struct Model {
    /// Where it is declared.
    key: Span,
    /// What it is; `None` when that was not to be found out, which was reported.
    pub(crate) header: Option<ModelHeader>,
    used: bool,
}

/// Reads the declared models.
pub(crate) fn declare(cx: &mut Cx, root: &Table) {
    for (name, key, table) in structure::named_tables(cx, root, "model", "model") {
        structure::known_keys(cx, table, &["path", "sha256"], &format!("[model.{name}]"));
        let header = read(cx, name, key, table);
        let model = Model {
            key,
            header,
            used: false,
        };
        cx.models.insert(name.to_owned(), model);
    }
}

fn read(cx: &mut Cx, name: &str, key: Span, table: &Table) -> Option<ModelHeader> {
    let pinned = match table.get("sha256") {
        Some(entry) => Some((
            entry.value.clone(),
            convert::text(cx, &entry.value, "sha256")?,
        )),
        None => None,
    };
    let Some(entry) = table.get("path") else {
        if !cx.damage.may_lack_keys(key) {
            let diagnostic = Diagnostic::new(
                &codes::E0306,
                key,
                format!("model `{name}` has no `path`"),
                "where is its folder?",
            );
            cx.found
                .push(diagnostic.help("add `path = \"FOLDER\"`, relative to this file"));
        }
        return None;
    };
    let text = convert::text(cx, &entry.value, "path")?;
    let folder = paths::resolve(cx, &entry.value, &text);
    if !paths::check_exists(cx, &entry.value, &text, &folder) {
        return None;
    }
    let header = match ModelHeader::load(&folder) {
        Ok(header) => header,
        Err(error) => {
            let mut place = error.file.display().to_string();
            if let Some(line) = error.line {
                place = format!("{place}:{line}");
            }
            unusable(
                cx,
                &entry.value,
                name,
                &codes::E0701,
                &place,
                &error.what,
                error.help,
            );
            return None;
        }
    };
    if let Err(fault) = check_weights(&header) {
        let code = match fault.kind {
            FaultKind::Unreadable => &codes::E0701,
            FaultKind::Hash => &codes::E0702,
            FaultKind::Weights => &codes::E0704,
        };
        let place = fault.file.display().to_string();
        unusable(
            cx,
            &entry.value,
            name,
            code,
            &place,
            &fault.what,
            fault.help,
        );
        // Dimensions are known all the same, so the graph can be checked.
        return Some(header);
    }
    if let Some((item, pinned)) = pinned {
        check_pin(cx, &item, &pinned, name, &header);
    }
    Some(header)
}

fn unusable(
    cx: &mut Cx,
    item: &Item,
    name: &str,
    code: &'static codes::Code,
    place: &str,
    what: &str,
    help: String,
) {
    let title = format!("model `{name}` cannot be used: {place}: {what}");
    let mut diagnostic = Diagnostic::new(code, item.span, title, "the model's folder");
    if !help.is_empty() {
        diagnostic = diagnostic.help(help);
    }
    convert::push(cx, item, diagnostic);
}

/// Holds `sha256` of the pipeline file against the model's.
fn check_pin(cx: &mut Cx, item: &Item, pinned: &str, name: &str, header: &ModelHeader) {
    if pinned.eq_ignore_ascii_case(&header.sha256) {
        return;
    }
    let title = format!("model `{name}` has other weights than the pipeline asks for");
    let label = format!("its weights have {}", header.sha256);
    let diagnostic = Diagnostic::new(&codes::E0702, item.span, title, label).fix(
        "if the change was wanted",
        item.span,
        format!("\"{}\"", header.sha256),
    );
    convert::push(cx, item, diagnostic);
}

/// Checks a stage's `model = "name"`; whether the model is there and of the right kind.
pub(crate) fn check_use(cx: &mut Cx, item: &Item, name: &str, kind: ModelKind) -> bool {
    let Some(model) = cx.models.get_mut(name) else {
        if cx.damage.tables_lost {
            return false;
        }
        let names: Vec<&str> = cx.models.keys().map(String::as_str).collect();
        let title = format!("no model is called `{name}`");
        let label = match names.as_slice() {
            [] => "the file declares no models".to_owned(),
            names => format!("its models: {}", list(names)),
        };
        let near = nearest(name, names.iter().copied()).map(|near| format!("\"{near}\""));
        let mut diagnostic = Diagnostic::new(&codes::E0703, item.span, title, label);
        diagnostic = match near {
            Some(near) => diagnostic.did_you_mean(item.span, Some(near)),
            None => diagnostic.help(format!(
                "declare it: [model.{name}] with `path = \"FOLDER\"`"
            )),
        };
        convert::push(cx, item, diagnostic);
        return false;
    };
    model.used = true;
    let Some(header) = &model.header else {
        return false;
    };
    if header.kind == kind {
        return true;
    }
    let (found, key) = (header.kind, model.key);
    let fitting: BTreeMap<&str, ModelKind> = cx
        .models
        .iter()
        .filter_map(|(name, model)| Some((name.as_str(), model.header.as_ref()?.kind)))
        .filter(|(_, found)| *found == kind)
        .collect();
    let other = fitting.keys().next().map(|name| format!("\"{name}\""));
    let title = format!(
        "the stage takes a {} model, and `{name}` is a {} model",
        kind.name(),
        found.name()
    );
    let mut diagnostic = Diagnostic::new(
        &codes::E0420,
        item.span,
        title,
        format!("a {} model", found.name()),
    )
    .with(key, "declared here");
    if fitting.len() == 1 {
        diagnostic = diagnostic.did_you_mean(item.span, other);
    }
    convert::push(cx, item, diagnostic);
    false
}

/// Warns of models that no stage names.
pub(crate) fn unused(cx: &mut Cx) {
    if cx.damage.tables_lost || cx.found.iter().any(Diagnostic::is_error) {
        return;
    }
    for (name, model) in &cx.models {
        if !model.used {
            let title = format!("no stage uses model `{name}`");
            let diagnostic = Diagnostic::new(&codes::W0705, model.key, title, "declared here");
            cx.found
                .push(diagnostic.help("remove the table, or name the model in a stage"));
        }
    }
}
