//! What the stage sends.
#![allow(clippy::unwrap_used)]
use super::*;
use crate::collected::Collected;
use crate::refusing::{LOST, OUT_OF_MEMORY, refusing};
use proptest::prelude::*;
use weir_kernels::Auto;
use weir_record::{Scores, Tally};

fn kernels() -> Arc<Stand> {
    static KERNELS: std::sync::OnceLock<Arc<Stand>> = std::sync::OnceLock::new();
    let make = || Arc::new(Auto::cpu(weir_kernels::Cpu::new(2).unwrap()).into());
    KERNELS.get_or_init(make).clone()
}

fn slide() -> SlideId {
    SlideId::new(0, 7)
}

fn tile(i: u32) -> TileId {
    TileId::new(0, 0, i as i64 % 10 * 50, i as i64 / 10 * 50).unwrap()
}

fn scored(score: f32) -> Option<Body> {
    Some(Body::Score(Arc::new(Scores {
        score,
        probabilities: vec![1.0 - score, score],
    })))
}

fn done(end: End) -> Completed {
    Completed {
        through: 0,
        end: Some(end),
        tally: Tally::default(),
    }
}

/// What a sort says of what holds: the first `highest` and the last `lowest`.
fn truth(held: &BTreeMap<TileId, (u32, f32)>, ends: Ends) -> BTreeMap<TileId, u32> {
    let mut all: Vec<(TileId, u32, f32)> = held
        .iter()
        .map(|(tile, (rev, score))| (*tile, *rev, *score))
        .collect();
    all.sort_by(|a, b| b.2.partial_cmp(&a.2).unwrap().then(a.0.cmp(&b.0)));
    let n = all.len();
    all.into_iter()
        .enumerate()
        .filter(|(place, _)| *place < ends.highest || place + ends.lowest >= n)
        .map(|(_, (tile, rev, _))| (tile, rev))
        .collect()
}

/// What happens at the stage's door.
#[derive(Clone, Debug)]
enum Happens {
    /// A tile's newest version says this; eighths, so that there are ties.
    Comes(u32, Option<u8>),
    Tick,
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        6 => (0u32..40, prop::option::weighted(0.8, 0u8..8)).prop_map(|(t, s)| Happens::Comes(t, s)),
        1 => Just(Happens::Tick),
    ]
}

proptest! {
    /// Whatever comes in whatever order, ticks or none, what stands at the end is the selection of what holds, and every
    /// generation that was published on the way could be applied.
    #[test]
    fn what_stands_at_the_end_is_the_selection_of_what_holds(
        schedule in prop::collection::vec(happens(), 0..200),
        highest in 1usize..12,
        lowest in 0usize..12,
    ) {
        let ends = Ends { highest, lowest };
        let mut stage = TopK::new("top".into(), ends, false, kernels());
        let mut out = Collected::new(slide());
        let info = out.info.clone();
        stage.opened(slide(), &info, &mut out.cx());
        let (mut revs, mut held) = (BTreeMap::new(), BTreeMap::new());
        for step in &schedule {
            match step {
                Happens::Comes(t, score) => {
                    let rev = revs.entry(*t).and_modify(|rev| *rev += 1).or_insert(0u32);
                    let key = Key { slide: slide(), tile: tile(*t), rev: *rev };
                    match score {
                        Some(score) => {
                            let score = *score as f32 / 8.0;
                            held.insert(tile(*t), (*rev, score));
                            stage.row(0, key, scored(score), &mut out.cx());
                        }
                        None => {
                            held.remove(&tile(*t));
                            stage.row(0, key, None, &mut out.cx());
                        }
                    }
                }
                Happens::Tick => {
                    stage.tick(&mut out.cx());
                    prop_assert_eq!(out.picked(0), truth(&held, ends));
                }
            }
        }
        stage.complete(0, slide(), &done(End::Complete), &mut out.cx());
    stage.settled(&mut out.cx());
        prop_assert_eq!(out.picked(0), truth(&held, ends));
        prop_assert_eq!(out.ended(0), Some(End::Complete));
    }
}

#[test]
fn a_rescanned_tile_that_stays_selected_is_picked_again_and_nothing_else_is() {
    let ends = Ends {
        highest: 2,
        lowest: 0,
    };
    let mut stage = TopK::new("top".into(), ends, false, kernels());
    let mut out = Collected::new(slide());
    let info = out.info.clone();
    stage.opened(slide(), &info, &mut out.cx());
    let key = |t: u32, rev| Key {
        slide: slide(),
        tile: tile(t),
        rev,
    };
    for (t, score) in [(1, 0.9), (2, 0.8), (3, 0.1)] {
        stage.row(0, key(t, 0), scored(score), &mut out.cx());
    }
    stage.tick(&mut out.cx());
    let before = out.rows.len();
    stage.row(0, key(1, 1), scored(0.85), &mut out.cx());
    stage.row(0, key(3, 1), scored(0.2), &mut out.cx());
    stage.tick(&mut out.cx());
    let new: Vec<_> = out.rows[before..].to_vec();
    assert_eq!(new.len(), 1, "{new:?}");
    assert_eq!(new[0].tile, tile(1));
    assert!(matches!(new[0].body, Body::Picked { source_rev: 1, .. }));
    // A tick without a change publishes nothing.
    stage.tick(&mut out.cx());
    assert_eq!((out.rows.len(), out.seals(0)), (before + 1, 2));
}

