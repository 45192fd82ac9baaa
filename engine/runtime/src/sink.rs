//! The operators of sinks. Every sink has a part in the slide's home process, which closes the slide and reports; a sink
//! whose rows go to process 0 has its code there.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use weir_pipeline::OnError;
use weir_record::{Body, End, Event, Failure, Kind, Row, SlideId, SlideInfo};

use crate::failing::MayFail;
use crate::host::{Logic, Outputs};
use crate::house::House;
use crate::inbox::Inbox;
use crate::progress::add;
use crate::report::Report;
use crate::stage::{Completed, Sink, StageError};

pub(crate) struct SinkLogic {
    name: String,
    index: usize,
    /// `None` for the home part of a sink whose code is at process 0.
    stage: Option<Box<dyn Sink>>,
    /// Whether this part closes slides and reports; the part at process 0 does not.
    home: bool,
    house: House,
    report: Report,
    ports: Vec<(&'static str, usize)>,
    /// For each timely input: port and feeder.
    feeders: Vec<(usize, usize)>,
    /// By port; `None` where a reduce counts the same failures.
    may_fail: Vec<Option<MayFail>>,
    slides: HashMap<SlideId, Slide>,
    finished: bool,
}

struct Slide {
    info: Arc<SlideInfo>,
    inboxes: Vec<Inbox>,
    /// What `ended` was called with last, by port.
    told: Option<Vec<(u32, Option<End>)>>,
    failed: bool,
    /// This sink could not do something of it.
    broken: bool,
    touched: bool,
    since: Instant,
}

impl SinkLogic {
    pub(crate) fn new(
        house: House,
        index: usize,
        stage: Option<Box<dyn Sink>>,
        home: bool,
        report: Report,
    ) -> Self {
        let node = &house.plan.nodes[index];
        let feeders = crate::graph::feeders(node);
        let ports = node
            .schema
            .ins
            .iter()
            .enumerate()
            .map(|(port, schema)| {
                (
                    schema.name,
                    feeders.iter().filter(|(p, _)| *p == port).count(),
                )
            })
            .collect();
        let may_fail = (0..node.schema.ins.len())
            .map(|port| MayFail::at_sink(&house.plan, node, port))
            .collect();
        SinkLogic {
            name: node.name.clone(),
            index,
            stage,
            home,
            report,
            ports,
            feeders,
            may_fail,
            slides: HashMap::new(),
            finished: false,
            house,
        }
    }

    fn call(&mut self, what: impl FnOnce(&mut dyn Sink) -> Result<(), StageError>) {
        if let Some(stage) = self.stage.as_deref_mut()
            && let Err(error) = what(stage)
        {
            self.report.sink_failed(&self.name, &error);
        }
    }

    /// A call about a slide. What it cannot do fails the slide, once: others go on. The sink is told that it failed, gets no more rows of
    /// it, and at its end that it was aborted, lest it writes a part for the whole.
    fn call_for(
        &mut self,
        id: SlideId,
        out: &mut Outputs,
        what: impl FnOnce(&mut dyn Sink) -> Result<(), StageError>,
    ) {
        let (Some(stage), Some(slide)) = (self.stage.as_deref_mut(), self.slides.get_mut(&id))
        else {
            return;
        };
        let Err(error) = what(stage) else { return };
        if std::mem::replace(&mut slide.broken, true) {
            return;
        }
        slide.failed = true;
        let failure = Failure {
            stage: self.name.clone(),
            slide: slide.info.id.clone(),
            tile: None,
            what: error.what,
            help: error.help,
        };
        // It fails already.
        let _ = stage.event(id, &Event::SlideFailed(failure.clone()));
        if self.home {
            return out.event(id, Event::SlideFailed(failure));
        }
        let stops = self.house.plan.run.on_error == OnError::Stop;
        self.report.slide_failed(failure, stops);
        if stops {
            self.house.stop.request();
        }
    }

