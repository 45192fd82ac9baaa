//! The demo's graph on real slides.
#![allow(clippy::unwrap_used, missing_docs)]

mod graph;

use graph::{Graph, bits, fixture, models};
use weir_record::{BagFlags, Body, State, TileId};
use weir_runtime::exit;

#[test]
fn the_answer_is_the_same_for_any_workers_and_any_order_of_slides_and_tiles() {
    let models = models(50, 8.0);
    let (a, b) = (
        fixture("slide-14082.tiff"),
        fixture("CMU-1-Small-Region.svs"),
    );
    let run = |slides: &[&str], workers: usize, order: &str, executor: Option<usize>| {
        let mut graph = Graph::demo(&models, &slides.join(" "), &[("order", order)]);
        let settings = graph.run_settings();
        settings.workers = workers;
        settings.helpers = executor.unwrap_or(2);
        settings.seed = workers as u64;
        let (outcome, seen) = graph.run().unwrap();
        assert_eq!(outcome.exit_code(), exit::DONE);
        seen
    };
    let first = run(&[&a, &b], 1, "file", None);
    let demo = &first["slide-14082"];
    let prediction = demo.prediction().unwrap();
    assert_eq!(prediction.state, State::Final);
    assert_eq!((prediction.bag.n, demo.held[2].len()), (64, 64));
    assert_eq!(demo.selection, Some((32, 32)));
    assert_eq!(prediction.bag.flags, BagFlags::default());
    assert_eq!(
        prediction.bag.coverage.source.value,
        demo.held[1].len() as u64
    );
    let exact = prediction.bag.exact.as_ref().unwrap();
    assert_eq!(exact.n, 64);
    // The smaller slide has no more tiles than are asked for: all are selected, once.
    let small = &first["CMU-1-Small-Region"];
    assert_eq!(small.held[1].len(), small.held[2].len());
    for (workers, order, helpers) in [(2, "random", 1), (4, "rows", 3)] {
        let again = run(&[&b, &a], workers, order, Some(helpers));
        assert_eq!(bits(&again), bits(&first), "{workers} workers, {order}");
    }
}

/// Weights add up to 1, and contributions and the bias to the predicted class's logit.
#[test]
fn attention_explains_the_prediction() {
    let models = models(50, 4.0);
    let graph = Graph::demo(&models, &fixture("CMU-1-Small-Region.svs"), &[]);
    let (_, seen) = graph.run().unwrap();
    let slide = &seen["CMU-1-Small-Region"];
    let prediction = slide.prediction().unwrap();
    let class = prediction.class.unwrap();
    let attention: Vec<_> = slide.held[2]
        .values()
        .map(|body| match body {
            Body::Attention(attention) => **attention,
            other => panic!("{other:?}"),
        })
        .collect();
    let sum = |of: fn(&weir_record::Attention) -> f32| {
        attention.iter().map(|a| of(a) as f64).sum::<f64>()
    };
    assert!((sum(|a| a.weight) - 1.0).abs() < 1e-5);
    let bias = prediction.logits[class as usize] as f64 - sum(|a| a.contribution);
    // An untrained classifier's bias lies in +-sqrt(1/128).
    assert!(bias.abs() < 0.0885, "{bias}");
    assert!(attention.iter().all(|a| a.class == class));
}

#[test]
fn three_bad_tiles_are_three_failures_and_the_limit_decides() {
    let models = models(240, 0.499);
    let slide = fixture("corrupt/three-bad-tiles.svs");
    let run = |max_failed: f64| {
        let mut graph = Graph::demo(&models, &slide, &[("tissue", "none")]);
        graph.run_settings().max_failed = max_failed;
        graph.run().unwrap()
    };
    for (max_failed, state) in [(0.01, State::Failed), (0.05, State::Final)] {
        let (outcome, seen) = run(max_failed);
        assert_eq!(outcome.exit_code(), exit::PARTLY);
        let slide = &seen["three-bad-tiles"];
        let failed = |body: &&Body| matches!(body, Body::Fail(_));
        assert_eq!(slide.held[1].values().filter(failed).count(), 3);
        assert_eq!(slide.tallies[1].value, 127);
        let prediction = slide.prediction().unwrap();
        assert_eq!(prediction.state, state);
        let record = &outcome.slides["three-bad-tiles"];
        assert_eq!(record.failures.len(), 3);
        assert!(
            record.failures.iter().all(|f| f.what.contains("all zero")),
            "{record:?}"
        );
        if state == State::Failed {
            assert_eq!((prediction.class, prediction.bag.n), (None, 0));
            let why = record.failed.as_ref().unwrap().to_string();
            assert!(
                why.contains("3 of 130 tiles failed, more than 1 %"),
                "{why}"
            );
        } else {
            assert!(prediction.class.is_some());
            assert_eq!(prediction.bag.coverage.source.fail, 3);
        }
    }
}

