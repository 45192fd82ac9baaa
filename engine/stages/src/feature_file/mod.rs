//! Files of feature vectors: one slide a file, an array `[n, d]` and the places of its rows.
//!
//! Read by position, a row at a time, because rows are asked for by their places, by several threads, in the order in which their
//! tiles come; the system reads ahead. Nothing of the file is held but a row's bytes a thread, and a file that is cut off while it is
//! read is an error of its rows, where a mapping of it would end the process.

mod npy;
mod number;
mod safetensors;

use std::cell::RefCell;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use number::Number;
use weir_kernels::pool::admissible;

/// Why a file cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    file: PathBuf,
    /// Where in the file.
    byte: Option<u64>,
    what: String,
    /// What to do; may be empty.
    pub(crate) help: &'static str,
}

impl Fault {
    fn new(file: &Path, byte: impl Into<Option<u64>>, what: impl Into<String>) -> Fault {
        Fault {
            file: file.to_owned(),
            byte: byte.into(),
            what: what.into(),
            help: "",
        }
    }

    fn help(mut self, help: &'static str) -> Fault {
        self.help = help;
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(byte) = self.byte {
            write!(f, ", byte {byte}")?;
        }
        write!(f, ": {}", self.what)
    }
}

/// An array of a file: rows of numbers, in order and without gaps.
#[derive(Debug)]
struct Array {
    file: File,
    path: PathBuf,
    name: String,
    number: Number,
    rows: usize,
    width: usize,
    /// Of its first number.
    byte: u64,
}

/// What a file says of its array before anything is checked.
struct Described {
    name: String,
    number: Number,
    shape: Vec<usize>,
    byte: u64,
}

impl Array {
    /// Checks that it is a table, and that the whole of it is there.
    fn new(file: File, path: &Path, described: Described) -> Result<Array, Fault> {
        let Described {
            name,
            number,
            shape,
            byte,
        } = described;
        let (rows, width) = match shape.as_slice() {
            // Older TRIDENT files keep the batch's dimension.
            [rows, width] | [1, rows, width] => (*rows, *width),
            _ => {
                let what = format!("`{name}` has the shape {shape:?}, not [rows, numbers]");
                return Err(Fault::new(path, None, what));
            }
        };
        let length = file
            .metadata()
            .map_err(|error| said(path, 0, &error))?
            .len();
        let bytes = (rows as u64)
            .checked_mul(width as u64)
            .and_then(|numbers| numbers.checked_mul(number.bytes() as u64))
            .and_then(|bytes| bytes.checked_add(byte));
        match bytes {
            Some(end) if end <= length && u32::try_from(rows).is_ok() => Ok(Array {
                file,
                path: path.to_owned(),
                name,
                number,
                rows,
                width,
                byte,
            }),
            Some(end) if end > length => {
                let what = format!("the file ends here, but `{name}` should reach byte {end}");
                Err(Fault::new(path, length, what).help("the file was cut off: write it again"))
            }
            _ => {
                let what =
                    format!("`{name}` has {rows} rows of {width} numbers, too many to count");
                Err(Fault::new(path, None, what))
            }
        }
    }

    fn at(&self, row: usize) -> u64 {
        self.byte + row as u64 * self.width as u64 * self.number.bytes() as u64
    }

    /// Bytes of `rows` rows from `row` on.
    fn read(&self, row: usize, rows: usize, into: &mut Vec<u8>) -> Result<(), Fault> {
        into.resize(rows * self.width * self.number.bytes(), 0);
        let at = self.at(row);
        self.file
            .read_exact_at(into, at)
            .map_err(|error| said(&self.path, at, &error))
    }
}

/// An I/O error at a place.
fn said(path: &Path, byte: u64, error: &io::Error) -> Fault {
    let what = match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        io::ErrorKind::PermissionDenied => "it may not be read by this user".to_owned(),
        io::ErrorKind::IsADirectory => "it is a folder".to_owned(),
        io::ErrorKind::UnexpectedEof => "the file ends before its numbers do".to_owned(),
        _ => error.to_string(),
    };
    Fault::new(path, (byte > 0).then_some(byte), what)
}

/// What a file says of itself beside its arrays; each is `None` where it says nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Said {
    /// Side of a tile, level-0 px.
    pub(crate) tile_size: Option<f64>,
    /// Size of a level-0 pixel, um.
    pub(crate) mpp: Option<f64>,
}

/// An open file of features.
#[derive(Debug)]
pub(crate) struct FeatureFile {
    features: Array,
    coords: Option<Array>,
    /// What it says of itself.
    pub(crate) said: Said,
    /// Its form, as `safetensors f16`.
    pub(crate) form: String,
}

