//! `tiles-sink`: every scored tile of a slide in one table.

use std::io::{self, Write};
use std::sync::Arc;

use weir_pipeline::{Deliver, Dim, Kind, Place, Port, Rows, Schema, StateArgs, StateBytes};
use weir_runtime::stage::{Prepare, Prepared, StageError, StageType};

use crate::tile_file;
use crate::tiles::{self, Classes, Tiles, number, number64};

/// What the stage says of itself.
pub const SCHEMA: Schema = Schema {
    name: "tiles-sink",
    summary: "writes tiles.csv for each slide: scores, and attention of the selected tiles",
    doc: "Writes `OUT/SLIDE/tiles.csv`, one row a scored tile or member of the bag, sorted by grid, plane, y and x: `x`, `y`, `width`, `height` in \
          level-0 px, `mpp` of the tile's pixels in um/px, `score`, `selected` (`high`, `low` or empty), and for the members \
          of the bag `class` (the slide's predicted class), `logit` and `weight` of the attention, and the tile's \
          `contribution` to that class's logit and `leave_one_out`, its change when the tile is left out. Tiles that could \
          not be read are no rows: run.json counts and names them. A slide that failed has no table.",
    rows: Rows::Sink,
    deliver: Deliver::Arrival,
    place: Place::Home,
    params: &[],
    ins: &[
        Port {
            // Bags of stored features have none.
            optional: true,
            ..SCORES
        },
        ATTENTION,
    ],
    outs: &[],
    batch_only: false,
    state_bytes: StateBytes::Of(state_bytes),
    example: "[stage.table]\nuse = \"tiles-sink\"\nin = { scores = \"score\", attention = \"pool.attention\" }\n",
};

/// The stage with its code.
pub const TYPE: StageType = StageType {
    schema: &SCHEMA,
    prepare,
};

/// Scores of tiles, as every sink that shows tiles takes them.
pub(crate) const SCORES: Port = Port {
    name: "scores",
    kind: Kind::Scores,
    shape: &[
        Dim::Same("height"),
        Dim::Same("width"),
        Dim::Same("classes"),
    ],
    mpp: Some(Dim::Same("mpp")),
    many: false,
    optional: false,
    doc: "Scores of tiles",
};

/// Attention of members, as every sink that shows tiles takes it.
pub(crate) const ATTENTION: Port = Port {
    name: "attention",
    kind: Kind::Attention,
    shape: &[],
    mpp: None,
    many: false,
    optional: true,
    doc: "Parts of the selected tiles in their bag",
};

fn state_bytes(args: &StateArgs) -> u64 {
    args.tiles * tiles::BYTES
}

const FILE: &str = "tiles.csv";

const COLUMNS: [&str; 12] = [
    "x",
    "y",
    "width",
    "height",
    "mpp",
    "score",
    "selected",
    "class",
    "logit",
    "weight",
    "contribution",
    "leave_one_out",
];

/// One row a tile, in TileId order.
fn write_table(tiles: &Tiles, classes: &Classes, to: &mut dyn Write) -> io::Result<()> {
    let selected = tiles.selected();
    let mut table = csv::Writer::from_writer(to);
    table.write_record(COLUMNS)?;
    for tile in tiles.all() {
        let grid = tiles.info.grid(tile);
        let footprint = grid.map_or_else(String::new, |grid| number64(grid.footprint));
        let mut row = vec![
            tile.x().to_string(),
            tile.y().to_string(),
            footprint.clone(),
            footprint,
            // A file of features need not say it.
            grid.filter(|grid| grid.mpp > 0.0)
                .map_or_else(String::new, |grid| number64(grid.mpp)),
            tiles
                .scores
                .get(&tile)
                .map_or_else(String::new, |s| number(*s)),
            selected
                .get(&tile)
                .map_or("", |(side, _)| side.name())
                .to_owned(),
        ];
        match tiles.attention.get(&tile) {
            Some(part) => row.extend([
                classes.name(part.class),
                number(part.logit),
                number(part.weight),
                number(part.contribution),
                number(part.leave_one_out),
            ]),
            None => row.resize(COLUMNS.len(), String::new()),
        }
        table.write_record(row)?;
    }
    table.flush()
}

/// Makes it ready for a run.
fn prepare(cx: &Prepare) -> Result<Prepared, StageError> {
    let classes = Classes::upstream(cx, tiles::ATTENTION);
    tile_file::prepare(
        cx,
        FILE,
        Arc::new(move |tiles: &Tiles, to: &mut dyn Write| write_table(tiles, &classes, to)),
    )
}
