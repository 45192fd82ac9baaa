//! A source that runs.

use super::call::{CallBox, lock};
use super::slides::tile;
use super::stage::{Stage, blank, finish_plain};
use crate::abi;
use crate::abi::row::{Key, Row};
use crate::abi::stage::{STEP_CLOSE, STEP_FAIL, STEP_GONE, STEP_TILE};
use crate::abi::status;
use crate::error::{Error, Result};
use crate::host::text;
use crate::source::{SlideInfo, Tile};
use std::ffi::c_void;
use std::time::{Duration, Instant};

/// How long a source may have nothing before its test has waited enough; a run waits for as long as it takes.
const MOST_IDLE: Duration = Duration::from_secs(10);
/// From one question to the next, of a source that has nothing.
const ASKED_EVERY: Duration = Duration::from_millis(2);

/// What a source sent.
#[derive(Clone, Debug, PartialEq)]
pub enum Sent {
    /// A tile and its content, or why it could not be read.
    Tile(Tile, std::result::Result<Vec<u8>, Error>),
    /// A tile was withdrawn.
    Gone(Tile),
    /// A tile could not be had.
    Fail(Tile, Error),
    /// What was sent since the last one belongs together.
    Close,
}

impl Sent {
    /// A tile's feature vector.
    pub fn features(&self) -> Option<Vec<f32>> {
        let Sent::Tile(_, Ok(bytes)) = self else {
            return None;
        };
        Some(
            bytes
                .as_chunks::<4>()
                .0
                .iter()
                .map(|it| f32::from_ne_bytes(*it))
                .collect(),
        )
    }
}

/// A slide that a source opened. Dropped, it is closed.
pub struct OpenSlide<'s> {
    stage: &'s Stage,
    /// What the source says of it.
    pub info: SlideInfo,
    number: u64,
    pointer: *mut c_void,
}

fn info_of(slide: &abi::row::Slide) -> SlideInfo {
    // SAFETY: the function that wrote them has just returned; they are copied at once.
    let [id, path, patient, label, split] = [
        slide.id,
        slide.path,
        slide.patient,
        slide.label,
        slide.split,
    ]
    .map(|it| unsafe { text(it) }.to_owned());
    SlideInfo {
        id,
        path,
        patient,
        label,
        split,
        size: (slide.width.max(0) as u64, slide.height.max(0) as u64),
        mpp: (slide.mpp_x > 0.0 && slide.mpp_y > 0.0).then_some((slide.mpp_x, slide.mpp_y)),
        tiles: slide.tiles,
        tile_footprint: slide.tile_footprint,
        tile_mpp: slide.tile_mpp,
        tile_px: slide.tile_px,
    }
}

impl Stage {
    /// Of sources: every slide, in order.
    ///
    /// # Errors
    /// What the plugin said.
    pub fn slides(&self) -> Result<Vec<SlideInfo>> {
        let slide = self
            .table
            .slide
            .ok_or_else(|| Error::new("the stage has no slide()"))?;
        let mut all: Vec<SlideInfo> = Vec::new();
        loop {
            let call = CallBox::plain(&self.shared).open();
            let mut out = blank();
            // SAFETY: as weir_plugin.h says.
            let status = unsafe { slide(self.pointer, call.raw(), all.len() as u64, &mut out) };
            // The texts last only until the plugin is called again.
            let info = info_of(&out);
            if finish_plain(&call, status)? == status::END {
                return Ok(all);
            }
            if info.id.is_empty() || info.path.is_empty() {
                return Err(Error::new(format!(
                    "slide {} has no id or no path",
                    all.len()
                )));
            }
            if all.iter().any(|known| known.id == info.id) {
                return Err(Error::new(format!("two slides are called `{}`", info.id)));
            }
            all.push(info);
        }
    }

