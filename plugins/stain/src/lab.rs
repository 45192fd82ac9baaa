//! sRGB and CIELAB (D65, 2 degrees).
//!
//! In f32 and in blocks of planes, so that every step but the table look-ups runs in vectors; 1e-4 of a unit of L, a, b, which
//! is some hundredth of what a grey level is. Powers are made of cube and square roots, which need no library: x^(1/2.4) is
//! cbrt(x) * sqrt(sqrt(cbrt(x))).

use crate::vector::{Matrix, Vector};

/// Pixels of a block.
pub const BLOCK: usize = 256;
/// A block's L, a and b, or red, green and blue.
pub type Planes = [[f32; BLOCK]; 3];

/// IEC 61966-2-1 to CIE XYZ; rows X, Y, Z.
const TO_XYZ: Matrix = [
    [0.412453, 0.357580, 0.180423],
    [0.212671, 0.715160, 0.072169],
    [0.019334, 0.119193, 0.950227],
];
/// XYZ of white: D65.
const WHITE: Vector = [0.95047, 1.0, 1.08883];
/// Where the cube root goes over into a line, (6/29)^3, and that line.
const KNEE: f32 = 0.008_856_452;
const SLOPE: f32 = 7.787_037;
const OFFSET: f32 = 16.0 / 116.0;
/// Where sRGB's power goes over into a line.
const SRGB_KNEE: f32 = 0.003_130_8;

/// Converts pixels; made once.
#[derive(Clone, Debug)]
pub struct Lab {
    linear: [f32; 256],
    to: [[f32; 3]; 3],
    from: [[f32; 3]; 3],
}

impl Default for Lab {
    fn default() -> Lab {
        let linear = |v: usize| {
            let v = v as f64 / 255.0;
            if v > 0.04045 {
                ((v + 0.055) / 1.055).powf(2.4)
            } else {
                v / 12.92
            }
        };
        // White's XYZ is divided out in the matrix.
        let to: Matrix = std::array::from_fn(|i| TO_XYZ[i].map(|x| x / WHITE[i]));
        Lab {
            linear: std::array::from_fn(|v| linear(v) as f32),
            to: to.map(|row| row.map(|x| x as f32)),
            from: inverse(to).map(|row| row.map(|x| x as f32)),
        }
    }
}

impl Lab {
    /// L (0 to 100), a and b of up to [`BLOCK`] pixels; planes beyond their number are undefined.
    pub fn planes(&self, pixels: &[[u8; 3]], planes: &mut Planes) {
        let [p, q, s] = &mut *planes;
        for (i, [r, g, b]) in pixels.iter().enumerate() {
            p[i] = self.linear[usize::from(*r)];
            q[i] = self.linear[usize::from(*g)];
            s[i] = self.linear[usize::from(*b)];
        }
        wide(&self.to, planes, bend_block, bend_block_of_eight);
    }

    /// Grey levels, 0 to 255 and not rounded, of L, a and b; in place. What no screen can show is held at the nearest level.
    pub fn levels(&self, planes: &mut Planes) {
        wide(&self.from, planes, unbend_block, unbend_block_of_eight);
    }
}

/// Runs a loop in vectors of eight where the processor has them. The same bits as in vectors of four: no step is fused.
fn wide(
    matrix: &[[f32; 3]; 3],
    planes: &mut Planes,
    four: fn(&[[f32; 3]; 3], &mut Planes),
    eight: unsafe fn(&[[f32; 3]; 3], &mut Planes),
) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: both functions of eight ask for AVX2 and nothing else, and the processor has it.
        return unsafe { eight(matrix, planes) };
    }
    let _ = eight;
    four(matrix, planes);
}

#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
fn bend_block_of_eight(matrix: &[[f32; 3]; 3], planes: &mut Planes) {
    bend_block(matrix, planes);
}

#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
fn unbend_block_of_eight(matrix: &[[f32; 3]; 3], planes: &mut Planes) {
    unbend_block(matrix, planes);
}

#[inline(always)]
fn bend_block([to_x, to_y, to_z]: &[[f32; 3]; 3], [p, q, s]: &mut Planes) {
    for i in 0..BLOCK {
        let (r, g, b) = (p[i], q[i], s[i]);
        // By name and not by `map`: closures over arrays do not become vectors.
        let x = bend(to_x[0] * r + to_x[1] * g + to_x[2] * b);
        let y = bend(to_y[0] * r + to_y[1] * g + to_y[2] * b);
        let z = bend(to_z[0] * r + to_z[1] * g + to_z[2] * b);
        p[i] = 116.0 * y - 16.0;
        q[i] = 500.0 * (x - y);
        s[i] = 200.0 * (y - z);
    }
}

