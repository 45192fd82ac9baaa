//! OpenSlide's pixels to RGB over white, and what a transparent one means.
//!
//! OpenSlide gives premultiplied ARGB and leaves transparent what it has no pixels for, without an error: a place that was never
//! scanned and a tile that was lost look alike. Which of the two it is depends on the format:
//!
//! * Formats whose files hold every tile of every level ([`Absent::Damage`]): a transparent pixel inside a level is a tile whose
//!   data are gone. The region cannot be had.
//! * Formats that leave out what was not scanned ([`Absent::NotScanned`]): a transparent pixel is a place without a picture, as
//!   what lies outside the slide is; it is white. A tile of theirs that is in the file and cannot be decoded is an error of
//!   OpenSlide's own; one that was struck from the file's index cannot be told from glass.
//!
//! [`absent`] says which formats are which; one that it does not know is taken to hold every tile, since a failure that is counted
//! can be looked into and a white square cannot.

/// What a transparent pixel inside a level means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absent {
    /// The file should have had it.
    Damage,
    /// Nobody looked there.
    NotScanned,
}

/// What `vendor`'s files leave out. `organization` is DICOM's DimensionOrganizationType.
pub fn absent(vendor: &str, organization: Option<&str>) -> Absent {
    match vendor {
        // Fields of view on a larger plane.
        "mirax" | "leica" | "ventana" | "zeiss" => Absent::NotScanned,
        // Regions of interest in a full grid, whose other tiles have no bytes or no row.
        "philips" | "sakura" => Absent::NotScanned,
        // PS3.3 C.7.6.17.3: TILED_FULL has every frame; absent or TILED_SPARSE may leave some out.
        "dicom" if organization != Some("TILED_FULL") => Absent::NotScanned,
        // aperio, generic-tiff (TIFF 6.0 section 15: all tiles are there), hamamatsu, huron, trestle, argos, dicom TILED_FULL.
        _ => Absent::Damage,
    }
}

/// Turns `argb` into interleaved RGB over white. The number of the first pixel that is damage, where there is one.
pub fn to_rgb(argb: &[u32], absent: Absent, rgb: &mut [u8]) -> Result<(), usize> {
    let rgb = rgb.as_chunks_mut::<3>().0;
    debug_assert_eq!(argb.len(), rgb.len());
    let opaque = argb.iter().fold(u32::MAX, |all, pixel| all & pixel) >> 24 == 255;
    if opaque {
        for (rgb, pixel) in rgb.iter_mut().zip(argb) {
            *rgb = [(pixel >> 16) as u8, (pixel >> 8) as u8, *pixel as u8];
        }
        return Ok(());
    }
    for (at, (rgb, pixel)) in rgb.iter_mut().zip(argb).enumerate() {
        let alpha = pixel >> 24;
        let parts = [16, 8, 0].map(|shift| (pixel >> shift) & 255);
        *rgb = match absent {
            // Over white: c + (1 - a) * 255, where c is premultiplied already.
            Absent::NotScanned => parts.map(|part| (part + 255 - alpha).min(255) as u8),
            Absent::Damage if alpha < 255 => return Err(at),
            Absent::Damage => parts.map(|part| part as u8),
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn premultiplied(rgb: [u8; 3], alpha: u32) -> u32 {
        let [r, g, b] = rgb.map(|part| (u32::from(part) * alpha + 127) / 255);
        alpha << 24 | r << 16 | g << 8 | b
    }

    fn one(pixel: u32, absent: Absent) -> Result<[u8; 3], usize> {
        let mut rgb = [0; 3];
        to_rgb(&[pixel], absent, &mut rgb).map(|()| rgb)
    }

    proptest! {
        #[test]
        fn opaque_pixels_are_what_they_are(rgb: [u8; 3]) {
            for absent in [Absent::Damage, Absent::NotScanned] {
                prop_assert_eq!(one(premultiplied(rgb, 255), absent), Ok(rgb));
            }
        }

        #[test]
        fn what_is_partly_there_lies_over_white_where_places_are_left_out(rgb: [u8; 3], alpha in 0u32..255) {
            let got = one(premultiplied(rgb, alpha), Absent::NotScanned).unwrap();
            for (got, part) in got.iter().zip(rgb) {
                let over = (f64::from(part) * f64::from(alpha) + 255.0 * (255.0 - f64::from(alpha))) / 255.0;
                prop_assert!((f64::from(*got) - over).abs() <= 0.51, "{got} {over}");
            }
            prop_assert_eq!(one(premultiplied(rgb, alpha), Absent::Damage), Err(0));
        }
    }

    #[test]
    fn a_hole_in_a_full_grid_is_damage_and_says_where() {
        let white = premultiplied([255; 3], 255);
        let mut rgb = [0; 12];
        let holed = [white, white, 0, white];
        assert_eq!(to_rgb(&holed, Absent::Damage, &mut rgb), Err(2));
        assert_eq!(to_rgb(&holed, Absent::NotScanned, &mut rgb), Ok(()));
        assert_eq!(rgb, [255; 12]);
    }

    #[test]
    fn a_format_that_nobody_has_described_is_taken_to_be_whole() {
        assert_eq!(absent("something-new", None), Absent::Damage);
        assert_eq!(absent("aperio", None), Absent::Damage);
        assert_eq!(absent("mirax", None), Absent::NotScanned);
        assert_eq!(absent("dicom", Some("TILED_FULL")), Absent::Damage);
        assert_eq!(absent("dicom", Some("TILED_SPARSE")), Absent::NotScanned);
        assert_eq!(absent("dicom", None), Absent::NotScanned);
    }
}
