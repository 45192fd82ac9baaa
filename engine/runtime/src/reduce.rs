//! The operator of reduces: closes a domain with ledgers, opens its own with generations.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use weir_pipeline::Deliver;
use weir_record::ledger::check;
use weir_record::{
    Body, End, Event, Failure, Key, Kind, Row, Seal, Skip, SlideId, SlideInfo, Tally, TileId,
};

use crate::failing::MayFail;
use crate::host::{Alarm, Logic, Outputs, Wake};
use crate::house::{House, Infos};
use crate::inbox::Inbox;
use crate::progress::add;
use crate::stage::{Completed, Cx, Emit, Reduce};

pub(crate) struct ReduceLogic {
    name: String,
    index: usize,
    stage: Box<dyn Reduce>,
    house: House,
    wake: Wake,
    deliver: Deliver,
    ports: Vec<Port>,
    /// For each timely input: port and feeder.
    feeders: Vec<(usize, usize)>,
    /// By port.
    may_fail: Vec<MayFail>,
    slides: HashMap<SlideId, Slide>,
    numbering: Numbering,
    last_tick: Instant,
    alarm: Alarm,
}

struct Port {
    name: &'static str,
    feeders: usize,
}

struct Slide {
    inboxes: Vec<Inbox>,
    /// By port: generations that wait until they are whole.
    ahead: Vec<BTreeMap<u32, Vec<Staged>>>,
    /// By port: what the stage was told last.
    told: Vec<Option<(u32, Option<End>)>>,
    touched: bool,
}

struct Staged {
    key: Key,
    body: Option<Body>,
    superseded: bool,
}

/// Numbers what the stage sends.
#[derive(Default)]
struct Numbering {
    infos: Infos,
    open: HashMap<SlideId, Vec<Open>>,
}

#[derive(Clone, Copy, Default)]
struct Open {
    rev: u32,
    n: u64,
    sum: u64,
}

impl ReduceLogic {
    pub(crate) fn new(house: House, index: usize, stage: Box<dyn Reduce>, wake: Wake) -> Self {
        let node = &house.plan.nodes[index];
        let feeders = crate::graph::feeders(node);
        let ports = node
            .schema
            .ins
            .iter()
            .enumerate()
            .map(|(port, schema)| Port {
                name: schema.name,
                feeders: feeders.iter().filter(|(p, _)| *p == port).count(),
            })
            .collect();
        let may_fail = (0..node.schema.ins.len())
            .map(|port| MayFail::at(&house.plan, node, port))
            .collect();
        ReduceLogic {
            name: node.name.clone(),
            index,
            stage,
            wake,
            deliver: node.schema.deliver,
            ports,
            feeders,
            may_fail,
            slides: HashMap::new(),
            numbering: Numbering::default(),
            last_tick: Instant::now(),
            alarm: Alarm::default(),
            house,
        }
    }

    fn version(&mut self, port: usize, feeder: usize, row: Row, kind: Kind, out: &mut Outputs) {
        let Some(slide) = self.slides.get_mut(&row.slide) else {
            return self.house.abort.fatal(format!(
                "{}: a row came after its slide was closed",
                self.name
            ));
        };
        slide.touched = true;
        add(&self.house.progress.stages[self.index].rows, 1);
        let superseded = kind == Kind::Skip(Skip::Superseded);
        let key = Key {
            slide: row.slide,
            tile: row.tile,
            rev: row.rev,
        };
        let holds = match slide.inboxes[port].version(feeder, row.rev, row.tile, kind) {
            Ok(holds) => holds,
            Err(error) => return self.fault(row.slide, port, error.to_string()),
        };
        let body = row.body.is_value().then(|| row.body.without_lease());
        match self.deliver {
            Deliver::Arrival if holds => {
                let mut emit = Emitter {
                    out,
                    numbering: &mut self.numbering,
                };
                self.stage.row(port, key, body, &mut Cx::new(&mut emit));
            }
            Deliver::Arrival => {}
            Deliver::Generation => {
                slide.ahead[port].entry(row.rev).or_default().push(Staged {
                    key,
                    body,
                    superseded,
                });
            }
        }
    }

