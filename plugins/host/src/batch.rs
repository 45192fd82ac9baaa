//! A batch as a plugin sees it: the header's struct, and behind it what holds its memory.

use crate::call::{OfSlide, Rows, Said};
use crate::columns::{self, Draft, Output, Part, Parts};
use crate::outcomes::Outcomes;
use crate::reduce::{About, Known};
use crate::shown::{self, Beside};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use weir_abi::Str;
use weir_abi::column::{Batch, Column};
use weir_abi::row::{Key, Row, Slide};
use weir_pipeline::Kind;
use weir_record::{Body, Lease, Slab, SlideInfo, TileBuf, TileId};

/// A batch. References are an `Arc`'s, so that a plugin may keep it as long as it likes.
#[repr(C)]
pub(crate) struct HostBatch {
    /// First, so that its address is the batch's.
    head: Batch,
    rows: Vec<Row>,
    slides: Vec<Slide>,
    slide_pointers: Vec<*const Slide>,
    columns: Vec<Column>,
    /// What the pointers above lead to.
    parts: Parts,
    beside: Beside,
    infos: Vec<Arc<SlideInfo>>,
    /// Number of the call that made it, or whose input it is.
    call: AtomicU64,
    /// References that are the plugin's to give up: none of an input that it was lent.
    held: AtomicU32,
    of: Of,
}

// SAFETY: what is written through a batch's pointers is a draft's memory, which is the plugin's until it emits it; everything else
// only reads, and what is lent lives.
unsafe impl Send for HostBatch {}
// SAFETY: as above.
unsafe impl Sync for HostBatch {}

enum Of {
    /// Values that came.
    Input(Lent),
    /// Rows that are made of rows of the input.
    Rows(Made<u32>),
    /// Rows that are made of a slide, by their tiles' words.
    Tiles(Made<u64>),
}

/// Values of the caller's, and copies of them (of references, not of pixels) once somebody holds on to the batch: few plugins do, and
/// to copy all would be a good part of what a call costs.
#[derive(Default)]
struct Lent {
    bodies: Vec<*const Body>,
    kept: Mutex<Vec<Body>>,
}

/// Rows that a plugin makes.
struct Made<P> {
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
    /// The host's side of a batch that a plugin names.
    pub fn of(batch: *const Batch) -> *const HostBatch {
        batch.cast()
    }

    /// Its address, for a plugin, with one reference.
    pub fn into_ptr(batch: Arc<HostBatch>) -> *mut Batch {
        Arc::into_raw(batch).cast_mut().cast()
    }

    /// Its address, as long as the caller has it.
    pub fn as_ptr(self: &Arc<HostBatch>) -> *const Batch {
        Arc::as_ptr(self).cast()
    }

    /// Notes whose it is. Rows that are made are those of that call's input, so they can be emitted in no other.
    pub fn belongs_to(&self, call: u64) {
        self.call.store(call, Ordering::Relaxed);
    }

    /// Number of the call that made it, or whose input it is.
    pub fn call(&self) -> u64 {
        self.call.load(Ordering::Relaxed)
    }

    /// A reference more is the plugin's.
    pub fn hand(&self) {
        self.held.fetch_add(1, Ordering::SeqCst);
    }

    /// A reference of the plugin's ends; false when it has none.
    pub fn hand_back(&self) -> bool {
        let less = |held: u32| held.checked_sub(1);
        let held = self
            .held
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
        held.is_ok()
    }

    /// Number of rows.
    pub fn rows(&self) -> u32 {
        self.head.n_rows
    }

    /// The body of a row of an input whose call is open.
    fn body(&self, row: u32) -> Option<&Body> {
        match &self.of {
            // SAFETY: the values live as long as the call is open, which `fill` was promised.
            Of::Input(lent) => lent.bodies.get(row as usize).map(|body| unsafe { &**body }),
            Of::Rows(_) | Of::Tiles(_) => None,
        }
    }

