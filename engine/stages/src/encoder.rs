//! `encoder`: model B turns tiles into features.

use weir_pipeline::schema::{ModelField, keeps_nothing};
use weir_pipeline::{Deliver, Dim, Kind, ModelKind, Param, ParamKind, Place, Port, Rows, Schema};

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
    state_bytes: keeps_nothing,
    example: "[stage.encode]
use = \"encoder\"
in = \"chosen\"
model = \"b\"
",
};
