//! A stage's checked parameters as a plugin gets them.

use crate::manifest::{ParamKind, Stage};
use crate::slides::Found;
use crate::wire::{Garbage, Reader, Writer};
use weir_abi::Str;
use weir_abi::value::{self, Value};
use weir_pipeline::Values;
use weir_slide::SlideEntry;

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
    /// Values of a run; `slides` are the files that its parameters of that type name.
    pub fn new(stage: &Stage, values: &Values, slides: &Found) -> Parameters {
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
                if let Some(entries) = slides.get(&param.name) {
                    let items: Box<[Value]> = entries
                        .iter()
                        .map(|entry| slide(entry, &mut text, &mut lists))
                        .collect();
                    return list(items, &mut lists);
                }
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
                        list(items, &mut lists)
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
        out.list::<VALUE, _>(&self.values, |out, value| unsafe { write(out, value) });
    }

    /// As another process has them.
    pub fn read(from: &mut Reader) -> Result<Parameters, Garbage> {
        let (mut texts, mut lists) = (Vec::new(), Vec::new());
        let values = from.list::<VALUE, _>(|from| one(from, &mut texts, &mut lists, DEEPEST))?;
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

/// Bytes of a value in a list.
const VALUE: usize = size_of::<Value>();

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
        out.item::<VALUE>(|out| unsafe { write(out, &*value.items.add(at)) });
    }
}

/// Lists in lists: slides with what is said of each.
const DEEPEST: usize = 2;

/// A value with its items.
fn one(
    from: &mut Reader,
    texts: &mut Vec<Box<str>>,
    lists: &mut Vec<Box<[Value]>>,
    deeper: usize,
) -> Result<Value, Garbage> {
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
    let items = from.list::<VALUE, _>(|from| match deeper {
        0 => Err(Garbage("a list in a list in a list")),
        _ => one(from, texts, lists, deeper - 1),
    })?;
    if items.is_empty() {
        return Ok(value);
    }
    let items: Box<[Value]> = items.into();
    let whole = Value {
        n: items.len() as u32,
        items: items.as_ptr(),
        ..value
    };
    lists.push(items);
    Ok(whole)
}

/// A list of values, which go to `lists`.
fn list(items: Box<[Value]>, lists: &mut Vec<Box<[Value]>>) -> Value {
    let list = Value {
        kind: value::LIST,
        n: items.len() as u32,
        items: items.as_ptr(),
        ..Value::UNSET
    };
    lists.push(items);
    list
}

/// A slide as an item of a list of slides.
fn slide(
    entry: &SlideEntry,
    text: &mut impl FnMut(&str) -> Str,
    lists: &mut Vec<Box<[Value]>>,
) -> Value {
    let said = |said: &Option<String>| said.clone().unwrap_or_default();
    let texts = [
        entry.id.clone(),
        said(&entry.patient),
        said(&entry.label),
        said(&entry.split),
    ];
    const { assert!(value::SLIDE_ITEMS == 4) };
    let items: Box<[Value]> = texts
        .iter()
        .map(|own| Value {
            kind: value::STRING,
            s: text(own),
            ..Value::UNSET
        })
        .collect();
    Value {
        kind: value::STRING,
        s: text(&entry.path.to_string_lossy()),
        f: entry.mpp.unwrap_or(0.0),
        ..list(items, lists)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::manifest::Manifest;
    use std::collections::BTreeMap;

    const MANIFEST: &str = r#"{ "weir-abi": "1.0", "name": "probe", "version": "0.3.1", "summary": "For tests", "stages": [
      { "id": "probe.read", "summary": "Reads", "rows": "source",
        "out": [ { "name": "features", "kind": "features", "shape": [3] } ],
        "params": [ { "name": "slides", "type": "slides", "required": true, "doc": "Files" },
                    { "name": "words", "type": "strings", "doc": "Words" },
                    { "name": "size", "type": "int", "doc": "A number" } ] } ] }"#;

    /// # Safety
    /// The value is of a [`Parameters`] that lives.
    unsafe fn shown(value: &Value) -> String {
        // SAFETY: the caller's.
        let text = String::from_utf8_lossy(unsafe { value.s.bytes() }).into_owned();
        let items: Vec<String> = (0..value.n as usize)
            // SAFETY: there are `n` items.
            .map(|at| unsafe { shown(&*value.items.add(at)) })
            .collect();
        format!("{} {} {} {text:?} {items:?}", value.kind, value.i, value.f)
    }

    #[test]
    fn slides_with_what_is_said_of_them_reach_another_process_as_they_are() {
        let stage = Manifest::parse(MANIFEST.as_bytes())
            .unwrap()
            .stages
            .remove(0);
        let entry = |id: &str, label: Option<&str>, mpp| SlideEntry {
            id: id.into(),
            path: format!("slides/{id}.h5").into(),
            label: label.map(Into::into),
            split: None,
            patient: None,
            mpp,
        };
        let slides = Found::from([(
            "slides".to_owned(),
            vec![
                entry("a", Some("tumour"), Some(0.5)),
                entry("b", None, None),
            ],
        )]);
        let texts = |all: &[&str]| {
            weir_pipeline::Value::Texts(all.iter().map(|&text| text.to_owned()).collect())
        };
        let values = Values(BTreeMap::from([
            ("slides".to_owned(), texts(&["slides"])),
            ("words".to_owned(), texts(&["x", ""])),
            ("size".to_owned(), weir_pipeline::Value::Integer(7)),
        ]));
        let here = Parameters::new(&stage, &values, &slides);
        let mut out = Writer::default();
        here.write(&mut out);
        let there = Parameters::read(&mut Reader(&out.0)).unwrap();
        let of = |all: &Parameters| -> Vec<String> {
            let values = all.as_slice().iter();
            // SAFETY: both live.
            values.map(|value| unsafe { shown(value) }).collect()
        };
        assert_eq!(of(&here), of(&there));
        let first = &of(&here)[0];
        for part in ["slides/a.h5", "0.5", "tumour", "slides/b.h5"] {
            assert!(first.contains(part), "{part} in {first}");
        }
    }
}
