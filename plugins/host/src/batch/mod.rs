//! A batch as a plugin sees it: the header's struct, and behind it what holds its memory. What is lent is here, what a plugin makes in
//! `made`.

mod again;
pub(crate) mod live;
mod made;
pub(crate) mod task;

use crate::columns::{self, Output, Part, Parts};
use crate::shown::{self, Beside};
use again::Known;
use live::{Noted, References};
use made::Made;
use std::sync::{Arc, OnceLock};
use weir_abi::Str;
use weir_abi::column::{Batch, Column};
use weir_abi::row::{Key, Row, Slide};
use weir_record::{Body, SlideInfo, TileId};
use weir_runtime::stage::Columns;

/// Why values are not put there.
const NO_INPUT: &str = "a batch that was made is no input";

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
    /// What its rows have in common that are shown as their batch has them.
    alike: Option<Known>,
    references: Arc<References>,
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
    /// One by one; none of values that are shown as their batch has them.
    bodies: Vec<*const Body>,
    /// Of a batch whose rows are shown as it has them.
    whole: Option<Whole>,
    kept: OnceLock<(Vec<Body>, Option<Arc<Columns>>)>,
}

/// A batch's values, and its rows side by side.
struct Whole {
    bodies: *const [Body],
    /// An `Arc`'s.
    columns: *const Columns,
}

impl Lent {
    /// Whether somebody holds, or held, on to them.
    fn has_kept(&self) -> bool {
        self.kept.get().is_some()
    }
}

// SAFETY: as it is declared above; a child process has none of these.
unsafe impl Noted for HostBatch {
    #[inline]
    fn references(&self) -> &Arc<References> {
        &self.references
    }
}

impl Drop for HostBatch {
    fn drop(&mut self) {
        live::gone(std::ptr::from_ref(self).addr());
    }
}

impl HostBatch {
    /// The first reference that is the plugin's to an input which it was lent: it may keep it beyond the call, which is open.
    pub fn retain(self: &Arc<HostBatch>) {
        self.keep();
        // Before the plugin can give it back: another thread of its may not wait until this returns.
        std::mem::forget(self.clone());
        self.references.hand();
    }

    /// Number of rows.
    pub fn rows(&self) -> u32 {
        self.head.n_rows
    }

    /// The rows as a plugin sees them; of an input whose call is open.
    fn shown(&self) -> &[Row] {
        match self.head.n_rows {
            0 => &[],
            // SAFETY: there are so many: the batch's own, or those of the values' batch, which live as long as the call is open.
            n => unsafe { std::slice::from_raw_parts(self.head.rows, n as usize) },
        }
    }

    /// The body of a row of an input whose call is open.
    #[inline]
    fn body(&self, row: u32) -> Option<&Body> {
        match &self.of {
            // SAFETY: the values live as long as the call is open, which `fill` and `refill` were promised.
            Of::Input(lent) => match &lent.whole {
                // SAFETY: as above.
                Some(whole) => unsafe { &*whole.bodies }.get(row as usize),
                // SAFETY: as above.
                None => lent.bodies.get(row as usize).map(|body| unsafe { &**body }),
            },
            Of::Rows(_) | Of::Tiles(_) => None,
        }
    }

