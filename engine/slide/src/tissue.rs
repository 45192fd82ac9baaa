//! Which tiles hold tissue: Otsu's thresholds (Otsu 1979) on the saturation of an overview.

use crate::{Picture, Region, SlideError, SlideReader, Tiling};
use weir_record::TileId;

/// Resolution of the overview, um/px.
pub const OVERVIEW_MPP: f64 = 8.0;
/// Longest side of the overview, px.
const MOST: u32 = 8192;
/// The threshold is kept between these saturations (of 255). A slide that is all tissue, or all glass, has no valley to find:
/// below the first lie the tint of glass and the noise of JPEG, above the second lies only tissue in H&E.
const LIMITS: std::ops::RangeInclusive<u8> = 6..=20;
/// The threshold lies at most this much above the most frequent saturation of glass, so that the palest tissue, fat and mucus,
/// stays in. A tile too many costs its time; a tile too few may be the one that matters.
const ABOVE_GLASS: u8 = 10;
/// Radius of the disc that closes gaps between cells, px of the overview (24 um).
const CLOSING: i64 = 3;
/// A hole larger than this is no hole in tissue but glass, um^2 (a square of 140 um).
const HOLE: f64 = 20_000.0;

/// Tissue or not, for each pixel of an overview.
#[derive(Clone, Debug, PartialEq)]
pub struct TissueMask {
    /// px.
    pub width: u32,
    /// px.
    pub height: u32,
    /// Level-0 px per px of the mask, along x and y.
    pub scale: (f64, f64),
    /// Saturation (of 255) from which on a pixel is tissue; 0 for a mask that was not made by one.
    pub threshold: u8,
    /// Number of tissue pixels above and left of each corner, [height + 1, width + 1].
    sums: Vec<u32>,
}

impl TissueMask {
    /// The mask of a slide, from an overview at about [`OVERVIEW_MPP`]. Where the overview could not be read counts as tissue, so
    /// that those tiles are tried, fail, and are counted.
    pub fn of(reader: &dyn SlideReader) -> Result<Self, SlideError> {
        let facts = reader.facts();
        let (mpp, _) = facts.require_mpp()?;
        let longest = facts.width().max(facts.height()) as f64;
        let side = (longest * mpp.0 / OVERVIEW_MPP).ceil();
        let picture = reader.thumbnail((side.max(1.0) as u32).min(MOST))?;
        Ok(Self::from_picture(
            &picture,
            (facts.width(), facts.height()),
            mpp.0,
        ))
    }

    /// The mask of an overview of a slide of `size` level-0 px at `mpp` um/px.
    pub fn from_picture(picture: &Picture, size: (u64, u64), mpp: f64) -> Self {
        let (width, height) = (picture.width as usize, picture.height as usize);
        let scale = (
            size.0 as f64 / width.max(1) as f64,
            size.1 as f64 / height.max(1) as f64,
        );
        let saturation: Vec<u8> = picture
            .pixels
            .as_chunks::<3>()
            .0
            .iter()
            .map(saturation)
            .collect();
        let mut histogram = [0u64; 256];
        for value in &saturation {
            histogram[*value as usize] += 1;
        }
        let threshold = threshold(&histogram);
        let mut tissue: Vec<bool> = saturation.iter().map(|s| *s >= threshold).collect();
        tissue = close(&tissue, width, height, CLOSING);
        let area = mpp * mpp * scale.0 * scale.1;
        fill_holes(&mut tissue, width, height, (HOLE / area) as usize);
        for region in &picture.unread {
            let x = span(region.x / scale.0, region.w / scale.0, width);
            for y in span(region.y / scale.1, region.h / scale.1, height) {
                tissue[y * width + x.start..y * width + x.end].fill(true);
            }
        }
        Self::from_pixels(picture.width, picture.height, scale, threshold, &tissue)
    }

    /// A mask from its pixels, [height, width].
    fn from_pixels(
        width: u32,
        height: u32,
        scale: (f64, f64),
        threshold: u8,
        tissue: &[bool],
    ) -> Self {
        let (w, h) = (width as usize, height as usize);
        let mut sums = vec![0u32; (w + 1) * (h + 1)];
        for y in 0..h {
            let mut line = 0;
            for x in 0..w {
                line += u32::from(tissue[y * w + x]);
                sums[(y + 1) * (w + 1) + x + 1] = sums[y * (w + 1) + x + 1] + line;
            }
        }
        TissueMask {
            width,
            height,
            scale,
            threshold,
            sums,
        }
    }

    /// Whether the mask's pixel is tissue.
    pub fn pixel(&self, x: u32, y: u32) -> bool {
        x < self.width && y < self.height && self.count(x as usize, y as usize, 1, 1) > 0
    }

    /// The part of the whole slide that is tissue, 0 to 1.
    pub fn tissue(&self) -> f64 {
        let (w, h) = (self.width as usize, self.height as usize);
        self.count(0, 0, w, h) as f64 / (w * h).max(1) as f64
    }

