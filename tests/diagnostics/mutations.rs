//! Whatever a file holds, the checker answers: it never panics, and there is a plan exactly when there is no error.

use crate::{FOLDER, enter_root, registry};
use proptest::prelude::*;
use std::path::{Path, PathBuf};
use weir_pipeline::check::check_text;
use weir_pipeline::render::{self, Style};
use weir_pipeline::{Checked, NoPlugins, Overrides};

/// The demo's pipeline over the models of these tests.
pub fn demo() -> String {
    std::fs::read_to_string("pipelines/demo.weir.toml")
        .unwrap()
        .replace("models/demo/", "models/")
        .replace("../tests/fixtures/", "../fixtures/")
}

/// A text as if it stood beside the files of these tests.
pub fn check(text: &str, overrides: &Overrides) -> Checked {
    let file = PathBuf::from(format!("{FOLDER}/demo.weir.toml"));
    check_text(&file, text, overrides, &registry(), &NoPlugins, &|_| None)
}

fn answers(text: &str, overrides: &Overrides) -> Result<(), TestCaseError> {
    let checked = check(text, overrides);
    prop_assert_eq!(checked.plan.is_some(), !checked.has_errors());
    for style in [Style::Human { color: true }, Style::Short, Style::Json] {
        let printed = render::all(&checked.diagnostics, &checked.sources, style);
        prop_assert_eq!(printed.is_empty(), checked.diagnostics.is_empty());
    }
    for diagnostic in &checked.diagnostics {
        for label in &diagnostic.labels {
            let source = checked.sources.get(label.span.source);
            prop_assert!(source.is_some_and(|source| label.span.end <= source.text.len() + 1));
        }
    }
    if let Some(plan) = &checked.plan {
        for (index, node) in plan.nodes.iter().enumerate() {
            prop_assert!(
                node.inputs.iter().all(|edge| edge.node < index),
                "edges point back"
            );
        }
    }
    Ok(())
}

/// Pieces that pipeline files are made of, and pieces that are nearly so.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "[stage.a]\n",
            "[stage.b]",
            "[[test]]\n",
            "[run]\n",
            "[var.x]\n",
            "[model.a]\n",
            "[plugin.p]\n",
            "weir = 1\n",
            "use = \"tile-reader\"\n",
            "use = \"scorer\"\n",
            "use = \"top-k\"\n",
            "use = ",
            "in = \"a\"\n",
            "in = { scores = \"b\" }\n",
            "in = [\"a\", \"b.c\"]\n",
            "in = {\n",
            "slides = []\n",
            "size = 50\n",
            "size = \"${x}\"\n",
            "mpp = nan\n",
            "mpp = 1e400\n",
            "type = \"list\"\n",
            "default = [\"${x}\", 1]\n",
            "default = 0x_1\n",
            "\"${",
            "}\"",
            "\"\"\"",
            "'''",
            "]",
            "}",
            "=",
            ".",
            ",",
            "#",
            "\r\n",
            "\n",
            "ü",
            "\u{feff}",
            "\u{202e}",
            "feed = { colour = [1,2,3] }\n",
            "expect = { a = { values = 1 } }\n",
            "run = { batch = 1, device = \"gpu\" }\n",
            "memory = \"1GiB\"\n",
            "model = \"a\"\n",
            "path = \"models/a\"\n",
        ])
        .prop_map(str::to_owned),
        "[ -~]{0,6}",
        "\\PC{0,3}",
    ]
}

/// A change of a text: what goes from where, and what comes.
fn change() -> impl Strategy<Value = (prop::sample::Index, usize, String)> {
    (any::<prop::sample::Index>(), 0..40usize, piece())
}

fn changed(text: &str, changes: &[(prop::sample::Index, usize, String)]) -> String {
    let mut text: Vec<char> = text.chars().collect();
    for (at, length, piece) in changes {
        let at = at.index(text.len() + 1);
        let end = (at + length).min(text.len());
        text.splice(at..end, piece.chars());
    }
    text.into_iter().collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_answered(text in "\\PC{0,200}") {
        enter_root();
        answers(&text, &Overrides::default())?;
    }

    #[test]
    fn any_heap_of_pieces_is_answered(pieces in prop::collection::vec(piece(), 0..40)) {
        enter_root();
        answers(&pieces.concat(), &Overrides::default())?;
    }

    #[test]
    fn any_change_of_the_demo_is_answered(changes in prop::collection::vec(change(), 1..6)) {
        enter_root();
        answers(&changed(&demo(), &changes), &Overrides::default())?;
    }

    #[test]
    fn any_override_is_answered(
        key in prop::sample::select(vec!["run.out", "stage.top.highest", "stage.top", "stage.new.use", "weir", "var.slides.default", "stage.tiles.slides", ""]),
        value in piece(),
        variable in "[a-z]{0,6}",
        text in piece(),
    ) {
        enter_root();
        let overrides = Overrides {
            set: vec![format!("{key}={value}"), format!("{key} = {}", value.trim())],
            variables: vec![(variable, text.clone()), ("slides".into(), text)],
            ..Overrides::default()
        };
        answers(&demo(), &overrides)?;
    }

    #[test]
    fn the_order_of_tables_and_what_changes_no_answer_leave_the_hash(
        order in Just((0..11).collect::<Vec<usize>>()).prop_shuffle(),
        memory in 64u64..4096,
        workers in 1usize..4,
    ) {
        enter_root();
        let demo = demo();
        let first = check(&demo, &Overrides::default()).plan;
        let mut parts: Vec<&str> = demo.split("\n[stage.").collect();
        let head = parts.remove(0);
        prop_assert_eq!(parts.len(), order.len());
        let mut text = head.to_owned();
        for at in order {
            text.push_str("\n\n# moved\n[stage.");
            text.push_str(parts[at]);
        }
        let overrides = Overrides {
            set: vec![format!("run.memory='{memory}MiB'")],
            workers: Some(workers),
            out: Some("elsewhere".into()),
            ..Overrides::default()
        };
        let moved = check(&text, &overrides).plan;
        prop_assert_eq!(first.map(|plan| plan.hash), moved.map(|plan| plan.hash));
    }
}