impl FeatureFile {
    /// Opens a file; of the arrays in it, `array` says which holds the features.
    pub(crate) fn open(path: &Path, array: Option<&str>) -> Result<FeatureFile, Fault> {
        let ending = path
            .extension()
            .map(|ending| ending.to_string_lossy().to_ascii_lowercase());
        match ending.as_deref() {
            Some("safetensors") => safetensors::open(path, array),
            Some("npy") => npy::open(path),
            Some("h5" | "hdf5") => Err(Fault::new(
                path,
                None,
                "this is an HDF5 file, and the embedding-reader reads safetensors and npy",
            )
            .help("use the stage of the plugin `features`, which reads TRIDENT's, CLAM's and STAMP's .h5 files")),
            _ => Err(Fault::new(
                path,
                None,
                "no reader of features takes a file of this ending",
            )
            .help("feature files end in .safetensors or .npy")),
        }
    }

    fn new(
        features: Array,
        coords: Option<Array>,
        said: Said,
        form: &str,
    ) -> Result<FeatureFile, Fault> {
        if !features.number.holds_features() {
            let what = format!("`{}` is {}", features.name, features.number);
            return Err(
                Fault::new(&features.path, None, what).help("features are f32, f16 or bf16")
            );
        }
        if let Some(coords) = &coords
            && (coords.rows, coords.width) != (features.rows, 2)
        {
            let what = format!(
                "`{}` has the shape [{}, {}], and `{}` has {} rows",
                coords.name, coords.rows, coords.width, features.name, features.rows
            );
            return Err(Fault::new(&coords.path, None, what)
                .help("coords are x and y of each row's tile, level-0 px"));
        }
        Ok(FeatureFile {
            form: format!("{form} {}", features.number),
            features,
            coords,
            said,
        })
    }

    /// Number of rows.
    pub(crate) fn rows(&self) -> usize {
        self.features.rows
    }

    /// Numbers of a row.
    pub(crate) fn width(&self) -> usize {
        self.features.width
    }

