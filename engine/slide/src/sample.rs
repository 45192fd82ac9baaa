//! From the pixels of a pyramid's levels to any region at any resolution: which level is read, where, and how it is resampled.
//!
//! The native reader and every further reader come through here, so that a pixel is the same whoever decoded it.

use crate::resample::{self, Axis, MOST_WHOLE};
use crate::{Facts, Fault, Picture, Region, SlideError};
use std::cell::RefCell;

/// A level, or a level decoded straight to half its size.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    pub(crate) index: u32,
    pub(crate) level: usize,
    pub(crate) half: bool,
    pub(crate) width: i64,
    pub(crate) height: i64,
    pub(crate) tile_width: i64,
    pub(crate) tile_height: i64,
    pub(crate) columns: u32,
    /// Level-0 px per px along x and y.
    pub(crate) dx: f64,
    pub(crate) dy: f64,
}

/// What has levels of pixels.
pub(crate) trait Pyramid {
    /// What was found.
    fn facts(&self) -> &Facts;

    /// What can be read from, ascending by downsample; never empty.
    fn views(&self) -> &[View];

    /// Fills `into` with `size` px of `view` from `corner` on; white outside of the slide. `tile` is a buffer to work in.
    fn gather(
        &self,
        view: View,
        corner: (i64, i64),
        size: (i64, i64),
        tile: &mut Vec<u8>,
        into: &mut [u8],
    ) -> Result<(), SlideError>;

    /// Fills `into` with the whole tile at `row`, `column` of `view`.
    fn tile(&self, view: View, row: u32, column: u32, into: &mut [u8]) -> Result<(), SlideError>;
}

/// A window of source pixels larger than this is not gathered; its tiles are added up one by one.
const WINDOW: i64 = 24 << 20;
/// A thread's buffer larger than this is given back after use.
const KEEP: usize = 32 << 20;
/// Colour of what lies outside the slide.
pub(crate) const OUTSIDE: u8 = 255;
/// Colour of what could not be read, in pictures for people.
const UNREAD: u8 = 128;

