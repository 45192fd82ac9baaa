//! What part of a slide's tiles may fail before the slide fails, whatever closes its domain.
#![allow(clippy::unwrap_used)]

mod synthetic;

use std::sync::Arc;

use synthetic::types::WHOLE;
use synthetic::{Scenario, answers, id, settings};
use weir_pipeline::{OnError, Place, Plan, RunSettings};
use weir_record::{End, State};
use weir_runtime::{Options, Outcome, counters, exit};

/// Two slides of 100 tiles, two of which of the first cannot be read.
fn two_bad() -> Scenario {
    let mut scenario = Scenario::of(2, 100);
    scenario.slides[0].bad = [1, 2].into();
    scenario
}

fn max_failed(max_failed: f64) -> RunSettings {
    RunSettings {
        max_failed,
        retries: 0,
        ..settings()
    }
}

fn end_at(outcome: &Outcome, slide: usize, stage: &str) -> End {
    let ledgers = &outcome.slides[&id(slide)].ledgers;
    ledgers[&(stage.to_owned(), "rows".to_owned())].0
}

/// The outcome, what the sinks say of each slide, and how many slides the counters call failed.
fn run(scenario: &Scenario, plan: Plan) -> (Outcome, Vec<String>, u64) {
    let progress = Arc::new(counters(&plan));
    let options = Options {
        progress: Some(progress.clone()),
        ..Options::default()
    };
    let (outcome, seen) = scenario.run_plan(plan, options);
    let said = answers(&seen).into_values().collect();
    (outcome.unwrap(), said, progress.snapshot().slides_failed)
}

#[test]
fn a_slide_with_too_many_failed_tiles_fails_where_there_are_only_sinks() {
    for place in [Place::Home, Place::First] {
        for workers in [1, 2] {
            let scenario = two_bad();
            let settings = RunSettings {
                workers,
                ..max_failed(0.01)
            };
            let (outcome, said, failed) =
                run(&scenario, scenario.plan_to("score", place, settings));
            let record = &outcome.slides[&id(0)];
            let failure = record.failed.as_ref().unwrap();
            assert_eq!(failure.stage, "sink");
            assert_eq!(failure.what, "2 of 100 tiles failed, more than 1 %");
            assert!(
                failure.help.contains("raise run.max-failed if"),
                "{failure}"
            );
            assert_eq!(record.state(), State::Failed);
            assert_eq!(end_at(&outcome, 0, "sink"), End::Aborted);
            assert_eq!(outcome.slides[&id(1)].state(), State::Final);
            // The sink's own code hears of it, wherever it runs.
            assert_eq!(said, ["failed by sink, Some(Aborted)", "Some(Complete)"]);
            assert_eq!((outcome.exit_code(), failed), (exit::PARTLY, 1));
        }
    }
}

#[test]
fn a_sink_lets_pass_what_may_fail() {
    let scenario = two_bad();
    let plan = scenario.plan_to("score", Place::Home, max_failed(0.02));
    let (outcome, said, failed) = run(&scenario, plan);
    assert_eq!(outcome.slides[&id(0)].state(), State::Final);
    assert_eq!(outcome.slides[&id(0)].failed_tiles(), 2);
    assert_eq!(said, ["Some(Complete)", "Some(Complete)"]);
    assert_eq!((outcome.exit_code(), failed), (exit::PARTLY, 0));
}

#[test]
fn a_run_that_stops_at_the_first_failed_slide_stops_at_one_that_a_sink_fails() {
    let mut scenario = Scenario::of(50, 400);
    scenario.slides[0].bad = (0..100).collect();
    scenario.delay = std::time::Duration::from_micros(200);
    let settings = RunSettings {
        on_error: OnError::Stop,
        open_slides: 1,
        ..max_failed(0.01)
    };
    let plan = scenario.plan_to("score", Place::Home, settings);
    let (outcome, said, _) = run(&scenario, plan);
    assert!(outcome.stopped);
    assert_eq!(outcome.exit_code(), exit::FAILED);
    assert!(said.len() < 50, "the others were not begun");
}

#[test]
fn a_sink_beside_a_reduce_leaves_it_to_the_reduce() {
    // On the scorer's output beside the selection, and on the source's, whose failures the selection counts behind the scorer.
    for beside in [0, 1] {
        let scenario = two_bad();
        let mut plan = scenario.plan(Place::Home, max_failed(0.01));
        let mut other = plan.nodes[6].clone();
        other.name = "beside".into();
        other.inputs[0].node = beside;
        plan.nodes.push(other);
        let (outcome, _, failed) = run(&scenario, plan);
        let record = &outcome.slides[&id(0)];
        assert_eq!(record.failed.as_ref().unwrap().stage, "select");
        assert_eq!(end_at(&outcome, 0, "beside"), End::Complete);
        assert_eq!(failed, 1, "whichever sink is done last");
    }
}

#[test]
fn a_sink_counts_what_fails_in_a_branch_of_its_own() {
    // The scorer a second time: what fails there never reaches the selection.
    let mut scenario = Scenario::of(1, 100);
    scenario.slides[0].bad = [1, 2].into();
    let mut plan = scenario.plan(Place::Home, max_failed(0.01));
    let mut branch = plan.nodes[1].clone();
    branch.name = "branch".into();
    plan.nodes.push(branch);
    let mut sink = plan.nodes[6].clone();
    (sink.name, sink.inputs[0].node) = ("beside".into(), 7);
    plan.nodes.push(sink);
    let (outcome, ..) = run(&scenario, plan);
    assert_eq!(end_at(&outcome, 0, "beside"), End::Aborted);
    // Both say so; what the run says does not depend on which is heard first.
    assert_eq!(
        outcome.slides[&id(0)].failed.as_ref().unwrap().stage,
        "select"
    );
}

#[test]
fn selected_tiles_have_the_setting_of_selected_tiles_at_a_sink_too() {
    let mut scenario = Scenario::of(1, 100);
    scenario.encodes_nothing = true;
    for (max_failed_picked, state) in [(0.1, State::Failed), (1.0, State::Final)] {
        let settings = RunSettings {
            max_failed_picked,
            ..max_failed(1.0)
        };
        let plan = scenario.plan_to("encode", Place::Home, settings);
        let (outcome, ..) = run(&scenario, plan);
        let record = &outcome.slides[&id(0)];
        assert_eq!(record.state(), state);
        assert_eq!(record.failed_tiles(), 4);
        if let Some(failure) = &record.failed {
            assert_eq!(failure.what, "4 of 4 tiles failed, more than 10 %");
            assert!(failure.help.contains("run.max-failed-picked"), "{failure}");
        }
    }
}

#[test]
fn a_slide_of_which_nothing_as_a_whole_can_be_made_fails() {
    let mut scenario = Scenario::of(1, 100);
    scenario.encodes_nothing = true;
    let settings = RunSettings {
        max_failed_picked: 0.5,
        ..max_failed(1.0)
    };
    // The encoder behind the pool: what it is given there is the answer of the whole slide.
    let mut plan = scenario.plan(Place::Home, settings);
    plan.nodes.swap(4, 5);
    for (node, feeder) in [(4, 3), (5, 4)] {
        plan.nodes[node].inputs[0].node = feeder;
    }
    plan.nodes[6].schema = &WHOLE;
    let (outcome, ..) = run(&scenario, plan);
    let failure = outcome.slides[&id(0)].failed.clone().unwrap();
    assert_eq!(failure.what, "what is made of the whole slide failed");
    assert_eq!(failure.help, "look at what failed");
}
