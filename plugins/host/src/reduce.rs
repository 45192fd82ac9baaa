//! A plugin's reduce as the runtime's [`Reduce`].
//!
//! Values are handed to the plugin slide by slide, in batches; what no longer holds by `remove`. When every input of a slide is
//! complete the plugin is asked for its rows, all of them: those that it sent before and does not send again are withdrawn.

use crate::about::About;
use crate::batch::slide;
use crate::batch::task::{OfSlide, OpenSlides, Slides, Task};
use crate::columns::Output;
use crate::held::{Held, Taken};
use crate::pool::{Holder, Pool};
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use weir_abi::stage::{ABORTED, COMPLETE, INCOMPLETE, PROVISIONAL};
use weir_abi::status;
use weir_pipeline::Kind;
use weir_record::{
    Body, Coverage, End, Event, Failure, Key, SlideId, SlideInfo, State, Tally, TileId,
};
use weir_runtime::stage::{Completed, Cx, Reduce, StageError};

/// Slides that are open at a reduce, by the number under which the plugin knows them.
#[derive(Default)]
pub(crate) struct Known {
    slides: HashMap<u64, Slide>,
    /// The slide that the call speaks of.
    speaks_of: Option<u64>,
}

/// A slide that is open.
struct Slide {
    id: SlideId,
    info: Arc<SlideInfo>,
    /// By input: what holds.
    held: Vec<Held>,
    done: Vec<Option<Completed>>,
    /// By output: tiles that the next stages know.
    sent: Vec<BTreeSet<TileId>>,
    source: Option<Tally>,
    revision: u32,
    failed: bool,
    holder: Arc<Holder>,
}

impl OpenSlides for Known {
    fn info(&self, number: u64) -> Option<Arc<SlideInfo>> {
        let slide = self.slides.get(&number)?;
        (self.speaks_of == Some(number)).then(|| slide.info.clone())
    }

    fn about(&self, number: u64, tile: u64, output: &Output) -> Result<About, String> {
        let slide = self
            .slides
            .get(&number)
            .ok_or_else(|| format!("slide {number} is not open"))?;
        let tile = TileId::from_word(tile);
        let of_slide = matches!(output.kind, Kind::Bag | Kind::Predictions);
        if of_slide != (tile == TileId::SLIDE) && output.kind != Kind::Table {
            return Err(format!(
                "output `{}` carries {}, whose rows are {}",
                output.name,
                output.kind.name(),
                if of_slide {
                    "the slide's: their tile is WEIR_TILE_SLIDE"
                } else {
                    "tiles'"
                }
            ));
        }
        let held = slide.held.iter().find_map(|held| held.rev(tile));
        if tile != TileId::SLIDE && held.is_none() {
            return Err(format!(
                "it made a row of a tile that it was not given, {tile:?}"
            ));
        }
        let done = slide.done.iter().flatten().next();
        let through = done.map_or(0, |done| done.through);
        let end = slide.end();
        let mut selected = done.map(|done| done.tally.clone()).unwrap_or_default();
        // A tile that left the selection is no part of it: only a live run knows that there was one.
        selected.gone = 0;
        Ok(About {
            source_rev: held.unwrap_or(0),
            revision: slide.revision,
            coverage: Coverage {
                source: slide.source.clone().unwrap_or_else(|| selected.clone()),
                selected,
            },
            through,
            end,
            state: Some(match end {
                None => State::Provisional,
                Some(End::Complete) => State::Final,
                Some(End::Incomplete) => State::Incomplete,
                Some(End::Aborted) if slide.failed => State::Failed,
                Some(End::Aborted) => State::Interrupted,
            }),
            bag: None,
        })
    }
}

impl Slide {
    /// How the slide's domains ended, together; `None` while more may come.
    fn end(&self) -> Option<End> {
        let mut ends = self.done.iter().flatten().map(|done| done.end);
        ends.try_fold(End::Complete, |all, end| Some(all.max(end?)))
    }
}

