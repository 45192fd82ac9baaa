//! JPEG 2000 tiles (ITU-T T.800) as Aperio writes them, through hayro-jpeg2000.

use hayro_jpeg2000::{DecodeSettings, DecoderContext, Image};
use std::panic::catch_unwind;

/// Decodes a codestream of `width` x `height` px and `samples` components to interleaved samples.
///
/// The size in the SIZ marker (T.800 A.5.1) is compared before the decoder sees a byte.
pub(crate) fn decode(
    stream: &[u8],
    width: u32,
    height: u32,
    samples: u8,
) -> Result<Vec<u8>, String> {
    let size = size_of(stream)?;
    if size.0 != width || size.1 != height {
        return Err(format!(
            "its header says {} x {} px, but the tile has {width} x {height}",
            size.0, size.1
        ));
    }
    if size.2 != samples as u16 {
        return Err(format!(
            "its header says {} components, but the TIFF {samples}",
            size.2
        ));
    }
    // The decoder is young: what makes it panic is a damaged tile to us, not the end of the run.
    catch_unwind(|| samples_of(stream, width, height, samples))
        .unwrap_or_else(|_| Err("its data make the decoder panic".into()))
}

fn samples_of(stream: &[u8], width: u32, height: u32, samples: u8) -> Result<Vec<u8>, String> {
    let settings = DecodeSettings {
        strict: true,
        ..DecodeSettings::default()
    };
    let image = Image::new(stream, &settings).map_err(|e| e.to_string())?;
    let mut context = DecoderContext::default();
    let decoded = image.decode(&mut context).map_err(|e| e.to_string())?;
    let pixels = width as usize * height as usize;
    let components = decoded.components();
    if components.len() != samples as usize
        || components
            .iter()
            .any(|c| c.samples().len() != pixels || c.bit_depth() != 8)
    {
        return Err("its components are not of 8 bits and the tile's size".into());
    }
    let mut data = vec![0; pixels * samples as usize];
    decoded.store_u8_into(&mut data);
    Ok(data)
}

/// Width, height and number of components from the SIZ marker, which stands right behind SOC.
fn size_of(stream: &[u8]) -> Result<(u32, u32, u16), String> {
    let (Some([0xff, 0x4f, 0xff, 0x51]), Some(body)) = (stream.get(..4), stream.get(4..42)) else {
        return Err("it does not begin with ff4fff51, or ends inside its header".into());
    };
    let word = |at: usize| {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&body[at..at + 4]);
        u32::from_be_bytes(bytes)
    };
    let (x1, y1, x0, y0) = (word(4), word(8), word(12), word(16));
    let (tile_width, tile_height) = (word(20), word(24));
    let components = u16::from_be_bytes([body[36], body[37]]);
    let (Some(width), Some(height)) = (x1.checked_sub(x0), y1.checked_sub(y0)) else {
        return Err("its header puts its end before its beginning".into());
    };
    // Many tiny tiles inside the codestream cost far more memory than their pixels.
    if tile_width == 0
        || tile_height == 0
        || (x1.div_ceil(tile_width) as u64) * (y1.div_ceil(tile_height) as u64) > 256
    {
        return Err("its header says that it has more than 256 tiles of its own".into());
    }
    Ok((width, height, components))
}
