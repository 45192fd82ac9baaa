//! The plugin boundary: what a call costs over a built-in stage's, and what a pass-through plugin costs a run, in process and in a
//! process of its own. Beside a run without the stage stands one with a built-in stage that does the same, since handing rows from
//! stage to stage is not the boundary's, nor is the memory that a batch's tiles take while it is gathered; and beside the run of one
//! slide, which takes milliseconds, one of twenty, where what is done once a run shows as what it is. Runs of one turn are compared
//! with each other, as the machine's pace changes from turn to turn.

mod calls;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;
use weir_benches::clock::machine;
use weir_benches::{Result, free};
use weir_pipeline::check::{Overrides, check_text};
use weir_pipeline::{Deliver, Place, Plan, Registry, Rows, Schema, StateBytes};
use weir_plugin_host::{Catalogue, Isolated, Loaded, Plugins, Program, stage_type};
use weir_record::{Budget, Slab};
use weir_runtime::Options;
use weir_runtime::stage::{
    Batch, BatchShape, Prepare, Prepared, Shared, StageError, StageType, Work,
};

/// Runs of each way with twenty slides, in turns.
const REPEATS: usize = 24;
/// With one: such a run differs from the next by more than what it is measured for.
const REPEATS_OF_ONE: usize = 1200;
/// The ways in such an order that of as many turns as there are ways, each of which begins one later, in one each way comes right after
/// each other one: a run leaves memory and caches to the next as it had them (E. J. Williams, Aust. J. Sci. Res. A 2, 149, 1949).
const ORDER: [usize; WAYS.len()] = [0, 1, 5, 2, 4, 3];
const _: () =
    assert!(REPEATS.is_multiple_of(WAYS.len()) && REPEATS_OF_ONE.is_multiple_of(WAYS.len()));
/// The argument with which this program is the child of an isolated plugin.
const CHILD: &str = "plugin-host";
/// The argument with which it is one run.
const ONCE: &str = "once";
/// The argument with which it measures calls alone, many of them, of so many rows if that follows: for a profiler.
const CALLS: &str = "calls";
/// Most rows of a batch, and all rows of a full one.
const BATCH: usize = 64;

/// The built-in counterpart of the plugin: hands every tile on.
struct Pass;

impl Work for Pass {
    fn run(&self, batch: &mut Batch) -> std::result::Result<(), StageError> {
        batch.pass_all();
        Ok(())
    }

    fn shape(&self) -> BatchShape {
        BatchShape {
            rows: BATCH,
            ..BatchShape::default()
        }
    }
}

/// The built-in counterpart as a stage type.
const PASS: StageType = StageType {
    schema: &Schema {
        name: "pass-built-in",
        summary: "Hands tiles on",
        doc: "For benches.",
        rows: Rows::Map,
        deliver: Deliver::Arrival,
        place: Place::Home,
        params: &[],
        ins: &[free::TILES],
        outs: &[free::TILES],
        batch_only: false,
        state_bytes: StateBytes::Nothing,
        example: "",
    },
    prepare: |_| Ok(Prepared::Work(Arc::new(Pass))),
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map_or_else(PathBuf::new, Path::to_owned)
}

/// The plugin's file.
fn plugin() -> PathBuf {
    weir_benches::generated::folder().join("libpass.so")
}

/// Builds the plugin.
fn built() -> Result<PathBuf> {
    let file = plugin();
    std::fs::create_dir_all(weir_benches::generated::folder())?;
    let said = Command::new("gcc")
        .args(["-std=c11", "-O2", "-shared", "-fPIC", "-I"])
        .arg(root().join("plugins/abi"))
        .arg("-o")
        .arg(&file)
        .arg(root().join("benches/plugins/pass.c"))
        .output()?;
    if !said.status.success() {
        return Err(String::from_utf8_lossy(&said.stderr).into());
    }
    Ok(file)
}

