//! The JSON Schema (draft 7) of pipeline files, for editors.
//!
//! A stage's parameters hang on its `use`. That is written as `if`/`then`, one pair a stage type: with `oneOf`, editors
//! report every key of a stage with one mistake as "not valid under any of the schemas".

use crate::check::{RUN, STAGE_RUN, VARIABLE_TYPES};
use crate::reference::takes;
use crate::schema::{Param, ParamKind, Port, Registry, Rows, Schema};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

const NAME: &str = "^[a-z][a-z0-9-]*$";
const REFERENCE: &str = "^[a-z][a-z0-9-]*(\\.[a-z][a-z0-9-]*)?$";
/// A plugin's stage type.
const FOREIGN: &str = "^[a-z][a-z0-9-]*\\.[a-z][a-z0-9-]*$";
/// A text that is one variable takes the variable's type, so it may stand for any value.
const VARIABLE: &str = "^\\$\\{[^}]+\\}$";

/// The schema of files that use the types of `registry`.
pub fn json_schema(registry: &Registry) -> Value {
    let names: Vec<&str> = registry.iter().map(|schema| schema.name).collect();
    let types: Vec<Value> = registry.iter().map(stage_type).collect();
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "weir pipeline",
        "description": "A pipeline file of weir, format 1",
        "type": "object",
        "required": ["weir", "stage"],
        "additionalProperties": false,
        "properties": {
            "weir": { "const": 1, "description": "Version of the format" },
            "name": { "type": "string", "description": "Name of the pipeline; the file's when it is not given" },
            "doc": { "type": "string" },
            "var": tables(variable()),
            "run": table(&RUN, "Settings of the run"),
            "model": tables(json!({
                "type": "object",
                "required": ["path"],
                "additionalProperties": false,
                "properties": {
                    "path": { "type": "string", "description": "Folder with model.toml and weights.safetensors, relative to this file" },
                    "sha256": { "type": "string", "description": "SHA-256 that the weights must have" },
                },
            })),
            "plugin": tables(json!({
                "type": "object",
                "additionalProperties": false,
                "properties": {
                    "path": { "type": "string", "description": "The plugin's file, relative to this file; without it the plugin is looked for by its name" },
                    "version": { "type": "string", "description": "Versions that may be used, as \"1.2\" or \">=1.2, <1.5\"" },
                    "sha256": { "type": "string", "description": "SHA-256 that the file must have; `weir plugin pin` writes it" },
                    "isolate": unless_variable(json!({ "type": "boolean", "description": "Whether it runs in a process of its own" })),
                },
            })),
            "stage": tables(json!({
                "type": "object",
                "required": ["use"],
                "properties": {
                    "use": types_of(&names),
                    "doc": { "type": "string" },
                    "run": table(&STAGE_RUN, "How the stage is run"),
                },
                "allOf": types,
            })),
            "test": { "type": "array", "items": test() },
        },
    })
}

/// What may stand in `use`: of plugins that are not known here, any type.
fn types_of(names: &[&str]) -> Value {
    let mut plugins: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut built_in = Vec::new();
    for name in names {
        match name.split_once('.') {
            Some((plugin, _)) => plugins.entry(plugin).or_default().push(name),
            None => built_in.push(*name),
        }
    }
    let of_plugins = plugins.iter().map(|(plugin, names)| {
        json!({ "if": { "pattern": format!("^{plugin}\\.") }, "then": { "enum": names } })
    });
    let mut types = json!({
        "type": "string",
        "description": "Which type of stage it is",
        "if": { "pattern": FOREIGN },
        "else": { "enum": built_in },
    });
    if !plugins.is_empty() {
        types["allOf"] = of_plugins.collect();
    }
    types
}

/// A table of named tables.
fn tables(each: Value) -> Value {
    json!({
        "type": "object",
        "propertyNames": { "pattern": NAME },
        "additionalProperties": each,
    })
}

fn variable() -> Value {
    json!({
        "type": "object",
        "required": ["type"],
        "additionalProperties": false,
        "properties": {
            "type": { "enum": VARIABLE_TYPES },
            "default": {},
            "default-env": { "type": "string", "description": "Variable of the environment that is the default" },
            "doc": { "type": "string" },
            "min": { "type": "number" },
            "max": { "type": "number" },
            "values": { "type": "array" },
        },
    })
}

fn table(params: &[Param], doc: &str) -> Value {
    json!({
        "type": "object",
        "description": doc,
        "additionalProperties": false,
        "properties": properties(params),
    })
}

