//! Scorer, encoder and bag model, from a folder that was written and read again.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use weir_kernels::normalise::{Link, Normalisation};
use weir_kernels::reference;
use weir_model::{
    BagModel, Choice, Encoder, ModelError, Pooling, Scorer, Weights, Which, folder, save,
};
use weir_pipeline::model::{ModelHeader, ModelInput, ModelKind};
use weir_record::{BagFlags, ExactMember, ExactSums};

const SIZE: u32 = 16;

fn header(kind: ModelKind, classes: &[&str], gated: bool) -> ModelHeader {
    let bag = kind == ModelKind::Bag;
    let only = |text: &str| if bag { text.to_string() } else { String::new() };
    ModelHeader {
        format: 1,
        kind,
        arch: "small".into(),
        feature: 24,
        hidden: if bag { 12 } else { 0 },
        gated,
        classes: classes.iter().map(|class| class.to_string()).collect(),
        positive: classes[classes.len() - 1].to_string(),
        input: ModelInput {
            size: SIZE,
            mpp: 4.0,
            mean: [0.7, 0.6, 0.7],
            std: [0.2, 0.25, 0.2],
        },
        normalise: only("squared-average"),
        link: only("sigmoid"),
        power: None,
        contract: only("ordered-f32/1"),
        sha256: "0".repeat(64),
        training: None,
        folder: "elsewhere".into(),
    }
}

/// A folder with an untrained model, read as a user's would be.
fn model(folder: &Path, header: &ModelHeader) -> ModelHeader {
    let weights = Weights::start(&folder::parameters(header).unwrap(), 3);
    let saved = save(folder, header, &weights).unwrap();
    let read = ModelHeader::load(folder).unwrap();
    assert_eq!(read, saved);
    read
}

fn burn() -> Choice {
    Choice {
        executor: Which::Burn,
        ..Choice::default()
    }
}

fn tiles(n: usize) -> Vec<Vec<u8>> {
    let byte = |tile: usize, k: usize| ((k * 7919 + tile * 104_729) % 251) as u8;
    (0..n)
        .map(|tile| {
            (0..(3 * SIZE * SIZE) as usize)
                .map(|k| byte(tile, k))
                .collect()
        })
        .collect()
}

fn features(n: usize, width: usize) -> Vec<Vec<f32>> {
    (0..n)
        .map(|k| {
            (0..width)
                .map(|c| ((k * 31 + c * 17) % 29) as f32 / 10.0)
                .collect()
        })
        .collect()
}

fn rows(features: &[Vec<f32>]) -> Vec<&[f32]> {
    features.iter().map(Vec::as_slice).collect()
}

#[test]
fn a_scorer_gives_probabilities_and_ranks_by_the_positive_class() {
    let folder = tempfile::tempdir().unwrap();
    let header = model(
        folder.path(),
        &header(ModelKind::Scorer, &["normal", "tumour"], false),
    );
    let scorer = Scorer::load(&header, &burn()).unwrap();
    assert!(scorer.chosen().invariant);
    let tiles = tiles(5);
    let tiles: Vec<&[u8]> = tiles.iter().map(Vec::as_slice).collect();
    let scores = scorer.score(&tiles).unwrap();
    assert_eq!(scores.len(), 5);
    for (k, score) in scores.iter().enumerate() {
        assert_eq!(score.score, score.probabilities[1]);
        assert!((score.probabilities.iter().sum::<f32>() - 1.0).abs() < 1e-6);
        assert_eq!(
            scorer.score(&tiles[k..=k]).unwrap()[0],
            *score,
            "alone and among others"
        );
    }
}

#[test]
fn with_more_classes_the_score_is_what_speaks_against_normal() {
    let tiles = tiles(3);
    let tiles: Vec<&[u8]> = tiles.iter().map(Vec::as_slice).collect();
    let scores = |classes: &[&str]| {
        let folder = tempfile::tempdir().unwrap();
        let header = model(folder.path(), &header(ModelKind::Scorer, classes, false));
        Scorer::load(&header, &burn())
            .unwrap()
            .score(&tiles)
            .unwrap()
    };
    for score in scores(&["normal", "benign", "in situ", "invasive"]) {
        let p = &score.probabilities;
        assert_eq!(score.score, p[1].max(p[2]).max(p[3]));
    }
    for score in scores(&["benign", "normal", "invasive"]) {
        assert_eq!(score.score, 1.0 - score.probabilities[1]);
    }
    for score in scores(&["a", "b", "c"]) {
        assert_eq!(score.score, score.probabilities[2]);
    }
}