    /// Holds on to the values of an input beyond its call. The first time its call must be open.
    pub fn keep(&self) {
        if let Of::Input(lent) = &self.of {
            lent.kept.get_or_init(|| match &lent.whole {
                // SAFETY: as in `body`; the batch has a reference to its columns, and this is one more.
                Some(whole) => unsafe {
                    Arc::increment_strong_count(whole.columns);
                    let columns = Arc::from_raw(whole.columns);
                    ((*whole.bodies).to_vec(), Some(columns))
                },
                None => {
                    // SAFETY: as in `body`.
                    let clones = lent.bodies.iter().map(|body| unsafe { (**body).clone() });
                    (clones.collect(), None)
                }
            });
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
            alike: None,
            references: Arc::default(),
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
        values: impl Iterator<Item = (weir_record::Key, &'a Body, &'a Arc<SlideInfo>)> + Clone,
        width: usize,
    ) -> Result<(), String> {
        self.clear();
        // Most calls are of the slide that the last one was of.
        let mut first = values.clone().take(1);
        if !first.any(|(key, _, info)| self.is_of(key.slide.number(), info)) {
            self.slides.clear();
            self.infos.clear();
        }
        let Of::Input(lent) = &mut self.of else {
            return Err(NO_INPUT.into());
        };
        let (mut last, mut at) = (None, 0);
        for (key, body, info) in values.clone() {
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
        // SAFETY: they are `values`' own.
        let bodies = lent.bodies.iter().map(|body| unsafe { &**body });
        shown::of_bodies(bodies, width, &mut self.parts, &mut self.beside)?;
        self.point();
        Ok(())
    }

    /// Whether it is of that slide alone, as far as it has any.
    fn is_of(&self, number: u64, info: &Arc<SlideInfo>) -> bool {
        let mut known = self.slides.iter().zip(&self.infos);
        known.all(|(slide, known)| slide.number == number && Arc::ptr_eq(known, info))
    }

    /// It is of that slide.
    fn of_one_slide(&mut self, number: u64, info: &Arc<SlideInfo>) {
        if self.slides.is_empty() || !self.is_of(number, info) {
            self.slides = vec![slide(info, number)];
            self.infos = vec![info.clone()];
        }
    }

    /// Lets go of all values; their memory here stays, and of the slides the first, which will likely come again.
    pub fn clear(&mut self) {
        self.rows.clear();
        self.head.n_rows = 0;
        self.slides.truncate(1);
        self.infos.truncate(1);
        self.parts.clear();
        self.alike = None;
        if let Of::Input(lent) = &mut self.of {
            lent.bodies.clear();
            lent.whole = None;
            lent.kept.take();
        }
    }

    /// Whether a plugin holds, or held, on to its values.
    #[inline]
    pub fn has_kept(&self) -> bool {
        matches!(&self.of, Of::Input(lent) if lent.has_kept())
    }

    /// Values that came, as a plugin reads them.
    ///
    /// # Safety
    /// As [`HostBatch::fill`].
    pub unsafe fn input<'a>(
        values: impl Iterator<Item = (weir_record::Key, &'a Body, &'a Arc<SlideInfo>)> + Clone,
        width: usize,
    ) -> Result<HostBatch, String> {
        let mut batch = HostBatch::unfilled();
        // SAFETY: the caller's.
        unsafe { batch.fill(values, width) }?;
        Ok(batch)
    }

    fn no_row(&self, row: u32) -> String {
        format!("it spoke of row {row} of a batch of {}", self.rows())
    }

    /// That the rows are the input's.
    fn check(&self, source: &[u32]) -> Result<(), String> {
        match source.iter().find(|&&row| row >= self.rows()) {
            None => Ok(()),
            Some(&row) => Err(self.no_row(row)),
        }
    }

    /// That rows of the input can be handed on as they are.
    pub fn fit(&self, output: &Output, rows: &[u32]) -> Result<(), String> {
        for &row in rows {
            let body = self.body(row).ok_or_else(|| self.no_row(row))?;
            if !columns::fits(output, body) {
                return Err(format!(
                    "output `{}` has another type than the input, so nothing can be passed on it",
                    output.name
                ));
            }
        }
        Ok(())
    }

    /// Whether it is seen at once that all rows of an input can be handed on as they are: where they have the kind and the shape of the
    /// first, which `shown` saw to, what fits one fits all.
    pub fn all_fit(&self, output: &Output) -> bool {
        match self.body(0) {
            Some(body @ (Body::Pixels(_) | Body::Score(_) | Body::Feature(_))) => {
                columns::fits(output, body)
            }
            _ => false,
        }
    }
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

/// The id of a slide of the header.
///
/// # Safety
/// The slide's id is readable.
pub(crate) unsafe fn slide_id(slide: &Slide) -> String {
    // SAFETY: the caller's.
    String::from_utf8_lossy(unsafe { slide.id.bytes() }).into_owned()
}
