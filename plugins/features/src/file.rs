//! A file of features, open: what it holds, and its rows a block at a time.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use half::f16;
use hdf5_pure::{
    Chunk, Dataset, Datatype, DatatypeByteOrder, File, FixedPointLayout, FloatingPointLayout,
};
use weir_plugin::{Error, Result};

use crate::corners::{Corners, smallest_distance};
use crate::layout::{Attributes, Layout, Length, SIDE, Said, Unit, detect, said};

/// Rows that a file may have: what says more is damaged.
const MOST_ROWS: u64 = 1 << 22;
/// Numbers of a row.
const MOST_NUMBERS: u64 = 1 << 16;
/// Bytes that are read at a time, where a chunk of the file is not larger.
const BLOCK: usize = 1 << 20;
/// Bytes of a chunk of the file, unpacked.
const MOST_CHUNK: u64 = 1 << 28;
/// Bytes of an array that cannot be read in part.
const MOST_WHOLE: u64 = 1 << 30;
/// Blocks that are kept: rows are asked for about in their order, on several threads.
const KEPT: usize = 4;
/// Places that are read at a time.
const PLACES: u64 = 1 << 16;
/// Greater numbers are none that a model makes: as the engine's own reader has it.
const GREATEST: f32 = 1e18;

/// How numbers lie in the file.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    F16,
    F32,
    F64,
    Int { size: usize, signed: bool },
}

/// How numbers lie in the file.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Numbers {
    kind: Kind,
    big_endian: bool,
}

/// binary16.
pub(crate) const BINARY16: FloatingPointLayout = FloatingPointLayout {
    bit_offset: 0,
    bit_precision: 16,
    exponent_location: 10,
    exponent_size: 5,
    mantissa_location: 0,
    mantissa_size: 10,
    exponent_bias: 15,
};

impl Numbers {
    fn of(dtype: &Datatype) -> Option<Numbers> {
        match dtype {
            Datatype::FloatingPoint {
                size,
                byte_order,
                layout,
            } => {
                let kind = match (size, layout) {
                    (2, layout) if *layout == BINARY16 => Kind::F16,
                    (4, layout) if *layout == FloatingPointLayout::IEEE754_BINARY32 => Kind::F32,
                    (8, layout) if *layout == FloatingPointLayout::IEEE754_BINARY64 => Kind::F64,
                    _ => return None,
                };
                Numbers::in_order(kind, *byte_order)
            }
            Datatype::FixedPoint {
                size,
                byte_order,
                layout,
            } => {
                let FixedPointLayout {
                    signed,
                    bit_offset,
                    bit_precision,
                } = *layout;
                let size = *size as usize;
                let whole = matches!(size, 1 | 2 | 4 | 8)
                    && bit_offset == 0
                    && usize::from(bit_precision) == 8 * size;
                match whole {
                    true => Numbers::in_order(Kind::Int { size, signed }, *byte_order),
                    false => None,
                }
            }
            _ => None,
        }
    }

    fn in_order(kind: Kind, order: DatatypeByteOrder) -> Option<Numbers> {
        let big_endian = match order {
            DatatypeByteOrder::LittleEndian => false,
            DatatypeByteOrder::BigEndian => true,
            _ => return None,
        };
        Some(Numbers { kind, big_endian })
    }

    fn size(self) -> usize {
        match self.kind {
            Kind::F16 => 2,
            Kind::F32 => 4,
            Kind::F64 => 8,
            Kind::Int { size, .. } => size,
        }
    }

    /// The number whose bytes these are, `size` of them.
    fn read(self, bytes: &[u8]) -> f64 {
        let mut word = [0; 8];
        for (place, byte) in bytes.iter().take(8).enumerate() {
            let place = if self.big_endian {
                bytes.len().min(8) - 1 - place
            } else {
                place
            };
            word[place] = *byte;
        }
        let bits = u64::from_le_bytes(word);
        match self.kind {
            Kind::F16 => f16::from_bits(bits as u16).to_f64(),
            Kind::F32 => f64::from(f32::from_bits(bits as u32)),
            Kind::F64 => f64::from_bits(bits),
            Kind::Int { size, signed: true } => {
                let unused = 64 - 8 * size as u32;
                (((bits << unused) as i64) >> unused) as f64
            }
            Kind::Int { signed: false, .. } => bits as f64,
        }
    }
}

