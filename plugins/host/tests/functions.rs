//! A plugin's tables have the stages and readers of its manifest, no others, and of each the functions that its kind has.
#![allow(clippy::unwrap_used)]

mod programs;

use programs::{admitted, compiled_text};
use std::path::Path;
use weir_plugin_host::Loaded;

/// What the functions of all kinds are; none of them is ever called.
const FUNCTIONS: &str = r#"#include "weir_plugin.h"
static weir_status create(const weir_host *h, weir_call *c, const weir_value *v, uint32_t n, void **self) { (void)h; (void)c; (void)v; (void)n; *self = 0; return WEIR_OK; }
static void destroy(void *self) { (void)self; }
static weir_status process(void *self, weir_call *c, uint32_t port, const weir_batch *in) { (void)self; (void)c; (void)port; (void)in; return WEIR_OK; }
static weir_status removed(void *self, weir_call *c, uint32_t port, const weir_row *rows, uint32_t n) { (void)self; (void)c; (void)port; (void)rows; (void)n; return WEIR_OK; }
static weir_status complete(void *self, weir_call *c, const weir_slide *slide, uint32_t through, uint32_t end) { (void)self; (void)c; (void)slide; (void)through; (void)end; return WEIR_OK; }
static weir_status slide(void *self, weir_call *c, uint64_t i, weir_slide *out) { (void)self; (void)c; (void)i; (void)out; return WEIR_END; }
static weir_status open_slide(void *self, weir_call *c, uint64_t i, void *key, weir_slide *out, void **opened) { (void)self; (void)c; (void)i; (void)key; (void)out; (void)opened; return WEIR_E_FAIL; }
static weir_status next(void *opened, weir_call *c, weir_step *out) { (void)opened; (void)c; (void)out; return WEIR_END; }
static weir_status read_row(void *opened, weir_call *c, const weir_row *row, void *into, size_t n) { (void)opened; (void)c; (void)row; (void)into; (void)n; return WEIR_OK; }
static void close_it(void *opened) { (void)opened; }
static int32_t sniff(weir_str path, const uint8_t *head, size_t n) { (void)path; (void)head; (void)n; return 0; }
static weir_status open_file(const weir_host *h, weir_call *c, weir_str path, void **out) { (void)h; (void)c; (void)path; (void)out; return WEIR_E_FAIL; }
static weir_status info(void *opened, weir_call *c, const weir_facts **out) { (void)opened; (void)c; (void)out; return WEIR_E_FAIL; }
static weir_status region(void *opened, weir_call *c, uint32_t level, int64_t x, int64_t y, uint32_t w, uint32_t h, uint8_t *into, size_t pitch) { (void)opened; (void)c; (void)level; (void)x; (void)y; (void)w; (void)h; (void)into; (void)pitch; return WEIR_E_FAIL; }
"#;

const TILES: &str = r#"{ "name": "tiles", "kind": "pixels", "shape": [8, 8, 3], "mpp": 1.0 }"#;
const SCORES: &str = r#"{ "name": "scores", "kind": "scores", "shape": [8, 8, 2] }"#;

