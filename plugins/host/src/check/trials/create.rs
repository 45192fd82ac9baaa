//! Tests of how a stage is made, and of what it says when it cannot be.

use super::memory::Memory;
use super::{No, Said, rows, source, wordless};
use crate::check::stand::Stand;
use crate::check::values;
use weir_pipeline::{Rows, Values};
use weir_runtime::stage::StageError;

pub(super) fn params_defaults(stand: &Stand) -> Said {
    stand.ready()?;
    Ok(match stand.values.0.len() {
        0 => "it has none".into(),
        _ => shown(&stand.values),
    })
}

pub(super) fn create_destroy(stand: &Stand) -> Said {
    let mut warm = Memory::default();
    for i in 0..100 {
        drop(stand.ready()?);
        if i == 20 {
            warm = Memory::now();
        }
    }
    warm.steady(79)
}

fn shown(values: &Values) -> String {
    let all: Vec<String> = values
        .0
        .iter()
        .map(|(name, value)| format!("{name} = {}", value.to_toml()))
        .collect();
    all.join(", ")
}

/// That a refusal says why, and of which parameter where it names one.
fn reasoned(stand: &Stand, values: &Values, error: &StageError) -> Result<(), No> {
    let failed = |what: String| No::Failed(format!("with {}: {what}", shown(values)));
    if wordless(&error.what) {
        return Err(failed("it fails and does not say why".into()));
    }
    match &error.param {
        Some(param) if !stand.about.params.iter().any(|known| known.name == *param) => Err(failed(
            format!("it blames the parameter `{param}`, which it does not have"),
        )),
        _ => Ok(()),
    }
}

/// What `create` may say of parameters that the manifest allows: yes, or no with a reason and the parameter.
fn allowed(stand: &Stand, values: &Values) -> Result<bool, No> {
    let Err(error) = stand.with(values, 1) else {
        return Ok(true);
    };
    reasoned(stand, values, &error)?;
    match error.param {
        Some(_) => Ok(false),
        None => Err(No::Failed(format!(
            "with {}: {}, and it does not say which parameter is at fault",
            shown(values),
            error.what
        ))),
    }
}

pub(super) fn params_edge(stand: &Stand) -> Said {
    let mut tried = 0;
    for param in &stand.about.params {
        for value in values::edges(param) {
            let mut values = stand.values.clone();
            values.0.insert(param.name.clone(), value);
            allowed(stand, &values)?;
            tried += 1;
        }
    }
    match tried {
        0 => Err(No::Skipped("no parameter has ends".into())),
        n => Ok(format!("{n} ends")),
    }
}

pub(super) fn params_fuzz(stand: &Stand) -> Said {
    let mut random = values::by_seed(stand.seed);
    let mut taken = 0;
    for _ in 0..50 {
        let mut values = stand.values.clone();
        for param in &stand.about.params {
            if let Some(value) = values::random(param, &mut random) {
                values.0.insert(param.name.clone(), value);
            }
        }
        taken += usize::from(allowed(stand, &values)?);
    }
    Ok(format!("{taken} of 50 taken"))
}

pub(super) fn error_has_message(stand: &Stand) -> Said {
    let mut failures = 0;
    for param in &stand.about.params {
        for value in values::odd(param, &stand.folder) {
            let mut values = stand.values.clone();
            values.0.insert(param.name.clone(), value);
            if let Err(error) = stand.with(&values, 1) {
                reasoned(stand, &values, &error)?;
                failures += 1;
            }
        }
    }
    failures += match stand.about.rows {
        Rows::Source => source::failures(stand)?,
        _ => rows::failures(stand)?,
    };
    match failures {
        0 => Err(No::Skipped("nothing that was tried made it fail".into())),
        n => Ok(format!("{n} failures, each with its reason")),
    }
}