    /// Holds on to the values of an input beyond its call. The first time its call must be open.
    pub fn keep(&self) {
        if let Of::Input(lent) = &self.of {
            let mut kept = lent.kept.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.is_empty() {
                // SAFETY: as in `body`.
                kept.extend(lent.bodies.iter().map(|body| unsafe { (**body).clone() }));
            }
        }
    }

    fn empty(of: Of) -> HostBatch {
        HostBatch {
            head: Batch {
                struct_size: size_of::<Batch>() as u32,
                n_rows: 0,
                n_columns: 0,
                n_slides: 0,
                rows: std::ptr::null(),
                columns: std::ptr::null(),
                slides: std::ptr::null(),
            },
            rows: Vec::new(),
            slides: Vec::new(),
            slide_pointers: Vec::new(),
            columns: Vec::new(),
            parts: Parts::default(),
            beside: Beside::default(),
            infos: Vec::new(),
            call: AtomicU64::new(0),
            held: AtomicU32::new(0),
            of,
        }
    }

    /// An input that is to be filled.
    pub fn unfilled() -> HostBatch {
        HostBatch::empty(Of::Input(Lent::default()))
    }

    /// What the header's struct points to, once all else is there.
    fn point(&mut self) {
        self.slide_pointers.clear();
        self.slide_pointers
            .extend(self.slides.iter().map(|slide| slide as *const Slide));
        self.columns.clear();
        self.columns
            .extend(self.parts.used().iter().map(Part::column));
        self.head = Batch {
            struct_size: size_of::<Batch>() as u32,
            n_rows: self.rows.len() as u32,
            n_columns: self.columns.len() as u32,
            n_slides: self.slides.len() as u32,
            rows: self.rows.as_ptr(),
            columns: self.columns.as_ptr(),
            slides: self.slide_pointers.as_ptr(),
        };
    }

