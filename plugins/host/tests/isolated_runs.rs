//! A run whose plugin dies or hangs in its own process ends, and only the tile where it does so has failed.
#![allow(clippy::unwrap_used)]

mod programs;
mod sins;

use sins::{Way, batch, made, outcomes, tile, way};
use std::path::Path;
use std::time::{Duration, Instant};
use weir_runtime::Outcome;

/// Source, features, sink, all of the plugin and all isolated; `how` says what it does at tile (8, 0) of slide `s1`.
fn ran(how: &str, out: &Path) -> Outcome {
    let way = Way {
        timeout: Duration::from_secs(2),
        out: out.to_owned(),
        ..way(true)
    };
    sins::ran(&[("source", ""), ("mean", how), ("write", "")], &way)
}

fn written(folder: &Path, slide: &str) -> String {
    std::fs::read_to_string(folder.join(format!("{slide}.txt"))).unwrap()
}

#[test]
fn only_the_tile_where_a_plugin_dies_or_hangs_fails() {
    let well = tempfile::tempdir().unwrap();
    let outcome = ran("", well.path());
    assert!(
        outcome
            .slides
            .values()
            .all(|slide| slide.failures.is_empty())
    );
    for (how, said) in [
        ("abort", "was killed by signal 6 (Aborted) [E0521]"),
        ("loop", "did not answer within 2s [E0523]"),
        ("nan", "must be finite"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let since = Instant::now();
        let outcome = ran(how, folder.path());
        assert!(since.elapsed() < Duration::from_secs(60), "{how}");
        let failures: Vec<_> = outcome
            .slides
            .values()
            .flat_map(|slide| &slide.failures)
            .collect();
        let [failure] = &failures[..] else {
            panic!("{how}: {failures:?}");
        };
        assert_eq!(
            (failure.stage.as_str(), failure.slide.as_str(), failure.tile),
            ("mean", "s1", Some((8, 0)))
        );
        assert!(failure.what.contains(said), "{how}: {}", failure.what);
        for slide in ["s0", "s2"] {
            assert_eq!(written(folder.path(), slide), written(well.path(), slide));
        }
        assert_ne!(written(folder.path(), "s1"), written(well.path(), "s1"));
    }
}

/// How it died is found out after a second.
#[test]
fn a_process_that_hangs_up_and_stays_is_no_late_one_however_short_its_time_is() {
    let way = Way {
        timeout: Duration::from_secs(1),
        ..way(true)
    };
    let made = made("sins.pass", "close-and-stay", &way).unwrap();
    for i in 0..4 {
        let error = made.work().run(&mut batch(&[tile(0, i, 13)])).unwrap_err();
        // On a busy machine it may not even come to that.
        let closed = "closed its connection and had to be killed [E0521]";
        let late = "did not answer within 1s [E0523]";
        assert!(
            error.what.contains(closed) || error.what.contains(late),
            "{error}"
        );
        assert!(!error.what.contains("in a row"), "{error}");
    }
}

/// Of slide `s1` no tile comes back.
#[test]
fn a_slide_of_which_three_tiles_in_a_row_hang_is_asked_about_no_more_and_others_go_on() {
    let well = tempfile::tempdir().unwrap();
    ran("", well.path());
    let folder = tempfile::tempdir().unwrap();
    let outcome = ran("sleep-s1", folder.path());
    let failures = outcome
        .slides
        .values()
        .flat_map(|slide| &slide.failures)
        .collect::<Vec<_>>();
    assert_eq!(failures.len(), 4, "{failures:?}");
    assert!(failures.iter().all(|failure| failure.slide == "s1"));
    let given_up = "plugin `sins` 0.1.0 did not answer 3 times in a row about slide `s1` [E0523], and is asked for no more of it";
    let told = |failure: &&&weir_record::Failure| failure.what == given_up;
    // The third is perhaps tried again.
    let told = failures.iter().filter(told).count();
    assert!((1..=2).contains(&told), "{failures:?}");
    for slide in ["s0", "s2"] {
        assert_eq!(written(folder.path(), slide), written(well.path(), slide));
    }
}

/// Of slide `s1` each of 120 tiles ends the process.
#[test]
fn a_slide_whose_tiles_all_kill_the_process_fails_alone_and_the_others_are_done() {
    let ran = |how: &str, out: &Path| {
        let way = Way {
            out: out.to_owned(),
            ..way(true)
        };
        let chain = [("source", "many"), ("mean", how), ("write", "")];
        sins::ran(&chain, &way)
    };
    let (well, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    ran("", well.path());
    let outcome = ran("abort-s1", folder.path());
    let failed: Vec<_> = outcome
        .slides
        .iter()
        .map(|(id, slide)| (id.as_str(), slide.failed_tiles()))
        .collect();
    assert_eq!(failed, [("s0", 0), ("s1", 120), ("s2", 0)]);
    for failure in &outcome.slides["s1"].failures {
        assert!(failure.what.contains("[E0521]"), "{failure:?}");
    }
    for slide in ["s0", "s2"] {
        assert_eq!(written(folder.path(), slide), written(well.path(), slide));
    }
}

/// As they come: batches hold tiles of several slides.
#[test]
fn tiles_of_other_slides_come_out_of_a_batch_with_those_of_a_slide_that_is_asked_about_no_more() {
    let way = Way {
        timeout: Duration::from_secs(2),
        ..way(true)
    };
    let made = made("sins.pass", "sleep", &way).unwrap();
    for i in 0..3 {
        let error = made.work().run(&mut batch(&[tile(0, i, 13)])).unwrap_err();
        let late = "did not answer within 2s";
        assert!(error.what.contains(late), "{error}");
    }
    // The second would hang as well, and the fourth would not.
    let rows = [
        tile(1, 0, 40),
        tile(0, 3, 13),
        tile(1, 1, 40),
        tile(0, 4, 40),
    ];
    let said = outcomes(made.work(), &rows);
    assert_eq!(
        said.iter().map(Result::is_ok).collect::<Vec<_>>(),
        [true, false, true, false]
    );
    let given_up = "did not answer 3 times in a row about slide `a` [E0523]";
    let log = made.said();
    assert_eq!(log.matches(given_up).count(), 1, "{log}");
    for what in said.iter().filter_map(|said| said.as_ref().err()) {
        assert!(what.contains(given_up), "{what}");
    }
}
