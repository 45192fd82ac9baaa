//! What is printed of pipelines and stage types.

use crate::mutations::{check, demo};
use crate::{enter_root, registry};
use std::collections::BTreeSet;
use std::path::Path;
use weir_pipeline::check::check_text;
use weir_pipeline::{NoPlugins, Overrides, graph, json_schema, reference, show};

fn settings() -> insta::Settings {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(enter_root().join("tests/printed"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings
}

/// The demo without the sinks that draw: their parameters and what they keep are told elsewhere.
fn short_demo() -> String {
    let demo = demo();
    demo[..demo.find("[stage.heatmap]").unwrap()].to_owned()
}

fn without_hash(text: &str, hash: &str) -> String {
    text.replace(hash, "HASH").replace(&hash[..16], "HASH")
}

#[test]
fn the_demo_is_drawn() {
    let _bound = settings().bind_to_scope();
    let plan = check(&short_demo(), &Overrides::default()).plan.unwrap();
    insta::assert_snapshot!("graph-text", without_hash(&graph::text(&plan), &plan.hash));
    insta::assert_snapshot!("graph-dot", graph::dot(&plan));
    insta::assert_snapshot!("graph-mermaid", graph::mermaid(&plan));
    let json = graph::json(&plan);
    insta::assert_snapshot!("graph-json", without_hash(&format!("{json:#}"), &plan.hash));
}

#[test]
fn a_shown_pipeline_says_where_each_value_came_from_and_is_the_same_pipeline() {
    let _bound = settings().bind_to_scope();
    let overrides = Overrides {
        set: vec![
            "stage.top.highest=64".into(),
            "stage.score.run={batch=16,linger='5ms'}".into(),
        ],
        variables: vec![(
            "slides".into(),
            "tests/fixtures/CMU-1-Small-Region.svs".into(),
        )],
        workers: Some(2),
        ..Overrides::default()
    };
    let checked = check(&short_demo(), &overrides);
    let plan = checked.plan.clone().unwrap();
    let shown = show(&plan, &checked);
    for place in [
        "# <--set>:1:19",
        "# <--workers>:1:1",
        "# <command line>:1:8, as ${slides}",
        "# tests/diagnostics/demo.weir.toml:",
        "# default",
    ] {
        assert!(shown.contains(place), "no {place:?} in\n{shown}");
    }
    let again = check_text(
        Path::new("shown.weir.toml"),
        &shown,
        &Overrides::default(),
        &registry(),
        &NoPlugins,
        &|_| None,
    );
    let found = weir_pipeline::render::all(
        &again.diagnostics,
        &again.sources,
        weir_pipeline::render::Style::Short,
    );
    let again = again.plan.unwrap_or_else(|| panic!("{found}\n{shown}"));
    assert_eq!((again.hash, &again.run), (plan.hash.clone(), &plan.run));
    // The numbers of cores are this machine's.
    let shown: Vec<&str> = shown
        .lines()
        .filter(|line| !line.starts_with("helpers") && !line.starts_with("readers"))
        .collect();
    let hash = &plan.models["b"].sha256;
    assert!(shown.iter().any(|line| line.contains(hash.as_str())));
    insta::assert_snapshot!("show", shown.join("\n"));
}

#[test]
fn stage_types_are_described() {
    let _bound = settings().bind_to_scope();
    let registry = weir_stages::registry();
    insta::assert_snapshot!(
        "stage-text",
        reference::text(registry.get("top-k").unwrap())
    );
    insta::assert_snapshot!(
        "stage-markdown",
        reference::markdown(registry.get("top-k").unwrap())
    );
    let (list, table) = (
        reference::list(&registry),
        reference::list_markdown(&registry),
    );
    for schema in registry.iter() {
        assert!(list.contains(schema.name) && table.contains(&format!("`{}`", schema.name)));
        let text = reference::text(schema);
        for param in schema.params {
            assert!(
                text.contains(&format!("  {}: ", param.name)),
                "{}: {}",
                schema.name,
                param.name
            );
        }
        assert!(text.contains("[stage."), "{} has an example", schema.name);
    }
}

#[test]
fn the_json_schema_knows_every_type_and_key() {
    enter_root();
    let schema = json_schema(&weir_stages::registry());
    let types = schema["properties"]["stage"]["additionalProperties"]["allOf"]
        .as_array()
        .unwrap();
    assert_eq!(types.len(), weir_stages::registry().iter().count());
    for (entry, stage) in types.iter().zip(weir_stages::registry().iter()) {
        assert_eq!(entry["if"]["properties"]["use"]["const"], stage.name);
        let keys: BTreeSet<&str> = entry["then"]["properties"]
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        for param in stage.params {
            assert!(keys.contains(param.name), "{}: {}", stage.name, param.name);
            let required = entry["then"]["required"]
                .as_array()
                .unwrap()
                .contains(&param.name.into());
            assert_eq!(required, param.required, "{}: {}", stage.name, param.name);
        }
    }
    let top: BTreeSet<&str> = schema["properties"]
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(
        top,
        BTreeSet::from([
            "weir", "name", "doc", "var", "run", "model", "plugin", "stage", "test"
        ])
    );
}
