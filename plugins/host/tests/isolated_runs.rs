//! A run whose plugin dies or hangs in its own process ends, and only the tile where it does so has failed.
#![allow(clippy::unwrap_used)]

mod programs;
mod sins;

use sins::{Way, way};
use std::path::Path;
use std::time::{Duration, Instant};
use weir_runtime::Outcome;

/// Source, features, sink, all of the plugin and all isolated; `how` says what it does at tile (8, 0) of slide `s1`.
fn ran(how: &str, out: &Path) -> Outcome {
    let way = Way {
        timeout: Duration::from_millis(300),
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
        ("loop", "did not answer within 300ms [E0523]"),
        ("nan", "must be finite"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let since = Instant::now();
        let outcome = ran(how, folder.path());
        assert!(since.elapsed() < Duration::from_secs(10), "{how}");
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
