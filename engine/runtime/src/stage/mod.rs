//! The four stage traits, and how a stage type is prepared for a run.
//!
//! | trait | rows | runs on |
//! |---|---|---|
//! | [`Source`] | opens slides, sends versions | reader threads |
//! | [`Work`] | one outcome for each value (map, filter) | helper threads |
//! | [`Reduce`] | closes a domain, opens its own | the slide's worker |
//! | [`Sink`] | closes a domain | the slide's worker, or process 0 |

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use weir_pipeline::{ModelHeader, Node, Plan, RunSettings, Schema, ValueError, Values};
use weir_record::{Body, Budget, Class, End, Event, Key, Slab, SlideId, SlideInfo, Tally, TileId};

mod batch;
mod columns;
mod source;
mod turn;

pub use batch::Batch;
pub use columns::{Alike, Columns, Form, Place};
pub use source::{
    OpenSlides, OpenedSlide, Overview, ReadError, Script, SlideRef, Source, Step, TileReader,
};
pub use turn::Turn;

/// A stage type: what it says of itself and how it is prepared.
#[derive(Clone, Copy)]
pub struct StageType {
    /// What it says of itself.
    pub schema: &'static Schema,
    /// Makes it ready for a run: loads models, opens tables. Called once a process, before anything flows.
    pub prepare: fn(&Prepare) -> Result<Prepared, StageError>,
}

/// A stage that is ready to run.
#[derive(Clone)]
pub enum Prepared {
    /// One for the process.
    Source(Arc<dyn Source>),
    /// One for the process, shared by all helper threads.
    Work(Arc<dyn Work>),
    /// One for each worker.
    Reduce(Arc<dyn Fn() -> Box<dyn Reduce> + Send + Sync>),
    /// One for each worker; of a sink at process 0, only worker 0's there gets rows.
    Sink(MakeSink),
    /// A sink of two parts that both get every row: `home` in the slide's home process, for files of the slide, and `first`
    /// at worker 0 of process 0, for tables that span slides. The schema's `place` does not matter then.
    SinkPair {
        /// Made for each worker.
        home: MakeSink,
        /// Made for each worker; only worker 0's of process 0 gets rows.
        first: MakeSink,
    },
}

/// Makes a worker's sink.
pub type MakeSink = Arc<dyn Fn() -> Box<dyn Sink> + Send + Sync>;

/// What a stage gets when it is prepared.
pub struct Prepare<'a> {
    /// The whole plan.
    pub plan: &'a Plan,
    /// This stage in it.
    pub node: &'a Node,
    /// What stages of a process share: open slides, loaded models.
    pub shared: &'a Shared,
    /// The run's budget.
    pub budget: &'a Budget,
    /// The run's buffers.
    pub slab: &'a Slab,
}

impl Prepare<'_> {
    /// The stage's parameters.
    pub fn values(&self) -> &Values {
        &self.node.values
    }

    /// The settings of `[run]`.
    pub fn run(&self) -> &RunSettings {
        &self.plan.run
    }

    /// The folder of the outputs.
    pub fn out(&self) -> PathBuf {
        self.plan.run.out.clone()
    }

    /// The header of the model that the parameter `param` names.
    pub fn model(&self, param: &str) -> Result<&ModelHeader, StageError> {
        let name = self.values().text(param)?;
        self.plan.models.get(name).ok_or_else(|| {
            StageError::new(
                format!("the plan has no model `{name}`"),
                "add a [model] table of that name",
            )
        })
    }
}

/// One value of a type for all stages of a process.
#[derive(Clone, Default)]
pub struct Shared(Arc<Mutex<HashMap<SharedSlot, Arc<dyn Any + Send + Sync>>>>);

/// A type and a name.
type SharedSlot = (TypeId, String);

impl Shared {
    /// The value of type `T` under `name`; made by `make` when it is asked for first.
    pub fn get_or_try<T: Any + Send + Sync, E>(
        &self,
        name: &str,
        make: impl FnOnce() -> Result<T, E>,
    ) -> Result<Arc<T>, E> {
        let slot = (TypeId::of::<T>(), name.to_owned());
        let mut values = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Ok(known)) = values.get(&slot).cloned().map(Arc::downcast::<T>) {
            return Ok(known);
        }
        let made = Arc::new(make()?);
        values.insert(slot, made.clone());
        Ok(made)
    }

    /// The value of type `T` under the empty name; its default when it is asked for first.
    pub fn get<T: Any + Send + Sync + Default>(&self) -> Arc<T> {
        match self.get_or_try("", || Ok::<T, std::convert::Infallible>(T::default())) {
            Ok(value) => value,
            Err(never) => match never {},
        }
    }
}

