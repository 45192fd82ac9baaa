//! A file of features, written: whole or not at all.

use std::fs;
use std::io::Write;
use std::path::Path;

use half::f16;
use hdf5_pure::{
    AttrValue, Datatype, DatatypeByteOrder, FileBuilder, LibVer, make_f32_type, make_i32_type,
    make_i64_type,
};
use weir_plugin::{Choice, Error, Result};

use crate::corners::{SIDE, smallest_distance};
use crate::file::BINARY16;
use crate::layout::Layout;

/// Numbers of the features as they are written.
#[derive(Choice, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    /// binary32.
    F32,
    /// binary16: greatest number 65,504.
    F16,
}

impl Dtype {
    /// What the layout's own program writes.
    pub fn of(layout: Layout) -> Dtype {
        match layout {
            Layout::Trident | Layout::Clam => Dtype::F32,
            Layout::Stamp => Dtype::F16,
        }
    }

    /// Bytes of a number.
    pub fn size(self) -> usize {
        match self {
            Dtype::F32 => 4,
            Dtype::F16 => 2,
        }
    }

    /// Appends the numbers as they lie in the file.
    ///
    /// # Errors
    /// The place and value of a number that is not finite, or too great for f16; then nothing is appended.
    pub fn append(self, numbers: &[f32], to: &mut Vec<u8>) -> std::result::Result<(), String> {
        let before = to.len();
        for (at, number) in numbers.iter().enumerate() {
            let half = f16::from_f32(*number);
            let fits = match self {
                Dtype::F32 => number.is_finite(),
                Dtype::F16 => number.is_finite() && half.is_finite(),
            };
            if !fits {
                to.truncate(before);
                let limit = match number.is_finite() {
                    true => "greater than 65504, the greatest number of f16",
                    false => "no finite number",
                };
                return Err(format!("number {at} is {number}, {limit}"));
            }
            match self {
                Dtype::F32 => to.extend_from_slice(&number.to_le_bytes()),
                Dtype::F16 => to.extend_from_slice(&half.to_le_bytes()),
            }
        }
        Ok(())
    }

    fn datatype(self) -> Datatype {
        match self {
            Dtype::F32 => make_f32_type(),
            Dtype::F16 => Datatype::FloatingPoint {
                size: 2,
                byte_order: DatatypeByteOrder::LittleEndian,
                layout: BINARY16,
            },
        }
    }
}

/// What a file says of itself besides its rows.
#[derive(Clone, Debug, PartialEq)]
pub struct About {
    /// Whose layout.
    pub layout: Layout,
    /// Numbers of the features.
    pub dtype: Dtype,
    /// Numbers of a row.
    pub width: usize,
    /// The slide's id.
    pub name: String,
    /// What made the features.
    pub encoder: String,
    /// Folder of the files, as the user named it.
    pub folder: String,
    /// Size of the slide, level-0 px.
    pub size: (u64, u64),
    /// Size of a level-0 px, um.
    pub mpp: Option<f64>,
    /// Side of a tile, level-0 px; 0 where not known.
    pub footprint: f64,
    /// Side of a tile's pixels, px; 0 where not known.
    pub tile_px: u32,
}

impl About {
    /// Side of a tile, level-0 px, and of its pixels, px. Where nobody says it, as the reader has it then.
    fn sides(&self, corners: &[(i64, i64)]) -> (f64, f64) {
        let side = match self.footprint > 0.0 {
            true => self.footprint,
            false => smallest_distance(corners).map_or(SIDE, |step| step as f64),
        };
        match self.tile_px {
            0 => (side, side.round()),
            px => (side, f64::from(px)),
        }
    }
}

