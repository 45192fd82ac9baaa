//! tiles.csv, tiles.geojson, predictions.csv, predictions.jsonl.

use crate::stand::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use weir_pipeline::Value;
use weir_record::*;
use weir_runtime::stage::{Shared, StageType};
use weir_stages::{geojson_sink, predictions_sink, tiles_sink};

const TYPES: &[StageType] = &[predictions_sink::TYPE, tiles_sink::TYPE, geojson_sink::TYPE];

fn write(out: &Path, stories: &[Story]) {
    let all = [("tiles", Value::Text("all".into()))];
    let plan = plan(
        out,
        &[
            ("predictions", predictions_sink::TYPE, &[]),
            ("table", tiles_sink::TYPE, &[]),
            ("qupath", geojson_sink::TYPE, &all),
        ],
    );
    let mut parts = prepare(&plan, &Shared::default(), TYPES).unwrap();
    for story in stories {
        assert_eq!(story.tell(&mut parts, &plan), []);
    }
    for part in &mut parts {
        part.finish().unwrap();
    }
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn tiles_csv_shows_scores_ends_and_attention() {
    let out = tempfile::tempdir().unwrap();
    write(out.path(), &[five_tiles("s")]);
    insta::assert_snapshot!("tiles.csv", read(out.path().join("s/tiles.csv")));
}

#[test]
fn tiles_geojson_is_what_qupath_reads() {
    let out = tempfile::tempdir().unwrap();
    write(out.path(), &[five_tiles("s")]);
    let text = read(out.path().join("s/tiles.geojson"));
    let whole: serde_json::Value = serde_json::from_str(&text).unwrap();
    let features = whole["features"].as_array().unwrap();
    assert_eq!(features.len(), 5);
    for feature in features {
        assert_eq!(feature["properties"]["objectType"], "tile");
        assert!(feature["properties"]["measurements"].is_object());
        let ring = feature["geometry"]["coordinates"][0].as_array().unwrap();
        assert_eq!(ring.first(), ring.last());
    }
    insta::assert_snapshot!(
        "tiles.geojson",
        text.lines().take(3).collect::<Vec<_>>().join("\n")
    );
}

#[test]
fn predictions_csv_is_sorted_and_says_why_a_slide_has_no_class() {
    let out = tempfile::tempdir().unwrap();
    let mut failed = five_tiles("a, failed");
    failed
        .news
        .push(Event::SlideFailed(failure("2 of 6 tiles failed", None)));
    failed.end = End::Aborted;
    let mut stopped = five_tiles("c");
    stopped.end = End::Aborted;
    write(out.path(), &[stopped, five_tiles("b"), failed]);
    insta::assert_snapshot!("predictions.csv", read(out.path().join("predictions.csv")));
    insta::assert_snapshot!(
        "predictions.jsonl",
        read(out.path().join("predictions.jsonl"))
    );
}

#[test]
fn a_log_that_was_cut_off_goes_on_behind_its_last_whole_line_and_says_nothing_twice() {
    let out = tempfile::tempdir().unwrap();
    let log = out.path().join("predictions.jsonl");
    write(out.path(), &[five_tiles("a")]);
    let first = read(&log);
    fs::write(&log, format!("{first}{}", &first[..first.len() / 2])).unwrap();
    write(out.path(), &[five_tiles("a"), five_tiles("b")]);
    let lines: Vec<String> = read(&log).lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0], first.trim_end());
    assert!(lines[1].starts_with(r#"{"slide":"b","#), "{}", lines[1]);
}

#[test]
fn a_slide_that_fails_leaves_no_table_of_an_earlier_run_and_one_that_is_stopped_does() {
    let out = tempfile::tempdir().unwrap();
    write(out.path(), &[five_tiles("failed"), five_tiles("stopped")]);
    let mut failed = five_tiles("failed");
    failed
        .news
        .push(Event::SlideFailed(failure("too many", None)));
    failed.end = End::Aborted;
    let mut stopped = five_tiles("stopped");
    stopped.end = End::Aborted;
    write(out.path(), &[failed, stopped]);
    for file in ["tiles.csv", "tiles.geojson"] {
        assert!(!out.path().join("failed").join(file).exists());
        assert!(out.path().join("stopped").join(file).exists());
    }
    assert!(read(out.path().join("failed/prediction.json")).contains(r#""state": "failed""#));
}

#[test]
fn the_tables_of_a_shard_have_it_in_their_names() {
    let out = tempfile::tempdir().unwrap();
    let plan = plan(out.path(), &[("predictions", predictions_sink::TYPE, &[])]);
    let shared = Shared::default();
    let shard = predictions_sink::Shard("2-of-4".into());
    let _ = shared.get_or_try("", || Ok::<_, ()>(shard));
    let mut parts = prepare(&plan, &shared, TYPES).unwrap();
    assert_eq!(five_tiles("a").tell(&mut parts, &plan), []);
    parts[1].finish().unwrap();
    let mut names: Vec<_> = fs::read_dir(out.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(
        names,
        ["a", "predictions-2-of-4.csv", "predictions-2-of-4.jsonl"]
    );
}

#[test]
fn two_sinks_of_one_file_are_refused() {
    let out = tempfile::tempdir().unwrap();
    let plan = plan(
        out.path(),
        &[
            ("one", tiles_sink::TYPE, &[]),
            ("two", tiles_sink::TYPE, &[]),
        ],
    );
    let Err(error) = prepare(&plan, &Shared::default(), TYPES) else {
        panic!("both were taken");
    };
    assert!(error.what.contains("`one` and `two`"), "{error}");
}

/// For each tile the outcomes in the order of their revisions; the last holds.
fn histories() -> impl Strategy<Value = BTreeMap<(i64, i64), Vec<Option<u8>>>> {
    let outcomes = prop::collection::vec(prop::option::weighted(0.8, 0u8..6), 1..4);
    prop::collection::btree_map((0i64..6, 0i64..6), outcomes, 0..30)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn tables_are_a_function_of_what_holds_whatever_came_before_and_in_which_order(
        histories in histories(),
        seed in any::<u64>(),
    ) {
        let body = |port: &str, value: &Option<u8>| match (port, value) {
            ("scores", Some(v)) => score(*v as f32 / 7.0),
            (_, Some(v)) => attention(*v as f32 / 11.0),
            ("scores", None) => fail(),
            (_, None) => Body::Gone,
        };
        let story = |rows| Story { rows, ..five_tiles("s") };
        let (mut truth, mut told) = (Vec::new(), Vec::new());
        for port in ["scores", "attention"] {
            for ((x, y), outcomes) in &histories {
                let tile = tile(x * 50, y * 50);
                truth.push((port, tile, body(port, outcomes.last().unwrap())));
                for (rev, outcome) in outcomes.iter().enumerate() {
                    // Keys grow with a tile's revisions, so its older ones never follow newer ones.
                    let order = weir_record::id::mix(seed ^ tile.word() ^ port.len() as u64) as u32 as u64;
                    let slot = order.wrapping_mul(rev as u64 + 1);
                    told.push((slot, rev, (port, tile, body(port, outcome))));
                }
            }
        }
        told.sort_by_key(|(slot, rev, _)| (*slot, *rev));
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write(one.path(), &[story(truth)]);
        write(two.path(), &[story(told.into_iter().map(|(_, _, row)| row).collect())]);
        for file in ["s/tiles.csv", "s/tiles.geojson"] {
            prop_assert_eq!(read(one.path().join(file)), read(two.path().join(file)));
        }
    }

    #[test]
    fn numbers_of_a_table_read_back_to_the_same_bits(bits in prop::collection::vec(any::<u32>(), 1..20)) {
        let scores: Vec<f32> = bits.iter().map(|b| f32::from_bits(*b)).map(|s| if s.is_finite() { s } else { 0.5 }).collect();
        let rows = scores.iter().enumerate().map(|(at, s)| ("scores", tile(at as i64 * 50, 0), score(*s))).collect();
        let out = tempfile::tempdir().unwrap();
        write(out.path(), &[Story { rows, ..five_tiles("s") }]);
        let text = read(out.path().join("s/tiles.csv"));
        let back: Vec<u32> = text.lines().skip(1).map(|l| l.split(',').nth(5).unwrap().parse::<f32>().unwrap().to_bits()).collect();
        prop_assert_eq!(back, scores.iter().map(|s| s.to_bits()).collect::<Vec<_>>());
    }
}
