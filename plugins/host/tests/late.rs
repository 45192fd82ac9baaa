//! A call into a plugin of this process that does not come back fails its tile by the plugin's name, and the run ends.
#![allow(clippy::unwrap_used)]

mod sins;

use sins::{admitted, built};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use weir_pipeline::{Edge, Node, Plan, RunSettings, StageRun, Value, Values};
use weir_plugin_host::{Described, Loaded, Plugins, stage_type};
use weir_runtime::stage::{Shared, StageError};
use weir_runtime::{Options, Outcome, run};

/// Source, filter, features, sink; the filter never ends the call of tile (8, 0) of slide `s1`.
fn ran(how: &str, out: &Path) -> Outcome {
    let schemas = Described::read(built()).unwrap().schemas();
    let node = |name: &str, how: &str, from: Option<usize>, shapes| {
        let of = format!("sins.{name}");
        Node {
            name: name.into(),
            schema: schemas.iter().find(|schema| schema.name == of).unwrap(),
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
            node("pass", how, Some(0), vec![vec![8, 8, 3]]),
            node("mean", "", Some(1), vec![vec![3]]),
            node("write", "", Some(2), Vec::new()),
        ],
        hash: String::new(),
    };
    let plugins = Plugins {
        loaded: vec![Loaded::new(&admitted()).unwrap()],
        ..Plugins::default()
    };
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

#[test]
fn a_call_that_does_not_come_back_is_named_by_its_plugin_and_code() {
    for how in ["pending", "loop"] {
        let folder = tempfile::tempdir().unwrap();
        let outcome = ran(how, folder.path());
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
            ("pass", "s1", Some((8, 0)))
        );
        assert_eq!(
            failure.what,
            "plugin `sins` 0.1.0 did not answer within 300ms [E0523]"
        );
        assert!(failure.help.contains("isolate = true"), "{failure:?}");
    }
}
