//! Colour maps: perceptually uniform, so that equal steps of a number are equal steps of what is seen.

/// Samples of a colour map at even steps, RGB; what lies between is interpolated (within 5 of 255 of the original).
pub(crate) struct Palette(&'static [[u8; 3]; 33]);

impl Palette {
    /// By its name in the schema.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Some(Palette(match name {
            "viridis" => &VIRIDIS,
            "inferno" => &INFERNO,
            "magma" => &MAGMA,
            "cividis" => &CIVIDIS,
            _ => return None,
        }))
    }

    /// The colour of `value`, 0 to 1; what lies outside takes the nearest end.
    pub(crate) fn colour(&self, value: f32) -> [u8; 3] {
        let at = value.clamp(0.0, 1.0) * (self.0.len() - 1) as f32;
        let low = (at as usize).min(self.0.len() - 2);
        mix(self.0[low], self.0[low + 1], at - low as f32)
    }
}

/// `part` of `over` on the rest of `under`.
pub(crate) fn mix(under: [u8; 3], over: [u8; 3], part: f32) -> [u8; 3] {
    let mut mixed = [0; 3];
    for (mixed, (under, over)) in mixed.iter_mut().zip(under.into_iter().zip(over)) {
        *mixed = (under as f32 + (over as f32 - under as f32) * part).round() as u8;
    }
    mixed
}

static VIRIDIS: [[u8; 3]; 33] = [
    [68, 1, 84],
    [71, 13, 96],
    [72, 24, 106],
    [72, 35, 116],
    [71, 45, 123],
    [69, 55, 129],
    [66, 64, 134],
    [62, 73, 137],
    [59, 82, 139],
    [55, 91, 141],
    [51, 99, 141],
    [47, 107, 142],
    [44, 114, 142],
    [41, 122, 142],
    [38, 130, 142],
    [35, 137, 142],
    [33, 145, 140],
    [31, 152, 139],
    [31, 160, 136],
    [34, 167, 133],
    [40, 174, 128],
    [50, 182, 122],
    [63, 188, 115],
    [78, 195, 107],
    [94, 201, 98],
    [112, 207, 87],
    [132, 212, 75],
    [152, 216, 62],
    [173, 220, 48],
    [194, 223, 35],
    [216, 226, 25],
    [236, 229, 27],
    [253, 231, 37],
];

static INFERNO: [[u8; 3]; 33] = [
    [0, 0, 4],
    [4, 3, 18],
    [11, 7, 36],
    [21, 11, 55],
    [33, 12, 74],
    [47, 10, 91],
    [61, 9, 101],
    [74, 12, 107],
    [87, 16, 110],
    [100, 21, 110],
    [113, 25, 110],
    [125, 30, 109],
    [138, 34, 106],
    [151, 39, 102],
    [163, 44, 97],
    [176, 49, 91],
    [188, 55, 84],
    [199, 62, 76],
    [210, 70, 68],
    [219, 80, 59],
    [228, 90, 49],
    [235, 102, 40],
    [241, 115, 29],
    [246, 128, 19],
    [249, 142, 9],
    [251, 157, 7],
    [252, 172, 17],
    [251, 188, 33],
    [249, 203, 53],
    [245, 219, 76],
    [242, 234, 105],
    [243, 246, 138],
    [252, 255, 164],
];

static MAGMA: [[u8; 3]; 33] = [
    [0, 0, 4],
    [3, 3, 18],
    [10, 8, 34],
    [19, 13, 52],
    [29, 17, 71],
    [41, 17, 90],
    [54, 16, 107],
    [68, 15, 118],
    [81, 18, 124],
    [93, 23, 127],
    [106, 28, 129],
    [118, 33, 129],
    [131, 38, 129],
    [144, 42, 129],
    [156, 46, 127],
    [170, 51, 125],
    [183, 55, 121],
    [196, 60, 117],
    [208, 65, 111],
    [220, 72, 105],
    [231, 82, 99],
    [239, 93, 94],
    [245, 107, 92],
    [249, 121, 93],
    [252, 137, 97],
    [253, 152, 105],
    [254, 167, 114],
    [254, 182, 124],
    [254, 196, 136],
    [254, 211, 149],
    [253, 226, 163],
    [252, 240, 178],
    [252, 253, 191],
];

static CIVIDIS: [[u8; 3]; 33] = [
    [0, 34, 78],
    [0, 40, 91],
    [0, 46, 106],
    [5, 51, 113],
    [26, 56, 111],
    [39, 62, 110],
    [50, 67, 109],
    [59, 73, 108],
    [67, 78, 108],
    [75, 84, 108],
    [83, 90, 109],
    [90, 95, 110],
    [97, 101, 111],
    [104, 106, 113],
    [111, 112, 115],
    [118, 118, 118],
    [125, 124, 120],
    [132, 130, 121],
    [140, 136, 120],
    [147, 142, 120],
    [155, 148, 118],
    [163, 154, 116],
    [171, 160, 114],
    [180, 167, 111],
    [188, 174, 108],
    [196, 180, 104],
    [205, 187, 99],
    [213, 194, 94],
    [222, 201, 88],
    [231, 209, 80],
    [240, 216, 70],
    [249, 224, 58],
    [254, 232, 56],
];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn greater_numbers_are_lighter_in_every_palette() {
        for name in ["viridis", "inferno", "magma", "cividis"] {
            let palette = Palette::named(name).unwrap();
            let light = |value: f32| {
                let [r, g, b] = palette.colour(value).map(f32::from);
                0.2126 * r + 0.7152 * g + 0.0722 * b
            };
            for step in 0..100 {
                let (low, high) = (step as f32 / 100.0, (step + 1) as f32 / 100.0);
                assert!(light(high) > light(low) - 0.5, "{name} at {low}");
            }
            assert!(light(1.0) > light(0.0) + 120.0, "{name}");
            assert_eq!(palette.colour(f32::NAN.max(2.0)), palette.colour(1.0));
        }
    }
}
