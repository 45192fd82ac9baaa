//! `predictions-sink`: a slide's prediction, as a file of its own and in the tables of the run.

use weir_pipeline::schema::keeps_nothing;
use weir_pipeline::{Deliver, Dim, Kind, Place, Port, Rows, Schema};

/// What the stage says of itself.
pub const SCHEMA: Schema = Schema {
    name: "predictions-sink",
    summary: "writes predictions.csv, predictions.jsonl and, for each slide, prediction.json",
    doc: "Writes `OUT/SLIDE/prediction.json` when everything else of the slide is on disk: it names the plan, the models, the \
          executors and the input, so that a later run with the same ones skips the slide. A line of \
          `OUT/predictions.jsonl` is appended and synced as each slide ends; the last line of a slide holds. \
          `OUT/predictions.csv`, sorted by slide, is written at the end of the run, after Ctrl-C too.",
    rows: Rows::Sink,
    deliver: Deliver::Arrival,
    place: Place::Home,
    params: &[],
    ins: &[Port {
        name: "predictions",
        kind: Kind::Predictions,
        shape: &[Dim::Same("classes")],
        mpp: None,
        many: false,
        optional: false,
        doc: "Predictions of slides",
    }],
    outs: &[],
    state_bytes: keeps_nothing,
    example: "[stage.predictions]\nuse = \"predictions-sink\"\nin = { predictions = \"classify\" }\n",
};
