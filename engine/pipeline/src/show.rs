//! A pipeline as it runs: after variables and overrides, with where each value came from.

use crate::check::{Checked, RUN, shown_settings};
use crate::doc::Item;
use crate::plan::{Node, Plan, StageRun};
use crate::plugins::Plugin;
use crate::units::show_duration;
use crate::values::Value;
use std::collections::BTreeMap;
use std::fmt::Write;

/// A line, and where its value came from.
struct Line {
    text: String,
    from: String,
}

/// The plan as a pipeline file, each line with the place of its value. The file can be checked and run again from the same
/// folder.
pub fn show(plan: &Plan, checked: &Checked) -> String {
    let mut tables: Vec<(String, Vec<Line>)> = Vec::new();
    let top = vec![
        line("weir", "1".into(), String::new()),
        line(
            "name",
            Value::Text(plan.name.clone()).to_toml(),
            String::new(),
        ),
    ];
    tables.push((String::new(), top));
    let settings = shown_settings(&plan.run);
    let run = RUN.iter().filter_map(|param| {
        let value = settings.get(param.name)?;
        Some(line(
            param.name,
            value.to_toml(),
            origin(checked, checked.written.run.get(param.name)),
        ))
    });
    tables.push(("[run]".into(), run.collect()));
    for (name, model) in &plan.models {
        let path = Value::Path(model.folder.clone()).to_toml();
        let sha256 = Value::Text(model.sha256.clone()).to_toml();
        let lines = vec![
            line(
                "path",
                path,
                origin(checked, checked.written.models.get(name)),
            ),
            line("sha256", sha256, "model.toml".into()),
        ];
        tables.push((format!("[model.{name}]"), lines));
    }
    for plugin in &plan.plugins {
        let lines = self::plugin(checked, plugin);
        tables.push((format!("[plugin.{}]", plugin.name), lines));
    }
    for node in &plan.nodes {
        tables.push((format!("[stage.{}]", node.name), stage(plan, checked, node)));
    }
    let mut text = String::new();
    for (header, lines) in tables {
        if !header.is_empty() {
            let _ = writeln!(text, "\n{header}");
        }
        let width = lines
            .iter()
            .map(|line| line.text.chars().count())
            .max()
            .unwrap_or(0);
        for line in lines {
            let pad = width - line.text.chars().count();
            let _ = match line.from.as_str() {
                "" => writeln!(text, "{}", line.text),
                from => writeln!(text, "{}{:pad$}  # {from}", line.text, ""),
            };
        }
    }
    text
}

fn line(key: &str, value: String, from: String) -> Line {
    Line {
        text: format!("{key} = {value}"),
        from,
    }
}

/// Where a value was written.
fn origin(checked: &Checked, item: Option<&Item>) -> String {
    let Some(item) = item else {
        return "default".into();
    };
    let place = checked.sources.place(item.origin());
    match &item.via {
        Some(via) => format!("{place}, as ${{{}}}", via.name),
        None => place,
    }
}

/// The very file and its hash, so that what is shown is what ran.
fn plugin(checked: &Checked, plugin: &Plugin) -> Vec<Line> {
    let written = checked.written.plugins.get(&plugin.name);
    let item = |key: &str| written.and_then(|(_, given)| given.get(key));
    let from = |key: &str, other: &str| match item(key) {
        Some(item) => origin(checked, Some(item)),
        None => other.to_owned(),
    };
    let text = |text: &str| Value::Text(text.to_owned()).to_toml();
    let mut lines = vec![
        line(
            "path",
            Value::Path(plugin.file.clone()).to_toml(),
            from("path", "found by its name"),
        ),
        line(
            "version",
            text(&format!("={}", plugin.version)),
            from("version", "its manifest"),
        ),
        line("sha256", text(&plugin.sha256), from("sha256", "its file")),
    ];
    if plugin.isolate {
        lines.push(line(
            "isolate",
            "true".into(),
            from("isolate", "the machine's policy"),
        ));
    }
    lines
}

fn stage(plan: &Plan, checked: &Checked, node: &Node) -> Vec<Line> {
    let written = checked.written.stages.get(&node.name);
    let place = written
        .map(|written| checked.sources.place(written.key))
        .unwrap_or_default();
    let mut lines = vec![line(
        "use",
        Value::Text(node.schema.name.into()).to_toml(),
        place,
    )];
    if !node.inputs.is_empty() {
        let from = origin(
            checked,
            written.and_then(|written| written.feeders.as_ref()),
        );
        lines.push(line("in", inputs(plan, node), from));
    }
    if let Some(run) = stage_run(&node.run) {
        let from = written.and_then(|written| written.run.values().next());
        lines.push(line("run", run, origin(checked, from)));
    }
    for param in node.schema.params {
        if let Some(value) = node.values.0.get(param.name) {
            let item = written.and_then(|written| written.given.get(param.name));
            lines.push(line(param.name, value.to_toml(), origin(checked, item)));
        }
    }
    lines
}

/// `in`, with every port named.
fn inputs(plan: &Plan, node: &Node) -> String {
    let mut ports: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for edge in &node.inputs {
        let giver = &plan.nodes[edge.node];
        let name = format!("\"{}.{}\"", giver.name, giver.schema.outs[edge.output].name);
        ports.entry(edge.port).or_default().push(name);
    }
    let parts: Vec<String> = ports
        .iter()
        .map(|(port, feeders)| match feeders.as_slice() {
            [one] => format!("{} = {one}", node.schema.ins[*port].name),
            many => format!("{} = [{}]", node.schema.ins[*port].name, many.join(", ")),
        })
        .collect();
    format!("{{ {} }}", parts.join(", "))
}

fn stage_run(run: &StageRun) -> Option<String> {
    let text = |text: String| Value::Text(text).to_toml();
    let parts: Vec<String> = [
        run.batch.map(|rows| format!("batch = {rows}")),
        run.linger
            .map(|time| format!("linger = {}", text(show_duration(time)))),
        run.timeout
            .map(|time| format!("timeout = {}", text(show_duration(time)))),
        run.retries.map(|times| format!("retries = {times}")),
        run.device
            .clone()
            .map(|device| format!("device = {}", text(device))),
    ]
    .into_iter()
    .flatten()
    .collect();
    (!parts.is_empty()).then(|| format!("{{ {} }}", parts.join(", ")))
}
