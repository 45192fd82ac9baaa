//! Every diagnostic has a file in tests/diagnostics that raises it, a snapshot of what is printed, and a text for `weir explain`.
//!
//! Lines `#! ..` at the top of a file say what the command line adds: `set KEY=VALUE`, `variable NAME=VALUE`,
//! `environment NAME=VALUE`, `rules WORD` (which plugins are allowed), `folder NAME` (where plugins are looked for, too), `missing NAME` (check that file instead), `pad BYTES`, `stages COUNT` (make the file larger), `refused
//! STAGE`, `neighbours STAGE`, `plugin CODE NAME`, `stage CODE STAGE`, `failed` (messages of the run). New snapshots are accepted with `cargo insta review` or INSTA_UPDATE=always.
#![allow(clippy::unwrap_used)]

#[path = "program/libraries.rs"]
mod libraries;
#[path = "diagnostics/mutations.rs"]
mod mutations;
#[path = "diagnostics/plugins.rs"]
mod plugins;
#[path = "diagnostics/printed.rs"]
mod printed;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use weir_pipeline::check::check_in;
use weir_pipeline::render::{self, Style};
use weir_pipeline::schema::StateBytes;
use weir_pipeline::{
    Checked, Deliver, Dim, Kind, Overrides, Place, Port, Registry, Rows, Schema, codes, explain,
};

use weir_plugin_host::Rules;

const FOLDER: &str = "tests/diagnostics";

/// A stage that changes pixels: the built-in ones have none, and W0416 is about them.
static STAIN_MAP: Schema = Schema {
    name: "stain-map",
    summary: "changes pixels",
    doc: "For tests.",
    rows: Rows::Map,
    deliver: Deliver::Arrival,
    place: Place::Home,
    params: &[],
    ins: &[PIXELS],
    outs: &[PIXELS],
    batch_only: false,
    state_bytes: StateBytes::Nothing,
    example: "[stage.even]\nuse = \"stain-map\"\nin = \"tiles\"\n",
};

const PIXELS: Port = Port {
    name: "tiles",
    kind: Kind::Pixels,
    shape: &[Dim::Same("height"), Dim::Same("width"), Dim::Fixed(3.0)],
    mpp: Some(Dim::Same("mpp")),
    many: false,
    optional: false,
    doc: "Pixels",
};

fn registry() -> Registry {
    Registry::new(weir_stages::registry().iter().chain([&STAIN_MAP]))
}

/// All paths in messages start at the project's top.
fn enter_root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .unwrap()
        .to_owned();
    std::env::set_current_dir(&root).unwrap();
    root
}

fn names() -> BTreeSet<String> {
    std::fs::read_dir(FOLDER)
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
        .filter_map(|name| name.strip_suffix(".weir.toml").map(str::to_owned))
        .collect()
}

