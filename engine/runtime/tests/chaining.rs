//! Stages that are fast are chained to those before them: the thread that made rows goes on with them, and answers, time-outs and
//! failures are what they are without.
#![allow(clippy::unwrap_used)]

mod synthetic;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use synthetic::{Scenario, Seen, answers, id, settings};
use weir_pipeline::{Place, Plan, RunSettings};
use weir_runtime::{Options, Outcome, counters, exit};

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
fn a_helper_thread_goes_on_to_a_fast_stage_though_the_worker_stands_still() {
    let scenario = relays();
    let plan = plan(&scenario);
    assert!(gone_on(scenario, plan) > 0);
}

#[test]
fn a_slow_stage_and_one_that_is_told_to_gather_are_not_chained() {
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

/// Runs it; how long it took, and how many rows went on to each stage.
fn timed(scenario: &Scenario, plan: Plan) -> (Outcome, Arc<Seen>, Duration, Vec<u64>) {
    let progress = Arc::new(counters(&plan));
    let options = Options {
        progress: Some(progress.clone()),
        ..Options::default()
    };
    let start = Instant::now();
    let (outcome, seen) = scenario.run_plan(plan, options);
    let stages = progress.stages.iter();
    let chained = stages.map(|stage| stage.chained.load(Ordering::Relaxed));
    (outcome.unwrap(), seen, start.elapsed(), chained.collect())
}

#[test]
fn a_stage_that_hangs_where_it_is_chained_is_given_up_in_its_own_time() {
    for hangs in [1, 2] {
        // The last tile, and the only helper thread: nothing else brings the operators back.
        let mut stuck = Scenario {
            relays: 3,
            ..relays()
        };
        stuck.slides.truncate(1);
        stuck.stuck_relay = Some((hangs, 0, 299, Duration::from_secs(30)));
        let mut plan = plan(&stuck);
        plan.run.helpers = 1;
        plan.nodes[1 + hangs].run.timeout = Some(Duration::from_millis(300));
        let (outcome, seen, took, chained) = timed(&stuck, plan);
        assert!(chained[1 + hangs] > 0, "{chained:?}");
        // Its batch and its row alone; the stages before would wait for a minute.
        assert!(took < Duration::from_secs(10), "{took:?}");
        assert_eq!(outcome.exit_code(), exit::PARTLY);
        let record = &outcome.slides[&id(0)];
        assert_eq!(record.failed_tiles(), 1);
        let failure = &record.failures[0];
        assert_eq!(failure.stage, format!("relay-{hangs}"));
        assert_eq!(failure.what, "no answer within 300ms");
        let mut without = stuck.clone();
        without.slides[0].bad = [299].into();
        assert_eq!(answers(&seen), without.truth());
    }
}

#[test]
fn a_stage_that_hangs_behind_one_that_takes_longer_than_it_may_is_given_up_in_its_own_time() {
    let mut stuck = relays();
    stuck.slides = Scenario::of(1, 24).slides;
    stuck.relays_take[0] = Duration::from_millis(500);
    stuck.stuck_relay = Some((1, 0, 23, Duration::from_secs(30)));
    let mut plan = plan(&stuck);
    plan.run.helpers = 1;
    plan.nodes[2].run.timeout = Some(Duration::from_millis(300));
    let (outcome, _, took, chained) = timed(&stuck, plan);
    assert!(chained[2] > 0, "{chained:?}");
    assert!(took < Duration::from_secs(12), "{took:?}");
    assert_eq!(outcome.slides[&id(0)].failed_tiles(), 1);
}

#[test]
fn a_stage_is_given_up_in_its_own_time_whatever_that_of_the_stage_behind_it_is() {
    let mut stuck = relays();
    stuck.slides.truncate(1);
    stuck.stuck_relay = Some((0, 0, 299, Duration::from_secs(30)));
    let mut plan = plan(&stuck);
    plan.run.helpers = 1;
    for (node, timeout) in [(1, 2_000), (2, 1_800), (3, 60_000)] {
        plan.nodes[node].run.timeout = Some(Duration::from_millis(timeout));
    }
    let (outcome, _, took, _) = timed(&stuck, plan);
    assert_eq!(outcome.slides[&id(0)].failed_tiles(), 1);
    // Twice two seconds: its batch and its row alone.
    assert!(took < Duration::from_millis(6_000), "{took:?}");
}

#[test]
fn a_tile_that_comes_twice_has_two_outcomes() {
    let scenario = Scenario {
        relays_behind: true,
        selects_twice: true,
        highest: 16,
        slides: Scenario::of(20, 100).slides,
        ..relays()
    };
    let mut plan = scenario.plan(Place::Home, settings());
    for relay in [4, 5] {
        plan.nodes[relay].run.linger = Some(Duration::ZERO);
        plan.nodes[relay].run.batch = Some(8);
    }
    let (outcome, seen, _, chained) = timed(&scenario, plan);
    assert!(chained[5] > 0, "{chained:?}");
    assert_eq!(outcome.exit_code(), exit::DONE);
    assert_eq!(answers(&seen), scenario.truth());
}
