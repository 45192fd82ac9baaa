//! The roofline: how many operations a byte a case does, how many a second it reached, and the roof above it; beside it, from
//! which size on a kernel comes near the roof.

use crate::Fault;
use crate::case::Kernel;
use crate::cost::Ceilings;
use crate::machine::Machine;
use crate::record::Measured;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontStyle, register_font};
use std::path::Path;

const SIZE: (u32, u32) = (1560, 760);
const FONT: &str = "DejaVu Sans";
const INK: RGBColor = RGBColor(38, 42, 48);
const SOFT: RGBColor = RGBColor(112, 120, 130);
const GRID: RGBColor = RGBColor(228, 231, 235);
const ROOF: RGBColor = RGBColor(70, 76, 84);

/// Of a kernel; told apart by people who do not see colours alike too (Okabe and Ito).
fn colour(kernel: Kernel) -> RGBColor {
    match kernel {
        Kernel::Weights => RGBColor(230, 159, 0),
        Kernel::Pool => RGBColor(0, 114, 178),
        Kernel::Gated => RGBColor(213, 94, 0),
        Kernel::TopK => RGBColor(204, 121, 167),
        Kernel::Tiles => RGBColor(0, 158, 115),
    }
}

type Drawn = Result<(), Box<dyn std::error::Error>>;

/// Draws to a .png or .svg file.
pub fn roofline(
    path: &Path,
    measured: &[Measured],
    ceilings: &Ceilings,
    machine: &Machine,
) -> Result<(), Fault> {
    let fonts: [(FontStyle, &[u8]); 2] = [
        (
            FontStyle::Normal,
            include_bytes!("../../../engine/stages/fonts/DejaVuSans.ttf"),
        ),
        (
            FontStyle::Bold,
            include_bytes!("../../../engine/stages/fonts/DejaVuSans-Bold.ttf"),
        ),
    ];
    for (style, bytes) in fonts {
        if register_font(FONT, style, bytes).is_err() {
            return Err(Fault::internal("the font of pictures cannot be read"));
        }
    }
    let failed = |error: Box<dyn std::error::Error>| Fault::file("draw", path, error);
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("svg") => {
            let root = SVGBackend::new(path, SIZE).into_drawing_area();
            draw(&root, measured, ceilings, machine).map_err(failed)?;
            drop(root);
            Ok(())
        }
        Some("png") => {
            let mut pixels = vec![0; (SIZE.0 * SIZE.1 * 3) as usize];
            let root = BitMapBackend::with_buffer(&mut pixels, SIZE).into_drawing_area();
            draw(&root, measured, ceilings, machine).map_err(failed)?;
            drop(root);
            png(path, &pixels).map_err(failed)
        }
        _ => Err(Fault::usage(
            format!("{} is neither .png nor .svg", path.display()),
            "end the name in one of them",
        )),
    }
}

fn png(path: &Path, pixels: &[u8]) -> Drawn {
    let file = std::io::BufWriter::new(std::fs::File::create(path)?);
    let mut encoder = png::Encoder::new(file, SIZE.0, SIZE.1);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.write_header()?.write_image_data(pixels)?;
    Ok(())
}

/// A case as a point.
struct Point {
    kernel: Kernel,
    backward: bool,
    intensity: f64,
    rate: f64,
    bytes: f64,
    share: f64,
}

fn points(measured: &[Measured]) -> Vec<Point> {
    measured
        .iter()
        .filter(|found| found.median > 0.0)
        .filter_map(|found| {
            let kernel = Kernel::ALL.into_iter().find(|k| k.name() == found.kernel)?;
            Some(Point {
                kernel,
                backward: found.direction != "forward",
                intensity: found.flops / found.bytes,
                rate: found.flops / found.median / 1e9,
                bytes: found.bytes / 1e6,
                share: 100.0 / found.gap,
            })
        })
        .collect()
}

