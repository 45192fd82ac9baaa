//! What a test feeds: the source's parameters are changed so that the real source reads it.

use super::tiled::Tiled;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use weir_pipeline::{Feed, Node, Value};

/// Width of the native tiles of slides that are made here, px.
const NATIVE: u32 = 256;

/// Changes the parameters of `source` so that it reads `feed`; files that are made for it go into `folder`. An error says why
/// this source cannot be fed like that.
pub fn set(source: &mut Node, feed: &Feed, folder: &Path) -> Result<(), String> {
    match feed {
        Feed::Slides(slides) => give(source, "slides", Value::Texts(slides.clone())),
        Feed::Script(script) => {
            let path = folder.join("script.jsonl");
            std::fs::write(&path, script).map_err(|error| cannot_write(&path, &error))?;
            give(source, "script", Value::Path(path))
        }
        Feed::Colour { rgb, count } => {
            let (size, mpp) = tile_of(source)?;
            let slide = Tiled {
                width: size * count,
                height: size,
                tile: NATIVE,
                mpp: Some(mpp),
            };
            let path = folder.join("colour.tiff");
            let paint = |_, _, pixels: &mut [u8]| {
                for pixel in pixels.chunks_exact_mut(3) {
                    pixel.copy_from_slice(rgb);
                }
            };
            slide
                .write(&path, &|_, _| 0, &paint)
                .map_err(|error| cannot_write(&path, &error))?;
            read(source, path, mpp)
        }
        Feed::Tiles(png) => {
            let (size, mpp) = tile_of(source)?;
            let (width, height, pixels) = decode(png)?;
            if width % size != 0 || height % size != 0 {
                return Err(format!(
                    "{} has {width} x {height} px, which is no whole number of tiles of {size} px",
                    png.display()
                ));
            }
            let slide = Tiled {
                width,
                height,
                tile: NATIVE,
                mpp: Some(mpp),
            };
            let path = folder.join("tiles.tiff");
            let columns = u64::from(width.div_ceil(NATIVE));
            let kind = |column: u32, row: u32| u64::from(row) * columns + u64::from(column);
            let paint = |column: u32, row: u32, into: &mut [u8]| {
                let (left, top) = ((column * NATIVE) as usize, (row * NATIVE) as usize);
                let (native, wide) = (NATIVE as usize, width as usize);
                let across = native.min(wide - left);
                for line in 0..native.min(height as usize - top) {
                    let from = ((top + line) * wide + left) * 3;
                    let to = line * native * 3;
                    into[to..to + across * 3].copy_from_slice(&pixels[from..from + across * 3]);
                }
            };
            slide
                .write(&path, &kind, &paint)
                .map_err(|error| cannot_write(&path, &error))?;
            read(source, path, mpp)
        }
    }
}

fn cannot_write(path: &Path, error: &std::io::Error) -> String {
    format!("{} cannot be written: {error}", path.display())
}

/// Replaces a parameter that the source has.
fn give(source: &mut Node, name: &str, value: Value) -> Result<(), String> {
    if !source.schema.params.iter().any(|param| param.name == name) {
        return Err(format!(
            "a {} has no parameter `{name}`",
            source.schema.name
        ));
    }
    source.values.0.insert(name.to_owned(), value);
    Ok(())
}

/// Size, px, and resolution, um/px, of the tiles of a source.
fn tile_of(source: &Node) -> Result<(u32, f64), String> {
    let size = source.values.integer("size").ok();
    let size = size.and_then(|size| u32::try_from(size).ok());
    match (size, source.values.float("mpp")) {
        (Some(size), Ok(mpp)) => Ok((size, mpp)),
        _ => Err(format!(
            "a {} has no tile size and resolution",
            source.schema.name
        )),
    }
}

/// Has the source read the whole of a slide that was made here, background or not.
fn read(source: &mut Node, slide: PathBuf, mpp: f64) -> Result<(), String> {
    let slide = slide.to_string_lossy().into_owned();
    give(source, "slides", Value::Texts(vec![slide]))?;
    give(source, "slide-mpp", Value::Float(mpp))?;
    give(source, "tissue", Value::Text("none".into()))?;
    give(source, "overlap", Value::Integer(0))
}

/// Width, height and interleaved RGB of a PNG.
fn decode(path: &Path) -> Result<(u32, u32, Vec<u8>), String> {
    let cannot = |what: String| format!("{} cannot be read: {what}", path.display());
    let file = File::open(path).map_err(|error| cannot(error.to_string()))?;
    let mut decoder = png::Decoder::new(BufReader::new(file));
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let mut reader = decoder
        .read_info()
        .map_err(|error| cannot(error.to_string()))?;
    let size = reader
        .output_buffer_size()
        .ok_or_else(|| cannot("its picture does not fit into memory".into()))?;
    let mut raw = vec![0; size];
    let frame = reader
        .next_frame(&mut raw)
        .map_err(|error| cannot(error.to_string()))?;
    raw.truncate(frame.buffer_size());
    let pixels = match frame.color_type {
        png::ColorType::Rgb => raw,
        png::ColorType::Rgba => raw
            .chunks_exact(4)
            .flat_map(|pixel| [pixel[0], pixel[1], pixel[2]])
            .collect(),
        png::ColorType::Grayscale => raw.iter().flat_map(|grey| [*grey; 3]).collect(),
        png::ColorType::GrayscaleAlpha => raw
            .chunks_exact(2)
            .flat_map(|pixel| [pixel[0]; 3])
            .collect(),
        other => return Err(cannot(format!("it is {other:?}; save it as RGB"))),
    };
    Ok((frame.width, frame.height, pixels))
}
