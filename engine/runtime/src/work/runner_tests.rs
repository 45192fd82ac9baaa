//! Which stages are chained, and what of a batch a thread goes on with.
#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use weir_pipeline::Node;
use weir_record::{Body, Class, Key, SlideId, SlideInfo, SlideKey, TileId};

use super::{Answer, Coming, QUICK, Runner, Value, runners};
use crate::stage::{Batch, BatchShape, Prepared, StageError, Turn, Work};
use crate::stand::{MEMORY, ONE, TWO, house, node};

/// Maps behind each other.
fn chain(n: usize) -> Vec<Node> {
    let first = node(&ONE, &[]);
    let others = (1..n).map(|at| node(&ONE, &[(0, at - 1, 0)]));
    std::iter::once(first).chain(others).collect()
}

/// Two maps behind each other.
fn two() -> Vec<Node> {
    chain(2)
}

type Run = dyn Fn(&mut Batch) + Send + Sync;

struct Probe {
    run: Box<Run>,
    rows: usize,
    bytes: Option<usize>,
    inline: bool,
}

impl Work for Probe {
    fn run(&self, batch: &mut Batch) -> Result<(), StageError> {
        batch.pass_all();
        (self.run)(batch);
        Ok(())
    }

    fn shape(&self) -> BatchShape {
        BatchShape {
            rows: self.rows,
            ..BatchShape::default()
        }
    }

    fn output_bytes(&self, _: &Body, _: &SlideInfo) -> Option<(Class, usize)> {
        Some((Class::Fetch, self.bytes?))
    }

    fn inline(&self) -> bool {
        self.inline
    }
}

fn probe(run: impl Fn(&mut Batch) + Send + Sync + 'static) -> Probe {
    Probe {
        run: Box::new(run),
        rows: 8,
        bytes: None,
        inline: false,
    }
}

/// Stages, and what their operators hear.
struct Stand {
    runners: Vec<Arc<Runner>>,
    heard: Vec<Receiver<Answer>>,
    woken: Vec<Arc<AtomicUsize>>,
}

impl Stand {
    fn new(nodes: Vec<Node>, probes: impl IntoIterator<Item = Probe>) -> Stand {
        let works = probes.into_iter();
        let works: Vec<Prepared> = works.map(|probe| Prepared::Work(Arc::new(probe))).collect();
        let mut made = runners(&house(nodes), &works);
        let of = (0..works.len()).map(|at| made.remove(&at).unwrap());
        let runners: Vec<Arc<Runner>> = of.collect();
        let woken: Vec<Arc<AtomicUsize>> = runners.iter().map(|_| Arc::default()).collect();
        let heard = runners.iter().zip(&woken).map(|(runner, woken)| {
            let woken = woken.clone();
            runner.belongs_to(Arc::new(move || {
                woken.fetch_add(1, Ordering::SeqCst);
            }))
        });
        Stand {
            heard: heard.collect(),
            runners,
            woken,
        }
    }

    /// One whose stages were all fast, however busy the machine is.
    fn warm(nodes: Vec<Node>, probes: impl IntoIterator<Item = Probe>) -> Stand {
        let stand = Stand::new(nodes, probes);
        for runner in &stand.runners {
            runner.pace.store(QUICK, Ordering::SeqCst);
        }
        stand
    }

    /// A batch of the stage's own.
    fn runs(&self, at: usize, rows: usize) {
        let runner = self.runners[at].clone();
        runner.take(0, &Turn::waiting(), values(rows));
    }

    /// A batch of the first stage's; rows that went on to the second, and how many batches each operator heard the outcomes of.
    fn takes(&self, rows: usize) -> (usize, [usize; 2]) {
        self.runs(0, rows);
        let ((none, first), (chained, second)) = (self.hears(0), self.hears(1));
        assert_eq!(none, 0);
        (chained, [first, second])
    }

    fn hears(&self, at: usize) -> (usize, usize) {
        let (mut chained, mut done) = (0, 0);
        for answer in self.heard[at].try_iter() {
            match answer {
                Answer::Chained(coming) => chained += coming.missing.len(),
                Answer::Done(_) => done += 1,
            }
        }
        (chained, done)
    }

    /// How often each operator was woken.
    fn woken(&self) -> Vec<usize> {
        let woken = self.woken.iter();
        woken.map(|woken| woken.load(Ordering::SeqCst)).collect()
    }
}

fn values(n: usize) -> Vec<Value> {
    let info = SlideInfo::unopened("a".into(), SlideKey(1), "a.svs".into());
    let info = Arc::new(info);
    let value = |at| Value {
        key: Key {
            slide: SlideId::new(0, 0),
            tile: TileId::new(0, 0, at, 0).unwrap(),
            rev: 0,
        },
        body: Body::Picked {
            source_rev: 0,
            score: at as f32,
        },
        info: info.clone(),
        lease: None,
        alone: false,
        aborted: Arc::default(),
    };
    (0..n as i64).map(value).collect()
}