#[inline(always)]
fn unbend_block([to_r, to_g, to_b]: &[[f32; 3]; 3], [p, q, s]: &mut Planes) {
    for i in 0..BLOCK {
        let y = (p[i] + 16.0) * (1.0 / 116.0);
        let x = straighten(y + q[i] * (1.0 / 500.0));
        let z = straighten(y - s[i] * (1.0 / 200.0));
        let y = straighten(y);
        p[i] = encode(to_r[0] * x + to_r[1] * y + to_r[2] * z);
        q[i] = encode(to_g[0] * x + to_g[1] * y + to_g[2] * z);
        s[i] = encode(to_b[0] * x + to_b[1] * y + to_b[2] * z);
    }
}

#[inline(always)]
fn bend(t: f32) -> f32 {
    let root = cube_root(t);
    let line = SLOPE * t + OFFSET;
    if t > KNEE { root } else { line }
}

#[inline(always)]
fn straighten(f: f32) -> f32 {
    let line = (f - OFFSET) * (1.0 / SLOPE);
    if f > 6.0 / 29.0 { f * f * f } else { line }
}

#[inline(always)]
fn encode(linear: f32) -> f32 {
    let linear = linear.clamp(0.0, 1.0);
    let root = cube_root(linear);
    let curve = 1.055 * (root * root.sqrt().sqrt()) - 0.055;
    let line = 12.92 * linear;
    255.0 * if linear > SRGB_KNEE { curve } else { line }
}

/// Of a number from 1e-6 on; below it is of no use here and merely finite.
#[inline(always)]
fn cube_root(x: f32) -> f32 {
    // A third of the exponent gives a first guess within 4 %; each step of Halley's cubes the error.
    let guess = f32::from_bits(x.max(1e-6).to_bits() / 3 + 0x2a51_19f2);
    let step = |t: f32| {
        let cube = t * t * t;
        t * (cube + 2.0 * x) / (2.0 * cube + x)
    };
    step(step(guess))
}

fn inverse(m: Matrix) -> Matrix {
    use crate::vector::{cross, dot};
    let columns = [cross(m[1], m[2]), cross(m[2], m[0]), cross(m[0], m[1])];
    let determinant = dot(m[0], columns[0]);
    std::array::from_fn(|i| std::array::from_fn(|j| columns[j][i] / determinant))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In f64, with the library's powers.
    fn exact([r, g, b]: [u8; 3]) -> Vector {
        let linear = [r, g, b].map(|v| {
            let v = f64::from(v) / 255.0;
            if v > 0.04045 {
                ((v + 0.055) / 1.055).powf(2.4)
            } else {
                v / 12.92
            }
        });
        let f: Vector = std::array::from_fn(|i| {
            let t = (0..3).map(|j| TO_XYZ[i][j] * linear[j]).sum::<f64>() / WHITE[i];
            if t > (6.0f64 / 29.0).powi(3) {
                t.cbrt()
            } else {
                t * (29.0f64 / 6.0).powi(2) / 3.0 + 4.0 / 29.0
            }
        });
        [
            116.0 * f[1] - 16.0,
            500.0 * (f[0] - f[1]),
            200.0 * (f[1] - f[2]),
        ]
    }

    #[test]
    fn every_third_colour_is_that_of_f64_and_comes_back() {
        let lab = Lab::default();
        let mut planes = [[0f32; BLOCK]; 3];
        let (mut worst, mut back) = (0f64, 0f32);
        for r in (0..=255u8).step_by(3) {
            for g in (0..=255u8).step_by(3) {
                let pixels: Vec<[u8; 3]> = (0..=255u8).map(|b| [r, g, b]).collect();
                lab.planes(&pixels, &mut planes);
                for (i, pixel) in pixels.iter().enumerate() {
                    for (c, value) in exact(*pixel).iter().enumerate() {
                        worst = worst.max((f64::from(planes[c][i]) - value).abs());
                    }
                }
                lab.levels(&mut planes);
                for (i, pixel) in pixels.iter().enumerate() {
                    for c in 0..3 {
                        back = back.max((planes[c][i] - f32::from(pixel[c])).abs());
                    }
                }
            }
        }
        assert!(worst < 2e-4, "{worst} of L, a or b");
        assert!(back < 5e-3, "{back} grey levels");
    }

    #[test]
    fn white_is_white() {
        let lab = Lab::default();
        let mut planes = [[0f32; BLOCK]; 3];
        lab.planes(&[[255; 3]], &mut planes);
        assert!((planes[0][0] - 100.0).abs() < 1e-3, "{}", planes[0][0]);
        assert!(planes[1][0].abs() < 1e-2 && planes[2][0].abs() < 1e-2);
    }

    #[test]
    fn cube_roots_are_those_of_the_library() {
        for i in 1..100_000 {
            let x = i as f32 * 2e-5;
            assert!(
                (f64::from(cube_root(x)) / f64::from(x).cbrt() - 1.0).abs() < 3e-7,
                "{x}"
            );
        }
    }
}