fn draw<B: DrawingBackend>(
    root: &DrawingArea<B, Shift>,
    measured: &[Measured],
    ceilings: &Ceilings,
    machine: &Machine,
) -> Drawn
where
    B::ErrorType: 'static,
{
    root.fill(&WHITE)?;
    let points = points(measured);
    text(
        root,
        "How near the kernels come to this machine's limits",
        (34, 24),
        24,
        INK,
        true,
    )?;
    let about = format!(
        "{}, {} threads: plain read {:.1} GB/s, copy {:.1} GB/s, product {:.0} GFLOP/s, all measured in the same process. {}",
        machine.name,
        machine.threads,
        ceilings.read / 1e9,
        ceilings.copy / 1e9,
        ceilings.product / 1e9,
        machine.date
    );
    text(root, &about, (34, 58), 14, SOFT, false)?;
    let (_, body) = root.split_vertically(84);
    let (chart, foot) = body.split_vertically(SIZE.1 - 84 - 46);
    let (left, right) = chart.split_horizontally(SIZE.0 * 54 / 100);
    roof(&left, &points, ceilings)?;
    shares(&right, &points)?;
    legend(&foot, &points)?;
    root.present()?;
    Ok(())
}

fn text<B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    words: &str,
    at: (i32, i32),
    size: i32,
    colour: RGBColor,
    bold: bool,
) -> Drawn
where
    B::ErrorType: 'static,
{
    let style = if bold {
        FontStyle::Bold
    } else {
        FontStyle::Normal
    };
    let font = (FONT, size, style).into_font().color(&colour);
    area.draw(&Text::new(words.to_owned(), at, font))?;
    Ok(())
}

/// A power of ten, as a person writes it.
fn short(value: &f64) -> String {
    if *value >= 1.0 {
        let thousands = (value.log10() / 3.0 + 1e-9).floor() as usize;
        let unit = ["", "k", "M", "G"].get(thousands).copied().unwrap_or("");
        format!("{:.0}{unit}", value / 1000f64.powi(thousands as i32))
    } else {
        format!("{value}")
    }
}

fn decade(value: f64, up: bool) -> f64 {
    let log = value.log10();
    10f64.powf(if up { log.ceil() } else { log.floor() })
}

fn roof<B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    points: &[Point],
    ceilings: &Ceilings,
) -> Drawn
where
    B::ErrorType: 'static,
{
    // The selection does no arithmetic: it stands in the other chart only.
    let points: Vec<&Point> = points.iter().filter(|p| p.rate > 0.0).collect();
    let x = 0.1..1000.0;
    let top = decade(ceilings.product / 1e9, true) * 2.0;
    let least = points.iter().map(|p| p.rate).fold(top / 1e4, f64::min);
    let y = decade(least * 0.999, false)..top;
    let mut chart = ChartBuilder::on(area)
        .margin_left(18)
        .margin_right(24)
        .margin_top(34)
        .x_label_area_size(52)
        .y_label_area_size(66)
        .build_cartesian_2d(x.clone().log_scale(), y.clone().log_scale())?;
    mesh(&mut chart, "operations a byte", "operations a second, 1e9")?;
    text(area, "Roofline", (84, 8), 16, INK, true)?;
    let product = ceilings.product / 1e9;
    let slopes = [
        ("plain read", ceilings.read / 1e9, 3),
        ("copy", ceilings.copy / 1e9, 1),
    ];
    for (name, rate, width) in slopes {
        let ridge = product / rate;
        let line = [(x.start, x.start * rate), (ridge, product)];
        chart.draw_series(LineSeries::new(line, ROOF.stroke_width(width)))?;
        // Along the line, as far up as it stays clear of the points.
        let at = if name == "copy" { 0.16 } else { 3.2 };
        let side = if name == "copy" {
            VPos::Top
        } else {
            VPos::Bottom
        };
        let style = (FONT, 13)
            .into_font()
            .color(&ROOF)
            .pos(Pos::new(HPos::Right, side));
        chart.draw_series([Text::new(format!("{name} "), (at, at * rate), style)])?;
    }
    let flat = [(product / slopes[0].1, product), (x.end, product)];
    chart.draw_series(LineSeries::new(flat, ROOF.stroke_width(3)))?;
    let style = (FONT, 13)
        .into_font()
        .color(&ROOF)
        .pos(Pos::new(HPos::Right, VPos::Bottom));
    let name = "product of f32 matrices".to_owned();
    chart.draw_series([Text::new(name, (x.end * 0.95, product * 1.08), style)])?;
    for point in points {
        chart.draw_series(mark((point.intensity, point.rate), point))?;
    }
    Ok(())
}

