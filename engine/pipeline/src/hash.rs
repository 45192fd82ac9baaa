//! The plan's hash.

use crate::model_file::hex;
use crate::plan::{Node, Plan};
use crate::schema::ParamKind;
use crate::values::Value;
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::path::Path;

/// SHA-256 over everything that can change an answer. What only changes how fast it comes, where it is written, or which
/// slides it is about, is not in it.
pub(crate) fn of(plan: &Plan) -> String {
    let mut text = String::from("weir-plan/1\n");
    for (name, model) in &plan.models {
        let mut model = model.clone();
        // How it was trained changes no answer.
        model.training = None;
        line(
            &mut text,
            "model",
            &format!(
                "{name:?} {}",
                serde_json::to_string(&model).unwrap_or_default()
            ),
        );
    }
    for plugin in &plan.plugins {
        let value = format!("{:?} {}", plugin.name, plugin.sha256);
        line(&mut text, "plugin", &value);
    }
    let run = &plan.run;
    line(
        &mut text,
        "run",
        &format!(
            "executor={:?} devices={:?} seed={} max-failed={:?} max-failed-picked={:?} retries={} default-mpp={:?} live={}",
            run.executor,
            run.devices,
            run.seed,
            run.max_failed,
            run.max_failed_picked,
            run.retries,
            run.default_mpp,
            run.live
        ),
    );
    // By name: in which order a file lists its stages means nothing.
    let mut stages: Vec<String> = plan.nodes.iter().map(|node| stage(plan, node)).collect();
    stages.sort_unstable();
    text.extend(stages);
    hex(&Sha256::digest(text.as_bytes()))
}

fn line(text: &mut String, what: &str, value: &str) {
    // Writing to a String does not fail.
    let _ = writeln!(text, "{what} {value}");
}

fn stage(plan: &Plan, node: &Node) -> String {
    let mut lines = String::new();
    let text = &mut lines;
    line(
        text,
        "stage",
        &format!(
            "{:?} {:?} retries={:?} device={:?}",
            node.name, node.schema.name, node.run.retries, node.run.device
        ),
    );
    for (name, value) in &node.values.0 {
        let kind = node
            .schema
            .params
            .iter()
            .find(|param| param.name == name)
            .map(|param| param.kind);
        match (kind, value) {
            (Some(ParamKind::Slides), _) | (Some(ParamKind::Path { exists: false }), _) => {}
            (_, Value::Path(path)) => line(text, "file", &format!("{name:?} {}", contents(path))),
            // The same number is the same, however it was written.
            (Some(ParamKind::Float { .. }), Value::Integer(number)) => {
                line(
                    text,
                    "param",
                    &format!("{name:?} {:?}", Value::Float(*number as f64)),
                );
            }
            (_, value) => line(text, "param", &format!("{name:?} {value:?}")),
        }
    }
    for edge in &node.inputs {
        let from = &plan.nodes[edge.node];
        line(
            text,
            "edge",
            &format!(
                "{:?} {:?}.{:?}",
                node.schema.ins[edge.port].name, from.name, from.schema.outs[edge.output].name
            ),
        );
    }
    lines
}

/// What stands in a file; of a folder or of what cannot be read, the name.
fn contents(path: &Path) -> String {
    let Ok(mut file) = std::fs::File::open(path) else {
        return format!("{path:?}");
    };
    let mut hash = Sha256::new();
    let mut piece = vec![0; 1 << 16];
    loop {
        match std::io::Read::read(&mut file, &mut piece) {
            Ok(0) => return hex(&hash.finalize()),
            Ok(n) => hash.update(&piece[..n]),
            Err(_) => return format!("{path:?}"),
        }
    }
}
