//! A plugin's source as the runtime's [`Source`].

use crate::batch::task::Task;
use crate::call::{Call, FAULT};
use crate::inside::inside;
use crate::listed::{self, Listed, empty};
use crate::patience::Watched;
use crate::pool::{Holder, Pool};
use crate::who::Who;
use std::ffi::c_void;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use weir_abi::desk::Said;
use weir_abi::stage::{STEP_CLOSE, STEP_FAIL, STEP_GONE, STEP_TILE, Stage};
use weir_abi::{row, stage, status};
use weir_record::{Body, End, Failure, Generations, Grid, Mpp, MppOrigin, SlideInfo, TileId};
use weir_runtime::stage::{
    OpenedSlide, ReadError, Script, SlideRef, Source, StageError, Step, TileReader,
};
use weir_slide::mpp::SQUARE;
use weir_slide::slide_key;

/// How long a source that has nothing yet is left alone.
const IDLE: Duration = Duration::from_millis(10);

/// A source.
pub(crate) struct PluginSource {
    pool: Arc<Pool>,
    name: Arc<str>,
    of: Of,
    /// `run.default-mpp`.
    default_mpp: Option<f64>,
    slides: Vec<SlideRef>,
    /// Of each slide: its number with the plugin, and what that said of it.
    listed: Vec<(u64, Listed)>,
}

/// What flows out.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Of {
    /// Tiles of this resolution, um/px; 0 where the plan does not know it.
    Pixels { mpp: f64, height: u32, width: u32 },
    /// Vectors of this width.
    Features { width: u32 },
}

impl PluginSource {
    /// Asks the plugin for its slides.
    pub fn new(
        pool: Arc<Pool>,
        name: Arc<str>,
        of: Of,
        default_mpp: Option<f64>,
    ) -> Result<PluginSource, StageError> {
        let found = listed::all(&pool)?;
        let slides = found
            .iter()
            .map(|(_, listed)| SlideRef {
                id: listed.id.clone(),
                key: slide_key(&listed.id),
                path: listed.path.clone(),
            })
            .collect();
        Ok(PluginSource {
            pool,
            name,
            of,
            default_mpp,
            slides,
            listed: found,
        })
    }

    fn failure(&self, slide: &SlideRef, error: StageError) -> Failure {
        Failure {
            stage: self.name.to_string(),
            slide: slide.id.clone(),
            tile: None,
            what: error.what,
            help: error.help,
        }
    }
}

impl Source for PluginSource {
    fn slides(&self) -> &[SlideRef] {
        &self.slides
    }

    fn open(&self, slide: &SlideRef) -> Result<OpenedSlide, Failure> {
        let place = self.slides.iter().position(|known| known.id == slide.id);
        let Some((number, listed)) = place.map(|place| &self.listed[place]) else {
            let error = StageError::new("the source has no such slide", "");
            return Err(self.failure(slide, error));
        };
        let mut out = empty();
        let mut handle = std::ptr::null_mut();
        let mut said = status::UNSUPPORTED;
        let mut holder = Holder::default();
        let done = self.pool.call_for(&holder, Task::Setup, |stage, me, call| {
            if let Some(open) = stage.open {
                let _watched = self.pool.watch("open", Some(&slide.id));
                // SAFETY: as the header says; both places are this call's.
                said = unsafe {
                    open(
                        me,
                        call,
                        *number,
                        std::ptr::null_mut(),
                        &mut out,
                        &mut handle,
                    )
                };
            }
            said
        });
        // Also where the call broke a rule: then this closes it.
        let handle = (said == status::OK).then(|| {
            Arc::new(Handle {
                pool: self.pool.clone(),
                slide: slide.id.as_str().into(),
                holder: std::mem::take(&mut holder),
                stage: self.pool.shelf.stage,
                who: self.pool.who().clone(),
                handle,
                panicked: AtomicBool::new(false),
                info: std::sync::OnceLock::new(),
            })
        });
        if handle.is_none() {
            self.pool.left(&holder);
        }
        done.map_err(|error| self.failure(slide, error.into()))?;
        let Some(handle) = handle else {
            let error = StageError::new("the plugin opened nothing", "");
            return Err(self.failure(slide, error));
        };
        // SAFETY: the texts live until the slide's next call, which is not made before this is done.
        let opened = unsafe { Listed::of(&out) };
        if let Some(what) = opened.fault(&listed.id) {
            let what = format!("{} broke the contract [E0520]: {what}", handle.who.plugin);
            return Err(self.failure(slide, StageError::new(what, FAULT)));
        }
        let mpp =
            pixel(&opened, listed, self.default_mpp).map_err(|error| self.failure(slide, error))?;
        let grid = self.of.grid(&opened, mpp.map_or(0.0, |(mpp, _)| mpp.0));
        let info = Arc::new(SlideInfo {
            id: listed.id.clone(),
            key: slide.key,
            path: listed.path.clone(),
            width: u64::try_from(opened.width.max(listed.width)).unwrap_or(0),
            height: u64::try_from(opened.height.max(listed.height)).unwrap_or(0),
            mpp,
            reader: format!("plugin/{}", self.pool.who().plugin_name),
            patient: opened.patient.or_else(|| listed.patient.clone()),
            label: opened.label.or_else(|| listed.label.clone()),
            split: opened.split.or_else(|| listed.split.clone()),
            grids: vec![grid],
            tiles: opened.tiles.max(listed.tiles),
            background: 0,
            input: None,
        });
        // Nobody has set it before.
        let _ = handle.info.set(info.clone());
        Ok(OpenedSlide {
            info,
            script: Box::new(PluginScript {
                handle: handle.clone(),
                of: self.of,
                name: self.name.clone(),
                generations: Generations::default(),
                queue: Vec::new(),
                over: false,
                failed: false,
                closed: true,
            }),
            reader: handle,
        })
    }
}

