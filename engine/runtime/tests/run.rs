//! The operators on a synthetic graph: the same answer however it is run, whatever fails.
#![allow(clippy::unwrap_used)]

mod synthetic;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use synthetic::{Panics, Scenario, Slide, answers, id, settings};
use weir_pipeline::{Edge, OnError, Place, RunSettings};
use weir_record::State;
use weir_runtime::{Options, RunError, Stop, counters, exit};

/// Fails loudly instead of hanging the suite: no run here takes seconds.
fn within<T: Send + 'static>(limit: Duration, run: impl FnOnce() -> T + Send + 'static) -> T {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || tell.send(run()));
    told.recv_timeout(limit).expect("the run hangs")
}

fn slides() -> impl Strategy<Value = Vec<Slide>> {
    let slide = (
        0u32..120,
        prop::bool::weighted(0.1),
        prop::collection::btree_set(0u32..400, 0..4),
        prop::collection::btree_set(0u32..400, 0..4),
    );
    let slide = slide.prop_map(|(tiles, closed, bad, flaky)| {
        // A slide fails when too many of its tiles do; here none does, so that the truth is simple.
        let some = bad.into_iter().filter(|_| tiles > 20).collect();
        Slide {
            tiles,
            closed,
            bad: some,
            flaky,
            ..Slide::default()
        }
    });
    prop::collection::vec(slide, 0..7)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// The answer does not depend on workers, threads, the budget, open slides, or delays; budgets from nothing on, where
    /// pixels and features compete for every byte, never deadlock.
    #[test]
    fn every_way_of_running_gives_the_same_answer(
        slides in slides(),
        workers in prop::sample::select(vec![1usize, 2, 4]),
        threads in (1usize..4, 1usize..4),
        memory in prop::sample::select(vec![0u64, 800, 1_100, 2_000, 5_000, 70_000, 1 << 20]),
        open_slides in 1usize..6,
        highest in 0usize..20,
        relays in 0usize..4,
        first in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let scenario = Scenario {
            slides, highest, relays, seed, delay: Duration::from_micros(60), ..Scenario::default()
        };
        let run = RunSettings {
            workers, readers: threads.0, helpers: threads.1, memory, open_slides, ..settings()
        };
        let place = if first { Place::First } else { Place::Home };
        let told = scenario.clone();
        let (outcome, seen) = within(Duration::from_secs(60), move || told.run(place, run, Options::default()));
        let outcome = outcome.unwrap();
        prop_assert_eq!(answers(&seen), scenario.truth());
        prop_assert_eq!(outcome.slides.len(), scenario.slides.len());
        let damaged = scenario.slides.iter().any(|slide| slide.closed || slide.bad.iter().any(|tile| *tile < slide.tiles));
        prop_assert_eq!(outcome.exit_code(), if damaged { exit::PARTLY } else { exit::DONE });
        if !first {
            // A sink at process 0 closes a slide later than its home does, which is what frees the place.
            prop_assert!(seen.open_most.load(Ordering::SeqCst) <= open_slides);
        }
    }
}

#[test]
fn a_stuck_job_holds_up_only_the_slides_in_its_batch() {
    let mut scenario = Scenario::of(10, 200);
    scenario.stuck = Some((3, 7, Duration::from_secs(6)));
    let run = RunSettings {
        open_slides: 10,
        memory: 1 << 20,
        ..settings()
    };
    let mut plan = scenario.plan(Place::Home, run);
    // Far more than the rest takes on a busy machine.
    plan.nodes[1].run.timeout = Some(Duration::from_secs(1));
    let start = Instant::now();
    let (outcome, seen) = scenario.run_plan(plan, Options::default());
    let outcome = outcome.unwrap();
    let answers = seen.answers.lock().unwrap();
    // Time-out of the batch, then of the row alone: a second each.
    let late = answers
        .values()
        .filter(|(_, at)| *at - start > Duration::from_millis(980));
    assert!(late.count() <= 2, "a batch of 8 spans two slides at most");
    assert_eq!(outcome.slides[&id(3)].failed_tiles(), 1);
    let failure = &outcome.slides[&id(3)].failures[0];
    assert!(failure.what.contains("no answer within"), "{failure}");
    assert_eq!(outcome.exit_code(), exit::PARTLY);
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "nobody waits for the thread that hangs"
    );
}

