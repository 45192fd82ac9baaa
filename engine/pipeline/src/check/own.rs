//! Whether what a stage type says of itself passes the checker.

use super::stages::{Params, default};
use super::{Cx, parse};
use crate::codes;
use crate::doc::Data;
use crate::schema::{ParamKind, Registry, Schema};
use crate::source::{Sources, Span};
use std::collections::BTreeMap;
use std::path::Path;

/// Faults of a type's defaults and of its example.
pub(crate) fn schema_faults(registry: &Registry, schema: &'static Schema) -> Vec<String> {
    let mut faults = Vec::new();
    let mut cx = Cx {
        registry,
        environment: &|_| None,
        sources: Sources::default(),
        found: Vec::new(),
        damage: parse::Damage::default(),
        models: BTreeMap::new(),
        plugins: BTreeMap::new(),
    };
    let main = cx.sources.add("example", schema.example, Path::new(""));
    for param in schema.params {
        if param.default.is_some() && default(&mut cx, param).is_none() {
            faults.push(format!(
                "{}: the default of `{}` does not fit it",
                schema.name, param.name
            ));
        }
    }
    let root = parse::document(&mut cx, main);
    let stages = root.get("stage").and_then(|entry| entry.value.table());
    let Some(table) = stages.and_then(|stages| stages.entries.first()?.value.table()) else {
        faults.push(format!("{}: the example has no [stage.NAME]", schema.name));
        return faults;
    };
    if table.get("use").and_then(|entry| entry.value.text()) != Some(schema.name) {
        faults.push(format!("{}: the example is of another type", schema.name));
    }
    let mut table = table.clone();
    // Which models and files there are is the user's affair.
    table.entries.retain(|entry| {
        let param = schema.params.iter().find(|param| param.name == entry.name);
        let outside = matches!(
            param.map(|param| param.kind),
            Some(ParamKind::Model(_) | ParamKind::Slides | ParamKind::Path { .. })
        );
        let text = matches!(entry.value.data, Data::Text(_) | Data::List(_));
        !(outside && text)
    });
    let params = Params {
        owner: schema.name.to_owned(),
        unknown: &codes::E0301,
        params: schema.params,
        skip: &super::STAGE_KEYS,
        example: "",
        at: Span::default(),
        key: Span::default(),
    };
    params.check(&mut cx, &table, &mut BTreeMap::new());
    let given = |name: &str| schema.example.lines().any(|line| line.starts_with(name));
    for param in schema
        .params
        .iter()
        .filter(|param| param.required && !given(param.name))
    {
        faults.push(format!(
            "{}: the example lacks `{}`",
            schema.name, param.name
        ));
    }
    for found in &cx.found {
        if found.code != &codes::E0306 {
            faults.push(format!("{}: the example: {}", schema.name, found.title));
        }
    }
    faults
}