/// Writes the file beside its place, and puts it there when it is whole. `rows` are the features as [`Dtype::append`] wrote them, in
/// the order of `corners` (level-0 px).
///
/// The arrays lie in one piece each: chunks would cost copies of them, and whoever reads an array does not see the difference.
///
/// # Errors
/// When it cannot be written; then nothing is there that was not before.
pub fn write(path: &Path, about: &About, corners: &[(i64, i64)], rows: Vec<u8>) -> Result<()> {
    let bytes = corners.len() * about.width * about.dtype.size();
    if rows.len() != bytes {
        return Err(Error::new(format!(
            "{} places have {} bytes of features, not {bytes}",
            corners.len(),
            rows.len()
        )));
    }
    let builder = build(about, corners, rows)?;
    let at = |error: std::io::Error| {
        let help = match error.kind() {
            std::io::ErrorKind::InvalidFilename => {
                "the slide's id is too long for a file's name: a manifest of slides gives it a shorter one"
            }
            _ => "see that the disk has room and that the folder may be written",
        };
        Error::new(format!("{} cannot be written: {error}", path.display())).help(help)
    };
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(at)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let part = folder.join(format!(".{name}.part"));
    let written = fs::File::create(&part).map_err(at).and_then(|file| {
        let mut file = &file;
        builder.finish_to(file).map_err(|error| {
            Error::new(format!("{} cannot be written: {error}", path.display()))
        })?;
        file.flush().map_err(at)?;
        file.sync_all().map_err(at)?;
        fs::rename(&part, path).map_err(at)
    });
    if written.is_err() {
        // What is left of it is of no use; that it stays is no second error.
        let _ = fs::remove_file(&part);
    }
    written
}

fn build(about: &About, corners: &[(i64, i64)], rows: Vec<u8>) -> Result<FileBuilder> {
    let count = corners.len() as u64;
    let mut builder = FileBuilder::new();
    // Every HDF5 library since 2008 reads it.
    builder.with_libver_bounds(LibVer::Earliest, LibVer::V18);
    let says = attributes(about, corners)?;
    let numbers = count * about.width as u64;
    let features = builder.create_dataset(about.layout.array());
    features
        .with_raw_data(about.dtype.datatype(), rows, numbers)
        .with_shape(&[count, about.width as u64]);
    for (name, value) in says.features {
        features.set_attr(name, value);
    }
    let (dtype, places) = places(about, corners)?;
    let coords = builder.create_dataset("coords");
    coords
        .with_raw_data(dtype, places, 2 * count)
        .with_shape(&[count, 2]);
    for (name, value) in says.coords {
        coords.set_attr(name, value);
    }
    for (name, value) in says.root {
        builder.set_attr(name, value);
    }
    Ok(builder)
}

/// Type and bytes of `coords`.
fn places(about: &About, corners: &[(i64, i64)]) -> Result<(Datatype, Vec<u8>)> {
    let flat = corners.iter().flat_map(|(x, y)| [*x, *y]);
    Ok(match about.layout {
        Layout::Trident => (make_i64_type(), flat.flat_map(i64::to_le_bytes).collect()),
        Layout::Clam => {
            let mut bytes = Vec::with_capacity(8 * corners.len());
            for value in flat {
                let value = i32::try_from(value).map_err(|_| {
                    Error::new(format!(
                        "a tile lies at {value} px, and the layout holds i32"
                    ))
                })?;
                bytes.extend_from_slice(&value.to_le_bytes());
            }
            (make_i32_type(), bytes)
        }
        Layout::Stamp => {
            let mpp = known_mpp(about)?;
            let um = flat.map(|value| (value as f64 * mpp) as f32);
            (make_f32_type(), um.flat_map(f32::to_le_bytes).collect())
        }
    })
}

fn known_mpp(about: &About) -> Result<f64> {
    about.mpp.ok_or_else(|| {
        Error::new("STAMP's files hold places in um, and nobody says the slide's mpp")
            .help("give mpp in the manifest of slides or run.default-mpp, or write another layout")
    })
}

/// h5py gives a Python text back, which the peers compare with one: of a fixed length it would be bytes.
fn text(text: &str) -> AttrValue {
    AttrValue::VarLenString(text.into())
}

