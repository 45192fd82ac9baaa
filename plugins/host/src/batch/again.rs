//! Rows that take the places of the last call's: most calls of a stage are alike but for where their values lie.

use super::{HostBatch, Of, row};
use std::ffi::c_void;
use std::sync::Arc;
use weir_record::{Body, Key, SlideInfo};

/// What the rows of an input had in common: one column, whose rows lie where the bodies have them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Pixels {
        height: u32,
        width: u32,
    },
    /// So many numbers.
    Features(usize),
}

impl Form {
    /// Of a body, and where its row lies.
    #[inline]
    pub fn of(body: &Body) -> Option<(Form, *mut c_void)> {
        let (form, lies): (Form, *const c_void) = match body {
            Body::Pixels(tile) => {
                let (height, width) = (tile.height(), tile.width());
                let form = Form::Pixels { height, width };
                (form, tile.pixels().as_ptr().cast())
            }
            Body::Feature(feature) => (Form::Features(feature.len()), feature.as_ptr().cast()),
            _ => return None,
        };
        Some((form, lies.cast_mut()))
    }
}

impl HostBatch {
    /// Puts values in the places of the last ones, where they are as many of the same slide and the same form. Else the batch is to be
    /// filled anew.
    #[inline]
    pub(super) fn refill<'a>(
        &mut self,
        values: impl ExactSizeIterator<Item = (Key, &'a Body, &'a Arc<SlideInfo>)>,
    ) -> bool {
        let (Some(form), [slide], [info]) = (self.form, &self.slides[..], &self.infos[..]) else {
            return false;
        };
        let (Of::Input(lent), Some(part)) = (&mut self.of, self.parts.first()) else {
            return false;
        };
        if values.len() != self.rows.len() || self.rows.is_empty() {
            return false;
        }
        let places = self.rows.iter_mut().zip(&mut lent.bodies);
        for ((place, lies), (key, body, of)) in places.zip(&mut part.rows).zip(values) {
            let same = Arc::ptr_eq(of, info) && key.slide.number() == slide.number;
            let Some((_, at)) = Form::of(body).filter(|(known, _)| same && *known == form) else {
                self.form = None;
                return false;
            };
            *place.0 = row(key, body, info, 0);
            *place.1 = body;
            *lies = at;
        }
        self.columns[0].pitch = part.pitch();
        true
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::batch::live::Noted;
    use proptest::prelude::*;
    use weir_record::{Feature, Grid, SlideId, SlideKey, TileBuf, TileId};

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

    /// Of a slide, its place, and of which kind and size its value is.
    type Spot = (usize, i64, bool, u32);

    fn call() -> impl Strategy<Value = Vec<Spot>> {
        let spot = (0usize..2, 0i64..100, any::<bool>(), 1u32..3);
        // Most calls are alike.
        prop_oneof![
            prop::collection::vec((Just(0usize), 0i64..100, Just(true), Just(2u32)), 1..4),
            prop::collection::vec(spot, 0..4),
        ]
    }

    proptest! {
        #[test]
        fn a_batch_that_is_filled_again_and_again_is_seen_as_one_that_is_filled_once(
            calls in prop::collection::vec(call(), 1..6)
        ) {
            let infos = ["a", "b"].map(|name| {
                let grids = vec![Grid { footprint: 256.0, mpp: 0.5, px: 256 }];
                let unopened = SlideInfo::unopened(name.into(), SlideKey(1), "a.svs".into());
                Arc::new(SlideInfo { grids, ..unopened })
            });
            let mut again = Arc::new(HostBatch::unfilled());
            for spots in calls {
                let values = spots.iter().map(|&(slide, x, pixels, size)| {
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
                        tile: TileId::new(0, 0, x, 0).unwrap(),
                        rev: x as u32,
                    };
                    (key, body, &infos[slide])
                });
                let values: Vec<_> = values.collect();
                let rows = values.iter().map(|(key, body, info)| (*key, body, *info));
                // SAFETY: the values live until both were read.
                let once = unsafe { HostBatch::input(rows.clone(), 0) };
                // SAFETY: as above.
                let said = unsafe { Arc::get_mut(&mut again).unwrap().fill(rows, 0) };
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
