//! What a plugin does wrong and goes on fails the tile or slide at which it does, by its name, in weir's own process too; all else is as
//! without it.

use super::sinner::{
    APART, From, failures, kept, lost_a, lost_one, plugin, run, run_own, run_with, said, told,
};
use crate::program::{self, command};

#[test]
fn what_a_plugin_does_wrong_at_a_tile_fails_that_tile_alone() {
    let good = run("none", "map", "", 0);
    for (sin, stage, word) in [
        ("fail", "map", "the slide is cursed"),
        ("silent", "map", "failed without a word"),
        ("retry", "map", "asks to be tried again"),
        ("status", "map", "returned 77"),
        ("lost", "map", "neither made nor failed"),
        ("twice", "map", "two outcomes"),
        ("both", "map", "and made as well"),
        ("complete", "map", "completed a call twice"),
        ("row", "map", "of a batch of"),
        ("port", "map", "no output number 7"),
        ("null", "map", "null batch"),
        ("panic", "map", "src/lib.rs:1: on purpose"),
        ("gone", "map", "a batch that it did not have"),
        ("nan", "score", "every number must be finite"),
    ] {
        for more in ["", APART] {
            let left = run(sin, stage, more, 3);
            lost_one(sin, stage, word, &left, &good);
        }
    }
}

#[test]
fn a_batch_that_is_held_on_to_when_its_call_is_over_harms_nothing() {
    let good = run("none", "map", "", 0);
    for _ in 0..3 {
        let left = run("retains-late", "map", "", 0);
        assert_eq!(left.answers, good.answers);
        // Where a later call has the batch by then, it is that one's, and never given back.
        let told = [
            "retained a batch that it did not have",
            "has not given back",
        ];
        let told = told.iter().any(|told| left.err.contains(told));
        assert!(told, "{}", left.err);
    }
}

#[test]
fn a_source_that_closes_again_and_again_what_is_closed_gives_the_same_slides() {
    let (good, wrote) = run_own(&From::Source, "none", "tiles", "", &[0]);
    for more in ["", APART] {
        let (left, written) = run_own(&From::Source, "closes", "tiles", more, &[0]);
        assert_eq!((left.answers, &written), (good.answers.clone(), &wrote));
    }
}

#[test]
fn a_plugin_that_ends_weirs_own_process_does_not_end_it_well() {
    let left = said("", "exits", "map", "").1.exits(70).err;
    for words in [
        "stage `map`: plugin `sin` 0.1.0 ended the process",
        "isolate = true",
    ] {
        assert!(left.contains(words), "{left}");
    }
    // Nor does a thread of its own, as a library may have some.
    let left = said("", "exits-aside", "map", "").1.exits(70).err;
    assert!(
        left.contains("a thread of plugin `sin` 0.1.0 ended the process"),
        "{left}"
    );
    // Nor does one that has no stage yet: it is being loaded.
    let mut inspect = command(["plugin", "inspect"]);
    inspect.arg(plugin()).args(["--file", "model"]);
    inspect.env("SIN_AT_LOAD", "1");
    let left = program::said(inspect).exits(70).err;
    assert!(
        left.starts_with("error: plugin `sin` 0.1.0 ended the process"),
        "{left}"
    );
    let apart = run("exits", "map", APART, 3);
    lost_one(
        "exits",
        "map",
        "E0521",
        &apart,
        &run("none", "map", APART, 0),
    );
}

#[test]
fn a_plugin_that_rounds_another_way_leaves_the_other_stages_their_bits() {
    let good = run("none", "map", "", 0);
    let left = run("rounds", "map", "", 0);
    assert_eq!(left.answers, good.answers);
    let told = "plugin `sin` 0.1.0 changed how the thread rounds";
    assert_eq!(left.err.matches(told).count(), 1, "{}", left.err);
}

#[test]
fn what_a_source_does_wrong_at_a_slide_fails_that_slide_alone() {
    for (sin, words) in [
        ("fail", ["the slide is cursed", "lift the curse"]),
        ("silent", ["plugin `sin` 0.1.0", "failed without a word"]),
        ("panic", ["plugin `sin` 0.1.0", "src/lib.rs:1: on purpose"]),
        ("status", ["plugin `sin` 0.1.0", "returned 77"]),
        ("row", ["plugin `sin` 0.1.0", "where no slide reaches"]),
        ("port", ["plugin `sin` 0.1.0", "of kind 9"]),
        ("shape", ["plugin `sin` 0.1.0", "a tile of 7 x 32 px"]),
        ("read", ["the tile is cursed", "\"x\":0,\"y\":0"]),
        ("count", ["plugin `sin` 0.1.0", "no slide has more than"]),
        ("nan", ["plugin `sin` 0.1.0", "um/px is NaN"]),
    ] {
        lost_a(sin, &From::Source, "tiles", words, "", 3);
    }
}

#[test]
fn what_a_reduce_does_wrong_at_a_slide_fails_that_slide_alone() {
    for (sin, words) in [
        ("fail", ["the slide is cursed", "lift the curse"]),
        ("silent", ["plugin `sin` 0.1.0", "failed without a word"]),
        ("panic", ["plugin `sin` 0.1.0", "src/lib.rs:1: on purpose"]),
        ("status", ["plugin `sin` 0.1.0", "returned 77"]),
        (
            "row",
            ["plugin `sin` 0.1.0", "a tile that it was not given"],
        ),
        ("twice", ["plugin `sin` 0.1.0", "a tile two rows"]),
        ("nan", ["plugin `sin` 0.1.0", "must be finite"]),
    ] {
        for more in ["", APART] {
            lost_a(sin, &From::Source, "pick", words, more, 3);
        }
    }
}