/// The slide under `n` names.
fn slides(n: usize) -> Result<Vec<PathBuf>> {
    let folder = weir_benches::generated::folder().join(format!("boundary-{n}"));
    std::fs::create_dir_all(&folder)?;
    let slide = root().join("tests/fixtures/slide-14082.tiff");
    let link = |i: usize| {
        let name = folder.join(format!("slide-{i:02}.tiff"));
        // It may be another checkout's.
        if std::fs::read_link(&name).ok().as_ref() != Some(&slide) {
            if name.symlink_metadata().is_ok() {
                std::fs::remove_file(&name)?;
            }
            std::os::unix::fs::symlink(&slide, &name)?;
        }
        Ok(name)
    };
    (0..n).map(link).collect()
}

/// tile-reader at 256 px steps, the stage of `way` or nothing, a free scorer.
fn text(plugin: &Path, way: &Way, slides: &[PathBuf]) -> String {
    let run = match way.full {
        true => format!("run = {{ batch = {BATCH}, linger = \"1s\" }}\n"),
        false => format!("run = {{ batch = {BATCH} }}\n"),
    };
    let (stage, from) = match way.stage {
        Some(stage) => (
            format!("[stage.pass]\nuse = {stage:?}\nin = \"tiles\"\n{run}"),
            "pass",
        ),
        None => (String::new(), "tiles"),
    };
    let slides: Vec<String> = slides
        .iter()
        .map(|slide| slide.display().to_string())
        .collect();
    let table = way.table;
    format!(
        "weir = 1\n[run]\nout = \"out\"\nworkers = 1\n[plugin.pass]\npath = {plugin:?}\n{table}\n[stage.tiles]\nuse = \"tile-reader\"\nslides = {slides:?}\nsize = 256\nmpp = 4.0\ntissue = \"none\"\n{stage}[stage.score]\nuse = \"free-scorer\"\nin = \"{from}\"\n[stage.top]\nuse = \"top-k\"\nin = \"score\"\nhighest = 8\nlowest = 8\n[stage.chosen]\nuse = \"tile-fetch\"\nin = \"top\"\n[stage.end]\nuse = \"null-sink\"\nin = \"chosen\"\n"
    )
}

/// A checked plan, its stage types, and its plugins.
fn checked(text: &str) -> Result<(Plan, Vec<StageType>, Plugins)> {
    let catalogue = Catalogue::here(false).map_err(|error| error.to_string())?;
    let built_in = weir_stages::types()
        .iter()
        .copied()
        .chain([free::TYPE, PASS]);
    let mut types: Vec<StageType> = built_in.collect();
    let registry = Registry::new(types.iter().map(|kind| kind.schema));
    let file = weir_benches::generated::folder().join("bench.weir.toml");
    let checked = check_text(
        &file,
        text,
        &Overrides::default(),
        &registry,
        &catalogue,
        &|_| None,
    );
    let Some(plan) = checked.plan else {
        let titles = checked.diagnostics.iter().map(|d| d.title.clone());
        return Err(titles.collect::<Vec<_>>().join("; ").into());
    };
    let mut plugins = Plugins::default();
    for plugin in &plan.plugins {
        let admitted = catalogue.admitted(plugin).ok_or("the plugin is gone")?;
        let loaded = match plugin.isolate {
            true => Isolated::new(admitted, Program::new("/proc/self/exe", [CHILD])).and_then(
                |isolated| {
                    isolated.loaded()?;
                    plugins.isolated.push(isolated);
                    Ok(())
                },
            ),
            false => Loaded::new(&admitted).map(|loaded| plugins.loaded.push(loaded)),
        };
        loaded.map_err(|refusal| refusal.to_string())?;
        types.extend(plugin.schemas.iter().map(stage_type));
    }
    Ok((plan, types, plugins))
}

fn shared(plugins: Plugins) -> Shared {
    let shared = Shared::default();
    let Ok(_) = shared.get_or_try("", || Ok::<_, std::convert::Infallible>(plugins));
    shared
}

/// A run, seconds.
fn run(text: &str) -> Result<f64> {
    let (plan, types, plugins) = checked(text)?;
    let options = Options {
        shared: shared(plugins),
        ..Options::default()
    };
    let start = Instant::now();
    let outcome =
        weir_runtime::run(Arc::new(plan), &types, options).map_err(|error| format!("{error:?}"))?;
    let took = start.elapsed().as_secs_f64();
    match outcome.exit_code() {
        0 => Ok(took),
        code => Err(format!("the run ended with exit code {code}").into()),
    }
}