#[test]
fn an_encoder_gives_the_features_that_its_executor_gives() {
    let folder = tempfile::tempdir().unwrap();
    let header = model(
        folder.path(),
        &header(ModelKind::Bag, &["normal", "tumour"], true),
    );
    let encoder = Encoder::load(&header, &burn()).unwrap();
    let tiles = tiles(3);
    let tiles: Vec<&[u8]> = tiles.iter().map(Vec::as_slice).collect();
    let features = encoder.encode(&tiles).unwrap();
    assert_eq!(features, encoder.chosen().executor.forward(&tiles).unwrap());
    assert!(features.iter().all(|f| f.len() == 24));
}

#[test]
fn a_bag_is_pooled_and_classified_as_the_reference_says() {
    for gated in [false, true] {
        for classes in [&["normal", "tumour"][..], &["a", "b", "c", "d"]] {
            let folder = tempfile::tempdir().unwrap();
            let header = model(folder.path(), &header(ModelKind::Bag, classes, gated));
            let model = BagModel::load(&header, &Pooling::default()).unwrap();
            let features = features(40, 24);
            let members = rows(&features);
            let bag = model.pool(&members);
            assert_eq!(
                (bag.contract, bag.flags),
                ("ordered-f32/1", BagFlags::default())
            );
            let wide: Vec<Vec<f64>> = features
                .iter()
                .map(|h| h.iter().map(|&h| f64::from(h)).collect())
                .collect();
            let logits: Vec<f64> = bag.logits.iter().map(|&a| f64::from(a)).collect();
            let truth =
                reference::pool(Normalisation::SquaredAverage, Link::Sigmoid, &logits, &wide);
            for (got, truth) in bag.pooled.iter().zip(&truth.pooled) {
                assert!((f64::from(*got) - truth).abs() < 1e-5);
            }
            let verdict = model.classify(&bag.pooled);
            assert_eq!(verdict.logits.len(), classes.len());
            let class = verdict.class.unwrap() as usize;
            let greatest = verdict.probabilities.iter().copied().fold(0.0, f32::max);
            assert_eq!(verdict.probabilities[class], greatest);
        }
    }
}

#[test]
fn contributions_add_up_to_the_logit_and_leaving_one_out_is_the_bag_without_it() {
    let folder = tempfile::tempdir().unwrap();
    let header = model(
        folder.path(),
        &header(ModelKind::Bag, &["normal", "tumour"], false),
    );
    for normalise in Normalisation::NAMES {
        let pooling = Pooling {
            normalise: Some(normalise.into()),
            power: Some(1.5),
            ..Pooling::default()
        };
        let model = BagModel::load(&header, &pooling).unwrap();
        let features = features(9, 24);
        let members = rows(&features);
        let bag = model.pool(&members);
        let verdict = model.classify(&bag.pooled);
        let class = verdict.class.unwrap() as usize;
        let attention = model.attention(&members, &bag, &verdict);
        let parts: f32 = attention.iter().map(|a| a.contribution).sum();
        let bias = model.classify(&[0.0; 24]).logits[class];
        assert!(
            (parts + bias - verdict.logits[class]).abs() < 1e-5,
            "{normalise}"
        );
        for (k, part) in attention.iter().enumerate() {
            assert_eq!((part.logit, part.weight), (bag.logits[k], bag.weights[k]));
            let mut others = members.clone();
            others.remove(k);
            let without = model.classify(&model.pool(&others).pooled).logits[class];
            let change = without - verdict.logits[class];
            assert!(
                (part.leave_one_out - change).abs() < 1e-4,
                "{normalise}: {} {change}",
                part.leave_one_out
            );
        }
    }
}