#[test]
fn a_stage_is_chained_to_the_one_whose_rows_it_alone_takes_and_that_gives_it_all_of_its_own() {
    let told = |time| {
        let mut nodes = two();
        nodes[1].run.linger = Some(time);
        nodes
    };
    let chained: Vec<(Vec<Node>, bool)> = vec![
        (two(), true),
        (told(Duration::ZERO), true),
        (told(Duration::from_millis(1)), false),
        // Two outputs; both of them to the same stage.
        (vec![node(&TWO, &[]), node(&ONE, &[(0, 0, 0)])], false),
        (
            vec![node(&TWO, &[]), node(&ONE, &[(0, 0, 0), (0, 0, 1)])],
            false,
        ),
        // One output to two ports of a stage.
        (
            vec![node(&ONE, &[]), node(&ONE, &[(0, 0, 0), (1, 0, 0)])],
            false,
        ),
        // Another stage takes them too.
        ([two(), vec![node(&ONE, &[(0, 0, 0)])]].concat(), false),
        // It takes another stage's too.
        (
            vec![
                node(&ONE, &[]),
                node(&ONE, &[(0, 0, 0), (0, 2, 0)]),
                node(&ONE, &[]),
            ],
            false,
        ),
    ];
    for (at, (nodes, chained)) in chained.into_iter().enumerate() {
        let stand = Stand::warm(nodes.clone(), nodes.iter().map(|_| probe(|_| ())));
        let gone_on = if chained { 3 } else { 0 };
        assert_eq!(stand.takes(3), (gone_on, [1, chained.into()]), "plan {at}");
    }
    for inline in [[true, false], [false, true]] {
        let probes = inline.map(|inline| Probe {
            inline,
            ..probe(|_| ())
        });
        let stand = Stand::warm(two(), probes);
        assert_eq!(stand.takes(3), (0, [1, 0]), "{inline:?}");
    }
}

#[test]
fn only_a_stage_that_was_fast_when_it_ran_last_is_gone_on_with() {
    let slow = Arc::new(AtomicBool::new(true));
    let is_slow = slow.clone();
    let second = move |_: &mut Batch| {
        if is_slow.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(2));
        }
    };
    let stand = Stand::new(two(), [probe(|_| ()), probe(second)]);
    let own = || &stand.runners[1];
    let runs = || stand.runs(1, 1);
    // A busy machine makes a batch slow at times.
    let runs_fast = || {
        (0..100).any(|_| {
            runs();
            own().pace.load(Ordering::SeqCst) == QUICK
        })
    };
    // Of one that has not run yet nothing is known, and its first batch goes at once.
    assert_eq!(stand.takes(1).0, 1);
    assert_eq!(stand.takes(1).0, 0);
    runs();
    assert_eq!(stand.takes(1).0, 0);
    slow.store(false, Ordering::SeqCst);
    assert!(runs_fast());
    slow.store(true, Ordering::SeqCst);
    assert_eq!(stand.takes(1).0, 1, "it is not slow before it was");
    assert_eq!(stand.takes(1).0, 0);
    slow.store(false, Ordering::SeqCst);
    assert!(runs_fast());
    own().hangs();
    assert_eq!(stand.takes(1).0, 0);
    assert!(runs_fast());
    own().set_starved(true);
    assert_eq!(stand.takes(1).0, 0, "rows wait for memory there");
    own().set_starved(false);
    assert_eq!(stand.takes(1).0, 1);
}

/// The stand of a test, for the stages in it to look at.
type Seen = Arc<Mutex<Option<Stand>>>;

/// A stage that notes how often each operator was woken when it begins.
fn looks(stand: &Seen, begun: &Arc<Mutex<Vec<Vec<usize>>>>) -> Probe {
    let (stand, begun) = (stand.clone(), begun.clone());
    probe(move |_| {
        let woken = stand.lock().unwrap().as_ref().unwrap().woken();
        begun.lock().unwrap().push(woken);
    })
}

