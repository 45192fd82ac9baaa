//! The program as a user calls it: what it prints, the files that it writes, and how it ends. Times are not held to anything.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Output};
use weir_bench_kernels::record::{self, Record, cases};

/// Some milliseconds each.
const SMALL: &str = "pool.forward squared-average f32 1x32 d128 -masked -ragged";

fn bench(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_weir-bench-kernels"))
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn ended(output: &Output, status: i32) -> String {
    assert_eq!(
        output.status.code(),
        Some(status),
        "{}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

/// The earlier run's page with every time multiplied.
fn rewritten(folder: &Path, by: f64) -> String {
    let name = format!("times-{by}.jsonl");
    let mut lines = String::new();
    for mut record in record::read(&folder.join("now.jsonl")).unwrap() {
        if let Record::Case(case) = &mut record {
            for time in [&mut case.p10, &mut case.median, &mut case.p90] {
                *time *= by;
            }
        }
        lines += &serde_json::to_string(&record).unwrap();
        lines.push('\n');
    }
    std::fs::write(folder.join(&name), lines).unwrap();
    name
}

#[test]
fn a_run_writes_lines_a_timeline_and_a_roofline_and_is_compared_with_an_earlier_one() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let files = ["--json", "now.jsonl", "--trace", "now.json", "--plot"];
    let said = ended(
        &bench(
            folder,
            &[
                &["--quick", "--filter", SMALL],
                &files[..],
                &["roofline.png"],
            ]
            .concat(),
        ),
        0,
    );
    assert!(said.contains("Ceilings measured: plain read"), "{said}");

    // The lines are the table's cases, and whole.
    let records = record::read(&folder.join("now.jsonl")).unwrap();
    assert!(matches!(&records[0], Record::Machine(_)), "{records:?}");
    assert!(matches!(&records[1], Record::Ceilings(_)), "{records:?}");
    let measured = cases(records);
    assert!(!measured.is_empty());
    for case in &measured {
        assert!(said.contains(&case.case), "{} is not in {said}", case.case);
        assert!(case.median > 0.0 && case.p10 <= case.median && case.median <= case.p90);
        assert!(case.error.unwrap() <= 1e-5, "{case:?}");
        assert_eq!(case.stable, Some(true), "{case:?}");
    }

    // Each case is on the timeline, for as long as it took.
    let trace: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(folder.join("now.json")).unwrap()).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    for case in &measured {
        let event = events
            .iter()
            .find(|event| event["ph"] == "X" && event["name"] == case.case.as_str());
        assert!(event.unwrap()["dur"].as_f64().unwrap() > 0.0);
    }

    // The picture has more than its ground.
    let decoder = png::Decoder::new(std::io::BufReader::new(
        std::fs::File::open(folder.join("roofline.png")).unwrap(),
    ));
    let mut reader = decoder.read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut pixels).unwrap();
    let ground = pixels[..3].to_vec();
    assert!(pixels.chunks_exact(3).any(|pixel| pixel != ground));

    // A run that was a thousand times faster makes this one slower, and the exit status says so; and the other way round.
    for (by, verdict, status) in [(1e-3, "SLOWER", 1), (1e3, "faster", 0)] {
        let then = rewritten(folder, by);
        let output = bench(folder, &["--quick", "--filter", SMALL, "--compare", &then]);
        let said = ended(&output, status);
        let rows = said.lines().filter(|line| line.contains(verdict)).count();
        assert!(rows >= measured.len(), "{said}");
    }
}

#[test]
fn a_picture_is_an_svg_where_its_name_says_so_and_lines_go_to_standard_output_alone() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let arguments = ["--quick", "--filter", SMALL, "--json", "-", "--plot"];
    let said = ended(&bench(folder, &[&arguments[..], &["roof.svg"]].concat()), 0);
    for line in said.lines() {
        serde_json::from_str::<Record>(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    }
    let svg = std::fs::read_to_string(folder.join("roof.svg")).unwrap();
    assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
}

#[test]
fn what_it_cannot_do_is_said_before_anything_is_measured() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::write(folder.join("no.jsonl"), "{\"record\": \"case\"\n").unwrap();
    for (arguments, status, says) in [
        (&["--compare", "none.jsonl"][..], 1, "none.jsonl"),
        (&["--compare", "no.jsonl"], 2, "no.jsonl:1"),
        (&["--json", "no/folder.jsonl"], 1, "no/folder.jsonl"),
        (&["--filter", "no such case"], 2, "no such case"),
        (&["--predict", "abacus"], 2, "h200"),
        (&["--device", "tpu:0"], 2, "tpu:0"),
        (&["--budget", "much"], 2, "much"),
        (&["--colour"], 2, "--colour"),
    ] {
        let output = bench(folder, arguments);
        ended(&output, status);
        let said = text(&output.stderr);
        assert!(said.contains(says) && said.contains("help: "), "{said}");
        assert!(!said.contains("ceilings"), "{arguments:?}: {said}");
    }
}

#[test]
fn what_a_card_allows_is_said_without_one() {
    let folder = tempfile::tempdir().unwrap();
    let said = ended(&bench(folder.path(), &["--predict", "h200"]), 0);
    for case in ["gated-pool.forward", "64x4096", "H200"] {
        assert!(said.contains(case), "{said}");
    }
}

/// A library of the name under which NVIDIA's is looked for, which writes down the ranges.
const RANGES: &str = r#"
#include <stdio.h>
#include <stdlib.h>
static void say(const char *what, const char *name) {
  FILE *to = fopen(getenv("RANGES"), "a");
  if (!to) abort();
  fprintf(to, "%s%s\n", what, name);
  fclose(to);
}
int nvtxRangePushA(const char *name) { say("+ ", name); return 0; }
int nvtxRangePop(void) { say("-", ""); return 0; }
"#;

#[test]
fn each_case_is_a_range_for_a_profiler_where_its_library_is() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::write(folder.join("ranges.c"), RANGES).unwrap();
    let built = Command::new("gcc")
        .args(["-shared", "-fPIC", "-o", "libnvToolsExt.so.1", "ranges.c"])
        .current_dir(folder)
        .status();
    assert!(built.unwrap().success());
    let output = Command::new(env!("CARGO_BIN_EXE_weir-bench-kernels"))
        .args([
            "--check",
            "--filter",
            "pool.forward 8x40 f32 -ragged -masked",
        ])
        .args(["--json", "found.jsonl"])
        .current_dir(folder)
        .env("LD_LIBRARY_PATH", folder)
        .env("RANGES", folder.join("ranges"))
        .output()
        .unwrap();
    ended(&output, 0);
    let said = std::fs::read_to_string(folder.join("ranges")).unwrap();
    let cases = cases(record::read(&folder.join("found.jsonl")).unwrap());
    let wanted: Vec<String> = cases
        .iter()
        .flat_map(|case| [format!("+ {}", case.case), "-".into()])
        .collect();
    assert!(!wanted.is_empty());
    assert_eq!(said.lines().collect::<Vec<_>>(), wanted);
}
