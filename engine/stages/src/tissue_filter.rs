//! `tissue-filter`: drops tiles without tissue.

use weir_pipeline::schema::keeps_nothing;
use weir_pipeline::{Deliver, Dim, Kind, Param, ParamKind, Place, Port, Rows, Schema};

/// What flows in flows out.
const PIXELS: &[Dim] = &[Dim::Same("height"), Dim::Same("width"), Dim::Fixed(3.0)];

/// `tissue-filter`.
pub const SCHEMA: Schema = Schema {
    name: "tissue-filter",
    summary: "Drops tiles without tissue",
    doc: "Looks at a tile's own pixels and drops it when less than `tissue-min` of it is tissue, that is, at least `saturation` \
(of 255) in the HSV model. For sources that have no overview to lay a mask over, such as a scanner; where tiles come from whole \
slides, `tissue` of `tile-reader` does it before anything is read.",
    rows: Rows::Filter,
    deliver: Deliver::Arrival,
    place: Place::Home,
    params: &[
        Param {
            name: "tissue-min",
            kind: ParamKind::Float { min: 0.0, max: 1.0 },
            default: Some("0.25"),
            required: false,
            doc: "Part of a tile, 0 to 1, that must be tissue",
        },
        Param {
            name: "saturation",
            kind: ParamKind::Integer { min: 1, max: 255 },
            default: Some("15"),
            required: false,
            doc: "Saturation (HSV, of 255) from which on a pixel is tissue",
        },
    ],
    ins: &[Port {
        name: "tiles",
        kind: Kind::Pixels,
        shape: PIXELS,
        mpp: Some(Dim::Same("mpp")),
        many: false,
        optional: false,
        doc: "Pixels of each tile",
    }],
    outs: &[Port {
        name: "tiles",
        kind: Kind::Pixels,
        shape: PIXELS,
        mpp: Some(Dim::Same("mpp")),
        many: false,
        optional: false,
        doc: "Pixels of each tile with tissue",
    }],
    state_bytes: keeps_nothing,
    example: "[stage.tissue]
use = \"tissue-filter\"
in = \"tiles\"
tissue-min = 0.25
",
};
