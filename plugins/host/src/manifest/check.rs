//! What the types of a manifest do not hold together by themselves.

use super::{Manifest, Param, ParamKind, Stage};
use std::collections::BTreeSet;
use weir_pipeline::{Kind, Rows};

/// Keys of a stage's table that are weir's own.
const RESERVED: &[&str] = &["use", "in", "run", "doc"];

impl Manifest {
    /// What is wrong in it; the first that is found.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.abi().is_none() {
            return Err(format!(
                "`weir-abi` is {:?}, not two numbers as \"1.0\"",
                self.weir_abi
            ));
        }
        if !is_name(&self.name) {
            return Err(format!(
                "the name {:?} is not of the form {NAME}",
                self.name
            ));
        }
        if self.stages.is_empty() && self.readers.is_empty() {
            return Err("it has neither stages nor readers".into());
        }
        let told = serde_json::to_value(self).map_err(|error| error.to_string())?;
        if let Some(text) = disguised(&told) {
            return Err(format!(
                "the text {text:?} has characters that a terminal acts on instead of showing them"
            ));
        }
        unique("stage", self.stages.iter().map(|stage| stage.id.as_str()))?;
        unique(
            "reader",
            self.readers.iter().map(|reader| reader.id.as_str()),
        )?;
        for stage in &self.stages {
            stage
                .check(&self.name)
                .map_err(|what| format!("stage `{}`: {what}", stage.id))?;
        }
        if let Some(reader) = self.readers.iter().find(|reader| !is_name(&reader.id)) {
            return Err(format!(
                "the reader's id {:?} is not of the form {NAME}",
                reader.id
            ));
        }
        Ok(())
    }
}

/// A text that would not be shown as what it is: with control characters, or those that turn the direction of writing (Unicode TR 36,
/// 3.2). What weir tells of a plugin that nobody trusts yet must be what is there.
fn disguised(of: &serde_json::Value) -> Option<&str> {
    let acts = |c: char| {
        c.is_control() && !matches!(c, '\n' | '\t')
            || matches!(c, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
    };
    match of {
        serde_json::Value::String(text) => text.contains(acts).then_some(text),
        serde_json::Value::Array(all) => all.iter().find_map(disguised),
        serde_json::Value::Object(all) => all.values().find_map(disguised),
        _ => None,
    }
}

pub(super) const NAME: &str = "[a-z][a-z0-9-]*";

pub(super) fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase())
        && text
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

fn unique<'a>(what: &str, names: impl Iterator<Item = &'a str>) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(format!("{what} `{name}` stands there twice"));
        }
    }
    Ok(())
}

impl Stage {
    fn check(&self, namespace: &str) -> Result<(), String> {
        let own = self
            .id
            .strip_prefix(namespace)
            .and_then(|rest| rest.strip_prefix('.'));
        if !own.is_some_and(is_name) {
            return Err(format!(
                "its id is not `{namespace}.` and a name of the form {NAME}"
            ));
        }
        let (ins, outs) = (self.ins.len(), self.outs.len());
        let fits = match self.rows {
            Rows::Source => ins == 0 && outs > 0,
            Rows::Map | Rows::Reduce => ins > 0 && outs > 0,
            Rows::Filter => ins == 1 && outs == 1 && self.ins[0].kind == self.outs[0].kind,
            Rows::Sink => ins > 0 && outs == 0,
        };
        if !fits {
            return Err(format!(
                "a {} has {}, and this has {ins} inputs and {outs} outputs",
                self.rows.name(),
                match self.rows {
                    Rows::Source => "no input and at least one output",
                    Rows::Map | Rows::Reduce => "at least one input and one output",
                    Rows::Filter => "one input and one output of the same kind",
                    Rows::Sink => "at least one input and no output",
                }
            ));
        }
        if self.batch_only && self.rows != Rows::Reduce {
            return Err("`batch-only` is for a reduce".into());
        }
        unique(
            "parameter",
            self.params.iter().map(|param| param.name.as_str()),
        )?;
        unique("input", self.ins.iter().map(|port| port.name.as_str()))?;
        unique("output", self.outs.iter().map(|port| port.name.as_str()))?;
        // The budget leases what sources and maps make; a reduce could not wait for it without keeping others from theirs.
        if self.rows == Rows::Reduce
            && let Some(port) = self.outs.iter().find(|port| port.kind == Kind::Pixels)
        {
            return Err(format!(
                "output `{}`: a reduce makes no pixels, as nothing would bound them: give a table, or picks for a `tile-fetch`",
                port.name
            ));
        }
        for param in &self.params {
            param
                .check()
                .map_err(|what| format!("parameter `{}`: {what}", param.name))?;
        }
        if let Some(memory) = &self.memory {
            // Without a value there would be nothing to take out of the budget.
            let always = |param: &Param| param.required || param.default.is_some();
            let mut params = self.params.iter();
            if !params.any(|it| it.name == *memory && it.kind == ParamKind::Bytes && always(it)) {
                return Err(format!(
                    "`memory` names `{memory}`, which is no parameter of type \"bytes\" that is required or has a default"
                ));
            }
        }
        self.check_ports()
    }
}

impl Param {
    fn check(&self) -> Result<(), String> {
        if !is_name(&self.name) {
            return Err(format!("its name is not of the form {NAME}"));
        }
        if RESERVED.contains(&self.name.as_str()) {
            return Err("that key is weir's own in every stage's table".into());
        }
        let number = matches!(self.kind, ParamKind::Int | ParamKind::Float);
        if !number && (self.min.is_some() || self.max.is_some()) {
            return Err("`min` and `max` are for numbers".into());
        }
        if let (Some(min), Some(max)) = (self.min, self.max)
            && min > max
        {
            return Err(format!(
                "its least number {min} is above its greatest {max}"
            ));
        }
        if (self.kind == ParamKind::Choice) == self.values.is_empty() {
            return Err("`values` are for a choice, which has at least one".into());
        }
        if self.exists && self.kind != ParamKind::Path {
            return Err("`exists` is for a path".into());
        }
        if self.kind != ParamKind::Slides && !self.extensions.is_empty() {
            return Err("`extensions` are for slides".into());
        }
        match &self.default {
            Some(_) if self.required => Err("it is required and has a default".into()),
            Some(default) => self.check_default(default),
            None => Ok(()),
        }
    }

    fn check_default(&self, default: &serde_json::Value) -> Result<(), String> {
        let in_range = |number: f64| {
            self.min.is_none_or(|min| number >= min) && self.max.is_none_or(|max| number <= max)
        };
        let fits = match self.kind {
            ParamKind::Int => default
                .as_i64()
                .is_some_and(|number| in_range(number as f64)),
            ParamKind::Float => default.as_f64().is_some_and(in_range),
            ParamKind::Bool => default.is_boolean(),
            ParamKind::Choice => self
                .values
                .iter()
                .any(|value| default.as_str() == Some(value)),
            ParamKind::Strings | ParamKind::Slides => default
                .as_array()
                .is_some_and(|items| items.iter().all(serde_json::Value::is_string)),
            ParamKind::String | ParamKind::Bytes | ParamKind::Duration | ParamKind::Path => {
                default.is_string()
            }
        };
        if fits {
            return Ok(());
        }
        Err(format!("its default {default} is none of its own values"))
    }
}
