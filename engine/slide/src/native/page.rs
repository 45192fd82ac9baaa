//! How the pixels of one directory are laid out.

use super::jpeg::Tables;
use crate::tiff::{Directory, Tiff, tags};
use crate::{Fault, Limits, Place, SlideError};

/// How native tiles are compressed (TIFF tag 259).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Lzw,
    Deflate,
    Zstd,
    Jpeg,
    /// Aperio's JPEG 2000; `ycc`: the components are YCbCr (33003), else RGB (33005).
    Jpeg2000 {
        ycc: bool,
    },
}

/// What the samples mean (TIFF tag 262).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Colour {
    WhiteIsZero,
    BlackIsZero,
    Rgb,
    YCbCr,
}

/// One image of a file: a grid of native tiles. A strip is a tile as wide as the image.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) ifd: usize,
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) tile_width: u32,
    pub(crate) tile_height: u32,
    pub(crate) columns: u32,
    pub(crate) rows: u32,
    pub(crate) strips: bool,
    pub(crate) compression: Compression,
    pub(crate) colour: Colour,
    pub(crate) samples: u8,
    pub(crate) predictor: bool,
    pub(crate) tables: Option<Tables>,
    offsets: Vec<u64>,
    counts: Vec<u64>,
}

impl Page {
    /// Reads the layout of `of`; refuses, with the reason, what this version does not decode.
    pub(crate) fn parse(tiff: &Tiff, of: &Directory, limits: &Limits) -> Result<Self, SlideError> {
        let place = Place {
            ifd: Some(of.number),
            ..Place::default()
        };
        let fault =
            |fault: Fault, what: String, help: &str| tiff.source.error(fault, what, help).at(place);
        let damaged = |what: String| fault(Fault::Damaged, what, "export the slide again");
        let unsupported = |what: String| {
            fault(
                Fault::Unsupported,
                what,
                "convert it to 8-bit RGB with chunky tiles, for example `vips tiffsave in.tif out.tif --tile --pyramid --compression jpeg --bigtiff`",
            )
        };
        let need = |tag: u16, name: &str| -> Result<u64, SlideError> {
            tiff.int(of, tag)?
                .ok_or_else(|| damaged(format!("has no {name} (tag {tag})")))
        };
        let side = |value: u64, name: &str| -> Result<u32, SlideError> {
            match u32::try_from(value) {
                Ok(side @ 1..) if value <= limits.max_side as u64 => Ok(side),
                Ok(0) => Err(damaged(format!("its {name} is 0"))),
                _ => Err(fault(
                    Fault::TooLarge,
                    format!(
                        "its {name} is {value} px; at most {} are read",
                        limits.max_side
                    ),
                    "cut it",
                )),
            }
        };
        let width = side(need(tags::IMAGE_WIDTH, "width")?, "width")?;
        let height = side(need(tags::IMAGE_LENGTH, "height")?, "height")?;

        let compression = match tiff.int(of, tags::COMPRESSION)?.unwrap_or(1) {
            1 => Compression::None,
            5 => Compression::Lzw,
            7 => Compression::Jpeg,
            8 | 32946 => Compression::Deflate,
            50000 => Compression::Zstd,
            33003 => Compression::Jpeg2000 { ycc: true },
            33005 => Compression::Jpeg2000 { ycc: false },
            other => {
                return Err(fault(
                    Fault::Unsupported,
                    format!(
                        "its pixels are compressed by scheme {other}{}, which this version does not read",
                        name_of_compression(other)
                    ),
                    "the native reader takes none, LZW, Deflate, ZSTD, JPEG and Aperio's JPEG 2000; convert the slide",
                ));
            }
        };
        let samples = tiff.int(of, tags::SAMPLES_PER_PIXEL)?.unwrap_or(1);
        let colour = match (tiff.int(of, tags::PHOTOMETRIC)?, samples) {
            (Some(0), 1) => Colour::WhiteIsZero,
            (Some(1), 1) => Colour::BlackIsZero,
            (None, 1) => Colour::BlackIsZero,
            (Some(2) | None, 3 | 4) => Colour::Rgb,
            (Some(6), 3)
                if matches!(
                    compression,
                    Compression::Jpeg | Compression::Jpeg2000 { .. }
                ) =>
            {
                Colour::YCbCr
            }
            (photometric, samples) => {
                return Err(unsupported(format!(
                    "its pixels have {samples} samples of photometric interpretation {}; this version reads gray, RGB, RGBA, and YCbCr inside JPEG",
                    photometric.map_or("(none)".into(), |p| p.to_string())
                )));
            }
        };
        if compression == Compression::Jpeg && samples == 4 {
            return Err(unsupported(
                "its JPEG tiles have four components, which this version does not read".into(),
            ));
        }
        let bits = tiff
            .ints(of, tags::BITS_PER_SAMPLE, 64)?
            .unwrap_or_else(|| vec![1]);
        if bits.iter().any(|bits| *bits != 8) {
            return Err(unsupported(format!(
                "its samples have {} bits; this version reads 8",
                bits.first().copied().unwrap_or(0)
            )));
        }
        if let Some(format) = tiff.int(of, tags::SAMPLE_FORMAT)?
            && format != 1
            && format != 4
        {
            return Err(unsupported(format!(
                "its samples are of format {format}, not unsigned integers"
            )));
        }
        if tiff.int(of, tags::PLANAR_CONFIGURATION)?.unwrap_or(1) != 1 && samples > 1 {
            return Err(unsupported(
                "its colours stand in separate planes (planar configuration 2), which this version does not read".into(),
            ));
        }
        let predictor = match tiff.int(of, tags::PREDICTOR)?.unwrap_or(1) {
            1 => false,
            2 => matches!(
                compression,
                Compression::Lzw | Compression::Deflate | Compression::Zstd
            ),
            other => {
                return Err(unsupported(format!(
                    "its samples use predictor {other}; this version reads 1 and 2"
                )));
            }
        };

        let strips = !of.has(tags::TILE_OFFSETS) && !of.has(tags::TILE_WIDTH);
        let (tile_width, tile_height) = if strips {
            let rows = tiff
                .int(of, tags::ROWS_PER_STRIP)?
                .unwrap_or(height as u64)
                .clamp(1, height as u64);
            (width, rows as u32)
        } else {
            (
                side(need(tags::TILE_WIDTH, "tile width")?, "tile width")?,
                side(need(tags::TILE_LENGTH, "tile height")?, "tile height")?,
            )
        };
        let bytes = tile_width as u64 * tile_height as u64 * samples.max(3);
        if bytes > limits.max_tile_bytes {
            let kind = if strips { "strip" } else { "tile" };
            return Err(fault(
                Fault::TooLarge,
                format!(
                    "a {kind} of {tile_width} x {tile_height} px takes {bytes} bytes; at most {} are decoded at once",
                    limits.max_tile_bytes
                ),
                "convert it to tiles, for example `vips tiffsave in.tif out.tif --tile --pyramid --compression jpeg --bigtiff`",
            ));
        }
        let (columns, rows) = (width.div_ceil(tile_width), height.div_ceil(tile_height));
        let cells = columns as u64 * rows as u64;
        let (offsets_tag, counts_tag) = if strips {
            (tags::STRIP_OFFSETS, tags::STRIP_BYTE_COUNTS)
        } else {
            (tags::TILE_OFFSETS, tags::TILE_BYTE_COUNTS)
        };
        // Both tables stand in the file, so its length bounds what is allocated here.
        let table = |tag: u16, name: &str| -> Result<Vec<u64>, SlideError> {
            let table = tiff
                .ints(of, tag, cells.saturating_mul(2))?
                .ok_or_else(|| damaged(format!("has no table of {name} (tag {tag})")))?;
            if (table.len() as u64) < cells {
                return Err(damaged(format!(
                    "its table of {name} has {} entries for {cells} tiles or strips",
                    table.len()
                )));
            }
            Ok(table)
        };
        let offsets = table(offsets_tag, "offsets")?;
        let counts = table(counts_tag, "byte counts")?;
        let tables = match tiff.bytes(of, tags::JPEG_TABLES)? {
            Some(bytes) if compression == Compression::Jpeg => Some(
                Tables::parse(&bytes)
                    .map_err(|why| damaged(format!("its shared JPEG tables are damaged: {why}")))?,
            ),
            _ => None,
        };
        Ok(Page {
            ifd: of.number,
            width,
            height,
            tile_width,
            tile_height,
            columns,
            rows,
            strips,
            compression,
            colour,
            samples: samples as u8,
            predictor,
            tables,
            offsets,
            counts,
        })
    }

