//! A plan as a picture: for a terminal, Graphviz, Markdown pages, programs.

use crate::memory;
use crate::plan::{Edge, Node, Plan};
use crate::schema::{Kind, Rows};
use crate::shapes::{Shape, of_plan};
use crate::units::show_bytes;
use serde_json::{Value, json};
use std::fmt::Write;

/// Tiles of a slide at which a stage's state is measured: many, so that what grows shows.
const MANY: u64 = 1 << 20;

/// What a stage keeps of an open slide: bytes whatever its size, and bytes a tile.
pub fn keeps(plan: &Plan, index: usize) -> (u64, u64) {
    let of = |tiles| memory::state(plan, index, tiles);
    let none = of(0);
    let slope = of(2 * MANY).saturating_sub(of(MANY)).div_ceil(MANY);
    // Behind a selection the state stops growing: then all of it is kept, whatever the slide.
    if slope == 0 {
        (of(MANY), 0)
    } else {
        (none, slope)
    }
}

/// `pixels 50x50x3 at 4 um/px`.
fn flow(kind: Kind, shape: Option<&Shape>) -> String {
    let shape = shape.map(Shape::text).unwrap_or_default();
    if shape.is_empty() {
        kind.name().to_owned()
    } else {
        format!("{} {shape}", kind.name())
    }
}

/// What names the port that an edge comes from, as in a file: the first output needs no name.
fn from(plan: &Plan, edge: &Edge) -> String {
    let node = &plan.nodes[edge.node];
    match edge.output {
        0 => node.name.clone(),
        output => format!("{}.{}", node.name, node.schema.outs[output].name),
    }
}

/// For a terminal.
pub fn text(plan: &Plan) -> String {
    let shapes = of_plan(plan);
    let mut text = String::new();
    let width = plan
        .nodes
        .iter()
        .map(|node| node.name.chars().count())
        .max()
        .unwrap_or(0);
    let kinds = plan
        .nodes
        .iter()
        .map(|node| node.schema.name.len())
        .max()
        .unwrap_or(0);
    let _ = writeln!(
        text,
        "{}: {} stages, plan {}",
        plan.name,
        plan.nodes.len(),
        &plan.hash[..plan.hash.len().min(16)]
    );
    for plugin in &plan.plugins {
        let place = if plugin.isolate {
            "in a process of its own"
        } else {
            "in this process"
        };
        let _ = writeln!(
            text,
            "plugin {} {}, {place}: {}",
            plugin.name,
            plugin.version,
            plugin.file.display()
        );
    }
    for (index, node) in plan.nodes.iter().enumerate() {
        let _ = write!(
            text,
            "\n{:width$}  {:kinds$}  {}",
            node.name,
            node.schema.name,
            node.schema.rows.name()
        );
        if let Some(keeps) = kept(plan, index) {
            let _ = write!(text, "; keeps {keeps}");
        }
        text.push('\n');
        for edge in &node.inputs {
            let _ = writeln!(
                text,
                "  <- {} from {}",
                node.schema.ins[edge.port].name,
                from(plan, edge)
            );
        }
        for (output, port) in node.schema.outs.iter().enumerate() {
            let users: Vec<&str> = plan
                .users(index, output)
                .map(|(user, _)| user.name.as_str())
                .collect();
            let to = match users.as_slice() {
                [] => "nobody".to_owned(),
                users => users.join(", "),
            };
            let _ = writeln!(
                text,
                "  -> {}: {} to {to}",
                port.name,
                flow(port.kind, shapes[index].get(output))
            );
        }
    }
    text
}

/// What a stage keeps of an open slide, in words.
fn kept(plan: &Plan, index: usize) -> Option<String> {
    match keeps(plan, index) {
        (0, 0) => None,
        (fixed, 0) => Some(format!("{} of an open slide", show_bytes(fixed))),
        (0, slope) => Some(format!("{slope}B a tile of an open slide")),
        (fixed, slope) => Some(format!(
            "{} and {slope}B a tile of an open slide",
            show_bytes(fixed)
        )),
    }
}

