//! A batch's rows side by side: what a plugin reads of them, laid out once, when the batch is made.
//!
//! A stage that is written in Rust reads a batch's keys and bodies. One on the other side of a C interface reads structs and pointers,
//! and to lay these out is most of what a call of many rows would cost it. So a batch has them from the start, as it has its keys,
//! where its rows are alike: tiles, or vectors, of one slide, grid and shape. Rows that are not are laid out by who needs that.

use std::ffi::c_void;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, Ordering};

use weir_record::{Body, Key, SlideId, SlideInfo, TileId};

/// A row and where it lies: member by member `weir_row` of the plugin interface (weir_plugin.h, section "Rows"), with the slide the only
/// one of its batch.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Place {
    /// [`SlideId::number`].
    pub slide: u64,
    /// [`TileId::word`].
    pub tile: u64,
    /// Number of the generation.
    pub rev: u32,
    /// The revision of its pixels: the same.
    pub source: u32,
    /// Left edge, level-0 px.
    pub x: i64,
    /// Top edge, level-0 px.
    pub y: i64,
    /// Side of what the tile covers, level-0 px.
    pub footprint: f64,
    /// um/px of its pixels.
    pub mpp: f64,
    /// 0: the first of the batch's slides.
    pub nth: u32,
    /// 0.
    pub reserved: u32,
}

/// What a row's value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A tile's pixels.
    Pixels {
        /// px.
        width: u32,
        /// px.
        height: u32,
    },
    /// A vector of so many numbers.
    Feature(usize),
}

impl Form {
    /// Of a value, and the address of its memory; `None` of a value that is neither pixels nor a vector.
    #[inline]
    fn of(body: &Body) -> Option<(Form, *const c_void)> {
        match body {
            Body::Pixels(tile) => {
                let (width, height) = (tile.width(), tile.height());
                Some((
                    Form::Pixels { width, height },
                    tile.pixels().as_ptr().cast(),
                ))
            }
            Body::Feature(feature) => Some((Form::Feature(feature.len()), feature.as_ptr().cast())),
            _ => None,
        }
    }
}

/// Where a row's value lies: a pointer that threads share.
#[repr(transparent)]
#[derive(Debug)]
pub struct Lies(AtomicPtr<c_void>);

impl Lies {
    fn new(at: *mut c_void) -> Lies {
        Lies(AtomicPtr::new(at))
    }

    /// The pointer.
    pub fn at(&self) -> *mut c_void {
        self.0.load(Ordering::Relaxed)
    }
}

/// What rows have in common that are alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alike {
    /// The slide.
    pub slide: SlideId,
    /// The grid of its tiles.
    pub grid: u8,
    /// The values.
    pub form: Form,
}

/// Rows that are alike, side by side.
#[derive(Debug)]
pub struct Columns {
    alike: Alike,
    places: Vec<Place>,
    lies: Vec<Lies>,
    pitch: i64,
}

impl Columns {
    /// Of a batch's rows; `None` where they are not alike, or speak of the slide as a whole.
    pub(super) fn of(keys: &[Key], bodies: &[Body], infos: &[Arc<SlideInfo>]) -> Option<Columns> {
        let (key, info) = (keys.first()?, infos.first()?);
        let (form, _) = Form::of(bodies.first()?)?;
        let alike = Alike {
            slide: key.slide,
            grid: key.tile.grid(),
            form,
        };
        if alike.grid == TileId::SLIDE.grid() {
            return None;
        }
        let grid = info.grid(key.tile);
        let (footprint, mpp) = grid.map_or((0.0, 0.0), |grid| (grid.footprint, grid.mpp));
        let mut places = Vec::with_capacity(keys.len());
        let mut lies = Vec::with_capacity(keys.len());
        for ((key, body), of) in keys.iter().zip(bodies).zip(infos) {
            let (form, at) = Form::of(body)?;
            let (slide, grid) = (key.slide, key.tile.grid());
            if (Alike { slide, grid, form }) != alike || !Arc::ptr_eq(of, info) {
                return None;
            }
            places.push(Place {
                slide: slide.number(),
                tile: key.tile.word(),
                rev: key.rev,
                source: key.rev,
                x: key.tile.x(),
                y: key.tile.y(),
                footprint,
                mpp,
                nth: 0,
                reserved: 0,
            });
            lies.push(Lies::new(at.cast_mut()));
        }
        Some(Columns {
            alike,
            pitch: pitch(&lies),
            places,
            lies,
        })
    }

    /// What the rows have in common.
    #[inline]
    pub fn alike(&self) -> &Alike {
        &self.alike
    }

    /// The rows.
    #[inline]
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// Where the rows' values lie: interleaved RGB, or f32.
    #[inline]
    pub fn lies(&self) -> &[Lies] {
        &self.lies
    }

    /// Bytes from each row's value to the next one's where these are all alike, else 0.
    #[inline]
    pub fn pitch(&self) -> i64 {
        self.pitch
    }
}

