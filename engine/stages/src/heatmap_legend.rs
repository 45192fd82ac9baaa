//! Title, captions and legends of a slide's picture.

use std::collections::BTreeMap;

use plotters::style::RGBColor;
use weir_record::{SlideInfo, TileId};
use weir_runtime::stage::StageError;

use crate::heatmap_pen::{INK, PALE, Pen, SOFT, grouped, length, short};
use crate::heatmap_picture::{Layout, MARGIN, Scale, Scene, Style, UNREAD};
use crate::palette::mix;
use crate::prediction_file::class_name;
use crate::prediction_tables::state_name;
use crate::tiles::Side;

const HIGH: RGBColor = RGBColor(214, 40, 57);
const LOW: RGBColor = RGBColor(29, 111, 184);

type Selected = BTreeMap<TileId, (Side, u32)>;

/// Draws everything that is no pixel of the panels.
pub(crate) fn draw(
    pen: &Pen,
    layout: &Layout,
    scene: &Scene,
    style: &Style,
    scores: &Scale,
    weights: Option<&Scale>,
) -> Result<(), StageError> {
    let tiles = scene.tiles;
    let selected = tiles.selected();
    outline(pen, layout, &tiles.info, &selected, layout.places[0])?;
    title(pen, scene, &selected, layout.size.0)?;
    for place in &layout.places {
        pen.frame(*place, layout.panel, PALE, 1)?;
    }
    tissue_legend(pen, layout, scene, &selected)?;
    let positive = scene.positive.unwrap_or("positive");
    let caption = format!("score: p({positive}) of each tile");
    bar(pen, layout, 1, &caption, scores, style, "")?;
    if let Some(weights) = weights {
        let n = tiles.attention.len();
        let note = format!("1/{n} = {}", short(1.0 / n as f32));
        bar(
            pen,
            layout,
            2,
            "attention weight in the bag",
            weights,
            style,
            &note,
        )?;
    }
    let corner = (layout.size.0 - MARGIN, layout.size.1 - 14);
    let warning = "weir: research software, not a medical device";
    pen.ending(corner, 12.0, SOFT, warning)
}

fn outline(
    pen: &Pen,
    layout: &Layout,
    info: &SlideInfo,
    selected: &Selected,
    place: (i32, i32),
) -> Result<(), StageError> {
    for (tile, (side, _)) in selected {
        if let Some((x, y)) = layout.cover(info, *tile) {
            let colour = if *side == Side::High { HIGH } else { LOW };
            let thick = if x.len().min(y.len()) >= 8 { 2 } else { 1 };
            let size = (x.len() as i32, y.len() as i32);
            pen.frame((place.0 + x.start, place.1 + y.start), size, colour, thick)?;
        }
    }
    Ok(())
}

fn title(pen: &Pen, scene: &Scene, selected: &Selected, width: i32) -> Result<(), StageError> {
    let (tiles, room) = (scene.tiles, width - 2 * MARGIN);
    let info = &*tiles.info;
    pen.fitted((MARGIN, 38), 26.0, true, INK, &info.id, room)?;
    let mut parts = Vec::new();
    if let Some(prediction) = scene.prediction {
        match (class_name(prediction), prediction.class) {
            (Some(name), Some(class)) => {
                let p = prediction.probabilities.get(class as usize);
                parts.push(format!("predicted {name}"));
                parts.extend(p.map(|p| format!("probability {p:.3}")));
            }
            _ => parts.push(format!("no prediction: {}", state_name(prediction.state))),
        }
    }
    let mut counts = vec![format!("{} tiles scored", grouped(tiles.scores.len()))];
    if !selected.is_empty() {
        counts.push(format!("{} selected", grouped(selected.len())));
    }
    if !tiles.failed.is_empty() {
        counts.push(format!("{} could not be read", grouped(tiles.failed.len())));
    }
    if let Some(grid) = info.grids.first().filter(|grid| grid.mpp > 0.0) {
        let side = length(grid.px as f64 * grid.mpp);
        counts.push(format!(
            "tiles of {side} at {} µm/px",
            short(grid.mpp as f32)
        ));
    }
    let first = if parts.is_empty() {
        &mut counts
    } else {
        &mut parts
    };
    if let Err(why) = &scene.overview {
        first.push(format!("no picture of the tissue: {why}"));
    }
    let lines = [parts, counts];
    for (line, y) in lines.iter().filter(|line| !line.is_empty()).zip([61, 82]) {
        pen.fitted((MARGIN, y), 16.0, false, SOFT, &line.join("  ·  "), room)?;
    }
    Ok(())
}