/// Size of a level-0 pixel as the plugin says it when it opens the slide, else when it lists it, else `run.default-mpp`.
///
/// # Errors
/// Of pixels that are not square, which no reader of weir's takes either.
fn pixel(
    opened: &Listed,
    listed: &Listed,
    default: Option<f64>,
) -> Result<Option<(Mpp, MppOrigin)>, StageError> {
    let said = [opened, listed].into_iter().find(|said| said.mpp.0 > 0.0);
    let Some(said) = said else {
        return Ok(default.map(|mpp| (Mpp(mpp), MppOrigin::Default)));
    };
    let (x, y) = said.mpp;
    if y > 0.0 && (x / y).max(y / x) > SQUARE {
        return Err(StageError::new(
            format!("its pixels are {x} x {y} um; pixels that are not square are not read"),
            "resample the slide to square pixels",
        ));
    }
    Ok(Some((Mpp(x), MppOrigin::Vendor)))
}

impl Of {
    fn grid(self, opened: &Listed, level: f64) -> Grid {
        let (px, mpp) = match self {
            Of::Pixels { mpp, width, .. } if mpp > 0.0 => (width, mpp),
            Of::Pixels { width, .. } => (width, opened.tile_mpp),
            // Of the sizes that the plugin leaves out, the two others say the third.
            Of::Features { .. }
                if opened.tile_mpp <= 0.0 && opened.footprint > 0.0 && opened.tile_px > 0 =>
            {
                let px = opened.tile_px;
                (px, level * opened.footprint / f64::from(px))
            }
            Of::Features { .. } => (opened.tile_px, opened.tile_mpp),
        };
        let by_mpp = match level > 0.0 && mpp > 0.0 {
            true => f64::from(px) * mpp / level,
            false => f64::from(px),
        };
        Grid {
            footprint: if opened.footprint > 0.0 {
                opened.footprint
            } else {
                by_mpp
            },
            mpp,
            px,
        }
    }
}

/// An open slide of the plugin's.
struct Handle {
    /// A slide may point into the instance that opened it, which lives as long as this.
    pool: Arc<Pool>,
    /// Its id.
    slide: Box<str>,
    /// Of one that no other slide has.
    holder: Holder,
    stage: &'static Stage,
    who: Arc<Who>,
    handle: *mut c_void,
    /// A function of it did, so its state may be anything: it is used no more, and not closed either.
    panicked: AtomicBool,
    info: std::sync::OnceLock<Arc<SlideInfo>>,
}

// SAFETY: the header says which of a slide's functions may run at once, and on any thread.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

impl Drop for Handle {
    fn drop(&mut self) {
        // In a process of its own nothing is called: what stands in for it ends.
        let usable = self.pool.shelf.keeps_time() || !self.panicked();
        if let Some(close) = self.stage.close.filter(|_| usable) {
            let _watched = self.watched("close");
            // SAFETY: every call of the slide holds a reference.
            inside(&self.who, 0, || unsafe { close(self.handle) });
        }
        self.pool.left(&self.holder);
    }
}

