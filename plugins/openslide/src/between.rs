//! Regions that begin between OpenSlide's whole pixels: where to read them from, and how to get the level's own pixels back.
//!
//! OpenSlide is asked in whole level-0 px and paints a level from `x / downsample` on, where the downsample is the mean of the
//! level's two ratios and so rarely a whole number. What it paints `off` px beside the level's pixels it has interpolated: along
//! each axis `R[i] = (1 - off) P[i] + off P[i + 1]`, in floating point, of premultiplied colours and alpha alike, and of 256 steps
//! of grey the lower one is kept. So three things are done here; what was read too much is cut off:
//!
//! * [`on_pixel`] looks before the region for a place where a level-0 px lies on the level's: from there on all pixels are the
//!   level's. The level's corner is always one. Where it is too far off for both axes together, the next two are needed.
//! * [`start`] looks for a place at or a little before the region where a level-0 px lies nearest to the level's.
//! * [`undo`] solves for `P` from one end of each line to the other. An error in what was guessed beyond the end is down to
//!   `off / (1 - off)` a pixel later, so a few more px are read there and cut off.
//!
//! What comes back is the level's pixel but for what the grey steps have lost. With `off` within half a level-0 px, half a step
//! grows to `0.5 / (1 - 2 off)^2`: less than one at a downsample of 4 and above, two at 2. Where native tiles meet, the part of each
//! was cut down to whole steps, which may make four, and six at 2.

/// Nearer than this to a pixel, px, along both axes, the pixel is copied: the painter counts in 1/256 px and rounds.
const ON: f64 = 1.0 / 512.0;

/// Beyond this part of a pixel nothing is undone: half a step of grey would grow to eight.
const MOST: f64 = 0.375;

/// How far before a region a better place is looked for, px of the level: as far as the furthest that is solved from its first
/// pixel on needs.
const REACH: i64 = 20;

/// A place that is nearer to a pixel by less than this, px, is not better: each px that is read beside a region may be damaged.
const BETTER: f64 = 1.0 / 32.0;

/// Grey level in the middle of the step that the painter keeps: value 255 of 256 steps.
const STEP: f32 = 255.0 / 256.0;

/// The middle of the step of what is opaque.
const OPAQUE: f32 = 255.5 * STEP;

/// Where a region is read from along one axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Start {
    /// Level-0 px to ask for.
    pub zero: i64,
    /// px of the level that come before the region's first.
    pub before: u32,
    /// px of the level that are read behind the region's last.
    pub behind: u32,
    /// By how many px of the level what is read lies behind the level's pixels; negative: before them.
    pub off: f64,
}

/// px after which what was guessed beyond the end of a line is a twentieth of a grey level.
fn fading(off: f64) -> i64 {
    let off = off.abs();
    match off > 0.0 {
        true => ((0.05f64 / 255.0).ln() / (off / (1.0 - off)).ln()).ceil() as i64,
        false => 0,
    }
}

/// The nearest place at or before pixel `at` of a level, by at most `most` px, from which on the level's own pixels come.
pub fn on_pixel(at: i64, downsample: f64, most: i64) -> Option<Start> {
    (0..=most.min(at)).find_map(|before| {
        let pixel = at - before;
        let zero = (pixel as f64 * downsample).round() as i64;
        let off = zero as f64 / downsample - pixel as f64;
        (off.abs() < ON).then_some(Start {
            zero,
            before: before as u32,
            behind: 0,
            off: 0.0,
        })
    })
}

/// Where to read from so that pixel `at` of a level is among what comes; `None` where no place is near enough to a pixel.
pub fn start(at: i64, downsample: f64) -> Option<Start> {
    let mut best: Option<Start> = None;
    for before in 0..=REACH.min(at) {
        let pixel = at - before;
        let exact = pixel as f64 * downsample;
        for zero in [exact.floor() as i64, exact.ceil() as i64] {
            // The painter's own division, and its steps.
            let off = zero as f64 / downsample - pixel as f64;
            let off = (off * 65536.0).round() / 65536.0;
            let fading = fading(off);
            // Solved from the first px on, these come first.
            if off.abs() > MOST || (off < 0.0 && before < fading) {
                continue;
            }
            if best.is_none_or(|best| off.abs() + BETTER < best.off.abs()) {
                best = Some(Start {
                    zero,
                    before: before as u32,
                    behind: if off > 0.0 { fading as u32 } else { 0 },
                    off,
                });
            }
        }
        if best.is_some_and(|best| best.off.abs() < ON) {
            break;
        }
    }
    best
}

/// Where to read from when the driver rounds down to the level's whole pixels itself.
pub fn start_rounded_down(at: i64, downsample: f64) -> Option<Start> {
    let first = (at as f64 * downsample).ceil() as i64;
    // The product may have been rounded to just below what divides to the pixel.
    let zero = (first..first + 2).find(|zero| (*zero as f64 / downsample).floor() == at as f64)?;
    Some(Start {
        zero,
        before: 0,
        behind: 0,
        off: 0.0,
    })
}

