//! The curves of a training, as a picture: a row a phase, loss on the left, validation AUROC on the right.

use crate::TrainError;
use crate::checkpoint::Epoch;
use plotters::prelude::*;
use std::path::Path;
use weir_stages::font;

/// Width and height of one phase's row, px.
const ROW: (u32, u32) = (1000, 240);
const TRAINED: RGBColor = RGBColor(120, 120, 120);
const VALIDATED: RGBColor = RGBColor(0, 90, 160);
const BEST: RGBColor = RGBColor(200, 60, 20);

/// Writes the picture, whole or not at all.
pub fn curves(history: &[Epoch], path: &Path) -> Result<(), TrainError> {
    let mut phases: Vec<&str> = history.iter().map(|epoch| epoch.phase.as_str()).collect();
    phases.dedup();
    font::register().map_err(|error| TrainError::Chart(error.to_string()))?;
    let size = (ROW.0, ROW.1 * phases.len().max(1) as u32);
    let mut pixels = vec![0; (size.0 * size.1 * 3) as usize];
    draw(history, &phases, &mut pixels, size)
        .map_err(|error| TrainError::Chart(error.to_string()))?;
    let mut file = std::io::Cursor::new(Vec::new());
    image::RgbImage::from_raw(size.0, size.1, pixels)
        .ok_or_else(|| TrainError::Chart("the picture has no pixels".into()))?
        .write_to(&mut file, image::ImageFormat::Png)
        .map_err(|error| TrainError::Chart(error.to_string()))?;
    crate::run::write(path, &file.into_inner())
}

type Drawn<T> = Result<T, Box<dyn std::error::Error>>;

fn draw(history: &[Epoch], phases: &[&str], pixels: &mut [u8], size: (u32, u32)) -> Drawn<()> {
    let root = BitMapBackend::with_buffer(pixels, size).into_drawing_area();
    root.fill(&WHITE)?;
    let rows = root.split_evenly((phases.len().max(1), 2));
    for (phase, panels) in phases.iter().zip(rows.chunks(2)) {
        let epochs: Vec<&Epoch> = history.iter().filter(|e| e.phase == *phase).collect();
        let of = |value: &dyn Fn(&Epoch) -> f64| -> Vec<(f64, f64)> {
            epochs.iter().map(|e| (e.epoch as f64, value(e))).collect()
        };
        let best = epochs.iter().rfind(|e| e.best).map(|e| e.epoch as f64);
        let lines = [
            ("training", TRAINED, of(&|e| e.loss)),
            ("validation bags", VALIDATED, of(&|e| e.val_loss)),
        ];
        panel(&panels[0], &format!("{phase}: loss"), &lines, best)?;
        let lines = [("validation bags", VALIDATED, of(&|e| e.val_auroc))];
        panel(&panels[1], &format!("{phase}: AUROC"), &lines, best)?;
    }
    root.present()?;
    Ok(())
}

type Line<'a> = (&'a str, RGBColor, Vec<(f64, f64)>);

fn panel(
    area: &DrawingArea<BitMapBackend, plotters::coord::Shift>,
    title: &str,
    lines: &[Line],
    best: Option<f64>,
) -> Drawn<()> {
    let values = || lines.iter().flat_map(|(.., points)| points).map(|p| p.1);
    let low = values().filter(|v| v.is_finite()).fold(f64::MAX, f64::min);
    let high = values().filter(|v| v.is_finite()).fold(f64::MIN, f64::max);
    if low > high {
        return Ok(());
    }
    let room = ((high - low) * 0.08).max(1e-3);
    let last = lines
        .iter()
        .map(|(.., points)| points.len())
        .max()
        .unwrap_or(1) as f64;
    let mut chart = ChartBuilder::on(area)
        .caption(title, (font::FAMILY, 15))
        .margin(8)
        .x_label_area_size(28)
        .y_label_area_size(48)
        .build_cartesian_2d(1.0..last.max(2.0), low - room..high + room)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc("epoch")
        .label_style((font::FAMILY, 12))
        .x_label_formatter(&|epoch| match epoch.fract() {
            0.0 => format!("{epoch:.0}"),
            _ => String::new(),
        })
        .y_label_formatter(&|value| format!("{value:.3}"))
        .draw()?;
    if let Some(best) = best {
        chart
            .draw_series(LineSeries::new(
                [(best, low - room), (best, high + room)],
                BEST.mix(0.6),
            ))?
            .label("best")
            .legend(|(x, y)| PathElement::new([(x, y), (x + 16, y)], BEST));
    }
    for (name, colour, points) in lines {
        let colour = *colour;
        chart
            .draw_series(LineSeries::new(
                points.iter().copied(),
                colour.stroke_width(2),
            ))?
            .label(*name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour));
    }
    chart
        .configure_series_labels()
        .label_font((font::FAMILY, 12))
        .background_style(WHITE.mix(0.8))
        .draw()?;
    Ok(())
}
