//! The font of pictures: shipped, so that a picture is the same on every machine.

use std::sync::OnceLock;

use plotters::style::{FontStyle, register_font};
use weir_runtime::stage::StageError;

/// Name of the family for plotters, after [`register`].
pub const FAMILY: &str = "DejaVu Sans";

/// Makes [`FAMILY`] known to plotters, normal and bold.
pub fn register() -> Result<(), StageError> {
    static DONE: OnceLock<bool> = OnceLock::new();
    let known = DONE.get_or_init(|| {
        let normal = include_bytes!("../fonts/DejaVuSans.ttf");
        let bold = include_bytes!("../fonts/DejaVuSans-Bold.ttf");
        register_font(FAMILY, FontStyle::Normal, normal).is_ok()
            && register_font(FAMILY, FontStyle::Bold, bold).is_ok()
    });
    if *known {
        Ok(())
    } else {
        Err(StageError::new(
            "the font of pictures cannot be read",
            "this is a fault of the build: report it",
        ))
    }
}