impl Numbers {
    /// As many numbers as `into` has places. What most files hold goes fast.
    fn fill(self, bytes: &[u8], into: &mut [f32]) {
        match self.kind {
            Kind::F32 if !self.big_endian => {
                let (words, _) = bytes.as_chunks::<4>();
                for (number, word) in into.iter_mut().zip(words) {
                    *number = f32::from_le_bytes(*word);
                }
            }
            Kind::F16 if !self.big_endian => {
                let (words, _) = bytes.as_chunks::<2>();
                for (number, word) in into.iter_mut().zip(words) {
                    *number = f16::from_le_bytes(*word).to_f32();
                }
            }
            _ => {
                for (number, bytes) in into.iter_mut().zip(bytes.chunks_exact(self.size())) {
                    *number = self.read(bytes) as f32;
                }
            }
        }
    }
}

/// Rows that were read together, or why they could not be.
type Block = Result<Arc<Vec<u8>>>;

/// A file of features.
pub struct FeatureFile {
    /// Whose layout it has.
    pub layout: Layout,
    /// Numbers of a row; 0 where the file has no rows and does not say how wide they would be.
    pub width: usize,
    /// Rows.
    pub rows: usize,
    /// What its attributes say.
    pub said: Said,
    /// Of each row, in the unit that `said` names; `None` where the file has no places.
    places: Option<Vec<(f64, f64)>>,
    features: Dataset,
    numbers: Numbers,
    /// Rows that are read at a time.
    per_block: usize,
    /// The latest first.
    blocks: Mutex<VecDeque<(usize, Block)>>,
}

impl FeatureFile {
    /// Opens a file; reads its places, and nothing yet of its features.
    ///
    /// # Errors
    /// When it is damaged, none of the layouts, or not the one that `layout` says.
    pub fn open(path: &Path, layout: Option<Layout>) -> Result<FeatureFile> {
        sheltered(|| FeatureFile::open_it(path, layout))
    }

    fn open_it(path: &Path, layout: Option<Layout>) -> Result<FeatureFile> {
        let broken = |error: hdf5_pure::Error| {
            Error::new(format!("it cannot be read as HDF5: {error}"))
                .help("the file is cut off, damaged, or no HDF5: write it again")
        };
        let file = File::open_streaming(path).map_err(broken)?;
        let length = file.file_size();
        let names = file.root().datasets().map_err(broken)?;
        let array = ["feats", "features"]
            .into_iter()
            .find(|name| names.iter().any(|known| known == name))
            .ok_or_else(|| {
                Error::new(format!(
                    "it has no array `features` or `feats`; it has: {}",
                    list(&names)
                ))
                .help("this reads the feature files of TRIDENT, CLAM and STAMP")
            })?;
        let features = file.dataset(array).map_err(broken)?;
        let (rows, width, flat) = shape(&features, array)?;
        let none = rows == 0 && width == 0;
        if rows > MOST_ROWS || !none && !(1..=MOST_NUMBERS).contains(&width) {
            return Err(Error::new(format!(
                "`{array}` is said to have {rows} rows of {width} numbers, and no file of features has more than {MOST_ROWS} rows \
                 of 1 to {MOST_NUMBERS}"
            )));
        }
        let numbers = numbers(&features, array)?;
        let row_bytes = width as usize * numbers.size();
        let chunk_rows = chunk_rows(&features, array, numbers.size(), length)?;
        let per_block = match flat {
            // A dimension of 1 stands before the rows, and only the first can be read in part.
            false if rows * row_bytes as u64 > MOST_WHOLE => {
                return Err(Error::new(format!(
                    "`{array}` has a dimension of 1 before its rows, so that it is read whole, and is larger than {} MiB",
                    MOST_WHOLE >> 20
                ))
                .help("write it again as [rows, numbers]"));
            }
            false => rows.max(1) as usize,
            true => per_block(chunk_rows, row_bytes),
        };

        let mut coords = Attributes::default();
        let mut places = None;
        if names.iter().any(|name| name == "coords") {
            let dataset = file.dataset("coords").map_err(broken)?;
            coords = Attributes(dataset.attrs().map_err(broken)?);
            places = Some(read_places(&dataset, rows, length)?);
        }
        let found = layout.unwrap_or_else(|| detect(array, &coords));
        if found.array() != array {
            return Err(Error::new(format!(
                "layout = \"{found}\" has its features in `{}`, and this file in `{array}`",
                found.array()
            ))
            .help("set layout to \"auto\""));
        }
        // Files that say nothing of themselves may be either's.
        let whose = detect(array, &coords);
        let says = whose == Layout::Clam || coords.has(SIDE);
        if found != whose && says {
            return Err(Error::new(format!(
                "layout = \"{found}\", and what this file says of its `coords` only {whose} writes"
            ))
            .help("set layout to \"auto\""));
        }
        let root = Attributes(file.root().attrs().map_err(broken)?);
        let stride = match found {
            Layout::Stamp => places.as_deref().and_then(stride),
            Layout::Trident | Layout::Clam => None,
        };
        let said = match &places {
            Some(_) => said(found, &root, &coords, stride).map_err(Error::new)?,
            None => Said::default(),
        };
        Ok(FeatureFile {
            layout: found,
            width: width as usize,
            rows: rows as usize,
            said,
            places,
            features,
            numbers,
            per_block,
            blocks: Mutex::default(),
        })
    }

