//! Rows that a plugin makes: memory of the host's, the plugin's to write until it emits it.

use super::{HostBatch, Of, place, slide};
use crate::about::About;
use crate::batch::task::{OfSlide, OpenSlides, Rows, Slides, TWO_ROWS};
use crate::columns::{self, Draft, Output, Part};
use crate::outcomes::Outcomes;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use weir_abi::desk::Said;
use weir_abi::row::{Key, Row};
use weir_pipeline::Kind;
use weir_record::{Body, Lease, Slab, SlideInfo, TileBuf, TileId};

/// Rows that a plugin makes.
pub(super) struct Made<P> {
    output: Output,
    port: usize,
    places: Vec<P>,
    abouts: Vec<About>,
    draft: Mutex<Writing>,
}

struct Writing {
    draft: Draft,
    emitted: bool,
    /// What was emitted, which a plugin that retained the batch may still read.
    _kept: Vec<Body>,
}

impl Writing {
    fn of(draft: Draft) -> Mutex<Writing> {
        Mutex::new(Writing {
            draft,
            emitted: false,
            _kept: Vec::new(),
        })
    }
}

impl HostBatch {
    /// Fresh rows, each made of a row of the input.
    pub fn for_rows(
        output: &Output,
        port: usize,
        of: &mut Rows,
        source: &[u32],
        slab: Option<&Slab>,
    ) -> Result<HostBatch, String> {
        let Rows {
            input,
            outputs,
            leases,
            made,
            ..
        } = of;
        input.check(source)?;
        made.note(port, input.rows(), source)?;
        let (draft, parts) = match output.kind {
            Kind::Pixels => {
                let last = is_last_of_pixels(outputs, port);
                let tiles = source
                    .iter()
                    .map(|&row| tile(output, lease(leases, row, output, last), slab).map(Arc::new))
                    .collect::<Result<_, _>>()?;
                Draft::pixels(tiles)
            }
            _ => Draft::new(output, source.len())?,
        };
        Ok(input.made(output, port, source, draft, parts))
    }

    /// The input's rows as an output's, to be changed.
    pub fn edited(
        output: &Output,
        port: usize,
        of: &mut Rows,
        slab: Option<&Slab>,
    ) -> Result<HostBatch, String> {
        let Rows {
            input,
            outputs,
            leases,
            made,
            ..
        } = of;
        if output.kind != Kind::Pixels {
            return Err(format!(
                "output `{}` carries {}, and only pixels are edited in place",
                output.name,
                output.kind.name()
            ));
        }
        // The row itself stays as it was, whoever holds it: a batch that fails is tried again row by row.
        let source: Vec<u32> = (0..input.rows()).collect();
        made.note(port, input.rows(), &source)?;
        let last = is_last_of_pixels(outputs, port);
        let mut tiles = Vec::with_capacity(source.len());
        for &row in &source {
            let from = match input.body(row) {
                Some(body @ Body::Pixels(from)) if columns::fits(output, body) => from,
                _ => {
                    return Err(format!(
                        "output `{}` has another type than the input",
                        output.name
                    ));
                }
            };
            let mut tile = tile(output, lease(leases, row, output, last), slab)?;
            tile.pixels_mut().copy_from_slice(from.pixels());
            tiles.push(Arc::new(tile));
        }
        let (draft, parts) = Draft::pixels(tiles);
        Ok(input.made(output, port, &source, draft, parts))
    }

    /// Rows of a reduce: of a slide's tiles, or of the slide.
    pub fn for_tiles(
        output: &Output,
        port: usize,
        slide: u64,
        tiles: &[u64],
        slides: &Mutex<dyn OpenSlides>,
    ) -> Result<HostBatch, String> {
        let mut seen = BTreeSet::new();
        if !tiles.iter().all(|tile| seen.insert(tile)) {
            return Err(TWO_ROWS.into());
        }
        let known = slides.lock().unwrap_or_else(PoisonError::into_inner);
        let info = known
            .info(slide)
            .ok_or_else(|| format!("it made rows of slide {slide}, which is not open"))?;
        let abouts = tiles
            .iter()
            .map(|&tile| known.about(slide, tile, output))
            .collect::<Result<Vec<_>, _>>()?;
        drop(known);
        let (draft, parts) = Draft::new(output, tiles.len())?;
        let rows = tiles.iter().map(|&tile| Row {
            key: Key {
                slide,
                tile,
                rev: 0,
                source: 0,
            },
            ..place(TileId::from_word(tile), &info, 0)
        });
        let rows = rows.collect();
        let of = Of::Tiles(Made {
            output: output.clone(),
            port,
            places: tiles.to_vec(),
            abouts,
            draft: Writing::of(draft),
        });
        Ok(HostBatch::output(rows, vec![info], &[slide], parts, of))
    }

