//! Tests of the file as a whole.

use super::{No, Said};
use crate::Refusal;
use crate::admit::{Admitted, Ask, Policy};
use crate::describe::Described;
use crate::load::{Loaded, enter, linked};
use crate::offer::HOST;
use crate::tables::{self, Fault};
use crate::who::Who;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use weir_abi::plugin::{Entry, Plugin};

fn refused(refusal: Refusal) -> No {
    No::Failed(refusal.to_string())
}

/// The file, admitted as one that a pipeline names without any condition.
pub(in crate::check) fn admitted(file: &Path) -> Result<Admitted, Refusal> {
    let described = Described::read(file)?;
    let ask = Ask {
        name: described.manifest().name.clone(),
        ..Ask::default()
    };
    Admitted::new(described, &ask, Policy::Any)
}

/// Whose calls of this file are.
pub(in crate::check) fn who(admitted: &Admitted) -> Arc<Who> {
    let manifest = admitted.manifest();
    Arc::new(Who::plugin(&manifest.name, &manifest.version))
}

pub(super) fn manifest_valid(file: &Path) -> Said {
    let described = Described::read(file).map_err(refused)?;
    let manifest = described.manifest();
    Ok(format!("{} {}", manifest.name, manifest.version))
}

pub(super) fn scan_time(file: &Path) -> Said {
    const LIMIT: Duration = Duration::from_millis(100);
    // The best of a few: the first reads from the disk.
    let mut best = Duration::MAX;
    for _ in 0..3 {
        let start = Instant::now();
        Described::read(file).map_err(refused)?;
        best = best.min(start.elapsed());
    }
    let took = format!("{:.1} ms", best.as_secs_f64() * 1e3);
    match best < LIMIT {
        true => Ok(took),
        false => Err(No::Failed(format!(
            "its description took {took} to read, and may take {LIMIT:?}: make the file smaller"
        ))),
    }
}

/// A symbol that nobody has would end a run at the call that needs it first, if it were looked for only then.
pub(super) fn rtld_now(file: &Path) -> Said {
    let admitted = admitted(file).map_err(refused)?;
    let library = linked(admitted.file().sealed()).map_err(refused)?;
    std::mem::forget(library);
    Ok(String::new())
}

pub(super) fn loads(file: &Path) -> Said {
    let start = Instant::now();
    let admitted = admitted(file).map_err(refused)?;
    Loaded::new(&admitted).map_err(refused)?;
    Ok(format!("{:.1} ms", start.elapsed().as_secs_f64() * 1e3))
}

/// What a plugin gives, as text: which functions stand under which ids.
fn functions(out: *const Plugin) -> Result<String, Fault> {
    // SAFETY: what a plugin's entry gave lives as long as the process and has what its size says.
    let (plugin, mut stages, mut readers) = unsafe {
        let plugin = tables::plugin(out)?;
        (plugin, tables::stages(&plugin)?, tables::readers(&plugin)?)
    };
    // The texts may stand anywhere.
    stages
        .values_mut()
        .for_each(|stage| stage.id = std::ptr::null());
    readers
        .values_mut()
        .for_each(|reader| reader.id = std::ptr::null());
    Ok(format!("{stages:?} {readers:?} {:?}", plugin.extension))
}

pub(super) fn entry_twice(file: &Path) -> Said {
    let admitted = admitted(file).map_err(refused)?;
    let call = |entry: Entry| {
        // SAFETY: host and call live through the call, and `out` is a place for a pointer.
        enter(who(&admitted), |call, out| unsafe {
            entry(&HOST, call, out)
        })
    };
    let mut both = None;
    Loaded::entered(&admitted, |entry| {
        let first = call(entry)?;
        both = Some((first, call(entry)));
        Ok(first)
    })
    .map_err(refused)?;
    match both {
        Some((first, Ok(second))) => {
            let same = first == second
                || matches!((functions(first), functions(second)), (Ok(a), Ok(b)) if a == b);
            match same {
                true => Ok("the same table".into()),
                false => Err(No::Failed(
                    "weir_plugin_v1 gave another table when it was called again: give the same, or refuse".into(),
                )),
            }
        }
        Some((_, Err(said))) => Ok(format!("refused: {}", said.what)),
        None => Err(No::Failed("weir_plugin_v1 was not called".into())),
    }
}

pub(super) fn unknown_extension(file: &Path) -> Said {
    let admitted = admitted(file).map_err(refused)?;
    let loaded = Loaded::new(&admitted).map_err(refused)?;
    for id in [c"weir.nonsense/1", c"", c"weir.describe/999999"] {
        match loaded.extension(id) {
            None => return Err(No::Skipped("it has no extensions".into())),
            Some(found) if found.is_null() => {}
            Some(_) => {
                return Err(No::Failed(format!(
                    "it has something under the name {id:?}: what it does not know must be NULL, or the host calls what is not there"
                )));
            }
        }
    }
    Ok(String::new())
}
