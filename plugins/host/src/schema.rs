//! A manifest as the checker's schemas.
//!
//! Schemas live as long as the process, as those of the built-in stages do, which are constants. So those of a plugin are
//! leaked, once for each file's hash: what is lost is a few kilobytes a plugin, and a plugin that is loaded is never unloaded
//! either.

use crate::manifest::{Dim, Manifest, Param, ParamKind, Port, Stage};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};
use weir_pipeline::{Registry, Rows, Schema, StateBytes, Value, reference, schema};

/// By the files' hashes.
static KNOWN: Mutex<BTreeMap<String, &'static [Schema]>> = Mutex::new(BTreeMap::new());

/// The schemas of the manifest of the file with this hash, in its order; or what its own defaults and examples make of the
/// checker.
pub(crate) fn of(manifest: &Manifest, sha256: &str) -> Result<&'static [Schema], Vec<String>> {
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(schemas) = known.get(sha256) {
        return Ok(schemas);
    }
    let schemas: Vec<Schema> = manifest.stages.iter().map(stage).collect();
    let schemas: &'static [Schema] = schemas.leak();
    let faults = reference::faults(&Registry::new(schemas));
    if !faults.is_empty() {
        return Err(faults);
    }
    known.insert(sha256.to_owned(), schemas);
    Ok(schemas)
}

fn text(text: &str) -> &'static str {
    text.to_owned().leak()
}

/// A parameter's text may have paragraphs, and is shown where a message has one line.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn stage(stage: &Stage) -> Schema {
    let example = match stage.example.as_str() {
        "" => example(stage),
        given => given.to_owned(),
    };
    let state = stage.state;
    let ports = |ports: &[Port]| -> &'static [schema::Port] {
        ports.iter().map(port).collect::<Vec<_>>().leak()
    };
    Schema {
        name: text(&stage.id),
        summary: text(&stage.summary),
        doc: text(match stage.doc.as_str() {
            "" => &stage.summary,
            doc => doc,
        }),
        rows: stage.rows,
        deliver: stage.deliver,
        place: stage.place,
        params: stage.params.iter().map(param).collect::<Vec<_>>().leak(),
        ins: ports(&stage.ins),
        outs: ports(&stage.outs),
        batch_only: stage.batch_only,
        state_bytes: match (state.slide, state.tile, state.feature) {
            (0, 0, 0) => StateBytes::Nothing,
            (slide, tile, feature) => StateBytes::Linear {
                slide,
                tile,
                feature,
            },
        },
        example: text(&example),
    }
}

fn param(param: &Param) -> schema::Param {
    schema::Param {
        name: text(&param.name),
        kind: kind(param),
        default: param.default.as_ref().map(|value| text(&toml(value))),
        required: param.required,
        doc: text(&one_line(&param.doc)),
    }
}

fn kind(param: &Param) -> schema::ParamKind {
    use schema::ParamKind as Kind;
    match param.kind {
        // A bound between two whole numbers leaves out the one beyond it. The casts end at the ends of i64.
        ParamKind::Int => Kind::Integer {
            min: param.min.map_or(i64::MIN, |min| min.ceil() as i64),
            max: param.max.map_or(i64::MAX, |max| max.floor() as i64),
        },
        ParamKind::Float => Kind::Float {
            min: param.min.unwrap_or(f64::MIN),
            max: param.max.unwrap_or(f64::MAX),
        },
        ParamKind::Bool => Kind::Boolean,
        ParamKind::String => Kind::Text,
        ParamKind::Choice => {
            let values: Vec<&'static str> = param.values.iter().map(|value| text(value)).collect();
            Kind::Choice(values.leak())
        }
        ParamKind::Bytes => Kind::Bytes,
        ParamKind::Duration => Kind::Duration,
        ParamKind::Path => Kind::Path {
            exists: param.exists,
        },
        ParamKind::Slides => Kind::Slides,
        ParamKind::Strings => Kind::Texts,
    }
}

