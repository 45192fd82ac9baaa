//! `[run]` and `run = { .. }`.

use super::stages::Params;
use super::{Cx, convert};
use crate::codes;
use crate::diagnostic::Diagnostic;
use crate::doc::{Data, Item, Table};
use crate::plan::StageRun;
use crate::run::{OnError, RunSettings};
use crate::schema::{Param, ParamKind};
use crate::source::Span;
use crate::values::{Value, Values};
use std::collections::BTreeMap;
use std::path::Path;

const fn param(
    name: &'static str,
    kind: ParamKind,
    default: Option<&'static str>,
    doc: &'static str,
) -> Param {
    Param {
        name,
        kind,
        default,
        required: false,
        doc,
    }
}

const COUNT: ParamKind = ParamKind::Integer { min: 1, max: 4096 };

/// The keys of `[run]`. Where no default is named, the number of cores or nothing is it.
pub static RUN: [Param; 19] = [
    param(
        "workers",
        COUNT,
        Some("1"),
        "Timely workers in each process.",
    ),
    param(
        "helpers",
        COUNT,
        None,
        "Threads that run maps and filters; default: the number of cores.",
    ),
    param(
        "readers",
        COUNT,
        None,
        "Threads that read and decode; default: the number of cores.",
    ),
    param(
        "devices",
        ParamKind::Texts,
        Some("[\"auto\"]"),
        "Where networks run: `auto`, `cpu`, `cuda:0`, ...",
    ),
    param(
        "memory",
        ParamKind::Bytes,
        Some("\"1GiB\""),
        "Bound on everything that grows; sources wait when it is used up.",
    ),
    param(
        "open-slides",
        COUNT,
        Some("4"),
        "Slides that may be open at once.",
    ),
    param(
        "seed",
        ParamKind::Integer {
            min: 0,
            max: i64::MAX,
        },
        Some("0"),
        "Seed of everything that is random.",
    ),
    param(
        "on-error",
        ParamKind::Choice(&["continue", "stop"]),
        Some("\"continue\""),
        "Whether a failed slide ends the run.",
    ),
    param(
        "max-failed",
        ParamKind::Float { min: 0.0, max: 1.0 },
        Some("0.01"),
        "Fraction of failed tiles above which a slide fails: counted by the reduce that takes them, or by a sink where none does.",
    ),
    param(
        "max-failed-picked",
        ParamKind::Float { min: 0.0, max: 1.0 },
        Some("0.1"),
        "Fraction of failed selected tiles above which a slide fails.",
    ),
    param(
        "retries",
        ParamKind::Integer { min: 0, max: 100 },
        Some("1"),
        "How often a tile is tried again before it counts as failed.",
    ),
    param(
        "default-mpp",
        ParamKind::Float {
            min: 0.01,
            max: 100.0,
        },
        None,
        "um/px of slides that say nothing themselves.",
    ),
    param(
        "executor",
        ParamKind::Choice(&["auto", "burn", "onnxruntime"]),
        Some("\"auto\""),
        "What runs networks; `auto` takes ONNX Runtime when it is found.",
    ),
    param(
        "live",
        ParamKind::Boolean,
        Some("false"),
        "Publish predictions while slides are open.",
    ),
    param(
        "live-tick",
        ParamKind::Duration,
        Some("\"100ms\""),
        "Least time between two publications of a slide.",
    ),
    param(
        "select-tick",
        ParamKind::Duration,
        Some("\"1s\""),
        "Least time between two selections of a slide.",
    ),
    param(
        "metrics",
        ParamKind::Text,
        None,
        "Address of a metrics page; without effect in this version.",
    ),
    param(
        "log",
        ParamKind::Choice(&["error", "warn", "info", "debug"]),
        Some("\"warn\""),
        "What is logged.",
    ),
    param(
        "out",
        ParamKind::Path { exists: false },
        Some("\"out\""),
        "Folder of the outputs; made when it is not there.",
    ),
];

/// The keys of a stage's `run = { .. }`.
pub static STAGE_RUN: [Param; 5] = [
    param(
        "batch",
        ParamKind::Integer { min: 1, max: 65536 },
        None,
        "Rows of a batch.",
    ),
    param(
        "linger",
        ParamKind::Duration,
        None,
        "How long a batch waits to fill, while open slides bring more; where it is not given, as the time that the last one took makes it worth.",
    ),
    param(
        "timeout",
        ParamKind::Duration,
        None,
        "How long a batch may take.",
    ),
    param(
        "retries",
        ParamKind::Integer { min: 0, max: 100 },
        None,
        "How often a row is tried again; default: the run's.",
    ),
    param(
        "device",
        ParamKind::Text,
        None,
        "Device of this stage; default: the run's.",
    ),
];

