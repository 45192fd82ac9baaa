//! What the stage sends.
#![allow(clippy::unwrap_used)]
use super::*;
use crate::collected::Collected;
use crate::refusing::{LOST, OUT_OF_MEMORY, refusing};
use proptest::prelude::*;
use std::sync::OnceLock;
use weir_kernels::auto::Kernel;
use weir_kernels::{Auto, Cpu};
use weir_model::Weights;
use weir_model::folder::{parameters, save};
use weir_pipeline::model::{ModelHeader, ModelInput};
use weir_record::{Attention, Bag, BagFlags, Feature, Prediction};

const FEATURE: usize = 6;

/// A bag model with random weights, for features of six numbers.
fn model() -> BagModel {
    pooled_by(&Pooling::default())
}

fn pooled_by(pooling: &Pooling) -> BagModel {
    static MODEL: OnceLock<(tempfile::TempDir, ModelHeader)> = OnceLock::new();
    let make = || {
        let folder = tempfile::tempdir().unwrap();
        let header = ModelHeader {
            format: 1,
            kind: ModelKind::Bag,
            arch: "small".into(),
            feature: FEATURE as u32,
            hidden: 5,
            gated: true,
            classes: vec!["no".into(), "yes".into()],
            positive: "yes".into(),
            input: ModelInput {
                size: 16,
                mpp: 1.0,
                mean: [0.5; 3],
                std: [0.5; 3],
            },
            normalise: "squared-average".into(),
            link: "none".into(),
            power: None,
            contract: "ordered-f32/1".into(),
            sha256: String::new(),
            training: None,
            folder: Default::default(),
        };
        let weights = Weights::start(&parameters(&header).unwrap(), 3);
        let header = save(folder.path(), &header, &weights).unwrap();
        (folder, header)
    };
    let (_, header) = MODEL.get_or_init(make);
    BagModel::load(header, pooling).unwrap()
}

/// What workers share, with bags of `whole` tiles and more pooled by the kernels.
fn shared(selects: Option<&str>, whole: usize) -> Arc<Pooler> {
    Arc::new(Pooler {
        stage: "pool".into(),
        model: model(),
        kernels: Arc::new(Auto::cpu(Cpu::new(2).unwrap()).into()),
        whole,
        selects: selects.map(str::to_owned),
    })
}

/// The bag of a set by the loops, member by member.
fn truth(
    held: &BTreeMap<TileId, Arc<Feature>>,
    about: Circumstances,
) -> (Bag, Vec<(TileId, Attention)>) {
    let mut members = Members::default();
    for (tile, feature) in held {
        members.insert(*tile, feature);
    }
    let features: Vec<&[f32]> = held.values().map(|feature| &***feature).collect();
    let (model, matrix) = (model(), members.in_order());
    let pooled = model.pool(&features);
    bag(&model, &members, &matrix, pooled, about)
}

fn slide() -> SlideId {
    SlideId::new(0, 3)
}

fn tile(i: u8) -> TileId {
    TileId::new(0, 0, i as i64 * 50, 0).unwrap()
}

fn feature(seed: u8) -> Arc<Feature> {
    let numbers = (0..FEATURE).map(|i| ((seed as usize * 31 + i * 17) % 97) as f32 / 50.0);
    Arc::new(Feature::new(numbers.collect(), None))
}

fn done(through: u32, end: Option<End>) -> Completed {
    Completed {
        through,
        end,
        tally: Tally::default(),
    }
}

fn opened(selects: Option<&str>) -> (Pool, Collected) {
    let mut stage = Pool::new(shared(selects, 4));
    let mut out = Collected::new(slide());
    let info = out.info.clone();
    stage.opened(slide(), &info, &mut out.cx());
    (stage, out)
}

fn published(out: &Collected) -> Bag {
    match out.held(BAG).get(&TileId::SLIDE) {
        Some(Body::Bag(bag)) => (**bag).clone(),
        other => panic!("{other:?}"),
    }
}

fn attention(out: &Collected) -> BTreeMap<TileId, Attention> {
    let held = out.held(ATTENTION).iter().map(|(tile, body)| match body {
        Body::Attention(attention) => (*tile, **attention),
        other => panic!("{other:?}"),
    });
    held.collect()
}

/// A tile's feature, or that it left; a generation's end, whole or with a superseded tile; a tick.
#[derive(Clone, Debug)]
enum Happens {
    Comes(u8, Option<u8>),
    Whole,
    Withheld,
    Tick,
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        6 => (0u8..20, prop::option::weighted(0.7, any::<u8>())).prop_map(|(t, f)| Happens::Comes(t, f)),
        2 => Just(Happens::Whole),
        1 => Just(Happens::Withheld),
        2 => Just(Happens::Tick),
    ]
}

