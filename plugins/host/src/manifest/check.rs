//! What the types of a manifest do not hold together by themselves.

use super::{Manifest, Param, ParamKind, Stage};
use std::collections::BTreeSet;
use weir_pipeline::{Kind, Rows};

/// Keys of a stage's table that are weir's own.
const RESERVED: &[&str] = &["use", "in", "run", "doc"];

impl Manifest {
    /// What is wrong in it: of itself the first that is found; where that is sound, of each stage, parameter, port and reader.
    pub(super) fn faults(&self) -> Vec<String> {
        if let Err(what) = self.check() {
            return vec![what];
        }
        let stages = self.stages.iter().flat_map(|stage| {
            let faults = stage.faults(&self.name).into_iter();
            faults.map(|what| format!("stage `{}`: {what}", stage.id))
        });
        let readers = self.readers.iter().filter(|reader| !is_name(&reader.id));
        let readers = readers
            .map(|reader| format!("the reader's id {:?} is not of the form {NAME}", reader.id));
        stages.chain(readers).collect()
    }

    fn check(&self) -> Result<(), String> {
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
        if let Some(text) = disguised(&told, &mut Vec::new()) {
            return Err(format!(
                "the text {text:?} has characters that a terminal acts on instead of showing them, or several lines where one is meant"
            ));
        }
        unique("stage", self.stages.iter().map(|stage| stage.id.as_str()))?;
        unique(
            "reader",
            self.readers.iter().map(|reader| reader.id.as_str()),
        )
    }
}

/// What may have several lines: full sentences, tables to copy, and values, which are shown as a pipeline file would have them.
const LONG: &[&[&str]] = &[
    &["stages", "doc"],
    &["stages", "example"],
    &["stages", "params", "doc"],
    &["stages", "params", "default"],
];

/// A character that a terminal acts on instead of showing it, or that ends a line.
fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61C}' | '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

/// What is said of a manifest that was not looked through yet, in one line: a parser's message quotes its keys and words.
pub(super) fn shown(what: &str) -> String {
    let one = |c: char| match acts(c) {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    };
    what.chars().map(one).collect()
}

