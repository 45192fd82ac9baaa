//! A run whose plugin dies or hangs in its own process ends, and only the tile where it does so has failed.
#![allow(clippy::unwrap_used)]

mod sins;

use sins::{admitted, built, program};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use weir_pipeline::{Edge, Node, Plan, RunSettings, Schema, StageRun, Value, Values};
use weir_plugin_host::{Described, Isolated, Plugins, stage_type};
use weir_runtime::stage::{Shared, StageError};
use weir_runtime::{Options, Outcome, run};

/// Source, features, sink, all of the plugin and all isolated; `how` says what it does at tile (8, 0) of slide `s1`.
fn ran(how: &str, out: &Path) -> Outcome {
    let schemas = Described::read(built()).unwrap().schemas();
    let node = |name: &str, how: &str, from: Option<usize>, shapes| {
        let of = |schema: &&Schema| schema.name == format!("sins.{name}");
        Node {
            name: name.into(),
            schema: schemas.iter().find(of).unwrap(),
            values: Values(BTreeMap::from([("how".into(), Value::Text(how.into()))])),
            inputs: from
                .map(|node| Edge {
                    port: 0,
                    node,
                    output: 0,
                })
                .into_iter()
                .collect(),
            run: StageRun {
                timeout: Some(Duration::from_millis(300)),
                ..StageRun::default()
            },
            shapes,
        }
    };
    let plan = Plan {
        name: "test".into(),
        file: PathBuf::new(),
        run: RunSettings {
            out: out.to_owned(),
            helpers: 2,
            readers: 2,
            max_failed: 1.0,
            ..RunSettings::default()
        },
        models: BTreeMap::new(),
        plugins: Vec::new(),
        nodes: vec![
            node("source", "", None, vec![vec![8, 8, 3]]),
            node("mean", how, Some(0), vec![vec![3]]),
            node("write", "", Some(1), Vec::new()),
        ],
        hash: String::new(),
    };
    let mut plugins = Plugins::default();
    plugins
        .isolated
        .push(Isolated::new(Arc::new(admitted()), program()).unwrap());
    let shared = Shared::default();
    shared
        .get_or_try("", || Ok::<_, StageError>(plugins))
        .unwrap();
    let types: Vec<_> = schemas.iter().map(stage_type).collect();
    let options = Options {
        shared,
        ..Options::default()
    };
    run(Arc::new(plan), &types, options).unwrap()
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