/// A fault of a stage or of what it was given, not of a tile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageError {
    /// What is wrong.
    pub what: String,
    /// What to do about it; may be empty.
    pub help: String,
    /// The parameter at fault, when a stage cannot be made ready because of one.
    pub param: Option<String>,
}

impl StageError {
    /// What is wrong, and what to do about it.
    pub fn new(what: impl Into<String>, help: impl Into<String>) -> Self {
        StageError {
            what: what.into(),
            help: help.into(),
            param: None,
        }
    }

    /// The same, because of this parameter.
    #[must_use]
    pub fn of_param(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }
}

impl From<ValueError> for StageError {
    fn from(error: ValueError) -> Self {
        StageError::new(
            error.to_string(),
            "this is a fault of the stage, not of the pipeline file",
        )
    }
}

impl fmt::Display for StageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if !self.help.is_empty() {
            write!(f, "; {}", self.help)?;
        }
        Ok(())
    }
}

impl std::error::Error for StageError {}

// ------------------------------------------------------------------------------------------------------------ work

/// A map or filter: one outcome for each value of one stream. Skip, Fail, Gone and seals pass it by.
///
/// A batch is worked on by one helper thread. Where one stage alone takes its outcomes, and that one's last batch took 0.1 ms at most or
/// none was begun yet, the same thread goes on with that stage, without the worker between them.
pub trait Work: Send + Sync {
    /// Works on a batch, which mixes slides. Sets one outcome a row and output; a row without one becomes a Fail.
    /// An error fails no row yet: the batch is tried again row by row, and then only rows that fail alone fail. A panic is a
    /// fault of the stage: it ends the run.
    fn run(&self, batch: &mut Batch) -> Result<(), StageError>;

    /// How rows are gathered, unless the pipeline file says otherwise.
    fn shape(&self) -> BatchShape {
        BatchShape::default()
    }

    /// Bytes of the output of one value and the class that they are leased in; granted before [`Work::run`] sees the row.
    /// Bodies below 1 KiB are not leased. Called on any thread.
    fn output_bytes(&self, _body: &Body, _info: &SlideInfo) -> Option<(Class, usize)> {
        None
    }

    /// Whether [`Work::run`] returns when the stage's time-out is over, with an error, whatever it works with does. Then nobody else
    /// gives its batches up: their rows would wait for what still works on the batch, and be late for no fault of theirs.
    fn keeps_time(&self) -> bool {
        false
    }

    /// What a row failed of whose batch did not come back within `after`: the stage says it in its own name.
    fn late(&self, after: Duration) -> StageError {
        StageError::new(
            format!("no answer within {after:?}"),
            "raise run.timeout of the stage if it is only slow",
        )
    }

    /// Whether the work is so short (below some 20 us a batch) that it runs on the worker itself.
    fn inline(&self) -> bool {
        false
    }

    /// No batch comes any more, while stages behind it may go on. What comes back ends the stage, and is called when nothing flows any
    /// more. A stage that takes long to end may begin to here, as long as that keeps no thread of the caller's, which is a helper; then
    /// what comes back waits for it.
    fn leave(self: Arc<Self>) -> Ending
    where
        Self: 'static,
    {
        Box::new(move || drop(self))
    }
}

/// Ends a stage that was left, or waits for its end.
pub type Ending = Box<dyn FnOnce() + Send>;

/// How rows are gathered into batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchShape {
    /// Rows of a full batch.
    pub rows: usize,
    /// How long the first row of a batch waits for others at most: a few times as long as the last batch took, unless the pipeline file
    /// says how long.
    pub linger: Duration,
    /// How long a batch may take before its rows are tried alone.
    pub timeout: Duration,
}

impl Default for BatchShape {
    fn default() -> Self {
        BatchShape {
            rows: 32,
            linger: Duration::from_millis(5),
            timeout: Duration::from_secs(60),
        }
    }
}

// ---------------------------------------------------------------------------------------------------------- reduce

/// Closes a domain and opens its own. One for each worker; a slide's rows all come to one worker.
///
/// The operator keeps the ledgers, hands over only what holds (an older revision of a tile never follows a newer one), and
/// when the domain ended with too many failures it calls [`Reduce::complete`] with [`End::Aborted`].
pub trait Reduce {
    /// A slide is open; before its first row.
    fn opened(&mut self, slide: SlideId, info: &Arc<SlideInfo>, cx: &mut Cx);

