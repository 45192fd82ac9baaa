//! A stage's checked parameters as a plugin gets them.

use crate::isolate::wire::{Garbage, Reader, Writer};
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

    /// As bytes for another process.
    pub fn write(&self, out: &mut Writer) {
        // SAFETY: texts and lists are this one's own and live as long as it does.
        out.list(&self.values, |out, value| unsafe { write(out, value) });
    }

    /// As another process has them.
    pub fn read(from: &mut Reader) -> Result<Parameters, Garbage> {
        let (mut texts, mut lists) = (Vec::new(), Vec::new());
        let values = from.list(LEAST, |from| {
            let (value, n) = one(from, &mut texts)?;
            let items = (0..n).map(|_| Ok(one(from, &mut texts)?.0));
            let items: Box<[Value]> = items.collect::<Result<_, Garbage>>()?;
            let list = Value {
                n: items.len() as u32,
                items: items.as_ptr(),
                ..value
            };
            lists.push(items);
            Ok(list)
        })?;
        Ok(Parameters {
            values,
            _texts: texts,
            _lists: lists,
        })
    }

    pub fn as_slice(&self) -> &[Value] {
        &self.values
    }
}

/// Bytes of the shortest value.
const LEAST: usize = 4 + 8 + 8 + 8 + 4;

/// # Safety
/// The value's text and items are readable.
unsafe fn write(out: &mut Writer, value: &Value) {
    out.u32(value.kind);
    out.i64(value.i);
    out.f64(value.f);
    // SAFETY: the caller's.
    out.bytes(unsafe { value.s.bytes() });
    out.u32(value.n);
    for at in 0..value.n as usize {
        // SAFETY: the caller's; there are `n` items.
        unsafe { write(out, &*value.items.add(at)) }
    }
}

/// A value without its items, and how many follow.
fn one(from: &mut Reader, texts: &mut Vec<Box<str>>) -> Result<(Value, u32), Garbage> {
    let (kind, i, f) = (from.u32()?, from.i64()?, from.f64()?);
    let own: Box<str> = from.text()?.into();
    let s = Str::new(&own);
    texts.push(own);
    let value = Value {
        kind,
        i,
        f,
        s,
        ..Value::UNSET
    };
    Ok((value, from.u32()?))
}
