//! Input for a stage.

use super::memory::{HostBatch, Origin, RowMemory, Spec, Store};
use super::slides::{SlideBox, Slides, tile};
use crate::abi;
use crate::abi::column::Dtype;
use crate::abi::row::{Key, Row};
use crate::batch::Element;
use crate::source::SlideInfo;
use std::sync::Arc;
use std::sync::atomic::AtomicIsize;

/// Rows of one port, which may be of several slides.
#[derive(Clone)]
pub struct Rows {
    specs: Vec<Spec>,
    rows: Vec<OneRow>,
    slides: Vec<SlideInfo>,
    footprint: f64,
    mpp: f64,
    whole_slide: bool,
}

#[derive(Clone)]
struct OneRow {
    slide: String,
    x: i64,
    y: i64,
    rev: u32,
    values: Vec<Arc<RowMemory>>,
}

impl Rows {
    fn new(specs: Vec<Spec>) -> Rows {
        Rows {
            specs,
            rows: Vec::new(),
            slides: Vec::new(),
            footprint: 0.0,
            mpp: 0.0,
            whole_slide: false,
        }
    }

    /// Tiles of `width` x `height` px; a row's values are interleaved RGB.
    pub fn pixels(width: u32, height: u32) -> Rows {
        let shape = [i64::from(height), i64::from(width), 3];
        Rows {
            footprint: f64::from(width),
            ..Rows::new(vec![Spec::new("pixels", Dtype::U8, &shape)])
        }
    }

    /// Feature vectors of `d` numbers.
    pub fn features(d: usize) -> Rows {
        Rows::new(vec![Spec::new("features", Dtype::F32, &[d as i64])])
    }

    /// Scores: of each row the score, then the probabilities of so many classes.
    pub fn scores(classes: usize) -> Rows {
        Rows::new(vec![
            Spec::new("score", Dtype::F32, &[]),
            Spec::new("probabilities", Dtype::F32, &[classes as i64]),
        ])
    }

    /// Predictions of slides, of each row logits and probabilities of so many classes, and the class.
    pub fn predictions(classes: usize) -> Rows {
        let classes = classes as i64;
        Rows {
            whole_slide: true,
            ..Rows::new(vec![
                Spec::new("logits", Dtype::F32, &[classes]),
                Spec::new("probabilities", Dtype::F32, &[classes]),
                Spec::new("class", Dtype::I32, &[]),
            ])
        }
    }

    /// Attention: logit, weight, contribution, without.
    pub fn attention() -> Rows {
        let columns = ["logit", "weight", "contribution", "without"];
        Rows::new(columns.map(|name| Spec::new(name, Dtype::F32, &[])).into())
    }

    /// Rows of a table, each a text of its own length.
    pub fn table() -> Rows {
        Rows::new(vec![Spec::new("bytes", Dtype::U8, &[-1])])
    }

    /// Nothing yet: columns follow by [`Rows::column`].
    pub fn of_columns() -> Rows {
        Rows::new(Vec::new())
    }

    /// A further column, before any row.
    pub fn column<T: Element>(mut self, name: &str, shape: &[i64]) -> Rows {
        assert!(self.rows.is_empty(), "columns come before rows");
        self.specs.push(Spec::new(name, T::DTYPE, shape));
        self
    }

    /// Side of the tiles' footprint, level-0 px, and um/px of their pixels.
    pub fn scale(mut self, footprint: f64, mpp: f64) -> Rows {
        (self.footprint, self.mpp) = (footprint, mpp);
        self
    }

    /// What is known of a slide; without it, its id.
    pub fn slide(mut self, slide: SlideInfo) -> Rows {
        self.slides.push(slide);
        self
    }

    /// A row of a slide at (x, y), level-0 px, with the values of the only column.
    ///
    /// # Panics
    /// When there are several columns, or another type or number of values.
    pub fn push<T: Element>(self, slide: &str, x: i64, y: i64, values: &[T]) -> Rows {
        assert_eq!(self.specs.len(), 1, "there are several columns: push_all");
        let spec = &self.specs[0];
        assert!(
            spec.dtype == T::DTYPE,
            "column `{}` does not hold {}: write the values with their type, as 7_u8",
            spec.name,
            T::NAME
        );
        self.row(slide, x, y, vec![(T::DTYPE, to_bytes(values))])
    }

    /// A row of scores.
    ///
    /// # Panics
    /// When the columns are not those of [`Rows::scores`].
    pub fn push_scores(
        self,
        slide: &str,
        x: i64,
        y: i64,
        score: f32,
        probabilities: &[f32],
    ) -> Rows {
        let values = vec![
            (Dtype::F32, to_bytes(&[score])),
            (Dtype::F32, to_bytes(probabilities)),
        ];
        self.row(slide, x, y, values)
    }

