//! A source's list of slides.

use crate::batch::task::Task;
use crate::call::FAULT;
use crate::pool::Pool;
use weir_abi::{Str, row, status};
use weir_runtime::stage::StageError;

/// No source lists more slides, nor more bytes of what it says of them: one that never ends must not fill the memory.
const SLIDES: u64 = 1 << 20;
const TEXTS: usize = 256 << 20;

/// No slide has more tiles: what is kept of each is reserved when it opens, and a product must not come round to nothing.
const TILES: u64 = 1 << 32;

/// Nor is one longer, px: a tile's place has 24 bits, and some px before the slide's edge.
const SIDE: i64 = 15_700_000;

/// A slide as its source describes it; the texts are copies.
#[derive(Clone, Debug, Default)]
pub(crate) struct Listed {
    pub id: String,
    pub path: String,
    pub patient: Option<String>,
    pub label: Option<String>,
    pub split: Option<String>,
    pub width: i64,
    pub height: i64,
    /// um/px along x and y; 0 where not known.
    pub mpp: (f64, f64),
    pub tiles: u64,
    pub footprint: f64,
    pub tile_mpp: f64,
    pub tile_px: u32,
}

impl Listed {
    /// Bytes of its texts.
    fn bytes(&self) -> usize {
        let optional = [&self.patient, &self.label, &self.split];
        let optional = optional.into_iter().flatten();
        self.id.len() + self.path.len() + optional.map(String::len).sum::<usize>()
    }

    /// What of its numbers no slide can have.
    pub fn fault(&self, id: &str) -> Option<String> {
        if self.tiles > TILES {
            return Some(format!(
                "it says that slide `{id}` has {} tiles, and no slide has more than {TILES}",
                self.tiles
            ));
        }
        let numbers = [
            ("um/px", self.mpp.0),
            ("um/px down", self.mpp.1),
            ("a tile's um/px", self.tile_mpp),
            ("a tile's footprint", self.footprint),
        ];
        for (what, side) in [("the width", self.width), ("the height", self.height)] {
            if !(0..=SIDE).contains(&side) {
                return Some(format!(
                    "it says that {what} of slide `{id}` is {side} px, and a side has {SIDE} px at most"
                ));
            }
        }
        let (what, number) = numbers
            .into_iter()
            .find(|(_, number)| !(0.0..f64::INFINITY).contains(number))?;
        Some(format!("it says that of slide `{id}` {what} is {number}"))
    }

    /// # Safety
    /// The texts are readable.
    pub unsafe fn of(slide: &row::Slide) -> Listed {
        // SAFETY: the caller's.
        let text = |of: Str| String::from_utf8_lossy(unsafe { of.bytes() }).into_owned();
        let optional = |of: Str| Some(text(of)).filter(|text| !text.is_empty());
        Listed {
            id: text(slide.id),
            path: text(slide.path),
            patient: optional(slide.patient),
            label: optional(slide.label),
            split: optional(slide.split),
            width: slide.width,
            height: slide.height,
            mpp: (slide.mpp_x, slide.mpp_y),
            tiles: slide.tiles,
            footprint: slide.tile_footprint,
            tile_mpp: slide.tile_mpp,
            tile_px: slide.tile_px,
        }
    }
}

pub(crate) fn empty() -> row::Slide {
    row::Slide {
        struct_size: size_of::<row::Slide>() as u32,
        ..row::Slide::default()
    }
}

/// Asks a source for its slides: each with its number there, in the order of their ids.
///
/// # Errors
/// What the plugin says, and when it breaks the contract: a slide without an id, two of one id, a list that does not end.
pub(crate) fn all(pool: &Pool) -> Result<Vec<(u64, Listed)>, StageError> {
    let mut found = Vec::new();
    let mut texts = 0;
    for number in 0.. {
        let mut out = empty();
        let mut ended = false;
        pool.call(Task::Setup, |stage, me, call| {
            let said = match stage.slide {
                Some(slide) => {
                    let _watched = pool.watch("slide", None);
                    // SAFETY: as the header says; `out` is a place for a slide.
                    unsafe { slide(me, call, number, &mut out) }
                }
                None => status::UNSUPPORTED,
            };
            ended = said == status::END;
            if ended { status::OK } else { said }
        })?;
        if ended {
            break;
        }
        // SAFETY: the plugin's texts live until its next call, and the instance is not called meanwhile.
        let listed = unsafe { Listed::of(&out) };
        texts += listed.bytes();
        if number >= SLIDES || texts > TEXTS {
            return Err(StageError::new(
                format!(
                    "{} broke the contract [E0520]: its list of slides does not end: {} slides, {texts} bytes of text",
                    pool.who().plugin,
                    number + 1
                ),
                format!(
                    "a source has at most {SLIDES} slides: split the run, or report it to the plugin's author"
                ),
            ));
        }
        if listed.id.is_empty() {
            return Err(StageError::new(
                format!("{}: slide {number} has no id", pool.who().plugin),
                FAULT,
            ));
        }
        if let Some(what) = listed.fault(&listed.id) {
            return Err(StageError::new(
                format!("{} broke the contract [E0520]: {what}", pool.who().plugin),
                FAULT,
            ));
        }
        found.push((number, listed));
    }
    found.sort_by(|(_, a), (_, b)| a.id.cmp(&b.id));
    if let Some(pair) = found.windows(2).find(|pair| pair[0].1.id == pair[1].1.id) {
        return Err(StageError::new(
            format!("two slides have the id `{}`", pair[0].1.id),
            "ids are unique in a run: rename one of the inputs",
        ));
    }
    Ok(found)
}
