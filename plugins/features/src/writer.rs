//! `features.writer`: feature files out.

use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use weir_plugin::{Batch, Call, Choice, End, Error, Result, Row, Sink, Slide};

use crate::file::FeatureFile;
use crate::layout::Layout;
use crate::output::{About, Dtype, write};

/// Numbers of the features as they are written.
#[derive(Choice, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum As {
    /// As the layout's own program: f32 for trident and clam, f16 for stamp.
    #[default]
    Layout,
    /// binary32.
    F32,
    /// binary16.
    F16,
}

/// Writes feature files in the layout of TRIDENT, CLAM or STAMP (HDF5), one a slide
///
/// FOLDER/SLIDE.h5, of clam FOLDER/h5_files/SLIDE.h5, in the folder of the run's outputs. A character of a slide's id that no file
/// name should have stands there as %XX.
///
/// | layout | features | coords | says of itself |
/// |---|---|---|---|
/// | trident | `features` [rows, numbers] f32 | i64, level-0 px | on `coords`: patch_size, patch_size_level0, overlap, level0_width, level0_height, name, savetodir; level0_magnification and target_magnification (10 um/px divided by the mpp) where the mpp is known; on `features`: encoder, name, savetodir |
/// | clam | `features` [rows, numbers] f32 | i32, level-0 px | on `coords`: patch_size (of level 0), patch_level 0, downsample 1, level_dim, downsampled_level_dim, name, save_path |
/// | stamp | `feats` [rows, numbers] f16 | f32, um | on the file: stamp_version, extractor, unit, tile_size_um, tile_size_px, code_hash, feat_type; the slide's mpp must be known |
///
/// Rows are in the order of their places, so that a file is a function of its slide. A file is written beside its place and put there
/// when it is whole; a slide that failed, or of which not everything came, has none, nor one of an earlier run. A slide without rows
/// has arrays of none. A number that is not finite or does not fit fails its slide.
#[derive(weir_plugin::Stage)]
#[stage(
    sink,
    id = "features.writer",
    state(slide = 4096, tile = 80, feature = 4),
    example = "[stage.files]
use = \"features.writer\"
in = \"encode\"
features = 128
layout = \"trident\"
encoder = \"resnet18\"
"
)]
#[input(features: features["$features"], doc = "The feature vectors to write")]
pub struct Writer {
    /// Numbers of a feature vector, which a file without rows says too
    #[param(min = 1, max = 65536)]
    features: u32,
    /// Whose layout
    #[param(default = "trident")]
    layout: Layout,
    /// Numbers of the features: `layout` is f32 for trident and clam, f16 for stamp
    #[param(default = "layout")]
    dtype: As,
    /// Folder of the files, in the run's
    #[param(default = "features")]
    folder: String,
    /// What made the features, for the file to say: `encoder` of trident, `extractor` of stamp
    #[param(default = "weir")]
    encoder: String,
    /// The run's folder.
    run: PathBuf,
    /// Slides by their numbers.
    slides: HashMap<u64, Kept>,
}

impl Sink for Writer {
    fn start(&mut self, call: &Call) -> Result<()> {
        let folder = PathBuf::from(&self.folder);
        let plain = |part| matches!(part, std::path::Component::Normal(_));
        if self.folder.is_empty() || !folder.components().all(plain) {
            return Err(Error::param(
                "folder",
                format!("{:?} is no folder within the run's", self.folder),
            )
            .help("a name, or names with slashes between them"));
        }
        self.run = call.folder().to_owned();
        Ok(())
    }

    fn take(&mut self, _: &str, batch: &Batch, _: &Call) -> Result<()> {
        let column = batch.column::<f32>("features")?;
        let dtype = self.dtype();
        for (i, row) in batch.rows().iter().enumerate() {
            let slide = batch.slide(i);
            if !self.slides.contains_key(&slide.number()) {
                let path = self.path(slide.id());
                // Of an earlier run: whatever becomes of this one, that is not its file.
                remove(&path)?;
                let kept = Kept {
                    path,
                    ..Kept::default()
                };
                self.slides.insert(slide.number(), kept);
            }
            let kept = self.slides.entry(slide.number()).or_default();
            let numbers = column.row(i);
            if numbers.len() != self.features as usize {
                return Err(Error::new(format!(
                    "a vector of {} numbers came, and the stage says features = {}",
                    numbers.len(),
                    self.features
                )));
            }
            kept.put(row, numbers, dtype, slide.tiles());
        }
        Ok(())
    }