proptest! {
    /// However a bag came about, what is published is the pool of the set that holds; and nothing is published of a
    /// generation that is not whole.
    #[test]
    fn a_bag_is_a_function_of_its_set(schedule in prop::collection::vec(happens(), 0..80)) {
        let (mut stage, mut out) = opened(None);
        let mut held: BTreeMap<TileId, Arc<Feature>> = BTreeMap::new();
        let mut whole = false;
        let mut rev = 0;
        for step in &schedule {
            match step {
                Happens::Comes(t, value) => {
                    let key = Key { slide: slide(), tile: tile(*t), rev };
                    let body = value.map(|value| {
                        held.insert(tile(*t), feature(value));
                        Body::Feature(feature(value))
                    });
                    if body.is_none() {
                        held.remove(&tile(*t));
                    }
                    stage.row(0, key, body, &mut out.cx());
                    whole = false;
                }
                Happens::Whole => {
                    stage.complete(0, slide(), &done(rev, None), &mut out.cx());
                    stage.settled(&mut out.cx());
                    rev += 1;
                    whole = true;
                }
                Happens::Withheld => rev += 1,
                Happens::Tick => {
                    let before = out.seals(BAG);
                    stage.tick(&mut out.cx());
                    prop_assert_eq!(out.seals(BAG) - before, usize::from(whole));
                    whole = false;
                }
            }
        }
        stage.complete(0, slide(), &done(rev, Some(End::Complete)), &mut out.cx());
                    stage.settled(&mut out.cx());
        let about = Circumstances {
            coverage: Coverage::default(),
            selection: rev,
            ended: Some(End::Complete),
            state: if held.is_empty() { State::NoTissue } else { State::Final },
        };
        let (truth, parts) = truth(&held, about);
        // Debug shows each bit of an f32: two that differ have different texts.
        prop_assert_eq!(format!("{:?}", published(&out)), format!("{truth:?}"));
        prop_assert_eq!(attention(&out), parts.into_iter().collect::<BTreeMap<_, _>>());
        prop_assert_eq!((out.ended(BAG), out.ended(ATTENTION)), (Some(End::Complete), Some(End::Complete)));
        prop_assert_eq!(truth.exact.map(|sums| sums.n), Some(held.len() as i64));
    }
}

#[test]
fn a_slide_that_failed_or_was_stopped_has_an_empty_bag_and_no_members() {
    for (failed, state) in [(true, State::Failed), (false, State::Interrupted)] {
        let (mut stage, mut out) = opened(None);
        let key = Key {
            slide: slide(),
            tile: tile(1),
            rev: 0,
        };
        stage.row(0, key, Some(Body::Feature(feature(1))), &mut out.cx());
        stage.complete(0, slide(), &done(0, None), &mut out.cx());
        stage.settled(&mut out.cx());
        stage.tick(&mut out.cx());
        assert_eq!(attention(&out).len(), 1);
        if failed {
            let failure = weir_record::Failure {
                stage: "top".into(),
                slide: "slide".into(),
                tile: None,
                what: "too many".into(),
                help: String::new(),
            };
            stage.event(slide(), &Event::SlideFailed(failure), &mut out.cx());
        }
        stage.complete(0, slide(), &done(1, Some(End::Aborted)), &mut out.cx());
        stage.settled(&mut out.cx());
        let bag = published(&out);
        assert_eq!(
            (bag.state, bag.n, bag.ended),
            (state, 0, Some(End::Aborted))
        );
        assert!(bag.flags.has(BagFlags::EMPTY) && bag.pooled.is_empty());
        assert!(attention(&out).is_empty());
    }
}

#[test]
fn a_slide_that_an_earlier_run_is_done_with_gets_no_bag() {
    let (mut stage, mut out) = opened(None);
    let prediction = Prediction {
        revision: 0,
        state: State::Final,
        classes: vec!["no".into(), "yes".into()],
        class: Some(0),
        logits: vec![1.0, 0.0],
        probabilities: vec![0.7, 0.3],
        bag: Bag {
            n: 0,
            flags: BagFlags::EMPTY,
            pooled: Vec::new(),
            effective: 0.0,
            entropy: 0.0,
            exact: None,
            contract: String::new(),
            coverage: Coverage::default(),
            selection: 0,
            ended: Some(End::Complete),
            state: State::Final,
        },
    };
    let event = Event::Skipped {
        path: "out/slide/prediction.json".into(),
        prediction: Arc::new(prediction),
    };
    stage.event(slide(), &event, &mut out.cx());
    stage.complete(0, slide(), &done(0, Some(End::Complete)), &mut out.cx());
    stage.settled(&mut out.cx());
    assert!(out.rows.is_empty());
    assert_eq!(
        (out.ended(BAG), out.ended(ATTENTION)),
        (Some(End::Complete), Some(End::Complete))
    );
}

