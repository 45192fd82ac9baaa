//! The plugin of `sins.c`, its stages in this process and in one of their own, and rows for them.
// Each test program uses its own part of this.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use weir_pipeline::{Kind, Node, Plan, RunSettings, Schema, StageRun, Value, Values};
use weir_plugin_host::{
    Admitted, Ask, Counters, Described, Isolated, Loaded, Log, Plugins, Policy, Program, stage_type,
};
use weir_record::{
    Body, Budget, Feature, Key, Skip, Slab, SlabBuf, SlideId, SlideInfo, SlideKey, TileBuf, TileId,
};
use weir_runtime::stage::{Batch, Prepare, Prepared, Shared, StageError, Work};

// ------------------------------------------------------------------------------------------------------- the plugin

pub fn built() -> &'static Path {
    static BUILT: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = BUILT.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let so = folder.path().join("libsins.so");
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let flags = "-std=c11 -Wall -Wextra -Werror -shared -fPIC -O1 -pthread";
        let built = Command::new("gcc")
            .args(flags.split(' '))
            .arg("-I")
            .args([here.join("../abi"), PathBuf::from("-o"), so.clone()])
            .args([here.join("tests/sins/sins.c"), PathBuf::from("-lm")])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&built.stderr).into_owned();
        assert!(built.status.success(), "{said}");
        (folder, so)
    });
    path
}

pub fn admitted() -> Admitted {
    let ask = Ask {
        name: "sins".into(),
        ..Ask::default()
    };
    Admitted::new(Described::read(built()).unwrap(), &ask, Policy::Any).unwrap()
}

pub fn program() -> Program {
    Program::new(env!("CARGO_BIN_EXE_plugin-host-child"), [])
}

pub type Lines = Arc<Mutex<Vec<String>>>;

/// A stage of the plugin, and what it said.
pub struct Made {
    pub prepared: Prepared,
    pub lines: Lines,
    pub counters: Counters,
    pub stop: weir_runtime::Stop,
    pub budget: Budget,
    pub slab: Slab,
}

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

pub fn way(isolated: bool) -> Way {
    Way {
        isolated,
        timeout: Duration::from_secs(20),
        out: std::env::temp_dir(),
        program: program(),
        side: SIDE,
    }
}

/// Of a tile that is so small that it is always copied, px.
const SIDE: u32 = 8;

pub fn made(id: &str, how: &str, way: &Way) -> Result<Made, StageError> {
    let schemas = Described::read(built()).unwrap().schemas();
    let schema: &'static Schema = schemas.iter().find(|schema| schema.name == id).unwrap();
    let shapes = schema.outs.iter().map(|port| match port.kind {
        Kind::Features => vec![3],
        Kind::Pixels => vec![way.side.into(), way.side.into(), 3],
        _ => vec![],
    });
    let node = Node {
        name: "own".into(),
        schema,
        values: Values(BTreeMap::from([("how".into(), Value::Text(how.into()))])),
        inputs: Vec::new(),
        run: StageRun {
            timeout: Some(way.timeout),
            ..StageRun::default()
        },
        shapes: shapes.collect(),
    };
    let plan = Plan {
        name: "test".into(),
        file: PathBuf::new(),
        run: RunSettings {
            out: way.out.clone(),
            helpers: 2,
            ..RunSettings::default()
        },
        models: BTreeMap::new(),
        plugins: Vec::new(),
        nodes: Vec::new(),
        hash: String::new(),
    };
    let lines = Lines::default();
    let heard = lines.clone();
    let mut plugins = Plugins {
        log: Log::to(move |_, stage, text| heard.lock().unwrap().push(format!("{stage}: {text}"))),
        ..Plugins::default()
    };
    if way.isolated {
        plugins
            .isolated
            .push(Isolated::new(Arc::new(admitted()), way.program.clone()).unwrap());
    } else {
        plugins.loaded.push(Loaded::new(&admitted()).unwrap());
    }
    let (counters, stop) = (plugins.counters.clone(), plugins.stop.clone());
    let shared = Shared::default();
    let budget = Budget::new(1 << 30);
    let slab = match way.isolated {
        true => Slab::shared_within(&budget),
        false => Slab::within(&budget),
    };
    shared
        .get_or_try("", || Ok::<_, StageError>(plugins))
        .unwrap();
    let prepare = Prepare {
        plan: &plan,
        node: &node,
        shared: &shared,
        budget: &budget,
        slab: &slab,
    };
    let prepared = (stage_type(schema).prepare)(&prepare)?;
    Ok(Made {
        prepared,
        lines,
        counters,
        stop,
        budget,
        slab,
    })
}

