//! What ends a plugin's own process (`isolate = true`) fails what it had in hand, by the plugin's name; all else is as without it.

use super::sinner::{
    APART, From, Left, failures, kept, kept_by, lost_a, lost_one, of_b, run, run_own, told,
};
use std::time::{Duration, Instant};

#[test]
fn what_kills_a_plugins_process_fails_the_tile_that_it_had_alone() {
    let good = run("none", "map", APART, 0);
    assert_eq!(good.answers, run("none", "map", "", 0).answers);
    for (sin, word) in [
        ("abort", "E0521"),
        ("segfault", "E0521"),
        ("exit", "E0521"),
        ("overrun", "E0521"),
        ("loop", "E0523"),
    ] {
        let left = run(sin, "map", APART, 3);
        lost_one(sin, "map", word, &left, &good);
    }
}

#[test]
fn what_kills_the_process_of_a_source_a_reduce_or_a_sink_fails_the_slide_that_it_had_alone() {
    for (stage, sins, exits) in [
        ("tiles", &["abort", "segfault", "exit", "overrun"][..], 3),
        ("pick", &["abort", "segfault", "exit", "overrun"], 3),
        ("write", &["abort", "segfault", "exit", "overrun"], 3),
    ] {
        for sin in sins {
            let words = ["plugin `sin` 0.1.0", "E0521"];
            lost_a(sin, &From::Source, stage, words, APART, exits);
        }
    }
    let words = ["plugin `sin` 0.1.0", "E0523"];
    for (stage, exits) in [("tiles", 3), ("pick", 3), ("write", 3)] {
        lost_a("loop", &From::Source, stage, words, APART, exits);
    }
}

#[test]
fn what_kills_the_process_of_a_slide_reader_fails_the_region_that_it_read_alone() {
    for sin in ["abort", "segfault"] {
        let words = ["plugin `sin` 0.1.0", "E0521"];
        lost_a(sin, &From::Reader(sin), "tiles", words, APART, 3);
    }
}

#[test]
fn a_slide_reader_that_hangs_in_its_own_process_fails_the_region_that_it_read_alone() {
    let words = ["plugin `sin` 0.1.0 did not answer within 2s", "E0523"];
    let began = Instant::now();
    lost_a("loop", &From::Reader("loop"), "tiles", words, APART, 3);
    // It is the stage's time, and not the reader's own.
    assert!(began.elapsed() < Duration::from_secs(30));
}

#[test]
fn a_process_that_keeps_all_that_it_is_lent_is_ended_and_the_answers_are_as_ever() {
    let (_, good) = kept("none", "64MiB", APART);
    let (code, left) = kept("hoard", "64MiB", APART);
    assert_eq!(code, Some(0), "{}", left.err);
    assert_eq!(left.answers, good.answers);
    for part in [
        "map: plugin `sin` 0.1.0 broke the contract [E0520]: it keeps ",
        "; it is started again",
    ] {
        assert!(left.err.contains(part), "{part}: {}", left.err);
    }
}

/// Each open slide has a process of a reduce or a sink: the one that keeps more than its part is ended, and its slide alone fails.
#[test]
fn a_process_of_a_reduce_or_a_sink_that_keeps_all_that_it_is_lent_costs_its_slide_alone() {
    for stage in ["gather", "keep"] {
        let (code, good, wrote) = kept_by(stage, "none", "32MiB", APART);
        assert_eq!(code, Some(0), "{}", good.err);
        let (code, left, written) = kept_by(stage, "hoard", "32MiB", APART);
        assert_eq!(code, Some(3), "{stage}: {}", left.err);
        let line = format!("{stage}: plugin `sin` 0.1.0 broke the contract [E0520]: it keeps ");
        let comes = "; what it held of its slide is lost, and the next slide gets another process";
        for part in [line.as_str(), comes] {
            assert!(left.err.contains(part), "{part}: {}", left.err);
        }
        let of_a = told(&left, "a").join("\n");
        let place = format!("\"stage\":\"{stage}\"");
        for word in [place.as_str(), "plugin `sin` 0.1.0", "E0521"] {
            assert!(of_a.contains(word), "{word}: {of_a}\n{}", left.err);
        }
        assert_eq!(told(&left, "b"), [""; 0]);
        assert_eq!(wrote.len(), 2);
        assert_eq!(written.get("b"), wrote.get("b"), "{stage}");
        assert_eq!(of_b(&left), of_b(&good), "{stage}");
    }
}

/// Rows of a table of tiles.
fn rows(left: &Left) -> Vec<&str> {
    let tables = left
        .answers
        .iter()
        .filter(|(name, _)| name.ends_with("tiles.csv"));
    tables.flat_map(|(_, text)| text.lines()).collect()
}

/// In its own process a thread that writes into an input after the call dies of it, whenever that is: rows may fail, none may change.
#[test]
fn a_thread_that_writes_to_an_input_after_its_call_changes_no_bit_where_it_is_isolated() {
    let (good, _) = run_own(&From::Source, "none", "", "", &[0]);
    let (left, _) = run_own(&From::Source, "late", "score", APART, &[0, 3]);
    assert!(left.err.contains("E0521"), "{}", left.err);
    let lost = [failures(&left, "a"), failures(&left, "b")].concat();
    assert!(lost.len() < 3, "{lost:?}");
    // A tile that failed has a row that says so and no score.
    let wanted = rows(&good);
    let other = rows(&left)
        .iter()
        .filter(|row| !wanted.contains(row))
        .count();
    assert!(other <= lost.len(), "{other} rows differ, {lost:?}");
}
