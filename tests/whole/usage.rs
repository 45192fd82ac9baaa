//! What holds for every command: exit codes, where text goes, help from one source.

use crate::program::{command, weir};
use std::process::Stdio;

const COMMANDS: [&str; 15] = [
    "run",
    "validate",
    "graph",
    "stages",
    "explain",
    "schema",
    "show",
    "inspect",
    "doctor",
    "test",
    "train",
    "new",
    "plugin",
    "completions",
    "man",
];

#[test]
fn mistakes_of_usage_exit_with_2_and_help_with_0() {
    assert!(weir::<&str>([]).exits(2).err.contains("Usage: weir"));
    assert!(
        weir(["jump"])
            .exits(2)
            .err
            .contains("unrecognized subcommand 'jump'")
    );
    assert!(weir(["run"]).exits(2).err.contains("<FILE>"));
    let help = weir(["--help"]).exits(0);
    assert!(help.err.is_empty());
    for name in COMMANDS {
        assert!(
            help.out.contains(&format!("\n  {name} ")),
            "{name} is listed"
        );
        assert!(
            weir([name, "--help"]).exits(0).out.contains("Usage: weir"),
            "{name} --help"
        );
    }
    assert!(weir(["--version"]).exits(0).out.starts_with("weir "));
}

#[test]
fn completions_and_the_man_pages_come_from_the_same_source() {
    for shell in ["bash", "zsh", "fish"] {
        let said = weir(["completions", shell]).exits(0);
        assert!(
            COMMANDS.iter().all(|name| said.out.contains(name)),
            "{shell}"
        );
    }
    assert!(weir(["man"]).exits(0).out.contains(".TH weir 1"));
    assert!(weir(["man", "run"]).exits(0).out.contains("join"));
    let said = weir(["man", "jump"]).exits(2);
    assert!(
        said.err.contains("there is no command `jump`") && said.err.contains("doctor"),
        "{}",
        said.err
    );
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let mut command = command(["completions", "bash"]);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(
        output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn errors_are_json_where_json_is_asked_for() {
    let said = weir(["inspect", "nowhere.svs", "--format", "json"]).exits(1);
    let error: serde_json::Value = serde_json::from_str(&said.err).unwrap();
    assert_eq!(error["level"], "error");
    assert!(error["message"].as_str().unwrap().contains("nowhere.svs"));
}
