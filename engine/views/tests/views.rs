//! Views are a function of what holds: not of the order of rows, of corrections on the way, or of the number of workers.
#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::Arc;

use proptest::prelude::*;
use timely::Config;
use timely::dataflow::operators::vec::Input;
use weir_record::id::mix;
use weir_record::*;
use weir_runtime::Tap;
use weir_views::{Answers, Rollup, Tables, Views};

/// Two classes whose probabilities are a function of the pooled vector alone.
fn answers() -> Answers {
    Answers {
        classes: vec!["normal".into(), "tumour".into()],
        positive: Some("tumour".into()),
        classify: Some(Arc::new(|pooled| {
            let p = 1.0 / (1.0 + (-pooled.iter().sum::<f32>()).exp());
            Some(vec![1.0 - p, p])
        })),
    }
}

fn info(number: u64, patient: Option<&str>) -> SlideInfo {
    SlideInfo {
        patient: patient.map(str::to_owned),
        tiles: 100 + number,
        ..SlideInfo::unopened(format!("s{number}"), SlideKey(number), String::new())
    }
}

fn sums(seed: u64, members: u64) -> ExactSums {
    let mut sums = ExactSums::new(3);
    for member in 0..members {
        let number = |at: u64| (mix(seed ^ member << 8 ^ at << 40) % 2000) as f32 / 1000.0 - 1.0;
        sums.insert(&ExactMember::squared(number(0), &[number(1), number(2), number(3)]).unwrap());
    }
    sums
}

fn prediction(seed: u64, state: State, exact: bool) -> Prediction {
    let p = (mix(seed) % 1000) as f32 / 999.0;
    let n = 1 + seed % 5;
    let answered = !matches!(state, State::Failed | State::NoTissue | State::Interrupted);
    let tally = |value, fail| Tally {
        value,
        fail,
        ..Tally::default()
    };
    Prediction {
        revision: 0,
        state,
        classes: vec!["normal".into(), "tumour".into()],
        class: answered.then_some((p > 0.5).into()),
        logits: if answered { vec![0.0, p] } else { vec![] },
        probabilities: if answered { vec![1.0 - p, p] } else { vec![] },
        bag: Bag {
            n,
            flags: BagFlags::default(),
            pooled: vec![],
            effective: 1.0,
            entropy: 0.0,
            exact: (exact && answered).then(|| sums(seed, n)),
            contract: "ordered-f32/1".into(),
            coverage: Coverage {
                source: tally(90, seed % 3),
                selected: tally(n, 0),
            },
            selection: 0,
            ended: Some(End::Complete),
            state,
        },
    }
}

fn row(number: u64, rev: u32, body: Body) -> Row {
    Row {
        slide: SlideId::new(0, number),
        tile: TileId::SLIDE,
        rev,
        body,
    }
}

fn event(number: u64, event: Event) -> Row {
    row(number, 0, Body::Event(event.into()))
}

/// What happens to a slide.
#[derive(Clone, Debug)]
struct Life {
    patient: Option<u8>,
    /// Seeds of its predictions in the order of their revisions; the last holds.
    predictions: Vec<u64>,
    state: State,
    exact: bool,
    fails: bool,
    skipped: bool,
}

impl Life {
    fn rows(&self, number: u64, all: bool) -> Vec<Row> {
        let patient = self.patient.map(|p| format!("p{p}"));
        let mut rows = vec![row(
            number,
            0,
            Body::Opened(info(number, patient.as_deref()).into()),
        )];
        for (rev, seed) in self.predictions.iter().enumerate() {
            let last = rev + 1 == self.predictions.len();
            let state = if last { self.state } else { State::Provisional };
            let prediction = prediction(*seed, state, self.exact);
            if self.skipped {
                let path = String::new();
                rows.push(event(
                    number,
                    Event::Skipped {
                        path,
                        prediction: prediction.into(),
                    },
                ));
                // The empty domain of a skipped slide may end in a prediction that says nothing.
                let nothing = says_nothing();
                rows.push(row(number, 9, Body::Prediction(nothing.into())));
                break;
            }
            if all || last {
                rows.push(row(number, rev as u32, Body::Prediction(prediction.into())));
            }
        }
        if self.fails {
            let failure = Failure {
                stage: "tiles".into(),
                slide: format!("s{number}"),
                tile: None,
                what: "unreadable".into(),
                help: String::new(),
            };
            rows.push(event(number, Event::SlideFailed(failure)));
        }
        let ended = Event::LedgerEnded {
            stage: "predictions".into(),
            port: "predictions".into(),
            end: End::Complete,
            tally: Tally::default(),
        };
        rows.push(event(number, ended));
        rows
    }
}