fn shares<B: DrawingBackend>(area: &DrawingArea<B, Shift>, points: &[Point]) -> Drawn
where
    B::ErrorType: 'static,
{
    let most = points.iter().map(|p| p.bytes).fold(1.0, f64::max);
    let least = points.iter().map(|p| p.bytes).fold(most, f64::min);
    let top = points.iter().map(|p| p.share).fold(100.0, f64::max);
    let top = (top / 20.0).ceil() * 20.0 + 5.0;
    let x = decade(least * 0.999, false)..decade(most, true);
    let mut chart = ChartBuilder::on(area)
        .margin_left(8)
        .margin_right(30)
        .margin_top(34)
        .x_label_area_size(52)
        .y_label_area_size(66)
        .build_cartesian_2d(x.clone().log_scale(), 0.0..top)?;
    mesh(
        &mut chart,
        "bytes that must be moved, MB",
        "share of the limit, %",
    )?;
    text(
        area,
        "How much of the limit, by size",
        (74, 8),
        16,
        INK,
        true,
    )?;
    let full = [(x.start, 100.0), (x.end, 100.0)];
    chart.draw_series(LineSeries::new(full, ROOF.stroke_width(3)))?;
    for point in points {
        chart.draw_series(mark((point.bytes, point.share), point))?;
    }
    Ok(())
}

type Chart<'a, B, X, Y> = ChartContext<'a, B, Cartesian2d<X, Y>>;

fn mesh<B: DrawingBackend, X, Y>(chart: &mut Chart<'_, B, X, Y>, x: &str, y: &str) -> Drawn
where
    B::ErrorType: 'static,
    X: Ranged<ValueType = f64> + plotters::coord::ranged1d::ValueFormatter<f64>,
    Y: Ranged<ValueType = f64> + plotters::coord::ranged1d::ValueFormatter<f64>,
{
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(SOFT)
        .x_desc(x)
        .y_desc(y)
        .label_style((FONT, 13).into_font().color(&SOFT))
        .axis_desc_style((FONT, 14).into_font().color(&INK))
        .x_label_formatter(&short)
        .y_label_formatter(&short)
        .draw()?;
    Ok(())
}

/// A forward pass is a disc, a backward pass a ring: a white disc on a coloured one, since a stroked circle of a picture of
/// pixels has holes.
fn mark(at: (f64, f64), point: &Point) -> Vec<Circle<(f64, f64), i32>> {
    let colour = colour(point.kernel);
    if point.backward {
        vec![
            Circle::new(at, 6, colour.filled()),
            Circle::new(at, 4, WHITE.filled()),
        ]
    } else {
        vec![Circle::new(at, 6, colour.mix(0.6).filled())]
    }
}

fn legend<B: DrawingBackend>(area: &DrawingArea<B, Shift>, points: &[Point]) -> Drawn
where
    B::ErrorType: 'static,
{
    let mut x = 84;
    for kernel in Kernel::ALL {
        if !points.iter().any(|point| point.kernel == kernel) {
            continue;
        }
        area.draw(&Circle::new((x, 18), 6, colour(kernel).filled()))?;
        let name = format!("({}) {}", kernel.letter(), kernel.name());
        text(area, &name, (x + 14, 12), 14, INK, false)?;
        x += 46 + 9 * name.len() as i32;
    }
    x += 30;
    area.draw(&Circle::new((x, 18), 6, SOFT.filled()))?;
    text(area, "forward", (x + 14, 12), 14, INK, false)?;
    x += 110;
    area.draw(&Circle::new((x, 18), 6, SOFT.filled()))?;
    area.draw(&Circle::new((x, 18), 4, WHITE.filled()))?;
    text(area, "backward", (x + 14, 12), 14, INK, false)?;
    Ok(())
}
