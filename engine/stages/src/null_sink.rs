//! `null-sink`: takes tiles and lets them go.

use std::sync::Arc;
use std::time::Duration;

use weir_pipeline::schema::StateBytes;
use weir_pipeline::{Deliver, Dim, Kind, Param, ParamKind, Place, Port, Rows, Schema};
use weir_record::{Body, Key, SlideId, SlideInfo};
use weir_runtime::stage::{Completed, Prepare, Prepared, Sink, StageError, StageType};

/// `null-sink`.
pub const SCHEMA: Schema = Schema {
    name: "null-sink",
    summary: "Takes tiles and writes nothing",
    doc: "Ends a stream of pixels without a file: to measure how fast slides are read, or to see how a graph behaves in front of \
a slow consumer, which `pause` makes of it. Tiles are still counted, and a slide is done when all of them came.",
    rows: Rows::Sink,
    deliver: Deliver::Arrival,
    place: Place::Home,
    params: &[Param {
        name: "pause",
        kind: ParamKind::Duration,
        default: Some("\"0ms\""),
        required: false,
        doc: "How long each tile is held before it is let go, as `\"5ms\"`",
    }],
    ins: &[Port {
        name: "tiles",
        kind: Kind::Pixels,
        shape: &[Dim::Same("height"), Dim::Same("width"), Dim::Fixed(3.0)],
        mpp: Some(Dim::Same("mpp")),
        many: false,
        optional: false,
        doc: "Pixels of each tile",
    }],
    outs: &[],
    batch_only: false,
    state_bytes: StateBytes::Nothing,
    example: "[stage.nothing]
use = \"null-sink\"
in = \"tiles\"
",
};

/// The stage type.
pub const TYPE: StageType = StageType {
    schema: &SCHEMA,
    prepare,
};

fn prepare(cx: &Prepare) -> Result<Prepared, StageError> {
    let pause = cx.values().duration("pause")?;
    Ok(Prepared::Sink(Arc::new(move || Box::new(Null { pause }))))
}

struct Null {
    pause: Duration,
}

impl Sink for Null {
    fn opened(&mut self, _: SlideId, _: &Arc<SlideInfo>) -> Result<(), StageError> {
        Ok(())
    }

    fn row(&mut self, _: usize, _: Key, body: Body) -> Result<(), StageError> {
        if !self.pause.is_zero() && matches!(body, Body::Pixels(_)) {
            std::thread::sleep(self.pause);
        }
        // The lease on the pixels ends here.
        drop(body);
        Ok(())
    }

    fn ended(&mut self, _: SlideId, _: &[Completed]) -> Result<(), StageError> {
        Ok(())
    }

    fn closed(&mut self, _: SlideId) {}
}
