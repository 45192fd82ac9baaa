//! `embedding-reader`: files of feature vectors, one a slide.

use std::collections::HashMap;
use std::sync::Arc;

use weir_pipeline::{
    Deliver, Dim, Kind, Param, ParamKind, Place, Port, Rows, RunSettings, Schema, StateArgs,
    StateBytes, ValueError, Values,
};
use weir_record::{Failure, Grid, Mpp, MppOrigin, SlideInfo, TileId};
use weir_runtime::stage::{
    OpenedSlide, Prepare, Prepared, ReadError, SlideRef, Source, StageError, StageType, TileReader,
};
use weir_slide::SlideEntry;
use weir_slide::input::Files;

use crate::done::Earlier;
use crate::feature_file::{Fault, FeatureFile};
use crate::inputs::entries;
use crate::tile_script::{Once, Sends};

/// `embedding-reader`.
pub const SCHEMA: Schema = Schema {
    name: "embedding-reader",
    summary: "Reads files of feature vectors, one a slide",
    doc: "Sends the rows of feature files, which other programs or an earlier run computed, to an `attention-pool`. `slides` names \
files, folders, patterns or manifests, as for a `tile-reader`; a slide's id is the manifest's, else the file's stem.

| file | features | places of the rows |
|---|---|---|
| NAME.safetensors | `features`, `feats` or `embeddings`, or the array that `array` names: [rows, numbers] of f32, f16 or bf16 | `coords`: [rows, 2], whole level-0 px, left and top edge of each tile; `tile_size` (level-0 px) and `mpp` (um per level-0 px) in its metadata |
| NAME.npy | [rows, numbers] of f32 or f16, little-endian, rows one behind the other | NAME.coords.npy beside it, likewise |
| NAME.h5 | not read here: the plugin `features` reads TRIDENT's, CLAM's and STAMP's files | |

Rows without places are laid out in the order of the file, in a square. No two rows may lie at one place. The answer is a function \
of the rows and their places: the order of rows in the file changes nothing, as long as the file says where they lie.

A file that is damaged or cut off fails its slide, with the byte and the reason; a row with a number that is none, or of 1e18 or more, \
is counted as a failed tile. A file without rows is a legal, empty result. Rows are read by place, under leases, so that memory is \
bounded whatever the files hold.",
    rows: Rows::Source,
    deliver: Deliver::Arrival,
    place: Place::Home,
    params: &[
        Param {
            name: "slides",
            kind: ParamKind::Slides,
            default: None,
            required: true,
            doc: "Feature files: files, folders, patterns with `*`, or manifests (CSV with the columns slide, label, split, patient, mpp)",
        },
        Param {
            name: "feature",
            kind: ParamKind::Integer {
                min: 1,
                max: 1 << 16,
            },
            default: None,
            required: true,
            doc: "Numbers of a feature vector; a file of another width fails its slide",
        },
        Param {
            name: "array",
            kind: ParamKind::Text,
            default: None,
            required: false,
            doc: "Name of the array of features in a safetensors file; `features`, `feats` or `embeddings` when it is not given",
        },
        Param {
            name: "size",
            kind: ParamKind::Integer {
                min: 1,
                max: 1 << 20,
            },
            default: None,
            required: false,
            doc: "Width and height of a row's tile, level-0 px, where the file does not say; else the smallest distance between two places of the slide",
        },
        Param {
            name: "mpp",
            kind: ParamKind::Float {
                min: 0.05,
                max: 20.0,
            },
            default: None,
            required: false,
            doc: "Size of a level-0 pixel where neither the manifest nor the file says it, um/px; else run.default-mpp, else it is not known",
        },
    ],
    ins: &[],
    outs: &[Port {
        name: "features",
        kind: Kind::Features,
        shape: &[Dim::Param("feature")],
        mpp: None,
        many: false,
        optional: false,
        doc: "The feature vector of each row",
    }],
    batch_only: false,
    state_bytes: StateBytes::Of(state_bytes),
    example: "[stage.features]
use = \"embedding-reader\"
slides = [\"features/*.safetensors\"]
feature = 1024
",
};

/// The list of the rows that are still to be read, and the row of each place.
fn state_bytes(args: &StateArgs) -> u64 {
    args.tiles * 24
}

// ------------------------------------------------------------------------------------------------------- parameters

#[derive(Clone, Debug)]
struct Settings {
    feature: u32,
    array: Option<String>,
    size: Option<f64>,
    mpp: Option<f64>,
    default_mpp: Option<f64>,
}

impl Settings {
    fn new(values: &Values, run: &RunSettings) -> Result<Self, ValueError> {
        let given = |name: &str| values.has(name);
        Ok(Settings {
            feature: values.integer("feature")?.clamp(0, u32::MAX as i64) as u32,
            array: match given("array") {
                true => Some(values.text("array")?.to_owned()),
                false => None,
            },
            size: match given("size") {
                true => Some(values.integer("size")? as f64),
                false => None,
            },
            mpp: match given("mpp") {
                true => Some(values.float("mpp")?),
                false => None,
            },
            default_mpp: run.default_mpp,
        })
    }
}

// ---------------------------------------------------------------------------------------------------- pure function

/// Side of a tile where nothing says it: of a slide with one place.
const SIDE: f64 = 256.0;

/// Where the rows of a slide lie.
#[derive(Clone, Debug, PartialEq)]
struct Layout {
    /// In the order of the file.
    tiles: Vec<TileId>,
    /// Row of each place, sorted by place.
    rows: Vec<(TileId, u32)>,
    /// Side of a tile, level-0 px.
    side: f64,
    /// Right and lower edge of the lot, level-0 px.
    extent: (u64, u64),
}

/// Lays out `count` rows at `corners`, or in a square; `said` is the side of a tile, where somebody says it. An error is what is
/// wrong with the places.
fn lay(count: usize, corners: Option<&[(i64, i64)]>, said: Option<f64>) -> Result<Layout, String> {
    let side = said.unwrap_or_else(|| corners.and_then(smallest_distance).unwrap_or(SIDE));
    let columns = (count as f64).sqrt().ceil().max(1.0) as usize;
    let step = side.round().max(1.0) as i64;
    let corner = |row: usize| match corners {
        Some(corners) => corners[row],
        None => ((row % columns) as i64 * step, (row / columns) as i64 * step),
    };
    let mut tiles = Vec::with_capacity(count);
    let mut extent = (0, 0);
    for row in 0..count {
        let (x, y) = corner(row);
        let tile = TileId::new(0, 0, x, y)
            .ok_or_else(|| format!("row {row} lies at ({x}, {y}), where no tile can be"))?;
        let end = |corner: i64| (corner as f64 + side).ceil().max(0.0) as u64;
        extent = (end(x).max(extent.0), end(y).max(extent.1));
        tiles.push(tile);
    }
    let mut rows: Vec<(TileId, u32)> = tiles.iter().copied().zip(0..).collect();
    rows.sort_unstable();
    if let Some(pair) = rows.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        let (tile, first, second) = (pair[0].0, pair[0].1, pair[1].1);
        return Err(format!(
            "the rows {first} and {second} both lie at ({}, {})",
            tile.x(),
            tile.y()
        ));
    }
    Ok(Layout {
        tiles,
        rows,
        side,
        extent,
    })
}

