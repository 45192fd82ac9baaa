//! Text and lines of a picture.

use std::fmt::Display;

use plotters::backend::BitMapBackend;
use plotters::coord::Shift;
use plotters::drawing::DrawingArea;
use plotters::element::Rectangle;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, FontStyle, IntoFont, RGBColor, TextStyle};
use weir_runtime::stage::StageError;

use crate::font;

pub(crate) const INK: RGBColor = RGBColor(28, 30, 34);
pub(crate) const SOFT: RGBColor = RGBColor(92, 96, 104);
pub(crate) const PALE: RGBColor = RGBColor(190, 194, 200);

/// Draws on a picture; coordinates are px from the top left, of text the left end of its base line.
pub(crate) struct Pen<'a, 'b> {
    area: &'a DrawingArea<BitMapBackend<'b>, Shift>,
}

impl<'a, 'b> Pen<'a, 'b> {
    pub(crate) fn new(area: &'a DrawingArea<BitMapBackend<'b>, Shift>) -> Result<Self, StageError> {
        font::register()?;
        Ok(Pen { area })
    }

    pub(crate) fn fault(error: impl Display) -> StageError {
        StageError::new(
            format!("a picture cannot be drawn: {error}"),
            "this is a fault of weir: report it",
        )
    }

    /// Writes `text`; returns its width.
    pub(crate) fn text(
        &self,
        at: (i32, i32),
        size: f64,
        bold: bool,
        colour: RGBColor,
        text: &str,
    ) -> Result<i32, StageError> {
        self.anchored(at, size, bold, colour, text, HPos::Left)?;
        width(size, bold, text)
    }

    /// Writes `text` around `at`.
    pub(crate) fn centred(
        &self,
        at: (i32, i32),
        size: f64,
        colour: RGBColor,
        text: &str,
    ) -> Result<(), StageError> {
        self.anchored(at, size, false, colour, text, HPos::Center)
    }

    /// Writes `text` up to `at`.
    pub(crate) fn ending(
        &self,
        at: (i32, i32),
        size: f64,
        colour: RGBColor,
        text: &str,
    ) -> Result<(), StageError> {
        self.anchored(at, size, false, colour, text, HPos::Right)
    }

    /// Writes `text`, cut where it would be wider than `room`.
    pub(crate) fn fitted(
        &self,
        at: (i32, i32),
        size: f64,
        bold: bool,
        colour: RGBColor,
        text: &str,
        room: i32,
    ) -> Result<(), StageError> {
        let mut shown = text.to_owned();
        let mut kept = text.chars().count();
        while kept > 1 && width(size, bold, &shown)? > room {
            kept -= 1;
            shown = text.chars().take(kept).collect::<String>() + "…";
        }
        self.text(at, size, bold, colour, &shown).map(|_| ())
    }

    fn anchored(
        &self,
        at: (i32, i32),
        size: f64,
        bold: bool,
        colour: RGBColor,
        text: &str,
        anchor: HPos,
    ) -> Result<(), StageError> {
        // plotters puts the base line half the size below the place that it is given.
        let at = (at.0, at.1 - (size / 2.0) as i32);
        let style = TextStyle::from((font::FAMILY, size, weight(bold)).into_font())
            .color(&colour)
            .pos(Pos::new(anchor, VPos::Top));
        self.area.draw_text(text, &style, at).map_err(Self::fault)
    }

    /// A frame of `thick` px inside `size`.
    pub(crate) fn frame(
        &self,
        at: (i32, i32),
        size: (i32, i32),
        colour: RGBColor,
        thick: i32,
    ) -> Result<(), StageError> {
        for inset in 0..thick.min(size.0 / 2).min(size.1 / 2).max(1) {
            let corners = [
                (at.0 + inset, at.1 + inset),
                (at.0 + size.0 - 1 - inset, at.1 + size.1 - 1 - inset),
            ];
            let line = Rectangle::new(corners, colour.stroke_width(1));
            self.area.draw(&line).map_err(Self::fault)?;
        }
        Ok(())
    }

    pub(crate) fn fill(
        &self,
        at: (i32, i32),
        size: (i32, i32),
        colour: RGBColor,
    ) -> Result<(), StageError> {
        let corners = [at, (at.0 + size.0 - 1, at.1 + size.1 - 1)];
        // plotters fills no rectangle of one px; its outline is then the whole.
        let thin = size.0 == 1 || size.1 == 1;
        let style = if thin {
            colour.stroke_width(1)
        } else {
            colour.filled()
        };
        let shape = Rectangle::new(corners, style);
        self.area.draw(&shape).map_err(Self::fault)
    }
}

fn weight(bold: bool) -> FontStyle {
    if bold {
        FontStyle::Bold
    } else {
        FontStyle::Normal
    }
}

fn width(size: f64, bold: bool, text: &str) -> Result<i32, StageError> {
    let font = (font::FAMILY, size, weight(bold)).into_font();
    let ((left, _), (right, _)) = font.layout_box(text).map_err(Pen::fault)?;
    Ok(right - left)
}

/// Two significant digits, or three from 100 on.
pub(crate) fn short(value: f32) -> String {
    if value == 0.0 {
        return "0".into();
    }
    let digits = (1 - value.abs().log10().floor() as i32).clamp(0, 8) as usize;
    let text = format!("{value:.digits$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

/// A length in um or mm.
pub(crate) fn length(um: f64) -> String {
    if um >= 1000.0 {
        format!("{} mm", short((um / 1000.0) as f32))
    } else {
        format!("{} µm", short(um as f32))
    }
}

/// A count with commas between thousands.
pub(crate) fn grouped(n: usize) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