/// A value of the manifest as it would stand in a pipeline file.
fn toml(value: &serde_json::Value) -> String {
    match value {
        // TOML's own writer would take several lines for it; what JSON escapes, TOML reads.
        serde_json::Value::String(text) if text.contains(['\n', '\t']) => value.to_string(),
        serde_json::Value::String(text) => Value::Text(text.clone()).to_toml(),
        serde_json::Value::Array(items) => {
            let items: Vec<String> = items.iter().map(toml).collect();
            format!("[{}]", items.join(", "))
        }
        // Numbers and truth are written alike; the manifest was checked, so there is nothing else.
        other => other.to_string(),
    }
}

fn port(port: &Port) -> schema::Port {
    let shape: Vec<schema::Dim> = port.shape.iter().map(dim).collect();
    schema::Port {
        name: text(&port.name),
        kind: port.kind,
        shape: shape.leak(),
        mpp: port.mpp.as_ref().map(dim),
        many: port.many,
        optional: port.optional,
        doc: text(&port.doc),
    }
}

fn dim(dim: &Dim) -> schema::Dim {
    match dim {
        Dim::Fixed(number) => schema::Dim::Fixed(*number),
        Dim::Name(name) => match name.strip_prefix('$') {
            Some(param) => schema::Dim::Param(text(param)),
            None => schema::Dim::Same(text(name)),
        },
    }
}

/// A table for a stage whose author wrote none: its inputs, and what must be given.
fn example(stage: &Stage) -> String {
    let name = stage.id.split_once('.').map_or("it", |(_, name)| name);
    let mut lines = format!("[stage.{name}]\nuse = \"{}\"\n", stage.id);
    let feeder = |port: &Port| format!("\"{}\"", port.kind.name());
    if stage.rows != Rows::Source {
        let needed: Vec<&Port> = stage.ins.iter().filter(|port| !port.optional).collect();
        let feeders = match needed.as_slice() {
            [] => stage.ins.first().map(feeder),
            [one] if stage.ins.len() == 1 => Some(feeder(one)),
            several => {
                let each = several.iter();
                let each = each.map(|port| format!("{} = {}", port.name, feeder(port)));
                Some(format!("{{ {} }}", each.collect::<Vec<_>>().join(", ")))
            }
        };
        if let Some(feeders) = feeders {
            let _ = writeln!(lines, "in = {feeders}");
        }
    }
    for param in stage.params.iter().filter(|param| param.required) {
        let _ = writeln!(lines, "{} = {}", param.name, some(param));
    }
    lines
}

