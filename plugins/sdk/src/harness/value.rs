//! Parameters as the host hands them over.

use super::about::About;
use crate::abi;
use crate::abi::value::{BOOL, FLOAT, INT, LIST, STRING, UNSET};
use crate::error::{Error, Result};
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::path::Path;

/// Values, and what they point to.
pub(super) struct Given {
    pub values: Vec<abi::value::Value>,
    _texts: Vec<Box<str>>,
    _lists: Vec<Vec<abi::value::Value>>,
}

impl Given {
    /// One value a parameter, in the manifest's order; what was not given is its default.
    pub fn new(about: &About, given: &BTreeMap<String, Json>) -> Result<Given> {
        for name in given.keys() {
            if !about.params.iter().any(|param| param["name"] == **name) {
                return Err(Error::param(name, "the stage has no such parameter"));
            }
        }
        let mut all = Given {
            values: Vec::new(),
            _texts: Vec::new(),
            _lists: Vec::new(),
        };
        for param in &about.params {
            let name = param["name"].as_str().unwrap_or_default();
            let value = given.get(name).or_else(|| param.get("default"));
            let value = match value {
                Some(value) => all
                    .value(param, value)
                    .map_err(|what| Error::param(name, what))?,
                None if param["required"] == true => {
                    return Err(Error::param(name, "it is required"));
                }
                None => abi::value::Value::UNSET,
            };
            all.values.push(value);
        }
        Ok(all)
    }

    fn text(&mut self, text: &str) -> abi::Str {
        self._texts.push(text.into());
        self._texts
            .last()
            .map_or(abi::Str::EMPTY, |it| abi::Str::new(it))
    }

    fn string(&mut self, text: &str) -> abi::value::Value {
        let mut value = abi::value::Value::UNSET;
        value.kind = STRING;
        value.s = self.text(text);
        value
    }

    fn list(&mut self, list: Vec<abi::value::Value>) -> (u32, *const abi::value::Value) {
        let of = (list.len() as u32, list.as_ptr());
        self._lists.push(list);
        of
    }

    /// A slide's file with what a manifest says of it, as the host hands it over: `path`, and `id`, `patient`, `label`, `split`,
    /// `mpp` where they are said.
    fn slide(
        &mut self,
        said: &serde_json::Map<String, Json>,
    ) -> std::result::Result<abi::value::Value, String> {
        const KEYS: [&str; 4] = ["id", "patient", "label", "split"];
        if let Some(other) = said
            .keys()
            .find(|key| !KEYS.contains(&key.as_str()) && !matches!(key.as_str(), "path" | "mpp"))
        {
            return Err(format!("a slide has no `{other}`"));
        }
        let text = |key: &str| said.get(key).and_then(Json::as_str);
        let path = text("path").ok_or("a slide has no `path`")?;
        let items = KEYS.map(|key| self.string(text(key).unwrap_or_default()));
        let mut value = self.string(path);
        value.f = said.get("mpp").and_then(Json::as_f64).unwrap_or(0.0);
        (value.n, value.items) = self.list(items.to_vec());
        Ok(value)
    }

    fn value(
        &mut self,
        param: &Json,
        value: &Json,
    ) -> std::result::Result<abi::value::Value, String> {
        let mut out = abi::value::Value::UNSET;
        let kind = param["type"].as_str().unwrap_or_default();
        let text = || value.as_str().ok_or_else(|| format!("{value} is no text"));
        match kind {
            "bool" => {
                out.kind = BOOL;
                out.i = i64::from(
                    value
                        .as_bool()
                        .ok_or_else(|| format!("{value} is no bool"))?,
                );
            }
            "int" => {
                out.kind = INT;
                out.i = value
                    .as_i64()
                    .ok_or_else(|| format!("{value} is no whole number"))?;
                within(param, out.i as f64)?;
            }
            "float" => {
                out.kind = FLOAT;
                out.f = value
                    .as_f64()
                    .ok_or_else(|| format!("{value} is no number"))?;
                within(param, out.f)?;
            }
            "bytes" | "duration" => {
                out.kind = INT;
                out.i = match value.as_i64() {
                    Some(number) => number,
                    None => with_unit(text()?, kind)?,
                };
            }
            "choice" => {
                let values = param["values"].as_array().cloned().unwrap_or_default();
                let place = values.iter().position(|it| it == value);
                out.kind = INT;
                out.i = place.ok_or_else(|| format!("{value} is none of its values"))? as i64;
                out.s = self.text(text()?);
            }
            "string" => {
                out.kind = STRING;
                out.s = self.text(text()?);
            }
            "path" => {
                let path = std::path::absolute(Path::new(text()?)).map_err(|it| it.to_string())?;
                if param["exists"] == true && !path.exists() {
                    return Err(format!("{} is not there", path.display()));
                }
                out.kind = STRING;
                out.s = self.text(path.to_str().ok_or("the path is no UTF-8")?);
            }
            "strings" | "slides" => {
                let items = match value {
                    Json::Array(items) => items.clone(),
                    one => vec![one.clone()],
                };
                let mut list = Vec::new();
                for item in &items {
                    list.push(match (kind, item) {
                        ("slides", Json::Object(said)) => self.slide(said)?,
                        _ => {
                            self.string(item.as_str().ok_or_else(|| format!("{item} is no text"))?)
                        }
                    });
                }
                out.kind = LIST;
                (out.n, out.items) = self.list(list);
            }
            other => return Err(format!("the manifest has an unknown type `{other}`")),
        }
        debug_assert_ne!(out.kind, UNSET);
        Ok(out)
    }
}

fn within(param: &Json, number: f64) -> std::result::Result<(), String> {
    let bound = |key: &str| param[key].as_f64();
    match (bound("min"), bound("max")) {
        (Some(min), _) if number < min => Err(format!("{number} is less than {min}")),
        (_, Some(max)) if number > max => Err(format!("{number} is greater than {max}")),
        _ => Ok(()),
    }
}

/// `64MiB` in bytes, `20ms` in nanoseconds.
fn with_unit(text: &str, kind: &str) -> std::result::Result<i64, String> {
    const UNITS: &[(&str, &str, i64)] = &[
        ("bytes", "B", 1),
        ("bytes", "KiB", 1 << 10),
        ("bytes", "MiB", 1 << 20),
        ("bytes", "GiB", 1 << 30),
        ("bytes", "TiB", 1 << 40),
        ("duration", "ns", 1),
        ("duration", "us", 1_000),
        ("duration", "ms", 1_000_000),
        ("duration", "s", 1_000_000_000),
        ("duration", "min", 60_000_000_000),
        ("duration", "h", 3_600_000_000_000),
    ];
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = (&text[..end], text[end..].trim());
    let known = UNITS
        .iter()
        .find(|(of, name, _)| *of == kind && *name == unit);
    match (number.parse::<f64>(), known) {
        (Ok(number), Some((_, _, factor))) => Ok((number * *factor as f64) as i64),
        _ => Err(format!("{text:?} is not of the form 64MiB or 20ms")),
    }
}
