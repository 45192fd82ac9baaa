//! The picture of a slide: tissue, scores and attention side by side, each tile at its true place and size.

use std::ops::Range;

use plotters::backend::BitMapBackend;
use plotters::drawing::IntoDrawingArea;
use weir_record::{Prediction, SlideInfo, TileId};
use weir_runtime::stage::{Overview, StageError};

use crate::heatmap_legend;
use crate::heatmap_pen::Pen;
use crate::palette::{Palette, mix};
use crate::tiles::Tiles;

/// What is shown.
pub(crate) struct Scene<'a> {
    pub(crate) tiles: &'a Tiles,
    /// The whole slide, or why there is none.
    pub(crate) overview: Result<Overview, String>,
    pub(crate) prediction: Option<&'a Prediction>,
    /// The class whose probability the score is.
    pub(crate) positive: Option<&'a str>,
}

/// How it is shown.
pub(crate) struct Style {
    /// Longest side of a panel, px.
    pub(crate) max_side: u32,
    pub(crate) palette: Palette,
    /// Part of the tissue that colours cover.
    pub(crate) alpha: f32,
}

/// Interleaved RGB.
pub(crate) struct Picture {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) pixels: Vec<u8>,
}

pub(crate) const MARGIN: i32 = 32;
const GAP: i32 = 32;
/// Height of the title, of a panel's caption, of its legend, and of the last line.
const TITLE: i32 = 92;
const CAPTION: i32 = 30;
const LEGEND: i32 = 68;
const FOOT: i32 = 34;
/// Least width of a panel's place, so that its legend fits, and of the picture, so that its title does.
const NARROWEST: i32 = 300;
const TITLE_ROOM: i32 = 760;
/// Panels of slides that are wider than this times their height stand below each other.
const WIDE: f64 = 1.7;

pub(crate) const UNREAD: [u8; 3] = [110, 110, 110];

/// Bytes that painting takes at most: canvas, overview, and the sums of a panel.
pub(crate) fn bytes(max_side: u64) -> u64 {
    let cell = max_side.max(NARROWEST as u64) + GAP as u64;
    let canvas = 3 * cell * (cell + (CAPTION + LEGEND + TITLE + FOOT) as u64) * 3;
    canvas + 3 * max_side * max_side + 8 * max_side * max_side
}

/// Where things stand.
pub(crate) struct Layout {
    /// Size of a panel, px.
    pub(crate) panel: (i32, i32),
    /// Width of a panel's place: the panel and its legend fit.
    pub(crate) cell: i32,
    /// Panel px for a level-0 px.
    pub(crate) scale: f64,
    /// Left top corners of the panels.
    pub(crate) places: Vec<(i32, i32)>,
    pub(crate) size: (i32, i32),
}

impl Layout {
    fn new(info: &SlideInfo, max_side: u32, panels: i32) -> Self {
        let (width, height) = (info.width.max(1) as f64, info.height.max(1) as f64);
        let scale = max_side as f64 / width.max(height);
        let side = |length: f64| (length * scale).round().max(1.0) as i32;
        let panel = (side(width), side(height));
        let cell = (panel.0.max(NARROWEST), CAPTION + panel.1 + LEGEND);
        let stacked = width > WIDE * height;
        let places = (0..panels)
            .map(|at| {
                let (column, row) = if stacked { (0, at) } else { (at, 0) };
                (
                    MARGIN + column * (cell.0 + GAP),
                    TITLE + row * cell.1 + CAPTION,
                )
            })
            .collect();
        let (columns, rows) = if stacked { (1, panels) } else { (panels, 1) };
        let size = (
            (2 * MARGIN + columns * cell.0 + (columns - 1) * GAP).max(TITLE_ROOM),
            TITLE + rows * cell.1 + FOOT,
        );
        Layout {
            panel,
            cell: cell.0,
            scale,
            places,
            size,
        }
    }