fn says_nothing() -> Prediction {
    prediction(0, State::NoTissue, false)
}

fn lives() -> impl Strategy<Value = Vec<Life>> {
    let state = prop_oneof![
        6 => Just(State::Final),
        1 => Just(State::Failed),
        1 => Just(State::NoTissue),
        1 => Just(State::Incomplete),
    ];
    let life = (
        prop::option::weighted(0.8, 0u8..4),
        prop::collection::vec(any::<u64>(), 0..4),
        state,
        prop::bool::weighted(0.8),
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.2),
    );
    prop::collection::vec(life, 0..14).prop_map(|lives| {
        lives
            .into_iter()
            .map(
                |(patient, predictions, state, exact, fails, skipped)| Life {
                    patient,
                    predictions,
                    state,
                    exact,
                    fails,
                    skipped,
                },
            )
            .collect()
    })
}

/// Runs the views over `rows` in `steps` portions on `workers` workers; a slide's rows all go to one.
fn run(rows: Vec<Row>, steps: usize, workers: usize) -> Tables {
    let views = Views::default();
    let tap = views.clone();
    let rows = Arc::new(rows);
    timely::execute(Config::process(workers), move |worker| {
        let mut input = worker.dataflow::<u64, _, _>(|scope| {
            let (input, rows) = scope.new_input::<Row>();
            tap.attach(scope, rows);
            input
        });
        let mine = |row: &&Row| row.slide.number() as usize % worker.peers() == worker.index();
        let mine: Vec<Row> = rows.iter().filter(mine).cloned().collect();
        for portion in mine.chunks(mine.len().div_ceil(steps).max(1)) {
            for row in portion {
                input.send(row.clone());
            }
            input.flush();
            worker.step();
        }
    })
    .unwrap()
    .join()
    .into_iter()
    .for_each(|joined| joined.unwrap());
    views.tables(&answers()).unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn any_order_of_insertions_and_corrections_on_any_number_of_workers_gives_the_batch_result(
        lives in lives(),
        seed in any::<u64>(),
    ) {
        let numbered = || lives.iter().zip(0u64..);
        let batch: Vec<Row> = numbered().flat_map(|(life, n)| life.rows(n, false)).collect();
        let truth = run(batch, 1, 1);
        let live: Vec<Row> = numbered().flat_map(|(life, n)| {
            // Two sinks say the same.
            let rows = life.rows(n, true);
            rows.iter().cloned().chain(rows.clone()).collect::<Vec<_>>()
        }).collect();
        let mut order: Vec<usize> = (0..live.len()).collect();
        order.sort_by_key(|at| mix(seed ^ *at as u64));
        let live: Vec<Row> = order.into_iter().map(|at| live[at].clone()).collect();
        for (steps, workers) in [(1, 1), (7, 1), (1000, 2), (5, 4)] {
            let tables = run(live.clone(), steps, workers);
            prop_assert_eq!(text(&tables.worklist), text(&truth.worklist));
            prop_assert_eq!(text(&tables.patients), text(&truth.patients));
        }
    }
}