/// Settings without effect in this version.
const IDLE: [&str; 1] = ["metrics"];

/// Reads `[run]`; what was given is kept in `given`.
pub(crate) fn run(cx: &mut Cx, root: &Table, given: &mut BTreeMap<String, Item>) -> RunSettings {
    let empty = Table::default();
    let (table, key) = match root.get("run") {
        None => (&empty, Span::default()),
        Some(entry) => match entry.value.table() {
            Some(table) => (table, entry.key),
            None => {
                let label = entry.value.data.type_name();
                let title = "`run` is a table: [run]";
                cx.found.push(Diagnostic::new(
                    &codes::E0302,
                    entry.key,
                    title,
                    format!("this is {label}"),
                ));
                (&empty, entry.key)
            }
        },
    };
    let params = Params {
        owner: "[run]".into(),
        unknown: &codes::E0202,
        params: &RUN,
        skip: &[],
        example: "",
        at: key,
        key,
    };
    let values = params.check(cx, table, given);
    let settings = settings(&values);
    if let Some(item) = given.get("devices") {
        devices(cx, item, &settings.devices);
    }
    out(cx, given.get("out"), &settings.out);
    threads(cx, given, &settings);
    for name in IDLE {
        if let Some(item) = given.get(name) {
            let title = format!("`{name}` has no effect in this version of weir");
            cx.found.push(Diagnostic::new(
                &codes::W0610,
                item.span,
                title,
                "checked, not used",
            ));
        }
    }
    settings
}

/// Fills the settings; a key that did not fit keeps its default, and no plan comes of it.
fn settings(values: &Values) -> RunSettings {
    let mut settings = RunSettings::default();
    let count = |name: &str, into: &mut usize| {
        if let Ok(number) = values.integer(name) {
            *into = usize::try_from(number).unwrap_or(*into);
        }
    };
    count("workers", &mut settings.workers);
    count("helpers", &mut settings.helpers);
    count("readers", &mut settings.readers);
    count("open-slides", &mut settings.open_slides);
    if let Ok(devices) = values.texts("devices") {
        settings.devices = devices.to_vec();
    }
    settings.memory = values.bytes("memory").unwrap_or(settings.memory);
    settings.seed = values.integer("seed").map_or(0, |seed| seed as u64);
    settings.on_error = match values.text("on-error") {
        Ok("stop") => OnError::Stop,
        _ => OnError::Continue,
    };
    settings.max_failed = values.float("max-failed").unwrap_or(settings.max_failed);
    settings.max_failed_picked = values
        .float("max-failed-picked")
        .unwrap_or(settings.max_failed_picked);
    settings.retries = values
        .integer("retries")
        .map_or(settings.retries, |n| n as u32);
    settings.default_mpp = values.float("default-mpp").ok();
    settings.executor = values.text("executor").unwrap_or("auto").to_owned();
    settings.live = values.boolean("live").unwrap_or(false);
    settings.live_tick = values.duration("live-tick").unwrap_or(settings.live_tick);
    settings.select_tick = values
        .duration("select-tick")
        .unwrap_or(settings.select_tick);
    settings.metrics = values.text("metrics").ok().map(str::to_owned);
    settings.log = values.text("log").unwrap_or("warn").to_owned();
    if let Ok(out) = values.path("out") {
        settings.out = out.to_owned();
    }
    settings
}

/// Reads a stage's `run = { .. }`.
pub(crate) fn stage_run(cx: &mut Cx, item: &Item, given: &mut BTreeMap<String, Item>) -> StageRun {
    let Some(table) = item.table() else {
        if !item.is_reported() {
            let title = "`run` of a stage is a table: run = { batch = 64, linger = \"20ms\" }";
            let label = format!("this is {}", item.data.type_name());
            convert::push(
                cx,
                item,
                Diagnostic::new(&codes::E0302, item.span, title, label),
            );
        }
        return StageRun::default();
    };
    let params = Params {
        owner: "`run` of a stage".into(),
        unknown: &codes::E0202,
        params: &STAGE_RUN,
        skip: &[],
        example: "",
        at: item.span,
        key: item.span,
    };
    let values = params.check(cx, table, given);
    let device = values.text("device").ok().map(str::to_owned);
    if let (Some(item), Some(device)) = (given.get("device"), &device) {
        devices(cx, item, std::slice::from_ref(device));
    }
    StageRun {
        batch: values.integer("batch").ok().map(|rows| rows as usize),
        linger: values.duration("linger").ok(),
        timeout: values.duration("timeout").ok(),
        retries: values.integer("retries").ok().map(|times| times as u32),
        device,
    }
}