fn tissue_legend(
    pen: &Pen,
    layout: &Layout,
    scene: &Scene,
    selected: &Selected,
) -> Result<(), StageError> {
    let (x, top) = layout.places[0];
    let caption = if selected.is_empty() {
        "tissue"
    } else {
        "tissue and selected tiles"
    };
    pen.text((x, top - 9), 16.0, true, INK, caption)?;
    let y = top + layout.panel.1 + 24;
    let mut at = x;
    let of = |wanted: Side| {
        selected
            .values()
            .filter(|(side, _)| *side == wanted)
            .count()
    };
    let failed = scene.tiles.failed.len();
    let unread = RGBColor(UNREAD[0], UNREAD[1], UNREAD[2]);
    for (colour, name, n) in [
        (HIGH, "highest", of(Side::High)),
        (LOW, "lowest", of(Side::Low)),
        (unread, "not read", failed),
    ] {
        if n > 0 {
            pen.frame((at, y - 12), (14, 14), colour, 2)?;
            let label = format!("{name} {}", grouped(n));
            at += 20 + pen.text((at + 20, y), 14.0, false, INK, &label)? + 20;
        }
    }
    scale_bar(pen, layout, scene, (x, y + 28))
}

/// A length in um that is 1, 2 or 5 times a power of ten and at most a third of the panel.
fn scale_bar(pen: &Pen, layout: &Layout, scene: &Scene, at: (i32, i32)) -> Result<(), StageError> {
    let Some((mpp, _)) = scene.tiles.info.mpp else {
        pen.text(at, 14.0, false, SOFT, "the size of a pixel is not known")?;
        return Ok(());
    };
    let um_per_px = mpp.0 / layout.scale;
    let longest = um_per_px * (layout.panel.0.max(120) as f64) / 3.0;
    let power = 10f64.powf(longest.log10().floor());
    let step = [5.0, 2.0, 1.0]
        .into_iter()
        .find(|step| step * power <= longest);
    let um = step.unwrap_or(1.0) * power;
    let px = (um / um_per_px).round() as i32;
    pen.fill((at.0, at.1 - 7), (px, 4), INK)?;
    pen.text((at.0 + px + 8, at.1), 14.0, false, INK, &length(um))?;
    Ok(())
}

/// Caption above and colour bar below panel `index`.
fn bar(
    pen: &Pen,
    layout: &Layout,
    index: usize,
    caption: &str,
    scale: &Scale,
    style: &Style,
    note: &str,
) -> Result<(), StageError> {
    let (x, top) = layout.places[index];
    pen.text((x, top - 9), 16.0, true, INK, caption)?;
    let (y, width) = (top + layout.panel.1 + 14, (layout.cell - 110).min(320));
    for step in 0..width {
        // As on the tissue, whose background is nearly white.
        let colour = style.palette.colour(step as f32 / (width - 1) as f32);
        let [r, g, b] = mix([250; 3], colour, style.alpha);
        pen.fill((x + step, y), (1, 14), RGBColor(r, g, b))?;
    }
    pen.frame((x, y), (width, 14), SOFT, 1)?;
    for tick in &scale.ticks {
        let at = x + (scale.part(*tick) * (width - 1) as f32).round() as i32;
        pen.fill((at, y + 14), (1, 4), SOFT)?;
        pen.centred((at, y + 33), 13.0, INK, &short(*tick))?;
    }
    if !note.is_empty() {
        pen.text((x + width + 16, y + 12), 13.0, false, SOFT, note)?;
    }
    Ok(())
}