#[test]
fn an_empty_bag_has_no_class() {
    let folder = tempfile::tempdir().unwrap();
    let header = model(
        folder.path(),
        &header(ModelKind::Bag, &["normal", "tumour"], false),
    );
    for accumulate in ["ordered", "exact"] {
        let pooling = Pooling {
            accumulate: Some(accumulate.into()),
            ..Pooling::default()
        };
        let model = BagModel::load(&header, &pooling).unwrap();
        let bag = model.pool(&[]);
        assert_eq!(bag.flags, BagFlags::EMPTY);
        assert_eq!(bag.exact, Some(ExactSums::new(24)));
        let verdict = model.classify(&bag.pooled);
        assert_eq!(verdict.class, None);
        assert!(model.attention(&[], &bag, &verdict).is_empty());
    }
}

#[test]
fn exact_sums_come_with_the_squared_average_and_the_mean_and_are_the_pool_when_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let header = model(
        folder.path(),
        &header(ModelKind::Bag, &["normal", "tumour"], false),
    );
    let features = features(300, 24);
    let members = rows(&features);
    for normalise in Normalisation::NAMES {
        let pooling = |accumulate: &str| Pooling {
            normalise: Some(normalise.into()),
            accumulate: Some(accumulate.into()),
            power: Some(2.0),
            ..Pooling::default()
        };
        let has = ["squared-average", "mean"].contains(&normalise);
        let ordered = BagModel::load(&header, &pooling("ordered"))
            .unwrap()
            .pool(&members);
        assert_eq!(ordered.exact.is_some(), has, "{normalise}");
        match BagModel::load(&header, &pooling("exact")) {
            Err(error) => {
                assert!(!has);
                assert!(error.to_string().contains("has no exact sums"), "{error}");
            }
            Ok(model) => {
                assert!(has);
                let exact = model.pool(&members);
                assert_eq!(exact.contract, "exact-q128/1");
                let sums = exact.exact.clone().unwrap();
                assert_eq!(Some(&sums), ordered.exact.as_ref());
                assert_eq!(exact.pooled, sums.finish().unwrap().pooled);
                for (left, right) in exact.pooled.iter().zip(&ordered.pooled) {
                    assert!((left - right).abs() < 1e-4);
                }
                // Any order of the members gives the same bits.
                let mut turned = members.clone();
                turned.rotate_left(77);
                assert_eq!(model.pool(&turned).pooled, exact.pooled);
            }
        }
    }
}

#[test]
fn sums_whose_numbers_lie_beyond_their_range_are_not_handed_on_by_the_ordered_pool() {
    let folder = tempfile::tempdir().unwrap();
    let header = model(
        folder.path(),
        &header(ModelKind::Bag, &["normal", "tumour"], false),
    );
    let (mut far, near) = (vec![1.0f32; 24], vec![1.0f32; 24]);
    far[3] = 1000.0;
    let members: [&[f32]; 2] = [&far, &near];
    let ordered = BagModel::load(&header, &Pooling::default())
        .unwrap()
        .pool(&members);
    assert_eq!((ordered.exact, ordered.flags), (None, BagFlags::default()));
    let exact = Pooling {
        accumulate: Some("exact".into()),
        ..Pooling::default()
    };
    let exact = BagModel::load(&header, &exact).unwrap().pool(&members);
    assert!(exact.flags.has(BagFlags::OUT_OF_DOMAIN));
    assert_eq!(ExactMember::equal(&far).unwrap().saturated, 1);
}

#[test]
fn a_member_that_is_no_number_is_left_out_and_the_bag_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let header = model(
        folder.path(),
        &header(ModelKind::Bag, &["normal", "tumour"], false),
    );
    for accumulate in ["ordered", "exact"] {
        let pooling = Pooling {
            accumulate: Some(accumulate.into()),
            ..Pooling::default()
        };
        let model = BagModel::load(&header, &pooling).unwrap();
        let good = features(4, 24);
        let mut bad = features(1, 24)[0].clone();
        bad[7] = f32::NAN;
        let clean = model.pool(&rows(&good));
        let mut members = rows(&good);
        members.insert(2, &bad);
        let bag = model.pool(&members);
        assert_eq!(
            (bag.refused.as_slice(), bag.flags),
            (&[2][..], BagFlags::DEGRADED)
        );
        assert_eq!((&bag.pooled, &bag.exact), (&clean.pooled, &clean.exact));
        let verdict = model.classify(&bag.pooled);
        let parts = model.attention(&members, &bag, &verdict);
        assert_eq!(
            (
                parts[2].weight,
                parts[2].contribution,
                parts[2].leave_one_out
            ),
            (0.0, 0.0, 0.0)
        );
        assert!(
            parts
                .iter()
                .all(|part| part.contribution.is_finite() && part.leave_one_out.is_finite())
        );
    }
}

