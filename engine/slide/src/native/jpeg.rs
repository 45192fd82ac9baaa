//! JPEG tiles (ITU-T T.81; TIFF Technical Note 2): the header is read here, before a decoder sees a byte.
//!
//! A 17.7 kB file whose header says 65,500 x 65,500 px costs a decoder that believes it hundreds of megabytes. So the walk
//! over the markers happens here, the frame must have exactly the tile's size, and the decoder gets a stream that is put
//! together anew: the level's shared tables, the tile's own, the frame and the scan. Application segments are left out, so the
//! TIFF alone says what the components mean (an Adobe marker in front tells the decoder): Aperio writes RGB components under
//! the same file extension as YCbCr ones.

use super::page::Colour;
use std::cell::RefCell;
use turbojpeg::{Decompressor, Image, PixelFormat, ScalingFactor};

/// A progressive image has a handful of scans; thousands are an attack on time.
const MAX_SCANS: u32 = 64;

/// Tables that the tiles of a level share (tag 347), without the markers that frame them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tables(Vec<u8>);

impl Tables {
    pub(crate) fn parse(stream: &[u8]) -> Result<Self, String> {
        let mut tables = Vec::with_capacity(stream.len());
        for segment in Segments::new(stream)? {
            let (marker, bytes) = segment?;
            match marker {
                DQT | DHT | DRI | DAC => tables.extend_from_slice(bytes),
                0xe0..=0xef | COM => {}
                other => return Err(format!("unexpected marker ff{other:02x}")),
            }
        }
        Ok(Tables(tables))
    }
}

const DHT: u8 = 0xc4;
const DAC: u8 = 0xcc;
const SOI: u8 = 0xd8;
const EOI: u8 = 0xd9;
const SOS: u8 = 0xda;
const DQT: u8 = 0xdb;
const DNL: u8 = 0xdc;
const DRI: u8 = 0xdd;
const COM: u8 = 0xfe;

/// The segments of a stream up to its scan or its end: marker, and all bytes with marker and length.
struct Segments<'a> {
    stream: &'a [u8],
    at: usize,
    done: bool,
}

impl<'a> Segments<'a> {
    fn new(stream: &'a [u8]) -> Result<Self, String> {
        match stream {
            [0xff, SOI, ..] => Ok(Segments {
                stream,
                at: 2,
                done: false,
            }),
            _ => Err("it does not begin with ffd8".into()),
        }
    }
}

impl<'a> Iterator for Segments<'a> {
    type Item = Result<(u8, &'a [u8]), String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let start = self.at;
        let cut = |at: usize| Some(Err(format!("its header ends at byte {at}")));
        let mut at = start;
        // Any number of fill bytes may stand before a marker (T.81 B.1.1.2).
        let marker = loop {
            match self.stream.get(at..at + 2) {
                Some([0xff, 0xff]) => at += 1,
                Some([0xff, marker]) => break *marker,
                Some(_) => {
                    self.done = true;
                    return Some(Err(format!("there is no marker at byte {at}")));
                }
                None => {
                    self.done = true;
                    return cut(at);
                }
            }
        };
        if marker == EOI {
            self.done = true;
            return None;
        }
        let Some(length) = self.stream.get(at + 2..at + 4) else {
            self.done = true;
            return cut(at);
        };
        let length = u16::from_be_bytes([length[0], length[1]]) as usize;
        let Some(bytes) = self.stream.get(at..at + 2 + length).filter(|_| length >= 2) else {
            self.done = true;
            return cut(at);
        };
        self.at = at + 2 + length;
        self.done = marker == SOS;
        Some(Ok((marker, bytes)))
    }
}

/// What a tile must be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) samples: u8,
    pub(crate) colour: Colour,
}