#[test]
fn coverage_is_what_the_selecting_stage_counted_and_a_lost_member_degrades_the_bag() {
    let (mut stage, mut out) = opened(Some("top"));
    let source = Tally {
        value: 90,
        fail: 1,
        ..Tally::default()
    };
    let ended = |stage: &str, tally: &Tally| Event::LedgerEnded {
        stage: stage.into(),
        port: "scores".into(),
        end: End::Complete,
        tally: tally.clone(),
    };
    stage.event(slide(), &ended("top", &source), &mut out.cx());
    stage.event(slide(), &ended("other", &Tally::default()), &mut out.cx());
    let key = Key {
        slide: slide(),
        tile: tile(1),
        rev: 0,
    };
    stage.row(0, key, Some(Body::Feature(feature(1))), &mut out.cx());
    let selected = Tally {
        value: 1,
        fail: 1,
        gone: 4,
        ..Tally::default()
    };
    let done = Completed {
        tally: selected,
        ..done(2, Some(End::Complete))
    };
    stage.complete(0, slide(), &done, &mut out.cx());
    stage.settled(&mut out.cx());
    let bag = published(&out);
    assert_eq!(bag.coverage.source, source);
    assert_eq!(
        (bag.coverage.selected.fail, bag.coverage.selected.gone),
        (1, 0)
    );
    assert!(bag.flags.has(BagFlags::DEGRADED));
    assert_eq!((bag.selection, bag.state), (2, State::Final));
}

/// The bag of two members on `kernels`, and the news.
fn on(kernels: Arc<Stand>, pooling: &Pooling) -> Collected {
    let shared = Pooler {
        stage: "pool".into(),
        model: pooled_by(pooling),
        kernels,
        whole: 1,
        selects: None,
    };
    let mut stage = Pool::new(Arc::new(shared));
    let mut out = Collected::new(slide());
    let info = out.info.clone();
    stage.opened(slide(), &info, &mut out.cx());
    for t in [1, 2] {
        let key = Key {
            slide: slide(),
            tile: tile(t),
            rev: 0,
        };
        stage.row(0, key, Some(Body::Feature(feature(t))), &mut out.cx());
    }
    stage.complete(0, slide(), &done(0, Some(End::Complete)), &mut out.cx());
    stage.settled(&mut out.cx());
    out
}

#[test]
fn a_device_without_room_changes_no_portable_bag_and_fails_the_fused_ones() {
    let (portable, fused) = (
        Pooling::default(),
        Pooling {
            fused: true,
            ..Pooling::default()
        },
    );
    let kernels = refusing(OUT_OF_MEMORY);
    let alone = on(shared(None, 1).kernels.clone(), &portable);
    let moved = on(kernels.clone(), &portable);
    assert_eq!(
        format!("{:?}", published(&moved)),
        format!("{:?}", published(&alone))
    );
    assert_eq!(attention(&moved), attention(&alone));
    assert_eq!(kernels.refused(Kernel::Pool).unwrap().calls, 1);
    for (code, pooling, help) in [
        (OUT_OF_MEMORY, &fused, "head = \"portable\", whose bags"),
        (LOST, &fused, "head = \"portable\", or"),
        (LOST, &portable, "device = \"cpu\""),
    ] {
        let out = on(refusing(code), pooling);
        assert_eq!(published(&out).state, State::Failed);
        let failure = out.events.iter().find_map(|event| match event {
            Event::SlideFailed(failure) => Some(failure),
            _ => None,
        });
        let failure = failure.unwrap();
        assert!(failure.what.contains("pool` (a call)"), "{failure:?}");
        assert!(failure.help.contains(help), "{failure:?}");
    }
}

#[test]
fn a_slide_whose_pool_failed_while_tiles_came_is_told_once_and_fails_at_its_end() {
    let shared = Pooler {
        stage: "pool".into(),
        model: pooled_by(&Pooling::default()),
        kernels: refusing(LOST),
        whole: 1,
        selects: None,
    };
    let mut stage = Pool::new(Arc::new(shared));
    let mut out = Collected::new(slide());
    let info = out.info.clone();
    stage.opened(slide(), &info, &mut out.cx());
    for t in 0..3 {
        let key = Key {
            slide: slide(),
            tile: tile(t),
            rev: u32::from(t),
        };
        stage.row(0, key, Some(Body::Feature(feature(t))), &mut out.cx());
        stage.complete(0, slide(), &done(u32::from(t), None), &mut out.cx());
        stage.settled(&mut out.cx());
        stage.tick(&mut out.cx());
        assert_eq!((out.seals(BAG), out.seals(ATTENTION)), (0, 0));
    }
    stage.complete(0, slide(), &done(3, Some(End::Complete)), &mut out.cx());
    stage.settled(&mut out.cx());
    let bag = published(&out);
    assert_eq!(
        (bag.state, bag.n, bag.ended),
        (State::Failed, 0, Some(End::Aborted))
    );
    assert_eq!((out.seals(BAG), out.ended(BAG)), (1, Some(End::Aborted)));
    let told = out.events.iter();
    let told = told.filter(|event| matches!(event, Event::SlideFailed(_)));
    assert_eq!(told.count(), 1);
}

#[test]
fn a_launch_that_fails_fails_its_own_bags_and_no_others() {
    let model = pooled_by(&Pooling::default());
    let (one, three) = (feature(1).to_vec(), feature(2).repeat(3));
    let pooled = model.pool_matrices(&refusing(LOST), 2, &[&one, &three, &one]);
    let went: Vec<bool> = pooled.iter().map(Result::is_ok).collect();
    assert_eq!(went, [true, false, true]);
}
