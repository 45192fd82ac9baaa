//! Each test of `weir plugin check` passes on a plugin that keeps its rule and fails, by name, on one that breaks it.
#![allow(clippy::unwrap_used)]

mod programs;

use programs::{compiled, here};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use weir_plugin_host::check::{Causes, Finding, Order, Verdict, plan, run};

/// The plugin of `bad.c`; with a symbol that nobody has where `undefined` says so.
fn built(undefined: bool) -> &'static Path {
    static BUILT: [OnceLock<(tempfile::TempDir, PathBuf)>; 2] = [OnceLock::new(), OnceLock::new()];
    let (_, path) = BUILT[usize::from(undefined)].get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let so = folder.path().join("libbad.so");
        let flags = undefined.then_some("-DUNDEFINED");
        compiled(&here("check/bad.c"), &so, flags.as_slice());
        (folder, so)
    });
    path
}

/// A slide for the plugin's reader: 300 x 200 px.
fn slide() -> &'static Path {
    static MADE: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = MADE.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.glass");
        let mut bytes = b"BADGLASS".to_vec();
        bytes.extend(300u32.to_le_bytes());
        bytes.extend(200u32.to_le_bytes());
        bytes.extend((0..300 * 200u32).map(|at| (at % 251) as u8));
        std::fs::write(&path, bytes).unwrap();
        (folder, path)
    });
    path
}

/// What the tests named `only` say of the plugin that breaks this rule.
fn findings(file: &Path, sin: &str, only: &str, slide: Option<&Path>) -> Vec<Finding> {
    carried_out(&order(file, only, slide), sin)
}

/// The same; each test may take so long.
fn findings_within(
    timeout: Duration,
    file: &Path,
    sin: &str,
    only: &str,
    slide: Option<&Path>,
) -> Vec<Finding> {
    let order = Order {
        timeout,
        ..order(file, only, slide)
    };
    carried_out(&order, sin)
}

fn order(file: &Path, only: &str, slide: Option<&Path>) -> Order {
    Order {
        file: file.to_owned(),
        seed: 7,
        timeout: Duration::from_secs(40),
        only: vec![only.to_owned()],
        set: Vec::new(),
        slide: slide.map(Path::to_owned),
    }
}

fn carried_out(order: &Order, sin: &str) -> Vec<Finding> {
    let tests = plan(order).unwrap();
    assert!(!tests.is_empty(), "{:?}", order.only);
    let mut causes = Causes::default();
    let runs = tests.iter().map(|test| {
        let mut program = Command::new(env!("CARGO_BIN_EXE_plugin-host-child"));
        program.env("WEIR_BAD", sin);
        let found = causes.skipped(test);
        let found = found.unwrap_or_else(|| run(order, test, program));
        causes.note(&found);
        found
    });
    runs.collect()
}

/// That the one test fails with these words.
#[track_caller]
fn fails(sin: &str, test: &str, words: &str) {
    let found = findings(built(false), sin, test, Some(slide()));
    assert_eq!(found.len(), 1, "{test}");
    assert_eq!(found[0].verdict, Verdict::Failed, "{sin}: {:?}", found[0]);
    assert!(found[0].what.contains(words), "{sin}: {}", found[0].what);
}

#[test]
fn a_plugin_that_keeps_the_rules_passes_every_test_that_speaks_of_it() {
    for sin in ["", "pending", "edits", "entry-refuses"] {
        let only = match sin {
            "" => "",
            "entry-refuses" => "entry",
            _ => "bad.map",
        };
        let skips: Vec<String> = findings(built(false), sin, only, Some(slide()))
            .into_iter()
            .filter_map(|found| {
                assert_ne!(found.verdict, Verdict::Failed, "{sin}: {found:?}");
                let name = format!("{}: {}", found.stage, found.test);
                (found.verdict == Verdict::Skipped).then(|| {
                    assert!(!found.what.is_empty(), "{name}");
                    name
                })
            })
            .collect();
        match sin {
            "" => insta::assert_snapshot!(skips.join("\n")),
            "pending" => assert!(!skips.iter().any(|name| name.contains("pending"))),
            _ => {}
        }
    }
}

/// The plugin's sink writes to its parameter's default, `counts.csv`, and to `by-name.csv`.
#[test]
fn a_test_writes_in_a_folder_of_its_own_but_for_what_is_set() {
    let here = std::env::current_dir().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let set = folder.path().join("set.csv");
    let up = "../".repeat(here.components().count() - 1);
    let relative = format!("{up}{}", set.strip_prefix("/").unwrap().display());
    let order = Order {
        set: vec![format!("bad.write.file={relative}")],
        ..order(built(false), "bad.write: one-row", None)
    };
    for order in [order, self::order(built(false), "bad.write: one-row", None)] {
        let found = carried_out(&order, "");
        assert_eq!(found[0].verdict, Verdict::Passed, "{}", found[0].what);
        for name in ["counts.csv", "by-name.csv"] {
            assert!(!here.join(name).exists(), "{name}");
        }
        assert!(std::fs::remove_file(&set).is_ok() != order.set.is_empty());
    }
}