type Named = Vec<(&'static str, AttrValue)>;

/// Attributes of the file and of its arrays.
#[derive(Default)]
struct Says {
    root: Named,
    features: Named,
    coords: Named,
}

fn attributes(about: &About, corners: &[(i64, i64)]) -> Result<Says> {
    Ok(match about.layout {
        Layout::Trident => trident(about, corners),
        Layout::Clam => clam(about, corners),
        Layout::Stamp => stamp(about, corners)?,
    })
}

fn trident(about: &About, corners: &[(i64, i64)]) -> Says {
    let (side, px) = about.sides(corners);
    let overlap = smallest_distance(corners).map_or(0.0, |step| (side - step as f64).max(0.0));
    let (name, folder) = (text(&about.name), text(&about.folder));
    let mut coords = vec![
        ("patch_size", AttrValue::I64(px as i64)),
        ("patch_size_level0", AttrValue::I64(side.round() as i64)),
        // In px of a patch, as its size is.
        (
            "overlap",
            AttrValue::I64((overlap * px / side).round() as i64),
        ),
        ("level0_width", AttrValue::I64(about.size.0 as i64)),
        ("level0_height", AttrValue::I64(about.size.1 as i64)),
        ("name", name.clone()),
        ("savetodir", folder.clone()),
    ];
    if let Some(mpp) = about.mpp {
        let power = 10.0 / mpp;
        coords.push(("level0_magnification", AttrValue::F64(power)));
        coords.push(("target_magnification", AttrValue::F64(power * px / side)));
    }
    Says {
        features: vec![
            ("encoder", text(&about.encoder)),
            ("name", name),
            ("savetodir", folder),
        ],
        coords,
        ..Says::default()
    }
}

fn clam(about: &About, corners: &[(i64, i64)]) -> Says {
    let (side, _) = about.sides(corners);
    let size = vec![about.size.0 as i64, about.size.1 as i64];
    Says {
        // Of level 0, whatever level the tiles were read from: that is the one whose px the places are in.
        coords: vec![
            ("patch_size", AttrValue::I64(side.round() as i64)),
            ("patch_level", AttrValue::I64(0)),
            ("downsample", AttrValue::F64Array(vec![1.0, 1.0])),
            ("level_dim", AttrValue::I64Array(size.clone())),
            ("downsampled_level_dim", AttrValue::I64Array(size)),
            ("name", text(&about.name)),
            ("save_path", text(&about.folder)),
        ],
        ..Says::default()
    }
}

fn stamp(about: &About, corners: &[(i64, i64)]) -> Result<Says> {
    let (side, px) = about.sides(corners);
    let mpp = known_mpp(about)?;
    Ok(Says {
        root: vec![
            // STAMP refuses files of a version later than its own: this is the first with this layout.
            ("stamp_version", text("2.0.0")),
            ("extractor", text(&about.encoder)),
            ("unit", text("um")),
            ("tile_size_um", AttrValue::F64(side * mpp)),
            ("tile_size_px", AttrValue::I64(px as i64)),
            ("code_hash", text("weir")),
            ("feat_type", text("tile")),
        ],
        ..Says::default()
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn numbers_that_a_type_does_not_hold_are_refused_by_their_place_and_leave_nothing() {
        let mut bytes = vec![7];
        for (dtype, numbers, what) in [
            (
                Dtype::F32,
                [1.0, f32::NAN],
                "number 1 is NaN, no finite number",
            ),
            (
                Dtype::F16,
                [f32::INFINITY, 0.0],
                "number 0 is inf, no finite number",
            ),
            (
                Dtype::F16,
                [1.0, 70000.0],
                "number 1 is 70000, greater than 65504",
            ),
        ] {
            let refusal = dtype.append(&numbers, &mut bytes).unwrap_err();
            assert!(refusal.starts_with(what), "{refusal}");
            assert_eq!(bytes, [7]);
        }
        Dtype::F16.append(&[65504.0, -0.5], &mut bytes).unwrap();
        assert_eq!(bytes, [7, 0xff, 0x7b, 0x00, 0xb8]);
    }

    #[test]
    fn a_file_that_cannot_be_whole_leaves_the_earlier_one_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.h5");
        fs::write(&path, "earlier").unwrap();
        let about = About {
            layout: Layout::Stamp,
            dtype: Dtype::F32,
            width: 1,
            name: "a".into(),
            encoder: String::new(),
            folder: String::new(),
            size: (10, 10),
            mpp: None,
            footprint: 1.0,
            tile_px: 1,
        };
        let error = write(&path, &about, &[(0, 0)], vec![0; 4]).unwrap_err();
        assert!(
            error.message().contains("nobody says the slide's mpp"),
            "{error}"
        );
        assert_eq!(fs::read(&path).unwrap(), b"earlier");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