fn properties(params: &[Param]) -> Map<String, Value> {
    params
        .iter()
        .map(|param| (param.name.to_owned(), property(param)))
        .collect()
}

fn property(param: &Param) -> Value {
    let text = json!({ "type": "string" });
    let texts = json!({ "type": "array", "items": { "type": "string" } });
    let kind = match param.kind {
        ParamKind::Integer { min, max } => {
            json!({ "type": "integer", "minimum": min, "maximum": max })
        }
        ParamKind::Float { min, max } => {
            json!({ "type": "number", "minimum": min, "maximum": max })
        }
        ParamKind::Boolean => json!({ "type": "boolean" }),
        ParamKind::Choice(choices) => json!({ "enum": choices }),
        ParamKind::Bytes => json!({ "type": ["string", "integer"] }),
        ParamKind::Text | ParamKind::Duration | ParamKind::Path { .. } | ParamKind::Model(_) => {
            text
        }
        ParamKind::Slides | ParamKind::Texts => json!({ "anyOf": [text, texts] }),
    };
    // Kinds that take any text take a variable already.
    let takes_text =
        kind["type"] == "string" || kind["anyOf"].is_array() || kind["type"].is_array();
    let mut property = if takes_text {
        kind
    } else {
        unless_variable(kind)
    };
    let default = match param.default {
        Some(default) => format!("; default {default}"),
        None => String::new(),
    };
    property["description"] = format!("{} ({}{default})", param.doc, takes(&param.kind)).into();
    property
}

/// A value of a kind, or a variable. As a condition, so that an editor says what the kind wants, not that nothing fits.
fn unless_variable(kind: Value) -> Value {
    json!({ "if": { "type": "string", "pattern": VARIABLE }, "else": kind })
}

/// `if` the type is this one, `then` these are its keys.
fn stage_type(schema: &'static Schema) -> Value {
    let mut keys = properties(schema.params);
    for shared in ["use", "run", "doc"] {
        keys.insert(shared.into(), json!({}));
    }
    let mut required: Vec<&str> = schema
        .params
        .iter()
        .filter(|param| param.required)
        .map(|param| param.name)
        .collect();
    if schema.rows != Rows::Source {
        keys.insert("in".into(), feeders(schema.ins));
        if schema.ins.iter().any(|port| !port.optional) {
            required.push("in");
        }
    }
    json!({
        "if": { "properties": { "use": { "const": schema.name } }, "required": ["use"] },
        "then": {
            "description": schema.summary,
            "additionalProperties": false,
            "properties": keys,
            "required": required,
        },
    })
}

fn feeders(ports: &[Port]) -> Value {
    let reference = json!({ "type": "string", "pattern": REFERENCE });
    let list = json!({ "type": "array", "items": reference, "minItems": 1 });
    let port = |port: &Port| {
        let mut feeder = if port.many {
            json!({ "if": { "type": "array" }, "then": list, "else": reference })
        } else {
            reference.clone()
        };
        feeder["description"] = format!("{}: {}", port.kind.name(), port.doc).into();
        feeder
    };
    let named: Map<String, Value> = ports
        .iter()
        .map(|each| (each.name.to_owned(), port(each)))
        .collect();
    json!({
        "description": "What feeds the stage: STAGE, STAGE.OUTPUT, or a table of inputs",
        "type": ["string", "array", "object"],
        "if": { "type": "object" },
        "then": { "additionalProperties": false, "properties": named },
        "else": { "if": { "type": "array" }, "then": list, "else": reference },
    })
}

fn test() -> Value {
    let count = json!({ "type": "integer", "minimum": 0 });
    json!({
        "type": "object",
        "required": ["name", "feed", "expect"],
        "additionalProperties": false,
        "properties": {
            "name": { "type": "string" },
            "feed": {
                "type": "object",
                "additionalProperties": false,
                "properties": {
                    "stage": { "type": "string", "description": "The source that is fed; the only one when it is not given" },
                    "colour": { "type": "array", "items": { "type": "integer", "minimum": 0, "maximum": 255 }, "minItems": 3, "maxItems": 3 },
                    "count": { "type": "integer", "minimum": 1, "description": "Tiles of the colour" },
                    "tiles": { "type": "string", "description": "A PNG that is cut into tiles" },
                    "slides": { "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }] },
                    "script": { "type": "string", "description": "For a scripted source" },
                },
            },
            "expect": {
                "type": "object",
                "properties": { "prediction": { "description": "The class of every slide" } },
                "additionalProperties": {
                    "type": "object",
                    "additionalProperties": false,
                    "properties": { "values": count, "skipped": count, "failed": count, "gone": count },
                },
            },
        },
    })
}