/// The plugin's stage as the runtime has it.
fn work(text: &str) -> Result<Arc<dyn Work>> {
    let (plan, types, plugins) = checked(text)?;
    let node = plan
        .nodes
        .iter()
        .find(|node| node.schema.rows == Rows::Map && node.schema.name == "pass.map")
        .ok_or("the plan has no pass.map")?;
    let kind = types
        .iter()
        .find(|kind| kind.schema.name == "pass.map")
        .ok_or("no type of that name")?;
    let budget = Budget::new(1 << 30);
    let prepared = (kind.prepare)(&Prepare {
        plan: &plan,
        node,
        shared: &shared(plugins),
        budget: &budget,
        slab: &Slab::within(&budget),
    })?;
    match prepared {
        Prepared::Work(work) => Ok(work),
        _ => Err("pass.map is no map".into()),
    }
}

fn quantile(mut all: Vec<f64>, part: f64) -> f64 {
    all.sort_by(f64::total_cmp);
    all[((all.len() - 1) as f64 * part).round() as usize]
}

fn median(all: Vec<f64>) -> f64 {
    quantile(all, 0.5)
}

fn verdict(holds: bool) -> &'static str {
    if holds { "holds" } else { "DOES NOT HOLD" }
}

fn main() -> Result<()> {
    if std::env::args().nth(1).as_deref() == Some(CHILD) {
        return Err(weir_plugin_host::child::main().into());
    }
    if let [_, once_, way, n] = &std::env::args().collect::<Vec<_>>()[..]
        && once_ == ONCE
    {
        return once(way, n);
    }
    println!("Plugin boundary: {}\n", machine());
    let plugin = built()?;
    let one = slides(1)?;
    let through = text(&plugin, &WAYS[IN_PROCESS], &one);
    let own = work(&through)?;
    let alone = std::env::args().nth(1).as_deref() == Some(CALLS);
    let only = std::env::args().nth(2).map(|rows| rows.parse::<usize>());
    let only = only.transpose()?.filter(|_| alone);
    let calls = if alone { 4_000_000 } else { 200_000 };
    calls::table(
        own.as_ref(),
        only.map_or(vec![1, BATCH], |rows| vec![rows]),
        calls,
    )?;
    if alone {
        return Ok(());
    }
    drop(own);
    started(&text(&plugin, &WAYS[ISOLATED], &one))?;
    for n in [1, 20] {
        runs(n)?;
    }
    Ok(())
}

/// What is done before a run: the plugin's process is started and loads it.
fn started(text: &str) -> Result<()> {
    let mut took = Vec::new();
    for _ in 0..REPEATS {
        let start = Instant::now();
        let plugins = checked(text)?;
        took.push(start.elapsed().as_secs_f64());
        drop(plugins);
    }
    println!(
        "\nBefore a run with an isolated plugin: {:.2} ms to check the file, start the process and have it load the plugin (median of {REPEATS}).",
        median(took) * 1e3
    );
    Ok(())
}

/// A way to run.
struct Way {
    name: &'static str,
    /// What stands in the plugin's table.
    table: &'static str,
    /// The stage between tiles and scorer.
    stage: Option<&'static str>,
    /// Whether its batches wait to be full, as they do in front of a stage that takes its time.
    full: bool,
    /// The part of a run's time that it may cost.
    wanted: Option<f64>,
    /// The run with a built-in stage that does the same, told to wait for its batches alike.
    beside: usize,
}

const IN_PROCESS: usize = 2;
const ISOLATED: usize = 3;

const BUILT_IN: Way = Way {
    name: "a built-in stage",
    table: "",
    stage: Some("pass-built-in"),
    full: false,
    wanted: None,
    beside: 1,
};

const PLUGIN: Way = Way {
    name: "plugin in process",
    stage: Some("pass.map"),
    wanted: Some(0.02),
    ..BUILT_IN
};

