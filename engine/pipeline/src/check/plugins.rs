//! `[plugin.X]`, and stage types that belong to plugins.

use super::{Cx, convert, paths, structure};
use crate::codes::{self, Code};
use crate::diagnostic::{Diagnostic, Edit};
use crate::doc::{Item, Table};
use crate::nearest::{list, nearest};
use crate::plugins::{About, Plugin, PluginAsk, PluginRefusal, Plugins};
use crate::schema::{ParamKind, Schema};
use crate::source::Span;
use crate::values::Value;
use std::collections::BTreeMap;

/// Keys of the table.
pub(crate) const KEYS: [&str; 4] = ["path", "version", "sha256", "isolate"];

/// A declared plugin.
pub(crate) struct Declared {
    /// Where it is declared.
    pub(crate) key: Span,
    /// The values as they were written.
    pub(crate) given: BTreeMap<String, Item>,
    /// What it is; `None` when it cannot be used, which was reported.
    pub(crate) plugin: Option<Plugin>,
}

/// Reads the declared plugins; `plugins` says what they are.
pub(crate) fn declare(cx: &mut Cx, root: &Table, plugins: &dyn Plugins) {
    for (name, key, table) in structure::named_tables(cx, root, "plugin", "plugin") {
        structure::known_keys(cx, table, &KEYS, &format!("[plugin.{name}]"));
        let given = KEYS.iter().filter_map(|known| table.get(known));
        let mut declared = Declared {
            key,
            given: given
                .map(|entry| (entry.name.clone(), entry.value.clone()))
                .collect(),
            plugin: None,
        };
        // A name that cannot be one was reported, and so was a value of the wrong type.
        if structure::is_name(name)
            && let Some(ask) = ask(cx, name, &declared.given)
        {
            match plugins.plugin(&ask) {
                Ok(plugin) => {
                    shadowed(cx, &declared, &plugin);
                    unsearched(cx, &declared, &plugin);
                    if !named_twice(cx, &declared, &plugin) {
                        declared.plugin = Some(plugin);
                    }
                }
                Err(refusal) => refused(cx, name, &declared, &ask, refusal),
            }
        }
        cx.plugins.insert(name.to_owned(), declared);
    }
}

fn ask(cx: &mut Cx, name: &str, given: &BTreeMap<String, Item>) -> Option<PluginAsk> {
    let mut sound = true;
    let mut text = |cx: &mut Cx, key: &str| {
        let item = given.get(key)?;
        let text = convert::text(cx, item, key);
        sound &= text.is_some();
        text
    };
    let path = text(cx, "path");
    let (version, sha256) = (text(cx, "version"), text(cx, "sha256"));
    let isolate = match given.get("isolate") {
        None => false,
        Some(item) => match convert::value(cx, item, "isolate", &ParamKind::Boolean) {
            Some(Value::Boolean(isolate)) => isolate,
            _ => return None,
        },
    };
    let path = match (path, given.get("path")) {
        (Some(path), Some(item)) => Some(paths::resolve(cx, item, &path)),
        _ => None,
    };
    sound.then(|| PluginAsk {
        name: name.to_owned(),
        path,
        version,
        sha256,
        isolate,
    })
}

/// Reports a plugin that is not used, at the key that it is about.
fn refused(
    cx: &mut Cx,
    name: &str,
    declared: &Declared,
    ask: &PluginAsk,
    mut refusal: PluginRefusal,
) {
    if refusal.code == codes::E0501.id
        && let Some(near) = ask.path.as_deref().filter(|path| !path.exists())
        && let Some(near) = paths::nearest_file(near)
    {
        let near = format!("the nearest name is `{}`", near.display());
        refusal.help.insert(0, near);
    }
    let item = item_of(declared, refusal.about);
    let diagnostic = diagnostic(name, item.map_or(declared.key, |item| item.span), refusal);
    match item {
        Some(item) => convert::push(cx, item, diagnostic),
        None => cx.found.push(diagnostic),
    }
}