#[test]
fn positive_slides_come_first_then_those_without_an_answer_then_the_others() {
    let life = |seed, patient, state, fails| Life {
        patient,
        predictions: vec![seed],
        state,
        exact: true,
        fails,
        skipped: false,
    };
    let lives = [
        life(1, Some(1), State::Final, false),
        life(2, Some(1), State::Final, false),
        life(3, Some(2), State::Final, true),
        life(4, Some(2), State::NoTissue, false),
        life(5, None, State::Final, false),
        life(6, Some(3), State::Incomplete, false),
    ];
    let rows = lives
        .iter()
        .zip(0..)
        .flat_map(|(life, n)| life.rows(n, true))
        .collect();
    let tables = run(rows, 3, 1);
    insta::assert_snapshot!("worklist.csv", text(&tables.worklist));
    insta::assert_snapshot!("patients.csv", text(&tables.patients));
}

#[test]
fn a_patient_is_the_classifiers_word_on_all_members_where_every_bag_has_its_sums_else_the_mean() {
    let row_of = |exact: [bool; 2]| {
        let rows = exact.iter().zip(0u64..).flat_map(|(exact, n)| {
            let life = Life {
                patient: Some(0),
                predictions: vec![11 + n],
                state: State::Final,
                exact: *exact,
                fails: false,
                skipped: false,
            };
            life.rows(n, true)
        });
        let tables = run(rows.collect(), 1, 1);
        let text = text(&tables.patients);
        text.lines()
            .nth(1)
            .unwrap()
            .split(',')
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    // METHOD 2, P8: one bag of all members.
    let mut all = sums(11, 1 + 11 % 5);
    all.merge(&sums(12, 1 + 12 % 5));
    let whole = (answers().classify.unwrap())(&all.finish().unwrap().pooled).unwrap();
    let pooled = row_of([true, true]);
    assert_eq!(pooled[1], "pool");
    assert_eq!(pooled[5], whole[1].to_string());

    let means = row_of([true, false]);
    let p = |seed| prediction(seed, State::Final, true).probabilities[1] as f64;
    assert_eq!(means[1], "mean");
    assert_eq!(means[5], (((p(11) + p(12)) / 2.0) as f32).to_string());
}

mod group {
    use super::*;
    use differential_dataflow::difference::{Abelian, IsZero, Multiply, Semigroup};
    use weir_views::SlideEntry;

    fn entries() -> impl Strategy<Value = Vec<SlideEntry>> {
        use weir_views::{Answer, Number, Standing};
        let entry = (any::<u32>(), 0u64..4, prop::bool::ANY, prop::bool::ANY).prop_map(
            |(seed, members, exact, wide)| SlideEntry {
                slide: format!("s{seed}"),
                patient: None,
                label: None,
                standing: if members == 0 {
                    Standing::NoTissue
                } else {
                    Standing::Final
                },
                answer: (members > 0).then(|| Answer {
                    revision: seed,
                    classes: vec!["a".into(), "b".into()],
                    class: Some(0),
                    probabilities: vec![Number(seed as f32 / u32::MAX as f32), Number(0.25)],
                    members,
                    flags: vec![],
                    exact: exact.then(|| {
                        let mut sums = sums(seed as u64, members);
                        if wide {
                            sums.merge(&ExactSums::new(5));
                        }
                        sums
                    }),
                    standing: Standing::Final,
                }),
                tiles: 7,
                failed: 1,
                reason: String::new(),
            },
        );
        prop::collection::vec(entry, 1..12)
    }

    fn sum(entries: impl Iterator<Item = Rollup>) -> Rollup {
        entries.fold(Rollup::default(), |mut sum, one| {
            sum.plus_equals(&one);
            sum
        })
    }

    proptest! {
        #[test]
        fn rollups_add_in_any_order_and_take_away_to_the_bit(entries in entries(), extra in entries()) {
            let forth = sum(entries.iter().map(Rollup::of));
            prop_assert_eq!(&forth, &sum(entries.iter().rev().map(Rollup::of)));
            let taken = extra.iter().map(|e| Rollup::of(e).multiply(&-1));
            let all = entries.iter().chain(&extra).map(Rollup::of).chain(taken);
            prop_assert_eq!(&forth, &sum(all));
            let mut back = forth.clone();
            back.negate();
            prop_assert_eq!(&back, &forth.clone().multiply(&-1));
            back.plus_equals(&forth);
            prop_assert!(back.is_zero());
        }
    }
}