/// A stage of a manifest: its kind, what else stands there, what it takes and gives.
fn stage(rows: &str, more: &str, takes: Option<&str>, gives: Option<&str>) -> String {
    let ports =
        |name: &str, port: Option<&str>| port.map(|port| format!(r#", "{name}": [{port}]"#));
    format!(
        r#"{{ "id": "probe.own", "summary": "For tests", "rows": "{rows}"{more}{}{} }}"#,
        ports("in", takes).unwrap_or_default(),
        ports("out", gives).unwrap_or_default(),
    )
}

/// What is found wrong with a plugin whose manifest has `stages` and a reader or none, and whose tables have those functions; `None`
/// where it is loaded. Without functions there is no table.
fn refused(
    folder: &Path,
    stages: &str,
    reader: bool,
    [of_stage, of_reader]: [Option<&[&str]>; 2],
) -> Option<String> {
    let readers = if reader {
        r#"{ "id": "probe-files", "summary": "For tests" }"#
    } else {
        ""
    };
    let manifest = format!(
        r#"{{ "weir-abi": "1.0", "name": "probe", "version": "0.1.0", "summary": "For tests", "stages": [{stages}], "readers": [{readers}] }}"#
    );
    let members = |functions: &[&str]| -> String {
        let own = functions.iter().map(|name| {
            let function = match *name {
                "remove" => "removed",
                "complete_slide" => "complete",
                "open" if of_stage.is_some_and(|of| of.contains(name)) => "open_slide",
                "open" => "open_file",
                "read" => "read_row",
                "read_region" => "region",
                "close" => "close_it",
                name => name,
            };
            format!(", .{name} = {function}")
        });
        own.collect()
    };
    let table = |of: Option<&[&str]>, what: &str, id: &str| match of {
        Some(functions) => format!(
            "static const weir_{what} {what} = {{ .struct_size = sizeof {what}, .id = \"{id}\"{} }};\nstatic const weir_{what} *const {what}s[] = {{ &{what} }};\n",
            members(functions)
        ),
        None => String::new(),
    };
    let member = |of: Option<&[&str]>, what: &str| match of {
        Some(_) => format!(", .{what}s = {what}s, .n_{what}s = 1"),
        None => String::new(),
    };
    let text = format!(
        "{FUNCTIONS}WEIR_MANIFEST({manifest:?});\n{}{}static const weir_plugin plugin = {{ .struct_size = sizeof plugin, .abi_minor = WEIR_ABI_MINOR, .manifest = weir_manifest{}{} }};\n\
         WEIR_EXPORT weir_status weir_plugin_v1(const weir_host *h, weir_call *c, const weir_plugin **out) {{ (void)h; (void)c; *out = &plugin; return WEIR_OK; }}\n",
        table(of_stage, "stage", "probe.own"),
        table(of_reader, "reader", "probe-files"),
        member(of_stage, "stage"),
        member(of_reader, "reader"),
    );
    let so = folder.join("libprobe.so");
    let _ = std::fs::remove_file(&so);
    let file = compiled_text(&text, &so, &["-Wno-unused-function"]);
    let refusal = Loaded::new(&admitted(&file, "probe")).err()?;
    assert_eq!(refusal.code, "E0513", "{refusal}");
    Some(refusal.what)
}

/// The functions of each kind: without any one of them the plugin is refused, and with all it is loaded.
#[test]
fn every_function_of_a_kind_is_asked_for_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let (tiles, scores) = (Some(TILES), Some(SCORES));
    let gathers = ["create", "destroy", "process", "remove", "complete_slide"];
    let reads = [
        "create", "destroy", "slide", "open", "next", "read", "close",
    ];
    let kinds: [(&str, String, &[&str]); 6] = [
        ("map", stage("map", "", tiles, tiles), &gathers[..3]),
        ("filter", stage("filter", "", tiles, tiles), &gathers[..3]),
        ("reduce", stage("reduce", "", scores, scores), &gathers),
        ("sink", stage("sink", "", scores, None), &gathers),
        ("source", stage("source", "", None, tiles), &reads),
        (
            "reduce",
            stage("reduce", r#", "batch-only": true"#, scores, scores),
            &["create", "destroy", "process", "complete_slide"],
        ),
    ];
    for (kind, stage, functions) in kinds {
        let found = |of: &[&str]| refused(folder.path(), &stage, false, [Some(of), None]);
        assert_eq!(found(functions), None, "{kind}");
        for lacks in functions {
            let others: Vec<&str> = functions
                .iter()
                .filter(|of| *of != lacks)
                .copied()
                .collect();
            let said = found(&others).unwrap_or_else(|| panic!("a {kind} without {lacks}"));
            let wanted = format!("stage `probe.own` is a {kind} and has no function `{lacks}`");
            assert!(said.contains(&wanted), "{said}");
        }
    }
    let functions = ["sniff", "open", "info", "read_region", "close"];
    let found = |of: &[&str]| refused(folder.path(), "", true, [None, Some(of)]);
    assert_eq!(found(&functions), None);
    for lacks in functions {
        let others: Vec<&str> = functions.into_iter().filter(|of| *of != lacks).collect();
        let said = found(&others).unwrap_or_else(|| panic!("a reader without {lacks}"));
        assert!(
            said.contains("reader `probe-files` lacks one of sniff, open"),
            "{said}"
        );
    }
}

#[test]
fn tables_have_what_the_manifest_has_and_nothing_beside() {
    let folder = tempfile::tempdir().unwrap();
    let map = stage("map", "", Some(TILES), Some(TILES));
    let maps: &[&str] = &["create", "destroy", "process"];
    let reads: &[&str] = &["sniff", "open", "info", "read_region", "close"];
    let batch_only = stage(
        "reduce",
        r#", "batch-only": true"#,
        Some(SCORES),
        Some(SCORES),
    );
    let gathers: &[&str] = &["create", "destroy", "process", "remove", "complete_slide"];
    for (stages, reader, tables, said) in [
        (
            map.as_str(),
            false,
            [None, None],
            "stage `probe.own` is missing",
        ),
        ("", true, [None, None], "reader `probe-files` is missing"),
        (
            "",
            true,
            [Some(maps), Some(reads)],
            "its tables have a stage `probe.own`, and its manifest has not",
        ),
        (
            &map,
            false,
            [Some(maps), Some(reads)],
            "its tables have a reader `probe-files`, and its manifest has not",
        ),
        (
            &batch_only,
            false,
            [Some(gathers), None],
            "stage `probe.own` is batch-only in the manifest, and its table has a function `remove`",
        ),
    ] {
        let found = refused(folder.path(), stages, reader, tables).unwrap();
        assert!(found.contains(said), "{found}");
    }
}