    fn fault(&self, slide: SlideId, port: usize, what: String) {
        let id = self
            .numbering
            .infos
            .get(&slide)
            .map_or("?", |info| info.id.as_str());
        self.house.abort.fatal(format!(
            "{}, input {}: slide {id}: {what}",
            self.name, self.ports[port].name
        ));
    }

    /// Tells the stage what became complete.
    fn settle(&mut self, id: SlideId, out: &mut Outputs) {
        let Some(slide) = self.slides.get_mut(&id) else {
            return;
        };
        slide.touched = false;
        for port in 0..self.ports.len() {
            if self.ports[port].feeders == 0 {
                continue;
            }
            let Some(slide) = self.slides.get_mut(&id) else {
                return;
            };
            let inbox = &slide.inboxes[port];
            let Some(through) = inbox.through() else {
                continue;
            };
            let mut end = inbox.ended();
            if slide.told[port] == Some((through, end)) {
                continue;
            }
            let tally = inbox.tally().clone();
            slide.told[port] = Some((through, end));
            let mut withheld = false;
            if self.deliver == Deliver::Generation {
                let later = slide.ahead[port].split_off(&(through + 1));
                let whole = std::mem::replace(&mut slide.ahead[port], later);
                for (rev, staged) in whole {
                    withheld = rev == through && staged.iter().any(|row| row.superseded);
                    let mut emit = Emitter {
                        out,
                        numbering: &mut self.numbering,
                    };
                    for row in one_a_tile(staged) {
                        self.stage
                            .row(port, row.key, row.body, &mut Cx::new(&mut emit));
                    }
                }
            }
            // A generation of which a tile was superseded is covered by the next one; the last has none.
            if withheld && end.is_none() {
                continue;
            }
            if end == Some(End::Complete)
                && let Some(failure) = self.too_many(id, port, &tally)
            {
                end = Some(End::Aborted);
                let event = Event::SlideFailed(failure);
                out.event(id, event.clone());
                // The stage hears of it as of a failure before it: aborted alone could be a stop.
                let mut emit = Emitter {
                    out,
                    numbering: &mut self.numbering,
                };
                self.stage.event(id, &event, &mut Cx::new(&mut emit));
            }
            // Also when the domain was reopened and ended anew within one turn: the tally is another.
            if let Some(end) = end {
                out.event(
                    id,
                    Event::LedgerEnded {
                        stage: self.name.clone(),
                        port: self.ports[port].name.to_owned(),
                        end,
                        tally: tally.clone(),
                    },
                );
            }
            let done = Completed {
                through,
                end,
                tally,
            };
            let mut emit = Emitter {
                out,
                numbering: &mut self.numbering,
            };
            self.stage
                .complete(port, id, &done, &mut Cx::new(&mut emit));
        }
    }

    /// Closes the slide when nothing more can come.
    fn close(&mut self, id: SlideId, out: &mut Outputs) {
        let closed = self.slides.get(&id).is_some_and(|slide| {
            slide
                .inboxes
                .iter()
                .zip(&self.ports)
                .all(|(inbox, port)| port.feeders == 0 || inbox.is_closed())
        });
        if closed {
            out.event(id, Event::Closing);
            self.stage.closed(id);
            self.slides.remove(&id);
            self.numbering.infos.remove(&id);
            self.numbering.open.remove(&id);
        }
    }

    fn too_many(&self, id: SlideId, port: usize, tally: &Tally) -> Option<Failure> {
        let info = self.numbering.infos.get(&id);
        let slide = info.map_or("", |info| info.id.as_str());
        self.may_fail[port].too_many(&self.name, slide, tally)
    }
}

/// Of several outcomes of one version, the value.
fn one_a_tile(mut staged: Vec<Staged>) -> Vec<Staged> {
    staged.sort_by_key(|row| (row.key.tile, row.body.is_none()));
    staged.dedup_by_key(|row| row.key.tile);
    staged
}

impl Logic for ReduceLogic {
    fn leave(self: Box<Self>) -> Option<Box<dyn Logic>> {
        Some(self)
    }