#[test]
fn what_is_set_is_held_against_the_manifest_before_anything_runs() {
    for (set, code, words) in [
        ("bad.map.level=9", "", ""),
        ("bad.write.file=7", "", ""),
        (
            "bad.map.level=99",
            "E0305",
            "`level` cannot be 99: 0 to 9 is allowed",
        ),
        ("bad.map.level=nine", "E0302", "a whole number"),
        (
            "bad.map.lvel=9",
            "E0301",
            "has no parameter `lvel`: not a parameter of it; did you mean level?",
        ),
        ("bad.map.in=9", "E0301", "has no parameter `in`"),
        ("bad.mpa.level=9", "E0204", "bad.map, bad.score"),
        ("level=9", "E0213", "whose `level` it is"),
        ("level", "E0213", "no `=`"),
        ("bad.slide=a.glass", "E0301", "its parameters: path"),
        ("bad.path=none.glass", "E0308", "does not exist"),
    ] {
        let order = Order {
            set: vec![set.to_owned()],
            ..order(built(false), "", None)
        };
        match plan(&order) {
            Ok(_) => assert_eq!(code, "", "{set}"),
            Err(refusal) => {
                assert_eq!(refusal.code, code, "{refusal}");
                assert!(refusal.to_string().contains(words), "{refusal}");
            }
        }
    }
}

/// One root cause is one failure: what cannot be tried any more is skipped, and names it.
#[test]
fn what_has_failed_before_for_the_same_reason_is_skipped() {
    let order = |only: &str| Order {
        timeout: Duration::from_secs(2),
        ..order(built(false), only, Some(slide()))
    };
    for (sin, only, cause, skipped) in [
        ("entry-fails", "", "loads", 90),
        ("defaults", "bad.map", "params-defaults", 18),
        ("hangs", "bad.map", "one-row", 14),
    ] {
        let found = carried_out(&order(only), sin);
        let failed: Vec<_> = (found.iter())
            .filter(|it| it.verdict == Verdict::Failed)
            .map(|it| it.test.as_str())
            .collect();
        assert_eq!(failed, [cause], "{sin}: {found:?}");
        let see = format!("see {cause}: ");
        let see = found.iter().filter(|it| it.what.starts_with(&see));
        assert!(see.count() >= skipped, "{sin}: {found:?}");
    }
}

#[test]
fn without_a_slide_a_reader_is_skipped_with_what_to_give() {
    let found = findings(built(false), "", "bad: ", None);
    let skipped: Vec<_> = found
        .iter()
        .filter(|it| it.verdict == Verdict::Skipped)
        .collect();
    assert!(skipped.len() > 5, "{found:?}");
    for found in skipped {
        assert!(found.what.contains("--slide FILE"), "{found:?}");
    }
}

#[test]
fn a_symbol_that_nobody_has_is_found_before_it_is_called() {
    let found = findings(built(true), "", "rtld-now", None);
    assert_eq!(found[0].verdict, Verdict::Failed);
    assert!(
        found[0].what.contains("nobody_has_this") && found[0].what.contains("-Wl,-z,defs"),
        "{}",
        found[0].what
    );
    // What to do about it is said once.
    assert_eq!(found[0].what.matches("-Wl,-z,defs").count(), 1);
    assert_eq!(
        findings(built(false), "", "rtld-now", None)[0].verdict,
        Verdict::Passed
    );
}

#[test]
fn of_a_file_that_is_refused_there_is_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let cut = folder.path().join("libcut.so");
    let whole = std::fs::read(built(false)).unwrap();
    std::fs::write(&cut, &whole[..9000]).unwrap();
    let found = findings(&cut, "", "", None);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(
        (found[0].test.as_str(), found[0].verdict),
        ("manifest-valid", Verdict::Failed)
    );
    assert!(found[0].what.contains("libcut.so: "), "{}", found[0].what);
    // What is not there at all is nobody's failure.
    let none = order(&folder.path().join("none.so"), "", None);
    assert!(plan(&none).is_err());
}

