//! Rows that are told to wait for others wait no longer than others may come.
#![allow(clippy::unwrap_used)]

mod synthetic;

use std::time::{Duration, Instant};

use synthetic::{Scenario, answers, settings};
use weir_pipeline::{Place, RunSettings};
use weir_runtime::{Options, exit};

#[test]
fn rows_wait_for_none_once_the_slides_that_are_open_are_there_as_a_whole() {
    let scenario = Scenario {
        relays: 1,
        ..Scenario::of(3, 20)
    };
    for open_slides in [1, 2] {
        let run = RunSettings {
            open_slides,
            ..settings()
        };
        let mut plan = scenario.plan(Place::Home, run);
        // More rows than a slide has, and longer than a test takes.
        plan.nodes[1].run.batch = Some(64);
        plan.nodes[1].run.linger = Some(Duration::from_secs(60));
        let start = Instant::now();
        let (outcome, seen) = scenario.run_plan(plan, Options::default());
        assert_eq!(outcome.unwrap().exit_code(), exit::DONE);
        assert_eq!(answers(&seen), scenario.truth());
        assert!(start.elapsed() < Duration::from_secs(30));
    }
}
