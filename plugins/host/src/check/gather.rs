//! A stage that gathers a slide's rows, called as its operator calls it.

use super::rows::Value;
use super::stand::{Made, Stand};
use super::trials::No;
use std::collections::HashMap;
use std::sync::Arc;
use weir_record::{Body, End, Event, Key, SlideId, SlideInfo, Tally, TileId};
use weir_runtime::stage::{Completed, Cx, Emit, Prepared, Reduce, Sink};

/// What it answered.
#[derive(Default)]
pub(super) struct Told {
    /// Output, slide, tile and what holds of it.
    pub versions: Vec<(usize, SlideId, TileId, Body)>,
    /// Why slides failed.
    pub failures: Vec<String>,
    infos: HashMap<SlideId, Arc<SlideInfo>>,
}

impl Emit for Told {
    fn version(&mut self, output: usize, slide: SlideId, tile: TileId, body: Body) -> u32 {
        self.versions.push((output, slide, tile, body));
        0
    }

    fn seal(&mut self, _: usize, _: SlideId, _: Option<End>) {}

    fn event(&mut self, _: SlideId, event: Event) {
        if let Event::SlideFailed(failure) = event {
            self.failures.push(failure.what);
        }
    }

    fn info(&self, slide: SlideId) -> Option<Arc<SlideInfo>> {
        self.infos.get(&slide).cloned()
    }
}

impl Told {
    /// What holds now, by output and tile of a slide.
    pub fn holds(&self, of: SlideId) -> HashMap<(usize, TileId), Body> {
        let mut all = HashMap::new();
        for (output, slide, tile, body) in &self.versions {
            if *slide == of {
                match body {
                    Body::Gone => drop(all.remove(&(*output, *tile))),
                    body => drop(all.insert((*output, *tile), body.clone())),
                }
            }
        }
        all
    }

    /// Fails when a slide did.
    pub fn well(&self) -> Result<(), No> {
        match self.failures.first() {
            None => Ok(()),
            Some(what) => Err(No::Failed(what.clone())),
        }
    }
}

enum Of {
    Reduce(Box<dyn Reduce>),
    Sink(Box<dyn Sink>),
}

/// A reduce or a sink of one worker.
pub(super) struct Gatherer {
    of: Of,
    ports: usize,
    pub told: Told,
}

impl Gatherer {
    pub fn new(stand: &Stand, made: &Made) -> Result<Gatherer, No> {
        let of = match &made.prepared {
            Prepared::Reduce(make) => Of::Reduce(make()),
            Prepared::Sink(make) => Of::Sink(make()),
            _ => {
                return Err(No::Skipped("it gathers no slide's rows".into()));
            }
        };
        Ok(Gatherer {
            of,
            ports: stand.about.ins.len(),
            told: Told::default(),
        })
    }

    fn note(&mut self, said: Result<(), weir_runtime::stage::StageError>) {
        if let Err(error) = said {
            self.told.failures.push(error.what);
        }
    }

    pub fn open(&mut self, slide: SlideId, info: &Arc<SlideInfo>) {
        if self.told.infos.insert(slide, info.clone()).is_some() {
            return;
        }
        match &mut self.of {
            Of::Reduce(reduce) => reduce.opened(slide, info, &mut Cx::new(&mut self.told)),
            Of::Sink(sink) => {
                let said = sink.opened(slide, info);
                self.note(said);
            }
        }
    }

    /// What now holds of a tile; `None`: nothing any more.
    pub fn row(&mut self, port: usize, key: Key, body: Option<Body>) {
        match &mut self.of {
            Of::Reduce(reduce) => reduce.row(port, key, body, &mut Cx::new(&mut self.told)),
            Of::Sink(sink) => {
                let said = sink.row(port, key, body.unwrap_or(Body::Gone));
                self.note(said);
            }
        }
    }

    /// Everything came through generation `through`. Sinks are told of the end alone.
    pub fn complete(&mut self, slide: SlideId, through: u32, end: Option<End>) {
        let done = Completed {
            through,
            end,
            tally: Tally::default(),
        };
        let ports = self.ports;
        match &mut self.of {
            Of::Reduce(reduce) => {
                let mut cx = Cx::new(&mut self.told);
                (0..ports).for_each(|port| reduce.complete(port, slide, &done, &mut cx));
                reduce.tick(&mut cx);
            }
            Of::Sink(_) if end.is_none() => {}
            Of::Sink(sink) => {
                let said = sink.ended(slide, &vec![done; ports]);
                self.note(said);
            }
        }
    }

    pub fn close(&mut self, slide: SlideId) {
        self.told.infos.remove(&slide);
        match &mut self.of {
            Of::Reduce(reduce) => reduce.closed(slide),
            Of::Sink(sink) => sink.closed(slide),
        }
    }

    /// The run is over.
    pub fn finish(&mut self) {
        if let Of::Sink(sink) = &mut self.of {
            let said = sink.finish();
            self.note(said);
        }
    }

    /// Slides from their first row to their end, with these rows on each input.
    pub fn slides(&mut self, rows: &[Vec<Value>]) {
        let mut slides = Vec::new();
        for (port, rows) in rows.iter().enumerate() {
            for (key, body, info) in rows {
                if !slides.contains(&key.slide) {
                    slides.push(key.slide);
                }
                self.open(key.slide, info);
                self.row(port, *key, Some(body.clone()));
            }
        }
        for &slide in &slides {
            self.complete(slide, 0, Some(End::Complete));
        }
        for slide in slides {
            self.close(slide);
        }
    }
}
