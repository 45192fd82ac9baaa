//! A plugin in a process of its own is answered as one in this process, whatever it does there that harms nobody.
#![allow(clippy::unwrap_used)]

mod programs;
mod sins;

use sins::{Way, batch, made, print, printed, tiles, way};
use std::time::Duration;
use weir_plugin_host::Program;
use weir_record::Body;

#[test]
fn an_isolated_stage_answers_as_it_does_in_this_process_to_the_bit() {
    for (id, hows) in [
        (
            "sins.pass",
            &[
                "",
                "skip",
                "fail",
                "lose",
                "later",
                "row",
                "status",
                "panic",
                "count",
                "nothing",
                "completed",
                "both",
            ][..],
        ),
        (
            "sins.invert",
            &[
                "",
                "edit",
                "double",
                "again",
                "gone-retain",
                "gone-release",
                "gone-emit",
                "port",
                "retain",
            ][..],
        ),
        ("sins.mean", &["", "nan"][..]),
    ] {
        for how in hows {
            let here = printed(id, how, &way(false));
            let there = printed(id, how, &way(true));
            assert_eq!(here, there, "{id} {how}");
        }
    }
}

/// The sin's thread goes on retaining and releasing the first call's input.
#[test]
fn a_batch_that_is_retained_too_late_is_found_out_and_harms_nothing() {
    let well = printed("sins.pass", "", &way(true));
    let made = made("sins.pass", "holding", &way(true)).unwrap();
    for _ in 0..60 {
        let rows = tiles();
        let mut all = batch(&rows);
        made.work().run(&mut all).unwrap();
        for (row, well) in well.iter().enumerate() {
            assert_eq!(print(&Ok(all.outcome(row, 0).unwrap().clone())), *well);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let told =
        "plugin `sins` 0.1.0 broke the contract [E0520]: it retained a batch that it did not have";
    assert!(made.said().contains(told), "{}", made.said());
}

/// The sin writes nothing from its second call on.
#[test]
fn what_a_plugin_does_not_write_of_its_vectors_is_zero() {
    for isolated in [false, true] {
        let made = made("sins.mean", "unwritten", &way(isolated)).unwrap();
        for call in 0..3 {
            let rows = tiles();
            let mut all = batch(&rows);
            made.work().run(&mut all).unwrap();
            for row in 0..rows.len() {
                let Body::Feature(feature) = all.outcome(row, 0).unwrap() else {
                    panic!("no vector");
                };
                assert_eq!(
                    feature.iter().all(|&f| f == 0.0),
                    call > 0,
                    "{isolated} {call} {row}"
                );
            }
        }
    }
}

/// The limit's unit is a KiB; it is less than half of the memory of any machine that builds this.
#[test]
fn a_run_that_was_given_a_limit_of_memory_isolates_as_well() {
    let limited = "ulimit -d 1000000 && exec \"$0\"";
    let child = env!("CARGO_BIN_EXE_plugin-host-child");
    let way = Way {
        program: Program::new("/bin/sh", ["-c", limited, child]),
        ..way(true)
    };
    assert_eq!(
        printed("sins.pass", "", &way),
        printed("sins.pass", "", &sins::way(false))
    );
}

#[test]
fn more_than_an_answer_holds_is_refused_by_words() {
    let made = made("sins.pass", "endless", &way(true)).unwrap();
    let error = made.work().run(&mut batch(&tiles())).unwrap_err();
    let told = "plugin `sins` 0.1.0 broke the contract [E0520]: it handed on more in one call than the 255 MiB";
    assert!(error.what.starts_with(told), "{error}");
}

#[test]
fn lines_and_counters_come_through() {
    for how in ["log", "count", "tally"] {
        let made = made("sins.pass", how, &way(true)).unwrap();
        made.work().run(&mut batch(&tiles())).unwrap();
        match how {
            "log" => assert_eq!(made.said(), "own: hello"),
            // However often it counts.
            "tally" => assert_eq!(made.counters.all()["own"]["rows"], 8_000_000),
            _ => assert_eq!(made.counters.all()["own"]["rows"], 16),
        }
    }
}