#[test]
fn a_stalled_slide_holds_up_no_other() {
    let mut scenario = Scenario::of(10, 100);
    scenario.slides[0].stalls = Duration::from_secs(2);
    let run = RunSettings {
        open_slides: 10,
        memory: 1 << 20,
        ..settings()
    };
    let start = Instant::now();
    let (outcome, seen) = scenario.run(Place::Home, run, Options::default());
    assert_eq!(outcome.unwrap().exit_code(), exit::DONE);
    let answers = seen.answers.lock().unwrap();
    let (_, stalled) = &answers[&id(0)];
    for (slide, (_, at)) in answers.iter().filter(|(slide, _)| **slide != id(0)) {
        assert!(
            *at + Duration::from_millis(500) < *stalled,
            "{slide} waited"
        );
    }
    assert!(*stalled - start >= Duration::from_secs(2));
}

#[test]
fn a_tile_is_tried_as_often_as_the_run_says() {
    let mut scenario = Scenario::of(1, 50);
    scenario.slides[0].flaky = [3, 4].into();
    for (retries, failed) in [(1, 0), (0, 2)] {
        let run = RunSettings {
            retries,
            ..settings()
        };
        let (outcome, _) = scenario.run(Place::Home, run, Options::default());
        assert_eq!(
            outcome.unwrap().slides[&id(0)].failed_tiles(),
            failed,
            "{retries} retries"
        );
    }
}

#[test]
fn a_map_that_is_given_two_streams_is_refused_before_anything_flows() {
    let scenario = Scenario::of(1, 4);
    let mut plan = scenario.plan(Place::Home, settings());
    // The score's rows a second time, to the fetch.
    let again = Edge {
        port: 0,
        node: 1,
        output: 0,
    };
    plan.nodes[3].inputs.push(again);
    let (outcome, _) = scenario.run_plan(plan, Options::default());
    match outcome {
        Err(RunError::Prepare { stage, error }) => {
            assert_eq!(stage, "fetch");
            assert_eq!(error.what, "it takes one stream, and is given 2");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_slide_with_too_many_failed_tiles_fails() {
    let mut scenario = Scenario::of(2, 100);
    scenario.slides[0].bad = [1, 2].into();
    let run = RunSettings {
        max_failed: 0.01,
        ..settings()
    };
    let (outcome, seen) = scenario.run(Place::Home, run, Options::default());
    let outcome = outcome.unwrap();
    assert_eq!(outcome.slides[&id(0)].state(), State::Failed);
    assert_eq!(outcome.slides[&id(1)].state(), State::Final);
    assert_eq!(answers(&seen)[&id(0)], "Aborted");
    assert_eq!(outcome.exit_code(), exit::PARTLY);
}

#[test]
fn on_error_stop_ends_at_the_first_failed_slide() {
    let mut scenario = Scenario::of(50, 400);
    scenario.slides[0].closed = true;
    scenario.delay = Duration::from_micros(200);
    let run = RunSettings {
        on_error: OnError::Stop,
        open_slides: 1,
        ..settings()
    };
    let (outcome, seen) = scenario.run(Place::Home, run, Options::default());
    let outcome = outcome.unwrap();
    assert!(outcome.stopped && !outcome.interrupted);
    assert_eq!(outcome.exit_code(), exit::FAILED);
    assert!(answers(&seen).len() < 50, "the others were not begun");
}

#[test]
fn a_stop_drains_within_moments_and_every_ledger_ends() {
    let mut scenario = Scenario::of(4, 400);
    for slide in &mut scenario.slides {
        slide.stalls = Duration::from_secs(60);
    }
    for workers in [1, 2] {
        let stop = Stop::default();
        let asks = stop.clone();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(150));
            asks.request();
        });
        let start = Instant::now();
        let run = RunSettings {
            workers,
            open_slides: 2,
            ..settings()
        };
        let options = Options {
            stop,
            ..Options::default()
        };
        let (outcome, _) = scenario.run(Place::Home, run, options);
        let outcome = outcome.unwrap();
        assert!(
            start.elapsed() < Duration::from_secs(2),
            "{:?}",
            start.elapsed()
        );
        assert!(outcome.interrupted);
        assert_eq!(outcome.exit_code(), exit::INTERRUPTED);
    }
}

