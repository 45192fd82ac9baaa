//! Writes tiled TIFF slides for tests: uncompressed, little-endian, one level; tiles that are equal stand in the file once, so a
//! slide of many thousand tiles is small.

use std::collections::HashMap;
use std::path::Path;

/// A slide to be written.
pub struct Tiled {
    pub columns: u32,
    pub rows: u32,
    /// Width and height of a tile, px; a multiple of 16.
    pub px: u32,
    /// um/px; without it the file says nothing of its resolution.
    pub mpp: Option<f64>,
}

/// Pixels of a tile, [px, px, 3].
pub type Paint<'a> = &'a dyn Fn(u32, u32, &mut [u8]);

impl Tiled {
    /// Writes the slide; `kind` says which tiles are equal, `paint` fills the first of each kind.
    pub fn write(&self, path: &Path, kind: &dyn Fn(u32, u32) -> u64, paint: Paint) {
        let bytes = (self.px * self.px * 3) as usize;
        let mut file = vec![0u8; 8];
        let mut known: HashMap<u64, u32> = HashMap::new();
        let mut offsets = Vec::new();
        for row in 0..self.rows {
            for column in 0..self.columns {
                let offset = *known.entry(kind(column, row)).or_insert_with(|| {
                    let offset = file.len() as u32;
                    file.resize(file.len() + bytes, 0);
                    paint(column, row, &mut file[offset as usize..]);
                    offset
                });
                offsets.push(offset);
            }
        }
        let counts = vec![bytes as u32; offsets.len()];
        let mut tags: Vec<(u16, u16, u32, [u8; 4])> = Vec::new();
        let short = |value: u16| {
            let [a, b] = value.to_le_bytes();
            [a, b, 0, 0]
        };
        let at = |file: &mut Vec<u8>, words: &[u32]| {
            let offset = file.len() as u32;
            file.extend(words.iter().flat_map(|word| word.to_le_bytes()));
            offset.to_le_bytes()
        };
        tags.push((256, 4, 1, (self.columns * self.px).to_le_bytes()));
        tags.push((257, 4, 1, (self.rows * self.px).to_le_bytes()));
        let bits = file.len() as u32;
        file.extend([8u8, 0, 8, 0, 8, 0, 0, 0]);
        tags.push((258, 3, 3, bits.to_le_bytes()));
        tags.push((259, 3, 1, short(1)));
        tags.push((262, 3, 1, short(2)));
        tags.push((277, 3, 1, short(3)));
        if let Some(mpp) = self.mpp {
            // px per cm, in thousandths.
            let rational = at(&mut file, &[(10_000.0 / mpp * 1000.0) as u32, 1000]);
            tags.push((282, 5, 1, rational));
            tags.push((283, 5, 1, rational));
        }
        tags.push((284, 3, 1, short(1)));
        if self.mpp.is_some() {
            tags.push((296, 3, 1, short(3)));
        }
        tags.push((322, 3, 1, short(self.px as u16)));
        tags.push((323, 3, 1, short(self.px as u16)));
        let n = offsets.len() as u32;
        if n == 1 {
            tags.push((324, 4, 1, offsets[0].to_le_bytes()));
            tags.push((325, 4, 1, counts[0].to_le_bytes()));
        } else {
            let list = at(&mut file, &offsets);
            tags.push((324, 4, n, list));
            let list = at(&mut file, &counts);
            tags.push((325, 4, n, list));
        }
        let directory = file.len() as u32;
        file.extend((tags.len() as u16).to_le_bytes());
        for (tag, kind, count, value) in tags {
            file.extend(tag.to_le_bytes());
            file.extend(kind.to_le_bytes());
            file.extend(count.to_le_bytes());
            file.extend(value);
        }
        file.extend([0; 4]);
        file[..4].copy_from_slice(b"II*\0");
        file[4..8].copy_from_slice(&directory.to_le_bytes());
        std::fs::write(path, file).unwrap();
    }
}

/// A mottled purple that no two kinds of tile share: tissue to every mask.
pub fn tissue(kind: u64, pixels: &mut [u8]) {
    let mut state = kind.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for pixel in pixels.chunks_exact_mut(3) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let noise = (state >> 32) as u8 / 6;
        let shade = (kind % 60) as u8;
        pixel.copy_from_slice(&[120 + noise + shade, 50 + noise, 130 + noise]);
    }
}
