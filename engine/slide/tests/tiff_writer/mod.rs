//! Writes TIFF files for tests and benches: classic and BigTIFF, both byte orders, data in any order, directories in a
//! chain or below another one. What is written streams to the file, so a slide of any size can be made.
//!
//! Only what a test needs is here; it is written after the specification (TIFF 6.0, BigTIFF), not after the reader.
#![allow(dead_code)]

use std::io::{self, Seek, SeekFrom, Write};

/// Byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// `II`
    Little,
    /// `MM`
    Big,
}

/// The value of a tag.
#[derive(Clone, Debug)]
pub enum Value {
    Short(Vec<u16>),
    Long(Vec<u32>),
    /// Offsets and byte counts: LONG in a classic file, LONG8 in a BigTIFF.
    Offsets(Vec<u64>),
    Ascii(String),
    Rational(u32, u32),
    Undefined(Vec<u8>),
}

/// A file that is being written.
pub struct TiffWriter<W> {
    out: W,
    order: Order,
    big: bool,
    at: u64,
    /// Where the offset of the next directory of the chain goes.
    link: u64,
}

impl<W: Write + Seek> TiffWriter<W> {
    pub fn new(mut out: W, order: Order, big: bool) -> io::Result<Self> {
        let mut head = match order {
            Order::Little => b"II".to_vec(),
            Order::Big => b"MM".to_vec(),
        };
        let put16 = |head: &mut Vec<u8>, value: u16| match order {
            Order::Little => head.extend_from_slice(&value.to_le_bytes()),
            Order::Big => head.extend_from_slice(&value.to_be_bytes()),
        };
        put16(&mut head, if big { 43 } else { 42 });
        if big {
            put16(&mut head, 8);
            put16(&mut head, 0);
        }
        let link = head.len() as u64;
        head.resize(head.len() + if big { 8 } else { 4 }, 0);
        out.write_all(&head)?;
        Ok(TiffWriter {
            at: head.len() as u64,
            out,
            order,
            big,
            link,
        })
    }

    /// Appends data and says where it begins.
    pub fn data(&mut self, bytes: &[u8]) -> io::Result<u64> {
        let at = self.at;
        self.out.write_all(bytes)?;
        self.at += bytes.len() as u64;
        if self.at % 2 == 1 {
            self.out.write_all(&[0])?;
            self.at += 1;
        }
        Ok(at)
    }

    /// Appends a directory; `chained`: as the next of the file, else as one that only its offset leads to.
    pub fn directory(&mut self, mut tags: Vec<(u16, Value)>, chained: bool) -> io::Result<u64> {
        tags.sort_by_key(|tag| tag.0);
        let mut entries = Vec::new();
        let room = if self.big { 8 } else { 4 };
        for (tag, value) in &tags {
            let (kind, count, bytes) = self.encode(value);
            let mut field = if bytes.len() <= room {
                let mut field = bytes;
                field.resize(room, 0);
                field
            } else {
                let at = self.data(&bytes)?;
                self.offset(at)
            };
            let mut entry = self.u16(*tag);
            entry.extend(self.u16(kind));
            entry.extend(self.offset(count));
            entry.append(&mut field);
            entries.extend(entry);
        }
        let mut bytes = if self.big {
            self.u64(tags.len() as u64)
        } else {
            self.u16(tags.len() as u16)
        };
        bytes.extend(entries);
        let next = bytes.len() as u64;
        bytes.extend(self.offset(0));
        let at = self.data(&bytes)?;
        if chained {
            let offset = self.offset(at);
            self.out.seek(SeekFrom::Start(self.link))?;
            self.out.write_all(&offset)?;
            self.out.seek(SeekFrom::Start(self.at))?;
            self.link = at + next;
        }
        Ok(at)
    }

    pub fn finish(mut self) -> io::Result<W> {
        self.out.flush()?;
        Ok(self.out)
    }

    /// Type, count and bytes.
    fn encode(&self, value: &Value) -> (u16, u64, Vec<u8>) {
        match value {
            Value::Short(v) => (
                3,
                v.len() as u64,
                v.iter().flat_map(|v| self.u16(*v)).collect(),
            ),
            Value::Long(v) => (
                4,
                v.len() as u64,
                v.iter().flat_map(|v| self.u32(*v)).collect(),
            ),
            Value::Offsets(v) => {
                let kind = if self.big { 16 } else { 4 };
                let bytes = v.iter().flat_map(|v| self.offset(*v)).collect();
                (kind, v.len() as u64, bytes)
            }
            Value::Ascii(text) => {
                let mut bytes = text.as_bytes().to_vec();
                bytes.push(0);
                (2, bytes.len() as u64, bytes)
            }
            Value::Rational(n, d) => (5, 1, [self.u32(*n), self.u32(*d)].concat()),
            Value::Undefined(bytes) => (7, bytes.len() as u64, bytes.clone()),
        }
    }

