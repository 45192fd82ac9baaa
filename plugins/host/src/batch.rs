//! A batch as a plugin sees it: the header's struct, and behind it what holds its memory.

use crate::call::{Place, Said, Told, Who};
use crate::columns::{self, Draft, Output, Part};
use crate::reduce::{About, Known};
use crate::shown::{self, Beside};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use weir_abi::Str;
use weir_abi::column::{Batch, Column};
use weir_abi::row::{Key, Row, Slide};
use weir_pipeline::Kind;
use weir_record::{Body, Lease, SlideInfo, TileBuf, TileId};

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
    parts: Vec<Part>,
    _beside: Beside,
    infos: Vec<Arc<SlideInfo>>,
    /// Number of the call that made it; 0 of an input.
    call: u64,
    of: Of,
}

// SAFETY: what is written through a batch's pointers is a draft's memory, which is the plugin's until it emits it; everything else
// only reads.
unsafe impl Send for HostBatch {}
// SAFETY: as above.
unsafe impl Sync for HostBatch {}

enum Of {
    Input(Vec<Body>),
    Output(Box<Made>),
}

/// Rows that a plugin makes.
struct Made {
    output: Output,
    port: usize,
    places: Vec<Place>,
    abouts: Vec<About>,
    draft: Mutex<Writing>,
}

struct Writing {
    draft: Draft,
    emitted: bool,
    /// What was emitted, which a plugin that retained the batch may still read.
    _kept: Vec<Body>,
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

    /// The same, made in this call: its rows are those of that call's input, so it can be emitted in no other.
    pub fn of_call(mut self, number: u64) -> HostBatch {
        self.call = number;
        self
    }

    /// Number of the call that made it.
    pub fn call(&self) -> u64 {
        self.call
    }

    /// Number of rows.
    pub fn rows(&self) -> u32 {
        self.head.n_rows
    }

    /// The body of a row of an input.
    pub fn body(&self, row: u32) -> Option<&Body> {
        match &self.of {
            Of::Input(bodies) => bodies.get(row as usize),
            Of::Output(_) => None,
        }
    }

    fn new(
        rows: Vec<Row>,
        infos: Vec<Arc<SlideInfo>>,
        numbers: &[u64],
        parts: Vec<Part>,
        beside: Beside,
        of: Of,
    ) -> HostBatch {
        let slides: Vec<Slide> = infos
            .iter()
            .zip(numbers)
            .map(|(info, &number)| slide(info, number))
            .collect();
        let slide_pointers: Vec<*const Slide> = slides.iter().map(|it| it as *const _).collect();
        let columns: Vec<Column> = parts.iter().map(Part::column).collect();
        HostBatch {
            head: Batch {
                struct_size: size_of::<Batch>() as u32,
                n_rows: rows.len() as u32,
                n_columns: columns.len() as u32,
                n_slides: slides.len() as u32,
                rows: rows.as_ptr(),
                columns: columns.as_ptr(),
                slides: slide_pointers.as_ptr(),
            },
            rows,
            slides,
            slide_pointers,
            columns,
            parts,
            _beside: beside,
            infos,
            call: 0,
            of,
        }
    }

    /// Values that came, as a plugin reads them.
    pub fn input(
        values: Vec<(weir_record::Key, Body, Arc<SlideInfo>)>,
    ) -> Result<HostBatch, String> {
        let mut infos: Vec<Arc<SlideInfo>> = Vec::new();
        let mut numbers: Vec<u64> = Vec::new();
        let mut rows = Vec::with_capacity(values.len());
        let mut bodies = Vec::with_capacity(values.len());
        for (key, body, info) in values {
            let number = key.slide.number();
            // Rows of a slide come together, so the last is asked first.
            let at = match numbers.iter().rposition(|known| *known == number) {
                Some(at) => at,
                None => {
                    numbers.push(number);
                    infos.push(info);
                    infos.len() - 1
                }
            };
            rows.push(row(key, &body, &infos[at], at));
            bodies.push(body);
        }
        let (parts, beside) = shown::of_bodies(&bodies)?;
        Ok(HostBatch::new(
            rows,
            infos,
            &numbers,
            parts,
            beside,
            Of::Input(bodies),
        ))
    }

