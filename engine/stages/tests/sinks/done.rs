//! prediction.json: when it is written, and whether a later run believes it.

use crate::stand::*;
use proptest::prelude::*;
use std::fs;
use std::path::Path;
use weir_pipeline::Plan;
use weir_record::*;
use weir_runtime::stage::{Shared, StageType};
use weir_stages::done::{self, Identity};
use weir_stages::{Executors, Used, predictions_sink, tiles_sink};

const TYPES: &[StageType] = &[predictions_sink::TYPE, tiles_sink::TYPE];

fn stand(out: &Path) -> (Plan, Shared) {
    let plan = plan(
        out,
        &[
            ("predictions", predictions_sink::TYPE, &[]),
            ("table", tiles_sink::TYPE, &[]),
        ],
    );
    let shared = Shared::default();
    let used = Used {
        key: "burn 0.22.1 cpu".into(),
        device: "cpu".into(),
        deterministic: true,
        why: String::new(),
    };
    shared.get::<Executors>().enter("score", used);
    (plan, shared)
}

fn write(out: &Path, story: &Story) -> (Plan, Identity) {
    let (plan, shared) = stand(out);
    let mut parts = prepare(&plan, &shared, TYPES).unwrap();
    assert_eq!(story.tell(&mut parts, &plan), []);
    let identity = Identity::of(&plan, &shared);
    (plan, identity)
}

#[test]
fn prediction_json_says_what_the_prediction_stands_on() {
    let out = tempfile::tempdir().unwrap();
    write(out.path(), &five_tiles("s"));
    insta::assert_snapshot!(
        "prediction.json",
        fs::read_to_string(out.path().join("s/prediction.json")).unwrap()
    );
}

#[test]
fn prediction_json_is_the_last_file_of_a_slide() {
    let out = tempfile::tempdir().unwrap();
    let (plan, shared) = stand(out.path());
    let mut parts = prepare(&plan, &shared, TYPES).unwrap();
    let (story, schemas) = (five_tiles("s"), schemas(&plan));
    let path = out.path().join("s/prediction.json");
    assert_eq!(story.tell_one(&mut parts[0], schemas[0]), []);
    assert!(!path.exists(), "tiles.csv is still to come");
    assert_eq!(story.tell_one(&mut parts[2], schemas[2]), []);
    assert!(path.exists());
}

#[test]
fn a_slide_that_misses_a_file_is_not_done() {
    let out = tempfile::tempdir().unwrap();
    // A folder where the table should be: it cannot be written.
    fs::create_dir_all(out.path().join("s/tiles.csv/in the way")).unwrap();
    let (plan, shared) = stand(out.path());
    let mut parts = prepare(&plan, &shared, TYPES).unwrap();
    let story = five_tiles("s");
    let errors = story.tell(&mut parts, &plan);
    assert_eq!(errors.len(), 1);
    assert!(
        errors[0].what.contains("tiles.csv cannot be written"),
        "{}",
        errors[0]
    );
    assert!(out.path().join("s/prediction.json").exists());
    let identity = Identity::of(&plan, &shared);
    assert_eq!(done::find(out.path(), &story.info, &identity), None);

    let out = tempfile::tempdir().unwrap();
    let (_, identity) = write(out.path(), &story);
    assert!(done::find(out.path(), &story.info, &identity).is_some());
    fs::remove_file(out.path().join("s/tiles.csv")).unwrap();
    assert_eq!(done::find(out.path(), &story.info, &identity), None);
}

#[test]
fn another_plan_model_executor_or_input_is_not_done() {
    let out = tempfile::tempdir().unwrap();
    let story = five_tiles("s");
    let (_, identity) = write(out.path(), &story);
    let done::Found {
        path,
        prediction: found,
        ..
    } = done::find(out.path(), &story.info, &identity).unwrap();
    assert_eq!(path, out.path().join("s/prediction.json"));
    assert_eq!(found, prediction());

    let not = |identity: &Identity, info: &SlideInfo| {
        assert_eq!(done::find(out.path(), info, identity), None);
    };
    let change = |what: fn(&mut Identity)| {
        let mut other = identity.clone();
        what(&mut other);
        other
    };
    not(&change(|other| other.plan.push('0')), &story.info);
    not(&change(|other| other.models.clear()), &story.info);
    let newer = |other: &mut Identity| {
        other
            .executors
            .insert("score".into(), "burn 0.23.0 cpu".into());
    };
    not(&change(newer), &story.info);
    for input in [None, Some((12345, 0)), Some((1, 1_700_000_000_000_000_001))] {
        let info = SlideInfo {
            input,
            ..(*story.info).clone()
        };
        not(&identity, &info);
    }
    not(&identity, &info("t", 6));
    let (_, origin) = story.info.mpp.unwrap();
    let mpp = Some((Mpp(story.info.mpp.unwrap().0.0 * 1.001), origin));
    let patient = Some("another".to_owned());
    let label = Some("another".to_owned());
    let of = || (*story.info).clone();
    not(&identity, &SlideInfo { mpp, ..of() });
    not(&identity, &SlideInfo { patient, ..of() });
    not(&identity, &SlideInfo { label, ..of() });
}

