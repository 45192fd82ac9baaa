//! `geojson-sink`: tiles as objects that QuPath opens.

use std::io::{self, Write};
use std::sync::Arc;

use serde::Serialize;
use sha2::{Digest, Sha256};
use weir_pipeline::{Deliver, Param, ParamKind, Place, Rows, Schema, StateArgs, StateBytes};
use weir_record::TileId;
use weir_runtime::stage::{Prepare, Prepared, StageError, StageType};

use crate::tile_file;
use crate::tiles::{self, Side, Tiles};
use crate::tiles_sink::{ATTENTION, SCORES};

/// What the stage says of itself.
pub const SCHEMA: Schema = Schema {
    name: "geojson-sink",
    summary: "writes tiles.geojson for each slide, for QuPath",
    doc: "Writes `OUT/SLIDE/tiles.geojson`: each tile is a square in level-0 px with its score and, when it is selected, its \
          attention weight, logit, contribution, leave-one-out and rank as measurements, and is classed `high`, `low` or \
          `other`. In QuPath drop the file on the open slide; Measure > Show measurement maps colours the tiles. A slide \
          that failed has no file.",
    rows: Rows::Sink,
    deliver: Deliver::Arrival,
    place: Place::Home,
    params: &[
        Param {
            name: "tiles",
            kind: ParamKind::Choice(&["selected", "all"]),
            default: Some("\"selected\""),
            required: false,
            doc: "Which tiles; all of a large slide make a file that QuPath takes minutes to open",
        },
        Param {
            name: "object",
            kind: ParamKind::Choice(&["tile", "detection", "annotation"]),
            default: Some("\"tile\""),
            required: false,
            doc: "What QuPath makes of a tile; annotations can be edited, but are slow by the thousand",
        },
    ],
    ins: &[SCORES, ATTENTION],
    outs: &[],
    batch_only: false,
    state_bytes: StateBytes::Of(state_bytes),
    example: "[stage.qupath]\nuse = \"geojson-sink\"\nin = { scores = \"score\", attention = \"pool.attention\" }\n",
};

/// The stage with its code.
pub const TYPE: StageType = StageType {
    schema: &SCHEMA,
    prepare,
};

fn state_bytes(args: &StateArgs) -> u64 {
    args.tiles * tiles::BYTES
}

const FILE: &str = "tiles.geojson";

/// What QuPath reads (qupath-core, QuPathTypeAdapters.java).
#[derive(Serialize)]
struct Feature<'a> {
    r#type: &'static str,
    id: String,
    geometry: Polygon,
    properties: Properties<'a>,
}

#[derive(Serialize)]
struct Polygon {
    r#type: &'static str,
    coordinates: [[[f64; 2]; 5]; 1],
}

/// `objectType` stands here: beside `properties` QuPath does not see it.
#[derive(Serialize)]
struct Properties<'a> {
    #[serde(rename = "objectType")]
    object: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    classification: Classification,
    measurements: Measurements,
}

#[derive(Serialize)]
struct Classification {
    name: &'static str,
    color: [u8; 3],
}

/// An object of numbers, not a list of pairs, since QuPath 0.4. What is not known or not finite is left out.
#[derive(Serialize)]
struct Measurements {
    #[serde(skip_serializing_if = "Option::is_none")]
    score: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attention: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logit: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    contribution: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    leave_one_out: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rank: Option<u32>,
}

/// The same tile has the same id in every run, so that QuPath knows an object that it has.
fn uuid(slide: &str, tile: TileId) -> String {
    let digest = Sha256::new()
        .chain_update(slide.as_bytes())
        .chain_update([0])
        .chain_update(tile.word().to_be_bytes())
        .finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    // RFC 9562, version 8: bits of one's own choice.
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let word = u128::from_be_bytes(bytes);
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        word >> 96,
        word >> 80 & 0xffff,
        word >> 64 & 0xffff,
        word >> 48 & 0xffff,
        word & 0xffff_ffff_ffff
    )
}

/// A FeatureCollection, one feature a line, in TileId order.
fn write_features(tiles: &Tiles, all: bool, object: &str, to: &mut dyn Write) -> io::Result<()> {
    let selected = tiles.selected();
    let finite = |value: f32| value.is_finite().then_some(value);
    write!(to, "{{\"type\":\"FeatureCollection\",\"features\":[")?;
    let mut between = "\n";
    for tile in tiles.all() {
        let (side, part) = (selected.get(&tile), tiles.attention.get(&tile));
        let Some(grid) = tiles.info.grid(tile) else {
            continue;
        };
        if !all && side.is_none() && part.is_none() {
            continue;
        }
        let (left, top) = (tile.x() as f64, tile.y() as f64);
        let (right, bottom) = (left + grid.footprint, top + grid.footprint);
        let (name, color) = match side {
            Some((Side::High, _)) => ("high", [213, 62, 79]),
            Some((Side::Low, _)) => ("low", [50, 136, 189]),
            None => ("other", [150, 150, 150]),
        };
        let feature = Feature {
            r#type: "Feature",
            id: uuid(&tiles.info.id, tile),
            geometry: Polygon {
                r#type: "Polygon",
                coordinates: [[
                    [left, top],
                    [right, top],
                    [right, bottom],
                    [left, bottom],
                    [left, top],
                ]],
            },
            properties: Properties {
                object,
                name: side.map(|(side, rank)| format!("{} {rank}", side.name())),
                classification: Classification { name, color },
                measurements: Measurements {
                    score: tiles.scores.get(&tile).copied().and_then(finite),
                    attention: part.and_then(|part| finite(part.weight)),
                    logit: part.and_then(|part| finite(part.logit)),
                    contribution: part.and_then(|part| finite(part.contribution)),
                    leave_one_out: part.and_then(|part| finite(part.leave_one_out)),
                    rank: side.map(|(_, rank)| *rank),
                },
            },
        };
        write!(to, "{between}")?;
        serde_json::to_writer(&mut *to, &feature)?;
        between = ",\n";
    }
    writeln!(to, "\n]}}")
}

/// Makes it ready for a run.
fn prepare(cx: &Prepare) -> Result<Prepared, StageError> {
    let all = cx.values().text("tiles")? == "all";
    let object = cx.values().text("object")?.to_owned();
    tile_file::prepare(
        cx,
        FILE,
        Arc::new(move |tiles: &Tiles, to: &mut dyn Write| write_features(tiles, all, &object, to)),
    )
}