    /// The part of `region` that is tissue, 0 to 1; what lies outside of the slide is none.
    pub fn fraction(&self, region: Region) -> f64 {
        let (w, h) = (region.w / self.scale.0, region.h / self.scale.1);
        if w <= 0.0 || h <= 0.0 {
            return 0.0;
        }
        let x = span(region.x / self.scale.0, w, self.width as usize);
        let y = span(region.y / self.scale.1, h, self.height as usize);
        let seen = self.count(x.start, y.start, x.len(), y.len()) as f64;
        let (whole_w, whole_h) = (w.round().max(1.0), h.round().max(1.0));
        (seen / (whole_w * whole_h)).min(1.0)
    }

    /// The tiles of `tiling` of which at least `least` (0 to 1) is tissue, row by row. `least` = 0 keeps all.
    pub fn keep(&self, tiling: &Tiling, least: f64) -> Vec<TileId> {
        tiling
            .tiles()
            .filter(|tile| self.fraction(tiling.region(*tile)) >= least)
            .collect()
    }

    fn count(&self, x: usize, y: usize, w: usize, h: usize) -> u32 {
        let pitch = self.width as usize + 1;
        let at = |x: usize, y: usize| self.sums[y * pitch + x];
        at(x + w, y + h) + at(x, y) - at(x + w, y) - at(x, y + h)
    }
}

/// Whole pixels of a side of `n` px that begin at `from` and are `length` long, at least one.
fn span(from: f64, length: f64, n: usize) -> std::ops::Range<usize> {
    let begin = from.round().clamp(0.0, n.saturating_sub(1) as f64) as usize;
    let end = (from + length).round().clamp(0.0, n as f64) as usize;
    begin..end.max((begin + 1).min(n))
}

/// The part of a tile's own pixels (interleaved RGB), 0 to 1, whose saturation is at least `threshold` (of 255): what the mask
/// says of a place, for tiles of which there is no overview. Gaps are not closed.
pub fn fraction(pixels: &[u8], threshold: u8) -> f64 {
    let pixels = pixels.as_chunks::<3>().0;
    let seen = pixels.iter().filter(|rgb| saturation(rgb) >= threshold);
    seen.count() as f64 / pixels.len().max(1) as f64
}

/// Saturation of HSV, 0 to 255.
fn saturation(rgb: &[u8; 3]) -> u8 {
    let most = rgb[0].max(rgb[1]).max(rgb[2]) as u32;
    let least = rgb[0].min(rgb[1]).min(rgb[2]) as u32;
    (((most - least) * 255 + most / 2) / most.max(1)) as u8
}

/// The saturation from which on a pixel is tissue.
fn threshold(histogram: &[u64; 256]) -> u8 {
    let valley = otsu(histogram);
    let glass = (0..=valley)
        .max_by_key(|value| (histogram[*value as usize], 255 - value))
        .unwrap_or(0);
    valley
        .min(glass.saturating_add(ABOVE_GLASS))
        .clamp(*LIMITS.start(), *LIMITS.end())
}

/// The lower of the two thresholds that part a histogram into three classes of greatest variance between them (Otsu 1979,
/// section V): values from it on are no glass. Three classes, because H&E has three: glass, pale tissue, and dense tissue; with
/// two, pale tissue falls to the glass.
fn otsu(histogram: &[u64; 256]) -> u8 {
    // Counts and sums of all values below v.
    let (mut counts, mut sums) = ([0f64; 257], [0f64; 257]);
    for (value, n) in histogram.iter().enumerate() {
        counts[value + 1] = counts[value] + *n as f64;
        sums[value + 1] = sums[value] + value as f64 * *n as f64;
    }
    // The variance between classes is the sum over classes of sum^2 / count, less a constant.
    let part = |from: usize, to: usize| {
        let count = counts[to] - counts[from];
        let sum = sums[to] - sums[from];
        if count > 0.0 { sum * sum / count } else { 0.0 }
    };
    let mut best = (f64::MIN, 0);
    for low in 1..256 {
        for high in low..256 {
            let between = part(0, low) + part(low, high) + part(high, 256);
            if between > best.0 {
                best = (between, low);
            }
        }
    }
    best.1 as u8
}

/// Closing by a disc: what no disc outside of tissue reaches is tissue. Distances are exact (Felzenszwalb and Huttenlocher's
/// first pass is enough here, since only distances up to the radius count).
fn close(tissue: &[bool], width: usize, height: usize, radius: i64) -> Vec<bool> {
    let grown = grow(tissue, width, height, radius);
    let outside: Vec<bool> = grown.iter().map(|t| !t).collect();
    grow(&outside, width, height, radius)
        .iter()
        .zip(tissue)
        .map(|(outside, tissue)| !outside || *tissue)
        .collect()
}

