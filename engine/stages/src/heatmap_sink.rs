//! `heatmap-sink`: a picture of a slide's scores and attention.

use crate::tiles_sink::{ATTENTION, SCORES};
use weir_pipeline::{Deliver, Dim, Kind, Param, ParamKind, Place, Port, Rows, Schema, StateArgs};

/// What the stage says of itself.
pub const SCHEMA: Schema = Schema {
    name: "heatmap-sink",
    summary: "writes heatmap.png for each slide: tissue, scores and attention side by side",
    doc: "Writes `OUT/SLIDE/heatmap.png`: the slide with its selected tiles outlined, the scores of all tiles, and the \
          attention weights of the selected ones, each tile at its true place and size; with legends, a scale bar in um, and \
          hatched squares where a tile could not be read. Where tiles overlap, the mean is shown. A slide that failed or has \
          no tissue has no picture.",
    rows: Rows::Sink,
    deliver: Deliver::Arrival,
    place: Place::Home,
    params: &[
        Param {
            name: "max-side",
            kind: ParamKind::Integer {
                min: 200,
                max: 4000,
            },
            default: Some("800"),
            required: false,
            doc: "Longest side of each of the three pictures, px",
        },
        Param {
            name: "palette",
            kind: ParamKind::Choice(&["viridis", "inferno", "magma", "cividis"]),
            default: Some("\"inferno\""),
            required: false,
            doc: "Colours of the scores; all are perceptually uniform",
        },
        Param {
            name: "alpha",
            kind: ParamKind::Float { min: 0.1, max: 1.0 },
            default: Some("0.75"),
            required: false,
            doc: "How much of the tissue the colours cover, from 0.1 to 1 (all of it)",
        },
    ],
    ins: &[
        SCORES,
        ATTENTION,
        Port {
            name: "predictions",
            kind: Kind::Predictions,
            shape: &[Dim::Same("predicted classes")],
            mpp: None,
            many: false,
            optional: true,
            doc: "Predictions of slides, for the title",
        },
    ],
    outs: &[],
    state_bytes,
    example: "[stage.heatmap]\nuse = \"heatmap-sink\"\nin = { scores = \"score\", attention = \"pool.attention\", predictions = \"classify\" }\n",
};

/// The tiles; one picture is painted at a time, so its bytes are not reserved for each slide.
fn state_bytes(args: &StateArgs) -> u64 {
    args.tiles * crate::tiles::BYTES
}