const WAYS: [Way; 6] = [
    Way {
        name: "without",
        stage: None,
        ..BUILT_IN
    },
    BUILT_IN,
    PLUGIN,
    Way {
        name: "plugin in its own process",
        table: "isolate = true",
        wanted: Some(0.10),
        ..PLUGIN
    },
    Way {
        name: "a built-in stage, full batches",
        full: true,
        beside: 4,
        ..BUILT_IN
    },
    Way {
        name: "plugin in its own process, full batches",
        table: "isolate = true",
        wanted: Some(0.10),
        full: true,
        beside: 4,
        ..PLUGIN
    },
];

/// One run, for [`runs`]: prints how long it took, s.
fn once(way: &str, n: &str) -> Result<()> {
    let way = WAYS.get(way.parse::<usize>()?).ok_or("no such way")?;
    let text = text(&plugin(), way, &slides(n.parse()?)?);
    println!("{}", run(&text)?);
    Ok(())
}

/// Runs of `n` slides, in turns, each in a process of its own as runs are: in a process that had one before, memory is there that
/// a run otherwise has to ask for.
fn runs(n: usize) -> Result<()> {
    let mut took = vec![(Vec::new(), Vec::new()); WAYS.len()];
    let repeats = if n == 1 { REPEATS_OF_ONE } else { REPEATS };
    for turn in 0..repeats {
        for at in ORDER {
            let way = (at + turn) % WAYS.len();
            let took = &mut took[way];
            let start = Instant::now();
            let said = Command::new("/proc/self/exe")
                .args([ONCE, &way.to_string(), &n.to_string()])
                .output()?;
            took.1.push(start.elapsed().as_secs_f64());
            if !said.status.success() {
                return Err(String::from_utf8_lossy(&said.stderr).into());
            }
            took.0
                .push(String::from_utf8_lossy(&said.stdout).trim().parse()?);
        }
    }
    let names = if n == 1 { "one name" } else { "twenty names" };
    println!(
        "\ntile-reader and a free scorer, slide-14082 under {names}, tiles of 256 px, {repeats} runs in turns, medians:\n"
    );
    println!(
        "| run | it | p25 - p75 | wanted | over without, of each turn | | over the built-in stage, of each turn | | with its process's start and end |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for (way, (run, whole)) in WAYS.iter().zip(&took) {
        let [low, mid, high] = [0.25, 0.5, 0.75].map(|part| quantile(run.clone(), part) * 1e3);
        let bound = way
            .wanted
            .map_or(String::new(), |most| format!("< {:.0} %", most * 100.0));
        // Over a run without the stage stands what a stage between two others costs, wherever its code comes from, and what the plugin
        // costs; over a run with a built-in one the plugin's part alone.
        let over = |of: usize| {
            let turns = run.iter().zip(&took[of].0);
            let over: Vec<f64> = turns.map(|(it, of)| it / of - 1.0).collect();
            let held = |most| verdict(median(over.clone()) < most);
            format!("{} | {}", within(&over), way.wanted.map_or("", held))
        };
        println!(
            "| {} | {mid:.2} ms | {low:.2} - {high:.2} ms | {bound} | {} | {} | {:.2} ms |",
            way.name,
            over(0),
            over(way.beside),
            median(whole.clone()) * 1e3,
        );
    }
    Ok(())
}

/// The median of what was measured in turns, and where that of all turns lies in 19 of 20 cases: a median lies between the n-th from
/// the start and the n-th from the end unless fewer than n of so many coins show one side; a binomial distribution is near enough to a
/// normal one here (of twenty, the sixth).
fn within(over: &[f64]) -> String {
    let mut all = over.to_vec();
    all.sort_by(f64::total_cmp);
    let turns = all.len() as f64;
    let outside = (turns / 2.0 - 0.5 - 1.96 * turns.sqrt() / 2.0).floor() as usize;
    let (low, high) = (all[outside] * 100.0, all[all.len() - 1 - outside] * 100.0);
    let mid = median(all) * 100.0;
    format!("{mid:+.1} % ({low:+.1} to {high:+.1})")
}
