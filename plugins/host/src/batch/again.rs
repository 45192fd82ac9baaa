//! Rows that take the places of the last call's: most calls of a stage are alike but for where their values lie.

use super::{HostBatch, Of};
use std::ffi::c_void;
use std::hint::cold_path;
use std::sync::Arc;
use weir_abi::row::Row;
use weir_record::{Body, Key, SlideId, SlideInfo, TileId};
use weir_runtime::stage::Batch;

/// What the rows of an input have in common whose places the next one's can take: slide and grid, and one column, whose rows lie where
/// the bodies have them; and where those places are, as long as the batch's lists are what they are.
#[derive(Debug)]
pub(super) struct Alike {
    n: usize,
    slide: SlideId,
    /// Only to be compared: the batch holds it, so nothing else comes to lie there.
    info: *const SlideInfo,
    rows: *mut Row,
    bodies: *mut *const Body,
    lies: *mut *mut c_void,
    grid: u8,
    form: Form,
}

#[derive(Clone, Copy, Debug)]
enum Form {
    /// Height and width.
    Pixels(u32, u32),
    /// So many numbers.
    Features(usize),
}

impl HostBatch {
    /// What the rows that are there have in common, by their keys; `None` where the next one's cannot take their places.
    pub(super) fn alike(&mut self, keys: impl Iterator<Item = Key>) -> Option<Alike> {
        let form = match self.body(0)? {
            Body::Pixels(tile) => Form::Pixels(tile.height(), tile.width()),
            Body::Feature(feature) => Form::Features(feature.len()),
            _ => return None,
        };
        let mut of = keys.map(|key| (key.slide, key.tile.grid()));
        let (slide, grid) = of.next()?;
        let alike = of.all(|next| next == (slide, grid)) && grid != TileId::SLIDE.grid();
        let (Of::Input(lent), [info]) = (&mut self.of, &self.infos[..]) else {
            return None;
        };
        let part = self.parts.first()?;
        let n = self.rows.len();
        let whole = alike && lent.bodies.len() == n && part.rows.len() == n;
        let alike = Alike {
            n,
            slide,
            info: Arc::as_ptr(info),
            rows: self.rows.as_mut_ptr(),
            bodies: lent.bodies.as_mut_ptr(),
            lies: part.rows.as_mut_ptr(),
            grid,
            form,
        };
        Some(alike).filter(|_| whole)
    }

    /// Puts values in the places of the last ones, where they are as many of the same slide and grid and the same form. Else the batch
    /// is to be filled anew.
    ///
    /// # Safety
    /// As [`HostBatch::fill`].
    #[inline]
    pub unsafe fn refill(&mut self, values: &Batch) -> bool {
        let Some(alike) = &self.alike else {
            return false;
        };
        let done = match alike.form {
            Form::Pixels(height, width) => alike.replace(values, |body| match body {
                Body::Pixels(tile) if tile.height() == height && tile.width() == width => {
                    Some(tile.pixels().as_ptr().cast())
                }
                _ => None,
            }),
            Form::Features(n) => alike.replace(values, |body| match body {
                Body::Feature(feature) if feature.len() == n => Some(feature.as_ptr().cast()),
                _ => None,
            }),
        };
        match done {
            Some(1) => true,
            Some(_) => self.spaced(),
            None => {
                cold_path();
                self.alike = None;
                false
            }
        }
    }

    /// Notes how far rows lie apart.
    fn spaced(&mut self) -> bool {
        let pitch = self.parts.first().map_or(0, |part| part.pitch());
        self.columns
            .iter_mut()
            .for_each(|column| column.pitch = pitch);
        true
    }
}