    fn rows(&mut self, input: usize, rows: &mut Vec<Row>, out: &mut Outputs) {
        let (port, feeder) = self.feeders[input];
        for row in rows.drain(..) {
            let id = row.slide;
            match &row.body {
                Body::Opened(info) => {
                    let info = info.clone();
                    if self.slides.contains_key(&id) {
                        continue;
                    }
                    out.send_all(row);
                    let count = self.ports.len();
                    let inboxes = self
                        .ports
                        .iter()
                        .map(|port| Inbox::new(port.feeders))
                        .collect();
                    let ahead = (0..count).map(|_| BTreeMap::new()).collect();
                    self.slides.insert(
                        id,
                        Slide {
                            inboxes,
                            ahead,
                            told: vec![None; count],
                            touched: false,
                        },
                    );
                    self.numbering.infos.insert(id, info.clone());
                    let mut emit = Emitter {
                        out,
                        numbering: &mut self.numbering,
                    };
                    self.stage.opened(id, &info, &mut Cx::new(&mut emit));
                }
                Body::Event(event) if **event == Event::Closing => {
                    if let Some(slide) = self.slides.get_mut(&id) {
                        slide.inboxes[port].close(feeder);
                        slide.touched = true;
                    }
                }
                Body::Event(event) => {
                    let event = event.clone();
                    out.send_all(row);
                    let mut emit = Emitter {
                        out,
                        numbering: &mut self.numbering,
                    };
                    self.stage.event(id, &event, &mut Cx::new(&mut emit));
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
                    if let Some(kind) = Kind::of(body) {
                        self.version(port, feeder, row, kind, out);
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
        for id in &touched {
            self.settle(*id, out);
        }
        if !touched.is_empty() {
            let mut emit = Emitter {
                out,
                numbering: &mut self.numbering,
            };
            self.stage.settled(&mut Cx::new(&mut emit));
        }
        for id in touched {
            self.close(id, out);
        }
        if self.house.plan.run.live && !inputs_done {
            let every = self.stage.tick_every(&self.house.plan.run);
            if self.last_tick.elapsed() >= every {
                self.last_tick = Instant::now();
                let mut emit = Emitter {
                    out,
                    numbering: &mut self.numbering,
                };
                self.stage.tick(&mut Cx::new(&mut emit));
            }
            self.alarm.set(&self.wake, self.last_tick + every);
        }
        if inputs_done && !self.house.abort.is_set() {
            for (id, slide) in &self.slides {
                for (port, inbox) in slide
                    .inboxes
                    .iter()
                    .enumerate()
                    .filter(|(port, _)| self.ports[*port].feeders > 0)
                {
                    self.fault(
                        *id,
                        port,
                        format!("the run is over, but {}", inbox.waits_for()),
                    );
                }
            }
        }
        inputs_done
    }
}

/// The stage's hand on the outputs.
struct Emitter<'a> {
    out: &'a mut Outputs,
    numbering: &'a mut Numbering,
}

impl Emitter<'_> {
    fn open(&mut self, output: usize, slide: SlideId) -> &mut Open {
        let open = self.numbering.open.entry(slide).or_default();
        if open.len() <= output {
            open.resize(output + 1, Open::default());
        }
        &mut open[output]
    }
}

impl Emit for Emitter<'_> {
    fn version(&mut self, output: usize, slide: SlideId, tile: TileId, body: Body) -> u32 {
        let open = self.open(output, slide);
        let rev = open.rev;
        open.n += 1;
        open.sum = open.sum.wrapping_add(check(tile, rev));
        self.out.send(
            output,
            Row {
                slide,
                tile,
                rev,
                body,
            },
        );
        rev
    }

    fn seal(&mut self, output: usize, slide: SlideId, last: Option<End>) {
        let open = self.open(output, slide);
        let (rev, seal) = (
            open.rev,
            Seal {
                n: open.n,
                check: open.sum,
                last,
            },
        );
        *open = Open {
            rev: rev + 1,
            n: 0,
            sum: 0,
        };
        self.out.send(
            output,
            Row {
                slide,
                tile: TileId::SLIDE,
                rev,
                body: Body::Seal(seal),
            },
        );
    }

    fn event(&mut self, slide: SlideId, event: Event) {
        self.out.event(slide, event);
    }

    fn info(&self, slide: SlideId) -> Option<Arc<SlideInfo>> {
        self.numbering.infos.get(&slide).cloned()
    }
}