    /// The part of a panel that a tile covers, px; at least one px.
    pub(crate) fn cover(&self, info: &SlideInfo, tile: TileId) -> Option<(Range<i32>, Range<i32>)> {
        let footprint = info.grid(tile)?.footprint;
        let range = |from: i64, length: i32| {
            let at = |px: f64| (px * self.scale).round() as i32;
            let (from, to) = (at(from as f64), at(from as f64 + footprint));
            from.clamp(0, length - 1)..to.max(from + 1).clamp(1, length)
        };
        let (x, y) = (range(tile.x(), self.panel.0), range(tile.y(), self.panel.1));
        (!x.is_empty() && !y.is_empty()).then_some((x, y))
    }
}

/// Paints the slide.
pub(crate) fn paint(scene: &Scene, style: &Style) -> Result<Picture, StageError> {
    let tiles = scene.tiles;
    let info = &*tiles.info;
    let with_attention = !tiles.attention.is_empty();
    let layout = Layout::new(info, style.max_side, 2 + i32::from(with_attention));
    let mut canvas = Canvas::new(layout.size);

    let tissue = Tissue(scene.overview.as_ref().ok());
    let scores = Scale::of_scores(tiles.scores.values().copied());
    let weights = Scale::of_weights(tiles.attention.values().map(|part| part.weight));
    for (at, place) in layout.places.iter().enumerate() {
        tissue.paint(&mut canvas, *place, layout.panel, at > 0);
    }
    let score_of = |(tile, score): (&TileId, &f32)| (*tile, scores.part(*score));
    let scored = Field::new(&layout, info, tiles.scores.iter().map(score_of));
    scored.paint(&mut canvas, layout.places[1], style);
    if with_attention {
        let parts = tiles.attention.iter();
        let parts = parts.map(|(tile, part)| (*tile, weights.part(part.weight)));
        Field::new(&layout, info, parts).paint(&mut canvas, layout.places[2], style);
    }
    for tile in &tiles.failed {
        for place in &layout.places[..2] {
            hatch(&mut canvas, &layout, info, *tile, *place);
        }
    }
    let size = (canvas.width as u32, canvas.height as u32);
    {
        let area = BitMapBackend::with_buffer(&mut canvas.pixels, size).into_drawing_area();
        let pen = Pen::new(&area)?;
        let weights = with_attention.then_some(&weights);
        heatmap_legend::draw(&pen, &layout, scene, style, &scores, weights)?;
        area.present().map_err(Pen::fault)?;
    }
    Ok(Picture {
        width: size.0,
        height: size.1,
        pixels: canvas.pixels,
    })
}

// ---------------------------------------------------------------------------------------------------------- pixels

struct Canvas {
    width: i32,
    height: i32,
    pixels: Vec<u8>,
}

impl Canvas {
    fn new((width, height): (i32, i32)) -> Self {
        Canvas {
            width,
            height,
            pixels: vec![255; width as usize * height as usize * 3],
        }
    }

    fn pixel(&mut self, x: i32, y: i32) -> &mut [u8] {
        let at = (y as usize * self.width as usize + x as usize) * 3;
        &mut self.pixels[at..at + 3]
    }
}

/// The slide itself; white where there is no overview.
struct Tissue<'a>(Option<&'a Overview>);

impl Tissue<'_> {
    fn paint(&self, canvas: &mut Canvas, place: (i32, i32), panel: (i32, i32), grey: bool) {
        for y in 0..panel.1 {
            for x in 0..panel.0 {
                let at = |v: i32, n: i32| (v as f32 + 0.5) / n as f32;
                let mut colour = self.colour(at(x, panel.0), at(y, panel.1));
                if grey {
                    let [r, g, b] = colour.map(f32::from);
                    let light = 0.299 * r + 0.587 * g + 0.114 * b;
                    // Pale, so that the colours that come over it can be read.
                    colour = [(255.0 - (255.0 - light) * 0.6).round() as u8; 3];
                }
                canvas
                    .pixel(place.0 + x, place.1 + y)
                    .copy_from_slice(&colour);
            }
        }
    }

    /// At `x`, `y` in parts of the slide; interpolated linearly.
    fn colour(&self, x: f32, y: f32) -> [u8; 3] {
        let Some(overview) = self.0.filter(|o| o.width > 0 && o.height > 0) else {
            return [255; 3];
        };
        let place = |part: f32, n: u32| {
            let at = (part * n as f32 - 0.5).clamp(0.0, (n - 1) as f32);
            let low = at as u32;
            (low, (low + 1).min(n - 1), at - low as f32)
        };
        let (left, right, to_right) = place(x, overview.width);
        let (above, below, down) = place(y, overview.height);
        let pixel = |x: u32, y: u32| {
            let at = (y as usize * overview.width as usize + x as usize) * 3;
            match overview.pixels.get(at..at + 3) {
                Some(rgb) => [rgb[0], rgb[1], rgb[2]],
                None => [255; 3],
            }
        };
        mix(
            mix(pixel(left, above), pixel(right, above), to_right),
            mix(pixel(left, below), pixel(right, below), to_right),
            down,
        )
    }
}