    /// A prediction of a slide.
    ///
    /// # Panics
    /// When the columns are not those of [`Rows::predictions`].
    pub fn push_prediction(
        self,
        slide: &str,
        logits: &[f32],
        probabilities: &[f32],
        class: i32,
    ) -> Rows {
        let values = vec![
            (Dtype::F32, to_bytes(logits)),
            (Dtype::F32, to_bytes(probabilities)),
            (Dtype::I32, to_bytes(&[class])),
        ];
        self.row(slide, 0, 0, values)
    }

    /// A row with the values of each column as bytes in this machine's order.
    ///
    /// # Panics
    /// When they are not as many as the columns say.
    pub fn push_all(self, slide: &str, x: i64, y: i64, values: &[&[u8]]) -> Rows {
        assert_eq!(values.len(), self.specs.len(), "a value a column");
        let values = self.specs.iter().zip(values);
        let values = values
            .map(|(spec, bytes)| (spec.dtype, bytes.to_vec()))
            .collect();
        self.row(slide, x, y, values)
    }

    /// The last row is revision `rev` of its tile.
    pub fn rev(mut self, rev: u32) -> Rows {
        if let Some(row) = self.rows.last_mut() {
            row.rev = rev;
        }
        self
    }

    fn row(mut self, slide: &str, x: i64, y: i64, values: Vec<(Dtype, Vec<u8>)>) -> Rows {
        assert_eq!(values.len(), self.specs.len(), "a value a column");
        for (spec, (dtype, bytes)) in self.specs.iter().zip(&values) {
            assert_eq!(
                spec.dtype, *dtype,
                "column `{}` is of another type",
                spec.name
            );
            let open = spec.shape.contains(&-1);
            let unit = spec.bytes().max(1);
            assert!(
                if open {
                    bytes.len().is_multiple_of(unit)
                } else {
                    bytes.len() == spec.bytes()
                },
                "column `{}` takes {} bytes a row, not {}",
                spec.name,
                spec.bytes(),
                bytes.len()
            );
        }
        let values = values
            .iter()
            .map(|(_, bytes)| RowMemory::copy_of(bytes))
            .collect();
        let slide = slide.to_owned();
        self.rows.push(OneRow {
            slide,
            x,
            y,
            rev: 0,
            values,
        });
        self
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(super) fn shape(&self) -> Option<&[i64]> {
        self.specs.last().map(|spec| spec.shape.as_slice())
    }

    fn info(&self, id: &str) -> SlideInfo {
        let known = self.slides.iter().find(|slide| slide.id == id).cloned();
        known.unwrap_or_else(|| SlideInfo {
            id: id.into(),
            path: id.into(),
            ..SlideInfo::default()
        })
    }

    /// The rows' keys and places, and their slides.
    pub(super) fn places(&self, known: &Slides) -> (Vec<Row>, Vec<Arc<SlideBox>>) {
        let mut slides: Vec<Arc<SlideBox>> = Vec::new();
        let mut rows = Vec::with_capacity(self.rows.len());
        for row in &self.rows {
            let slide = known.get(&self.info(&row.slide));
            let place = match slides.iter().position(|it| Arc::ptr_eq(it, &slide)) {
                Some(place) => place,
                None => {
                    slides.push(slide.clone());
                    slides.len() - 1
                }
            };
            rows.push(Row {
                key: Key {
                    slide: slide.raw.number,
                    tile: match self.whole_slide {
                        true => abi::row::TILE_SLIDE,
                        false => tile(row.x, row.y),
                    },
                    rev: row.rev,
                    source: row.rev,
                },
                x: row.x,
                y: row.y,
                footprint: self.footprint,
                mpp: self.mpp,
                slide: place as u32,
                reserved: 0,
            });
        }
        (rows, slides)
    }

    /// As a batch with one reference, in memory of its own unless the rows are given away.
    pub(super) fn batch(
        self,
        known: &Slides,
        live: &Arc<AtomicIsize>,
        port: u32,
    ) -> *mut abi::column::Batch {
        let (rows, slides) = self.places(known);
        let columns = self.specs.iter().enumerate();
        let columns = columns
            .map(|(i, spec)| Store {
                spec: spec.clone(),
                rows: self.rows.iter().map(|row| row.values[i].clone()).collect(),
            })
            .collect();
        let origins = (0..rows.len() as u32).map(Origin::Input).collect();
        // What this held goes, so that rows that nobody else holds show as such.
        drop(self);
        HostBatch::give(live, port, rows, slides, columns, origins, false)
    }
}

fn to_bytes<T: Element>(values: &[T]) -> Vec<u8> {
    // SAFETY: an element is plain bytes.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast::<u8>(), size_of_val(values)) }
        .to_vec()
}