#[test]
fn what_a_sink_does_wrong_at_a_slide_fails_that_slide_alone() {
    for (sin, words) in [
        ("fail", ["the slide is cursed", "write"]),
        ("silent", ["plugin `sin` 0.1.0", "failed without a word"]),
        ("panic", ["plugin `sin` 0.1.0", "src/lib.rs:1: on purpose"]),
        ("status", ["plugin `sin` 0.1.0", "returned 77"]),
    ] {
        for more in ["", APART] {
            lost_a(sin, &From::Source, "write", words, more, 3);
        }
    }
}

#[test]
fn what_a_slide_reader_does_wrong_at_a_slide_fails_that_slide_alone() {
    for (sin, words) in [
        ("fail", ["the glass is cursed", "sin"]),
        ("shape", ["plugin `sin` 0.1.0", "E0520"]),
        ("null", ["plugin `sin` 0.1.0", "E0520"]),
        ("read", ["the tile is cursed", "level 0"]),
        ("status", ["plugin `sin` 0.1.0", "returned 77"]),
        ("complete", ["plugin `sin` 0.1.0", "completed a call twice"]),
        ("row", ["plugin `sin` 0.1.0", "has no input"]),
    ] {
        lost_a(sin, &From::Reader(sin), "tiles", words, "", 3);
    }
}

/// An endless loop in weir's own process: the thread that is in it never comes back, and the run does. One helper: the plugin is serial,
/// and a call that waits for the one that hangs may be late with it.
#[test]
fn a_call_that_loops_for_ever_fails_its_tile_by_its_plugins_name_and_the_run_ends() {
    let good = run("none", "map", "", 0);
    let left = run_with("helpers = 1\n", "loop", "map", "", 3);
    lost_one("loop", "map", "E0523", &left, &good);
    let told = failures(&left, "a").join("\n");
    assert!(told.contains("plugin `sin` 0.1.0"), "{told}");
}

#[test]
fn a_plugin_that_keeps_batches_or_leaves_threads_behind_ends_its_run_as_any_other() {
    let good = run("none", "map", "", 0);
    for sin in ["leak", "thread"] {
        for more in ["", APART] {
            let left = run(sin, "map", more, 0);
            assert_eq!(left.answers, good.answers, "{sin} {more}");
            assert_eq!(failures(&left, "a"), [""; 0], "{sin} {more}");
            // What a process kept ends with it.
            let leaks = left
                .err
                .contains("map: plugin `sin` 0.1.0 was destroyed and has not given back 1 batch");
            assert_eq!(leaks, sin == "leak" && more.is_empty(), "{}", left.err);
        }
    }
    let (good, wrote) = run_own(&From::Source, "none", "", "", &[0]);
    for (sin, stage) in [
        ("thread", "tiles"),
        ("thread", "score"),
        ("thread", "pick"),
        ("thread", "write"),
        ("leak", "score"),
        ("leak", "pick"),
        ("leak", "write"),
    ] {
        for more in ["", APART] {
            let (left, written) = run_own(&From::Source, sin, stage, more, &[0]);
            assert_eq!(left.answers, good.answers, "{sin} at {stage} {more}");
            assert_eq!(written, wrote, "{sin} at {stage} {more}");
            let leaks = left.err.contains("has not given back");
            assert_eq!(leaks, sin == "leak" && more.is_empty(), "{}", left.err);
        }
    }
}

/// With every lent tile kept, the memory is used up in the midst of the first slide: then no tile can be read, so nothing more comes to
/// the plugin, and the run would stand still.
#[test]
fn a_plugin_that_keeps_all_that_it_is_lent_or_makes_is_named_and_its_run_ends() {
    for sin in ["hoard", "drafts"] {
        is_named_and_ends(sin);
    }
}

#[track_caller]
fn is_named_and_ends(sin: &str) {
    let (code, left) = kept(sin, "4MiB", "");
    assert_eq!(code, Some(3), "{}", left.err);
    for part in [
        "map: plugin `sin` 0.1.0 keeps ",
        "beyond their calls, the first of slide `",
        "has not given back",
    ] {
        assert!(left.err.contains(part), "{part}: {}", left.err);
    }
    let slides = left.record["slides"].to_string();
    for slide in ["a", "b"] {
        assert!(!told(&left, slide).is_empty(), "{slides}\n{}", left.err);
    }
    for part in [
        "plugin `sin` 0.1.0 broke the contract [E0520]: it keeps ",
        "may keep a sixteenth of the run's memory",
        "\"stage\":\"map\"",
    ] {
        assert!(slides.contains(part), "{part}: {slides}");
    }
}

#[test]
fn a_call_that_is_never_completed_fails_its_tile_when_its_time_is_over() {
    let good = run("none", "map", "", 0);
    lost_one(
        "never",
        "map",
        "E0523",
        &run("never", "map", APART, 3),
        &good,
    );
    lost_one(
        "never",
        "map",
        "within 1s",
        &run("never", "map", "", 3),
        &good,
    );
}

#[test]
fn a_call_that_is_never_completed_in_process_is_named_as_its_plugins() {
    let left = run("never", "map", "", 3);
    let told = failures(&left, "a").join("\n");
    assert!(
        told.contains("E0523") && told.contains("plugin `sin` 0.1.0"),
        "{told}"
    );
}

#[test]
fn a_call_that_is_completed_after_it_returned_is_told_of_and_harms_nobody() {
    let good = run("none", "map", "", 0);
    let left = run("late-complete", "map", "", 0);
    assert_eq!(left.answers, good.answers);
    assert!(left.err.contains("complete"), "{}", left.err);
    assert_eq!(run("late-complete", "map", APART, 0).answers, good.answers);
}
