//! What happens at an open slide of a plugin's source, step by step.

use crate::call::{Call, FAULT};
use crate::opened::Opened;
use crate::yields::Of;
use std::sync::Arc;
use std::time::Duration;
use weir_abi::desk::Said;
use weir_abi::stage::{STEP_CLOSE, STEP_FAIL, STEP_GONE, STEP_TILE};
use weir_abi::{stage, status};
use weir_record::{Body, End, Failure, Generations, TileId};
use weir_runtime::stage::{Script, Step};

/// How long a source that has nothing yet is left alone.
const IDLE: Duration = Duration::from_millis(10);

/// Asks the plugin for the slide's steps.
pub(crate) struct PluginScript {
    handle: Arc<Opened>,
    of: Of,
    name: Arc<str>,
    generations: Generations,
    /// Steps that come before the next one is asked for, the last first.
    queue: Vec<Step>,
    over: bool,
    failed: bool,
    /// Nothing was sent since the generation was closed.
    closed: bool,
}

impl PluginScript {
    pub fn new(handle: Arc<Opened>, of: Of, name: Arc<str>) -> PluginScript {
        PluginScript {
            handle,
            of,
            name,
            generations: Generations::default(),
            queue: Vec::new(),
            over: false,
            failed: false,
            closed: true,
        }
    }

    fn seal(&mut self, last: Option<End>) {
        let seals = self.generations.seal(last);
        let steps = seals.into_iter().rev();
        self.queue
            .extend(steps.map(|(rev, seal)| Step::Seal { rev, seal }));
        self.over |= last.is_some();
    }

    fn end(&mut self, end: End) -> Step {
        self.seal(Some(end));
        self.queue.pop().unwrap_or(Step::Done)
    }

    fn broken(&mut self, said: Said) -> Step {
        if std::mem::replace(&mut self.failed, true) {
            return self.end(End::Aborted);
        }
        self.seal(Some(End::Aborted));
        let info = self.handle.info.get();
        Step::Event(weir_record::Event::SlideFailed(Failure {
            stage: self.name.to_string(),
            slide: info.map_or_else(String::new, |info| info.id.clone()),
            tile: None,
            what: said.what,
            help: said.help,
        }))
    }

    fn fault(&mut self, what: String) -> Step {
        let said = Said {
            what: format!(
                "{} broke the contract [E0520]: {what}",
                self.handle.who.plugin
            ),
            help: FAULT.into(),
            ..Said::default()
        };
        self.broken(said)
    }
}

impl Script for PluginScript {
    fn next(&mut self) -> Step {
        if let Some(step) = self.queue.pop() {
            return step;
        }
        if self.over {
            return Step::Done;
        }
        if self.handle.panicked() {
            // In a read: what is left of the slide cannot be had.
            return self.broken(self.handle.panicked_before());
        }
        let call = Call::setup(&self.handle.who);
        let mut step = stage::Step {
            struct_size: size_of::<stage::Step>() as u32,
            ..stage::Step::default()
        };
        let _watched = self.handle.watched("next");
        let said = match self.handle.stage.next {
            // SAFETY: as the header says; `step` is a place for a step.
            Some(next) => call.inside(|call| unsafe { next(self.handle.handle, call, &mut step) }),
            None => status::UNSUPPORTED,
        };
        let said = self.handle.heard(said);
        let done = matches!(said, status::IDLE | status::END | status::OK);
        let why = match (done, step.kind) {
            (true, STEP_FAIL) => call.close(status::FAIL),
            (true, _) => match call.end(status::OK) {
                Ok(_) => Said::default(),
                Err(error) => return self.broken(*error.said),
            },
            (false, _) => return self.broken(call.close(said)),
        };
        match said {
            status::IDLE => return Step::Wait(IDLE),
            status::END => return self.end(End::Complete),
            _ => {}
        }
        if step.kind == STEP_CLOSE {
            // One that closes what is closed has nothing new to say: it is asked again as if it had said so.
            if !std::mem::replace(&mut self.closed, true) {
                self.seal(None);
            }
            return self.queue.pop().unwrap_or(Step::Wait(IDLE));
        }
        self.closed = false;
        let Some(tile) = TileId::new(0, 0, step.x, step.y) else {
            return self.fault(format!(
                "a tile at ({}, {}), where no slide reaches",
                step.x, step.y
            ));
        };
        match (step.kind, self.of) {
            (STEP_TILE, Of::Pixels { height, width, .. }) => {
                if (step.width, step.height) != (width, height) {
                    return self.fault(format!(
                        "a tile of {} x {} px, and its output says {width} x {height}",
                        step.width, step.height
                    ));
                }
                Step::Tile {
                    tile,
                    rev: self.generations.send(tile),
                    width,
                    height,
                }
            }
            (STEP_TILE, Of::Features { width }) => {
                if step.width != width {
                    return self.fault(format!(
                        "a vector of {} numbers, and its output says {width}",
                        step.width
                    ));
                }
                Step::Feature {
                    tile,
                    rev: self.generations.send(tile),
                    width,
                }
            }
            (STEP_GONE, _) => Step::Outcome {
                tile,
                rev: self.generations.send(tile),
                body: Body::Gone,
            },
            (STEP_FAIL, _) => {
                let info = self.handle.info.get();
                Step::Outcome {
                    tile,
                    rev: self.generations.send(tile),
                    body: Body::Fail(Arc::new(Failure {
                        stage: self.name.to_string(),
                        slide: info.map_or_else(String::new, |info| info.id.clone()),
                        tile: Some((step.x, step.y)),
                        what: why.what,
                        help: why.help,
                    })),
                }
            }
            (kind, _) => self.fault(format!("its step is of kind {kind}, which does not exist")),
        }
    }

    fn stop(&mut self) {
        if !self.over {
            self.seal(Some(End::Aborted));
        }
    }
}
