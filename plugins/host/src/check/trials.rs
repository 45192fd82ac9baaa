//! The tests of `weir plugin check`.

use super::stand::Stand;
use super::values;
use crate::call::CallError;
use crate::describe::Described;
use crate::manifest::Concurrency;
use sha2::{Digest, Sha256};
use std::path::Path;
use std::time::{Duration, Instant};
use weir_abi::stage::DETERMINISTIC;
use weir_abi::status;
use weir_pipeline::Rows;
use weir_record::Body;

/// Why a test did not pass.
pub(super) enum No {
    Failed(String),
    Skipped(String),
}

/// A figure, or nothing to say; or why not.
type Said = Result<String, No>;

/// A test of the file.
pub(super) struct OfFile {
    pub name: &'static str,
    pub run: fn(&Path) -> Said,
}

/// A test of a stage.
pub(super) struct OfStage {
    pub name: &'static str,
    pub run: fn(&Stand) -> Said,
}

/// Tests of a file.
pub(super) const OF_FILE: &[OfFile] = &[
    OfFile {
        name: "manifest-valid",
        run: manifest_valid,
    },
    OfFile {
        name: "scan-time",
        run: scan_time,
    },
    OfFile {
        name: "loads",
        run: loads,
    },
];

/// Tests of each stage.
pub(super) const OF_STAGE: &[OfStage] = &[
    OfStage {
        name: "create-destroy-100",
        run: create_destroy,
    },
    OfStage {
        name: "params-edge",
        run: params_edge,
    },
    OfStage {
        name: "params-fuzz-in-range",
        run: params_fuzz,
    },
    OfStage {
        name: "one-row",
        run: one_row,
    },
    OfStage {
        name: "max-rows",
        run: max_rows,
    },
    OfStage {
        name: "input-untouched",
        run: input_untouched,
    },
    OfStage {
        name: "thread-hop",
        run: thread_hop,
    },
    OfStage {
        name: "parallel-stress",
        run: parallel_stress,
    },
    OfStage {
        name: "determinism",
        run: determinism,
    },
    OfStage {
        name: "10k-batches-steady-memory",
        run: steady_memory,
    },
];

/// Rows of the largest batch that is tried.
const MOST: usize = 256;

fn failed(error: CallError) -> No {
    No::Failed(error.said.what)
}

fn manifest_valid(file: &Path) -> Said {
    let described = Described::read(file).map_err(|refusal| No::Failed(refusal.to_string()))?;
    let manifest = described.manifest();
    Ok(format!("{} {}", manifest.name, manifest.version))
}

fn scan_time(file: &Path) -> Said {
    const LIMIT: Duration = Duration::from_millis(100);
    // The best of a few: the first reads from the disk.
    let mut best = Duration::MAX;
    for _ in 0..3 {
        let start = Instant::now();
        Described::read(file).map_err(|refusal| No::Failed(refusal.to_string()))?;
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

fn loads(file: &Path) -> Said {
    use crate::admit::{Admitted, Ask, Policy};
    let refused = |refusal: crate::Refusal| No::Failed(refusal.to_string());
    let described = Described::read(file).map_err(refused)?;
    let ask = Ask {
        name: described.manifest().name.clone(),
        ..Ask::default()
    };
    let start = Instant::now();
    let admitted = Admitted::new(described, &ask, Policy::Any).map_err(refused)?;
    crate::Loaded::new(&admitted).map_err(refused)?;
    Ok(format!("{:.1} ms", start.elapsed().as_secs_f64() * 1e3))
}

fn create_destroy(stand: &Stand) -> Said {
    let mut warm = 0;
    for i in 0..100 {
        drop(stand.ready()?);
        if i == 20 {
            warm = resident();
        }
    }
    steady(warm, 4 << 20)
}

/// That no more memory is resident than there was, but for `slack`.
fn steady(before: u64, slack: u64) -> Said {
    let grown = resident().saturating_sub(before);
    let said = format!(
        "{:.1} MiB more than at first",
        grown as f64 / f64::from(1 << 20)
    );
    match grown <= slack {
        true => Ok(said),
        false => Err(No::Failed(format!("it keeps memory: {said}"))),
    }
}

/// Bytes of this process that are in memory.
fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok());
    pages.unwrap_or(0) * rustix::param::page_size() as u64
}

/// What `create` may say of parameters that the manifest allows: yes, or no with a reason.
fn allowed(stand: &Stand, values: &weir_pipeline::Values) -> Result<bool, No> {
    match stand.pool(values) {
        Ok(_) => Ok(true),
        Err(error) if error.status == status::PARAM && !error.said.param.is_empty() => Ok(false),
        Err(error) => Err(No::Failed(format!(
            "with {}: {}",
            shown(values),
            match error.status {
                status::PARAM => "it refuses a parameter and does not say which".into(),
                _ => error.said.what,
            }
        ))),
    }
}

fn shown(values: &weir_pipeline::Values) -> String {
    let all: Vec<String> = values
        .0
        .iter()
        .map(|(name, value)| format!("{name} = {}", value.to_toml()))
        .collect();
    all.join(", ")
}