/// A reduce, of one worker.
pub(crate) struct PluginReduce {
    pub name: Arc<str>,
    pub outputs: Arc<[Output]>,
    /// Inputs, and whether something feeds them.
    pub inputs: Vec<(bool, Taken)>,
    /// The stage that selects what comes: its tally is the source's.
    pub selects: Option<String>,
    pub known: Arc<Mutex<Known>>,
    /// Slides that are complete so far and wait for the tick.
    pub due: BTreeSet<u64>,
    /// The last to go: with it go the instances that slides held.
    pub pool: Arc<Pool>,
}

impl PluginReduce {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands over what waits; the slide fails when that does.
    fn hand_over(&self, number: u64, cx: &mut Cx) {
        for port in 0..self.inputs.len() {
            let (waiting, holder) = match self.known().slides.get_mut(&number) {
                Some(slide) if !slide.failed => (slide.held[port].take(), slide.holder.clone()),
                _ => return,
            };
            if let Err(error) = waiting.give(&self.pool, &holder, port as u32) {
                return self.fail(number, error, cx);
            }
        }
    }

    fn fail(&self, number: u64, error: StageError, cx: &mut Cx) {
        let mut known = self.known();
        let Some(slide) = known.slides.get_mut(&number) else {
            return;
        };
        if std::mem::replace(&mut slide.failed, true) {
            return;
        }
        let failure = Failure {
            stage: self.name.to_string(),
            slide: slide.info.id.clone(),
            tile: None,
            what: error.what,
            help: error.help,
        };
        cx.event(slide.id, Event::SlideFailed(failure));
    }

    /// Asks for the slide's rows and sends them.
    fn publish(&mut self, number: u64, cx: &mut Cx) {
        self.due.remove(&number);
        self.hand_over(number, cx);
        let told = {
            let mut known = self.known();
            let Some(slide) = known.slides.get_mut(&number) else {
                return;
            };
            let all = slide.done.iter().zip(&self.inputs);
            if !all
                .into_iter()
                .all(|(done, (fed, _))| done.is_some() || !fed)
            {
                return;
            }
            if slide.failed && slide.end().is_none() {
                // More of the slide may come: its domain ends when that does.
                return;
            }
            let asked = (!slide.failed).then(|| {
                let through = slide.done.iter().flatten().map(|done| done.through).max();
                let holder = slide.holder.clone();
                (
                    slide.info.clone(),
                    holder,
                    slide.end(),
                    through.unwrap_or(0),
                )
            });
            known.speaks_of = Some(number);
            asked
        };
        let told =
            told.map(|(info, holder, end, through)| self.ask(number, &info, &holder, through, end));
        self.known().speaks_of = None;
        let told = match told {
            Some(Ok(told)) => told,
            None => Vec::new(),
            Some(Err(error)) => {
                self.fail(number, error, cx);
                Vec::new()
            }
        };
        let mut known = self.known();
        let Some(slide) = known.slides.get_mut(&number) else {
            return;
        };
        let end = match (slide.end(), slide.failed) {
            (Some(_), true) => Some(End::Aborted),
            (None, true) => return,
            (end, false) => end,
        };
        slide.revision += 1;
        let mut sent: Vec<BTreeSet<TileId>> = vec![BTreeSet::new(); self.outputs.len()];
        for OfSlide { port, tile, body } in told {
            let tile = TileId::from_word(tile);
            if sent[port].insert(tile) {
                cx.version(port, slide.id, tile, body);
            }
        }
        for (port, sent) in sent.into_iter().enumerate() {
            for &gone in slide.sent[port].difference(&sent) {
                cx.version(port, slide.id, gone, Body::Gone);
            }
            slide.sent[port] = sent;
            cx.seal(port, slide.id, end);
        }
    }