#[test]
fn a_failed_slide_selects_nothing_and_says_so() {
    let ends = Ends {
        highest: 2,
        lowest: 2,
    };
    let mut stage = TopK::new("top".into(), ends, true, kernels());
    let mut out = Collected::new(slide());
    let info = out.info.clone();
    stage.opened(slide(), &info, &mut out.cx());
    let key = Key {
        slide: slide(),
        tile: tile(1),
        rev: 0,
    };
    stage.row(0, key, scored(0.5), &mut out.cx());
    stage.complete(0, slide(), &done(End::Aborted), &mut out.cx());
    stage.settled(&mut out.cx());
    assert!(out.picked(0).is_empty());
    assert_eq!(out.ended(0), Some(End::Aborted));
}

#[test]
fn a_score_that_is_no_number_is_never_ranked() {
    let ends = Ends {
        highest: 1,
        lowest: 1,
    };
    let mut stage = TopK::new("top".into(), ends, true, kernels());
    let mut out = Collected::new(slide());
    let info = out.info.clone();
    stage.opened(slide(), &info, &mut out.cx());
    for (t, score) in [(0, f32::NAN), (1, 0.5), (2, f32::INFINITY)] {
        let key = Key {
            slide: slide(),
            tile: tile(t),
            rev: 0,
        };
        stage.row(0, key, scored(score), &mut out.cx());
    }
    stage.complete(0, slide(), &done(End::Complete), &mut out.cx());
    stage.settled(&mut out.cx());
    assert_eq!(out.picked(0).into_keys().collect::<Vec<_>>(), [tile(1)]);
    let told = out
        .events
        .iter()
        .filter(|event| matches!(event, Event::TileFailed(_)));
    assert_eq!(told.count(), 2);
}

/// What a device makes of three tiles that come once: the stage after their slide was complete.
fn on(kernels: Arc<Stand>, ends: Ends) -> Collected {
    let mut stage = TopK::new("top".into(), ends, true, kernels);
    let mut out = Collected::new(slide());
    let info = out.info.clone();
    stage.opened(slide(), &info, &mut out.cx());
    for (t, score) in [(0, 0.5), (1, 0.9), (2, 0.1)] {
        let key = Key {
            slide: slide(),
            tile: tile(t),
            rev: 0,
        };
        stage.row(0, key, scored(score), &mut out.cx());
    }
    stage.complete(0, slide(), &done(End::Complete), &mut out.cx());
    stage.settled(&mut out.cx());
    out
}

const BOTH: Ends = Ends {
    highest: 1,
    lowest: 1,
};

#[test]
fn a_device_without_room_changes_no_selection_and_it_is_counted() {
    let kernels = refusing(OUT_OF_MEMORY);
    let out = on(kernels.clone(), BOTH);
    assert_eq!(out.picked(0), on(self::kernels(), BOTH).picked(0));
    assert_eq!(out.ended(0), Some(End::Complete));
    let refused = kernels.refused(Kernel::TopK).unwrap();
    assert_eq!((refused.calls, refused.first.kernel), (1, "top-k"));
}

#[test]
fn a_device_that_fails_fails_the_slide_and_says_which_kernel_and_what_to_do() {
    let out = on(refusing(LOST), BOTH);
    assert!(out.picked(0).is_empty());
    assert_eq!((out.seals(0), out.ended(0)), (1, Some(End::Aborted)));
    let failures: Vec<&Failure> = out
        .events
        .iter()
        .filter_map(|event| match event {
            Event::SlideFailed(failure) => Some(failure),
            _ => None,
        })
        .collect();
    let [failure] = failures.as_slice() else {
        panic!("{failures:?}");
    };
    assert_eq!((failure.stage.as_str(), failure.tile), ("top", None));
    assert!(failure.what.contains("kernel `top-k`"), "{failure:?}");
    assert!(failure.what.contains("700"), "{failure:?}");
    assert!(failure.help.contains("device = \"cpu\""), "{failure:?}");
}

#[test]
fn a_slide_that_failed_while_tiles_came_is_told_once_and_sealed_at_its_end() {
    let mut stage = TopK::new("top".into(), BOTH, true, refusing(LOST));
    let mut out = Collected::new(slide());
    let info = out.info.clone();
    stage.opened(slide(), &info, &mut out.cx());
    for t in 0..3 {
        let key = Key {
            slide: slide(),
            tile: tile(t),
            rev: 0,
        };
        stage.row(0, key, scored(0.5), &mut out.cx());
        stage.tick(&mut out.cx());
        assert_eq!(out.seals(0), 0);
    }
    stage.complete(0, slide(), &done(End::Complete), &mut out.cx());
    stage.settled(&mut out.cx());
    assert_eq!((out.seals(0), out.ended(0)), (1, Some(End::Aborted)));
    let told = out.events.iter();
    let told = told.filter(|event| matches!(event, Event::SlideFailed(_)));
    assert_eq!(told.count(), 1);
}

#[test]
fn more_than_the_kernel_selects_asks_no_device() {
    let kernels = refusing(LOST);
    let more = Ends {
        highest: 2000,
        lowest: 0,
    };
    let out = on(kernels.clone(), more);
    assert_eq!(out.picked(0).len(), 3);
    assert_eq!(kernels.refused(Kernel::TopK), None);
}