fn item_of(declared: &Declared, about: About) -> Option<&Item> {
    declared.given.get(match about {
        About::Table => return None,
        About::Path => "path",
        About::Version => "version",
        About::Sha256 => "sha256",
    })
}

/// The message of a refusal at a place.
fn diagnostic(name: &str, span: Span, refusal: PluginRefusal) -> Diagnostic {
    let code: &'static Code = codes::find(refusal.code).unwrap_or(&codes::E0503);
    // Some sentences have the plugin as their subject already.
    let title = if refusal.what.starts_with("plugin `") {
        refusal.what
    } else {
        format!("plugin `{name}` cannot be used: {}", refusal.what)
    };
    let label = match (&refusal.file, refusal.about) {
        (Some(file), _) => format!("it is {}", file.display()),
        (None, About::Table) => "declared here".into(),
        (None, About::Path) => "its file".into(),
        (None, About::Version) => "the versions that are wanted".into(),
        (None, About::Sha256) => "the hash that is wanted".into(),
    };
    let mut diagnostic = Diagnostic::new(code, span, title, label);
    for help in refusal.help {
        diagnostic = diagnostic.help(help);
    }
    diagnostic
}

/// The message of a refusal that comes after the check, as from loading.
pub(crate) fn refused_later(
    name: &str,
    place: Option<(Span, &BTreeMap<String, Item>)>,
    refusal: PluginRefusal,
) -> Diagnostic {
    let Some((key, given)) = place else {
        let mut found = diagnostic(name, Span::default(), refusal);
        found.labels.clear();
        return found;
    };
    let declared = Declared {
        key,
        given: given.clone(),
        plugin: None,
    };
    let span = item_of(&declared, refusal.about).map_or(key, |item| item.span);
    diagnostic(name, span, refusal)
}

/// Whether a plugin that was declared before has a stage type or a slide reader of the same id, which is reported: one of the two
/// would silently do the other's work.
fn named_twice(cx: &mut Cx, declared: &Declared, plugin: &Plugin) -> bool {
    let mut found = Vec::new();
    for (name, earlier) in &cx.plugins {
        let Some(other) = &earlier.plugin else {
            continue;
        };
        let stages = plugin.schemas.iter().map(|schema| schema.name);
        let stages = stages.filter(|id| other.schemas.iter().any(|schema| schema.name == *id));
        let readers = plugin.readers.iter().map(String::as_str);
        let readers = readers.filter(|id| other.readers.iter().any(|reader| reader == id));
        let both = stages.map(|id| ("stage type", id));
        let both: Vec<_> = both.chain(readers.map(|id| ("slide reader", id))).collect();
        if let Some((what, id)) = both.first() {
            let title = format!(
                "the plugins `{name}` and `{}` both have a {what} `{id}`",
                plugin.name
            );
            let label = format!("it is {}", plugin.file.display());
            let diagnostic = Diagnostic::new(&codes::E0524, declared.key, title, label)
                .with(earlier.key, format!("it is {}", other.file.display()))
                .help("remove one of the two tables: nothing says which one is meant");
            found.push(diagnostic);
        }
    }
    let twice = !found.is_empty();
    cx.found.extend(found);
    twice
}

/// Says which files of the same name are not used.
fn shadowed(cx: &mut Cx, declared: &Declared, plugin: &Plugin) {
    // A hash says which one is meant.
    if plugin.shadowed.is_empty() || declared.given.contains_key("sha256") {
        return;
    }
    let files: Vec<String> = plugin
        .shadowed
        .iter()
        .map(|file| file.display().to_string())
        .collect();
    let title = format!(
        "plugin `{}` was found more than once, and the first is used",
        plugin.name
    );
    let label = format!("it is {}", plugin.file.display());
    let mut diagnostic = Diagnostic::new(&codes::W0511, declared.key, title, label);
    for file in files {
        diagnostic = diagnostic.help(format!("not used: {file}"));
    }
    let help = "say by `path` which one is meant, or remove the others";
    cx.found.push(diagnostic.help(help));
}