    /// um/px of level 0 that make the places whole px where nobody else says it: of STAMP's files the tile's own.
    pub fn tile_mpp(&self) -> Option<f64> {
        match (self.said.side, self.said.tile_px) {
            (Some(Length::Um(side)), Some(px)) => Some(side / px),
            _ => None,
        }
    }

    /// Where the rows lie. `mpp` is the size of a level-0 px, um, which places in um need; `side` that of a tile, level-0 px, where
    /// the file does not say it.
    ///
    /// # Errors
    /// When a place is no whole px, none where a slide reaches, or two are the same.
    pub fn corners(&self, mpp: Option<f64>, side: Option<f64>) -> Result<Corners> {
        let side = self.side(mpp).or(side);
        let Some(places) = &self.places else {
            return Corners::square(self.rows, side).map_err(Error::new);
        };
        let scale = match (self.said.unit, mpp) {
            (Unit::Px, _) => None,
            (Unit::Um(unit), Some(mpp)) => Some(unit / mpp),
            (Unit::Um(_), None) => {
                return Err(
                    Error::new("its places are in um, and nobody says the size of a px")
                        .help("give mpp as a parameter, or in a manifest of slides"),
                );
            }
        };
        let corner = |row: usize, value: f64| -> Result<i64> {
            let px = match scale {
                Some(scale) => (value * scale).round(),
                None => value,
            };
            match px.is_finite() && px.fract() == 0.0 && px.abs() < 9e15 {
                true => Ok(px as i64),
                false => Err(Error::new(format!(
                    "row {row} of `coords` is at {value}, which is no whole px"
                ))),
            }
        };
        let mut at = Vec::with_capacity(places.len());
        for (row, (x, y)) in places.iter().enumerate() {
            at.push((corner(row, *x)?, corner(row, *y)?));
        }
        Corners::new(at, side).map_err(Error::new)
    }

    /// Side of a tile as the file says it, level-0 px.
    fn side(&self, mpp: Option<f64>) -> Option<f64> {
        match self.said.side? {
            Length::Px(px) => Some(px),
            Length::Um(um) => Some(um / mpp?),
        }
    }

