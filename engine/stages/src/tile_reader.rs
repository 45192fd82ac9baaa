//! `tile-reader`: slides to tiles at an exact resolution.

use weir_pipeline::{Deliver, Dim, Kind, Param, ParamKind, Place, Port, Rows, Schema, StateArgs};

/// `tile-reader`.
pub const SCHEMA: Schema = Schema {
    name: "tile-reader",
    summary: "Reads slides as tiles of one size at one resolution",
    doc: "Opens the slides that `slides` names (files, folders, patterns, manifests), lays a grid over each, leaves out places \
without tissue, and sends the tiles' pixels. A tile has `size` x `size` px at exactly `mpp` um/px, whatever levels the slide \
has: the coarsest level that is fine enough is read, and each pixel is the mean over its own area.

The size of a slide's pixel comes from the first that speaks: `slide-mpp` or the manifest, the vendor's key, the TIFF resolution, \
the objective's power, `run.default-mpp`. A slide that nobody speaks for is not read, nor is one whose pixel cannot be.

A tile that cannot be read is counted as failed, never replaced. A slide without tissue is a legal, empty result.",
    rows: Rows::Source,
    deliver: Deliver::Arrival,
    place: Place::Home,
    params: &[
        Param {
            name: "slides",
            kind: ParamKind::Slides,
            default: None,
            required: true,
            doc: "Slides: files, folders, patterns with `*`, or manifests (CSV with the columns slide, label, split, patient, mpp)",
        },
        Param {
            name: "size",
            kind: ParamKind::Integer { min: 8, max: 8192 },
            default: None,
            required: true,
            doc: "Width and height of a tile, px at `mpp`",
        },
        Param {
            name: "mpp",
            kind: ParamKind::Float {
                min: 0.05,
                max: 200.0,
            },
            default: None,
            required: true,
            doc: "Resolution of a tile's pixels, um/px",
        },
        Param {
            name: "overlap",
            kind: ParamKind::Integer { min: 0, max: 8191 },
            default: Some("0"),
            required: false,
            doc: "Pixels that neighbouring tiles share, px at `mpp`; less than `size`",
        },
        Param {
            name: "edge",
            kind: ParamKind::Choice(&["pad", "drop"]),
            default: Some("\"pad\""),
            required: false,
            doc: "Tiles that reach over the slide's right or lower edge: `pad` keeps them, white outside of the slide; `drop` leaves them out",
        },
        Param {
            name: "tissue",
            kind: ParamKind::Choice(&["otsu", "none"]),
            default: Some("\"otsu\""),
            required: false,
            doc: "Which places are tiles: `otsu` those with tissue, by a threshold on the saturation of an overview; `none` all",
        },
        Param {
            name: "tissue-min",
            kind: ParamKind::Float { min: 0.0, max: 1.0 },
            default: Some("0.25"),
            required: false,
            doc: "Part of a tile, 0 to 1, that must be tissue",
        },
        Param {
            name: "slide-mpp",
            kind: ParamKind::Float {
                min: 0.05,
                max: 20.0,
            },
            default: None,
            required: false,
            doc: "Size of a level-0 pixel of every slide that the manifest says nothing of, um/px; believed rather than the file",
        },
        Param {
            name: "half-size",
            kind: ParamKind::Boolean,
            default: Some("false"),
            required: false,
            doc: "Decode JPEG straight to half the size where no level fits: faster, but pixels differ a little from the mean of four",
        },
        Param {
            name: "order",
            kind: ParamKind::Choice(&["file", "rows", "random"]),
            default: Some("\"file\""),
            required: false,
            doc: "Order in which tiles are read: `file` decodes each native tile once, `rows` goes row by row, `random` follows run.seed; it never changes an answer",
        },
    ],
    ins: &[],
    outs: &[Port {
        name: "tiles",
        kind: Kind::Pixels,
        shape: &[Dim::Param("size"), Dim::Param("size"), Dim::Fixed(3.0)],
        mpp: Some(Dim::Param("mpp")),
        many: false,
        optional: false,
        doc: "Pixels of each tile",
    }],
    state_bytes,
    example: "[stage.tiles]
use = \"tile-reader\"
slides = [\"slides/*.svs\"]
size = 224
mpp = 0.5
",
};

/// The list of the tiles that are still to be read.
fn state_bytes(args: &StateArgs) -> u64 {
    args.tiles * 8
}