/// Says which folders were not looked into, once for all plugins of a file: in one of them may lie the file that was meant.
fn unsearched(cx: &mut Cx, declared: &Declared, plugin: &Plugin) {
    let pinned = declared.given.contains_key("sha256");
    let mut told = cx.found.iter().map(|found| found.code.id);
    if plugin.unsearched.is_empty() || pinned || told.any(|id| id == codes::W0515.id) {
        return;
    }
    let title = format!(
        "plugin `{}` was not looked for in every folder that is named",
        plugin.name
    );
    let label = format!("it is {}", plugin.file.display());
    let mut diagnostic = Diagnostic::new(&codes::W0515, declared.key, title, label);
    for help in &plugin.unsearched {
        diagnostic = diagnostic.help(help.clone());
    }
    cx.found.push(diagnostic);
}

/// The stage type of this name among the declared plugins.
pub(crate) fn stage_type(cx: &Cx, name: &str) -> Option<&'static Schema> {
    let (namespace, _) = name.split_once('.')?;
    let plugin = cx.plugins.get(namespace)?.plugin.as_ref()?;
    plugin.schemas.iter().find(|schema| schema.name == name)
}

/// Reports a type of the form `namespace.stage` that is not there. `stage` is where the stage's table begins.
pub(crate) fn unknown_type(cx: &mut Cx, item: &Item, text: &str, namespace: &str, stage: Span) {
    if let Some(declared) = cx.plugins.get(namespace) {
        // Of a plugin that cannot be used nothing more is known, and that was reported.
        let Some(plugin) = &declared.plugin else {
            return;
        };
        let names: Vec<&str> = plugin.schemas.iter().map(|schema| schema.name).collect();
        let title = format!(
            "plugin `{namespace}` {} has no stage type `{text}`",
            plugin.version
        );
        let label = match names.as_slice() {
            [] => "it has slide readers only".to_owned(),
            names => format!("its types: {}", list(names)),
        };
        let near = nearest(text, names.iter().copied()).map(|near| format!("\"{near}\""));
        let found = Diagnostic::new(&codes::E0204, item.span, title, label)
            .with(declared.key, "the plugin")
            .did_you_mean(item.span, near);
        return convert::push(cx, item, found);
    }
    if cx.damage.tables_lost {
        return;
    }
    let title = format!("`{text}` belongs to plugin `{namespace}`, which the file does not name");
    let label = format!("there is no [plugin.{namespace}]");
    let found = Diagnostic::new(&codes::E0502, item.span, title, label);
    let declared = nearest(namespace, cx.plugins.keys().map(String::as_str));
    let built_in = nearest(text, cx.registry.iter().map(|schema| schema.name));
    let found = match (declared, built_in) {
        (Some(near), _) => {
            let rest = text.trim_start_matches(namespace);
            found.did_you_mean(item.span, Some(format!("\"{near}{rest}\"")))
        }
        (None, Some(near)) => found.did_you_mean(item.span, Some(format!("\"{near}\""))),
        (None, None) => match before_table(cx, stage) {
            Some(at) if structure::is_name(namespace) => {
                let text = format!("[plugin.{namespace}]\n\n");
                found.fixes("name the plugin", vec![Edit { span: at, text }])
            }
            _ => found.help(format!("add a table [plugin.{namespace}]")),
        },
    };
    convert::push(cx, item, found);
}

/// Where a table can be put before the one whose name stands at `key`: above its header and the comments that belong to it.
fn before_table(cx: &Cx, key: Span) -> Option<Span> {
    let source = cx.sources.get(key.source).filter(|_| key.source == 0)?;
    let before = &source.text[..source.boundary(key.start)];
    let mut at = before.rfind('\n').map_or(0, |end| end + 1);
    if !before[at..].trim_start().starts_with('[') {
        return None;
    }
    while let Some(line) = before[..at].strip_suffix('\n') {
        let start = line.rfind('\n').map_or(0, |end| end + 1);
        if !line[start..].starts_with('#') {
            break;
        }
        at = start;
    }
    Some(Span::new(0, at..at))
}
