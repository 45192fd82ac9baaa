//! `classifier`: a bag becomes a prediction.

use weir_pipeline::schema::{ModelField, keeps_nothing};
use weir_pipeline::{Deliver, Dim, Kind, ModelKind, Param, ParamKind, Place, Port, Rows, Schema};

/// `classifier`.
pub const SCHEMA: Schema = Schema {
    name: "classifier",
    summary: "Classifies a slide's bag",
    doc: "Runs the last layer of a model of kind `bag` on the pooled features: logits, probabilities (softmax), and the class of \
the greatest probability, the first of equals. An empty bag and a slide that failed get a prediction that says so and has no class.",
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
        name: "bag",
        kind: Kind::Bag,
        shape: &[Dim::Model {
            param: "model",
            field: ModelField::Feature,
        }],
        mpp: None,
        many: false,
        optional: false,
        doc: "One bag a slide",
    }],
    outs: &[Port {
        name: "predictions",
        kind: Kind::Predictions,
        shape: &[Dim::Model {
            param: "model",
            field: ModelField::Classes,
        }],
        mpp: None,
        many: false,
        optional: false,
        doc: "One prediction a slide, replaced by later ones while the slide is open",
    }],
    state_bytes: keeps_nothing,
    example: "[stage.classify]
use = \"classifier\"
in = \"pool.bag\"
model = \"b\"
",
};
