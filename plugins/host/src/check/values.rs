//! Parameters of a stage under test.

use super::stand::Given;
use crate::manifest::{Param, ParamKind, Stage};
use rand::{Rng, RngExt};
use rand_chacha::ChaCha8Rng;
use std::path::Path;
use std::time::Duration;
use weir_pipeline::{Rows, Value, Values};

/// The defaults, with what was set as `STAGE.NAME=VALUE`; of parameters that must be given and were not, their names. A source's
/// slides are the one that was given where nothing else is set.
pub(super) fn of(stage: &Stage, given: &Given) -> Result<(Values, Vec<String>), String> {
    let mut values = Values::default();
    let mut missing = Vec::new();
    for param in &stage.params {
        let key = format!("{}.{}=", stage.id, param.name);
        let mut set = given.set.iter();
        let set = set.find_map(|text| text.strip_prefix(&key));
        let value = match (set, &param.default) {
            (Some(set), _) => Some(placed(parsed(param, set)?, given.from)),
            (None, Some(default)) => Some(placed(of_json(param, default)?, given.folder)),
            (None, None) => (given.slide).and_then(|slide| read_from(stage, param, slide)),
        };
        match value {
            Some(value) => {
                values.0.insert(param.name.clone(), value);
            }
            None if param.required => missing.push(param.name.clone()),
            None => {}
        }
    }
    Ok((values, missing))
}

/// Whether a stage asks for slides, or a file that may be one, in this parameter.
pub(super) fn asks_for_slide(stage: &Stage, name: &str) -> bool {
    let mut params = stage.params.iter();
    let param = params.find(|param| param.name == name && param.required);
    let kind = param.map(|param| param.kind);
    stage.rows == Rows::Source && matches!(kind, Some(ParamKind::Slides | ParamKind::Path))
}

/// A slide as what a source asks for.
fn read_from(stage: &Stage, param: &Param, slide: &Path) -> Option<Value> {
    let asks = asks_for_slide(stage, &param.name);
    match param.kind {
        ParamKind::Slides if asks => Some(Value::Texts(vec![slide.to_str()?.to_owned()])),
        ParamKind::Path if asks => Some(Value::Path(slide.to_owned())),
        _ => None,
    }
}

/// A path as one from this folder; an empty one is none.
fn placed(value: Value, folder: &Path) -> Value {
    match value {
        Value::Path(path) if !path.as_os_str().is_empty() => Value::Path(folder.join(path)),
        value => value,
    }
}

fn parsed(param: &Param, given: &str) -> Result<Value, String> {
    let json = match param.kind {
        ParamKind::Int | ParamKind::Float | ParamKind::Bool | ParamKind::Strings => {
            serde_json::from_str(given).map_err(|error| format!("{}: {error}", param.name))?
        }
        ParamKind::Slides => serde_json::json!([given]),
        _ => serde_json::Value::from(given),
    };
    of_json(param, &json)
}

fn of_json(param: &Param, json: &serde_json::Value) -> Result<Value, String> {
    let wrong = || format!("`{}` cannot be {json}", param.name);
    let texts = || {
        let all = json.as_array().ok_or_else(wrong)?.iter();
        all.map(|item| item.as_str().map(str::to_owned).ok_or_else(wrong))
            .collect::<Result<Vec<String>, String>>()
    };
    Ok(match param.kind {
        ParamKind::Int => Value::Integer(json.as_i64().ok_or_else(wrong)?),
        ParamKind::Float => Value::Float(json.as_f64().ok_or_else(wrong)?),
        ParamKind::Bool => Value::Boolean(json.as_bool().ok_or_else(wrong)?),
        ParamKind::String | ParamKind::Choice => {
            Value::Text(json.as_str().ok_or_else(wrong)?.into())
        }
        ParamKind::Path => Value::Path(json.as_str().ok_or_else(wrong)?.into()),
        ParamKind::Bytes => {
            let given = json.as_u64();
            let shown = json.as_str().and_then(weir_pipeline::units::bytes);
            Value::Bytes(given.or(shown).ok_or_else(wrong)?)
        }
        ParamKind::Duration => {
            let shown = json.as_str().and_then(weir_pipeline::units::duration);
            Value::Duration(shown.ok_or_else(wrong)?)
        }
        ParamKind::Slides | ParamKind::Strings => Value::Texts(texts()?),
    })
}

/// A value that the manifest allows; `None` for what only its author could make up, as a path.
pub(super) fn random(param: &Param, random: &mut ChaCha8Rng) -> Option<Value> {
    Some(match param.kind {
        ParamKind::Bool => Value::Boolean(random.random()),
        ParamKind::Int => {
            let (min, max) = whole_range(param)?;
            Value::Integer(random.random_range(min..=max))
        }
        ParamKind::Float => {
            let (min, max) = (param.min?, param.max?);
            Value::Float(random.random_range(min..=max))
        }
        ParamKind::Choice => {
            let at = random.random_range(0..param.values.len().max(1));
            Value::Text(param.values.get(at)?.clone())
        }
        ParamKind::String
        | ParamKind::Path
        | ParamKind::Slides
        | ParamKind::Strings
        | ParamKind::Bytes
        | ParamKind::Duration => return None,
    })
}

/// The ends of what the manifest allows.
pub(super) fn edges(param: &Param) -> Vec<Value> {
    match param.kind {
        ParamKind::Bool => vec![Value::Boolean(false), Value::Boolean(true)],
        ParamKind::Int => whole_range(param)
            .map(|(min, max)| vec![Value::Integer(min), Value::Integer(max)])
            .unwrap_or_default(),
        ParamKind::Float => [param.min, param.max]
            .into_iter()
            .flatten()
            .map(Value::Float)
            .collect(),
        ParamKind::Choice => param.values.iter().cloned().map(Value::Text).collect(),
        ParamKind::Duration => vec![Value::Duration(Duration::ZERO)],
        _ => Vec::new(),
    }
}

/// Values of which a stage may well say that they are of no use to it; none that asks for memory.
pub(super) fn odd(param: &Param, folder: &Path) -> Vec<Value> {
    let missing = folder.join("missing").join("file");
    match param.kind {
        ParamKind::String => ["", "\u{1f52c}", "%s%n", "a\nb"]
            .map(|text| Value::Text(text.into()))
            .into(),
        // One that must exist was looked for by whoever checked the pipeline.
        ParamKind::Path if param.exists => vec![Value::Path(folder.to_owned())],
        ParamKind::Path => vec![Value::Path(folder.to_owned()), Value::Path(missing)],
        ParamKind::Slides => vec![Value::Texts(vec![missing.display().to_string()])],
        ParamKind::Strings => vec![
            Value::Texts(Vec::new()),
            Value::Texts(vec![String::new()]),
            Value::Texts(vec!["a".into(), "a".into()]),
        ],
        _ => edges(param),
    }
}

/// A range in which a size may be tried: a parameter without an end is nobody's to fill memory with.
fn whole_range(param: &Param) -> Option<(i64, i64)> {
    let (min, max) = (param.min?, param.max?);
    Some((min.ceil() as i64, max.floor() as i64)).filter(|(min, max)| min <= max)
}

/// A generator by its seed.
pub(super) fn by_seed(seed: u64) -> ChaCha8Rng {
    rand::SeedableRng::seed_from_u64(seed)
}

/// Bytes of noise.
pub(super) fn noise(random: &mut ChaCha8Rng, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    random.fill_bytes(&mut bytes);
    bytes
}