    /// Writes the numbers of row `row` into `into`, which has `width` places.
    ///
    /// # Errors
    /// When they cannot be read, or one of them is no finite number below 1e18.
    pub fn row(&self, row: usize, into: &mut [f32]) -> Result<()> {
        if row >= self.rows || into.len() != self.width {
            return Err(Error::new(format!(
                "row {row} of {} numbers was asked for, and the file has {} of {}",
                into.len(),
                self.rows,
                self.width
            )));
        }
        let block = self.block(row / self.per_block)?;
        let size = self.numbers.size();
        let from = (row % self.per_block) * self.width * size;
        let bytes = block
            .get(from..from + self.width * size)
            .ok_or_else(|| Error::new(format!("the file ends before row {row}")))?;
        self.numbers.fill(bytes, into);
        let fits = |number: &f32| number.is_finite() && number.abs() < GREATEST;
        match into.iter().position(|number| !fits(number)) {
            None => Ok(()),
            Some(at) => Err(Error::new(format!(
                "number {at} of row {row} is {}, and numbers are finite and below 1e18",
                into[at]
            ))),
        }
    }

    /// Rows `per_block * number` and on, as they lie in the file. What could not be read is not tried for each of its rows again.
    fn block(&self, number: usize) -> Result<Arc<Vec<u8>>> {
        let mut blocks = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = blocks.iter().position(|(known, _)| *known == number) {
            blocks.make_contiguous()[..=place].rotate_right(1);
            return blocks[0].1.clone();
        }
        // The oldest goes first, so that there are never more.
        blocks.truncate(KEPT - 1);
        let (from, count) = match self.per_block >= self.rows {
            true => (0, u64::MAX),
            false => ((number * self.per_block) as u64, self.per_block as u64),
        };
        let block = sheltered(|| {
            let bytes = self.features.read_raw_rows(from, count).map_err(|error| {
                Error::new(format!("rows from {from} on cannot be read: {error}"))
            })?;
            Ok(Arc::new(bytes))
        });
        blocks.push_front((number, block.clone()));
        block
    }
}

/// Runs what looks into a foreign file: were there a mistake in the library, it would be this file's failure and not the stage's end.
fn sheltered<R>(body: impl FnOnce() -> Result<R>) -> Result<R> {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|payload| {
        let what = payload
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "no message".into());
        Err(Error::new(format!("reading it failed by a panic: {what}"))
            .help("the file is damaged in a way that its reader does not know: please report it"))
    })
}

/// Rows and numbers of an array, and whether the rows are its first dimension: TRIDENT's older files have one of 1 before. Of a slide
/// without patches its files have `[0]`, where the encoder does not say how wide its vectors are.
fn shape(dataset: &Dataset, name: &str) -> Result<(u64, u64, bool)> {
    let shape = dataset.shape().map_err(|error| unreadable(name, &error))?;
    match shape[..] {
        [0] => Ok((0, 0, true)),
        [rows, width] => Ok((rows, width, true)),
        [1, rows, width] => Ok((rows, width, false)),
        _ => Err(Error::new(format!(
            "`{name}` has the shape {shape:?}, and rows of numbers are [rows, numbers]"
        ))
        .help(match shape.len() {
            1 => "it seems to hold one vector for the whole slide: take the file of its tiles",
            _ => "",
        })),
    }
}

fn numbers(dataset: &Dataset, name: &str) -> Result<Numbers> {
    let dtype = dataset
        .datatype()
        .map_err(|error| unreadable(name, &error))?;
    Numbers::of(&dtype).ok_or_else(|| {
        let shown = dataset
            .dtype()
            .map_or_else(|_| String::new(), |dtype| format!(" ({dtype})"));
        Error::new(format!(
            "the numbers of `{name}` are of a type that is not read{shown}"
        ))
        .help("they are f16, f32, f64 or whole numbers")
    })
}