    /// Values that came, as a plugin reads them, in the memory that the last ones had. `width`: as the plan says, the numbers of a bag's
    /// vector or a prediction's classes.
    ///
    /// # Safety
    /// The values stay as they are and where they are until the call that they are for is over, or [`HostBatch::keep`] was called.
    pub unsafe fn fill<'a>(
        &mut self,
        values: impl IntoIterator<Item = (weir_record::Key, &'a Body, &'a Arc<SlideInfo>)>,
        width: usize,
    ) -> Result<(), String> {
        self.clear();
        let Of::Input(lent) = &mut self.of else {
            return Err("a batch that was made is no input".into());
        };
        let (mut last, mut at) = (None, 0);
        for (key, body, info) in values {
            let number = key.slide.number();
            // Rows of a slide come together.
            if last != Some(number) {
                let known = self.slides.iter().rposition(|it| it.number == number);
                at = known.unwrap_or_else(|| {
                    self.slides.push(slide(info, number));
                    self.infos.push(info.clone());
                    self.slides.len() - 1
                });
                last = Some(number);
            }
            self.rows.push(row(key, body, &self.infos[at], at));
            lent.bodies.push(body);
        }
        // SAFETY: the caller's.
        let bodies = lent.bodies.iter().map(|body| unsafe { &**body });
        shown::of_bodies(bodies, width, &mut self.parts, &mut self.beside)?;
        self.point();
        Ok(())
    }

    /// Lets go of all values; their memory here stays.
    pub fn clear(&mut self) {
        self.rows.clear();
        self.slides.clear();
        self.infos.clear();
        self.parts.clear();
        if let Of::Input(lent) = &mut self.of {
            lent.bodies.clear();
            let kept = lent.kept.get_mut();
            kept.unwrap_or_else(PoisonError::into_inner).clear();
        }
    }

    /// Values that came, as a plugin reads them.
    ///
    /// # Safety
    /// As [`HostBatch::fill`].
    pub unsafe fn input<'a>(
        values: impl IntoIterator<Item = (weir_record::Key, &'a Body, &'a Arc<SlideInfo>)>,
        width: usize,
    ) -> Result<HostBatch, String> {
        let mut batch = HostBatch::unfilled();
        // SAFETY: the caller's.
        unsafe { batch.fill(values, width) }?;
        Ok(batch)
    }

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
        slides: &Mutex<Known>,
    ) -> Result<HostBatch, String> {
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
        let rows = source.iter().map(|&row| self.rows[row as usize]).collect();
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
        let key = self.rows[row as usize].key;
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

    fn no_row(&self, row: u32) -> String {
        format!("it spoke of row {row} of a batch of {}", self.rows.len())
    }

    /// That the rows are the input's.
    fn check(&self, source: &[u32]) -> Result<(), String> {
        match source.iter().find(|&&row| row >= self.rows()) {
            None => Ok(()),
            Some(&row) => Err(self.no_row(row)),
        }
    }

    /// Rows of the input, handed on as they are.
    pub fn pass(
        &self,
        output: &Output,
        port: usize,
        rows: &[u32],
        outcomes: &mut Outcomes,
    ) -> Result<(), String> {
        for &row in rows {
            let body = self.body(row).ok_or_else(|| self.no_row(row))?;
            if !columns::fits(output, body) {
                return Err(format!(
                    "output `{}` has another type than the input, so nothing can be passed on it",
                    output.name
                ));
            }
            outcomes.passed(row, port)?;
        }
        Ok(())
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
    pub fn emit_tiles(&self, port: usize, rows: &mut Vec<OfSlide>) -> Result<(), String> {
        let Of::Tiles(made) = &self.of else {
            return Err("it emitted its input, or a batch that was made of one".into());
        };
        made.emit(port, |tile, body| {
            let body = body.map_err(|what| format!("output `{}`: {what}", made.output.name))?;
            rows.push(OfSlide { port, tile, body });
            Ok(())
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

/// A row of the header.
#[inline]
fn row(key: weir_record::Key, body: &Body, info: &SlideInfo, slide: usize) -> Row {
    let source = match body {
        Body::Picked { source_rev, .. } => *source_rev,
        _ => key.rev,
    };
    Row {
        key: Key {
            slide: key.slide.number(),
            tile: key.tile.word(),
            rev: key.rev,
            source,
        },
        ..place(key.tile, info, slide)
    }
}

/// Where a tile lies.
#[inline]
pub(crate) fn place(tile: TileId, info: &SlideInfo, slide: usize) -> Row {
    let mut row = Row {
        slide: slide as u32,
        ..Row::default()
    };
    if tile != TileId::SLIDE {
        (row.x, row.y) = (tile.x(), tile.y());
        if let Some(grid) = info.grid(tile) {
            (row.footprint, row.mpp) = (grid.footprint, grid.mpp);
        }
    }
    row
}

/// A slide of the header; its strings are `info`'s.
pub(crate) fn slide(info: &SlideInfo, number: u64) -> Slide {
    let optional = |text: &Option<String>| text.as_deref().map_or(Str::EMPTY, Str::new);
    let mpp = info.mpp.map_or(0.0, |(mpp, _)| mpp.0);
    Slide {
        struct_size: size_of::<Slide>() as u32,
        reserved: 0,
        number,
        seed: info.key.0,
        id: Str::new(&info.id),
        path: Str::new(&info.path),
        patient: optional(&info.patient),
        label: optional(&info.label),
        split: optional(&info.split),
        width: i64::try_from(info.width).unwrap_or(i64::MAX),
        height: i64::try_from(info.height).unwrap_or(i64::MAX),
        mpp_x: mpp,
        mpp_y: mpp,
        tiles: info.tiles,
        tile_footprint: info.grids.first().map_or(0.0, |grid| grid.footprint),
        tile_mpp: info.grids.first().map_or(0.0, |grid| grid.mpp),
        tile_px: info.grids.first().map_or(0, |grid| grid.px),
        tile_reserved: 0,
    }
}