/// The smallest distance between two different numbers of one axis.
fn smallest_distance(corners: &[(i64, i64)]) -> Option<f64> {
    let axis = |of: fn(&(i64, i64)) -> i64| {
        let mut values: Vec<i64> = corners.iter().map(of).collect();
        values.sort_unstable();
        values.dedup();
        values
            .windows(2)
            .map(|pair| pair[1].abs_diff(pair[0]))
            .min()
    };
    let (x, y) = (axis(|corner| corner.0), axis(|corner| corner.1));
    x.into_iter().chain(y).min().map(|distance| distance as f64)
}

// ------------------------------------------------------------------------------------------------------------- glue

/// The stage type.
pub const TYPE: StageType = StageType {
    schema: &SCHEMA,
    prepare,
};

fn prepare(cx: &Prepare) -> Result<Prepared, StageError> {
    let entries = entries(cx.values().texts("slides")?, &Files::FEATURES)?;
    let slides = entries.iter().map(|entry| SlideRef {
        id: entry.id.clone(),
        key: entry.key(),
        path: entry.path.display().to_string(),
    });
    Ok(Prepared::Source(Arc::new(Embeddings {
        stage: cx.node.name.as_str().into(),
        settings: Settings::new(cx.values(), cx.run())?,
        slides: slides.collect(),
        entries: entries
            .iter()
            .map(|entry| (entry.id.clone(), entry.clone()))
            .collect(),
        earlier: Earlier::new(cx),
    })))
}

/// The feature files of a run.
struct Embeddings {
    stage: Arc<str>,
    settings: Settings,
    slides: Vec<SlideRef>,
    entries: HashMap<String, SlideEntry>,
    earlier: Earlier,
}

impl Source for Embeddings {
    fn slides(&self) -> &[SlideRef] {
        &self.slides
    }