    fn u16(&self, value: u16) -> Vec<u8> {
        match self.order {
            Order::Little => value.to_le_bytes().to_vec(),
            Order::Big => value.to_be_bytes().to_vec(),
        }
    }

    fn u32(&self, value: u32) -> Vec<u8> {
        match self.order {
            Order::Little => value.to_le_bytes().to_vec(),
            Order::Big => value.to_be_bytes().to_vec(),
        }
    }

    fn u64(&self, value: u64) -> Vec<u8> {
        match self.order {
            Order::Little => value.to_le_bytes().to_vec(),
            Order::Big => value.to_be_bytes().to_vec(),
        }
    }

    /// As wide as this kind of file has its offsets and counts.
    fn offset(&self, value: u64) -> Vec<u8> {
        if self.big {
            self.u64(value)
        } else {
            // A classic file that grows beyond 4 GiB is a fault of the test.
            self.u32(u32::try_from(value).unwrap_or(u32::MAX))
        }
    }
}

/// What a directory of tiles says of itself, apart from where they lie.
#[derive(Clone, Debug)]
pub struct Tiles {
    pub width: u32,
    pub height: u32,
    pub tile: u32,
    pub samples: u16,
    /// TIFF 6.0: 1 none, 5 LZW, 7 JPEG, 8 Deflate; 50000 ZSTD.
    pub compression: u16,
    /// 1 gray, 2 RGB, 6 YCbCr.
    pub photometric: u16,
    pub predictor: bool,
}

impl Tiles {
    pub fn columns(&self) -> u32 {
        self.width.div_ceil(self.tile)
    }

    pub fn rows(&self) -> u32 {
        self.height.div_ceil(self.tile)
    }

    /// The tags, for tiles of which each has its place and length.
    pub fn tags(&self, spans: &[(u64, u64)]) -> Vec<(u16, Value)> {
        let mut tags = vec![
            (256, Value::Long(vec![self.width])),
            (257, Value::Long(vec![self.height])),
            (258, Value::Short(vec![8; self.samples as usize])),
            (259, Value::Short(vec![self.compression])),
            (262, Value::Short(vec![self.photometric])),
            (277, Value::Short(vec![self.samples])),
            (284, Value::Short(vec![1])),
            (322, Value::Long(vec![self.tile])),
            (323, Value::Long(vec![self.tile])),
            (
                324,
                Value::Offsets(spans.iter().map(|span| span.0).collect()),
            ),
            (
                325,
                Value::Offsets(spans.iter().map(|span| span.1).collect()),
            ),
        ];
        if self.predictor {
            tags.push((317, Value::Short(vec![2])));
        }
        tags
    }
}

/// The tags of a resolution of `mpp` um/px.
pub fn resolution(mpp: f64) -> Vec<(u16, Value)> {
    let dots = (10_000.0 / mpp * 1000.0).round() as u32;
    vec![
        (282, Value::Rational(dots, 1000)),
        (283, Value::Rational(dots, 1000)),
        (296, Value::Short(vec![3])),
    ]
}

/// The tile at (`column`, `row`) of a picture of interleaved samples, what lies outside repeating the last row and column.
pub fn cut(picture: &[u8], of: &Tiles, column: u32, row: u32) -> Vec<u8> {
    let samples = of.samples as usize;
    let mut tile = Vec::with_capacity((of.tile * of.tile) as usize * samples);
    for y in 0..of.tile {
        let y = (row * of.tile + y).min(of.height - 1);
        for x in 0..of.tile {
            let x = (column * of.tile + x).min(of.width - 1);
            let at = (y * of.width + x) as usize * samples;
            tile.extend_from_slice(&picture[at..at + samples]);
        }
    }
    tile
}

/// Horizontal differences (TIFF 6.0 section 14) of a tile that is `width` px wide.
pub fn differences(tile: &[u8], width: usize, samples: usize) -> Vec<u8> {
    let mut out = tile.to_vec();
    for (out, row) in out
        .chunks_exact_mut(width * samples)
        .zip(tile.chunks_exact(width * samples))
    {
        for i in samples..row.len() {
            out[i] = row[i].wrapping_sub(row[i - samples]);
        }
    }
    out
}

/// A JPEG stream parted into the tables that a level shares (tag 347) and what is left of the tile. The tables come as a
/// stream of their own, as TIFF Technical Note 2 has it.
pub fn part_jpeg(stream: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (mut tables, mut rest) = (vec![0xff, 0xd8], vec![0xff, 0xd8]);
    let mut at = 2;
    while stream[at + 1] != 0xda {
        let end = at + 2 + u16::from_be_bytes([stream[at + 2], stream[at + 3]]) as usize;
        match stream[at + 1] {
            0xdb | 0xc4 => tables.extend_from_slice(&stream[at..end]),
            0xe0..=0xef => {}
            _ => rest.extend_from_slice(&stream[at..end]),
        }
        at = end;
    }
    rest.extend_from_slice(&stream[at..]);
    tables.extend_from_slice(&[0xff, 0xd9]);
    (tables, rest)
}