#[test]
fn a_test_that_dies_says_how_to_run_it_under_a_debugger() {
    let order = Order {
        set: vec!["bad.map.level=3".into()],
        ..order(built(false), "bad.map: panic-contained", None)
    };
    let found = carried_out(&order, "dies");
    let file = built(false).display();
    assert_eq!(
        found[0].again.as_deref().unwrap(),
        format!(
            "gdb --args weir plugin check {file} --in-process --only 'bad.map: panic-contained' --seed 7 --set bad.map.level=3"
        )
    );
    assert_eq!(carried_out(&order, "")[0].again, None);
}

#[test]
fn what_breaks_a_rule_of_the_file_is_named() {
    fails("entry-dies", "entry-twice", "signal 6 (Aborted)");
    fails("entry-other", "entry-twice", "gave another table");
    fails("extension", "unknown-extension", "weir.nonsense/1");
}

#[test]
fn what_breaks_a_rule_of_parameters_and_instances_is_named() {
    fails("defaults", "bad.map: params-defaults", "five is too much");
    fails(
        "edge",
        "bad.map: params-edge",
        "which parameter is at fault",
    );
    fails("fuzz", "bad.map: params-fuzz-in-range", "seven is too much");
    fails(
        "instance-leak",
        "bad.map: create-destroy-100",
        "keeps memory",
    );
    fails("mute", "bad.map: error-has-message", "does not say why");
    fails("mute-row", "bad.map: error-has-message", "black tiles");
    fails("mute-call", "bad.map: error-has-message", "black tiles");
    fails("blame", "bad.map: error-has-message", "`nonsense`");
    fails(
        "mute-read",
        "bad.tiles: error-has-message",
        "does not say why",
    );
}

#[test]
fn what_breaks_a_rule_of_rows_is_named() {
    fails("empty-read", "bad.map: empty-batch", "signal 11");
    fails("empty-fail", "bad.map: empty-batch", "there is nothing");
    fails("no-rows", "bad.map: empty-batch", "a batch that has none");
    fails("gather-empty", "bad.weigh: empty-batch", "there is nothing");
    fails("one-fail", "bad.map: one-row", "one is too little");
    fails("many-fail", "bad.map: max-rows", "that is too much");
    fails("lost", "bad.score: one-row", "neither made nor failed");
    fails("touch", "bad.map: input-untouched", "wrote to its input");
    fails(
        "range",
        "bad.score: output-matches-port-type",
        "a probability of 7",
    );
    fails(
        "weight",
        "bad.weigh: output-matches-port-type",
        "a weight of 2",
    );
    let half =
        "numbers of row 0 of output `tiles` unwritten: 6144 of the 12288 of its column `pixels`";
    fails("half", "bad.map: output-written", half);
    // What of it comes to other bits is told by its reason.
    fails("half", "bad.map: no-overrun", half);
    fails(
        "less",
        "bad.score: output-written",
        "row 0 of output `scores` unwritten: 1 of the 2 of its column `probabilities`",
    );
    fails(
        "weigh-less",
        "bad.weigh: output-written",
        "row 0 of output `weights` unwritten: 1 of the 1 of its column `without`",
    );
    fails("overread", "bad.map: no-overrun", "signal 11");
    fails("overwrite", "bad.map: no-overrun", "signal 11");
    fails("underwrite", "bad.map: no-overrun", "signal 11");
    fails("small-overwrite", "bad.score: no-overrun", "signal 11");
    fails(
        "small-underwrite",
        "bad.score: no-overrun",
        "beside a row that it made",
    );
    fails("dies", "bad.map: panic-contained", "signal 6 (Aborted)");
    fails(
        "stays-broken",
        "bad.map: panic-contained",
        "after black tiles",
    );
    fails("thread", "bad.map: thread-hop", "another thread");
    fails("race", "bad.map: parallel-stress", "calls at once");
    fails("order", "bad.map: determinism", "gave other bits");
}

#[test]
fn a_panic_that_the_plugin_catches_is_contained() {
    let found = findings(built(false), "panics", "bad.map: panic-contained", None);
    assert_eq!(found[0].verdict, Verdict::Passed, "{}", found[0].what);
    assert!(found[0].what.starts_with("1 of 2"), "{}", found[0].what);
}

/// What holds the test's pipes sleeps for 30 s.
#[test]
fn a_process_that_the_plugin_leaves_behind_keeps_nobody_waiting() {
    for (sin, verdict, seconds) in [
        ("sleeper", Verdict::Passed, 60),
        ("daemon", Verdict::Passed, 60),
        ("sleeper-hangs", Verdict::Failed, 2),
    ] {
        let timeout = Duration::from_secs(seconds);
        let start = Instant::now();
        let found = findings_within(timeout, built(false), sin, "bad.map: one-row", None);
        let took = start.elapsed();
        assert_eq!(found[0].verdict, verdict, "{sin}: {}", found[0].what);
        assert!(took < Duration::from_secs(20), "{sin}: {took:?}");
    }
}

