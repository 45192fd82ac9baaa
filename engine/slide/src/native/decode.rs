//! The bytes of one native tile to RGB, strictly: everything is there and right, or it is an error with its place.

use super::jpeg::{self, Expected};
use super::page::{Colour, Compression, Page};
use crate::tiff::Source;
use crate::{Fault, Limits, RawTile, SlideError};
use std::cell::RefCell;

/// Buffers of a thread, grown once.
#[derive(Default)]
struct Scratch {
    encoded: Vec<u8>,
    whole: Vec<u8>,
    samples: Vec<u8>,
}

/// A thread's buffer larger than this is given back after use.
const KEEP: usize = 8 << 20;

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// What decoding needs besides the bytes.
#[derive(Clone, Copy)]
pub(crate) struct Native<'a> {
    pub(crate) source: &'a Source,
    pub(crate) limits: &'a Limits,
    pub(crate) page: &'a Page,
    /// Level of the page, for messages; associated pictures have none.
    pub(crate) level: Option<usize>,
}

impl Native<'_> {
    /// Decodes native tile `index` into interleaved RGB of the native tile's full size, or of half of it. A strip at the end
    /// fills only its own rows.
    pub(crate) fn decode(&self, index: u64, half: bool, into: &mut [u8]) -> Result<(), SlideError> {
        SCRATCH.with(|scratch| {
            let mut scratch = scratch.borrow_mut();
            let scratch = &mut *scratch;
            self.fetch(index, &mut scratch.encoded)?;
            let done = self
                .decode_bytes(index, half, scratch, into)
                .map_err(|why| {
                    let encoded = &scratch.encoded;
                    let zeros = self.page.compression != Compression::None
                        && encoded.iter().all(|byte| *byte == 0);
                    let what = if zeros {
                        format!(
                            "the {} bytes of this tile are all zero: it was never written or was overwritten, and pixels are never invented",
                            encoded.len()
                        )
                    } else {
                        format!("this tile is damaged ({}): {why}", self.page.encoding())
                    };
                    self.error(index, Fault::Damaged, what)
                });
            for buffer in [
                &mut scratch.encoded,
                &mut scratch.whole,
                &mut scratch.samples,
            ] {
                if buffer.capacity() > KEEP {
                    *buffer = Vec::new();
                }
            }
            done
        })
    }

    /// The tile as it stands in the file; a JPEG with its tables.
    pub(crate) fn raw(&self, index: u64) -> Result<RawTile, SlideError> {
        let mut bytes = Vec::new();
        self.fetch(index, &mut bytes)?;
        if self.page.compression == Compression::Jpeg {
            let mut whole = Vec::with_capacity(bytes.len() + 1024);
            jpeg::assemble(
                &bytes,
                self.page.tables.as_ref(),
                self.expected(index),
                &mut whole,
            )
            .map_err(|why| {
                self.error(
                    index,
                    Fault::Damaged,
                    format!("this tile is damaged (JPEG): {why}"),
                )
            })?;
            bytes = whole;
        }
        Ok(RawTile {
            bytes,
            encoding: self.page.encoding(),
        })
    }

    /// Reads the tile's bytes.
    fn fetch(&self, index: u64, into: &mut Vec<u8>) -> Result<(), SlideError> {
        let (offset, count) = self.page.span(index);
        if count == 0 {
            return Err(self.error(
                index,
                Fault::Damaged,
                "this tile has no bytes (its byte count is 0): pixels are never invented".into(),
            ));
        }
        if !self.source.holds(offset, count) {
            return Err(self.error(
                index,
                Fault::Damaged,
                format!(
                    "this tile's {count} bytes reach beyond the end of the file at {}: the file is truncated",
                    self.source.len()
                ),
            ));
        }
        if count > self.limits.max_encoded_bytes {
            return Err(self.error(
                index,
                Fault::TooLarge,
                format!(
                    "this tile has {count} compressed bytes; at most {} are read",
                    self.limits.max_encoded_bytes
                ),
            ));
        }
        // No zeroing of what is overwritten: the buffer only grows.
        let count = count as usize;
        if into.len() < count {
            into.resize(count, 0);
        }
        into.truncate(count);
        self.source.read(offset, into).map_err(|mut error| {
            *error.place = self.page.place(self.level, index);
            error
        })
    }

    fn expected(&self, index: u64) -> Expected {
        Expected {
            width: self.page.tile_width,
            height: self.page.encoded_rows(index),
            samples: self.page.samples,
            colour: self.page.colour,
        }
    }

    fn decode_bytes(
        &self,
        index: u64,
        half: bool,
        scratch: &mut Scratch,
        into: &mut [u8],
    ) -> Result<(), String> {
        let page = self.page;
        let (width, rows) = (page.tile_width, page.encoded_rows(index));
        let encoded = &scratch.encoded[..];
        let samples = page.samples as usize;
        let length = width as usize * rows as usize * samples;
        match page.compression {
            Compression::Jpeg => {
                jpeg::assemble(
                    encoded,
                    page.tables.as_ref(),
                    self.expected(index),
                    &mut scratch.whole,
                )?;
                return jpeg::decode(&scratch.whole, width, rows, half, into);
            }
            Compression::Jpeg2000 { ycc } => {
                let mut data = super::jpeg2000::decode(encoded, width, rows, page.samples)?;
                if (ycc || page.colour == Colour::YCbCr) && samples == 3 {
                    data.as_chunks_mut::<3>().0.iter_mut().for_each(ycc_to_rgb);
                }
                return to_rgb(page, &data, into);
            }
            Compression::None => {
                let raw = encoded
                    .get(..length)
                    .ok_or_else(|| format!("it has {} bytes of {length}", encoded.len()))?;
                return to_rgb(page, raw, into);
            }
            Compression::Lzw | Compression::Deflate | Compression::Zstd => {}
        }
        if scratch.samples.len() < length {
            scratch.samples.resize(length, 0);
        }
        let out = &mut scratch.samples[..length];
        match page.compression {
            Compression::Lzw => unpack_lzw(encoded, out)?,
            Compression::Deflate => unpack_deflate(encoded, out)?,
            _ => unpack_zstd(encoded, out)?,
        }
        if page.predictor {
            for row in out.chunks_exact_mut(width as usize * samples) {
                undo_differences(row, samples);
            }
        }
        to_rgb(page, out, into)
    }

    fn error(&self, index: u64, fault: Fault, what: String) -> SlideError {
        self.source
            .error(
                fault,
                what,
                "copy or export the slide again; the other tiles can still be read",
            )
            .at(self.page.place(self.level, index))
    }
}