    fn ask(
        &self,
        number: u64,
        info: &Arc<SlideInfo>,
        holder: &Holder,
        through: u32,
        end: Option<End>,
    ) -> Result<Vec<OfSlide>, StageError> {
        let task = Task::Slides(Box::new(Slides {
            outputs: self.outputs.clone(),
            slides: self.known.clone(),
            made: Vec::new(),
            rows: BTreeSet::new(),
        }));
        let about = slide(info, number);
        let done = self.pool.call_for(holder, task, |stage, me, call| {
            let _watched = self.pool.watch("complete_slide", Some(&info.id));
            match stage.complete_slide {
                // SAFETY: as the header says: the slide and its strings live through the call.
                Some(complete) => unsafe { complete(me, call, &about, through, code(end)) },
                None => status::UNSUPPORTED,
            }
        })?;
        Ok(match done {
            Task::Slides(slides) => slides.made,
            _ => Vec::new(),
        })
    }
}

/// The header's number of an end.
pub(crate) fn code(end: Option<End>) -> u32 {
    match end {
        None => PROVISIONAL,
        Some(End::Complete) => COMPLETE,
        Some(End::Incomplete) => INCOMPLETE,
        Some(End::Aborted) => ABORTED,
    }
}

impl Reduce for PluginReduce {
    fn opened(&mut self, slide: SlideId, info: &Arc<SlideInfo>, _: &mut Cx) {
        let ports = self.inputs.len();
        let own = Slide {
            id: slide,
            info: info.clone(),
            held: self
                .inputs
                .iter()
                .map(|(_, taken)| Held::new(*taken))
                .collect(),
            done: vec![None; ports],
            sent: vec![BTreeSet::new(); self.outputs.len()],
            source: None,
            revision: 0,
            failed: false,
            holder: Arc::default(),
        };
        self.known().slides.insert(slide.number(), own);
    }

    fn row(&mut self, port: usize, key: Key, body: Option<Body>, cx: &mut Cx) {
        let number = key.slide.number();
        self.due.remove(&number);
        let full = {
            let mut known = self.known();
            let Some(slide) = known.slides.get_mut(&number).filter(|slide| !slide.failed) else {
                return;
            };
            let (info, holder) = (slide.info.clone(), slide.holder.clone());
            match slide.held[port].put(key, body, &info) {
                Some(before) => {
                    drop(known);
                    if let Err(error) = before.give(&self.pool, &holder, port as u32) {
                        self.fail(number, error, cx);
                    }
                    return;
                }
                None => slide.held[port].is_full(),
            }
        };
        if full {
            self.hand_over(number, cx);
        }
    }

    fn event(&mut self, slide: SlideId, event: &Event, _: &mut Cx) {
        let mut known = self.known();
        let Some(own) = known.slides.get_mut(&slide.number()) else {
            return;
        };
        match event {
            Event::SlideFailed(_) => own.failed = true,
            Event::LedgerEnded { stage, tally, .. } if Some(stage) == self.selects.as_ref() => {
                own.source = Some(tally.clone());
            }
            _ => {}
        }
    }

    fn tick(&mut self, cx: &mut Cx) {
        for number in std::mem::take(&mut self.due) {
            self.publish(number, cx);
        }
    }

    fn complete(&mut self, port: usize, slide: SlideId, done: &Completed, cx: &mut Cx) {
        let number = slide.number();
        let ended = {
            let mut known = self.known();
            let Some(own) = known.slides.get_mut(&number) else {
                return;
            };
            own.done[port] = Some(done.clone());
            own.end().is_some()
        };
        if ended {
            self.publish(number, cx);
        } else {
            self.due.insert(number);
        }
    }

    fn closed(&mut self, slide: SlideId) {
        let number = slide.number();
        self.due.remove(&number);
        let own = self.known().slides.remove(&number);
        let Some(own) = own else {
            return;
        };
        self.pool.close(&own.holder, |stage, me| {
            if let Some(close) = stage.close_slide {
                let _watched = self.pool.watch("close_slide", Some(&own.info.id));
                // SAFETY: as the header says.
                unsafe { close(me, number) }
            }
        });
    }
}