    /// Fresh rows, each made of a row of `input`.
    pub fn for_rows(
        output: &Output,
        port: usize,
        input: &Arc<HostBatch>,
        source: &[u32],
        leases: &Mutex<Vec<Option<Lease>>>,
        who: &Who,
    ) -> Result<HostBatch, String> {
        input.check(source)?;
        let (draft, parts) = match output.kind {
            Kind::Pixels => {
                let tiles = source
                    .iter()
                    .map(|&row| tile(output, leases, row, who).map(Arc::new))
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
        input: &Arc<HostBatch>,
        leases: &Mutex<Vec<Option<Lease>>>,
        who: &Who,
    ) -> Result<HostBatch, String> {
        let source: Vec<u32> = (0..input.rows()).collect();
        if output.kind != Kind::Pixels {
            return Err(format!(
                "output `{}` carries {}, and only pixels are edited in place",
                output.name,
                output.kind.name()
            ));
        }
        // The row itself stays as it was, whoever holds it: a batch that fails is tried again row by row.
        let mut tiles = Vec::with_capacity(source.len());
        for &row in &source {
            if !columns::fits(output, input, row) {
                return Err(format!(
                    "output `{}` has another type than the input",
                    output.name
                ));
            }
            let mut tile = tile(output, leases, row, who)?;
            if let Some(Body::Pixels(from)) = input.body(row) {
                tile.pixels_mut().copy_from_slice(from.pixels());
            }
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
        who: &Who,
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
        let (draft, parts) = match output.kind {
            Kind::Pixels => {
                let none = Mutex::new(Vec::new());
                let tiles = tiles
                    .iter()
                    .map(|_| tile(output, &none, 0, who).map(Arc::new))
                    .collect::<Result<_, _>>()?;
                Draft::pixels(tiles)
            }
            _ => Draft::new(output, tiles.len())?,
        };
        let rows = tiles
            .iter()
            .map(|&tile| Row {
                key: Key {
                    slide,
                    tile,
                    rev: 0,
                    source: 0,
                },
                ..place(TileId::from_word(tile), &info, 0)
            })
            .collect();
        let places = tiles
            .iter()
            .map(|&tile| Place::Tile { slide, tile })
            .collect();
        let made = Made {
            output: output.clone(),
            port,
            places,
            abouts,
            draft: Mutex::new(Writing {
                draft,
                emitted: false,
                _kept: Vec::new(),
            }),
        };
        Ok(HostBatch::new(
            rows,
            vec![info],
            &[slide],
            parts,
            Beside::default(),
            Of::Output(Box::new(made)),
        ))
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
        let made = Made {
            output: output.clone(),
            port,
            places: source.iter().map(|&row| Place::Input(row)).collect(),
            abouts: source.iter().map(|&row| self.about(row)).collect(),
            draft: Mutex::new(Writing {
                draft,
                emitted: false,
                _kept: Vec::new(),
            }),
        };
        HostBatch::new(
            rows,
            self.infos.clone(),
            &numbers,
            parts,
            Beside::default(),
            Of::Output(Box::new(made)),
        )
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

    /// That the rows are the input's, each at most once.
    fn check(&self, source: &[u32]) -> Result<(), String> {
        let mut seen = vec![false; self.rows.len()];
        for &row in source {
            match seen.get_mut(row as usize) {
                None => {
                    return Err(format!(
                        "it spoke of row {row} of a batch of {}",
                        self.rows.len()
                    ));
                }
                Some(seen) if *seen => {
                    return Err(format!("it made two rows of row {row} on one output"));
                }
                Some(seen) => *seen = true,
            }
        }
        Ok(())
    }

    /// Rows of the input, handed on as they are.
    pub fn passed(&self, output: &Output, port: usize, rows: &[u32]) -> Result<Vec<Told>, String> {
        self.check(rows)?;
        rows.iter()
            .map(|&row| match self.body(row) {
                Some(body) if columns::fits(output, self, row) => Ok(Told::Made {
                    port,
                    place: Place::Input(row),
                    body: body.clone(),
                }),
                _ => Err(format!(
                    "output `{}` has another type than the input, so nothing can be passed on it",
                    output.name
                )),
            })
            .collect()
    }

    /// What the batch says once it is emitted on `port`.
    pub fn emit(&self, port: usize) -> Result<Vec<Told>, String> {
        let Of::Output(made) = &self.of else {
            return Err("it emitted its input: pass() hands rows on as they are".into());
        };
        if made.port != port {
            return Err(format!(
                "it made a batch for output {} and emitted it on {port}",
                made.port
            ));
        }
        let mut writing = made.lock();
        if std::mem::replace(&mut writing.emitted, true) {
            return Err("it emitted a batch twice".into());
        }
        let bodies = writing.draft.bodies(&made.output, &made.abouts);
        let mut told = Vec::with_capacity(bodies.len());
        for (body, &place) in bodies.into_iter().zip(&made.places) {
            match (body, place) {
                (Ok(body), place) => {
                    writing._kept.push(body.clone());
                    told.push(Told::Made { port, place, body });
                }
                (Err(what), Place::Input(row)) => told.push(Told::Failed {
                    row,
                    said: Said {
                        what: format!("output `{}`: {what}", made.output.name),
                        ..Said::default()
                    },
                }),
                (Err(what), Place::Tile { .. }) => {
                    return Err(format!("output `{}`: {what}", made.output.name));
                }
            }
        }
        Ok(told)
    }
}

impl Made {
    fn lock(&self) -> MutexGuard<'_, Writing> {
        self.draft.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A tile of an output's size. The lease on what is made of a row goes with the first tile that is made of it; a row that is tried
/// again goes without.
fn tile(
    output: &Output,
    leases: &Mutex<Vec<Option<Lease>>>,
    row: u32,
    who: &Who,
) -> Result<TileBuf, String> {
    let side = |at: usize| {
        let side = output.shape.get(at).copied().unwrap_or(0);
        u32::try_from(side).map_err(|_| format!("a tile of {side} px"))
    };
    let (height, width) = (side(0)?, side(1)?);
    let bytes = TileBuf::bytes(width, height);
    let data = match &who.slab {
        Some(slab) => slab.take(bytes),
        None => vec![0; bytes].into(),
    };
    let lease = leases
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .get_mut(row as usize)
        .and_then(Option::take);
    TileBuf::new(width, height, data, lease)
        .ok_or_else(|| format!("a tile of {width} x {height} px has another size"))
}

/// A row of the header.
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