    fn open(&self, slide: &SlideRef) -> Result<OpenedSlide, Failure> {
        let fail = |what: String, help: &str| Failure {
            stage: self.stage.to_string(),
            slide: slide.id.clone(),
            tile: None,
            what,
            help: help.to_owned(),
        };
        let broken = |fault: Fault| fail(fault.to_string(), fault.help);
        let Some(entry) = self.entries.get(&slide.id) else {
            return Err(fail(
                format!("{} is not in the list of slides", slide.path),
                "this is a fault of weir: please report it",
            ));
        };
        let settings = &self.settings;
        let file = FeatureFile::open(&entry.path, settings.array.as_deref()).map_err(broken)?;
        if file.width() != settings.feature as usize {
            return Err(fail(
                format!(
                    "{}: its features have {} numbers, and the stage says feature = {}",
                    slide.path,
                    file.width(),
                    settings.feature
                ),
                "set `feature` to the width of the files, and use a model of that width",
            ));
        }
        let corners = file.corners().map_err(broken)?;
        let side = file.said.tile_size.or(settings.size);
        let layout = lay(file.rows(), corners.as_deref(), side).map_err(|what| {
            fail(
                format!("{}: {what}", slide.path),
                "coords are the left and top edge of each row's tile, level-0 px",
            )
        })?;
        let mpp = [
            (entry.mpp, MppOrigin::Given),
            (file.said.mpp, MppOrigin::Vendor),
            (settings.mpp, MppOrigin::Default),
            (settings.default_mpp, MppOrigin::Default),
        ];
        let mpp = mpp
            .into_iter()
            .find_map(|(mpp, origin)| Some((Mpp(mpp?), origin)));
        let mut info = SlideInfo {
            id: slide.id.clone(),
            key: slide.key,
            path: slide.path.clone(),
            width: layout.extent.0,
            height: layout.extent.1,
            mpp,
            reader: file.form.clone(),
            patient: entry.patient.clone(),
            label: entry.label.clone(),
            split: entry.split.clone(),
            grids: vec![Grid {
                footprint: layout.side,
                mpp: mpp.map_or(0.0, |(mpp, _)| mpp.0),
                px: layout.side.round().clamp(1.0, f64::from(u32::MAX)) as u32,
            }],
            tiles: layout.tiles.len() as u64,
            background: 0,
            input: file.input(),
        };
        let script = match self.earlier.find(&info) {
            Some(earlier) => {
                (info.tiles, info.background) = (earlier.tiles, earlier.background);
                Once::skipped(earlier.news())
            }
            None => Once::new(
                self.stage.clone(),
                Sends::Features(settings.feature),
                layout.tiles,
            ),
        };
        Ok(OpenedSlide {
            info: Arc::new(info),
            script: Box::new(script),
            reader: Arc::new(Vectors {
                file,
                rows: layout.rows,
            }),
        })
    }
}

/// A slide's rows; a file has one revision of them.
struct Vectors {
    file: FeatureFile,
    /// Sorted by place.
    rows: Vec<(TileId, u32)>,
}

impl TileReader for Vectors {
    fn read(&self, _: TileId, _: u32, _: &mut [u8]) -> Result<(), ReadError> {
        Err(ReadError::Damaged(
            "a file of features has no pixels".into(),
        ))
    }

    fn feature(&self, tile: TileId, _: u32, into: &mut [f32]) -> Result<(), ReadError> {
        let damaged = |what: String| ReadError::Damaged(what);
        let place = self
            .rows
            .binary_search_by_key(&tile, |(tile, _)| *tile)
            .map_err(|_| damaged(format!("no row lies at ({}, {})", tile.x(), tile.y())))?;
        let row = self.rows[place].1 as usize;
        self.file
            .row(row, into)
            .map_err(|fault| damaged(fault.to_string()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rows_without_places_are_laid_out_in_a_square_in_the_order_of_the_file() {
        let layout = lay(5, None, Some(10.0)).unwrap();
        let places: Vec<_> = layout
            .tiles
            .iter()
            .map(|tile| (tile.x(), tile.y()))
            .collect();
        assert_eq!(places, [(0, 0), (10, 0), (20, 0), (0, 10), (10, 10)]);
        assert_eq!(layout.extent, (30, 20));
        assert_eq!(lay(0, None, None).unwrap().tiles, []);
    }

    #[test]
    fn the_side_of_a_tile_is_the_smallest_distance_when_nobody_says_it() {
        let corners = [(100, 0), (612, 512), (356, 768)];
        assert_eq!(lay(3, Some(&corners), None).unwrap().side, 256.0);
        assert_eq!(lay(1, Some(&corners[..1]), None).unwrap().side, SIDE);
        assert_eq!(lay(3, Some(&corners), Some(224.0)).unwrap().side, 224.0);
    }

    #[test]
    fn two_rows_at_one_place_are_refused_by_their_numbers() {
        let what = lay(3, Some(&[(5, 6), (0, 0), (5, 6)]), None).unwrap_err();
        assert_eq!(what, "the rows 0 and 2 both lie at (5, 6)");
        let what = lay(1, Some(&[(1 << 40, 0)]), None).unwrap_err();
        assert!(what.contains("where no tile can be"), "{what}");
    }

    proptest! {
        #[test]
        fn each_place_leads_to_its_row(places in prop::collection::btree_set((-500i64..500, -500i64..500), 0..60), seed: u64) {
            let mut corners: Vec<(i64, i64)> = places.into_iter().collect();
            corners.sort_by_key(|(x, y)| weir_record::id::mix(seed ^ (*x as u64) << 20 ^ *y as u64));
            let layout = lay(corners.len(), Some(&corners), None).unwrap();
            for (row, (x, y)) in corners.iter().enumerate() {
                let tile = TileId::new(0, 0, *x, *y).unwrap();
                prop_assert_eq!(layout.tiles[row], tile);
                let place = layout.rows.binary_search_by_key(&tile, |(tile, _)| *tile).unwrap();
                prop_assert_eq!(layout.rows[place].1 as usize, row);
            }
        }
    }
}