fn pitch(lies: &[Lies]) -> i64 {
    let step = |pair: &[Lies]| pair[1].at().addr().wrapping_sub(pair[0].at().addr()) as i64;
    let mut steps = lies.windows(2).map(step);
    let first = steps.next().unwrap_or(0);
    if steps.all(|step| step == first) {
        first
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use weir_record::{Feature, Grid, SlideKey, TileBuf};

    fn lies(at: usize) -> Lies {
        Lies::new(std::ptr::without_provenance_mut(at))
    }

    fn address(lies: &Lies) -> usize {
        lies.at().addr()
    }

    /// Of a row: its slide, left edge, grid (the last: the slide as a whole), and its value's kind and side.
    type Spot = (usize, i64, u8, bool, u32);

    fn rows() -> impl Strategy<Value = Vec<Spot>> {
        let spot = (0..2usize, 0..100i64, 0..3u8, any::<bool>(), 1..3u32);
        let alike = |(slide, _, grid, pixels, side): Spot| {
            let spot = (0..100i64).prop_map(move |x| (slide, x, grid, pixels, side));
            prop::collection::vec(spot, 1..6)
        };
        prop_oneof![
            spot.clone().prop_flat_map(alike),
            prop::collection::vec(spot, 0..4)
        ]
    }

    fn body(pixels: bool, side: u32) -> Body {
        let data = vec![0; TileBuf::bytes(side, side)];
        match pixels {
            true => Body::Pixels(Arc::new(
                TileBuf::new(side, side, data.into(), None).unwrap(),
            )),
            false => Body::Feature(Arc::new(Feature::new(vec![0.0; side as usize], None))),
        }
    }

    proptest! {
        #[test]
        fn rows_lie_side_by_side_as_they_came_if_and_only_if_they_are_alike(spots in rows()) {
            let grids = [0.5, 1.0].map(|mpp| Grid { footprint: 512.0 * mpp, mpp, px: 256 });
            let infos = ["a", "b"].map(|id| {
                let unopened = SlideInfo::unopened(id.into(), SlideKey(1), "a.svs".into());
                Arc::new(SlideInfo { grids: grids.to_vec(), ..unopened })
            });
            let keys: Vec<Key> = spots.iter().map(|&(slide, x, grid, ..)| Key {
                slide: SlideId::new(0, slide as u64),
                tile: match grid {
                    2 => TileId::SLIDE,
                    grid => TileId::new(grid, 0, x, -x).unwrap(),
                },
                rev: x as u32,
            }).collect();
            let bodies: Vec<Body> =
                spots.iter().map(|&(.., pixels, side)| body(pixels, side)).collect();
            let of: Vec<Arc<SlideInfo>> =
                spots.iter().map(|&(slide, ..)| infos[slide].clone()).collect();
            let common = |&(slide, _, grid, pixels, side): &Spot| (slide, grid, pixels, side);
            let alike = spots.first().is_some_and(|first| {
                first.2 < 2 && spots.iter().all(|spot| common(spot) == common(first))
            });
            let columns = Columns::of(&keys, &bodies, &of);
            prop_assert_eq!(columns.is_some(), alike);
            let Some(columns) = columns else { return Ok(()) };
            prop_assert_eq!(columns.places().len(), spots.len());
            prop_assert_eq!(columns.lies().len(), spots.len());
            for (i, (key, body)) in keys.iter().zip(&bodies).enumerate() {
                let place = columns.places()[i];
                let grid = of[i].grid(key.tile).unwrap();
                prop_assert_eq!(
                    (place.slide, place.tile, place.rev, place.source),
                    (key.slide.number(), key.tile.word(), key.rev, key.rev)
                );
                prop_assert_eq!((place.x, place.y), (key.tile.x(), key.tile.y()));
                prop_assert_eq!((place.footprint, place.mpp), (grid.footprint, grid.mpp));
                prop_assert_eq!((place.nth, place.reserved), (0, 0));
                let at = match body {
                    Body::Pixels(tile) => tile.pixels().as_ptr().addr(),
                    Body::Feature(feature) => feature.as_ptr().addr(),
                    _ => unreachable!(),
                };
                prop_assert_eq!(address(&columns.lies()[i]), at);
                if columns.pitch() != 0 {
                    let first = address(&columns.lies()[0]) as i64;
                    prop_assert_eq!(at as i64, first + i as i64 * columns.pitch());
                }
            }
        }
    }

    #[test]
    fn a_pitch_is_what_all_steps_are() {
        let steps = [
            (0, &[][..]),
            (0, &[5]),
            (8, &[8, 16]),
            (8, &[8, 16, 24]),
            (-8, &[24, 16, 8]),
        ];
        for (step, at) in steps {
            let lies: Vec<Lies> = at.iter().copied().map(lies).collect();
            assert_eq!(pitch(&lies), step);
        }
        assert_eq!(pitch(&[8, 16, 23].map(lies)), 0);
    }
}