    /// Fills `into` with row `row`. Nothing but numbers that a pool takes comes out.
    pub(crate) fn row(&self, row: usize, into: &mut [f32]) -> Result<(), Fault> {
        thread_local! {
            static BYTES: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        let array = &self.features;
        BYTES.with_borrow_mut(|bytes| -> Result<(), Fault> {
            array.read(row, 1, bytes)?;
            array.number.features(bytes, into);
            Ok(())
        })?;
        if admissible(0.0, into) {
            return Ok(());
        }
        let limit = weir_kernels::pool::FEATURE_LIMIT;
        let (place, value) = into
            .iter()
            .enumerate()
            .find(|(_, value)| value.is_nan() || value.abs() >= limit)
            .map_or((0, f32::NAN), |(place, value)| (place, *value));
        let byte = array.at(row) + (place * array.number.bytes()) as u64;
        let what = format!("number {place} of row {row} is {value}, which no pool takes");
        Err(Fault::new(&array.path, byte, what))
    }

    /// Left and top edge of each row's tile, level-0 px; `None` when the file does not say.
    pub(crate) fn corners(&self) -> Result<Option<Vec<(i64, i64)>>, Fault> {
        const AT_ONCE: usize = 4096;
        let Some(array) = &self.coords else {
            return Ok(None);
        };
        let mut corners = Vec::with_capacity(array.rows);
        let (mut bytes, mut values) = (Vec::new(), Vec::new());
        for from in (0..array.rows).step_by(AT_ONCE) {
            let rows = AT_ONCE.min(array.rows - from);
            array.read(from, rows, &mut bytes)?;
            array.number.values(&bytes, &mut values);
            for (row, pair) in values.as_chunks::<2>().0.iter().enumerate() {
                let [x, y] = *pair;
                let whole = |v: f64| v.fract() == 0.0 && v.abs() < 1e15;
                if !whole(x) || !whole(y) {
                    let row = from + row;
                    let what = format!("row {row} of `{}` is ({x}, {y})", array.name);
                    return Err(Fault::new(&array.path, array.at(row), what).help(
                        "coords are whole level-0 pixels; micrometres must be divided by the slide's um/px first",
                    ));
                }
                corners.push((x as i64, y as i64));
            }
        }
        Ok(Some(corners))
    }

    /// Size in bytes and time of change (ns since 1970), by which a later run knows that nothing changed.
    pub(crate) fn input(&self) -> Option<(u64, u64)> {
        let mut input = (0, 0);
        let files = [Some(&self.features), self.coords.as_ref()];
        for array in files.into_iter().flatten() {
            let facts = array.file.metadata().ok()?;
            let since = facts.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
            if array.path != self.features.path || input.0 == 0 {
                input.0 += facts.len();
            }
            input.1 = input.1.max(since.as_nanos() as u64);
        }
        Some(input)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::feature_writer::{Dtype, npy, safetensors};

    fn row(file: &FeatureFile, row: usize) -> Vec<f32> {
        let mut into = vec![0.0; file.width()];
        file.row(row, &mut into).unwrap();
        into
    }

    #[test]
    fn every_form_and_type_gives_the_numbers_that_were_written() {
        let folder = tempfile::tempdir().unwrap();
        // Exact in every type.
        let rows: Vec<Vec<f32>> = (0..5)
            .map(|r| (0..3).map(|c| (r * 3 + c) as f32 / 4.0 - 1.0).collect())
            .collect();
        let corners: Vec<(i64, i64)> = (0..5).map(|r| (r * 256, 512 - r * 256)).collect();
        for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
            for name in ["features", "feats", "embeddings"] {
                let path = folder.path().join("s.safetensors");
                safetensors(&path, name, dtype, &rows, Some(&corners), &[]).unwrap();
                let file = FeatureFile::open(&path, None).unwrap();
                assert_eq!((file.rows(), file.width()), (5, 3));
                assert_eq!((0..5).map(|r| row(&file, r)).collect::<Vec<_>>(), rows);
                assert_eq!(file.corners().unwrap().unwrap(), corners);
            }
            if dtype != Dtype::Bf16 {
                let path = folder.path().join("s.npy");
                npy(&path, dtype, &rows, Some(&corners)).unwrap();
                let file = FeatureFile::open(&path, None).unwrap();
                assert_eq!((0..5).map(|r| row(&file, r)).collect::<Vec<_>>(), rows);
                assert_eq!(file.corners().unwrap().unwrap(), corners);
                std::fs::remove_file(folder.path().join("s.coords.npy")).unwrap();
                let file = FeatureFile::open(&path, None).unwrap();
                assert_eq!(file.corners().unwrap(), None);
            }
        }
    }

    #[test]
    fn a_file_cut_anywhere_is_refused_with_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let rows = vec![vec![1.0, 2.0, 3.0]; 4];
        for name in ["s.safetensors", "s.npy"] {
            let path = folder.path().join(name);
            match name {
                "s.npy" => npy(&path, Dtype::F32, &rows, None).unwrap(),
                _ => safetensors(&path, "features", Dtype::F32, &rows, None, &[]).unwrap(),
            }
            let whole = std::fs::read(&path).unwrap();
            for length in 0..whole.len() {
                std::fs::write(&path, &whole[..length]).unwrap();
                let fault = FeatureFile::open(&path, None).unwrap_err();
                let text = fault.to_string();
                assert!(text.contains(name), "{length}: {text}");
                if length > 0 && length + 48 >= whole.len() {
                    assert!(text.contains(&format!("byte {length}")), "{length}: {text}");
                }
            }
        }
    }

    #[test]
    fn a_row_with_no_number_says_where_it_stands() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.npy");
        let rows = vec![
            vec![1.0, 2.0],
            vec![3.0, f32::NAN],
            vec![f32::INFINITY, 0.0],
        ];
        npy(&path, Dtype::F32, &rows, None).unwrap();
        let file = FeatureFile::open(&path, None).unwrap();
        let mut into = [0.0; 2];
        file.row(0, &mut into).unwrap();
        let text = file.row(1, &mut into).unwrap_err().to_string();
        assert!(
            text.contains("byte 140: number 1 of row 1 is NaN"),
            "{text}"
        );
        let text = file.row(2, &mut into).unwrap_err().to_string();
        assert!(text.contains("number 0 of row 2 is inf"), "{text}");
    }

    #[test]
    fn what_the_reader_does_not_read_names_what_does() {
        for (name, said) in [
            ("s.h5", "plugin `features`"),
            ("s.pt", ".safetensors or .npy"),
        ] {
            let fault = FeatureFile::open(Path::new(name), None).unwrap_err();
            assert!(fault.help.contains(said), "{fault:?}");
        }
    }

    #[test]
    fn arrays_that_are_no_features_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.safetensors");
        let rows = vec![vec![1.0, 2.0]; 3];
        safetensors(&path, "other", Dtype::F32, &rows, None, &[]).unwrap();
        let text = FeatureFile::open(&path, None).unwrap_err().to_string();
        assert!(text.contains("it has: other"), "{text}");
        assert!(FeatureFile::open(&path, Some("other")).is_ok());
        safetensors(&path, "features", Dtype::F32, &rows, Some(&[(0, 0)]), &[]).unwrap();
        let text = FeatureFile::open(&path, None).unwrap_err().to_string();
        assert!(
            text.contains("has the shape [1, 2], and `features` has 3 rows"),
            "{text}"
        );
    }
}
