//! A stage ends when nothing comes to it any more, while those behind it go on; the run waits for what it began then.
#![allow(clippy::unwrap_used)]

mod synthetic;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use synthetic::{Scenario, Seen, answers, id, settings};
use weir_pipeline::{Place, RunSettings};
use weir_runtime::{Options, RunError, Stop, exit};

/// One slide by way of relays that have all of it before the encoder has anything.
fn relays() -> Scenario {
    Scenario {
        relays: 3,
        awaits_relays: true,
        ..Scenario::of(1, 100)
    }
}

/// How many relays were left, and of how many that was waited for.
fn left(seen: &Seen) -> [usize; 2] {
    [&seen.left.begun, &seen.left.ended].map(|count| count.load(Ordering::SeqCst))
}

#[test]
fn stages_are_left_once_however_many_workers_have_them_while_those_behind_them_go_on() {
    for workers in [1, 3] {
        for inline_relay in [false, true] {
            let scenario = Scenario {
                inline_relay,
                ..relays()
            };
            let run = RunSettings {
                workers,
                ..settings()
            };
            let (outcome, seen) = scenario.run(Place::Home, run, Options::default());
            assert_eq!(outcome.unwrap().exit_code(), exit::DONE);
            assert_eq!(answers(&seen), scenario.truth());
            assert!(seen.left.seen.load(Ordering::SeqCst));
            assert_eq!(left(&seen), [3, 3]);
        }
    }
}

#[test]
fn a_stage_of_which_a_thread_does_not_come_back_is_not_left_and_holds_up_nothing() {
    let scenario = Scenario {
        stuck_relay: Some((1, 0, 99, Duration::from_secs(30))),
        awaits_relays: false,
        ..relays()
    };
    let mut plan = scenario.plan(Place::Home, settings());
    plan.nodes[2].run.timeout = Some(Duration::from_millis(500));
    let start = Instant::now();
    let (outcome, seen) = scenario.run_plan(plan, Options::default());
    assert!(start.elapsed() < Duration::from_secs(10));
    assert_eq!(outcome.unwrap().slides[&id(0)].failed_tiles(), 1);
    assert_eq!(left(&seen), [2, 2]);
}

#[test]
fn a_run_that_is_cut_off_leaves_stages_itself_while_every_helper_is_at_work() {
    let scenario = Scenario {
        stuck: Some((0, 99, Duration::from_secs(30))),
        awaits_relays: false,
        ..relays()
    };
    let mut plan = scenario.plan(Place::Home, settings());
    (plan.run.helpers, plan.run.readers) = (1, 1);
    // The scorer, which is not chained then, nor given up.
    plan.nodes[4].run.linger = Some(Duration::from_millis(1));
    plan.nodes[4].run.timeout = Some(Duration::from_secs(60));
    let stop = Stop::default();
    let options = Options {
        stop: stop.clone(),
        ..Options::default()
    };
    let start = Instant::now();
    std::thread::scope(|threads| {
        threads.spawn(|| {
            // All is read and handed on for long then.
            std::thread::sleep(Duration::from_millis(500));
            stop.request();
            stop.request();
        });
        let (outcome, seen) = scenario.run_plan(plan, options);
        assert!(matches!(outcome, Err(RunError::Internal(_))), "{outcome:?}");
        assert_eq!(left(&seen), [3, 3]);
    });
    assert!(start.elapsed() < Duration::from_secs(10));
}