/// Numbers of tiles on a panel; the mean where tiles overlap.
struct Field {
    panel: (i32, i32),
    sums: Vec<(f32, u32)>,
}

impl Field {
    fn new(layout: &Layout, info: &SlideInfo, values: impl Iterator<Item = (TileId, f32)>) -> Self {
        let panel = layout.panel;
        let mut sums = vec![(0.0, 0); panel.0 as usize * panel.1 as usize];
        for (tile, value) in values {
            let Some((columns, rows)) = layout.cover(info, tile) else {
                continue;
            };
            for y in rows {
                let from = y as usize * panel.0 as usize;
                let row = from + columns.start as usize..from + columns.end as usize;
                for (sum, n) in &mut sums[row] {
                    *sum += value;
                    *n += 1;
                }
            }
        }
        Field { panel, sums }
    }

    fn paint(&self, canvas: &mut Canvas, place: (i32, i32), style: &Style) {
        for (at, (sum, n)) in self.sums.iter().enumerate().filter(|(_, (_, n))| *n > 0) {
            let (x, y) = (at as i32 % self.panel.0, at as i32 / self.panel.0);
            let pixel = canvas.pixel(place.0 + x, place.1 + y);
            let under = [pixel[0], pixel[1], pixel[2]];
            let over = style.palette.colour(sum / *n as f32);
            pixel.copy_from_slice(&mix(under, over, style.alpha));
        }
    }
}

/// A tile that could not be read.
fn hatch(canvas: &mut Canvas, layout: &Layout, info: &SlideInfo, tile: TileId, place: (i32, i32)) {
    let Some((columns, rows)) = layout.cover(info, tile) else {
        return;
    };
    for y in rows.clone() {
        for x in columns.clone() {
            let edge =
                x == columns.start || y == rows.start || x + 1 == columns.end || y + 1 == rows.end;
            if edge || (x + y) % 5 == 0 {
                canvas
                    .pixel(place.0 + x, place.1 + y)
                    .copy_from_slice(&UNREAD);
            }
        }
    }
}

// ----------------------------------------------------------------------------------------------------------- scale

/// From a number to its place on the colour bar.
pub(crate) struct Scale {
    from: f32,
    to: f32,
    pub(crate) ticks: Vec<f32>,
}

impl Scale {
    /// 0 to 1 for probabilities, so that slides can be compared; else from the least to the greatest.
    fn of_scores(scores: impl Iterator<Item = f32>) -> Self {
        let (low, high) = scores.fold((0.0f32, 1.0f32), |(low, high), s| (low.min(s), high.max(s)));
        Self::over(low, high, 4)
    }

    /// 0 to the greatest.
    fn of_weights(weights: impl Iterator<Item = f32>) -> Self {
        let greatest = weights.fold(0.0, f32::max);
        Self::over(0.0, if greatest > 0.0 { greatest } else { 1.0 }, 2)
    }

    fn over(from: f32, to: f32, steps: u32) -> Self {
        let ticks = (0..=steps)
            .map(|step| from + (to - from) * step as f32 / steps as f32)
            .collect();
        Scale { from, to, ticks }
    }

    pub(crate) fn part(&self, value: f32) -> f32 {
        (value - self.from) / (self.to - self.from)
    }
}
