//! Collects what a reduce sends, for tests without an operator.

use std::collections::BTreeMap;
use std::sync::Arc;
use weir_record::{Body, End, Event, Row, SlideId, SlideInfo, SlideKey, TileId};
use weir_runtime::stage::{Cx, Emit};

/// Versions, seals and news of one slide.
pub(crate) struct Collected {
    slide: SlideId,
    pub(crate) info: Arc<SlideInfo>,
    /// Versions in the order in which they were sent, of all outputs.
    pub(crate) rows: Vec<Row>,
    pub(crate) events: Vec<Event>,
    outputs: [Output; 2],
}

#[derive(Default)]
struct Output {
    seals: Vec<Option<End>>,
    open: Vec<TileId>,
    held: BTreeMap<TileId, Body>,
}

impl Collected {
    pub(crate) fn new(slide: SlideId) -> Self {
        let info = SlideInfo::unopened("slide".into(), SlideKey(1), "slide.tiff".into());
        Collected {
            slide,
            info: Arc::new(info),
            rows: Vec::new(),
            events: Vec::new(),
            outputs: Default::default(),
        }
    }

    pub(crate) fn cx(&mut self) -> Cx<'_> {
        Cx::new(self)
    }

    /// What holds on `output` after all that was sent.
    pub(crate) fn held(&self, output: usize) -> &BTreeMap<TileId, Body> {
        &self.outputs[output].held
    }

    /// The picks that hold, with the revision that they speak of.
    pub(crate) fn picked(&self, output: usize) -> BTreeMap<TileId, u32> {
        let picked = self
            .held(output)
            .iter()
            .filter_map(|(tile, body)| match body {
                Body::Picked { source_rev, .. } => Some((*tile, *source_rev)),
                _ => None,
            });
        picked.collect()
    }

    /// Generations that were sealed on `output`.
    pub(crate) fn seals(&self, output: usize) -> usize {
        self.outputs[output].seals.len()
    }

    /// What the last seal of `output` says.
    pub(crate) fn ended(&self, output: usize) -> Option<End> {
        *self.outputs[output].seals.last()?
    }
}

impl Emit for Collected {
    fn version(&mut self, output: usize, slide: SlideId, tile: TileId, body: Body) -> u32 {
        assert_eq!(slide, self.slide);
        let out = &mut self.outputs[output];
        assert!(
            !out.open.contains(&tile),
            "{tile:?} twice in one generation"
        );
        out.open.push(tile);
        if matches!(body, Body::Gone) {
            assert!(
                out.held.remove(&tile).is_some(),
                "{tile:?} left, but was not there"
            );
        } else {
            out.held.insert(tile, body.clone());
        }
        let rev = out.seals.len() as u32;
        self.rows.push(Row {
            slide,
            tile,
            rev,
            body,
        });
        rev
    }

    fn seal(&mut self, output: usize, _: SlideId, last: Option<End>) {
        self.outputs[output].open.clear();
        self.outputs[output].seals.push(last);
    }

    fn event(&mut self, _: SlideId, event: Event) {
        self.events.push(event);
    }

    fn info(&self, _: SlideId) -> Option<Arc<SlideInfo>> {
        Some(self.info.clone())
    }
}