/// Samples of one colour layout to RGB. Alpha is left out: what a writer put below it is what was seen.
fn to_rgb(page: &Page, samples: &[u8], into: &mut [u8]) -> Result<(), String> {
    let pixels = samples.len() / page.samples.max(1) as usize;
    let into = into
        .get_mut(..pixels * 3)
        .ok_or("there is no room for it")?;
    match (page.samples, page.colour) {
        (1, Colour::WhiteIsZero) => {
            for (rgb, gray) in into.as_chunks_mut::<3>().0.iter_mut().zip(samples) {
                *rgb = [255 - *gray; 3];
            }
        }
        (1, _) => {
            for (rgb, gray) in into.as_chunks_mut::<3>().0.iter_mut().zip(samples) {
                *rgb = [*gray; 3];
            }
        }
        (3, _) => into.copy_from_slice(samples),
        (4, _) => {
            for (rgb, rgba) in into
                .as_chunks_mut::<3>()
                .0
                .iter_mut()
                .zip(samples.as_chunks::<4>().0)
            {
                rgb.copy_from_slice(&rgba[..3]);
            }
        }
        (other, _) => return Err(format!("{other} samples a pixel")),
    }
    Ok(())
}

/// Undoes horizontal differencing (TIFF 6.0 section 14) in one row.
fn undo_differences(row: &mut [u8], samples: usize) {
    for i in samples..row.len() {
        row[i] = row[i].wrapping_add(row[i - samples]);
    }
}

/// BT.601 full range, as in JFIF.
fn ycc_to_rgb(pixel: &mut [u8; 3]) {
    let [y, cb, cr] = pixel.map(|v| v as f32);
    let (cb, cr) = (cb - 128.0, cr - 128.0);
    *pixel = [
        y + 1.402 * cr,
        y - 0.344_136 * cb - 0.714_136 * cr,
        y + 1.772 * cb,
    ]
    .map(|v| (v + 0.5) as u8);
}

/// LZW of TIFF 6.0 section 13: most significant bit first, early change of the code size.
fn unpack_lzw(encoded: &[u8], out: &mut [u8]) -> Result<(), String> {
    let mut decoder = weezl::decode::Decoder::with_tiff_size_switch(weezl::BitOrder::Msb, 8);
    let (mut read, mut written) = (0, 0);
    while written < out.len() {
        let step = decoder.decode_bytes(&encoded[read..], &mut out[written..]);
        read += step.consumed_in;
        written += step.consumed_out;
        match step.status {
            Ok(weezl::LzwStatus::Ok) if step.consumed_in + step.consumed_out > 0 => {}
            Ok(_) => break,
            Err(error) => return Err(error.to_string()),
        }
    }
    complete(written, out.len())
}

/// zlib streams (RFC 1950).
fn unpack_deflate(encoded: &[u8], out: &mut [u8]) -> Result<(), String> {
    let mut decoder = flate2::Decompress::new(true);
    let status = decoder
        .decompress(encoded, out, flate2::FlushDecompress::Finish)
        .map_err(|error| error.to_string())?;
    complete(decoder.total_out() as usize, out.len())?;
    if status != flate2::Status::StreamEnd {
        // All pixels are there; the checksum behind them is still to be read.
        let read = decoder.total_in() as usize;
        let status = decoder
            .decompress(
                &encoded[read..],
                &mut [0; 1],
                flate2::FlushDecompress::Finish,
            )
            .map_err(|error| error.to_string())?;
        if status != flate2::Status::StreamEnd {
            return Err("it ends before its checksum, or is longer than the tile".into());
        }
    }
    Ok(())
}

/// Zstandard frames (RFC 8878), as libtiff writes them.
fn unpack_zstd(encoded: &[u8], out: &mut [u8]) -> Result<(), String> {
    let written =
        zstd::bulk::decompress_to_buffer(encoded, out).map_err(|error| error.to_string())?;
    complete(written, out.len())
}

fn complete(written: usize, wanted: usize) -> Result<(), String> {
    if written == wanted {
        Ok(())
    } else {
        Err(format!("it holds {written} bytes of {wanted}"))
    }
}
