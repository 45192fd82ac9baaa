//! `tissue-filter`: drops tiles without tissue.

use std::sync::Arc;

use weir_pipeline::schema::StateBytes;
use weir_pipeline::{Deliver, Dim, Kind, Param, ParamKind, Place, Port, Rows, Schema};
use weir_record::{Body, Skip};
use weir_runtime::stage::{Batch, Prepare, Prepared, StageError, StageType, Work};
use weir_slide::tissue;

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
    batch_only: false,
    state_bytes: StateBytes::Nothing,
    example: "[stage.tissue]
use = \"tissue-filter\"
in = \"tiles\"
tissue-min = 0.25
",
};

/// The stage type.
pub const TYPE: StageType = StageType {
    schema: &SCHEMA,
    prepare,
};

fn prepare(cx: &Prepare) -> Result<Prepared, StageError> {
    Ok(Prepared::Work(Arc::new(TissueFilter {
        least: cx.values().float("tissue-min")?,
        saturation: cx.values().integer("saturation")?.clamp(1, 255) as u8,
        background: Skip::Dropped {
            stage: cx.node.name.as_str().into(),
            reason: "background".into(),
        },
    })))
}

struct TissueFilter {
    least: f64,
    saturation: u8,
    background: Skip,
}

impl Work for TissueFilter {
    fn run(&self, batch: &mut Batch) -> Result<(), StageError> {
        for i in 0..batch.len() {
            let Body::Pixels(tile) = batch.body(i) else {
                return Err(StageError::new(
                    "what came is no tile",
                    "this is a fault of the stage before: please report it",
                ));
            };
            let outcome = if tissue::fraction(tile.pixels(), self.saturation) >= self.least {
                Body::Pixels(tile.clone())
            } else {
                Body::Skip(self.background.clone())
            };
            batch.set(i, 0, outcome);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use weir_record::{Key, SlideId, SlideInfo, SlideKey, TileBuf, TileId};

    #[test]
    fn a_tile_of_glass_is_dropped_and_one_with_enough_tissue_passes() {
        let stage = TissueFilter {
            least: 0.25,
            saturation: 15,
            background: Skip::Dropped {
                stage: "tissue".into(),
                reason: "background".into(),
            },
        };
        let info = Arc::new(SlideInfo::unopened("a".into(), SlideKey(0), "a".into()));
        // Of 16 px, `coloured` are stained and the others glass.
        let row = |coloured: usize| {
            let pixels: Vec<u8> = (0..16)
                .flat_map(|i| {
                    if i < coloured {
                        [190, 120, 170]
                    } else {
                        [244, 242, 245]
                    }
                })
                .collect();
            let tile = TileBuf::new(4, 4, pixels.into(), None).unwrap();
            let key = Key {
                slide: SlideId::new(0, 0),
                tile: TileId::new(0, 0, coloured as i64, 0).unwrap(),
                rev: 0,
            };
            (key, Body::Pixels(Arc::new(tile)), info.clone(), None)
        };
        let mut batch = Batch::new(vec![row(0), row(3), row(4), row(16)], 1);
        stage.run(&mut batch).unwrap();
        let kept: Vec<bool> = (0..4)
            .map(|i| matches!(batch.outcome(i, 0), Some(Body::Pixels(_))))
            .collect();
        assert_eq!(kept, [false, false, true, true]);
        assert!(matches!(
            batch.outcome(0, 0),
            Some(Body::Skip(Skip::Dropped { .. }))
        ));
    }
}
