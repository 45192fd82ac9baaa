//! A reference picture from a file: PNG or JPEG.

use std::io::Cursor;
use std::path::Path;
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

/// Most bytes of pixels: a reference is a field of view, not a slide.
const MOST: usize = 256 << 20;

/// Interleaved red, green and blue of a picture. The error says what is wrong, without the file's name.
pub fn read(path: &Path) -> Result<Vec<u8>, String> {
    let bytes = std::fs::read(path).map_err(|error| format!("it cannot be read: {error}"))?;
    match bytes.as_slice() {
        [0x89, b'P', b'N', b'G', ..] => {
            png(&bytes).map_err(|error| format!("its PNG cannot be taken: {error}"))
        }
        [0xff, 0xd8, ..] => {
            jpeg(&bytes).map_err(|error| format!("its JPEG cannot be decoded: {error}"))
        }
        _ => Err("it is neither PNG nor JPEG".into()),
    }
}

fn png(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let mut decoder =
        png::Decoder::new_with_limits(Cursor::new(bytes), png::Limits { bytes: MOST });
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let mut reader = decoder.read_info().map_err(|error| error.to_string())?;
    let size = reader
        .output_buffer_size()
        .filter(|size| *size <= MOST)
        .ok_or("it is too large")?;
    let mut pixels = vec![0; size];
    let frame = reader
        .next_frame(&mut pixels)
        .map_err(|error| error.to_string())?;
    pixels.truncate(frame.buffer_size());
    match frame.color_type {
        png::ColorType::Rgb => Ok(pixels),
        // What is transparent has no colour of its own.
        png::ColorType::Rgba => Ok(pixels
            .as_chunks::<4>()
            .0
            .iter()
            .flat_map(|[r, g, b, _]| [*r, *g, *b])
            .collect()),
        png::ColorType::Grayscale | png::ColorType::GrayscaleAlpha => {
            Err("it is grey, and stains are told by their colours: RGB is wanted".into())
        }
        other => Err(format!("its colours are {other:?}, not RGB")),
    }
}

fn jpeg(bytes: &[u8]) -> Result<Vec<u8>, String> {
    // Strict: what is missing of a damaged file must not become grey pixels.
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(Cursor::new(bytes), options);
    decoder
        .decode_headers()
        .map_err(|error| error.to_string())?;
    if decoder.output_buffer_size().is_none_or(|size| size > MOST) {
        return Err("it is too large".into());
    }
    decoder.decode().map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_grey_picture_is_told_that_colours_are_wanted() {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, 2, 2);
        encoder.set_color(png::ColorType::Grayscale);
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(&[1, 2, 3, 4]).unwrap();
        writer.finish().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("grey.png");
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(
            read(&path).unwrap_err(),
            "its PNG cannot be taken: it is grey, and stains are told by their colours: RGB is wanted"
        );
    }
}
