//! `--set`: what it says is held against the manifest as a pipeline's file is, before anything runs.

use crate::describe::Described;
use crate::manifest::{ParamKind, Stage};
use crate::refusal::Refusal;
use std::path::Path;
use weir_pipeline::check::{Overrides, check_text};
use weir_pipeline::{Diagnostic, NoPlugins, Registry, Value};

/// What the checker says of a parameter by itself: its name, its type, its value.
const OF_VALUES: [&str; 6] = ["E0301", "E0302", "E0304", "E0305", "E0308", "E0309"];

/// Keys of every stage in a file, which no stage has as parameters.
const OF_FILES: [&str; 4] = ["use", "in", "run", "doc"];

/// The one parameter that a reader has here: its slide.
const SLIDE: &str = "path";

/// Fails where a setting is of a stage or parameter that there is not, or of a value that its parameter cannot have. Paths begin at
/// `from`.
pub(super) fn check(set: &[String], described: &Described, from: &Path) -> Result<(), Refusal> {
    set.iter().try_for_each(|text| one(text, described, from))
}

fn one(text: &str, described: &Described, from: &Path) -> Result<(), Refusal> {
    let manifest = described.manifest();
    let form = |why: String| {
        Refusal::new(
            "E0213",
            format!("`--set {text}` is not STAGE.NAME=VALUE: {why}"),
            format!("its stages and readers: {}", names(described)),
        )
    };
    let Some((key, value)) = text.split_once('=') else {
        return Err(form("there is no `=` in it".into()));
    };
    let Some((id, name)) = key.rsplit_once('.') else {
        return Err(form(format!("it does not say whose `{key}` it is")));
    };
    if let Some(stage) = manifest.stages.iter().find(|stage| stage.id == id) {
        return of_stage(stage, name, value, described, from);
    }
    if !manifest.readers.iter().any(|reader| reader.id == id) {
        return Err(Refusal::new(
            "E0204",
            format!("`--set {text}`: the plugin has no stage and no reader that is called `{id}`"),
            format!("its stages and readers: {}", names(described)),
        ));
    }
    match (name, from.join(value).exists()) {
        (SLIDE, true) => Ok(()),
        (SLIDE, false) => Err(Refusal::new(
            "E0308",
            format!("`--set {text}`: {value} does not exist"),
            "give the path of a slide",
        )),
        _ => Err(Refusal::new(
            "E0301",
            format!("`--set {text}`: the reader `{id}` has no parameter `{name}`"),
            format!("its parameters: {SLIDE}, the slide that it is tried with"),
        )),
    }
}

fn names(described: &Described) -> String {
    let manifest = described.manifest();
    let stages = manifest.stages.iter().map(|stage| stage.id.as_str());
    let readers = manifest.readers.iter().map(|reader| reader.id.as_str());
    stages.chain(readers).collect::<Vec<_>>().join(", ")
}

/// As the checker of pipelines sees it: in a file with this stage alone, which has other faults, that are nobody's.
fn of_stage(
    stage: &Stage,
    name: &str,
    value: &str,
    described: &Described,
    from: &Path,
) -> Result<(), Refusal> {
    let param = stage.params.iter().find(|param| param.name == name);
    let text = |text: &str| Value::Text(text.to_owned()).to_toml();
    let whole = serde_json::from_str::<serde_json::Value>(value);
    let written = match param.map(|param| param.kind) {
        Some(
            ParamKind::Int
            | ParamKind::Float
            | ParamKind::Bool
            | ParamKind::Strings
            | ParamKind::Bytes,
        ) if whole.is_ok() => value.to_owned(),
        _ => text(value),
    };
    let setting = format!("`--set {}.{name}={value}`", stage.id);
    if param.is_none() && OF_FILES.contains(&name) {
        return Err(Refusal::new(
            "E0301",
            format!("{setting}: `{}` has no parameter `{name}`", stage.id),
            "that stands in a pipeline's file alone",
        ));
    }
    let file = format!(
        "[stage.tried]\nuse = {}\n{} = {written}\n",
        text(&stage.id),
        text(name)
    );
    let registry = Registry::new(described.schemas());
    let nobody = |_: &str| None;
    let checked = check_text(
        &from.join("check.weir.toml"),
        &file,
        &Overrides::default(),
        &registry,
        &NoPlugins,
        &nobody,
    );
    let of_value = |found: &&Diagnostic| OF_VALUES.contains(&found.code.id);
    match checked.diagnostics.iter().find(of_value) {
        None => Ok(()),
        Some(found) => Err(told(found, &setting)),
    }
}

/// What the checker found, without the places, which are in a file that nobody wrote.
fn told(found: &Diagnostic, setting: &str) -> Refusal {
    let said = found.labels.first().map_or("", |label| &label.text);
    let mut what = format!("{setting}: {}", found.title);
    if !said.is_empty() {
        what += &format!(": {said}");
    }
    let fix = found.fix.iter().flat_map(|fix| {
        let edits = fix.edits.iter();
        edits.map(|edit| format!("{} {}?", fix.title, edit.text))
    });
    let help: Vec<String> = fix.chain(found.help.iter().cloned()).collect();
    Refusal::new(found.code.id, what, help.join("; "))
}