fn wrong(change: impl Fn(&mut ModelHeader), pooling: Pooling) -> ModelError {
    let folder = tempfile::tempdir().unwrap();
    let mut header = model(
        folder.path(),
        &header(ModelKind::Bag, &["normal", "tumour"], false),
    );
    change(&mut header);
    BagModel::load(&header, &pooling).unwrap_err()
}

#[test]
fn what_is_wrong_with_a_model_is_said_with_its_file_and_a_remedy() {
    let none = Pooling::default;
    let said = |error: ModelError, words: &[&str]| {
        let text = error.to_string();
        for word in words {
            assert!(text.contains(word), "`{text}` lacks `{word}`");
        }
    };
    said(
        wrong(|h| h.sha256 = "ab".repeat(32), none()),
        &["weights.safetensors", "SHA-256", "abab"],
    );
    said(
        wrong(|h| h.hidden = 13, none()),
        &["attention.v.weight", "[13, 24]", "[12, 24]"],
    );
    said(
        wrong(|h| h.gated = true, none()),
        &["attention.u.weight", "missing"],
    );
    said(
        wrong(|h| h.classes.push("c".into()), none()),
        &["classifier.weight", "[3, 24]"],
    );
    said(
        wrong(|h| h.kind = ModelKind::Scorer, none()),
        &["model.toml", "kind `bag`"],
    );
    said(
        wrong(|h| h.normalise = "softmx".into(), none()),
        &["softmx", "softmax"],
    );
    said(
        wrong(|h| h.normalise = "power".into(), none()),
        &["`power` without an exponent"],
    );
    said(
        wrong(|h| h.contract = "ordered-f32/9".into(), none()),
        &["ordered-f32/9", "ordered-f32/1"],
    );
    let link = Pooling {
        link: Some("tanh".into()),
        ..none()
    };
    said(wrong(|_| {}, link), &["tanh", "none, sigmoid"]);
}

#[test]
fn a_scorer_of_the_wrong_kind_and_a_folder_without_weights_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let bag = model(
        folder.path(),
        &header(ModelKind::Bag, &["normal", "tumour"], false),
    );
    let error = Scorer::load(&bag, &burn()).unwrap_err().to_string();
    assert!(error.contains("kind `scorer`"), "{error}");
    std::fs::remove_file(folder.path().join("weights.safetensors")).unwrap();
    let error = Encoder::load(&bag, &burn()).unwrap_err().to_string();
    assert!(
        error.contains("weights.safetensors: could not read"),
        "{error}"
    );
}

#[test]
fn weights_that_do_not_fit_are_not_saved() {
    let folder = tempfile::tempdir().unwrap();
    let header = header(ModelKind::Scorer, &["normal", "tumour"], false);
    let error = save(folder.path(), &header, &Weights::new()).unwrap_err();
    assert!(error.to_string().contains("is missing"), "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_header_with_a_mistake_is_an_error_with_its_line_or_its_remedy() {
    let folder = tempfile::tempdir().unwrap();
    model(
        folder.path(),
        &header(ModelKind::Bag, &["normal", "tumour"], false),
    );
    let file = folder.path().join("model.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let said = |text: &str| {
        std::fs::write(&file, text).unwrap();
        ModelHeader::load(folder.path()).unwrap_err()
    };
    let error = said(&text.replace("feature = 24", "feature = \"wide\""));
    assert!(
        error.line.is_some() && error.to_string().contains("model.toml:"),
        "{error}"
    );
    let error = said(&text.replace("format = 1", "format = 2"));
    assert!(error.to_string().contains("reads format 1"), "{error}");
    let error = said(&text.replace("positive = \"tumour\"", "positive = \"tumor\""));
    assert!(
        error.to_string().contains("`tumor`, which is no class"),
        "{error}"
    );
    let error = said(&text.replace("size = 16", "size = 0"));
    assert!(error.to_string().contains("0 px"), "{error}");
}
