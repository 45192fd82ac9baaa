//! What a source of files sends of a slide, in order.

use std::sync::Arc;

use weir_record::ledger::check;
use weir_record::{Body, End, Event, Seal, Skip, TileId};
use weir_runtime::stage::{Script, Step};

/// What is sent of each tile.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sends {
    /// Pixels, so many a side.
    Pixels(u32),
    /// Features, so many numbers.
    Features(u32),
}

/// Sends a slide's tiles once: the seal first, since their number is known before the first is read.
pub(crate) struct Once {
    stage: Arc<str>,
    sends: Sends,
    news: Option<Event>,
    seal: Option<Seal>,
    tiles: std::vec::IntoIter<TileId>,
    /// The seal of the generation that says: stopped.
    aborts: Option<Seal>,
    stopped: bool,
    done: bool,
}

const ABORTED: Seal = Seal {
    n: 0,
    check: 0,
    last: Some(End::Aborted),
};

impl Once {
    pub(crate) fn new(stage: Arc<str>, sends: Sends, tiles: Vec<TileId>) -> Self {
        let sum = tiles
            .iter()
            .fold(0u64, |sum, tile| sum.wrapping_add(check(*tile, 0)));
        Once {
            stage,
            sends,
            news: None,
            seal: Some(Seal {
                n: tiles.len() as u64,
                check: sum,
                last: Some(End::Complete),
            }),
            tiles: tiles.into_iter(),
            aborts: None,
            stopped: false,
            done: false,
        }
    }

    /// Of a slide that needs no computing: `news` says why, and every domain of it ends empty.
    pub(crate) fn skipped(news: Event) -> Self {
        Once {
            news: Some(news),
            ..Once::new("".into(), Sends::Pixels(0), Vec::new())
        }
    }
}

impl Script for Once {
    fn next(&mut self) -> Step {
        if let Some(news) = self.news.take() {
            return Step::Event(news);
        }
        if let Some(seal) = self.seal.take() {
            return Step::Seal { rev: 0, seal };
        }
        // Ahead of what is left of generation 0, so that nothing takes that for the end.
        if let Some(seal) = self.aborts.take() {
            return Step::Seal { rev: 1, seal };
        }
        match self.tiles.next() {
            None => {
                self.done = true;
                Step::Done
            }
            Some(tile) if self.stopped => Step::Outcome {
                tile,
                rev: 0,
                body: Body::Skip(Skip::Dropped {
                    stage: self.stage.clone(),
                    reason: "the run was stopped".into(),
                }),
            },
            Some(tile) => match self.sends {
                Sends::Pixels(px) => Step::Tile {
                    tile,
                    rev: 0,
                    width: px,
                    height: px,
                },
                Sends::Features(width) => Step::Feature {
                    tile,
                    rev: 0,
                    width,
                },
            },
        }
    }

    fn stop(&mut self) {
        if self.done || self.stopped {
            return;
        }
        self.stopped = true;
        match &mut self.seal {
            // Nothing was said of any tile yet.
            Some(seal) => {
                *seal = ABORTED;
                self.tiles = Vec::new().into_iter();
            }
            None => self.aborts = Some(ABORTED),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use weir_record::{Kind, Ledger};

    fn tiles(n: u32) -> Vec<TileId> {
        (0..n)
            .map(|i| TileId::new(0, 0, i as i64 % 7 * 50, i as i64 / 7 * 50).unwrap())
            .collect()
    }

    proptest! {
        /// Stopped after any number of steps, every version that a seal spoke of has one outcome and the slide ends aborted;
        /// not stopped, or stopped when all was said, it ends complete.
        #[test]
        fn a_stop_leaves_no_version_without_an_outcome(n in 0u32..40, steps in 0usize..60) {
            let mut script = Once::new("tiles".into(), Sends::Pixels(50), tiles(n));
            let mut ledger = Ledger::default();
            let (mut over, mut stopped_in_time) = (false, false);
            for step in 0.. {
                if step == steps && !over {
                    script.stop();
                    stopped_in_time = true;
                }
                match script.next() {
                    Step::Tile { tile, rev, .. } => {
                        prop_assert!(!stopped_in_time, "a tile after the stop");
                        ledger.outcome(rev, tile, Kind::Value).unwrap();
                    }
                    Step::Outcome { tile, rev, body } => {
                        ledger.outcome(rev, tile, Kind::of(&body).unwrap()).unwrap();
                    }
                    Step::Seal { rev, seal } => ledger.seal(rev, seal).unwrap(),
                    Step::Done => {
                        over = true;
                        if step >= steps {
                            break;
                        }
                    }
                    other => prop_assert!(false, "{other:?}"),
                }
            }
            let end = if stopped_in_time { End::Aborted } else { End::Complete };
            prop_assert_eq!(ledger.ended(), Some(end));
        }
    }
}