    /// Of sources: opens slide number `i`.
    ///
    /// # Errors
    /// What the plugin said.
    pub fn open(&self, i: u64) -> Result<OpenSlide<'_>> {
        let open = self
            .table
            .open
            .ok_or_else(|| Error::new("the stage has no open()"))?;
        let call = CallBox::plain(&self.shared).open();
        let (mut out, mut pointer) = (blank(), std::ptr::null_mut());
        // SAFETY: as weir_plugin.h says: hosts of 1.0 have no key.
        let status = unsafe {
            open(
                self.pointer,
                call.raw(),
                i,
                std::ptr::null_mut(),
                &mut out,
                &mut pointer,
            )
        };
        finish_plain(&call, status)?;
        let info = info_of(&out);
        Ok(OpenSlide {
            stage: self,
            number: self.shared.slides.get(&info).raw.number,
            info,
            pointer,
        })
    }
}

impl OpenSlide<'_> {
    /// Everything it sends, each tile read as it comes, `bytes` a tile: `width * height * 3` of pixels, `4 * width` of features.
    ///
    /// # Errors
    /// What the plugin said, or that it has nothing for ten seconds, asked every few milliseconds as a run asks.
    pub fn run(&self, bytes: impl Fn(&Tile) -> usize) -> Result<Vec<Sent>> {
        let next = self
            .stage
            .table
            .next
            .ok_or_else(|| Error::new("the stage has no next()"))?;
        let mut all = Vec::new();
        let mut idle_since = None;
        loop {
            let call = CallBox::plain(&self.stage.shared).open();
            let mut step = abi::stage::Step {
                struct_size: size_of::<abi::stage::Step>() as u32,
                ..abi::stage::Step::default()
            };
            // SAFETY: as weir_plugin.h says.
            let status = unsafe { next(self.pointer, call.raw(), &mut step) };
            match finish_plain(&call, status)? {
                status::OK => idle_since = None,
                status::IDLE => {
                    if idle_since.get_or_insert_with(Instant::now).elapsed() > MOST_IDLE {
                        return Err(Error::new("the source had nothing for ten seconds"));
                    }
                    std::thread::sleep(ASKED_EVERY);
                    continue;
                }
                status::END => return Ok(all),
                other => return Err(Error::new(format!("next() returned {other}"))),
            }
            let tile = Tile {
                x: step.x,
                y: step.y,
                width: step.width,
                height: step.height,
            };
            all.push(match step.kind {
                STEP_TILE => Sent::Tile(tile, self.read(&tile, bytes(&tile))),
                STEP_GONE => Sent::Gone(tile),
                STEP_FAIL => {
                    let said = lock(&call.state).error.take();
                    let error =
                        said.ok_or_else(|| Error::new("a tile failed without a message"))?;
                    Sent::Fail(tile, error)
                }
                STEP_CLOSE => Sent::Close,
                other => return Err(Error::new(format!("next() gave a step of kind {other}"))),
            });
        }
    }

    fn read(&self, at: &Tile, len: usize) -> Result<Vec<u8>> {
        let read = self
            .stage
            .table
            .read
            .ok_or_else(|| Error::new("the stage has no read()"))?;
        let row = Row {
            key: Key {
                slide: self.number,
                tile: tile(at.x, at.y),
                ..Key::default()
            },
            x: at.x,
            y: at.y,
            footprint: self.info.tile_footprint,
            mpp: self.info.tile_mpp,
            ..Row::default()
        };
        let into = super::memory::RowMemory::fresh(len);
        let call = CallBox::plain(&self.stage.shared).open();
        // SAFETY: as weir_plugin.h says.
        let status = unsafe { read(self.pointer, call.raw(), &row, into.ptr().cast(), len) };
        finish_plain(&call, status)?;
        if !into.is_whole() {
            return Err(Error::new("the plugin wrote outside of the tile"));
        }
        Ok(into.bytes().to_vec())
    }
}

impl Drop for OpenSlide<'_> {
    fn drop(&mut self) {
        if let Some(close) = self.stage.table.close {
            // SAFETY: no call of the slide is in flight, and none follows.
            unsafe { close(self.pointer) }
        }
    }
}
