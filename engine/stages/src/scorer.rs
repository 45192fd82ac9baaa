//! `scorer`: model A scores tiles.

use std::sync::Arc;

use weir_model::Scorer;
use weir_pipeline::schema::{ModelField, StateBytes};
use weir_pipeline::{Deliver, Dim, Kind, ModelKind, Param, ParamKind, Place, Port, Rows, Schema};
use weir_record::Body;
use weir_runtime::stage::{Batch, BatchShape, Prepare, Prepared, StageError, StageType, Work};

use crate::executors::{self, Runs, model_error};

const SIZE: Dim = Dim::Model {
    param: "model",
    field: ModelField::InputSize,
};
const MPP: Dim = Dim::Model {
    param: "model",
    field: ModelField::InputMpp,
};
const CLASSES: Dim = Dim::Model {
    param: "model",
    field: ModelField::Classes,
};

/// `scorer`.
pub const SCHEMA: Schema = Schema {
    name: "scorer",
    summary: "Scores tiles with a model of kind `scorer`",
    doc: "Runs a network of kind `scorer` (model A) on each tile: class probabilities, and the score by which tiles are ranked. \
With two classes the score is the probability of the positive one; with more, what speaks against the class called `normal`, \
or the probability of the positive class where none is called that.

A tile of which the network makes no finite number is counted as failed.",
    rows: Rows::Map,
    deliver: Deliver::Arrival,
    place: Place::Home,
    params: &[Param {
        name: "model",
        kind: ParamKind::Model(ModelKind::Scorer),
        default: None,
        required: true,
        doc: "Name of a [model] table; its kind is `scorer`",
    }],
    ins: &[Port {
        name: "tiles",
        kind: Kind::Pixels,
        shape: &[SIZE, SIZE, Dim::Fixed(3.0)],
        mpp: Some(MPP),
        many: false,
        optional: false,
        doc: "Pixels of each tile, of the size and resolution that the model was trained on",
    }],
    outs: &[Port {
        name: "scores",
        kind: Kind::Scores,
        shape: &[SIZE, SIZE, CLASSES],
        mpp: Some(MPP),
        many: false,
        optional: false,
        doc: "Score and class probabilities of each tile",
    }],
    batch_only: false,
    state_bytes: StateBytes::Nothing,
    example: "[stage.score]
use = \"scorer\"
in = \"tiles\"
model = \"a\"
",
};

/// The stage type.
pub const TYPE: StageType = StageType {
    schema: &SCHEMA,
    prepare,
};

fn prepare(cx: &Prepare) -> Result<Prepared, StageError> {
    let runs = Runs::of(cx)?;
    let scorer = Scorer::load(cx.model("model")?, &runs.choice).map_err(model_error)?;
    executors::enter(cx, scorer.chosen());
    Ok(Prepared::Work(Arc::new(Score { scorer, runs })))
}

struct Score {
    scorer: Scorer,
    runs: Runs,
}

/// The pixels of a batch, in its order.
pub(crate) fn pixels(batch: &Batch) -> Result<Vec<&[u8]>, StageError> {
    (0..batch.len())
        .map(|i| match batch.body(i) {
            Body::Pixels(tile) => Ok(tile.pixels()),
            _ => Err(StageError::new(
                "what came is no tile",
                "this is a fault of the stage before: please report it",
            )),
        })
        .collect()
}

impl Work for Score {
    fn run(&self, batch: &mut Batch) -> Result<(), StageError> {
        let scores = self.scorer.score(&pixels(batch)?).map_err(model_error)?;
        self.runs.tell_trace();
        for (i, scores) in scores.into_iter().enumerate() {
            batch.set(i, 0, Body::Score(Arc::new(scores)));
        }
        Ok(())
    }

    fn shape(&self) -> BatchShape {
        self.runs.shape()
    }
}
