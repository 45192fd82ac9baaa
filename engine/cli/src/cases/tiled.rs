//! Writes tiled TIFF slides: uncompressed, little-endian, one level. Native tiles that are equal stand in the file once, so a
//! slide of many thousand tiles can be small.
//!
//! Of the standard library alone, since the whole-program tests make their slides with this file too.

use std::collections::HashMap;
use std::io;
use std::path::Path;

/// A slide to be written.
#[derive(Clone, Copy, Debug)]
pub struct Tiled {
    /// px.
    pub width: u32,
    /// px.
    pub height: u32,
    /// Width and height of a native tile, px; a multiple of 16.
    pub tile: u32,
    /// um/px; without it the file says nothing of its resolution.
    pub mpp: Option<f64>,
}

impl Tiled {
    /// Writes the slide. `kind(column, row)` says which native tiles are equal; `paint(column, row, pixels)` fills the first of
    /// each kind, [tile, tile, 3].
    pub fn write(
        &self,
        path: &Path,
        kind: &dyn Fn(u32, u32) -> u64,
        paint: &dyn Fn(u32, u32, &mut [u8]),
    ) -> io::Result<()> {
        let bytes = (self.tile * self.tile * 3) as usize;
        let mut file = vec![0u8; 8];
        let mut known: HashMap<u64, u32> = HashMap::new();
        let mut offsets = Vec::new();
        for row in 0..self.height.div_ceil(self.tile) {
            for column in 0..self.width.div_ceil(self.tile) {
                let offset = match known.get(&kind(column, row)) {
                    Some(offset) => *offset,
                    None => {
                        let offset = position(&file)?;
                        file.resize(file.len() + bytes, 0);
                        paint(column, row, &mut file[offset as usize..]);
                        known.insert(kind(column, row), offset);
                        offset
                    }
                };
                offsets.push(offset);
            }
        }
        let directory = self.directory(&mut file, &offsets, bytes as u32)?;
        file[..4].copy_from_slice(b"II*\0");
        file[4..8].copy_from_slice(&directory.to_le_bytes());
        std::fs::write(path, file)
    }

    /// Appends the image file directory (TIFF 6.0, section 2) and what it points to; returns where it begins.
    fn directory(&self, file: &mut Vec<u8>, offsets: &[u32], bytes: u32) -> io::Result<u32> {
        const SHORT: u16 = 3;
        const LONG: u16 = 4;
        const RATIONAL: u16 = 5;
        let mut words = |words: &[u32]| -> io::Result<u32> {
            let offset = position(file)?;
            file.extend(words.iter().flat_map(|word| word.to_le_bytes()));
            Ok(offset)
        };
        // (tag, type, count, value or where the values stand), by tag.
        let mut entries: Vec<(u16, u16, u32, u32)> = vec![
            (256, LONG, 1, self.width),
            (257, LONG, 1, self.height),
            (258, SHORT, 3, words(&[8 | 8 << 16, 8])?),
            (259, SHORT, 1, 1),
            (262, SHORT, 1, 2),
            (277, SHORT, 1, 3),
        ];
        if let Some(mpp) = self.mpp {
            // px a cm, in thousandths.
            let density = words(&[(10_000_000.0 / mpp).round() as u32, 1000])?;
            entries.extend([(282, RATIONAL, 1, density), (283, RATIONAL, 1, density)]);
        }
        entries.push((284, SHORT, 1, 1));
        if self.mpp.is_some() {
            entries.push((296, SHORT, 1, 3));
        }
        entries.extend([(322, SHORT, 1, self.tile), (323, SHORT, 1, self.tile)]);
        let n = offsets.len() as u32;
        if let [only] = offsets {
            entries.extend([(324, LONG, 1, *only), (325, LONG, 1, bytes)]);
        } else {
            entries.push((324, LONG, n, words(offsets)?));
            entries.push((325, LONG, n, words(&vec![bytes; offsets.len()])?));
        }
        let start = position(file)?;
        file.extend((entries.len() as u16).to_le_bytes());
        for (tag, kind, count, value) in entries {
            file.extend(tag.to_le_bytes());
            file.extend(kind.to_le_bytes());
            file.extend(count.to_le_bytes());
            file.extend(value.to_le_bytes());
        }
        file.extend([0; 4]);
        Ok(start)
    }
}

fn position(file: &[u8]) -> io::Result<u32> {
    u32::try_from(file.len())
        .map_err(|_| io::Error::new(io::ErrorKind::FileTooLarge, "a TIFF of more than 4 GiB"))
}