impl Made {
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

// ------------------------------------------------------------------------------------------------------------- rows

pub fn info(id: &str) -> Arc<SlideInfo> {
    Arc::new(SlideInfo::unopened(
        id.into(),
        SlideKey(7),
        format!("{id}.svs"),
    ))
}

pub type Row = (Key, Body, Arc<SlideInfo>);

/// Tile `i` of a slide; the one whose first byte is 13 is where the plugin sins.
pub fn tile(slide: u64, i: i64, first: u8) -> Row {
    placed(
        slide,
        i,
        first,
        SIDE,
        vec![0; TileBuf::bytes(SIDE, SIDE)].into(),
    )
}

/// The same, `side` px wide and high, in `data`.
pub fn placed(slide: u64, i: i64, first: u8, side: u32, mut data: SlabBuf) -> Row {
    for (b, byte) in data.iter_mut().enumerate() {
        *byte = if b == 0 {
            first
        } else {
            (b as i64 * 7 + i * 3) as u8
        };
    }
    let key = Key {
        slide: SlideId::new(0, slide),
        tile: TileId::new(0, 0, i * 8, 0).unwrap(),
        rev: 0,
    };
    let tile = TileBuf::new(side, side, data, None).unwrap();
    let id = ["a", "b", "c", "d"][slide as usize];
    (key, Body::Pixels(Arc::new(tile)), info(id))
}

/// Sixteen tiles of two slides, of which number 5 is marked.
pub fn tiles() -> Vec<Row> {
    (0..16)
        .map(|i| tile(u64::from(i >= 8), i, if i == 5 { 13 } else { 40 }))
        .collect()
}

/// The same in buffers of a slab, `side` px wide and high.
pub fn tiles_in(slab: &Slab, side: u32) -> Vec<Row> {
    (0..16)
        .map(|i| {
            let data = slab.take(TileBuf::bytes(side, side));
            let first = if i == 5 { 13 } else { 40 };
            placed(u64::from(i >= 8), i, first, side, data)
        })
        .collect()
}

pub fn batch(rows: &[Row]) -> Batch {
    let rows = rows
        .iter()
        .map(|(key, body, info)| (*key, body.clone(), info.clone(), None));
    Batch::new(rows.collect(), 1)
}

/// The outcomes of rows as the runtime gets them: all at once, else row by row; `Err` where a row fails alone.
pub fn outcomes(work: &dyn Work, rows: &[Row]) -> Vec<Result<Body, String>> {
    let mut all = batch(rows);
    if work.run(&mut all).is_ok() {
        return (0..rows.len())
            .map(|i| Ok(all.outcome(i, 0).unwrap().clone()))
            .collect();
    }
    rows.iter()
        .map(|row| {
            let mut one = batch(std::slice::from_ref(row));
            work.run(&mut one)
                .map(|()| one.outcome(0, 0).unwrap().clone())
                .map_err(|error| error.what)
        })
        .collect()
}

pub fn print(outcome: &Result<Body, String>) -> String {
    match outcome {
        Ok(Body::Pixels(tile)) => format!("pixels {:?}", tile.pixels()),
        Ok(Body::Feature(feature)) => {
            format!(
                "feature {:?}",
                feature.iter().map(|f| f.to_bits()).collect::<Vec<_>>()
            )
        }
        Ok(Body::Skip(Skip::Dropped { reason, .. })) => format!("skip {reason}"),
        Ok(Body::Fail(failure)) => format!("fail {} {}", failure.what, failure.help),
        Ok(other) => format!("{other:?}"),
        Err(what) => format!("error {what}"),
    }
}

pub fn printed(id: &str, how: &str, way: &Way) -> Vec<String> {
    let made = made(id, how, way).unwrap();
    outcomes(made.work(), &tiles()).iter().map(print).collect()
}

/// A vector of tile `i` of a slide, with that first number.
pub fn feature(slide: u64, i: i64, first: f32) -> (Key, Body) {
    let key = Key {
        slide: SlideId::new(0, slide),
        tile: TileId::new(0, 0, i * 8, 0).unwrap(),
        rev: 0,
    };
    let numbers = vec![first, 2.0, 0.5];
    (key, Body::Feature(Arc::new(Feature::new(numbers, None))))
}
