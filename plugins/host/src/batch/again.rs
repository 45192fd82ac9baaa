//! Rows that are shown as their batch has them: most batches are of rows that are alike, and most calls of a stage of rows that are like
//! the last one's but for where they lie.

use super::{HostBatch, NO_INPUT, Of, Whole};
use crate::shown;
use std::hint::cold_path;
use std::mem::offset_of;
use std::sync::Arc;
use weir_abi::row::{Key, Row};
use weir_record::SlideInfo;
use weir_runtime::stage::{Alike, Batch, Columns, Place};

/// What the rows have in common that are shown as their batch has them.
#[derive(Debug)]
pub(super) struct Known {
    alike: Alike,
    /// Only to be compared: the batch holds it, so nothing else comes to lie there.
    info: *const SlideInfo,
}

// The runtime's rows are the header's.
const _: () = {
    assert!(size_of::<Place>() == size_of::<Row>() && align_of::<Place>() == align_of::<Row>());
    const KEY: usize = offset_of!(Row, key);
    assert!(offset_of!(Place, slide) == KEY + offset_of!(Key, slide));
    assert!(offset_of!(Place, tile) == KEY + offset_of!(Key, tile));
    assert!(offset_of!(Place, rev) == KEY + offset_of!(Key, rev));
    assert!(offset_of!(Place, source) == KEY + offset_of!(Key, source));
    assert!(offset_of!(Place, x) == offset_of!(Row, x));
    assert!(offset_of!(Place, y) == offset_of!(Row, y));
    assert!(offset_of!(Place, footprint) == offset_of!(Row, footprint));
    assert!(offset_of!(Place, mpp) == offset_of!(Row, mpp));
    assert!(offset_of!(Place, nth) == offset_of!(Row, slide));
    assert!(offset_of!(Place, reserved) == offset_of!(Row, reserved));
};

impl HostBatch {
    /// A batch's values, as a plugin reads them. `width` as in [`HostBatch::fill`].
    ///
    /// # Safety
    /// As [`HostBatch::fill`]; where they are shown as their batch has them, that stays as well.
    pub unsafe fn fill_with(&mut self, values: &Batch, width: usize) -> Result<(), String> {
        let (Some(columns), Some(info)) = (values.columns(), values.infos().first()) else {
            // SAFETY: the caller's.
            return unsafe { self.fill(values.rows(), width) };
        };
        if !matches!(self.of, Of::Input(_)) {
            return Err(NO_INPUT.into());
        }
        self.clear();
        let alike = *columns.alike();
        self.of_one_slide(alike.slide.number(), info);
        shown::of_form(alike.form, &mut self.parts);
        self.point();
        let info = Arc::as_ptr(info);
        self.alike = Some(Known { alike, info });
        self.show(values, columns);
        Ok(())
    }

    /// Shows a batch's rows as it has them, where they are like those that were shown last: of the same slide and grid, and of the same
    /// form. Else it is to be filled anew.
    ///
    /// # Safety
    /// As [`HostBatch::fill_with`].
    #[inline]
    pub unsafe fn refill(&mut self, values: &Batch) -> bool {
        let (Some(known), Some(columns), Some(info)) =
            (&self.alike, values.columns(), values.infos().first())
        else {
            return false;
        };
        if known.alike != *columns.alike() || known.info != Arc::as_ptr(info) {
            cold_path();
            return false;
        }
        self.show(values, columns);
        true
    }

    #[inline]
    fn show(&mut self, values: &Batch, columns: &Arc<Columns>) {
        let (Of::Input(lent), [column]) = (&mut self.of, &mut self.columns[..]) else {
            return;
        };
        self.head.n_rows = columns.places().len() as u32;
        self.head.rows = columns.places().as_ptr().cast();
        column.rows = columns.lies().as_ptr().cast();
        column.pitch = columns.pitch();
        lent.whole = Some(Whole {
            bodies: values.bodies(),
            columns: Arc::as_ptr(columns),
        });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Batch, HostBatch};
    use crate::batch::live::Noted;
    use proptest::prelude::*;
    use std::sync::Arc;
    use weir_record::{Body, Feature, Grid, Key, SlideId, SlideInfo, SlideKey, TileBuf, TileId};

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
                let first = lie.iter().map(|at| match column.dtype.bytes() {
                    1 => f32::from(*at.cast::<u8>()),
                    _ => *at.cast::<f32>(),
                });
                all.push(format!(
                    "{shape:?} {:?} {} {lie:?} {:?}",
                    column.dtype,
                    column.pitch,
                    first.collect::<Vec<f32>>()
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
            calls in prop::collection::vec((call(), any::<bool>()), 1..6)
        ) {
            let infos = ["a", "b"].map(|name| {
                let grid = |mpp| Grid { footprint: 512.0 * mpp, mpp, px: 256 };
                let grids = vec![grid(0.5), grid(1.0)];
                let unopened = SlideInfo::unopened(name.into(), SlideKey(1), "a.svs".into());
                Arc::new(SlideInfo { grids, ..unopened })
            });
            let mut again = Arc::new(HostBatch::unfilled());
            for (spots, keeps) in calls {
                let values = spots.iter().map(|&(slide, x, pixels, size, grid)| {
                    let body = match pixels {
                        true => {
                            let data = vec![x as u8; TileBuf::bytes(size, size)];
                            let tile = TileBuf::new(size, size, data.into(), None).unwrap();
                            Body::Pixels(Arc::new(tile))
                        }
                        false => {
                            let vector = vec![x as f32; size as usize];
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
                        false => filled.fill_with(&values, 0),
                    };
                    (HostBatch::input(values.rows(), 0), said)
                };
                let once = match once {
                    Ok(once) => {
                        prop_assert_eq!(said, Ok(()));
                        let once = seen(&Arc::new(once));
                        prop_assert_eq!(seen(&again), once.clone());
                        once
                    }
                    Err(what) => {
                        prop_assert_eq!(said, Err(what));
                        continue;
                    }
                };
                if keeps {
                    // A plugin that holds on to it sees it when the values' batch is long gone.
                    again.keep();
                    drop(values);
                    let others = [0; 8].map(|n| vec![n; 64]);
                    prop_assert_eq!(seen(&again), once);
                    drop(others);
                    Arc::get_mut(&mut again).unwrap().clear();
                }
            }
        }
    }
}