/// Checks a file as its first lines say.
fn checked(name: &str) -> Checked {
    let file = PathBuf::from(format!("{FOLDER}/{name}.weir.toml"));
    let bytes = std::fs::read(&file).unwrap();
    let mut text = String::from_utf8_lossy(&bytes).into_owned();
    let mut overrides = Overrides::default();
    let mut environment = Vec::new();
    let mut neighbours = None;
    let (mut path, mut refused, mut failed, mut larger) = (file.clone(), None, false, false);
    let (mut rules, mut later) = (Rules::default(), Vec::new());
    let mut named = Vec::new();
    let first = text.clone();
    for line in first.lines().map_while(|line| line.strip_prefix("#! ")) {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        let pair = || {
            let (name, value) = rest.split_once('=').unwrap();
            (name.to_owned(), value.to_owned())
        };
        match verb {
            "set" => overrides.set.push(rest.to_owned()),
            "variable" => overrides.variables.push(pair()),
            "environment" => environment.push(pair()),
            "missing" => path = PathBuf::from(format!("{FOLDER}/{rest}")),
            "pad" => {
                text.push_str(&"# \n".repeat(rest.parse::<usize>().unwrap() / 3));
                larger = true;
            }
            "stages" => {
                for n in 0..rest.parse().unwrap() {
                    text.push_str(&format!("[stage.s{n}]\nuse = \"tile-reader\"\n"));
                }
                larger = true;
            }
            "refused" => refused = Some(rest.to_owned()),
            "failed" => failed = true,
            "rules" => rules = plugins::rules(rest),
            "folder" => named.push(rest.into()),
            "plugin" | "stage" => later.push((verb.to_owned(), rest.to_owned())),
            "neighbours" => neighbours = Some(rest.to_owned()),
            other => panic!("{name}: `#! {other}`"),
        }
    }
    let folder = tempfile::tempdir().unwrap();
    if larger {
        path = folder.path().join("large.weir.toml");
        std::fs::write(&path, &text).unwrap();
    }
    let get = |name: &str| {
        let found = environment
            .iter()
            .find(|(known, _): &&(String, String)| known == name);
        found.map(|(_, value)| value.clone())
    };
    let catalogue = plugins::catalogue(rules, named);
    let mut checked = check_in(&path, &overrides, &registry(), &catalogue, &get);
    for (of, rest) in later {
        let found = plugins::later(&checked, &of, &rest);
        checked.diagnostics.push(found);
    }
    if let Some(stage) = refused {
        let what = "two slides are called `a`";
        let refused = checked.refused(
            &stage,
            what,
            "name them in a manifest with the columns slide,path",
        );
        checked.diagnostics.push(refused);
    }
    if let Some(stage) = neighbours {
        let found = checked.not_deterministic(&stage, "onnxruntime 1.32.0", "cuda:0");
        checked.diagnostics.push(found);
    }
    if failed {
        let test = &checked.tests[0];
        let (count, span) = test.expect[0].counts["values"];
        let diagnostic = test.failed(span, "`values` of stage `score`", &count.to_string(), "3");
        checked.diagnostics.push(diagnostic);
    }
    checked
}

/// What is printed, without what is of this machine.
fn printed(checked: &Checked, style: Style) -> String {
    let mut text = render::all(&checked.diagnostics, &checked.sources, style);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    text = text.replace(&format!("{cores} cores"), "N cores");
    text = plugins::masked(&text);
    if let Some(at) = text.find("large.weir.toml") {
        let start = text[..at].rfind(['`', ' ']).map_or(0, |n| n + 1);
        let folder = text[start..at].to_owned();
        text = text.replace(&folder, "");
    }
    text
}

#[test]
fn every_file_prints_its_snapshot_and_raises_the_code_that_it_is_named_for() {
    let root = enter_root();
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(root.join(FOLDER));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    let _bound = settings.bind_to_scope();
    for name in names() {
        let checked = checked(&name);
        let raised: Vec<_> = checked
            .diagnostics
            .iter()
            .map(|diagnostic| diagnostic.code.id)
            .collect();
        if let Some(code) = codes::find(name.split('-').next().unwrap()) {
            assert!(raised.contains(&code.id), "{name} raises {raised:?}");
        }
        for diagnostic in &checked.diagnostics {
            assert!(diagnostic.title.len() < 300, "{name}: {}", diagnostic.title);
        }
        insta::assert_snapshot!(
            name.as_str(),
            printed(&checked, Style::Human { color: false })
        );
    }
}

