//! `tile-fetch`: pixels of what was selected, read again.

use std::sync::Arc;
use std::time::Duration;

use weir_pipeline::schema::StateBytes;
use weir_pipeline::{Deliver, Dim, Kind, Place, Port, Rows, Schema};
use weir_record::{Body, Class, Key, Skip, Slab, SlabBuf, SlideInfo, TileBuf};
use weir_runtime::stage::{
    Batch, BatchShape, OpenSlides, Prepare, Prepared, ReadError, StageError, StageType, Work,
};

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
        many: false,
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
    batch_only: false,
    state_bytes: StateBytes::Nothing,
    example: "[stage.chosen]
use = \"tile-fetch\"
in = \"top\"
",
};

/// The stage type.
pub const TYPE: StageType = StageType {
    schema: &SCHEMA,
    prepare,
};

fn prepare(cx: &Prepare) -> Result<Prepared, StageError> {
    Ok(Prepared::Work(Arc::new(Fetch {
        open: cx.shared.get::<OpenSlides>(),
        slab: cx.slab.clone(),
    })))
}

struct Fetch {
    open: Arc<OpenSlides>,
    slab: Slab,
}

/// What was read of a pick.
enum Fetched {
    Pixels(u32, SlabBuf),
    Superseded,
}

impl Fetch {
    fn fetch(&self, key: Key, body: &Body, info: &SlideInfo) -> Result<Fetched, StageError> {
        let fault = |what: &str| StageError::new(what, "this is a fault of weir: please report it");
        let Body::Picked { source_rev, .. } = body else {
            return Err(fault("what came is no selected tile"));
        };
        let reader = self
            .open
            .get(key.slide)
            .ok_or_else(|| fault("the slide was closed before its selected tiles were read"))?;
        let grid = info
            .grid(key.tile)
            .ok_or_else(|| fault("the tile is of a grid that the slide does not have"))?;
        let mut pixels = self.slab.take(TileBuf::bytes(grid.px, grid.px));
        match reader.read(key.tile, *source_rev, &mut pixels) {
            Ok(()) => Ok(Fetched::Pixels(grid.px, pixels)),
            Err(ReadError::Superseded) => Ok(Fetched::Superseded),
            Err(ReadError::Damaged(what)) => Err(StageError::new(what, "")),
        }
    }
}

impl Work for Fetch {
    fn run(&self, batch: &mut Batch) -> Result<(), StageError> {
        // Leases are taken when all is read: a batch with a tile that cannot be is tried again row by row.
        let fetched: Vec<Fetched> = (0..batch.len())
            .map(|i| self.fetch(batch.key(i), batch.body(i), batch.info(i)))
            .collect::<Result<_, _>>()?;
        for (i, fetched) in fetched.into_iter().enumerate() {
            let outcome = match fetched {
                Fetched::Superseded => Body::Skip(Skip::Superseded),
                Fetched::Pixels(px, pixels) => {
                    match TileBuf::new(px, px, pixels, batch.take_lease(i)) {
                        Some(tile) => Body::Pixels(Arc::new(tile)),
                        // No outcome is a Fail: `TileBuf` and `Slab` disagree about a length.
                        None => continue,
                    }
                }
            };
            batch.set(i, 0, outcome);
        }
        Ok(())
    }

    fn shape(&self) -> BatchShape {
        BatchShape {
            rows: 4,
            linger: Duration::from_millis(1),
            ..BatchShape::default()
        }
    }

    fn output_bytes(&self, _: &Body, info: &SlideInfo) -> Option<(Class, usize)> {
        let most = info.grids.iter().map(|grid| grid.px).max()?;
        Some((Class::Fetch, TileBuf::bytes(most, most)))
    }
}