fn params_edge(stand: &Stand) -> Said {
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

fn params_fuzz(stand: &Stand) -> Said {
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

/// That a stage has an input to be tried with.
fn fed(stand: &Stand) -> Result<(), No> {
    match stand.about.rows {
        Rows::Source => Err(No::Skipped("a source has no input".into())),
        _ => Ok(()),
    }
}

fn batch(stand: &Stand, n: usize) -> Said {
    fed(stand)?;
    let pool = stand.ready()?;
    for port in 0..stand.about.ins.len() {
        let told = stand
            .process(&pool, port, stand.rows(port, n))
            .map_err(failed)?;
        if stand.is_work() {
            let outcomes = stand.shown(told).map_err(No::Failed)?;
            if let Some(outcome) = outcomes
                .iter()
                .find(|outcome| outcome.starts_with("failed"))
            {
                return Err(No::Failed(format!("a made-up row {outcome}")));
            }
        }
    }
    Ok(format!("{n} rows"))
}

fn one_row(stand: &Stand) -> Said {
    batch(stand, 1)
}

fn max_rows(stand: &Stand) -> Said {
    batch(stand, MOST)
}

/// A digest of everything that a plugin was shown.
fn digest(rows: &[super::rows::Value]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for (key, body, info) in rows {
        hash.update(format!("{key:?}{info:?}"));
        match body {
            Body::Pixels(tile) => hash.update(tile.pixels()),
            other => hash.update(format!("{other:?}")),
        }
    }
    hash.finalize().into()
}

fn input_untouched(stand: &Stand) -> Said {
    fed(stand)?;
    let pool = stand.ready()?;
    for port in 0..stand.about.ins.len() {
        let rows = stand.rows(port, 16);
        let before = digest(&rows);
        stand.process(&pool, port, rows.clone()).map_err(failed)?;
        if digest(&rows) != before {
            return Err(No::Failed(format!(
                "it wrote to its input `{}`: batch_edit() and batch_new() give memory to write to",
                stand.about.ins[port].name
            )));
        }
    }
    Ok(String::new())
}

fn thread_hop(stand: &Stand) -> Said {
    fed(stand)?;
    let pool = stand.ready()?;
    let rows = stand.rows(0, 4);
    std::thread::scope(|scope| {
        let called = scope.spawn(|| stand.process(&pool, 0, rows).map(drop));
        match called.join() {
            Ok(said) => said.map_err(failed),
            Err(_) => Err(No::Failed("the call panicked".into())),
        }
    })?;
    std::thread::scope(|scope| scope.spawn(|| drop(pool)).join())
        .map_err(|_| No::Failed("destroying it panicked".into()))?;
    Ok(String::new())
}

fn parallel_stress(stand: &Stand) -> Said {
    fed(stand)?;
    if stand.about.concurrency != Concurrency::Parallel {
        return Err(No::Skipped(
            "its manifest says that one call runs at a time".into(),
        ));
    }
    if !stand.is_work() {
        return Err(No::Skipped("only maps and filters are called so".into()));
    }
    let pool = stand.ready()?;
    let n = 8;
    let rows = stand.rows(0, n);
    let told = stand.process(&pool, 0, rows.clone()).map_err(failed)?;
    let wanted = stand.shown(told).map_err(No::Failed)?;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let told = stand.process(&pool, 0, rows.clone()).map_err(failed)?;
                        if stand.shown(told).map_err(No::Failed)? != wanted {
                            return Err(No::Failed(
                                "calls at once gave another answer than one alone".into(),
                            ));
                        }
                    }
                    Ok(())
                })
            })
            .collect();
        for thread in threads {
            thread
                .join()
                .map_err(|_| No::Failed("a call panicked".into()))??;
        }
        Ok("4 threads, 50 calls each".into())
    })
}

fn determinism(stand: &Stand) -> Said {
    fed(stand)?;
    if stand.table.flags & DETERMINISTIC == 0 {
        return Err(No::Skipped(
            "it does not say that it is deterministic".into(),
        ));
    }
    if !stand.is_work() {
        return Err(No::Skipped("only maps and filters are asked".into()));
    }
    let n = 24;
    let rows = stand.rows(0, n);
    let whole = {
        let pool = stand.ready()?;
        let told = stand.process(&pool, 0, rows.clone()).map_err(failed)?;
        stand.shown(told).map_err(No::Failed)?
    };
    let ports = stand.about.outs.len();
    // Another instance, backwards, in batches of another size.
    let pool = stand.ready()?;
    for (at, part) in rows.chunks(5).enumerate().rev() {
        let told = stand.process(&pool, 0, part.to_vec()).map_err(failed)?;
        let own = stand.shown(told).map_err(No::Failed)?;
        if own != whole[at * 5 * ports..][..own.len()] {
            return Err(No::Failed(
                "the same rows in another batch, or another order, gave other bits".into(),
            ));
        }
    }
    Ok(format!("{n} rows"))
}

fn steady_memory(stand: &Stand) -> Said {
    const LIMIT: Duration = Duration::from_secs(5);
    fed(stand)?;
    if !stand.is_work() {
        return Err(No::Skipped(
            "a reduce or a sink keeps what it is given until its slide ends".into(),
        ));
    }
    let pool = stand.ready()?;
    let rows = stand.rows(0, 4);
    let start = Instant::now();
    let (mut warm, mut done) = (0, 0u32);
    while done < 10_000 && start.elapsed() < LIMIT {
        stand.process(&pool, 0, rows.clone()).map_err(failed)?;
        done += 1;
        if warm == 0 && (done == 500 || start.elapsed() > LIMIT / 4) {
            warm = resident();
        }
    }
    let said = steady(warm, 8 << 20)?;
    Ok(format!("{done} batches, {said}"))
}