#[test]
fn what_breaks_a_rule_of_batches_is_named() {
    fails(
        "keeps",
        "bad.map: batches-given-back",
        "it still has 20 batches",
    );
    fails(
        "unmade",
        "bad.map: batches-given-back",
        "it still has 20 batches",
    );
    fails(
        "releases",
        "bad.map: one-row",
        "released a batch that it did not have",
    );
    fails(
        "emits-twice",
        "bad.map: one-row",
        "emitted a batch that it did not have",
    );
    fails(
        "memory",
        "bad.map: 10k-batches-steady-memory",
        "keeps memory",
    );
    fails(
        "slide-leak",
        "bad.weigh: 10k-batches-steady-memory",
        "keeps memory",
    );
}

#[test]
fn what_breaks_a_rule_of_pending_calls_is_named() {
    let once = "bad.map: pending-completes-once";
    fails("never", once, "[E0523]");
    fails("twice", once, "it completed a call");
    // The memory of a call that is over may be another one by then.
    fails("late", once, "it completed a call");
    fails("early", once, "did not return WEIR_PENDING");
    fails("deaf", "bad.map: cancel-while-pending", "within 5s");
}

#[test]
fn what_breaks_a_rule_of_slides_is_named() {
    fails(
        "needs-rows",
        "bad.weigh: flush-order",
        "a slide without tiles",
    );
    fails("needs-all", "bad.weigh: flush-order", "not all tiles came");
    fails(
        "remove-fails",
        "bad.weigh: flush-order",
        "failed without a word",
    );
    fails("aborted", "bad.write: flush-order", "the slide failed");
    fails("finish", "bad.write: flush-order", "there was no slide");
    fails(
        "adds-up",
        "bad.weigh: remove-undoes",
        "another row after some",
    );
    fails("counts", "bad.weigh: remove-undoes", "nothing had changed");
    fails("mixes", "bad.weigh: slides-apart", "it mixes slides");
    fails("mixes-tables", "bad.weigh: slides-apart", "it mixes slides");
}

#[test]
fn what_breaks_a_rule_of_sources_is_named() {
    fails("relists", "bad.tiles: slides-listed", "other slides");
    fails("pathless", "bad.tiles: slides-listed", "no path");
    fails(
        "outside",
        "bad.tiles: steps-in-order",
        "(1000, 0) lies outside",
    );
    fails(
        "count",
        "bad.tiles: steps-in-order",
        "sends 7 tiles, and sent 6",
    );
    fails(
        "restarts",
        "bad.tiles: steps-in-order",
        "WEIR_END is for ever",
    );
    fails("mute-step", "bad.tiles: steps-in-order", "without a reason");
    fails(
        "short",
        "bad.tiles: read-fills-all",
        "left bytes as they were",
    );
    fails("source-over", "bad.tiles: read-fills-all", "signal 11");
    fails("source-race", "bad.tiles: reads-at-once", "reads at once");
    fails("other-bits", "bad.tiles: same-tiles-twice", "other bits");
    fails("source-files", "bad.tiles: open-close-50", "files open");
}

#[test]
fn what_breaks_a_rule_of_readers_is_named() {
    fails("knows-all", "bad: sniff-noise", "0 is not mine");
    fails("too-sure", "bad: sniff-noise", "it is 0 to 100");
    fails("sniff-over", "bad: sniff-noise", "signal 11");
    fails("sniff-reads", "bad: sniff-noise", "it reads nothing else");
    fails("opens-noise", "bad: open-refuses", "as a slide");
    fails("mute-open", "bad: open-refuses", "does not say why");
    fails("open-files", "bad: open-refuses", "open");
    fails("invents", "bad: open-refuses", "damage is an error");
    fails("levels", "bad: facts-coherent", "level 1");
    fails("level-size", "bad: facts-coherent", "level 1");
    fails("keys", "bad: facts-coherent", "sorted by key");
    fails("format", "bad: facts-coherent", "which format");
    fails("mpp", "bad: facts-coherent", "-1 x 0.5 um");
    fails("shift", "bad: regions-agree", "exactly its pixels");
    fails("unfilled", "bad: regions-agree", "exactly its pixels");
    fails("pitch", "bad: no-overrun", "between the rows");
    fails("spill", "bad: no-overrun", "signal 11");
    fails("black", "bad: outside-white", "not white");
    fails("picture", "bad: pictures", "not filled whole");
    fails("reader-race", "bad: reads-at-once", "several threads");
    fails("handle-files", "bad: open-close-50", "files open");
}