/// Rows of a chunk of the file; `None` where it has none. Each chunk is looked at: what a damaged index says of one would be asked of
/// the memory before the file shows that it does not have it, and one that is missing would be read as zeros.
fn chunk_rows(dataset: &Dataset, name: &str, size: usize, length: u64) -> Result<Option<u64>> {
    let broken = |error| unreadable(name, &error);
    let Some(sides) = dataset.chunk_shape().map_err(broken)? else {
        return Ok(None);
    };
    let shape = dataset.shape().map_err(broken)?;
    let bytes = sides
        .iter()
        .try_fold(size as u64, |all, side| all.checked_mul(*side));
    let fits = bytes.is_some_and(|bytes| bytes <= MOST_CHUNK);
    if !fits || sides.len() != shape.len() || sides.contains(&0) {
        return Err(Error::new(format!(
            "the chunks of `{name}` are {sides:?}, which is none of its shape, or more than {} MiB",
            MOST_CHUNK >> 20
        )));
    }
    let chunks = dataset.chunks().map_err(broken)?;
    let beyond = |chunk: &Chunk| {
        chunk.storage_size > MOST_CHUNK
            || chunk
                .address
                .checked_add(chunk.storage_size)
                .is_none_or(|end| end > length)
    };
    if let Some(chunk) = chunks.iter().find(|chunk| beyond(chunk)) {
        return Err(Error::new(format!(
            "a chunk of `{name}` is said to be {} bytes at {}, and the file has {length}",
            chunk.storage_size, chunk.address
        ))
        .help("the file is cut off or damaged: write it again"));
    }
    let along = shape
        .iter()
        .zip(&sides)
        .map(|(length, side)| length.div_ceil(*side));
    let all = along.fold(1_u64, u64::saturating_mul);
    if (chunks.len() as u64) < all {
        return Err(Error::new(format!(
            "`{name}` has {} of its {all} chunks: whoever wrote it was stopped",
            chunks.len()
        ))
        .help("write it again"));
    }
    Ok(sides.first().copied())
}

/// Rows of a block: whole chunks, so that none is unpacked twice.
fn per_block(chunk_rows: Option<u64>, row_bytes: usize) -> usize {
    let wanted = (BLOCK / row_bytes.max(1)).max(1);
    match chunk_rows {
        None => wanted,
        Some(rows) => {
            let rows = usize::try_from(rows).unwrap_or(usize::MAX);
            (wanted / rows).max(1).saturating_mul(rows)
        }
    }
}

fn read_places(dataset: &Dataset, rows: u64, length: u64) -> Result<Vec<(f64, f64)>> {
    let (count, width, flat) = shape(dataset, "coords")?;
    if width != 2 || count != rows {
        return Err(Error::new(format!(
            "`coords` has {count} rows of {width} numbers, and there are {rows} rows of features, each with the two of its corner"
        )));
    }
    let numbers = numbers(dataset, "coords")?;
    chunk_rows(dataset, "coords", numbers.size(), length)?;
    let size = numbers.size();
    let mut places = Vec::with_capacity(rows as usize);
    let step = if flat { PLACES } else { u64::MAX };
    let mut from = 0;
    while (places.len() as u64) < rows {
        let bytes = dataset
            .read_raw_rows(from, step)
            .map_err(|error| unreadable("coords", &error))?;
        if bytes.is_empty() {
            return Err(Error::new(format!(
                "`coords` ends after {} rows of {rows}",
                places.len()
            )));
        }
        let pairs = bytes.chunks_exact(2 * size);
        places.extend(pairs.map(|pair| (numbers.read(&pair[..size]), numbers.read(&pair[size..]))));
        from = from.saturating_add(step);
    }
    Ok(places)
}

/// The smallest distance of two places along an axis.
fn stride(places: &[(f64, f64)]) -> Option<f64> {
    // In thousandths, which tells 224 from its neighbours.
    let thousandths = |value: f64| (value * 1000.0).round() as i64;
    let at: Vec<(i64, i64)> = places
        .iter()
        .map(|(x, y)| (thousandths(*x), thousandths(*y)))
        .collect();
    smallest_distance(&at).map(|distance| distance as f64 / 1000.0)
}

fn unreadable(name: &str, error: &hdf5_pure::Error) -> Error {
    Error::new(format!("`{name}` cannot be read: {error}"))
        .help("the file is cut off or damaged: write it again")
}

fn list(names: &[String]) -> String {
    match names {
        [] => "nothing".into(),
        names => {
            let shown: Vec<&str> = names.iter().take(8).map(String::as_str).collect();
            shown.join(", ")
        }
    }
}
