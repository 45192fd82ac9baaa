//! A stage's checked parameters as a plugin gets them.

use crate::manifest::{ParamKind, Stage};
use weir_abi::Str;
use weir_abi::value::{self, Value};
use weir_pipeline::Values;

/// The values in the manifest's order, and the memory that they point into.
#[derive(Debug)]
pub(crate) struct Parameters {
    values: Vec<Value>,
    _texts: Vec<Box<str>>,
    _lists: Vec<Box<[Value]>>,
}

// SAFETY: nothing changes what the pointers lead to.
unsafe impl Send for Parameters {}
// SAFETY: as above.
unsafe impl Sync for Parameters {}

impl Parameters {
    pub fn new(stage: &Stage, values: &Values) -> Parameters {
        let (mut texts, mut lists) = (Vec::new(), Vec::new());
        let mut text = |text: &str| {
            let own: Box<str> = text.into();
            let string = Str::new(&own);
            texts.push(own);
            string
        };
        let values = stage
            .params
            .iter()
            .map(|param| {
                use weir_pipeline::Value as Checked;
                let unset = Value::UNSET;
                let int = |i| Value {
                    kind: value::INT,
                    i,
                    ..unset
                };
                match values.0.get(&param.name) {
                    None => unset,
                    Some(Checked::Boolean(b)) => Value {
                        kind: value::BOOL,
                        i: i64::from(*b),
                        ..unset
                    },
                    Some(Checked::Integer(i)) if param.kind == ParamKind::Float => Value {
                        kind: value::FLOAT,
                        f: *i as f64,
                        ..unset
                    },
                    Some(Checked::Integer(i)) => int(*i),
                    Some(Checked::Float(f)) => Value {
                        kind: value::FLOAT,
                        f: *f,
                        ..unset
                    },
                    Some(Checked::Bytes(bytes)) => int(i64::try_from(*bytes).unwrap_or(i64::MAX)),
                    Some(Checked::Duration(time)) => {
                        int(i64::try_from(time.as_nanos()).unwrap_or(i64::MAX))
                    }
                    Some(Checked::Text(chosen)) if param.kind == ParamKind::Choice => {
                        let place = param.values.iter().position(|value| value == chosen);
                        Value {
                            s: text(chosen),
                            ..int(place.map_or(-1, |place| place as i64))
                        }
                    }
                    Some(Checked::Text(own)) => Value {
                        kind: value::STRING,
                        s: text(own),
                        ..unset
                    },
                    Some(Checked::Path(path)) => {
                        let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
                        Value {
                            kind: value::STRING,
                            s: text(&path.to_string_lossy()),
                            ..unset
                        }
                    }
                    Some(Checked::Texts(all)) => {
                        let items: Box<[Value]> = all
                            .iter()
                            .map(|item| Value {
                                kind: value::STRING,
                                s: text(item),
                                ..unset
                            })
                            .collect();
                        let list = Value {
                            kind: value::LIST,
                            n: items.len() as u32,
                            items: items.as_ptr(),
                            ..unset
                        };
                        lists.push(items);
                        list
                    }
                }
            })
            .collect();
        Parameters {
            values,
            _texts: texts,
            _lists: lists,
        }
    }

    pub fn as_slice(&self) -> &[Value] {
        &self.values
    }
}