    /// What now holds for a tile: a value, or `None` for Gone, Skip and Fail.
    fn row(&mut self, port: usize, key: Key, body: Option<Body>, cx: &mut Cx);

    /// News that passes through (it is forwarded by the operator).
    fn event(&mut self, _slide: SlideId, _event: &Event, _cx: &mut Cx) {}

    /// Live runs: time to publish what changed, for every open slide.
    fn tick(&mut self, cx: &mut Cx);

    /// How often [`Reduce::tick`] is called in a live run: `live-tick`, or top-k's `select-tick`.
    fn tick_every(&self, run: &RunSettings) -> Duration {
        run.live_tick
    }

    /// `port` is complete through `done.through`; `done.end` says whether the domain ended. Called again when it grows,
    /// and again when an ended domain was reopened and ended anew.
    fn complete(&mut self, port: usize, slide: SlideId, done: &Completed, cx: &mut Cx);

    /// Every slide of which something became complete was told of: a stage that works on several at once does so now.
    /// Before any of them is closed.
    fn settled(&mut self, _cx: &mut Cx) {}

    /// The slide's state may be dropped.
    fn closed(&mut self, slide: SlideId);
}

/// What a ledger says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completed {
    /// Generations 0..=through are sealed and full.
    pub through: u32,
    /// How the domain ended; `None` while more may come. [`End::Aborted`] also when more than `max-failed` of its tiles failed.
    pub end: Option<End>,
    /// Outcomes so far.
    pub tally: Tally,
}

/// What a reduce may do: send versions of its own domain and close generations.
///
/// Versions of a slide belong to the generation that is open on that output; [`Cx::seal`] closes it. The operator numbers
/// generations, counts versions and sends the seals.
pub struct Cx<'a> {
    pub(crate) emit: &'a mut dyn Emit,
}

/// The operator's side of [`Cx`]; public so that a stage can be tested without an operator.
pub trait Emit {
    /// Sends a version in the slide's open generation of `output`; returns the generation's number.
    fn version(&mut self, output: usize, slide: SlideId, tile: TileId, body: Body) -> u32;
    /// Seals the slide's open generation of `output` and opens the next one.
    fn seal(&mut self, output: usize, slide: SlideId, last: Option<End>);
    /// Sends news on every output.
    fn event(&mut self, slide: SlideId, event: Event);
    /// The slide.
    fn info(&self, slide: SlideId) -> Option<Arc<SlideInfo>>;
}

impl<'a> Cx<'a> {
    /// Over an operator's side.
    pub fn new(emit: &'a mut dyn Emit) -> Self {
        Cx { emit }
    }

    /// Sends a version (a value, or Gone) of `tile` on `output`; returns the number of the generation that it belongs to.
    pub fn version(&mut self, output: usize, slide: SlideId, tile: TileId, body: Body) -> u32 {
        self.emit.version(output, slide, tile, body)
    }

    /// Closes the slide's open generation on `output`; `last` says that the slide stands as of this generation.
    pub fn seal(&mut self, output: usize, slide: SlideId, last: Option<End>) {
        self.emit.seal(output, slide, last)
    }

    /// Sends news on every output.
    pub fn event(&mut self, slide: SlideId, event: Event) {
        self.emit.event(slide, event)
    }

    /// The slide.
    #[inline]
    pub fn info(&self, slide: SlideId) -> Option<Arc<SlideInfo>> {
        self.emit.info(slide)
    }
}

// ------------------------------------------------------------------------------------------------------------ sink

/// Closes a domain: writes it down. Errors of a sink fail the run (exit 1) after everything else is done.
pub trait Sink {
    /// A slide is open; before its first row.
    fn opened(&mut self, slide: SlideId, info: &Arc<SlideInfo>) -> Result<(), StageError>;

    /// What now holds for a tile of `port`: a value, or what it was instead (Skip, Fail, Gone). Older revisions never
    /// follow newer ones; a provisional row is replaced by a later one.
    fn row(&mut self, port: usize, key: Key, body: Body) -> Result<(), StageError>;

    /// News.
    fn event(&mut self, _slide: SlideId, _event: &Event) -> Result<(), StageError> {
        Ok(())
    }

    /// Every connected port of the slide ended: write its files whole. Called again when the slide was reopened and ended
    /// anew. `done` has one entry a port.
    fn ended(&mut self, slide: SlideId, done: &[Completed]) -> Result<(), StageError>;

    /// The slide's state may be dropped.
    fn closed(&mut self, slide: SlideId);

    /// The run is over (also after Ctrl-C): write tables that span slides.
    fn finish(&mut self) -> Result<(), StageError> {
        Ok(())
    }
}