/// All pixels within `radius` of a set one.
fn grow(set: &[bool], width: usize, height: usize, radius: i64) -> Vec<bool> {
    // Distance along the row to the next set pixel, more than the radius when there is none.
    let far = radius + 1;
    let mut along = vec![far; set.len()];
    for (line, near) in set
        .chunks_exact(width.max(1))
        .zip(along.chunks_exact_mut(width.max(1)))
    {
        let mut last = far;
        for (x, set) in line.iter().enumerate() {
            last = if *set { 0 } else { (last + 1).min(far) };
            near[x] = last;
        }
        last = far;
        for (x, set) in line.iter().enumerate().rev() {
            last = if *set { 0 } else { (last + 1).min(far) };
            near[x] = near[x].min(last);
        }
    }
    let mut grown = vec![false; set.len()];
    for y in 0..height as i64 {
        for dy in -radius..=radius {
            let from = y + dy;
            if from < 0 || from >= height as i64 {
                continue;
            }
            let reach = ((radius * radius - dy * dy) as f64).sqrt() as i64;
            let near = &along[from as usize * width..][..width];
            let out = &mut grown[y as usize * width..][..width];
            for (out, near) in out.iter_mut().zip(near) {
                *out |= *near <= reach;
            }
        }
    }
    grown
}

/// Turns holes of at most `most` px into tissue. A hole touches no border.
fn fill_holes(tissue: &mut [bool], width: usize, height: usize, most: usize) {
    let mut seen = tissue.to_vec();
    let (mut stack, mut hole) = (Vec::new(), Vec::new());
    for start in 0..tissue.len() {
        if seen[start] {
            continue;
        }
        let mut open = false;
        hole.clear();
        stack.push(start);
        seen[start] = true;
        while let Some(at) = stack.pop() {
            if hole.len() <= most {
                hole.push(at);
            }
            let (x, y) = (at % width, at / width);
            open |= x == 0 || y == 0 || x + 1 == width || y + 1 == height;
            let mut visit = |next: usize| {
                if !seen[next] {
                    seen[next] = true;
                    stack.push(next);
                }
            };
            if x > 0 {
                visit(at - 1);
            }
            if x + 1 < width {
                visit(at + 1);
            }
            if y > 0 {
                visit(at - width);
            }
            if y + 1 < height {
                visit(at + width);
            }
        }
        if !open && hole.len() <= most {
            for at in &hole {
                tissue[*at] = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn picture(width: u32, height: u32, colour: impl Fn(u32, u32) -> [u8; 3]) -> Picture {
        let pixels = (0..height)
            .flat_map(|y| (0..width).map(move |x| (x, y)))
            .flat_map(|(x, y)| colour(x, y))
            .collect();
        Picture {
            width,
            height,
            pixels,
            unread: Vec::new(),
        }
    }

    const GLASS: [u8; 3] = [244, 242, 245];
    const TISSUE: [u8; 3] = [190, 120, 170];

    #[test]
    fn glass_alone_is_no_tissue_and_tissue_alone_is_all() {
        let noise = |x: u32, y: u32| GLASS.map(|v| v - ((x * 7 + y * 13) % 4) as u8);
        let empty = TissueMask::from_picture(&picture(200, 100, noise), (1600, 800), 1.0);
        assert_eq!(empty.tissue(), 0.0);
        let full = |x: u32, y: u32| TISSUE.map(|v| v - ((x * 7 + y * 13) % 60) as u8);
        let full = TissueMask::from_picture(&picture(200, 100, full), (1600, 800), 1.0);
        assert_eq!(full.tissue(), 1.0);
    }

    #[test]
    fn fractions_are_areas_in_level_0_px() {
        // The right half of a 1600 x 800 px slide, seen at one eighth.
        let half = picture(200, 100, |x, _| if x >= 100 { TISSUE } else { GLASS });
        let mask = TissueMask::from_picture(&half, (1600, 800), 1.0);
        let at = |x: f64, w: f64| {
            mask.fraction(Region {
                x,
                y: 80.0,
                w,
                h: 160.0,
            })
        };
        assert_eq!(
            (at(0.0, 400.0), at(800.0, 400.0), at(600.0, 400.0)),
            (0.0, 1.0, 0.5)
        );
        // Half of it outside of the slide.
        assert_eq!(at(1400.0, 400.0), 0.5);
    }

    #[test]
    fn gaps_close_small_holes_fill_and_glass_between_stays() {
        // At 8 um/px: a gap of 4 px, a hole of 10 x 10 px (6,400 um^2) and one of 40 x 40 px (102,400 um^2).
        let colour = |x: u32, y: u32| {
            let inside =
                |a: u32, b: u32, n: u32| (a..a + n).contains(&x) && (b..b + n).contains(&y);
            let glass = !(20..180).contains(&x)
                || !(20..180).contains(&y)
                || (98..102).contains(&x)
                || inside(40, 40, 10)
                || inside(120, 100, 40);
            if glass { GLASS } else { TISSUE }
        };
        let mask = TissueMask::from_picture(&picture(200, 200, colour), (200, 200), 8.0);
        assert!(mask.pixel(100, 60), "the gap is closed");
        assert!(mask.pixel(45, 45), "the small hole is filled");
        assert!(!mask.pixel(140, 120), "the large one is not");
        assert!(!mask.pixel(5, 5));
    }
}