impl Handle {
    fn panicked(&self) -> bool {
        self.panicked.load(Ordering::SeqCst)
    }

    fn watched(&self, function: &'static str) -> Option<Watched> {
        self.pool.watch(function, Some(&self.slide))
    }

    /// Why nothing more comes of it.
    fn panicked_before(&self) -> Said {
        Said {
            what: format!(
                "{} panicked before [E0522], and this slide is asked for no more",
                self.who.plugin
            ),
            help: FAULT.into(),
            ..Said::default()
        }
    }

    /// Notes a status that its functions return.
    fn heard(&self, said: status::Status) -> status::Status {
        if said == status::PANIC {
            self.panicked.store(true, Ordering::SeqCst);
        }
        said
    }

    fn fill(&self, tile: TileId, rev: u32, into: *mut u8, len: usize) -> Result<(), ReadError> {
        if self.panicked() {
            return Err(ReadError::Damaged(self.panicked_before().what));
        }
        let call = Call::setup(&self.who);
        let mut about = match self.info.get() {
            Some(info) => crate::batch::place(tile, info, 0),
            None => row::Row::default(),
        };
        about.key.tile = tile.word();
        (about.key.rev, about.key.source) = (rev, rev);
        let _watched = self.watched("read");
        let said = match self.stage.read {
            Some(read) => {
                // SAFETY: as the header says: row and memory live through the call.
                call.inside(|call| unsafe { read(self.handle, call, &about, into.cast(), len) })
            }
            None => status::UNSUPPORTED,
        };
        call.end(self.heard(said))
            .map(drop)
            .map_err(|error| ReadError::Damaged(error.by(&self.who).said.what))
    }
}

impl TileReader for Handle {
    fn read(&self, tile: TileId, rev: u32, into: &mut [u8]) -> Result<(), ReadError> {
        self.fill(tile, rev, into.as_mut_ptr(), into.len())
    }

    fn feature(&self, tile: TileId, rev: u32, into: &mut [f32]) -> Result<(), ReadError> {
        let bytes = size_of_val(into);
        self.fill(tile, rev, into.as_mut_ptr().cast(), bytes)?;
        match into.iter().position(|number| !number.is_finite()) {
            None => Ok(()),
            Some(at) => Err(ReadError::Damaged(format!(
                "number {at} of the features is {}, and every number must be finite",
                into[at]
            ))),
        }
    }
}

/// Asks the plugin for the slide's steps.
struct PluginScript {
    handle: Arc<Handle>,
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn said(x: f64, y: f64) -> Listed {
        Listed {
            mpp: (x, y),
            ..Listed::default()
        }
    }

    #[test]
    fn the_slide_says_its_mpp_before_its_line_in_the_list_and_that_before_the_run() {
        let of = |opened: &Listed, listed: &Listed, default| pixel(opened, listed, default);
        let vendor = |mpp| Ok(Some((Mpp(mpp), MppOrigin::Vendor)));
        assert_eq!(of(&said(0.5, 0.5), &said(1.0, 1.0), Some(2.0)), vendor(0.5));
        assert_eq!(of(&said(0.0, 0.0), &said(1.0, 1.0), Some(2.0)), vendor(1.0));
        let none = said(0.0, 0.0);
        let by_run = Some((Mpp(2.0), MppOrigin::Default));
        assert_eq!(of(&none, &none, Some(2.0)), Ok(by_run));
        assert_eq!(of(&none, &none, None), Ok(None));
        assert_eq!(of(&said(0.5, 0.0), &none, None), vendor(0.5));
        let error = of(&said(0.5, 0.25), &none, None).unwrap_err();
        assert!(error.what.contains("0.5 x 0.25 um"), "{error}");
    }

    #[test]
    fn a_tiles_mpp_follows_from_its_slides_where_the_plugin_leaves_it_out() {
        let listed = Listed {
            footprint: 448.0,
            tile_px: 224,
            ..Listed::default()
        };
        let grid = Of::Features { width: 3 }.grid(&listed, 0.25);
        assert_eq!((grid.px, grid.mpp, grid.footprint), (224, 0.5, 448.0));
        let grid = Of::Features { width: 3 }.grid(&listed, 0.0);
        assert_eq!((grid.px, grid.mpp, grid.footprint), (224, 0.0, 448.0));
    }
}
