//! `scorer`: model A scores tiles.

use weir_pipeline::schema::{ModelField, keeps_nothing};
use weir_pipeline::{Deliver, Dim, Kind, ModelKind, Param, ParamKind, Place, Port, Rows, Schema};

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
With two classes the score is the probability of the positive one; with more, the greatest probability of a class other than \
the first, which is the background.

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
    state_bytes: keeps_nothing,
    example: "[stage.score]
use = \"scorer\"
in = \"tiles\"
model = \"a\"
",
};
