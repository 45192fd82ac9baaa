//! `OUT/run.json`: what ran, on what, and what became of every slide.

use crate::run::lock::Shard;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use weir_pipeline::{OnError, Plan};
use weir_plugin_host::Counters;
use weir_record::{End, Failure, State, Tally};
use weir_runtime::{Outcome, Progress, SlideRecord, StageCounters, exit};
use weir_stages::{Executors, Placement, Placements};

/// What is known of a run beside its outcome.
pub struct Facts<'a> {
    /// The plan that ran.
    pub plan: &'a Plan,
    /// What ran the networks.
    pub executors: &'a Executors,
    /// Where the kernels' calls ran, of this process.
    pub placements: &'a Placements,
    /// Counters of the stages, of this process.
    pub progress: &'a Progress,
    /// What plugins counted, of this process.
    pub counters: &'a Counters,
    /// When it began.
    pub started: SystemTime,
    /// Which part of a batch it was.
    pub shard: Option<Shard>,
    /// How many processes took part.
    pub processes: usize,
}

impl Facts<'_> {
    /// The record of a run that came to `outcome`, or ended with the message of a fault.
    pub fn record(&self, outcome: &Outcome, exit_code: u8, fault: Option<&str>) -> Value {
        let plan = self.plan;
        let slides: BTreeMap<&String, Value> = outcome
            .slides
            .iter()
            .map(|(id, slide)| (id, self.slide(slide)))
            .collect();
        let executors = self.executors.all();
        json!({
            "format": 1,
            "weir": env!("CARGO_PKG_VERSION"),
            "note": "research software, not a medical device",
            "state": state(outcome, exit_code),
            "exit_code": exit_code,
            "fault": fault,
            "started": rfc3339(self.started),
            "seconds": seconds(outcome.took),
            "pipeline": { "name": plan.name, "file": plan.file, "hash": plan.hash },
            "out": plan.run.out,
            "shard": self.shard.map(|shard| shard.to_string()),
            "processes": self.processes,
            "deterministic": executors.values().all(|used| used.deterministic),
            "executors": executors.iter().map(|(stage, used)| (stage.clone(), json!({
                "executor": used.key, "device": used.device, "deterministic": used.deterministic, "why": used.why,
            }))).collect::<BTreeMap<_, _>>(),
            "kernels": self.placements.all().iter().map(placement).collect::<Vec<_>>(),
            "models": plan.models.iter().map(|(name, model)| (name, json!({
                "folder": model.folder, "arch": model.arch, "sha256": model.sha256, "contract": model.contract,
            }))).collect::<BTreeMap<_, _>>(),
            "plugins": plan.plugins.iter().map(|plugin| (&plugin.name, json!({
                "version": plugin.version, "sha256": plugin.sha256, "file": plugin.file, "isolate": plugin.isolate,
            }))).collect::<BTreeMap<_, _>>(),
            "settings": settings(plan),
            "counts": counts(outcome),
            // The other processes' memory, kernels and stages are not in it.
            "measured_in_process": 0,
            "memory": {
                "budget": plan.run.memory,
                "budget_peak": outcome.memory_peak,
                "resident_peak": resident_peak(),
            },
            "plugin_counters": self.counters.all(),
            "stages": self.progress.stages.iter().map(stage).collect::<Vec<_>>(),
            "sink_failures": outcome.sink_failures,
            "slides": slides,
        })
    }

    fn slide(&self, slide: &SlideRecord) -> Value {
        let info = slide.info.as_deref();
        let prediction = slide.prediction.as_deref();
        let mpp = info.and_then(|info| info.mpp);
        json!({
            "state": slide.state(),
            "class": prediction.and_then(|p| p.classes.get(p.class? as usize)),
            "probabilities": prediction.map(|p| &p.probabilities),
            "flags": prediction.map(|p| p.bag.flags.names()),
            "bag": prediction.map(|p| p.bag.n),
            "path": info.map(|info| &info.path),
            "reader": info.map(|info| &info.reader),
            "width": info.map(|info| info.width),
            "height": info.map(|info| info.height),
            "mpp": mpp.map(|(mpp, _)| mpp.0),
            "mpp_origin": mpp.map(|(_, origin)| origin),
            "patient": info.and_then(|info| info.patient.as_ref()),
            "label": info.and_then(|info| info.label.as_ref()),
            "split": info.and_then(|info| info.split.as_ref()),
            "tiles": info.map(|info| info.tiles),
            "background": info.map(|info| info.background),
            "tiles_failed": slide.failed_tiles(),
            "tiles_left_out": slide.dropped_tiles(),
            "failed": slide.failed.as_ref().map(failure),
            "failures": slide.failures.iter().map(failure).collect::<Vec<_>>(),
            "ledgers": slide.ledgers.iter().map(|((stage, port), (end, tally))| {
                (format!("{stage}.{port}"), ledger(*end, tally))
            }).collect::<BTreeMap<_, _>>(),
            "skipped": slide.skipped,
            "ms": slide.took,
        })
    }
}

/// Counters of a stage: those of this process. `rows`: what it took or, of a source, sent; `chained`: of these, what the thread that made
/// them went on with at once.
fn stage(stage: &StageCounters) -> Value {
    let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    json!({
        "name": stage.name,
        "busy_seconds": seconds(Duration::from_nanos(get(&stage.busy))),
        "rows": get(&stage.rows),
        "chained": get(&stage.chained),
        "value": get(&stage.made.value),
        "skip": get(&stage.made.skip),
        "fail": get(&stage.made.fail),
        "gone": get(&stage.made.gone),
    })
}