    fn remove(&mut self, _: &str, rows: &[Row], _: &Call) -> Result<()> {
        let bytes = self.features as usize * self.dtype().size();
        for row in rows {
            if let Some(kept) = self.slides.get_mut(&row.key.slide) {
                kept.remove(row.key.tile, bytes);
            }
        }
        Ok(())
    }

    fn complete(&mut self, slide: Slide, _: u32, end: End, call: &Call) -> Result<()> {
        let path = self.path(slide.id());
        let mut kept = self.slides.remove(&slide.number()).unwrap_or_default();
        kept.path.clone_from(&path);
        let done = match end {
            End::Complete | End::Provisional => self.write(&mut kept, slide, end, call),
            End::Incomplete => {
                call.warn(&format!(
                    "{}: not everything came of it, so no file of it is written",
                    slide.id()
                ));
                remove(&path)
            }
            End::Aborted => remove(&path),
        };
        // Of a complete one nothing more is needed.
        if end != End::Complete {
            self.slides.insert(slide.number(), kept);
        }
        done.map_err(|error| match remove(&path) {
            Ok(()) => error,
            Err(left) => Error::new(format!("{}; and {}", error.message(), left.message()))
                .help(left.what_to_do()),
        })
    }

    fn close(&mut self, slide: u64) {
        // What is still here did not become complete; nobody is there to hear that a file cannot be removed.
        if let Some(kept) = self.slides.remove(&slide)
            && !kept.path.as_os_str().is_empty()
        {
            let _ = remove(&kept.path);
        }
    }
}

/// Removes a slide's file, where there is one.
fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error)
            if !matches!(
                error.kind(),
                ErrorKind::NotFound | ErrorKind::InvalidFilename
            ) =>
        {
            Err(Error::new(format!(
                "{} of an earlier run cannot be removed: {error}",
                path.display()
            ))
            .help("remove it: it is not what this run makes of its slide"))
        }
        _ => Ok(()),
    }
}

impl Writer {
    fn dtype(&self) -> Dtype {
        match self.dtype {
            As::Layout => Dtype::of(self.layout),
            As::F32 => Dtype::F32,
            As::F16 => Dtype::F16,
        }
    }

    /// Writes the slide's file. Of a provisional one the rows are taken back from the file: HDF5's writer wants them for itself, and
    /// a large slide should not be there twice.
    fn write(&self, kept: &mut Kept, slide: Slide, end: End, call: &Call) -> Result<()> {
        let bytes = self.features as usize * self.dtype().size();
        let corners = kept.sort(bytes).map_err(|what| self.unfit(&what))?;
        let rows = std::mem::take(&mut kept.rows);
        if end == End::Provisional {
            kept.lost = true;
        }
        write(&kept.path, &self.about(slide)?, &corners, rows)?;
        if end == End::Provisional {
            kept.rows = self.read_back(&kept.path, corners.len())?;
            kept.lost = false;
        }
        call.count("rows-written", corners.len() as u64);
        Ok(())
    }

    /// The rows of a file as [`Dtype::append`] wrote them.
    fn read_back(&self, path: &Path, rows: usize) -> Result<Vec<u8>> {
        let (width, dtype) = (self.features as usize, self.dtype());
        let file = FeatureFile::open(path, Some(self.layout))?;
        let mut bytes = Vec::with_capacity(rows * width * dtype.size());
        let mut numbers = vec![0.0; width];
        for row in 0..rows {
            file.row(row, &mut numbers)?;
            dtype
                .append(&numbers, &mut bytes)
                .map_err(|what| Error::new(format!("row {row} of {}: {what}", path.display())))?;
        }
        Ok(bytes)
    }

    fn unfit(&self, what: &str) -> Error {
        let error = Error::new(format!("the features cannot be written: {what}"));
        match self.dtype() {
            Dtype::F16 => error.help("set dtype = \"f32\""),
            Dtype::F32 => error,
        }
    }