/// Some value that a parameter takes.
fn some(param: &Param) -> String {
    match param.kind {
        ParamKind::Int => match kind(param) {
            schema::ParamKind::Integer { min, max } => 1.clamp(min, max.max(min)).to_string(),
            _ => "1".into(),
        },
        ParamKind::Float => {
            let (min, max) = (param.min.unwrap_or(f64::MIN), param.max.unwrap_or(f64::MAX));
            format!("{:?}", 1f64.clamp(min, max.max(min)))
        }
        ParamKind::Bool => "true".into(),
        ParamKind::String => "\"...\"".into(),
        ParamKind::Choice => {
            Value::Text(param.values.first().cloned().unwrap_or_default()).to_toml()
        }
        ParamKind::Bytes => "\"64MiB\"".into(),
        ParamKind::Duration => "\"5s\"".into(),
        ParamKind::Path => "\"FILE\"".into(),
        ParamKind::Slides => "\"slides\"".into(),
        ParamKind::Strings => "[\"...\"]".into(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use weir_pipeline::schema::StateArgs;
    use weir_pipeline::{Deliver, Kind, Values};

    const MANIFEST: &str = r#"{ "weir-abi": "1.0", "name": "probe", "version": "0.3.1", "summary": "For tests",
      "stages": [ { "id": "probe.bag", "summary": "Joins", "rows": "reduce", "deliver": "generation", "batch-only": true,
        "state": { "slide": 100, "tile": 8, "feature": 4 },
        "in": [ { "name": "features", "kind": "features", "shape": ["d"] },
                { "name": "tiles", "kind": "pixels", "shape": ["$size", "$size", 3], "mpp": "mpp", "optional": true } ],
        "out": [ { "name": "bag", "kind": "bag", "shape": ["d"] } ],
        "params": [ { "name": "size", "type": "int", "min": 1.5, "max": 4096, "required": true, "doc": "px" },
                    { "name": "way", "type": "choice", "values": ["mean", "max"], "default": "max", "doc": "How" },
                    { "name": "words", "type": "strings", "default": ["a \"b\"", "c"], "doc": "Words" },
                    { "name": "least", "type": "bytes", "default": "64MiB", "doc": "Room" } ] } ] }"#;

    #[test]
    fn a_manifest_says_what_a_schema_says() {
        let manifest = Manifest::parse(MANIFEST.as_bytes()).unwrap();
        let schemas = of(&manifest, "of a_manifest_says").unwrap();
        let schema = &schemas[0];
        assert_eq!((schema.name, schema.rows), ("probe.bag", Rows::Reduce));
        assert_eq!(schema.deliver, Deliver::Generation);
        assert!(schema.batch_only);
        assert_eq!(
            schema.params[0].kind,
            schema::ParamKind::Integer { min: 2, max: 4096 }
        );
        let defaults: Vec<_> = schema.params.iter().map(|param| param.default).collect();
        assert_eq!(
            defaults,
            [
                None,
                Some("\"max\""),
                Some(r#"['a "b"', "c"]"#),
                Some("\"64MiB\"")
            ]
        );
        assert_eq!(schema.ins[0].kind, Kind::Features);
        assert_eq!(schema.ins[0].shape, [schema::Dim::Same("d")]);
        assert_eq!(schema.ins[1].shape[0], schema::Dim::Param("size"));
        assert_eq!(schema.ins[1].shape[2], schema::Dim::Fixed(3.0));
        assert_eq!(schema.ins[1].mpp, Some(schema::Dim::Same("mpp")));
        assert_eq!(
            schema.example,
            "[stage.bag]\nuse = \"probe.bag\"\nin = { features = \"features\" }\nsize = 2\n"
        );
        let bytes = |tiles, feature| {
            let values = &Values::default();
            let args = StateArgs {
                values,
                tiles,
                feature,
            };
            schema.state_bytes.bytes(&args)
        };
        assert_eq!(bytes(0, 0), 100);
        assert_eq!(bytes(10, 128), 100 + 10 * (8 + 4 * 128));
        assert_eq!(bytes(u64::MAX, 128), u64::MAX);
    }

    #[test]
    fn what_a_parameter_says_is_one_line_and_a_value_of_several_is_written_in_one() {
        let text = MANIFEST.replacen(
            "\"c\"], \"doc\": \"Words\"",
            r#""c\n\td"], "doc": "Words\n\nor more""#,
            1,
        );
        let manifest = Manifest::parse(text.as_bytes()).unwrap();
        let words = &of(&manifest, "of what_a_parameter_says").unwrap()[0].params[2];
        assert_eq!(words.default, Some(r#"['a "b"', "c\n\td"]"#));
        assert_eq!(words.doc, "Words or more");
    }

    #[test]
    fn a_file_is_described_once() {
        let manifest = Manifest::parse(MANIFEST.as_bytes()).unwrap();
        let [one, same] = [(); 2].map(|()| of(&manifest, "of a_file_is_described_once").unwrap());
        assert!(std::ptr::eq(one, same));
    }

    #[test]
    fn what_the_checker_would_refuse_in_a_users_file_is_refused_in_the_manifest() {
        for (from, to, what) in [
            ("64MiB", "much", "the default of `least` does not fit it"),
            (
                "\"summary\": \"Joins\"",
                r#""summary": "Joins", "example": "[stage.x]\nuse = \"probe.bag\"\nsize = 2\nsise = 1\n""#,
                "the example: probe.bag has no parameter `sise`",
            ),
        ] {
            let text = MANIFEST.replacen(from, to, 1);
            let manifest = Manifest::parse(text.as_bytes()).unwrap();
            let faults = of(&manifest, what).unwrap_err();
            assert!(faults.concat().contains(what), "{faults:?}");
        }
    }
}