    fn fault(&self, slide: SlideId, port: usize, what: String) {
        let id = self
            .slides
            .get(&slide)
            .map_or("?", |slide| slide.info.id.as_str());
        self.house.abort.fatal(format!(
            "{}, input {}: slide {id}: {what}",
            self.name, self.ports[port].0
        ));
    }

    /// Fails the slide when too many of its tiles failed and no reduce says so. The part at process 0 has the same rows and comes
    /// to the same; the slide's home tells the run.
    fn judge(&mut self, id: SlideId, done: &mut [Completed], out: &mut Outputs) {
        let Some(slide) = self.slides.get_mut(&id) else {
            return;
        };
        for (may_fail, done) in self.may_fail.iter().zip(done) {
            if done.end == Some(End::Complete)
                && let Some(may_fail) = may_fail
                && let Some(failure) = may_fail.too_many(&self.name, &slide.info.id, &done.tally)
            {
                done.end = Some(End::Aborted);
                slide.failed = true;
                let event = Event::SlideFailed(failure);
                if self.home {
                    out.event(id, event.clone());
                }
                // As of a failure before it: aborted alone could be a stop. What it cannot do of that fails what has failed.
                if let Some(stage) = self.stage.as_deref_mut() {
                    slide.broken |= stage.event(id, &event).is_err();
                }
            }
        }
    }

    fn settle(&mut self, id: SlideId, out: &mut Outputs) {
        let connected: Vec<usize> = (0..self.ports.len())
            .filter(|port| self.ports[*port].1 > 0)
            .collect();
        let Some(slide) = self.slides.get_mut(&id) else {
            return;
        };
        slide.touched = false;
        let states: Option<Vec<(u32, Option<End>)>> = connected
            .iter()
            .map(|port| {
                let inbox = &slide.inboxes[*port];
                Some((inbox.through()?, Some(inbox.ended()?)))
            })
            .collect();
        let Some(states) = states else { return };
        if slide.told.as_ref() != Some(&states) {
            slide.told = Some(states.clone());
            // One entry a port; a port that is not connected is complete and empty.
            let nothing = || Completed {
                through: 0,
                end: Some(End::Complete),
                tally: Default::default(),
            };
            let mut done: Vec<Completed> = self.ports.iter().map(|_| nothing()).collect();
            for (port, (through, end)) in connected.iter().zip(&states) {
                done[*port] = Completed {
                    through: *through,
                    end: *end,
                    tally: slide.inboxes[*port].tally().clone(),
                };
            }
            self.judge(id, &mut done, out);
            if self.home {
                for port in &connected {
                    let event = Event::LedgerEnded {
                        stage: self.name.clone(),
                        port: self.ports[*port].0.to_owned(),
                        end: done[*port].end.unwrap_or(End::Complete),
                        tally: done[*port].tally.clone(),
                    };
                    out.event(id, event);
                }
            }
            if self.slides.get(&id).is_some_and(|slide| slide.broken) {
                done.iter_mut()
                    .for_each(|done| done.end = Some(End::Aborted));
            }
            self.call_for(id, out, |stage| stage.ended(id, &done));
        }
        let Some(slide) = self.slides.get(&id) else {
            return;
        };
        if !connected
            .iter()
            .all(|port| slide.inboxes[*port].is_closed())
        {
            return;
        }
        if let Some(stage) = self.stage.as_deref_mut() {
            stage.closed(id);
        }
        let Some(slide) = self.slides.remove(&id) else {
            return;
        };
        if !self.home {
            return;
        }
        let ms = slide.since.elapsed().as_millis() as u64;
        out.event(
            id,
            Event::Took {
                part: "total".into(),
                ms,
            },
        );
        if let Some(failed) = self.house.places.sink_done(id, slide.failed) {
            self.house.open.leave(id);
            add(&self.house.progress.slides_done, 1);
            if failed {
                add(&self.house.progress.slides_failed, 1);
            }
        }
    }
}

impl Logic for SinkLogic {
    fn leave(self: Box<Self>) -> Option<Box<dyn Logic>> {
        Some(self)
    }