#[derive(Default)]
struct Scratch {
    tile: Vec<u8>,
    window: Vec<u8>,
    sums: Vec<u16>,
    line: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// A mistake of the caller.
pub(crate) fn request(of: &impl Pyramid, what: String) -> SlideError {
    SlideError::new(
        Fault::Request,
        &of.facts().path,
        what,
        "this is a fault of the caller, not of the slide",
    )
}

/// There is no picture of that name.
pub(crate) fn no_picture(of: &impl Pyramid, name: &str) -> SlideError {
    let facts = of.facts();
    let names: Vec<&str> = facts.associated.iter().map(|it| it.name.as_str()).collect();
    SlideError::new(
        Fault::Request,
        &facts.path,
        format!("has no picture called `{name}`"),
        format!("it has: {}", names.join(", ")),
    )
}

/// The coarsest view whose resolution reaches `scale` (level-0 px per output px) within 0.1 %; level 0 when none does.
fn view(of: &impl Pyramid, scale: f64) -> View {
    let downsamples = of.views().iter().map(|view| view.dx.max(view.dy));
    of.views()[crate::tiling::level_for(downsamples, scale)]
}

fn check(
    of: &impl Pyramid,
    region: Region,
    width: u32,
    height: u32,
    room: usize,
) -> Result<(), SlideError> {
    let Region { x, y, w, h } = region;
    if ![x, y, w, h].iter().all(|v| v.is_finite() && v.abs() < 1e9) || w <= 0.0 || h <= 0.0 {
        return Err(request(of, format!("{region:?} is no region")));
    }
    if width == 0 || height == 0 || width > 65_535 || height > 65_535 {
        return Err(request(
            of,
            format!("{width} x {height} px cannot be read at once"),
        ));
    }
    if room != width as usize * height as usize * 3 {
        return Err(request(
            of,
            format!("a buffer of {room} bytes does not hold {width} x {height} px"),
        ));
    }
    let (right, below) = (of.facts().width() as f64, of.facts().height() as f64);
    if x >= right || y >= below || x + w <= 0.0 || y + h <= 0.0 {
        return Err(request(
            of,
            format!("{region:?} lies outside of the slide, which has {right} x {below} px"),
        ));
    }
    Ok(())
}

/// [`SlideReader::read`](crate::SlideReader::read).
pub(crate) fn read(
    of: &impl Pyramid,
    region: Region,
    (width, height): (u32, u32),
    into: &mut [u8],
) -> Result<(), SlideError> {
    check(of, region, width, height, into.len())?;
    let (w, h) = (width as i64, height as i64);
    let scale = (region.w / width as f64).min(region.h / height as f64);
    let view = view(of, scale);
    let (ox, oy) = (region.x / view.dx, region.y / view.dy);
    let (sx, sy) = (
        region.w / view.dx / width as f64,
        region.h / view.dy / height as f64,
    );
    SCRATCH.with(|scratch| {
        let mut scratch = scratch.borrow_mut();
        let Scratch {
            tile,
            window,
            sums,
            line,
        } = &mut *scratch;
        let done = if (sx - 1.0).abs() <= 1e-3 && (sy - 1.0).abs() <= 1e-3 {
            // A region inside the slide stays inside the level, whose sides are rounded.
            let start = |origin: f64, side: i64, n: i64, end: f64, slide: u64| {
                let start = origin.round() as i64;
                if end <= slide as f64 && start + n > side && n <= side {
                    side - n
                } else {
                    start
                }
            };
            let x0 = start(ox, view.width, w, region.x + region.w, of.facts().width());
            let y0 = start(oy, view.height, h, region.y + region.h, of.facts().height());
            of.gather(view, (x0, y0), (w, h), tile, into)
        } else if let Some(factor) = whole_factor((sx, ox, w), (sy, oy, h))
            && w * h * (factor * factor) as i64 * 3 <= WINDOW
        {
            let (fw, fh) = (w * factor as i64, h * factor as i64);
            let bytes = (fw * fh * 3) as usize;
            of.gather(
                view,
                (ox.round() as i64, oy.round() as i64),
                (fw, fh),
                tile,
                sized(window, bytes),
            )
            .map(|()| {
                resample::whole(
                    &window[..bytes],
                    fw as usize,
                    factor,
                    width as usize,
                    sums,
                    into,
                );
            })
        } else {
            let x = Axis::new(ox, sx, width as usize, view.width);
            let y = Axis::new(oy, sy, height as usize, view.height);
            let ((x0, x1), (y0, y1)) = (x.span(), y.span());
            let (ww, wh) = (x1 - x0, y1 - y0);
            if ww * wh * 3 <= WINDOW {
                let bytes = (ww * wh * 3) as usize;
                of.gather(view, (x0, y0), (ww, wh), tile, sized(window, bytes))
                    .map(|()| {
                        resample::area(&window[..bytes], ww as usize, &x, &y, line, into);
                    })
            } else {
                sum_up(of, view, region, (width, height), true)
                    .map(|picture| into.copy_from_slice(&picture.pixels))
            }
        };
        for buffer in [tile, window] {
            if buffer.capacity() > KEEP {
                *buffer = Vec::new();
            }
        }
        done
    })
}

/// [`SlideReader::thumbnail`](crate::SlideReader::thumbnail).
pub(crate) fn thumbnail(of: &impl Pyramid, max_side: u32) -> Result<Picture, SlideError> {
    let (width, height) = (of.facts().width(), of.facts().height());
    let most = max_side.clamp(1, 16_384) as f64;
    let scale = (width.max(height) as f64 / most).max(1.0);
    let side = |n: u64| ((n as f64 / scale).round() as u32).max(1);
    let region = Region {
        x: 0.0,
        y: 0.0,
        w: width as f64,
        h: height as f64,
    };
    sum_up(
        of,
        view(of, scale),
        region,
        (side(width), side(height)),
        false,
    )
}

/// Adds up `region` at `width` x `height` px, each native tile once and one at a time. Tiles that cannot be read are left
/// `UNREAD` and named in the picture.
fn sum_up(
    of: &impl Pyramid,
    view: View,
    region: Region,
    (width, height): (u32, u32),
    strict: bool,
) -> Result<Picture, SlideError> {
    let x = Axis::new(
        region.x / view.dx,
        region.w / view.dx / width as f64,
        width as usize,
        view.width,
    );
    let y = Axis::new(
        region.y / view.dy,
        region.h / view.dy / height as f64,
        height as usize,
        view.height,
    );
    let pitch = width as usize * 3;
    let mut sums = vec![0f32; pitch * height as usize];
    let white: Vec<f32> = (0..width as usize)
        .map(|c| x.inside(c, view.width))
        .collect();
    for (r, line) in sums.chunks_exact_mut(pitch).enumerate() {
        let inside = y.inside(r, view.height);
        for (rgb, part) in line.as_chunks_mut::<3>().0.iter_mut().zip(&white) {
            *rgb = [OUTSIDE as f32 * (1.0 - inside * part).max(0.0) + 0.5; 3];
        }
    }
    let ((x0, x1), (y0, y1)) = (x.span(), y.span());
    let (left, right) = (x0.max(0), x1.min(view.width));
    let (top, bottom) = (y0.max(0), y1.min(view.height));
    let mut unread = Vec::new();
    let (mut first_error, mut any) = (None, false);
    let mut tile = Vec::new();
    let mut line = Vec::new();
    if left < right && top < bottom {
        for row in top / view.tile_height..=(bottom - 1) / view.tile_height {
            for column in left / view.tile_width..=(right - 1) / view.tile_width {
                let (tx, ty) = (column * view.tile_width, row * view.tile_height);
                let (from_x, to_x) = (left.max(tx), right.min(tx + view.tile_width));
                let (from_y, to_y) = (top.max(ty), bottom.min(ty + view.tile_height));
                let bytes = (view.tile_width * view.tile_height * 3) as usize;
                match of.tile(view, row as u32, column as u32, sized(&mut tile, bytes)) {
                    Ok(()) => any = true,
                    Err(error) if strict => return Err(error),
                    Err(error) => {
                        first_error.get_or_insert(error);
                        unread.push(Region {
                            x: from_x as f64 * view.dx,
                            y: from_y as f64 * view.dy,
                            w: (to_x - from_x) as f64 * view.dx,
                            h: (to_y - from_y) as f64 * view.dy,
                        });
                        tile[..bytes].fill(UNREAD);
                    }
                }
                let columns = x.touched(from_x, to_x);
                for sy in from_y..to_y {
                    let source = &tile[((sy - ty) * view.tile_width) as usize * 3..];
                    line.clear();
                    for c in columns.clone() {
                        let (first, weights) = x.taps(c);
                        let mut rgb = [0f32; 3];
                        for (k, weight) in weights.iter().enumerate() {
                            let sx = first + k as i64;
                            if (from_x..to_x).contains(&sx) {
                                let at = (sx - tx) as usize * 3;
                                for (sum, value) in rgb.iter_mut().zip(&source[at..at + 3]) {
                                    *sum += weight * *value as f32;
                                }
                            }
                        }
                        line.extend_from_slice(&rgb);
                    }
                    for r in y.touched(sy, sy + 1) {
                        let (first, weights) = y.taps(r);
                        let Some(weight) = weights.get((sy - first) as usize) else {
                            continue;
                        };
                        let from = r * pitch + columns.start * 3;
                        for (sum, value) in sums[from..from + line.len()].iter_mut().zip(&line) {
                            *sum += weight * value;
                        }
                    }
                }
            }
        }
    }
    if let Some(error) = first_error
        && !any
    {
        return Err(error);
    }
    Ok(Picture {
        width,
        height,
        pixels: sums.iter().map(|sum| *sum as u8).collect(),
        unread,
    })
}

/// A buffer's first `bytes` bytes, grown when it is shorter.
pub(crate) fn sized(buffer: &mut Vec<u8>, bytes: usize) -> &mut [u8] {
    if buffer.len() < bytes {
        buffer.resize(bytes, 0);
    }
    &mut buffer[..bytes]
}

/// Level-0 px per px of a level along x and y: the nominal whole number where both sides are one rounding away from it (OpenSlide
/// takes the mean of the two ratios, which shifts what is far from the corner).
pub(crate) fn downsample(zero: (f64, f64), level: (f64, f64)) -> (f64, f64) {
    let (x, y) = (zero.0 / level.0, zero.1 / level.1);
    let nominal = ((x + y) / 2.0).round().max(1.0);
    let near = |side: f64, have: f64| (side / nominal - have).abs() < 1.0;
    if near(zero.0, level.0) && near(zero.1, level.1) {
        (nominal, nominal)
    } else {
        (x, y)
    }
}

/// The whole factor that both axes are scaled by, when they begin on a pixel and drift less than a twentieth of one.
fn whole_factor(x: (f64, f64, i64), y: (f64, f64, i64)) -> Option<usize> {
    let factor = x.0.round();
    let fits = |(scale, origin, n): (f64, f64, i64)| {
        (scale - factor).abs() * n as f64 <= 0.05 && (origin - origin.round()).abs() <= 0.05
    };
    ((2.0..=MOST_WHOLE).contains(&factor) && fits(x) && fits(y)).then_some(factor as usize)
}
