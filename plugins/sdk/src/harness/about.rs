//! What a manifest says of a stage, as far as running it needs it. weir itself checks far more.

use crate::error::{Error, Result};
use serde_json::Value as Json;

/// A stage's part of the manifest.
#[derive(Clone, Debug)]
pub(super) struct About {
    pub id: String,
    pub rows: String,
    pub params: Vec<Json>,
    pub ins: Vec<Port>,
    pub outs: Vec<Port>,
}

/// A port.
#[derive(Clone, Debug)]
pub(super) struct Port {
    pub name: String,
    pub kind: String,
    pub shape: Vec<Dim>,
}

/// A dimension.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Dim {
    Fixed(i64),
    /// The value of this parameter.
    Param(String),
    /// The same for every port of the stage.
    Same(String),
}

impl About {
    pub fn of(stage: &Json) -> Result<About> {
        let text = |key: &str| stage[key].as_str().unwrap_or_default().to_owned();
        Ok(About {
            id: text("id"),
            rows: text("rows"),
            params: stage["params"].as_array().cloned().unwrap_or_default(),
            ins: ports(&stage["in"])?,
            outs: ports(&stage["out"])?,
        })
    }

    pub fn input(&self, name: &str) -> Result<u32> {
        position(&self.ins, name, "input")
    }

    pub fn output(&self, name: &str) -> Result<u32> {
        position(&self.outs, name, "output")
    }
}

fn position(ports: &[Port], name: &str, what: &str) -> Result<u32> {
    match ports.iter().position(|port| port.name == name) {
        Some(place) => Ok(place as u32),
        None => Err(Error::new(format!("the stage has no {what} `{name}`"))),
    }
}

fn ports(list: &Json) -> Result<Vec<Port>> {
    let none = Vec::new();
    let list = list.as_array().unwrap_or(&none);
    list.iter()
        .map(|port| {
            let shape = port["shape"].as_array().cloned().unwrap_or_default();
            Ok(Port {
                name: port["name"].as_str().unwrap_or_default().to_owned(),
                kind: port["kind"].as_str().unwrap_or_default().to_owned(),
                shape: shape.iter().map(dim).collect::<Result<_>>()?,
            })
        })
        .collect()
}

fn dim(dim: &Json) -> Result<Dim> {
    if let Some(number) = dim.as_f64() {
        return Ok(Dim::Fixed(number as i64));
    }
    match dim.as_str() {
        Some(name) => Ok(match name.strip_prefix('$') {
            Some(param) => Dim::Param(param.into()),
            None => Dim::Same(name.into()),
        }),
        None => Err(Error::new(format!("{dim} is no dimension"))),
    }
}
