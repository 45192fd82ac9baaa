//! Made-up rows of every kind, by seed; and rows as few would make them up.

use super::values::{by_seed, noise};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use weir_pipeline::Kind;
use weir_record::{
    Attention, Bag, BagFlags, Body, Coverage, End, Feature, Grid, Key, Mpp, MppOrigin, Prediction,
    Scores, SlideId, SlideInfo, SlideKey, State, Table, TileBuf, TileId,
};

/// Tiles of a row of a made-up slide.
const ACROSS: usize = 64;

/// A row as a stage gets it.
pub(super) type Value = (Key, Body, Arc<SlideInfo>);

/// A made-up slide.
pub(super) fn slide(number: u64, px: u32) -> Arc<SlideInfo> {
    let id = format!("slide-{number}");
    Arc::new(SlideInfo {
        width: 65_536,
        height: 65_536,
        mpp: Some((Mpp(0.5), MppOrigin::Given)),
        reader: "made-up".into(),
        grids: vec![Grid {
            footprint: f64::from(px),
            mpp: 0.5,
            px,
        }],
        tiles: 4096,
        ..SlideInfo::unopened(id.clone(), SlideKey(number), format!("{id}.tiff"))
    })
}

/// `n` rows of a port of this kind and shape, spread over two slides; the same for the same seed.
pub(super) fn of(kind: Kind, shape: &[u64], n: usize, seed: u64) -> Vec<Value> {
    let side = |at: usize| shape.get(at).copied().unwrap_or(0) as u32;
    let px = side(1).max(1);
    let slides = [slide(0, px), slide(1, px)];
    (0..n)
        .map(|i| {
            // Each row's content is its own, whatever batch it stands in.
            let mut random = by_seed(seed ^ weir_record::id::mix(i as u64 + 1));
            let at = i % 2;
            let place = i / 2;
            let (x, y) = (place % ACROSS, place / ACROSS);
            let of_slide = matches!(kind, Kind::Bag | Kind::Predictions);
            let tile = match of_slide {
                true => TileId::SLIDE,
                false => TileId::new(0, 0, x as i64 * i64::from(px), y as i64 * i64::from(px))
                    .unwrap_or(TileId::SLIDE),
            };
            let key = Key {
                slide: SlideId::new(0, at as u64),
                tile,
                rev: 0,
            };
            (key, body(kind, shape, &mut random), slides[at].clone())
        })
        .collect()
}

/// Rows that the port allows and that nobody expects: the least sizes that its open dimensions leave, and numbers at the ends.
/// Each with what is odd about it.
pub(super) fn odd(kind: Kind, shape: &[u64], open: &[bool]) -> Vec<(&'static str, Vec<Value>)> {
    let least: Vec<u64> = shape
        .iter()
        .zip(open)
        .map(|(&side, &open)| if open { 1 } else { side })
        .collect();
    let mut all = Vec::new();
    if least != shape {
        all.push(("the least size", of(kind, &least, 1, 1)));
    }
    let mut with = |what, change: &dyn Fn(&mut Body)| {
        let mut rows = of(kind, shape, 2, 1);
        for (_, body, _) in &mut rows {
            change(body);
        }
        all.push((what, rows));
    };
    match kind {
        Kind::Pixels => {
            for (what, shade) in [("black tiles", 0), ("white tiles", 255)] {
                with(what, &|body| {
                    if let Body::Pixels(tile) = body {
                        let (width, height) = (tile.width(), tile.height());
                        let pixels = vec![shade; TileBuf::bytes(width, height)];
                        if let Some(tile) = TileBuf::new(width, height, pixels.into(), None) {
                            *body = Body::Pixels(Arc::new(tile));
                        }
                    }
                });
            }
        }
        Kind::Features => {
            for (what, number) in [
                ("vectors of zeros", 0.0),
                ("vectors of the greatest numbers", f32::MAX),
                ("vectors of the least numbers", f32::MIN_POSITIVE / 2.0),
            ] {
                with(what, &|body| {
                    if let Body::Feature(feature) = body {
                        *body = Body::Feature(Arc::new(Feature::new(
                            vec![number; feature.len()],
                            None,
                        )));
                    }
                });
            }
        }
        Kind::Bag => with("bags of nothing", &|body| {
            if let Body::Bag(bag) = body {
                let none = Bag {
                    n: 0,
                    pooled: Vec::new(),
                    effective: 0.0,
                    entropy: 0.0,
                    state: State::NoTissue,
                    ..(**bag).clone()
                };
                *body = Body::Bag(Arc::new(none));
            }
        }),
        Kind::Predictions => with("predictions without a class", &|body| {
            if let Body::Prediction(prediction) = body {
                let none = Prediction {
                    state: State::NoTissue,
                    class: None,
                    logits: Vec::new(),
                    probabilities: Vec::new(),
                    ..(**prediction).clone()
                };
                *body = Body::Prediction(Arc::new(none));
            }
        }),
        Kind::Table => with("empty tables", &|body| {
            *body = Body::Ext(Arc::new(Table {
                format: "made-up/1".into(),
                bytes: Vec::new(),
            }));
        }),
        Kind::Scores | Kind::Picks | Kind::Attention => {}
    }
    all
}

/// Of bytes, in hexadecimal.
pub(super) fn digest(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn body(kind: Kind, shape: &[u64], random: &mut ChaCha8Rng) -> Body {
    let side = |at: usize| shape.get(at).copied().unwrap_or(0) as usize;
    let mut numbers =
        |n: usize| -> Vec<f32> { (0..n).map(|_| random.random_range(-2.0f32..2.0)).collect() };
    match kind {
        Kind::Pixels => {
            let (height, width) = (side(0) as u32, side(1) as u32);
            let pixels = noise(random, TileBuf::bytes(width, height));
            match TileBuf::new(width, height, pixels.into(), None) {
                Some(tile) => Body::Pixels(Arc::new(tile)),
                None => Body::Gone,
            }
        }
        Kind::Scores => {
            let score = numbers(1)[0];
            Body::Score(Arc::new(Scores {
                score,
                probabilities: vec![1.0 / side(2).max(1) as f32; side(2)],
            }))
        }
        Kind::Picks => Body::Picked {
            source_rev: 0,
            score: numbers(1)[0],
        },
        Kind::Features => Body::Feature(Arc::new(Feature::new(numbers(side(0)), None))),
        Kind::Attention => {
            let all = numbers(4);
            Body::Attention(Arc::new(Attention {
                logit: all[0],
                weight: all[1].abs() / 2.0,
                contribution: all[2],
                leave_one_out: all[3],
                class: 0,
            }))
        }
        Kind::Bag => Body::Bag(Arc::new(bag(numbers(side(0))))),
        Kind::Predictions => {
            let classes = side(0);
            Body::Prediction(Arc::new(Prediction {
                revision: 0,
                state: State::Final,
                classes: (0..classes).map(|class| class.to_string()).collect(),
                class: (classes > 0).then_some(0),
                logits: numbers(classes),
                probabilities: vec![1.0 / classes.max(1) as f32; classes],
                bag: bag(Vec::new()),
            }))
        }
        Kind::Table => Body::Ext(Arc::new(Table {
            format: "made-up/1".into(),
            bytes: noise(random, 64),
        })),
    }
}

fn bag(pooled: Vec<f32>) -> Bag {
    Bag {
        n: 16,
        flags: BagFlags::default(),
        pooled,
        effective: 8.0,
        entropy: 2.0,
        exact: None,
        contract: "made-up/1".into(),
        coverage: Coverage::default(),
        selection: 0,
        ended: Some(End::Complete),
        state: State::Final,
    }
}
