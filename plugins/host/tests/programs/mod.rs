//! What the test programs have in common: plugins in C, compiled here, and stages and runs of plugins.
// Each test program uses its own part of this.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use weir_pipeline::{Edge, Kind, Node, Plan, RunSettings, Schema, StageRun, Value, Values};
use weir_plugin_host::{
    Admitted, Ask, Counters, Described, Isolated, Loaded, Log, Plugins, Policy, Program, stage_type,
};
use weir_record::{Budget, Slab};
use weir_runtime::stage::{Prepare, Prepared, Shared, StageError, Work};
use weir_runtime::{Options, Outcome, run};

// ------------------------------------------------------------------------------------------------------- the plugin

/// A file beside this one.
pub fn here(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests")
        .join(file)
}

/// Compiles the plugin of `c` to `so`.
#[track_caller]
pub fn compiled(c: &Path, so: &Path, flags: &[&str]) -> PathBuf {
    let abi = Path::new(env!("CARGO_MANIFEST_DIR")).join("../abi");
    let built = Command::new("gcc")
        .args(["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-g", "-O1"])
        .args(["-shared", "-fPIC", "-pthread"])
        .args(flags)
        .arg("-I")
        .args([&abi, Path::new("-o"), so, c, Path::new("-lm")])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "{said}");
    so.to_owned()
}

/// The same of a text, which is put beside it.
#[track_caller]
pub fn compiled_text(text: &str, so: &Path, flags: &[&str]) -> PathBuf {
    let c = so.with_extension("c");
    std::fs::write(&c, text).unwrap();
    compiled(&c, so, flags)
}

/// The plugin `name` of a file.
pub fn admitted(so: &Path, name: &str) -> Admitted {
    let ask = Ask {
        name: name.into(),
        ..Ask::default()
    };
    Admitted::new(Described::read(so).unwrap(), &ask, Policy::Any).unwrap()
}

/// The program that isolated plugins run in.
pub fn program() -> Program {
    Program::new(env!("CARGO_BIN_EXE_plugin-host-child"), [])
}

/// The plugin `name` of a file, for a run.
pub fn plugins(so: &Path, name: &str, way: &Way) -> Plugins {
    let admitted = admitted(so, name);
    let mut plugins = Plugins::default();
    match way.isolated {
        true => plugins
            .isolated
            .push(Isolated::new(Arc::new(admitted), way.program.clone()).unwrap()),
        false => plugins.loaded.push(Loaded::new(&admitted).unwrap()),
    }
    plugins
}

// ----------------------------------------------------------------------------------------------------------- stages

/// How a stage is made.
#[derive(Clone)]
pub struct Way {
    pub isolated: bool,
    pub timeout: Duration,
    pub out: PathBuf,
    pub program: Program,
    /// Of a tile, px.
    pub side: u32,
}

impl Way {
    pub fn of(isolated: bool, side: u32) -> Way {
        Way {
            isolated,
            timeout: Duration::from_secs(20),
            out: std::env::temp_dir(),
            program: program(),
            side,
        }
    }
}

/// Values of a stage's parameters.
pub fn values<'a>(of: impl IntoIterator<Item = (&'a str, Value)>) -> Values {
    let of = of.into_iter();
    Values(of.map(|(name, value)| (name.to_owned(), value)).collect())
}

/// A stage of a plan; its outputs have tiles of that side, or vectors of three numbers.
pub fn node(name: &str, schema: &'static Schema, values: Values, way: &Way) -> Node {
    let shapes = schema.outs.iter().map(|port| match port.kind {
        Kind::Features => vec![3],
        Kind::Pixels => vec![way.side.into(), way.side.into(), 3],
        _ => vec![],
    });
    Node {
        name: name.into(),
        schema,
        values,
        inputs: Vec::new(),
        run: StageRun {
            timeout: Some(way.timeout),
            ..StageRun::default()
        },
        shapes: shapes.collect(),
    }
}

fn plan(nodes: Vec<Node>, way: &Way) -> Plan {
    Plan {
        name: "test".into(),
        file: PathBuf::new(),
        run: RunSettings {
            out: way.out.clone(),
            helpers: 2,
            readers: 2,
            max_failed: 1.0,
            ..RunSettings::default()
        },
        models: BTreeMap::new(),
        plugins: Vec::new(),
        nodes,
        hash: String::new(),
    }
}

pub type Lines = Arc<Mutex<Vec<String>>>;

/// A stage that is ready, and what its plugin said.
pub struct Made {
    pub prepared: Prepared,
    pub lines: Lines,
    pub counters: Counters,
    pub stop: weir_runtime::Stop,
    pub budget: Budget,
    pub slab: Slab,
}

impl Made {
    /// The stage of these plugins.
    pub fn of(node: &Node, plugins: Plugins, way: &Way) -> Result<Made, StageError> {
        let lines = Lines::default();
        let heard = lines.clone();
        let hear = move |_, stage: &str, text: &str| {
            heard.lock().unwrap().push(format!("{stage}: {text}"))
        };
        let plugins = Plugins {
            log: Log::to(hear),
            ..plugins
        };
        let (counters, stop) = (plugins.counters.clone(), plugins.stop.clone());
        let budget = Budget::new(1 << 30);
        let slab = match way.isolated {
            true => Slab::shared_within(&budget, 2),
            false => Slab::within(&budget),
        };
        let shared = shared(plugins);
        let prepare = Prepare {
            plan: &plan(Vec::new(), way),
            node,
            shared: &shared,
            budget: &budget,
            slab: &slab,
        };
        let prepared = (stage_type(node.schema).prepare)(&prepare)?;
        Ok(Made {
            prepared,
            lines,
            counters,
            stop,
            budget,
            slab,
        })
    }

    pub fn work(&self) -> &dyn Work {
        match &self.prepared {
            Prepared::Work(work) => work.as_ref(),
            _ => panic!("no map or filter"),
        }
    }

    pub fn said(&self) -> String {
        self.lines.lock().unwrap().join("\n")
    }
}

fn shared(plugins: Plugins) -> Shared {
    let shared = Shared::default();
    shared
        .get_or_try("", || Ok::<_, StageError>(plugins))
        .unwrap();
    shared
}

// ------------------------------------------------------------------------------------------------------------- runs

/// A run of stages, each fed by the one before it.
pub fn ran(mut chain: Vec<Node>, plugins: Plugins, way: &Way) -> Outcome {
    for (at, node) in chain.iter_mut().enumerate().skip(1) {
        node.inputs.push(Edge {
            port: 0,
            node: at - 1,
            output: 0,
        });
    }
    let types: Vec<_> = chain.iter().map(|node| stage_type(node.schema)).collect();
    let options = Options {
        shared: shared(plugins),
        ..Options::default()
    };
    run(Arc::new(plan(chain, way)), &types, options).unwrap()
}