/// A text that would not be shown as what it is: with control characters, or those that turn the direction of writing (Unicode TR 36,
/// 3.2). What weir tells of a plugin that nobody trusts yet must be what is there; so a line must also be one, lest a summary writes
/// lines that look like weir's own. `at`: the keys that lead to it.
fn disguised<'a>(of: &'a serde_json::Value, at: &mut Vec<&'a str>) -> Option<&'a str> {
    match of {
        serde_json::Value::String(text) => {
            let long = LONG.contains(&at.as_slice());
            let acts = |c: char| acts(c) && !(long && matches!(c, '\n' | '\t'));
            text.contains(acts).then_some(text)
        }
        serde_json::Value::Array(all) => all.iter().find_map(|of| disguised(of, at)),
        serde_json::Value::Object(all) => all.iter().find_map(|(key, of)| {
            at.push(key);
            let found = disguised(of, at);
            at.pop();
            found
        }),
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
    fn faults(&self, namespace: &str) -> Vec<String> {
        let params = self.params.iter().filter_map(|param| {
            let what = param.check().err()?;
            Some(format!("parameter `{}`: {what}", param.name))
        });
        let own = self.check(namespace).err().into_iter();
        own.chain(params).chain(self.port_faults()).collect()
    }

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
            Rows::Map => ins == 1 && outs > 0,
            Rows::Reduce => ins > 0 && outs > 0,
            Rows::Filter => ins == 1 && outs == 1 && self.ins[0].kind == self.outs[0].kind,
            Rows::Sink => ins > 0 && outs == 0,
        };
        if !fits {
            return Err(format!(
                "a {} has {}, and this has {ins} inputs and {outs} outputs",
                self.rows.name(),
                match self.rows {
                    Rows::Source => "no input and at least one output",
                    Rows::Map => "one input and at least one output",
                    Rows::Reduce => "at least one input and one output",
                    Rows::Filter => "one input and one output of the same kind",
                    Rows::Sink => "at least one input and no output",
                }
            ));
        }
        // A version has one outcome, and a slide one end: whose would it be of several streams?
        if matches!(self.rows, Rows::Map | Rows::Filter)
            && let Some(port) = self.ins.iter().find(|port| port.many)
        {
            return Err(format!(
                "input `{}`: a {} takes one stream; `many` is for reduces and sinks",
                port.name,
                self.rows.name()
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
        Ok(())
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, json};

    /// With every text that a manifest may have.
    fn full() -> Value {
        let port = |doc: &str| json!({ "name": "tiles", "kind": "pixels", "shape": ["height", "width", 3], "mpp": "mpp", "doc": doc });
        json!({
            "weir-abi": "1.0", "name": "probe", "version": "0.3.1", "summary": "For tests", "licence": "Apache-2.0",
            "stages": [{
                "id": "probe.same", "summary": "Hands on", "doc": "Long", "rows": "filter", "example": "[stage.same]", "memory": "room",
                "in": [port("In")], "out": [port("Out")],
                "params": [
                    { "name": "way", "type": "choice", "values": ["mean", "max"], "default": "max", "doc": "How" },
                    { "name": "words", "type": "strings", "default": ["a", "b"], "doc": "Words" },
                    { "name": "room", "type": "bytes", "required": true, "doc": "Room, bytes" },
                    { "name": "files", "type": "slides", "required": true, "extensions": ["h5"], "doc": "Files" },
                ],
            }],
            "readers": [{
                "id": "reader", "summary": "Reads", "extensions": ["svs"], "cache": { "bytes": 1, "variable": "ROOM" },
            }],
        })
    }

    /// JSON pointers of all texts.
    fn texts(of: &Value, at: String, found: &mut Vec<String>) {
        match of {
            Value::String(_) => found.push(at),
            Value::Array(all) => all
                .iter()
                .enumerate()
                .for_each(|(n, of)| texts(of, format!("{at}/{n}"), found)),
            Value::Object(all) => all
                .iter()
                .for_each(|(key, of)| texts(of, format!("{at}/{key}"), found)),
            _ => {}
        }
    }

    fn with(at: &str, more: &str) -> Result<Manifest, String> {
        let mut all = full();
        let text = all.pointer_mut(at).unwrap();
        *text = format!("{}{more}", text.as_str().unwrap()).into();
        Manifest::parse(all.to_string().as_bytes()).map_err(|refusal| refusal.what)
    }

    #[test]
    fn a_map_or_filter_takes_one_stream() {
        let said = |rows: &str, ins: Value, outs: Value| {
            let stage =
                json!({ "id": "probe.it", "summary": "Is", "rows": rows, "in": ins, "out": outs });
            let manifest = json!({
                "weir-abi": "1.0", "name": "probe", "version": "1.0.0", "summary": "Is", "stages": [stage],
            });
            let read = Manifest::parse(manifest.to_string().as_bytes());
            read.map_or_else(|refusal| refusal.what, |_| String::new())
        };
        let table = |name: &str| json!({ "name": name, "kind": "table" });
        let several = json!({ "name": "in", "kind": "table", "many": true });
        for (rows, taken) in [("map", false), ("filter", false), ("reduce", true)] {
            assert_eq!(said(rows, json!([table("in")]), json!([table("out")])), "");
            let many = said(rows, json!([several]), json!([table("out")]));
            let what = format!("input `in`: a {rows} takes one stream");
            assert_eq!(many.contains(&what), !taken, "{many}");
            let two = said(
                rows,
                json!([table("in"), table("too")]),
                json!([table("out")]),
            );
            assert_eq!(two.contains("this has 2 inputs"), !taken, "{two}");
        }
    }

    #[test]
    fn all_that_is_wrong_in_stages_parameters_ports_and_readers_is_told_at_once() {
        let mut all = full();
        for (at, wrong) in [
            ("/stages/0/memory", json!("rooom")),
            ("/stages/0/params/0/default", json!("least")),
            ("/stages/0/params/1/name", json!("use")),
            ("/stages/0/in/0/name", json!("Tiles")),
            ("/stages/0/out/0/shape", json!(["height"])),
            ("/readers/0/id", json!("Reader")),
        ] {
            *all.pointer_mut(at).unwrap() = wrong;
        }
        let other = json!({ "id": "other.it", "summary": "Ends", "rows": "sink" });
        all["stages"].as_array_mut().unwrap().push(other);
        let refusal = Manifest::parse(all.to_string().as_bytes()).unwrap_err();
        let told = refusal
            .what
            .strip_prefix("its manifest is invalid: ")
            .unwrap();
        let told: Vec<&str> = told.split("; also ").collect();
        let begins = [
            "stage `probe.same`: `memory` names `rooom`",
            "stage `probe.same`: parameter `way`: its default",
            "stage `probe.same`: parameter `use`: that key is weir's own",
            "stage `probe.same`: port `Tiles`: its name",
            "stage `probe.same`: port `tiles`: rows of pixels have the shape",
            "stage `other.it`: its id is not `probe.`",
            "the reader's id \"Reader\"",
        ];
        assert_eq!(told.len(), begins.len(), "{told:#?}");
        for (told, begin) in told.iter().zip(begins) {
            assert!(told.starts_with(begin), "{told}");
        }
        // Of ever so many there is an end.
        let stage = all["stages"][1].clone();
        all["stages"] = (0..1000)
            .map(|n| {
                let mut stage = stage.clone();
                stage["id"] = format!("other.s{n}").into();
                stage
            })
            .collect();
        let what = Manifest::parse(all.to_string().as_bytes())
            .unwrap_err()
            .what;
        assert!(
            what.ends_with("; and 989 more") && what.len() < 2000,
            "{what}"
        );
    }

    #[test]
    fn what_a_parser_says_of_a_manifest_is_one_line() {
        for (from, to) in [
            ("\"rows\"", "\"ro\\nerror: forged\""),
            ("\"filter\"", "\"fil\\nerror: forged\\u202e\""),
            ("\"0.3.1\"", "\"0.3.1\\nerror: forged\""),
        ] {
            let text = full().to_string().replacen(from, to, 1);
            let refusal = Manifest::parse(text.as_bytes()).unwrap_err();
            assert!(!refusal.what.contains(acts), "{:?}", refusal.what);
        }
    }

    #[test]
    fn every_text_of_a_manifest_is_shown_as_it_is_and_only_long_ones_have_lines() {
        let mut all = Vec::new();
        texts(&full(), String::new(), &mut all);
        assert!(all.len() > 30, "{all:?}");
        for at in &all {
            with(at, "").unwrap();
            for sly in [
                "\u{1b}[2K",
                "\r",
                "\u{7f}",
                "\u{9b}",
                "\u{61c}",
                "\u{200e}",
                "\u{200f}",
                "\u{202a}",
                "\u{202e}",
                "\u{2066}",
                "\u{2069}",
                "\u{2028}",
            ] {
                let what = with(at, sly).unwrap_err();
                assert!(!what.contains(sly), "{at}: {what:?}");
            }
        }
        for lines in ["\nerror: [E0508] all is well", "\t", "\n"] {
            let taken = |at: &&String| with(at, lines).is_ok();
            let taken: Vec<&str> = all.iter().filter(taken).map(String::as_str).collect();
            assert_eq!(
                taken,
                [
                    "/stages/0/doc",
                    "/stages/0/example",
                    "/stages/0/params/0/doc",
                    "/stages/0/params/1/default/0",
                    "/stages/0/params/1/default/1",
                    "/stages/0/params/1/doc",
                    "/stages/0/params/2/doc",
                    "/stages/0/params/3/doc",
                ]
            );
        }
    }
}