    fn made(
        &self,
        output: &Output,
        port: usize,
        source: &[u32],
        draft: Draft,
        parts: Vec<Part>,
    ) -> HostBatch {
        let rows = source
            .iter()
            .map(|&row| self.shown()[row as usize])
            .collect();
        let numbers: Vec<u64> = self.slides.iter().map(|slide| slide.number).collect();
        let of = Of::Rows(Made {
            output: output.clone(),
            port,
            places: source.to_vec(),
            abouts: source.iter().map(|&row| self.about(row)).collect(),
            draft: Writing::of(draft),
        });
        HostBatch::output(rows, self.infos.clone(), &numbers, parts, of)
    }

    fn output(
        rows: Vec<Row>,
        infos: Vec<Arc<SlideInfo>>,
        numbers: &[u64],
        parts: Vec<Part>,
        of: Of,
    ) -> HostBatch {
        let mut batch = HostBatch::empty(of);
        let slides = infos.iter().zip(numbers);
        batch.slides = slides.map(|(info, &number)| slide(info, number)).collect();
        (batch.rows, batch.infos, batch.parts) = (rows, infos, parts.into());
        batch.point();
        batch
    }

    /// What a row that is made of this one inherits.
    fn about(&self, row: u32) -> About {
        let key = self.shown()[row as usize].key;
        let mut about = About {
            source_rev: key.source,
            revision: key.rev,
            ..About::default()
        };
        if let Some(Body::Bag(bag)) = self.body(row) {
            about.bag = Some((**bag).clone());
        }
        about
    }

    /// Takes the tiles of a batch that a plugin keeps beyond its call out of the account of the stage: nobody can wait for their memory.
    pub fn set_apart(&self) {
        let Of::Rows(made) = &self.of else { return };
        let writing = made.draft.lock().unwrap_or_else(PoisonError::into_inner);
        if let Draft::Pixels(tiles) = &writing.draft {
            let leases = tiles.iter().filter_map(|tile| tile.lease());
            leases.for_each(Lease::set_apart);
        }
    }

    /// The batch is emitted on `port`: its rows become what was written.
    pub fn emit_rows(&self, port: usize, outcomes: &mut Outcomes) -> Result<(), String> {
        let Of::Rows(made) = &self.of else {
            return Err("it emitted its input: pass() hands rows on as they are".into());
        };
        made.emit(port, |row, body| match body {
            Ok(body) => outcomes.made(row, port, body),
            Err(what) => {
                let said = Said {
                    what: format!("output `{}`: {what}", made.output.name),
                    ..Said::default()
                };
                outcomes.failed(row, said)
            }
        })
    }

    /// The same for rows of a slide.
    pub fn emit_tiles(&self, port: usize, slides: &mut Slides) -> Result<(), String> {
        let Of::Tiles(made) = &self.of else {
            return Err("it emitted its input, or a batch that was made of one".into());
        };
        made.emit(port, |tile, body| {
            let body = body.map_err(|what| format!("output `{}`: {what}", made.output.name))?;
            slides.made(OfSlide { port, tile, body })
        })
    }
}

impl<P: Copy> Made<P> {
    /// Hands what was written to `take`, row by row.
    fn emit(
        &self,
        port: usize,
        mut take: impl FnMut(P, Result<Body, String>) -> Result<(), String>,
    ) -> Result<(), String> {
        if self.port != port {
            return Err(format!(
                "it made a batch for output {} and emitted it on {port}",
                self.port
            ));
        }
        let mut writing = self.draft.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut writing.emitted, true) {
            return Err("it emitted a batch twice".into());
        }
        let bodies = writing.draft.bodies(&self.output, &self.abouts);
        for (body, &place) in bodies.into_iter().zip(&self.places) {
            if let Ok(body) = &body {
                writing._kept.push(body.clone());
            }
            take(place, body)?;
        }
        Ok(())
    }
}

/// Whether no later output carries pixels.
fn is_last_of_pixels(outputs: &[Output], port: usize) -> bool {
    let mut later = outputs.iter().skip(port + 1);
    !later.any(|output| output.kind == Kind::Pixels)
}

/// What is left of the lease on all tiles that are made of a row, or as much of it as this one takes. A row that is tried again goes
/// without.
fn lease(leases: &mut [Option<Lease>], row: u32, output: &Output, last: bool) -> Option<Lease> {
    let lease = leases.get_mut(row as usize)?;
    if last {
        return lease.take();
    }
    let side = |at: usize| output.shape.get(at).copied().unwrap_or(0) as u32;
    let bytes = TileBuf::bytes(side(1), side(0));
    lease.as_mut().map(|lease| lease.split(bytes))
}

/// A tile of an output's size.
fn tile(output: &Output, lease: Option<Lease>, slab: Option<&Slab>) -> Result<TileBuf, String> {
    let side = |at: usize| {
        let side = output.shape.get(at).copied().unwrap_or(0);
        u32::try_from(side).map_err(|_| format!("a tile of {side} px"))
    };
    let (height, width) = (side(0)?, side(1)?);
    let bytes = TileBuf::bytes(width, height);
    let data = match slab {
        Some(slab) => slab.take(bytes),
        None => vec![0; bytes].into(),
    };
    TileBuf::new(width, height, data, lease)
        .ok_or_else(|| format!("a tile of {width} x {height} px has another size"))
}