    /// One size for a slide's pixel, um: no layout has a place for two.
    fn square(&self, slide: Slide, (x, y): (f64, f64)) -> Result<f64> {
        if (x / y).max(y / x) > SQUARE {
            return Err(Error::new(format!(
                "pixels of slide `{}` are {x} x {y} um, and a file of this layout holds one size for both",
                slide.id()
            ))
            .help("resample the slide to square pixels"));
        }
        Ok((x + y) / 2.0)
    }

    fn path(&self, id: &str) -> PathBuf {
        let folder = self.run.join(&self.folder);
        let folder = match self.layout {
            Layout::Clam => folder.join("h5_files"),
            Layout::Trident | Layout::Stamp => folder,
        };
        folder.join(format!("{}.h5", file_name(id)))
    }

    fn about(&self, slide: Slide) -> Result<About> {
        Ok(About {
            layout: self.layout,
            dtype: self.dtype(),
            width: self.features as usize,
            name: slide.id().to_owned(),
            encoder: self.encoder.clone(),
            folder: self.folder.clone(),
            size: slide.size(),
            mpp: slide.mpp().map(|mpp| self.square(slide, mpp)).transpose()?,
            footprint: slide.tile_footprint(),
            tile_px: slide.tile_px(),
        })
    }
}

/// As weir's own readers have it: sizes along x and y may differ by this factor.
const SQUARE: f64 = 1.01;

/// The id as a file's name; different ids have different names.
fn file_name(id: &str) -> String {
    let mut name = String::with_capacity(id.len());
    for (at, c) in id.char_indices() {
        let hidden = at == 0 && c == '.';
        let plain = !(hidden || matches!(c, '/' | '\\' | '%') || c.is_control());
        match plain {
            true => name.push(c),
            false => {
                let mut bytes = [0; 4];
                for byte in c.encode_utf8(&mut bytes).bytes() {
                    name.push_str(&format!("%{byte:02X}"));
                }
            }
        }
    }
    name
}

/// Rows of a slide, as they came.
#[derive(Default)]
struct Kept {
    /// Where its file goes.
    path: PathBuf,
    /// The host's word of each row's tile, and where it lies.
    tiles: Vec<(u64, i64, i64)>,
    /// Their features as they will lie in the file.
    rows: Vec<u8>,
    /// Place of each tile.
    places: HashMap<u64, usize>,
    /// What cannot be written, by tile.
    unfit: HashMap<u64, String>,
    /// The rows went into a file that could not be written or read again.
    lost: bool,
}

/// Corners of tiles, level-0 px.
type Corners = Vec<(i64, i64)>;

impl Kept {
    fn put(&mut self, row: &Row, numbers: &[f32], dtype: Dtype, tiles: u64) {
        let tile = row.key.tile;
        let bytes = numbers.len() * dtype.size();
        self.unfit.remove(&tile);
        if self.rows.is_empty() {
            // In one piece from the beginning: growing would copy. A source may promise anything, so no more than 1 GiB of it is taken
            // at its word.
            let promised = usize::try_from(tiles).unwrap_or(0).saturating_mul(bytes);
            self.rows.reserve_exact(promised.clamp(bytes, 1 << 30));
        }
        // A version replaces the one before it.
        self.remove(tile, bytes);
        match dtype.append(numbers, &mut self.rows) {
            Ok(()) => {
                self.places.insert(tile, self.tiles.len());
                self.tiles.push((tile, row.x, row.y));
            }
            Err(what) => {
                self.unfit.insert(
                    tile,
                    format!("of the tile at ({}, {}), {what}", row.x, row.y),
                );
            }
        }
    }

    /// Takes a row out; the last one takes its place.
    fn remove(&mut self, tile: u64, bytes: usize) {
        self.unfit.remove(&tile);
        let Some(place) = self.places.remove(&tile) else {
            return;
        };
        self.tiles.swap_remove(place);
        let last = self.tiles.len();
        if place < last {
            self.rows
                .copy_within(last * bytes..(last + 1) * bytes, place * bytes);
            self.places.insert(self.tiles[place].0, place);
        }
        self.rows.truncate(last * bytes);
    }

