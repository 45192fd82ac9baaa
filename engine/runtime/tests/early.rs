//! A helper thread goes on with the next stage's work where that is fast, and nothing else about a stage changes by it.
#![allow(clippy::unwrap_used)]

mod synthetic;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use synthetic::{Scenario, answers, id, settings};
use weir_pipeline::{Place, Plan, RunSettings};
use weir_runtime::{Options, exit};

/// Tiles by way of relays that are fast but for the first, whose batches are on helper threads most of the time.
fn relays() -> Scenario {
    Scenario {
        relays: 2,
        relays_take: [Duration::from_millis(2), Duration::ZERO],
        ..Scenario::of(2, 300)
    }
}

fn plan(scenario: &Scenario) -> Plan {
    let run = RunSettings {
        memory: 1 << 20,
        ..settings()
    };
    let mut plan = scenario.plan(Place::Home, run);
    plan.nodes[1].run.linger = Some(Duration::ZERO);
    plan.nodes[1].run.batch = Some(8);
    plan
}

/// Rows that went from the first relay to the second while the worker stood still.
fn gone_on(scenario: Scenario, plan: Plan) -> usize {
    let scenario = Scenario {
        holds_up: true,
        ..scenario
    };
    let (outcome, seen) = scenario.run_plan(plan, Options::default());
    assert_eq!(outcome.unwrap().exit_code(), exit::DONE);
    assert_eq!(answers(&seen), scenario.truth());
    seen.held_up.gone_on.load(Ordering::SeqCst)
}

#[test]
fn a_helper_thread_goes_on_with_a_fast_stage_though_the_worker_stands_still() {
    let scenario = relays();
    let plan = plan(&scenario);
    assert!(gone_on(scenario, plan) > 0);
}

#[test]
fn a_slow_stage_and_one_that_gathers_are_not_gone_on_with() {
    let scenario = Scenario {
        relays_take: [Duration::from_millis(2); 2],
        ..relays()
    };
    let slow = plan(&scenario);
    assert_eq!(gone_on(scenario, slow), 0);
    let scenario = relays();
    let mut gathers = plan(&scenario);
    gathers.nodes[2].run.linger = Some(Duration::from_millis(1));
    assert_eq!(gone_on(scenario, gathers), 0);
}

#[test]
fn what_several_stages_take_is_handed_over_to_each() {
    let scenario = relays();
    let mut plan = plan(&scenario);
    // A sink of its own on the first relay.
    let mut sink = plan.nodes.last().unwrap().clone();
    (sink.name, sink.inputs[0].node) = ("beside".into(), 1);
    plan.nodes.push(sink);
    assert_eq!(gone_on(scenario, plan), 0);
}

#[test]
fn the_worker_does_no_work_of_the_stage_behind_one_that_runs_on_it() {
    let scenario = Scenario {
        inline_relay: true,
        relays_take: [Duration::ZERO; 2],
        ..relays()
    };
    let (outcome, seen) = scenario.run_plan(plan(&scenario), Options::default());
    assert_eq!(outcome.unwrap().exit_code(), exit::DONE);
    let threads = seen.relay_threads.lock().unwrap();
    assert_eq!(threads.iter().collect::<Vec<_>>(), ["weir-helper"]);
}

#[test]
fn a_stage_that_hangs_where_it_was_gone_on_with_is_given_up_in_its_own_time() {
    // The last tile, and the only helper thread: nothing else brings the operators back.
    let mut stuck = relays();
    stuck.slides.truncate(1);
    stuck.stuck_relay = Some((0, 299, Duration::from_secs(30)));
    let mut plan = plan(&stuck);
    plan.run.helpers = 1;
    plan.nodes[2].run.timeout = Some(Duration::from_millis(300));
    let start = Instant::now();
    let (outcome, seen) = stuck.run_plan(plan, Options::default());
    let outcome = outcome.unwrap();
    // Its batch and its row alone; the stage before would wait for a minute.
    assert!(start.elapsed() < Duration::from_secs(10));
    assert_eq!(outcome.exit_code(), exit::PARTLY);
    let record = &outcome.slides[&id(0)];
    assert_eq!(record.failed_tiles(), 1);
    let failure = &record.failures[0];
    assert_eq!(failure.stage, "relay-1");
    assert_eq!(failure.what, "no answer within 300ms");
    let mut without = stuck.clone();
    without.slides[0].bad = [299].into();
    assert_eq!(answers(&seen), without.truth());
}
