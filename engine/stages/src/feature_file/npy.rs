//! Features in numpy's format: `NAME.npy`, and `NAME.coords.npy` beside it where there are corners.
//!
//! The header is a line of Python with three keys; a parser of it is shorter than a reader of Python.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::number::Number;
use super::{Array, Described, Fault, FeatureFile, Said, said};

const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// Longest header, bytes: that of a plain array has 128.
const LONGEST: usize = 64 << 10;

pub(super) fn open(path: &Path) -> Result<FeatureFile, Fault> {
    let features = array(path, "features")?;
    let beside = path.with_extension("coords.npy");
    let coords = if beside.is_file() {
        Some(array(&beside, "coords")?)
    } else {
        None
    };
    FeatureFile::new(features, coords, Said::default(), "npy")
}

fn array(path: &Path, name: &str) -> Result<Array, Fault> {
    let file = File::open(path).map_err(|error| said(path, 0, &error))?;
    let length = file
        .metadata()
        .map_err(|error| said(path, 0, &error))?
        .len();
    let cut = |_| {
        Fault::new(path, length, "the file ends in its header")
            .help("the file was cut off, or is no npy file")
    };
    let mut head = [0; 12];
    file.read_exact_at(&mut head, 0).map_err(cut)?;
    if &head[..6] != MAGIC {
        return Err(Fault::new(path, None, "this is no npy file").help("write it with numpy.save"));
    }
    let (at, size) = match head[6] {
        1 => (10, usize::from(u16::from_le_bytes([head[8], head[9]]))),
        2 | 3 => {
            let size = u32::from_le_bytes([head[8], head[9], head[10], head[11]]);
            (12, size as usize)
        }
        other => {
            let what = format!("version {other} of the npy format is not known");
            return Err(Fault::new(path, 6, what));
        }
    };
    if size > LONGEST {
        let what = format!("a header of {size} bytes, where an array's has 128");
        return Err(Fault::new(path, 8, what));
    }
    let mut text = vec![0; size];
    file.read_exact_at(&mut text, at).map_err(cut)?;
    let text = String::from_utf8_lossy(&text);
    let wrong = |what: String| Fault::new(path, at, what);
    let (number, shape) = header(&text).map_err(|(what, help)| wrong(what).help(help))?;
    let described = Described {
        name: name.to_owned(),
        number,
        shape,
        byte: at + size as u64,
    };
    Array::new(file, path, described)
}

/// Type and shape, as `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }` says; or what is wrong, and what to do.
fn header(text: &str) -> Result<(Number, Vec<usize>), (String, &'static str)> {
    let value = |key: &str| -> Result<&str, (String, &'static str)> {
        let begin = ["'", "\""]
            .iter()
            .find_map(|quote| text.split_once(&format!("{quote}{key}{quote}:")));
        match begin {
            Some((_, rest)) => Ok(rest.trim_start()),
            None => Err((
                format!("its header has no `{key}`"),
                "write it with numpy.save",
            )),
        }
    };
    let descr = value("descr")?;
    let code: String = descr
        .trim_start_matches(['\'', '"'])
        .chars()
        .take_while(|c| !matches!(c, '\'' | '"' | ','))
        .collect();
    let number = match code.as_str() {
        "<f2" => Number::F16,
        "<f4" => Number::F32,
        "<f8" => Number::F64,
        "<i2" => Number::I16,
        "<i4" => Number::I32,
        "<i8" => Number::I64,
        "<u2" => Number::U16,
        "<u4" => Number::U32,
        "<u8" => Number::U64,
        big if big.starts_with('>') => {
            return Err((
                format!("its numbers are `{big}`, big-endian"),
                "save a.astype(a.dtype.newbyteorder('<'))",
            ));
        }
        other => {
            return Err((
                format!("its numbers are `{other}`, which is not read here"),
                "save it as float32 or float16",
            ));
        }
    };
    if !value("fortran_order")?.starts_with("False") {
        return Err((
            "its columns lie one behind the other, not its rows".into(),
            "save numpy.ascontiguousarray(a)",
        ));
    }
    let shape = value("shape")?;
    let inside = shape
        .strip_prefix('(')
        .and_then(|rest| rest.split_once(')'));
    let sides = inside.map(|(inside, _)| {
        let sides = inside.split(',').map(str::trim).filter(|s| !s.is_empty());
        sides.map(str::parse).collect::<Result<Vec<usize>, _>>()
    });
    match sides {
        Some(Ok(shape)) => Ok((number, shape)),
        _ => Err((
            format!("its shape cannot be read: {}", shape.trim_end()),
            "write it with numpy.save",
        )),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn headers_as_numpy_writes_them_are_read() {
        let text = "{'descr': '<f4', 'fortran_order': False, 'shape': (20000, 1024), }      \n";
        assert_eq!(header(text).unwrap(), (Number::F32, vec![20000, 1024]));
        let text = "{\"descr\": \"<f2\", \"shape\": (7,), \"fortran_order\": False}";
        assert_eq!(header(text).unwrap(), (Number::F16, vec![7]));
    }

    #[test]
    fn what_is_not_read_says_how_to_save_it() {
        for (text, told) in [
            (
                "{'descr': '>f4', 'fortran_order': False, 'shape': (1, 2)}",
                "newbyteorder",
            ),
            (
                "{'descr': '<f4', 'fortran_order': True, 'shape': (1, 2)}",
                "ascontiguousarray",
            ),
            (
                "{'descr': '|O', 'fortran_order': False, 'shape': (1, 2)}",
                "float32",
            ),
            ("{'descr': '<f4', 'shape': (1, 2)}", "numpy.save"),
            (
                "{'descr': '<f4', 'fortran_order': False, 'shape': (1, -2)}",
                "numpy.save",
            ),
        ] {
            let (_, help) = header(text).unwrap_err();
            assert!(help.contains(told), "{text}: {help}");
        }
    }
}
