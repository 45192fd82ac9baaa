//! `scripted-source`: plays what a scanner might do, from a file.

mod play;
mod script;

use std::path::Path;
use std::sync::Arc;

use weir_pipeline::schema::StateBytes;
use weir_pipeline::{Deliver, Dim, Kind, Param, ParamKind, Place, Port, Rows, Schema};
use weir_runtime::stage::{Prepare, Prepared, SlideRef, StageError, StageType};
use weir_slide::input::slide_key;

use play::Scripted;
use script::parse;

/// `scripted-source`.
pub const SCHEMA: Schema = Schema {
    name: "scripted-source",
    summary: "Plays a script of made-up slides, for rehearsals and tests",
    doc: "Reads a file of JSON objects, one a line; each says what a source does next with a slide. Slides play side by side, each \
in the order of its own lines. Pixels are a pattern that depends on the slide, the tile and how often it was sent, or the colour \
`rgb`.

| line | meaning |
|---|---|
| `{\"do\": \"open\", \"slide\": \"s\"}` | the slide; `width` and `height` (level-0 px), `patient`, `label`; `error`: it cannot be opened; `early`: seals go ahead of the tiles; `latest`: only the newest version of a tile can be read again |
| `{\"do\": \"tile\", \"slide\": \"s\", \"x\": 0, \"y\": 0}` | send a tile, or send it again; `rgb`; `ms`: reading it takes so long |
| `{\"do\": \"region\", \"slide\": \"s\", \"x\": 0, \"y\": 0, \"width\": 64, \"height\": 64}` | send every tile of the slide's grid that the region touches |
| `{\"do\": \"fail\", \"slide\": \"s\", \"x\": 0, \"y\": 0, \"what\": \"torn\"}` | send a tile that cannot be read |
| `{\"do\": \"gone\", \"slide\": \"s\", \"x\": 0, \"y\": 0}` | withdraw a tile |
| `{\"do\": \"delay\", \"slide\": \"s\", \"ms\": 50}` | wait |
| `{\"do\": \"seal\", \"slide\": \"s\", \"end\": \"complete\"}` | the slide stands (or `incomplete`, `aborted`); lines after it open it again; at the end of the script every slide is sealed |
| `{\"do\": \"hold\", \"slide\": \"s\"}` | nothing more until the run is stopped |
| `{\"do\": \"panic\", \"slide\": \"s\", \"in\": \"worker\"}` | a fault of the program, there or in a `reader` thread |",
    rows: Rows::Source,
    deliver: Deliver::Arrival,
    place: Place::Home,
    params: &[
        Param {
            name: "script",
            kind: ParamKind::Path { exists: true },
            default: None,
            required: true,
            doc: "The script: a file of JSON lines",
        },
        Param {
            name: "size",
            kind: ParamKind::Integer { min: 2, max: 4096 },
            default: Some("32"),
            required: false,
            doc: "Width and height of a tile, px; level-0 px too, since these slides have one level",
        },
        Param {
            name: "mpp",
            kind: ParamKind::Float {
                min: 0.05,
                max: 200.0,
            },
            default: Some("1.0"),
            required: false,
            doc: "Resolution of a tile's pixels, um/px",
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
    batch_only: false,
    state_bytes: StateBytes::Nothing,
    example: "[stage.tiles]
use = \"scripted-source\"
script = \"rehearsal.jsonl\"
size = 32
",
};

/// The stage type.
pub const TYPE: StageType = StageType {
    schema: &SCHEMA,
    prepare,
};

fn prepare(cx: &Prepare) -> Result<Prepared, StageError> {
    let file = cx.values().path("script")?;
    let size = cx.values().integer("size")? as u32;
    let text = std::fs::read_to_string(file).map_err(|error| {
        StageError::new(
            format!("the script {} cannot be read: {error}", file.display()),
            "give a file of JSON lines",
        )
    })?;
    let parts = parse(&text, &file.display().to_string(), size)?;
    let slides = parts.keys().map(|id| SlideRef {
        id: id.clone(),
        key: slide_key(id),
        path: shown(file, id),
    });
    Ok(Prepared::Source(Arc::new(Scripted {
        stage: cx.node.name.clone(),
        slides: slides.collect(),
        parts,
        size,
        mpp: cx.values().float("mpp")?,
    })))
}

fn shown(file: &Path, slide: &str) -> String {
    format!("{}#{slide}", file.display())
}