#[test]
fn what_cannot_be_read_fails_with_its_place_and_all_others_finish() {
    let models = models(50, 4.0);
    let names = [
        "corrupt/text.svs",
        "corrupt/empty.svs",
        "corrupt/truncated-60pct.svs",
        "CMU-1-Small-Region.svs",
    ];
    let slides: Vec<String> = names.iter().map(|name| fixture(name)).collect();
    let (outcome, seen) = Graph::demo(&models, &slides.join(" "), &[]).run().unwrap();
    assert_eq!(outcome.exit_code(), exit::PARTLY);
    assert_eq!(
        seen["CMU-1-Small-Region"].prediction().unwrap().state,
        State::Final
    );
    for (id, says) in [
        ("text", "is no TIFF file"),
        ("empty", "is empty"),
        ("truncated-60pct", "byte offset 1275950"),
    ] {
        let prediction = seen[id].prediction().unwrap();
        assert_eq!(
            (prediction.state, prediction.class),
            (State::Failed, None),
            "{id}"
        );
        let why = outcome.slides[id].failed.as_ref().unwrap();
        assert!(why.what.contains(says), "{why}");
        assert!(!why.help.is_empty(), "{why}");
    }
}

/// White glass: no tissue is a result, and no failure.
#[test]
fn a_slide_without_tissue_is_a_legal_empty_result() {
    let models = models(50, 4.0);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("glass.tiff");
    std::fs::write(&path, glass(600, 500)).unwrap();
    let (outcome, seen) = Graph::demo(&models, &path.display().to_string(), &[])
        .run()
        .unwrap();
    assert_eq!(outcome.exit_code(), exit::DONE);
    let prediction = seen["glass"].prediction().unwrap();
    assert_eq!(
        (prediction.state, prediction.class),
        (State::NoTissue, None)
    );
    assert!(prediction.bag.flags.has(BagFlags::EMPTY));
    let info = outcome.slides["glass"].info.clone().unwrap();
    assert_eq!((info.tiles, info.background), (0, 12 * 10));
    assert!(seen["glass"].held[0].contains_key(&TileId::SLIDE));
}

/// An uncompressed TIFF of one strip, all of one pale colour, at 4 um/px.
fn glass(width: u32, height: u32) -> Vec<u8> {
    let strip = vec![243u8; (width * height * 3) as usize];
    // TIFF 6.0: tag, type (3 SHORT, 4 LONG, 5 RATIONAL), count, value or offset.
    let entries = 11u32;
    let after = 8 + 2 + entries * 12 + 4;
    let (bits, resolution, data) = (after, after + 6, after + 6 + 8);
    let mut file = b"II*\0".to_vec();
    file.extend(8u32.to_le_bytes());
    file.extend((entries as u16).to_le_bytes());
    for (tag, kind, count, value) in [
        (256u16, 4u16, 1u32, width),
        (257, 4, 1, height),
        (258, 3, 3, bits),
        (259, 3, 1, 1),
        (262, 3, 1, 2),
        (273, 4, 1, data),
        (277, 3, 1, 3),
        (278, 4, 1, height),
        (279, 4, 1, strip.len() as u32),
        (282, 5, 1, resolution),
        (296, 3, 1, 3),
    ] {
        file.extend(tag.to_le_bytes());
        file.extend(kind.to_le_bytes());
        file.extend(count.to_le_bytes());
        file.extend(value.to_le_bytes());
    }
    file.extend(0u32.to_le_bytes());
    for bits in [8u16; 3] {
        file.extend(bits.to_le_bytes());
    }
    // 2,500 px a cm.
    file.extend(2500u32.to_le_bytes());
    file.extend(1u32.to_le_bytes());
    file.extend(strip);
    file
}
