//! The stage types of the graph.

use std::collections::HashMap;
use std::sync::Arc;

use weir_pipeline::{Deliver, Kind, Place, Port, Rows, Schema, StateArgs, StateBytes};
use weir_runtime::stage::{Prepare, Prepared, StageError, StageType};

use super::relay::Relay;
use super::source::Tiles;
use super::stages::{Collect, Encoder, Fetch, Pool, Scorer, Select};
use super::{FEATURE, Scenario, Seen};

const fn port(kind: Kind) -> Port {
    Port {
        name: "rows",
        kind,
        shape: &[],
        mpp: None,
        many: false,
        optional: false,
        doc: "",
    }
}

const fn schema(
    name: &'static str,
    rows: Rows,
    ins: &'static [Port],
    outs: &'static [Port],
) -> Schema {
    Schema {
        name,
        summary: "",
        doc: "",
        rows,
        deliver: Deliver::Arrival,
        place: Place::Home,
        params: &[],
        ins,
        outs,
        batch_only: false,
        state_bytes: StateBytes::Nothing,
        example: "",
    }
}

fn keeps_features(_: &StateArgs) -> u64 {
    64 * FEATURE as u64
}

pub(super) static SOURCE: Schema = schema("source", Rows::Source, &[], &[port(Kind::Pixels)]);
const PIXELS: &[Port] = &[port(Kind::Pixels)];
pub(super) static RELAYS: [Schema; 3] = [
    schema("relay-0", Rows::Map, PIXELS, PIXELS),
    schema("relay-1", Rows::Map, PIXELS, PIXELS),
    schema("relay-2", Rows::Map, PIXELS, PIXELS),
];
pub(super) static SCORE: Schema = schema(
    "score",
    Rows::Map,
    &[port(Kind::Pixels)],
    &[port(Kind::Scores)],
);
pub(super) static SELECT: Schema = schema(
    "select",
    Rows::Reduce,
    &[port(Kind::Scores)],
    &[port(Kind::Picks)],
);
pub(super) static FETCH: Schema = schema(
    "fetch",
    Rows::Map,
    &[port(Kind::Picks)],
    &[port(Kind::Pixels)],
);
pub(super) static ENCODE: Schema = schema(
    "encode",
    Rows::Map,
    &[port(Kind::Pixels)],
    &[port(Kind::Features)],
);
pub(super) static POOL: Schema = Schema {
    deliver: Deliver::Generation,
    batch_only: false,
    state_bytes: StateBytes::Of(keeps_features),
    ..schema(
        "pool",
        Rows::Reduce,
        &[port(Kind::Features)],
        &[port(Kind::Table)],
    )
};
pub(super) static SINK: Schema = schema("sink", Rows::Sink, &[port(Kind::Table)], &[]);
pub(super) static TABLE: Schema = Schema {
    place: Place::First,
    ..schema("table", Rows::Sink, &[port(Kind::Table)], &[])
};

/// A sink of the one row of each slide.
pub static WHOLE: Schema = schema("whole", Rows::Sink, &[port(Kind::Predictions)], &[]);

/// The stage types of the graph.
pub const TYPES: &[StageType] = &[
    StageType {
        schema: &SOURCE,
        prepare: |cx| Ok(Prepared::Source(Arc::new(Tiles::new(cx)))),
    },
    StageType {
        schema: &RELAYS[0],
        prepare: |cx| relay(cx, 0),
    },
    StageType {
        schema: &RELAYS[1],
        prepare: |cx| relay(cx, 1),
    },
    StageType {
        schema: &RELAYS[2],
        prepare: |cx| relay(cx, 2),
    },
    StageType {
        schema: &SCORE,
        prepare: |cx| Ok(Prepared::Work(Arc::new(Scorer(scenario(cx))))),
    },
    StageType {
        schema: &SELECT,
        prepare: |cx| {
            let (scenario, seen) = (scenario(cx), cx.shared.get::<Seen>());
            Ok(Prepared::Reduce(Arc::new(move || {
                Box::new(Select {
                    scenario: scenario.clone(),
                    seen: seen.clone(),
                    scores: HashMap::new(),
                })
            })))
        },
    },
    StageType {
        schema: &FETCH,
        prepare: |cx| {
            Ok(Prepared::Work(Arc::new(Fetch(
                cx.shared.get(),
                cx.slab.clone(),
            ))))
        },
    },
    StageType {
        schema: &ENCODE,
        prepare: |cx| {
            Ok(Prepared::Work(Arc::new(Encoder(
                scenario(cx),
                cx.shared.get(),
            ))))
        },
    },
    StageType {
        schema: &POOL,
        prepare: |_| Ok(Prepared::Reduce(Arc::new(|| Box::<Pool>::default()))),
    },
    StageType {
        schema: &SINK,
        prepare: collect,
    },
    StageType {
        schema: &TABLE,
        prepare: collect,
    },
    StageType {
        schema: &WHOLE,
        prepare: collect,
    },
];

pub(super) fn scenario(cx: &Prepare) -> Arc<Scenario> {
    cx.shared
        .get_or_try("", || Err(()))
        .unwrap_or_else(|()| Arc::new(Scenario::default()))
}

fn relay(cx: &Prepare, at: usize) -> Result<Prepared, StageError> {
    Ok(Prepared::Work(Arc::new(Relay {
        scenario: scenario(cx),
        seen: cx.shared.get(),
        at,
    })))
}

fn collect(cx: &Prepare) -> Result<Prepared, StageError> {
    let (scenario, seen) = (scenario(cx), cx.shared.get::<Seen>());
    Ok(Prepared::Sink(Arc::new(move || {
        Box::new(Collect {
            scenario: scenario.clone(),
            seen: seen.clone(),
            slides: HashMap::new(),
        })
    })))
}
