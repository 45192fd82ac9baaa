//! A scorer that costs nothing: what is left is the engine's.

use std::sync::Arc;
use std::time::Duration;
use weir_pipeline::{Deliver, Dim, Kind, Place, Port, Rows, Schema, StateBytes};
use weir_record::{Body, Scores};
use weir_runtime::stage::{Batch, BatchShape, Prepare, Prepared, StageError, StageType, Work};

/// The stage type.
pub const TYPE: StageType = StageType {
    schema: &SCHEMA,
    prepare,
};

/// A port of tiles.
pub const TILES: Port = Port {
    name: "tiles",
    kind: Kind::Pixels,
    shape: &[Dim::Same("height"), Dim::Same("width"), Dim::Fixed(3.0)],
    mpp: Some(Dim::Same("mpp")),
    many: false,
    optional: false,
    doc: "Pixels",
};

/// What it says of itself.
pub const SCHEMA: Schema = Schema {
    name: "free-scorer",
    summary: "Scores tiles without looking at them",
    doc: "For benches.",
    rows: Rows::Map,
    deliver: Deliver::Arrival,
    place: Place::Home,
    params: &[],
    ins: &[TILES],
    outs: &[Port {
        name: "scores",
        kind: Kind::Scores,
        shape: &[Dim::Same("height"), Dim::Same("width"), Dim::Fixed(2.0)],
        mpp: Some(Dim::Same("mpp")),
        many: false,
        optional: false,
        doc: "Scores",
    }],
    batch_only: false,
    state_bytes: StateBytes::Nothing,
    example: "",
};

struct Free(Arc<Scores>);

impl Work for Free {
    fn run(&self, batch: &mut Batch) -> Result<(), StageError> {
        for i in 0..batch.len() {
            batch.set(i, 0, Body::Score(self.0.clone()));
        }
        Ok(())
    }

    fn shape(&self) -> BatchShape {
        BatchShape {
            rows: 64,
            linger: Duration::from_millis(5),
            timeout: Duration::from_secs(60),
        }
    }
}

fn prepare(_: &Prepare) -> Result<Prepared, StageError> {
    Ok(Prepared::Work(Arc::new(Free(Arc::new(Scores {
        score: 0.5,
        probabilities: vec![0.5, 0.5],
    })))))
}
