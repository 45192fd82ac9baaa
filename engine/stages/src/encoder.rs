//! `encoder`: model B turns tiles into features.

use std::sync::Arc;

use weir_model::Encoder;
use weir_pipeline::schema::{ModelField, StateBytes};
use weir_pipeline::{Deliver, Dim, Kind, ModelKind, Param, ParamKind, Place, Port, Rows, Schema};
use weir_record::{Body, Class, Feature, SlideInfo};
use weir_runtime::stage::{Batch, BatchShape, Prepare, Prepared, StageError, StageType, Work};

use crate::executors::{self, Runs, model_error};
use crate::scorer::pixels;

const SIZE: Dim = Dim::Model {
    param: "model",
    field: ModelField::InputSize,
};

/// `encoder`.
pub const SCHEMA: Schema = Schema {
    name: "encoder",
    summary: "Turns tiles into feature vectors with a model of kind `bag`",
    doc: "Runs the encoder of a model of kind `bag` (model B) on each tile. A tile of which the network makes no finite numbers \
is counted as failed.",
    rows: Rows::Map,
    deliver: Deliver::Arrival,
    place: Place::Home,
    params: &[Param {
        name: "model",
        kind: ParamKind::Model(ModelKind::Bag),
        default: None,
        required: true,
        doc: "Name of a [model] table; its kind is `bag`",
    }],
    ins: &[Port {
        name: "tiles",
        kind: Kind::Pixels,
        shape: &[SIZE, SIZE, Dim::Fixed(3.0)],
        mpp: Some(Dim::Model {
            param: "model",
            field: ModelField::InputMpp,
        }),
        many: false,
        optional: false,
        doc: "Pixels of each tile, of the size and resolution that the model was trained on",
    }],
    outs: &[Port {
        name: "features",
        kind: Kind::Features,
        shape: &[Dim::Model {
            param: "model",
            field: ModelField::Feature,
        }],
        mpp: None,
        many: false,
        optional: false,
        doc: "The feature vector of each tile",
    }],
    batch_only: false,
    state_bytes: StateBytes::Nothing,
    example: "[stage.encode]
use = \"encoder\"
in = \"chosen\"
model = \"b\"
",
};

/// The stage type.
pub const TYPE: StageType = StageType {
    schema: &SCHEMA,
    prepare,
};

fn prepare(cx: &Prepare) -> Result<Prepared, StageError> {
    let header = cx.model("model")?;
    let runs = Runs::of(cx)?;
    let encoder = Encoder::load(header, &runs.choice).map_err(model_error)?;
    executors::enter(cx, encoder.chosen());
    let bytes = header.feature as usize * size_of::<f32>();
    Ok(Prepared::Work(Arc::new(Encode {
        encoder,
        runs,
        bytes,
    })))
}

struct Encode {
    encoder: Encoder,
    runs: Runs,
    /// Of a feature vector.
    bytes: usize,
}

/// Bodies below this are not leased.
const LEASED_FROM: usize = 1024;

impl Work for Encode {
    fn run(&self, batch: &mut Batch) -> Result<(), StageError> {
        let features = self.encoder.encode(&pixels(batch)?).map_err(model_error)?;
        self.runs.tell_trace();
        for (i, features) in features.into_iter().enumerate() {
            let lease = batch.take_lease(i);
            batch.set(i, 0, Body::Feature(Arc::new(Feature::new(features, lease))));
        }
        Ok(())
    }

    fn shape(&self) -> BatchShape {
        self.runs.shape()
    }

    fn output_bytes(&self, _: &Body, _: &SlideInfo) -> Option<(Class, usize)> {
        (self.bytes >= LEASED_FROM).then_some((Class::Fetch, self.bytes))
    }
}