    fn rows(&mut self, input: usize, rows: &mut Vec<Row>, out: &mut Outputs) {
        let (port, feeder) = self.feeders[input];
        for row in rows.drain(..) {
            let id = row.slide;
            match &row.body {
                Body::Opened(info) => {
                    if self.slides.contains_key(&id) {
                        continue;
                    }
                    let info = info.clone();
                    let inboxes = self
                        .ports
                        .iter()
                        .map(|(_, feeders)| Inbox::new(*feeders))
                        .collect();
                    let slide = Slide {
                        info: info.clone(),
                        inboxes,
                        told: None,
                        failed: false,
                        broken: false,
                        touched: false,
                        since: Instant::now(),
                    };
                    self.slides.insert(id, slide);
                    if self.home {
                        out.send_all(row);
                    }
                    self.call_for(id, out, |stage| stage.opened(id, &info));
                }
                Body::Event(event) if **event == Event::Closing => {
                    if let Some(slide) = self.slides.get_mut(&id) {
                        slide.inboxes[port].close(feeder);
                        slide.touched = true;
                    }
                }
                Body::Event(event) => {
                    let event = event.clone();
                    if let Some(slide) = self.slides.get_mut(&id) {
                        slide.failed |= matches!(*event, Event::SlideFailed(_));
                    }
                    if self.home {
                        out.send_all(row);
                    }
                    self.call_for(id, out, |stage| stage.event(id, &event));
                }
                Body::Seal(seal) => {
                    let (rev, seal) = (row.rev, *seal);
                    let Some(slide) = self.slides.get_mut(&id) else {
                        continue;
                    };
                    slide.touched = true;
                    if let Err(error) = slide.inboxes[port].seal(feeder, rev, seal) {
                        return self.fault(id, port, error.to_string());
                    }
                }
                body => {
                    let Some(kind) = Kind::of(body) else { continue };
                    let Some(slide) = self.slides.get_mut(&id) else {
                        return self.house.abort.fatal(format!(
                            "{}: a row came after its slide was closed",
                            self.name
                        ));
                    };
                    slide.touched = true;
                    if self.home {
                        add(&self.house.progress.stages[self.index].rows, 1);
                    }
                    match slide.inboxes[port].version(feeder, row.rev, row.tile, kind) {
                        Err(error) => return self.fault(id, port, error.to_string()),
                        Ok(false) => {}
                        Ok(true) => {
                            if self.home && matches!(row.body, Body::Prediction(_)) {
                                out.send_all(row.clone());
                            }
                            let key = weir_record::Key {
                                slide: id,
                                tile: row.tile,
                                rev: row.rev,
                            };
                            if slide.broken {
                                continue;
                            }
                            let body = row.body.without_lease();
                            self.call_for(id, out, |stage| stage.row(port, key, body));
                        }
                    }
                }
            }
        }
    }

    fn turn(&mut self, inputs_done: bool, out: &mut Outputs) -> bool {
        let touched: Vec<SlideId> = self
            .slides
            .iter()
            .filter(|(_, slide)| slide.touched)
            .map(|(id, _)| *id)
            .collect();
        for id in touched {
            self.settle(id, out);
        }
        if inputs_done && !self.finished && !self.house.abort.is_set() {
            self.finished = true;
            for (id, slide) in &self.slides {
                for (port, inbox) in slide
                    .inboxes
                    .iter()
                    .enumerate()
                    .filter(|(port, _)| self.ports[*port].1 > 0)
                {
                    self.fault(
                        *id,
                        port,
                        format!("the run is over, but {}", inbox.waits_for()),
                    );
                }
            }
            self.call(|stage| stage.finish());
        }
        inputs_done
    }
}