#[test]
fn a_failed_slide_is_tried_again_and_one_without_tissue_is_done() {
    for (state, is_done) in [
        (State::Failed, false),
        (State::Incomplete, false),
        (State::NoTissue, true),
    ] {
        let out = tempfile::tempdir().unwrap();
        let mut story = five_tiles("s");
        let mut other = prediction();
        (other.state, other.bag.state) = (state, state);
        (other.class, other.logits, other.probabilities) = (None, vec![], vec![]);
        story.rows = vec![("predictions", TileId::SLIDE, Body::Prediction(other.into()))];
        let (_, identity) = write(out.path(), &story);
        let found = done::find(out.path(), &story.info, &identity);
        assert_eq!(found.is_some(), is_done, "{state:?}");
    }
}

#[test]
fn a_skipped_slide_touches_no_file_and_stands_in_the_tables() {
    let out = tempfile::tempdir().unwrap();
    let mut story = five_tiles("s");
    write(out.path(), &story);
    let files = ["prediction.json", "tiles.csv"].map(|file| out.path().join("s").join(file));
    let before = files
        .each_ref()
        .map(|file| fs::metadata(file).unwrap().modified().unwrap());
    story.news = vec![Event::Skipped {
        path: "s/prediction.json".into(),
        prediction: prediction().into(),
    }];
    story.rows.clear();
    let (plan, shared) = stand(out.path());
    let mut parts = prepare(&plan, &shared, TYPES).unwrap();
    assert_eq!(story.tell(&mut parts, &plan), []);
    parts[1].finish().unwrap();
    let after = files
        .each_ref()
        .map(|file| fs::metadata(file).unwrap().modified().unwrap());
    assert_eq!(before, after);
    let table = fs::read_to_string(out.path().join("predictions.csv")).unwrap();
    assert!(table.contains("s,p1,,,final,tumour,0.977"), "{table}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_prediction_comes_back_to_the_bit(
        numbers in prop::collection::vec(any::<u32>(), 2..40),
        sums in prop::collection::vec(any::<i128>(), 0..9),
        flags in 0u8..16,
    ) {
        let finite = |bits: u32| Some(f32::from_bits(bits)).filter(|v| v.is_finite()).unwrap_or(0.1);
        let mut sent = prediction();
        sent.bag.pooled = numbers.iter().map(|b| finite(*b)).collect();
        sent.logits = vec![finite(numbers[0]), finite(numbers[1])];
        sent.bag.flags = BagFlags(flags);
        sent.bag.exact = sums.first().map(|s| ExactSums { n: 3, s: *s, t: sums.clone(), u: sums.clone() });
        let mut story = five_tiles("s");
        story.rows = vec![("predictions", TileId::SLIDE, Body::Prediction(sent.clone().into()))];
        let out = tempfile::tempdir().unwrap();
        let (_, identity) = write(out.path(), &story);
        let found = done::find(out.path(), &story.info, &identity)
            .unwrap()
            .prediction;
        prop_assert_eq!(
            found.bag.pooled.iter().map(|v| v.to_bits()).collect::<Vec<_>>(),
            sent.bag.pooled.iter().map(|v| v.to_bits()).collect::<Vec<_>>()
        );
        prop_assert_eq!(found, sent);
    }

    #[test]
    fn a_damaged_file_is_not_done_and_no_fault(at in any::<prop::sample::Index>(), with in any::<Option<u8>>()) {
        let out = tempfile::tempdir().unwrap();
        let story = five_tiles("s");
        let (_, identity) = write(out.path(), &story);
        let path = out.path().join("s/prediction.json");
        let mut bytes = fs::read(&path).unwrap();
        let at = at.index(bytes.len() - 1);
        match with {
            // Another byte may leave a file that is whole, such as one with another label: then it is still the slide's.
            Some(byte) => bytes[at] = byte,
            None => bytes.truncate(at),
        }
        fs::write(&path, bytes).unwrap();
        let found = done::find(out.path(), &story.info, &identity);
        prop_assert!(with.is_some() || found.is_none());
    }
}