#[test]
fn operators_hear_of_rows_that_do_not_go_on_before_the_next_stage_begins_and_once_in_all() {
    // Rows of a batch at the second and the third stage, a row that the first leaves out, and how often the operators were woken when
    // the second and when the third began.
    let cases = [
        (8, 8, None, [[0, 0, 0], [0, 0, 0]]),
        (2, 8, None, [[1, 0, 0], [1, 0, 0]]),
        (8, 8, Some(1), [[1, 0, 0], [1, 0, 0]]),
        (8, 2, None, [[0, 0, 0], [1, 1, 0]]),
        (2, 1, None, [[1, 0, 0], [1, 1, 0]]),
    ];
    for (second, third, left_out, woken) in cases {
        let (seen, begun) = (Seen::default(), Arc::default());
        let first = probe(move |batch| {
            if let Some(at) = left_out {
                batch.set(at, 0, Body::Gone);
            }
        });
        let [second, third] = [second, third].map(|rows| Probe {
            rows,
            ..looks(&seen, &begun)
        });
        let stand = Stand::warm(chain(3), [first, second, third]);
        let runner = stand.runners[0].clone();
        *seen.lock().unwrap() = Some(stand);
        runner.take(0, &Turn::waiting(), values(3));
        assert_eq!(*begun.lock().unwrap(), woken);
        let stand = seen.lock().unwrap().take().unwrap();
        assert_eq!(stand.woken(), [1, 1, 1]);
        let done = [0, 1, 2].map(|at| stand.hears(at).1);
        assert_eq!(done, [1, 1, 1]);
    }
}

#[test]
fn rows_go_on_as_far_as_there_is_memory_for_what_is_made_of_them() {
    let kept: Arc<Mutex<Vec<_>>> = Arc::default();
    let keeps = kept.clone();
    let second = probe(move |batch| keeps.lock().unwrap().extend(batch.take_leases()));
    let second = Probe {
        bytes: Some(MEMORY as usize / 3),
        ..second
    };
    let stand = Stand::warm(two(), [probe(|_| ()), second]);
    assert_eq!(stand.takes(8).0, 3);
    assert_eq!(kept.lock().unwrap().len(), 3);
    let fast = || stand.runners[1].pace.store(QUICK, Ordering::SeqCst);
    fast();
    assert_eq!(stand.takes(8).0, 0, "it holds all there is");
    kept.lock().unwrap().clear();
    assert_eq!(stand.takes(2).0, 2);
}

#[test]
fn a_batch_that_was_given_up_goes_nowhere_and_keeps_nobody_waiting() {
    for late in [0, 1] {
        let probes = [0, 1, 2].map(|at| {
            probe(move |batch| {
                if at == late {
                    assert!(batch.turn().give_up());
                }
            })
        });
        let stand = Stand::warm(chain(3), probes);
        stand.runs(0, 2);
        let heard = [0, 1, 2].map(|at| stand.hears(at));
        match late {
            0 => assert_eq!((heard, stand.woken()), ([(0, 0); 3], vec![0; 3])),
            _ => assert_eq!(
                (heard, stand.woken()),
                ([(0, 1), (2, 0), (0, 0)], vec![1, 0, 0])
            ),
        }
    }
}

#[test]
fn a_thread_that_hangs_in_a_stage_keeps_no_other_stage() {
    let others = Arc::new(Mutex::new(Vec::<Weak<Runner>>::new()));
    let of = others.clone();
    // The operators of the others are at their end when it runs.
    let second = probe(move |_| {
        let others = of.lock().unwrap();
        assert_eq!(others.iter().filter_map(Weak::upgrade).count(), 0);
    });
    let mut stand = Stand::warm(chain(3), [probe(|_| ()), second, probe(|_| ())]);
    let third = stand.runners.pop().unwrap();
    let first = stand.runners.remove(0);
    *others.lock().unwrap() = [&first, &third].map(Arc::downgrade).into();
    drop(third);
    first.take(0, &Turn::waiting(), values(2));
    assert_eq!(stand.hears(1), (2, 1));
    let abort = &stand.runners[0].house.abort;
    assert_eq!(abort.first(), None, "no stage panicked");
}

#[test]
fn rows_that_come_twice_or_in_another_order_are_each_met_once() {
    let key = |at: usize| values(at + 1)[at].key;
    let coming = |job, at: &[usize]| {
        let keys: Vec<Key> = at.iter().map(|&at| key(at)).collect();
        Coming::of(job, Turn::waiting(), keys.into_iter())
    };
    // Of two batches that begin with the same tile the second one's rows come first.
    let mut all = vec![coming(1, &[0]), coming(2, &[0, 1])];
    let met = [0, 1, 0, 1].map(|at| Coming::meet(&mut all, key(at)));
    assert_eq!(met, [Some(0), Some(1), Some(1), None]);
    assert!(all.iter().all(|coming| coming.missing.is_empty()));
    let mut all = vec![coming(1, &[0, 1, 2]), coming(2, &[3, 4])];
    let met = [3, 0, 4, 1, 5, 2].map(|at| Coming::meet(&mut all, key(at)));
    assert_eq!(met, [Some(1), Some(0), Some(1), Some(0), None, Some(0)]);
}
