//! `attention-pool`: features of a slide's tiles to one bag, and each tile's part in it.

use weir_pipeline::schema::ModelField;
use weir_pipeline::{
    Deliver, Dim, Kind, ModelKind, Param, ParamKind, Place, Port, Rows, Schema, StateArgs,
};

const FEATURE: Dim = Dim::Model {
    param: "model",
    field: ModelField::Feature,
};

/// `attention-pool`.
pub const SCHEMA: Schema = Schema {
    name: "attention-pool",
    summary: "Pools a slide's features by attention",
    doc: "Gives each tile an attention, normalises the attentions to weights that add up to 1, and pools the features by them. \
`squared-average` with `link = \"none\"` is the paper's literal form, w = a^2 / sum a^2; `link = \"sigmoid\"` squares the \
attention's sigmoid instead. Normalisation and link are the model's unless they are given here.

The pooled vector is a function of the set of tiles: the same to the bit, whatever order they came in and however often they were \
corrected. `accumulate = \"exact\"` pools by integer sums (contract `exact-q128/1`) where the normalisation allows it; such bags \
merge and retract exactly.

`bag` carries one bag a slide, `attention` each member's weight, contribution to the predicted class, and what the class's logit \
changes by when the tile is left out.",
    rows: Rows::Reduce,
    deliver: Deliver::Generation,
    place: Place::Home,
    params: &[
        Param {
            name: "model",
            kind: ParamKind::Model(ModelKind::Bag),
            default: None,
            required: true,
            doc: "Name of a [model] table; its kind is `bag`",
        },
        Param {
            name: "normalise",
            kind: ParamKind::Choice(&[
                "squared-average",
                "softmax",
                "sigmoid",
                "sparsemax",
                "mean",
                "max",
                "power",
            ]),
            default: None,
            required: false,
            doc: "How attentions become weights; the model's own when it is not given",
        },
        Param {
            name: "link",
            kind: ParamKind::Choice(&["none", "sigmoid"]),
            default: None,
            required: false,
            doc: "What an attention goes through before it is normalised; the model's own when it is not given",
        },
        Param {
            name: "power",
            kind: ParamKind::Float {
                min: 0.01,
                max: 64.0,
            },
            default: None,
            required: false,
            doc: "Exponent of `normalise = \"power\"`",
        },
        Param {
            name: "accumulate",
            kind: ParamKind::Choice(&["ordered", "exact"]),
            default: Some("\"ordered\""),
            required: false,
            doc: "`ordered`: f32 in the tiles' order, for every normalisation; `exact`: integer sums, for squared-average and mean",
        },
    ],
    ins: &[Port {
        name: "features",
        kind: Kind::Features,
        shape: &[FEATURE],
        mpp: None,
        many: true,
        optional: false,
        doc: "Features of the bag's tiles",
    }],
    outs: &[
        Port {
            name: "bag",
            kind: Kind::Bag,
            shape: &[FEATURE],
            mpp: None,
            many: false,
            optional: false,
            doc: "One bag a slide",
        },
        Port {
            name: "attention",
            kind: Kind::Attention,
            shape: &[],
            mpp: None,
            many: false,
            optional: false,
            doc: "Each member's part in the bag",
        },
    ],
    state_bytes,
    example: "[stage.pool]
use = \"attention-pool\"
in = \"encode\"
model = \"b\"
",
};

/// A member's place in the set, beside its feature vector, bytes.
const MEMBER_BYTES: u64 = 96;

/// The members that hold, and as many that wait for their generation to be whole.
fn state_bytes(args: &StateArgs) -> u64 {
    2 * args.tiles * (4 * args.feature + MEMBER_BYTES)
}