#[test]
fn a_panic_anywhere_ends_the_run_with_its_own_message() {
    for place in [
        Panics::Open,
        Panics::Reader,
        Panics::Helper,
        Panics::Worker,
        Panics::Sink,
    ] {
        for workers in [1, 2] {
            let mut scenario = Scenario::of(6, 300);
            scenario.panics = Some(place);
            let start = Instant::now();
            let run = RunSettings {
                workers,
                ..settings()
            };
            let (outcome, _) = scenario.run(Place::Home, run, Options::default());
            let error = outcome.unwrap_err();
            let wanted = format!("the {place:?} was told to panic");
            assert!(error.to_string().contains(&wanted), "{error}");
            assert!(
                error.to_string().contains("synthetic/mod.rs:"),
                "{error} says where"
            );
            assert_eq!(error.exit_code(), exit::INTERNAL);
            assert!(
                start.elapsed() < Duration::from_secs(3),
                "{:?}",
                start.elapsed()
            );
        }
    }
}

#[test]
fn a_trace_is_whole_json_with_every_stage_and_thread() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("trace.json");
    let run = RunSettings {
        workers: 2,
        ..settings()
    };
    let options = Options {
        trace: Some(file.clone()),
        ..Options::default()
    };
    let (outcome, _) = Scenario::of(3, 100).run(Place::Home, run, options);
    outcome.unwrap();
    let text = std::fs::read_to_string(&file).unwrap();
    let trace: serde_json::Value = serde_json::from_str(&text).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    let has = |phase: &str, name: &str| {
        events
            .iter()
            .any(|event| event["ph"] == phase && event["name"] == name)
    };
    for stage in [
        "source", "score", "select", "fetch", "encode", "pool", "sink",
    ] {
        assert!(has("X", stage), "{stage}");
    }
    assert!(has("C", "budget, bytes"));
    let threads: Vec<&str> = events
        .iter()
        .filter(|event| event["name"] == "thread_name")
        .filter_map(|event| event["args"]["name"].as_str())
        .collect();
    for thread in ["worker 0", "worker 1", "reader", "helper"] {
        assert!(
            threads.iter().any(|name| name.starts_with(thread)),
            "{thread} in {threads:?}"
        );
    }
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        1,
        "no half file is left"
    );
}

#[test]
fn a_snapshot_at_the_end_has_everything_and_names_the_slow_stage() {
    let mut scenario = Scenario::of(4, 100);
    scenario.delay = Duration::from_micros(500);
    let plan = scenario.plan(Place::Home, settings());
    let progress = Arc::new(counters(&plan));
    let before = progress.snapshot();
    assert_eq!((before.slides, before.left), (0, None));
    let options = Options {
        progress: Some(progress.clone()),
        ..Options::default()
    };
    let (outcome, _) = scenario.run_plan(plan, options);
    outcome.unwrap();
    let after = progress.snapshot();
    assert_eq!(
        (after.slides, after.slides_done, after.slides_failed),
        (4, 4, 0)
    );
    assert_eq!(
        (after.tiles, after.tiles_done, after.tiles_failed),
        (400, 400, 0)
    );
    assert_eq!(after.left, Some(0.0));
    assert_eq!(after.bottleneck.as_deref(), Some("score"));
    let waiting: u64 = after.stages.iter().map(|stage| stage.waiting).sum();
    assert_eq!(waiting, 0);
}