/// A pixel's alpha and colours, premultiplied, in grey levels.
type Pixel = [f32; 4];

/// The middles of the steps that were kept; all zero is nothing, and not the lowest step.
fn read(pixel: u32) -> Pixel {
    match pixel {
        0 => [0.0; 4],
        pixel => [24, 16, 8, 0].map(|shift| (((pixel >> shift) & 255) as f32 + 0.5) * STEP),
    }
}

/// Lines to work on.
#[derive(Debug, Default)]
pub struct Lines {
    line: Vec<Pixel>,
    beyond: Vec<Pixel>,
}

/// `(1 - off) P + off beyond = read`, for P.
fn solved(read: Pixel, beyond: Pixel, part: f32) -> Pixel {
    let mut solved = [0.0; 4];
    for ((solved, read), beyond) in solved.iter_mut().zip(read).zip(beyond) {
        *solved = ((read - part * beyond) / (1.0 - part)).clamp(0.0, 255.0);
    }
    solved
}

/// A solved pixel, opaque or nothing.
fn whole([alpha, colours @ ..]: Pixel) -> u32 {
    if alpha < OPAQUE / 2.0 {
        return 0;
    }
    // An alpha that rounding has moved says nothing of the colour.
    let full = if alpha > OPAQUE - 8.0 {
        1.0
    } else {
        OPAQUE / alpha
    };
    let [r, g, b] = colours.map(|part| (part * full + 0.5).min(255.0) as u32);
    255 << 24 | r << 16 | g << 8 | b
}