    /// Puts the rows by rising y, then x, without a second copy of the features; their corners.
    fn sort(&mut self, bytes: usize) -> std::result::Result<Corners, String> {
        if self.lost {
            return Err("an earlier file of the slide took them along when it failed".into());
        }
        if let Some((_, what)) = self.unfit.iter().min_by_key(|(tile, _)| **tile) {
            return Err(what.clone());
        }
        // from[i]: which row belongs to place i.
        let mut from: Vec<usize> = (0..self.tiles.len()).collect();
        from.sort_unstable_by_key(|place| {
            let (tile, x, y) = self.tiles[*place];
            (y, x, tile)
        });
        self.tiles
            .sort_unstable_by_key(|(tile, x, y)| (*y, *x, *tile));
        for (place, (tile, ..)) in self.tiles.iter().enumerate() {
            self.places.insert(*tile, place);
        }
        let mut spare = vec![0; bytes];
        for start in 0..from.len() {
            if from[start] == start {
                continue;
            }
            // A cycle of rows that take each other's places.
            spare.copy_from_slice(&self.rows[start * bytes..(start + 1) * bytes]);
            let mut place = start;
            while from[place] != start {
                let next = from[place];
                self.rows
                    .copy_within(next * bytes..(next + 1) * bytes, place * bytes);
                from[place] = place;
                place = next;
            }
            self.rows[place * bytes..(place + 1) * bytes].copy_from_slice(&spare);
            from[place] = place;
        }
        Ok(self.tiles.iter().map(|(_, x, y)| (*x, *y)).collect())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn ids_become_names_of_files_within_the_folder_and_stay_different() {
        assert_eq!(file_name("TCGA-02-0001.a b"), "TCGA-02-0001.a b");
        assert_eq!(file_name("../x"), "%2E.%2Fx");
        assert_ne!(file_name("a/b"), file_name("a%2Fb"));
    }

    fn row(tile: u64, x: i64, y: i64) -> Row {
        let mut row = Row {
            x,
            y,
            ..Row::default()
        };
        row.key.tile = tile;
        row
    }

    proptest! {
        #[test]
        fn whatever_came_and_went_the_rows_are_the_last_versions_in_the_order_of_their_places(
            news in prop::collection::vec((0_u64..12, prop::option::weighted(0.7, -9_i8..9)), 0..60),
            sorted_after in prop::collection::vec(0_usize..60, 0..3),
        ) {
            let mut kept = Kept::default();
            let mut truth: BTreeMap<(i64, i64), f32> = BTreeMap::new();
            for (at, (tile, value)) in news.into_iter().enumerate() {
                if sorted_after.contains(&at) {
                    kept.sort(4).unwrap();
                }
                let (x, y) = ((tile % 4) as i64 * 10, (tile / 4) as i64 * 10 - 10);
                match value {
                    Some(value) => {
                        let value = f32::from(value);
                        kept.put(&row(tile, x, y), &[value, -value], Dtype::F16, 12);
                        truth.insert((y, x), value);
                    }
                    None => {
                        kept.remove(tile, 4);
                        truth.remove(&(y, x));
                    }
                }
            }
            let corners = kept.sort(4).unwrap();
            let expected: Vec<_> = truth.keys().map(|(y, x)| (*x, *y)).collect();
            prop_assert_eq!(corners, expected);
            let mut bytes = Vec::new();
            for value in truth.values() {
                Dtype::F16.append(&[*value, -value], &mut bytes).unwrap();
            }
            prop_assert_eq!(kept.rows, bytes);
        }
    }

    #[test]
    fn a_row_that_does_not_fit_is_told_unless_it_is_replaced_or_withdrawn() {
        let told = |last: Option<f32>| {
            let mut kept = Kept::default();
            kept.put(&row(3, 10, 20), &[1e6], Dtype::F16, 0);
            match last {
                Some(value) => kept.put(&row(3, 10, 20), &[value], Dtype::F16, 0),
                None => kept.remove(3, 2),
            }
            kept.sort(2)
        };
        assert_eq!(told(None).unwrap(), []);
        assert_eq!(told(Some(1.0)).unwrap(), [(10, 20)]);
        let what = told(Some(f32::NAN)).unwrap_err();
        assert!(
            what.starts_with("of the tile at (10, 20), number 0 is NaN"),
            "{what}"
        );
    }
}