impl Alike {
    /// Puts values in their places, where `lies` says where the row of a body lies that fits; how many. What they have in common stays
    /// as it is.
    #[inline]
    fn replace(
        &self,
        values: &Batch,
        lies: impl Fn(&Body) -> Option<*const c_void>,
    ) -> Option<usize> {
        let (keys, bodies, infos) = (values.keys(), values.bodies(), values.infos());
        if keys.len() != self.n || bodies.len() != self.n || infos.len() != self.n {
            return None;
        }
        for i in 0..self.n {
            let (key, body) = (&keys[i], &bodies[i]);
            let same = key.slide == self.slide && key.tile.grid() == self.grid;
            if !same || Arc::as_ptr(&infos[i]) != self.info {
                return None;
            }
            let at = lies(body)?.cast_mut();
            // SAFETY: the batch's own lists, which `fill` and `clear` alone change, and these make this anew or drop it; they have `n`
            // places each, and who refills the batch has it alone.
            unsafe {
                let row = &mut *self.rows.add(i);
                row.key.tile = key.tile.word();
                (row.key.rev, row.key.source) = (key.rev, key.rev);
                (row.x, row.y) = (key.tile.x(), key.tile.y());
                *self.bodies.add(i) = body;
                *self.lies.add(i) = at;
            }
        }
        Some(self.n)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::batch::live::Noted;
    use proptest::prelude::*;
    use weir_record::{Feature, Grid, SlideKey, TileBuf};

    /// All that a plugin can read of a batch.
    fn seen(batch: &Arc<HostBatch>) -> Vec<String> {
        // SAFETY: a batch of the host's, whose lists are as long as they say.
        unsafe {
            let head = &*batch.as_ptr();
            let n = head.n_rows as usize;
            let rows = std::slice::from_raw_parts(head.rows, n).iter();
            let mut all: Vec<String> = rows.map(|row| format!("{row:?}")).collect();
            for column in std::slice::from_raw_parts(head.columns, head.n_columns as usize) {
                let shape = std::slice::from_raw_parts(column.shape, column.ndim as usize);
                let lie = std::slice::from_raw_parts(column.rows, n);
                all.push(format!(
                    "{shape:?} {:?} {} {lie:?}",
                    column.dtype, column.pitch
                ));
            }
            let slides = std::slice::from_raw_parts(head.slides, head.n_slides as usize);
            all.extend(slides.iter().map(|slide| {
                let id = weir_abi::desk::text((**slide).id);
                format!("{} {id}", (**slide).number)
            }));
            all
        }
    }

    /// Of a slide, its place, of which kind and size its value is, and its grid; the last: the slide as a whole.
    type Spot = (usize, i64, bool, u32, u8);

    fn call() -> impl Strategy<Value = Vec<Spot>> {
        let spot = (0usize..2, 0i64..100, any::<bool>(), 1u32..3, 0u8..4);
        // Most calls are alike.
        prop_oneof![
            prop::collection::vec(
                (Just(0usize), 0i64..100, Just(true), Just(2u32), Just(0u8)),
                1..4
            ),
            prop::collection::vec(
                (Just(0usize), 0i64..100, Just(false), Just(2u32), 0u8..4),
                1..4
            ),
            prop::collection::vec(spot, 0..4),
        ]
    }

    proptest! {
        #[test]
        fn a_batch_that_is_filled_again_and_again_is_seen_as_one_that_is_filled_once(
            calls in prop::collection::vec(call(), 1..6)
        ) {
            let infos = ["a", "b"].map(|name| {
                let grid = |mpp| Grid { footprint: 512.0 * mpp, mpp, px: 256 };
                let grids = vec![grid(0.5), grid(1.0)];
                let unopened = SlideInfo::unopened(name.into(), SlideKey(1), "a.svs".into());
                Arc::new(SlideInfo { grids, ..unopened })
            });
            let mut again = Arc::new(HostBatch::unfilled());
            for spots in calls {
                let values = spots.iter().map(|&(slide, x, pixels, size, grid)| {
                    let body = match pixels {
                        true => {
                            let data = vec![0; TileBuf::bytes(size, size)];
                            let tile = TileBuf::new(size, size, data.into(), None).unwrap();
                            Body::Pixels(Arc::new(tile))
                        }
                        false => {
                            let vector = vec![0.0; size as usize];
                            Body::Feature(Arc::new(Feature::new(vector, None)))
                        }
                    };
                    let key = Key {
                        slide: SlideId::new(0, slide as u64),
                        tile: match grid {
                            3 => TileId::SLIDE,
                            grid => TileId::new(grid, 0, x, 0).unwrap(),
                        },
                        rev: x as u32,
                    };
                    (key, body, &infos[slide])
                });
                let values = values.map(|(key, body, info)| (key, body, info.clone(), None));
                let values = Batch::new(values.collect(), 1);
                let filled = Arc::get_mut(&mut again).unwrap();
                // SAFETY: the values live until both were read.
                let (once, said) = unsafe {
                    let said = match filled.refill(&values) {
                        true => Ok(()),
                        false => filled.fill(values.rows(), 0),
                    };
                    (HostBatch::input(values.rows(), 0), said)
                };
                match once {
                    Ok(once) => {
                        prop_assert_eq!(said, Ok(()));
                        prop_assert_eq!(seen(&again), seen(&Arc::new(once)));
                    }
                    Err(what) => prop_assert_eq!(said, Err(what)),
                }
            }
        }
    }
}
