//! `top-k`: the m highest and the m lowest tiles of a slide.

use weir_pipeline::{Deliver, Dim, Kind, Param, ParamKind, Place, Port, Rows, Schema, StateArgs};

/// Size and resolution of the tiles go through: a `tile-fetch` behind reads tiles of that size.
const MPP: Option<Dim> = Some(Dim::Same("mpp"));

/// `top-k`.
pub const SCHEMA: Schema = Schema {
    name: "top-k",
    summary: "Selects the tiles with the highest and the lowest scores",
    doc: "Selects `highest` tiles from the top and `lowest` from the bottom of each slide's ranking: score descending, then \
place (row by row) ascending. When a slide has no more tiles than both together, all are selected, once.

In a live run the selection is published every `run.select-tick` while tiles still come; what is published at the end is the same \
as without.",
    rows: Rows::Reduce,
    deliver: Deliver::Arrival,
    place: Place::Home,
    params: &[
        Param {
            name: "highest",
            kind: ParamKind::Integer {
                min: 1,
                max: 1 << 20,
            },
            default: None,
            required: true,
            doc: "Tiles from the top",
        },
        Param {
            name: "lowest",
            kind: ParamKind::Integer {
                min: 0,
                max: 1 << 20,
            },
            default: None,
            required: true,
            doc: "Tiles from the bottom; they give a bag contrast. 0 for none",
        },
    ],
    ins: &[Port {
        name: "scores",
        kind: Kind::Scores,
        shape: &[
            Dim::Same("height"),
            Dim::Same("width"),
            Dim::Same("classes"),
        ],
        mpp: MPP,
        many: true,
        optional: false,
        doc: "Scores of all tiles",
    }],
    outs: &[Port {
        name: "picks",
        kind: Kind::Picks,
        shape: &[Dim::Same("height"), Dim::Same("width")],
        mpp: MPP,
        many: false,
        optional: false,
        doc: "The selected tiles",
    }],
    state_bytes,
    example: "[stage.top]
use = \"top-k\"
in = \"score\"
highest = 32
lowest = 32
",
};

/// The register of a tile and its place in the order, with what B-trees and hash tables leave empty. A run that is not live over
/// slides whose tiles come once keeps less: `highest` + `lowest` of them.
const TILE_BYTES: u64 = 80;

fn state_bytes(args: &StateArgs) -> u64 {
    args.tiles * TILE_BYTES
}