#[test]
fn every_code_has_a_file_a_snapshot_and_an_explanation() {
    enter_root();
    let names = names();
    for code in codes::all() {
        let own = names
            .iter()
            .find(|name| name.split('-').next() == Some(code.id));
        let name =
            own.unwrap_or_else(|| panic!("{} has no file {FOLDER}/{}.weir.toml", code.id, code.id));
        assert!(
            Path::new(FOLDER).join(format!("{name}.snap")).exists(),
            "{} has no snapshot",
            code.id
        );
        let text = explain(code.id).unwrap();
        assert!(
            text.contains(code.id) && text.len() > 150,
            "{} is not explained",
            code.id
        );
    }
    // A snapshot without its file proves nothing.
    for entry in std::fs::read_dir(FOLDER).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if let Some(name) = name.strip_suffix(".snap") {
            assert!(names.contains(name), "{name}.snap has no file");
        }
    }
}

#[test]
fn twelve_mistakes_are_twelve_diagnostics_with_line_and_column() {
    enter_root();
    let checked = checked("twelve");
    let text = printed(&checked, Style::Short);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 12, "\n{text}");
    let mut places = BTreeSet::new();
    for line in &lines {
        let rest = line
            .strip_prefix("tests/diagnostics/twelve.weir.toml:")
            .unwrap();
        let mut parts = rest.splitn(3, ':');
        let at: (usize, usize) = (
            parts.next().unwrap().parse().unwrap(),
            parts.next().unwrap().parse().unwrap(),
        );
        assert!(parts.next().unwrap().starts_with(" error["), "{line}");
        places.insert(at);
    }
    assert_eq!(places.len(), 12, "two at one place\n{text}");
    assert!(checked.plan.is_none());
}

#[test]
fn fixes_mend_what_they_promise_to_mend() {
    enter_root();
    let mut mended = 0;
    for name in names() {
        let checked = checked(&name);
        for diagnostic in &checked.diagnostics {
            let Some(fix) = &diagnostic.fix else { continue };
            if fix.edits.iter().any(|edit| edit.span.source != 0) {
                continue;
            }
            let mut text = checked.sources.get(0).unwrap().text.clone();
            for edit in fix.edits.iter().rev() {
                text.replace_range(edit.span.start..edit.span.end, &edit.text);
            }
            let file = PathBuf::from(format!("{FOLDER}/{name}.weir.toml"));
            let get = |name: &str| (name == "WEIR_VAR_MPP").then(|| "0.001".to_owned());
            let again = weir_pipeline::check::check_text(
                &file,
                &text,
                &Overrides::default(),
                &registry(),
                &plugins::catalogue(Rules::default(), Vec::new()),
                &get,
            );
            let same = again.diagnostics.iter().any(|other| {
                other.code == diagnostic.code
                    && other.title == diagnostic.title
                    && other.fix.is_some()
            });
            assert!(
                !same,
                "{name}: {} is still there after\n{text}",
                diagnostic.title
            );
            mended += 1;
        }
    }
    assert!(mended > 30, "{mended} fixes");
}

#[test]
fn columns_count_characters_and_byte_spans_are_right_beside_letters_of_two_bytes() {
    enter_root();
    let checked = checked("umlaut");
    let short = printed(&checked, Style::Short);
    let text = &checked.sources.get(0).unwrap().text;
    let line = text.lines().position(|line| line.contains("ötsü")).unwrap();
    let column = text
        .lines()
        .nth(line)
        .unwrap()
        .chars()
        .position(|c| c == '"')
        .unwrap();
    assert!(
        short.contains(&format!(":{}:{}: error[E0304]", line + 1, column + 1)),
        "\n{short}"
    );
    for object in printed(&checked, Style::Json).lines() {
        let object: serde_json::Value = serde_json::from_str(object).unwrap();
        let at = &object["labels"][0]["at"];
        let span = at["start"].as_u64().unwrap() as usize..at["end"].as_u64().unwrap() as usize;
        assert!(
            text.get(span.clone())
                .is_some_and(|piece| !piece.is_empty()),
            "{span:?} in {object}"
        );
    }
}

#[test]
fn what_the_stages_say_of_themselves_passes_the_checker() {
    assert_eq!(
        weir_pipeline::reference::faults(&weir_stages::registry()),
        Vec::<String>::new()
    );
}
