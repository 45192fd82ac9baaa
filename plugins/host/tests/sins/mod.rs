//! The plugin of `sins.c`, its stages in this process and in one of their own, and rows for them.
// Each test program uses its own part of this.
#![allow(dead_code)]

pub use crate::programs::{Made, Way};

use crate::programs::{self, compiled, here, node, values};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use weir_pipeline::{Node, Value};
use weir_plugin_host::{Admitted, Described};
use weir_record::{
    Body, Feature, Key, Skip, Slab, SlabBuf, SlideId, SlideInfo, SlideKey, TileBuf, TileId,
};
use weir_runtime::Outcome;
use weir_runtime::stage::{Batch, StageError, Work};

// ------------------------------------------------------------------------------------------------------- the plugin

pub fn built() -> &'static Path {
    static BUILT: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = BUILT.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let so = folder.path().join("libsins.so");
        compiled(&here("sins/sins.c"), &so, &[]);
        (folder, so)
    });
    path
}

pub fn admitted() -> Admitted {
    programs::admitted(built(), "sins")
}

/// Of a tile that is so small that it is always copied, px.
const SIDE: u32 = 8;

pub fn way(isolated: bool) -> Way {
    Way::of(isolated, SIDE)
}

/// The stage type `id`, as a stage `name` that sins like that.
fn stage(name: &str, id: &str, how: &str, way: &Way) -> Node {
    let schemas = Described::read(built()).unwrap().schemas();
    let schema = schemas.iter().find(|schema| schema.name == id).unwrap();
    node(
        name,
        schema,
        values([("how", Value::Text(how.into()))]),
        way,
    )
}

pub fn made(id: &str, how: &str, way: &Way) -> Result<Made, StageError> {
    let plugins = programs::plugins(built(), "sins", way);
    Made::of(&stage("own", id, how, way), plugins, way)
}

/// A run of stages, each fed by the one before it: of each its name, which is the plugin's behind `sins.`, and how it sins.
pub fn ran(chain: &[(&str, &str)], way: &Way) -> Outcome {
    let nodes = chain
        .iter()
        .map(|(name, how)| stage(name, &format!("sins.{name}"), how, way));
    programs::ran(
        nodes.collect(),
        programs::plugins(built(), "sins", way),
        way,
    )
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

/// Tiles of one slide, which know of it what one source told of it, as those of a run do.
pub fn of_one_slide() -> Vec<Row> {
    let mut rows = tiles();
    rows.truncate(8);
    let info = rows[0].2.clone();
    rows.iter_mut().for_each(|row| row.2 = info.clone());
    rows
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
