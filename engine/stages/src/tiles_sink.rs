//! `tiles-sink`: every scored tile of a slide in one table.

use weir_pipeline::{Deliver, Dim, Kind, Place, Port, Rows, Schema, StateArgs};

/// What the stage says of itself.
pub const SCHEMA: Schema = Schema {
    name: "tiles-sink",
    summary: "writes tiles.csv for each slide: scores, and attention of the selected tiles",
    doc: "Writes `OUT/SLIDE/tiles.csv`, one row a scored tile, sorted by grid, plane, y and x: `x`, `y`, `width`, `height` in \
          level-0 px, `mpp` of the tile's pixels in um/px, `score`, `selected` (`high`, `low` or empty), and for the members \
          of the bag `class` (the slide's predicted class), `logit` and `weight` of the attention, and the tile's \
          `contribution` to that class's logit and `leave_one_out`, its change when the tile is left out. Tiles that could \
          not be read are no rows: run.json counts and names them. A slide that failed has no table.",
    rows: Rows::Sink,
    deliver: Deliver::Arrival,
    place: Place::Home,
    params: &[],
    ins: &[SCORES, ATTENTION],
    outs: &[],
    state_bytes,
    example: "[stage.table]\nuse = \"tiles-sink\"\nin = { scores = \"score\", attention = \"pool.attention\" }\n",
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
    args.tiles * crate::tiles::BYTES
}
