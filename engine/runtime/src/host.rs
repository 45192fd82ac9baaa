//! Any stage as a timely operator: inputs of any pact, outputs at the operator's own capability.
//!
//! An operator holds a capability of its own until its logic says that it is done, so a job that is stuck on a helper thread
//! holds back no other operator's frontier, and answers may be sent in any order.

use std::sync::Arc;
use std::time::{Duration, Instant};

use timely::Accountable;
use timely::communication::Pull;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::Message;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::operators::generic::{InputHandleCore, OutputBuilder};
use timely::dataflow::{Scope, Stream};
use timely::scheduling::Activator;
use weir_record::budget::Waker;
use weir_record::{Body, Event, Row, SlideId, TileId};

use crate::progress::Progress;

/// Rows on their way from one stage to the next. The timestamp is the epoch of arrival, never a slide or a tile.
pub type Edge<'s> = Stream<'s, u64, Vec<Row>>;

/// Where the rows of an input go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// They stay with the worker.
    Home,
    /// To worker 0 of process 0.
    First,
}

/// What an operator does.
pub(crate) trait Logic: 'static {
    /// Takes rows of an input.
    fn rows(&mut self, input: usize, rows: &mut Vec<Row>, out: &mut Outputs);

    /// Called at each activation, after the rows; `inputs_done` says that no input will bring more. Returns whether the
    /// operator is done: it will send nothing more, whatever happens.
    fn turn(&mut self, inputs_done: bool, out: &mut Outputs) -> bool;

    /// It is done, while operators behind it may go on. What comes back is kept until the run ends.
    fn leave(self: Box<Self>) -> Option<Box<dyn Logic>>;
}

/// Rows to be sent, by output.
pub(crate) struct Outputs {
    ports: Vec<Vec<Row>>,
}

impl Outputs {
    pub(crate) fn new(ports: usize) -> Self {
        Outputs {
            ports: (0..ports).map(|_| Vec::new()).collect(),
        }
    }

    pub(crate) fn send(&mut self, port: usize, row: Row) {
        self.ports[port].push(row);
    }

    pub(crate) fn send_all(&mut self, row: Row) {
        if let Some((last, others)) = self.ports.split_last_mut() {
            for port in others {
                port.push(row.clone());
            }
            last.push(row);
        }
    }

    pub(crate) fn event(&mut self, slide: SlideId, event: Event) {
        self.send_all(Row {
            slide,
            tile: TileId::SLIDE,
            rev: 0,
            body: Body::Event(Arc::new(event)),
        });
    }
}

/// Brings an operator back: from its own worker, after a time, or from any thread.
#[derive(Clone)]
pub(crate) struct Wake {
    here: Activator,
    anywhere: Waker,
}

impl Wake {
    /// Again, soon.
    pub(crate) fn again(&self) {
        self.here.activate();
    }

    /// Again after `delay`.
    pub(crate) fn after(&self, delay: Duration) {
        self.here.activate_after(delay);
    }

    /// For other threads.
    pub(crate) fn waker(&self) -> Waker {
        self.anywhere.clone()
    }
}

/// The next time at which an operator wants to be brought back. Asking again for a later time costs nothing, so that
/// operators may ask at each turn.
#[derive(Default)]
pub(crate) struct Alarm(Option<Instant>);

impl Alarm {
    /// Brings the operator back at `at`, or before.
    pub(crate) fn set(&mut self, wake: &Wake, at: Instant) {
        let now = Instant::now();
        if self.0.is_some_and(|set| set > now && set <= at) {
            return;
        }
        self.0 = Some(at);
        wake.after(at.saturating_duration_since(now));
    }
}

/// Erases the puller's type, so that an operator may have inputs of any pact.
trait Input {
    fn drain(&mut self, take: &mut dyn FnMut(&mut Vec<Row>));
}

impl<P: Pull<Message<u64, Vec<Row>>>> Input for InputHandleCore<u64, Vec<Row>, P> {
    fn drain(&mut self, take: &mut dyn FnMut(&mut Vec<Row>)) {
        self.for_each(|_, rows| take(rows));
    }
}

/// What is counted of an operator.
#[derive(Clone)]
pub(crate) struct Counted {
    /// Where.
    pub(crate) progress: Arc<Progress>,
    /// Index of the stage.
    pub(crate) stage: usize,
    /// What it sends on its first output.
    pub(crate) made: bool,
    /// The time that it takes on the worker; sources and works count what they do on other threads.
    pub(crate) busy: bool,
}

/// Builds the operator `name` over `inputs` and returns its outputs.
pub(crate) fn host<'s>(
    scope: Scope<'s, u64>,
    name: &str,
    counted: Option<Counted>,
    inputs: Vec<(Edge<'s>, Route)>,
    outputs: usize,
    make: impl FnOnce(Wake) -> Box<dyn Logic>,
) -> Vec<Edge<'s>> {
    let mut builder = OperatorBuilder::new(name.to_owned(), scope);
    let mut handles: Vec<Box<dyn Input>> = Vec::new();
    for (stream, route) in inputs {
        match route {
            Route::Home => handles.push(Box::new(builder.new_input(stream, Pipeline))),
            Route::First => handles.push(Box::new(
                builder.new_input(stream, Exchange::new(|_: &Row| 0)),
            )),
        }
    }
    let (mut senders, mut streams) = (Vec::new(), Vec::new());
    for _ in 0..outputs {
        let (output, stream) = builder.new_output::<Vec<Row>>();
        senders.push(OutputBuilder::<u64, CapacityContainerBuilder<Vec<Row>>>::from(output));
        streams.push(stream);
    }
    let address = builder.operator_info().address;
    let sync = scope.worker().sync_activator_for(address.to_vec());
    let wake = Wake {
        here: scope.activator_for(address),
        // The worker may be gone by the time that a late answer comes: then nobody waits for it.
        anywhere: Arc::new(move || {
            let _ = sync.activate();
        }),
    };
    let logic = make(wake.clone());
    builder.build_reschedule(move |capabilities: Vec<Capability<u64>>| {
        let mut held = Some((logic, capabilities));
        let mut _kept = None;
        let mut out = Outputs::new(outputs);
        wake.again();
        move |frontiers| {
            let Some((logic, capabilities)) = held.as_mut() else {
                return false;
            };
            let since = Instant::now();
            for (index, handle) in handles.iter_mut().enumerate() {
                handle.drain(&mut |rows| logic.rows(index, rows, &mut out));
            }
            let inputs_done = frontiers.iter().all(|frontier| frontier.is_empty());
            let done = logic.turn(inputs_done, &mut out);
            if let Some(counted) = &counted {
                let stage = &counted.progress.stages[counted.stage];
                if counted.busy {
                    stage.worked(0, since.elapsed());
                }
                if let Some(rows) = out.ports.first().filter(|_| counted.made) {
                    stage.made.count(rows);
                }
            }
            for ((sender, rows), capability) in
                senders.iter_mut().zip(&mut out.ports).zip(&*capabilities)
            {
                if rows.record_count() > 0 {
                    sender.activate().session(capability).give_container(rows);
                    rows.clear();
                }
            }
            if done && let Some((logic, capabilities)) = held.take() {
                drop(capabilities);
                _kept = logic.leave();
            }
            !done
        }
    });
    streams
}
