//! `geojson-sink`: tiles as objects that QuPath opens.

use crate::tiles_sink::{ATTENTION, SCORES};
use weir_pipeline::{Deliver, Param, ParamKind, Place, Rows, Schema, StateArgs};

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
    state_bytes,
    example: "[stage.qupath]\nuse = \"geojson-sink\"\nin = { scores = \"score\", attention = \"pool.attention\" }\n",
};

fn state_bytes(args: &StateArgs) -> u64 {
    args.tiles * crate::tiles::BYTES
}