/// For Graphviz.
pub fn dot(plan: &Plan) -> String {
    let shapes = of_plan(plan);
    let quote = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let mut text = format!(
        "digraph {} {{\n  rankdir=LR;\n  node [shape=box, fontname=\"sans-serif\"];\n",
        quote(&plan.name)
    );
    for node in &plan.nodes {
        let label = format!("{}\n{}", node.name, node.schema.name);
        let style = match node.schema.rows {
            Rows::Source | Rows::Sink => ", style=rounded",
            Rows::Reduce => ", peripheries=2",
            _ => "",
        };
        let _ = writeln!(
            text,
            "  {} [label={}{style}];",
            quote(&node.name),
            quote(&label).replace('\n', "\\n")
        );
    }
    for (node, edge, label) in edges(plan, &shapes) {
        let _ = writeln!(
            text,
            "  {} -> {} [label={}];",
            quote(&plan.nodes[edge.node].name),
            quote(&node.name),
            quote(&label)
        );
    }
    text.push_str("}\n");
    text
}

/// For Markdown pages.
pub fn mermaid(plan: &Plan) -> String {
    let shapes = of_plan(plan);
    let mut text = String::from("flowchart LR\n");
    // Names may be words of Mermaid's own, as `end`.
    let id = |node: &Node| format!("stage_{}", node.name.replace('-', "_"));
    for node in &plan.nodes {
        let (open, close) = match node.schema.rows {
            Rows::Source | Rows::Sink => ("([", "])"),
            Rows::Reduce => ("[[", "]]"),
            _ => ("[", "]"),
        };
        let _ = writeln!(
            text,
            "  {}{open}\"{}<br/>{}\"{close}",
            id(node),
            node.name,
            node.schema.name
        );
    }
    for (node, edge, label) in edges(plan, &shapes) {
        let _ = writeln!(
            text,
            "  {} -->|\"{label}\"| {}",
            id(&plan.nodes[edge.node]),
            id(node)
        );
    }
    text
}

/// Every edge: the taking node, the edge, what flows.
fn edges<'p>(plan: &'p Plan, shapes: &[Vec<Shape>]) -> Vec<(&'p Node, &'p Edge, String)> {
    let mut found = Vec::new();
    for node in &plan.nodes {
        for edge in &node.inputs {
            let kind = plan.nodes[edge.node].schema.outs[edge.output].kind;
            found.push((node, edge, flow(kind, shapes[edge.node].get(edge.output))));
        }
    }
    found
}

/// For programs. Byte counts of a stage are of an open slide.
pub fn json(plan: &Plan) -> Value {
    let shapes = of_plan(plan);
    let stages: Vec<Value> = plan
        .nodes
        .iter()
        .enumerate()
        .map(|(index, node)| {
            let (fixed, slope) = keeps(plan, index);
            let inputs: Vec<Value> = node
                .inputs
                .iter()
                .map(|edge| {
                    let giver = &plan.nodes[edge.node];
                    json!({
                        "port": node.schema.ins[edge.port].name,
                        "from": giver.name,
                        "output": giver.schema.outs[edge.output].name,
                        "kind": giver.schema.outs[edge.output].kind.name(),
                    })
                })
                .collect();
            let outputs: Vec<Value> = node
                .schema
                .outs
                .iter()
                .zip(&shapes[index])
                .map(|(port, shape)| {
                    let dims: Vec<Option<f64>> = shape
                        .dims
                        .iter()
                        .map(|dim| dim.map(|number| number.value))
                        .collect();
                    json!({
                        "port": port.name,
                        "kind": port.kind.name(),
                        "shape": dims,
                        "mpp": shape.mpp.map(|number| number.value),
                    })
                })
                .collect();
            let params: serde_json::Map<String, Value> = node
                .values
                .0
                .iter()
                .map(|(name, value)| (name.clone(), value.to_json()))
                .collect();
            json!({
                "name": node.name,
                "use": node.schema.name,
                "rows": node.schema.rows.name(),
                "parameters": params,
                "inputs": inputs,
                "outputs": outputs,
                "kept_bytes": fixed,
                "kept_bytes_a_tile": slope,
                "tile_bytes": memory::tile(node),
            })
        })
        .collect();
    json!({
        "name": plan.name,
        "file": plan.file.display().to_string(),
        "hash": plan.hash,
        "plugins": plan.plugins.iter().map(|plugin| json!({
            "name": plugin.name,
            "version": plugin.version,
            "sha256": plugin.sha256,
            "file": plugin.file.display().to_string(),
            "isolate": plugin.isolate,
            "readers": plugin.readers,
        })).collect::<Vec<_>>(),
        "stages": stages,
    })
}