/// Turns what was painted `off` px beside the level's pixels, along x and y, into these: premultiplied ARGB in rows of `width` px,
/// from where [`Start`] says on. A pixel of which less than half is there is none; every other is opaque.
pub fn undo(argb: &mut [u32], width: usize, off: (f64, f64), lines: &mut Lines) {
    if width == 0 || (off.0.abs() < ON && off.1.abs() < ON) {
        return;
    }
    let (across, down) = (off.0.abs() as f32, off.1.abs() as f32);
    let height = argb.len() / width;
    let Lines { line, beyond } = lines;
    beyond.clear();
    for n in 0..height {
        let row = if off.1 > 0.0 { height - 1 - n } else { n };
        let pixels = &mut argb[row * width..][..width];
        line.clear();
        line.extend(pixels.iter().map(|pixel| read(*pixel)));
        let mut next: Option<Pixel> = None;
        for k in 0..width {
            let at = if off.0 > 0.0 { width - 1 - k } else { k };
            line[at] = solved(line[at], next.unwrap_or(line[at]), across);
            next = Some(line[at]);
        }
        if beyond.is_empty() {
            beyond.extend_from_slice(line);
        }
        for ((pixel, line), beyond) in pixels.iter_mut().zip(line.iter()).zip(beyond.iter_mut()) {
            *beyond = solved(*line, *beyond, down);
            *pixel = whole(*beyond);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    /// What OpenSlide paints of `picture`, transparent around it, `off` px behind its pixels.
    fn painted(
        picture: &[Vec<u32>],
        corner: (i64, i64),
        size: (usize, usize),
        off: (f64, f64),
    ) -> Vec<u32> {
        let at = |x: i64, y: i64, shift: u32| -> f64 {
            let row = usize::try_from(y).ok().and_then(|y| picture.get(y));
            let pixel = row.and_then(|row| row.get(usize::try_from(x).ok()?));
            pixel.map_or(0.0, |pixel| f64::from((pixel >> shift) & 255))
        };
        let (fx, fy) = (off.0.rem_euclid(1.0), off.1.rem_euclid(1.0));
        let (dx, dy) = (off.0.floor() as i64, off.1.floor() as i64);
        let mut out = Vec::new();
        for j in 0..size.1 as i64 {
            for i in 0..size.0 as i64 {
                let (x, y) = (corner.0 + i + dx, corner.1 + j + dy);
                let step = |shift: u32| {
                    let value = (1.0 - fx) * (1.0 - fy) * at(x, y, shift)
                        + fx * (1.0 - fy) * at(x + 1, y, shift)
                        + (1.0 - fx) * fy * at(x, y + 1, shift)
                        + fx * fy * at(x + 1, y + 1, shift);
                    ((value * 256.0 / 255.0 + 1e-9).floor() as u32).min(255) << shift
                };
                out.push([24, 16, 8, 0].map(step).iter().sum());
            }
        }
        out
    }

    /// A picture of any pixels that has an end on the right and below, and places that are not there.
    fn picture(seed: u64, holes: bool) -> Vec<Vec<u32>> {
        let mut state = seed | 1;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 20) as u32
        };
        (0..40)
            .map(|y| {
                (0..40)
                    .map(
                        |x| match holes && (8..16).contains(&x) && (8..16).contains(&y) {
                            true => 0,
                            false => 255 << 24 | (random() & 0x00ff_ffff),
                        },
                    )
                    .collect()
            })
            .collect()
    }

    fn apart(a: u32, b: u32) -> u32 {
        [24, 16, 8, 0]
            .map(|shift| ((a >> shift) & 255).abs_diff((b >> shift) & 255))
            .into_iter()
            .max()
            .unwrap()
    }

    proptest! {
        /// Off by at most `0.5 / (1 - 2 off)^2` and a rounding, up to the level's end, whether px were lost or not.
        #[test]
        fn what_was_interpolated_is_the_levels_pixel_again(
            seed: u64, holes: bool, downsample in 1.5..70.0f64, at in (0i64..30, 0i64..30),
        ) {
            let all = picture(seed, holes);
            let (Some(x), Some(y)) = (start(at.0, downsample), start(at.1, downsample)) else {
                return Ok(());
            };
            let (width, height) = (x.before as usize + 10 + x.behind as usize, y.before as usize + 10 + y.behind as usize);
            let corner = (at.0 - i64::from(x.before), at.1 - i64::from(y.before));
            let joint = x.off.abs() < ON && y.off.abs() < ON;
            let off = if joint { (0.0, 0.0) } else { (x.off, y.off) };
            let mut argb = painted(&all, corner, (width, height), off);
            undo(&mut argb, width, (x.off, y.off), &mut Lines::default());
            let worst = 0.5 / ((1.0 - 2.0 * x.off.abs()) * (1.0 - 2.0 * y.off.abs())) + 0.6;
            for j in 0..10 {
                for i in 0..10 {
                    let (c, r) = (at.0 as usize + i, at.1 as usize + j);
                    let Some(&wanted) = all.get(r).and_then(|row| row.get(c)) else { continue };
                    let got = argb[(y.before as usize + j) * width + x.before as usize + i];
                    prop_assert!(f64::from(apart(got, wanted)) <= worst, "({c}, {r}): {got:08x} {wanted:08x}, {x:?} {y:?}");
                }
            }
        }

        #[test]
        fn a_start_is_where_it_says(at in 0i64..200_000, downsample in 1.0..200.0f64) {
            if let Some(start) = start(at, downsample) {
                let first = start.zero as f64 / downsample;
                prop_assert!((first - (at - i64::from(start.before)) as f64 - start.off).abs() < 1e-4);
                prop_assert!(start.off.abs() <= 0.5 / downsample + BETTER + ON);
                prop_assert!(start.zero >= 0);
            } else {
                prop_assert!(0.5 / downsample > MOST);
            }
            let start = start_rounded_down(at, downsample).unwrap();
            prop_assert_eq!((start.zero as f64 / downsample) as i64, at);
        }
    }

    #[test]
    fn one_colour_stays_it() {
        for grey in [0u32, 1, 17, 128, 254, 255] {
            let pixel = 255 << 24 | grey << 16 | grey << 8 | grey;
            let all = vec![vec![pixel; 40]; 40];
            for off in [(0.25, 0.25), (-0.2, 0.1), (0.0, 0.3), (0.3, -0.01)] {
                let mut argb = painted(&all, (5, 5), (30, 30), off);
                undo(&mut argb, 30, off, &mut Lines::default());
                assert!(argb.iter().all(|got| *got == pixel), "{grey} {off:?}");
            }
        }
    }

    #[test]
    fn a_levels_corner_is_on_its_pixels_and_so_are_places_in_between() {
        // Pixel 4 lies 0.0016 px from one of level 0, pixel 5 already 0.002.
        let corner = on_pixel(300, 3.9984, 300).unwrap();
        assert_eq!((corner.zero, corner.before), (16, 296));
        assert_eq!(on_pixel(300, 3.9984, 295), None);
        assert_eq!(on_pixel(0, 3.9984, 0).unwrap().zero, 0);
        // Every fifth pixel lies on every twelfth of level 0.
        let near = on_pixel(1003, 2.4, 4000).unwrap();
        assert_eq!((near.zero, near.before), (2400, 3));
    }

    #[test]
    fn whole_downsamples_begin_at_the_region() {
        for downsample in [1.0, 2.0, 4.0, 16.0, 32.0] {
            for at in [0, 1, 239, 4095, 70_001] {
                let wanted = Start {
                    zero: at * downsample as i64,
                    before: 0,
                    behind: 0,
                    off: 0.0,
                };
                assert_eq!(start(at, downsample), Some(wanted));
                assert_eq!(start_rounded_down(at, downsample), Some(wanted));
            }
        }
        // Every fifth pixel of it lies on a level-0 px.
        assert!((0..3000).all(|at| on_pixel(at, 2.4, 4).is_some()));
        // Nearly a copy of level 0: half a pixel beside, with nothing better near.
        assert_eq!(start(5000, 1.0001), None);
    }
}