/// Puts a stream that stands alone into `whole`, after all checks of its header.
pub(crate) fn assemble(
    stream: &[u8],
    tables: Option<&Tables>,
    expected: Expected,
    whole: &mut Vec<u8>,
) -> Result<(), String> {
    whole.clear();
    whole.extend_from_slice(&[0xff, SOI]);
    if expected.samples == 3 {
        let transform = u8::from(expected.colour == Colour::YCbCr);
        // APP14 "Adobe", version 100, no flags; its last byte says what the components are.
        whole.extend_from_slice(&[
            0xff, 0xee, 0, 14, b'A', b'd', b'o', b'b', b'e', 0, 100, 0, 0, 0, 0, transform,
        ]);
    }
    if let Some(tables) = tables {
        whole.extend_from_slice(&tables.0);
    }
    let mut framed = false;
    let mut segments = Segments::new(stream)?;
    let mut scan = false;
    for segment in &mut segments {
        let (marker, bytes) = segment?;
        match marker {
            0xc0..=0xc2 if !framed => {
                check_frame(bytes, expected)?;
                framed = true;
                whole.extend_from_slice(bytes);
            }
            0xc0..=0xc2 => return Err("it has two frames".into()),
            DHT | DQT | DRI | DAC => whole.extend_from_slice(bytes),
            SOS => {
                whole.extend_from_slice(bytes);
                scan = true;
            }
            0xe0..=0xef | COM => {}
            0xc3..=0xcf => {
                return Err(format!(
                    "its frame is of kind ff{marker:02x}; only baseline, extended and progressive ones are read"
                ));
            }
            DNL => return Err("its number of lines is not in its frame".into()),
            other => return Err(format!("unexpected marker ff{other:02x}")),
        }
    }
    if !framed || !scan {
        return Err("it has no picture: frame or scan is missing".into());
    }
    whole.extend_from_slice(&stream[segments.at..]);
    Ok(())
}

fn check_frame(segment: &[u8], expected: Expected) -> Result<(), String> {
    let &[_, _, _, _, precision, h1, h0, w1, w0, components, ..] = segment else {
        return Err("its frame header is too short".into());
    };
    let (height, width) = (
        u16::from_be_bytes([h1, h0]) as u32,
        u16::from_be_bytes([w1, w0]) as u32,
    );
    if (width, height) != (expected.width, expected.height) {
        return Err(format!(
            "its header says {width} x {height} px, but the tile has {} x {}",
            expected.width, expected.height
        ));
    }
    if precision != 8 {
        return Err(format!("its samples have {precision} bits"));
    }
    if components != expected.samples {
        return Err(format!(
            "its header says {components} components, but the TIFF {}",
            expected.samples
        ));
    }
    if segment.len() != 10 + 3 * components as usize {
        return Err("its frame header has a wrong length".into());
    }
    Ok(())
}

thread_local! {
    // libjpeg-turbo's tables and buffers are made once a thread, not once a tile.
    static DECODER: RefCell<Option<Decompressor>> = const { RefCell::new(None) };
}

/// Decodes a stream of [`assemble`] to RGB; `half`: straight to half the size, rounded up. Warnings of the decoder are errors:
/// it would go on and fill in what is missing.
pub(crate) fn decode(
    whole: &[u8],
    width: u32,
    height: u32,
    half: bool,
    into: &mut [u8],
) -> Result<(), String> {
    let scale = if half {
        ScalingFactor::ONE_HALF
    } else {
        ScalingFactor::ONE
    };
    let (width, height) = (scale.scale(width as usize), scale.scale(height as usize));
    if into.len() < width * height * 3 {
        return Err("there is no room for it".into());
    }
    DECODER.with(|slot| {
        let mut slot = slot.borrow_mut();
        let decoder = match &mut *slot {
            Some(decoder) => decoder,
            empty => {
                let mut made = Decompressor::new().map_err(|e| e.to_string())?;
                made.set_scan_limit(MAX_SCANS).map_err(|e| e.to_string())?;
                empty.insert(made)
            }
        };
        decoder
            .set_scaling_factor(scale)
            .map_err(|e| e.to_string())?;
        decoder
            .decompress(
                whole,
                Image {
                    pixels: into,
                    width,
                    pitch: width * 3,
                    height,
                    format: PixelFormat::RGB,
                },
            )
            .map_err(|e| e.to_string())
    })
}