/// A kernel on a device. `from`: bytes of input from which it runs there, null for never; `refused`: calls that the device had no
/// room for, which the processor did.
fn placement(placement: &Placement) -> Value {
    let refused = placement.refused.as_ref();
    json!({
        "device": placement.device,
        "kernel": placement.kernel.name(),
        "from": placement.from,
        "measured": !placement.asked,
        "refused": refused.map_or(0, |refused| refused.calls),
        "refusal": refused.map(|refused| refused.first.to_string()),
    })
}

fn ledger(end: End, tally: &Tally) -> Value {
    let end = match end {
        End::Complete => "complete",
        End::Incomplete => "incomplete",
        End::Aborted => "aborted",
    };
    json!({ "end": end, "value": tally.value, "skip": tally.skip, "fail": tally.fail, "gone": tally.gone })
}

fn failure(failure: &Failure) -> Value {
    json!({
        "stage": failure.stage,
        "x": failure.tile.map(|(x, _)| x),
        "y": failure.tile.map(|(_, y)| y),
        "what": failure.what,
        "help": failure.help,
    })
}

fn state(outcome: &Outcome, exit_code: u8) -> &'static str {
    match exit_code {
        exit::DONE => "done",
        exit::PARTLY => "finished with failures",
        exit::INTERRUPTED => "interrupted",
        _ if outcome.stopped => "stopped at the first failed slide",
        exit::INTERNAL => "broken by an internal fault",
        _ => "failed",
    }
}

/// Slides by state, and tiles.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// All slides.
    pub slides: u64,
    /// With a final prediction.
    #[serde(rename = "final")]
    pub last: u64,
    /// Of these: left as an earlier run made them.
    pub skipped: u64,
    /// Without tissue: a legal result without a class.
    pub no_tissue: u64,
    /// Could not be opened, or too many tiles failed.
    pub failed: u64,
    /// Stopped while open, or cut short by their sender.
    pub unfinished: u64,
    /// Tiles of all slides that were computed.
    pub tiles: u64,
    /// Tiles that failed.
    pub tiles_failed: u64,
    /// Tiles that filters left out.
    pub tiles_left_out: u64,
}

/// Adds up an outcome.
pub fn counts(outcome: &Outcome) -> Totals {
    let mut totals = Totals::default();
    for slide in outcome.slides.values() {
        totals.slides += 1;
        match slide.state() {
            State::Final => totals.last += 1,
            State::NoTissue => totals.no_tissue += 1,
            State::Failed => totals.failed += 1,
            State::Provisional | State::Incomplete | State::Interrupted => totals.unfinished += 1,
        }
        totals.skipped += u64::from(slide.skipped.is_some());
        if slide.skipped.is_none() {
            totals.tiles += slide.info.as_ref().map_or(0, |info| info.tiles);
        }
        totals.tiles_failed += slide.failed_tiles();
        totals.tiles_left_out += slide.dropped_tiles().values().sum::<u64>();
    }
    totals
}

fn settings(plan: &Plan) -> Value {
    let run = &plan.run;
    json!({
        "workers": run.workers,
        "helpers": run.helpers,
        "readers": run.readers,
        "devices": run.devices,
        "memory": run.memory,
        "open-slides": run.open_slides,
        "seed": run.seed,
        "on-error": match run.on_error { OnError::Continue => "continue", OnError::Stop => "stop" },
        "max-failed": run.max_failed,
        "max-failed-picked": run.max_failed_picked,
        "retries": run.retries,
        "default-mpp": run.default_mpp,
        "executor": run.executor,
        "live": run.live,
        // A run with one that is no number did not begin.
        "device-from": weir_kernels::auto::asked().ok().flatten(),
    })
}

/// Writes `OUT/run.json`, or a shard's `OUT/run-I-of-N.json`: whole or not at all.
pub fn write(out: &Path, shard: Option<Shard>, record: &Value) -> std::io::Result<PathBuf> {
    let name = match shard {
        None => "run.json".to_owned(),
        Some(shard) => format!("run-{shard}.json"),
    };
    let path = out.join(name);
    let mut text = serde_json::to_string_pretty(record)?;
    text.push('\n');
    weir_model::file::write(&path, text.as_bytes())?;
    Ok(path)
}

/// The most memory that this process had at once, bytes; as the kernel counts it.
pub fn resident_peak() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1000.0).round() / 1000.0
}

/// A moment as `2026-11-25T13:00:00Z`, by the civil calendar (Howard Hinnant, "chrono-compatible low-level date algorithms").
fn rfc3339(time: SystemTime) -> String {
    let since = time
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let (days, second) = (since / 86_400, since % 86_400);
    // Days are counted from 0000-03-01, so that the leap day ends a year.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn moments_are_written_by_the_civil_calendar() {
        let at = |seconds| rfc3339(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(at(951_868_800), "2000-03-01T00:00:00Z");
        assert_eq!(at(1_735_689_599), "2024-12-31T23:59:59Z");
    }

    #[test]
    fn a_record_is_written_whole_and_readable() {
        let folder = tempfile::tempdir().unwrap();
        let path = write(folder.path(), None, &json!({"a": 1})).unwrap();
        assert_eq!(path, folder.path().join("run.json"));
        let read: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(read, json!({"a": 1}));
        let shard = write(folder.path(), "2/3".parse().ok(), &json!({})).unwrap();
        assert!(shard.ends_with("run-2-of-3.json"));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn the_kernel_tells_the_peak_of_memory() {
        assert!(resident_peak().unwrap() > 1 << 20);
    }
}