/// Reports names that are no devices.
fn devices(cx: &mut Cx, item: &Item, names: &[String]) {
    let places: Vec<&Item> = match &item.data {
        Data::List(items) => items.iter().collect(),
        _ => vec![item],
    };
    if let (Data::List(items), true) = (&item.data, names.is_empty())
        && items.is_empty()
    {
        let title = "`devices` names no device";
        cx.found.push(
            Diagnostic::new(&codes::E0601, item.span, title, "at least one").fix(
                "write",
                item.span,
                "[\"auto\"]",
            ),
        );
    }
    for (name, place) in names.iter().zip(places) {
        let number = name.strip_prefix("cuda:").map(str::parse::<u32>);
        if matches!(name.as_str(), "auto" | "cpu") || matches!(number, Some(Ok(_))) {
            continue;
        }
        let title = format!("there is no device `{name}`");
        let mut diagnostic = Diagnostic::new(
            &codes::E0601,
            place.span,
            title,
            "auto, cpu, or cuda:0, cuda:1, ...",
        );
        if matches!(name.as_str(), "cuda" | "gpu") {
            diagnostic = diagnostic.fix("did you mean", place.span, "\"cuda:0\"");
        }
        convert::push(cx, place, diagnostic);
    }
}

/// Reports a file in the way of the folder of the outputs.
fn out(cx: &mut Cx, item: Option<&Item>, out: &Path) {
    let in_the_way = out.ancestors().find(|path| path.exists());
    let Some(path) = in_the_way.filter(|path| !path.is_dir()) else {
        return;
    };
    let title = format!("`{}` cannot be a folder of outputs", out.display());
    let label = format!("`{}` is a file", path.display());
    match item {
        Some(item) => convert::push(
            cx,
            item,
            Diagnostic::new(&codes::E0603, item.span, title, label),
        ),
        None => cx
            .found
            .push(Diagnostic::nowhere(&codes::E0603, title).help(label)),
    }
}

/// Warns of many more threads than cores.
fn threads(cx: &mut Cx, given: &BTreeMap<String, Item>, settings: &RunSettings) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    for (name, count) in [
        ("workers", settings.workers),
        ("helpers", settings.helpers),
        ("readers", settings.readers),
    ] {
        // A few more than cores are no mistake: readers wait for disks.
        if let Some(item) = given.get(name).filter(|_| count > 4 * cores + 16) {
            let title = format!("{count} {name} are far more than this machine has cores");
            let label = format!("{cores} cores");
            convert::push(
                cx,
                item,
                Diagnostic::new(&codes::W0606, item.span, title, label),
            );
        }
    }
}

/// What a key of `[run]` holds, for `weir show`.
pub(crate) fn shown(settings: &RunSettings) -> BTreeMap<&'static str, Value> {
    let count = |number: usize| Value::Integer(number as i64);
    let text = |text: &str| Value::Text(text.to_owned());
    let mut all = BTreeMap::from([
        ("workers", count(settings.workers)),
        ("helpers", count(settings.helpers)),
        ("readers", count(settings.readers)),
        ("devices", Value::Texts(settings.devices.clone())),
        ("memory", Value::Bytes(settings.memory)),
        ("open-slides", count(settings.open_slides)),
        ("seed", Value::Integer(settings.seed as i64)),
        (
            "on-error",
            text(match settings.on_error {
                OnError::Continue => "continue",
                OnError::Stop => "stop",
            }),
        ),
        ("max-failed", Value::Float(settings.max_failed)),
        (
            "max-failed-picked",
            Value::Float(settings.max_failed_picked),
        ),
        ("retries", Value::Integer(i64::from(settings.retries))),
        ("executor", text(&settings.executor)),
        ("live", Value::Boolean(settings.live)),
        ("live-tick", Value::Duration(settings.live_tick)),
        ("select-tick", Value::Duration(settings.select_tick)),
        ("log", text(&settings.log)),
        ("out", Value::Path(settings.out.clone())),
    ]);
    if let Some(mpp) = settings.default_mpp {
        all.insert("default-mpp", Value::Float(mpp));
    }
    if let Some(metrics) = &settings.metrics {
        all.insert("metrics", text(metrics));
    }
    all
}
