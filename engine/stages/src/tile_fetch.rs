//! `tile-fetch`: pixels of what was selected, read again.

use weir_pipeline::schema::keeps_nothing;
use weir_pipeline::{Deliver, Dim, Kind, Place, Port, Rows, Schema};

const MPP: Option<Dim> = Some(Dim::Same("mpp"));

/// `tile-fetch`.
pub const SCHEMA: Schema = Schema {
    name: "tile-fetch",
    summary: "Reads the pixels of selected tiles again",
    doc: "Reads the pixels of each selected tile from its slide, exactly the version that was selected. Keeping the pixels of \
every tile until the selection is known would take a slide's worth of memory; reading a few dozen again takes milliseconds.

It reads the slide's own pixels: a stage that changes pixels between the reader and the scorer must stand behind `tile-fetch` too.",
    rows: Rows::Map,
    deliver: Deliver::Arrival,
    place: Place::Home,
    params: &[],
    ins: &[Port {
        name: "picks",
        kind: Kind::Picks,
        shape: &[Dim::Same("height"), Dim::Same("width")],
        mpp: MPP,
        many: true,
        optional: false,
        doc: "The selected tiles",
    }],
    outs: &[Port {
        name: "tiles",
        kind: Kind::Pixels,
        shape: &[Dim::Same("height"), Dim::Same("width"), Dim::Fixed(3.0)],
        mpp: MPP,
        many: false,
        optional: false,
        doc: "Pixels of each selected tile",
    }],
    state_bytes: keeps_nothing,
    example: "[stage.chosen]
use = \"tile-fetch\"
in = \"top\"
",
};