#[test]
fn what_changes_an_answer_changes_the_hash() {
    enter_root();
    let hash = |set: &str| {
        let set: Vec<String> = set.split_whitespace().map(str::to_owned).collect();
        let checked = check(
            &demo(),
            &Overrides {
                set,
                ..Overrides::default()
            },
        );
        let found = render::all(&checked.diagnostics, &checked.sources, Style::Short);
        checked.plan.unwrap_or_else(|| panic!("{found}")).hash
    };
    let plain = hash("");
    for set in [
        "stage.top.highest=33",
        "stage.tiles.overlap=2",
        "stage.pool.link=\"none\"",
        "run.executor=\"burn\"",
        "run.max-failed=0.5",
        "run.seed=1",
        "run.default-mpp=0.5",
        "model.b.path=\"tests/diagnostics/models/c\"",
        "stage.encode.run={device=\"cuda:0\"}",
    ] {
        assert_ne!(plain, hash(set), "{set}");
    }
    assert_eq!(plain, hash("stage.tiles.mpp=4"), "4 is 4.0");
    assert_eq!(plain, hash("stage.score.run={batch=7}"));
}

#[test]
fn paths_start_where_they_are_written() {
    enter_root();
    let overrides = Overrides {
        variables: vec![(
            "slides".into(),
            "tests/fixtures/CMU-1-Small-Region.svs".into(),
        )],
        ..Overrides::default()
    };
    let checked = check(&demo(), &overrides);
    let plan = checked.plan.unwrap();
    // `..` goes over the folder that is there, so the shortest form is left.
    assert_eq!(plan.run.out, Path::new("tests/out/demo"));
    assert_eq!(
        plan.node("tiles").unwrap().values.texts("slides").unwrap(),
        ["tests/fixtures/CMU-1-Small-Region.svs"]
    );
    let overrides = Overrides {
        out: Some("here".into()),
        workers: Some(3),
        device: Some("cpu".into()),
        executor: Some("burn".into()),
        ..Overrides::default()
    };
    let run = check(&demo(), &overrides).plan.unwrap().run;
    assert_eq!((run.out.as_path(), run.workers), (Path::new("here"), 3));
    assert_eq!(
        (run.devices, run.executor),
        (vec!["cpu".to_owned()], "burn".to_owned())
    );
}

#[test]
fn more_than_fifty_mistakes_are_counted_not_printed() {
    enter_root();
    let text: String = (0..60).map(|n| format!("key{n} = 1\n")).collect();
    let checked = check(&format!("weir = 1\n{text}"), &Overrides::default());
    assert_eq!(checked.diagnostics.len(), 61, "sixty keys, and no stages");
    let printed = render::all(&checked.diagnostics, &checked.sources, Style::Short);
    assert_eq!(printed.lines().count(), 51);
    assert!(printed.ends_with("11 more are not shown\n"), "{printed}");
}

#[test]
fn a_file_full_of_mistakes_is_answered_too() {
    enter_root();
    let bad = "weir = = 1\n[stage.x\nkey = value\n".repeat(20_000);
    assert!(check(&bad, &Overrides::default()).has_errors());
    let keys: String = (0..60_000).map(|n| format!("k{n} = 1\n")).collect();
    assert!(check(&keys, &Overrides::default()).has_errors());
    // Each level takes both of the level before: twice as many ways at each.
    let mut text = demo();
    for level in 0..200 {
        let from = match level {
            0 => "[\"score\"]".to_owned(),
            level => format!("[\"s{0}a\", \"s{0}b\"]", level - 1),
        };
        text.push_str(&format!(
            "\n[stage.t{level}]\nuse = \"top-k\"\nin = {from}\nhighest = 8\nlowest = 8\n\
             [stage.f{level}]\nuse = \"tile-fetch\"\nin = \"t{level}\"\n"
        ));
        for side in ["a", "b"] {
            text.push_str(&format!(
                "[stage.s{level}{side}]\nuse = \"scorer\"\nin = \"f{level}\"\nmodel = \"a\"\n"
            ));
        }
    }
    assert!(check(&text, &Overrides::default()).plan.is_some());
}