    /// Number of native tiles.
    pub(crate) fn cells(&self) -> u64 {
        self.columns as u64 * self.rows as u64
    }

    /// Where the bytes of a native tile stand: offset and count.
    pub(crate) fn span(&self, index: u64) -> (u64, u64) {
        let at = |table: &[u64]| table.get(index as usize).copied().unwrap_or(0);
        (at(&self.offsets), at(&self.counts))
    }

    /// Rows of pixels that the native tile is encoded with: a strip at the end is shorter, a tile never is.
    pub(crate) fn encoded_rows(&self, index: u64) -> u32 {
        if self.strips {
            let above = (index / self.columns as u64) as u32 * self.tile_height;
            self.tile_height.min(self.height - above.min(self.height))
        } else {
            self.tile_height
        }
    }

    /// Bytes of a native tile as interleaved RGB.
    pub(crate) fn rgb_bytes(&self) -> usize {
        self.tile_width as usize * self.tile_height as usize * 3
    }

    /// Where the native tile is, for messages.
    pub(crate) fn place(&self, level: Option<usize>, index: u64) -> Place {
        let columns = self.columns.max(1) as u64;
        Place {
            ifd: Some(self.ifd),
            level,
            tile: Some(index),
            cell: Some(((index % columns) as u32, (index / columns) as u32)),
            offset: Some(self.span(index).0),
        }
    }

    /// How its tiles are written, for people.
    pub(crate) fn encoding(&self) -> String {
        let compression = match self.compression {
            Compression::None => "uncompressed",
            Compression::Lzw => "LZW",
            Compression::Deflate => "Deflate",
            Compression::Zstd => "ZSTD",
            Compression::Jpeg => "JPEG",
            Compression::Jpeg2000 { .. } => "JPEG 2000",
        };
        let colour = match (self.compression, self.colour, self.samples) {
            (Compression::Jpeg2000 { ycc: true }, ..) | (_, Colour::YCbCr, _) => "YCbCr",
            (_, Colour::Rgb, 4) => "RGBA",
            (_, Colour::Rgb, _) => "RGB",
            _ => "gray",
        };
        let strips = if self.strips { ", strips" } else { "" };
        format!("{compression}, {colour}{strips}")
    }
}

fn name_of_compression(scheme: u64) -> &'static str {
    match scheme {
        2..=4 => " (fax)",
        6 => " (JPEG of the old kind)",
        32773 => " (PackBits)",
        34712 => " (JPEG 2000)",
        34887 => " (LERC)",
        34925 => " (LZMA)",
        50001 => " (WebP)",
        50002 => " (JPEG XL)",
        _ => "",
    }
}
