//! Means over areas: each output pixel is the mean of what lies below it, weighted by how much of each source pixel lies there.
//!
//! Separable, rows first, f32 in a fixed order, so the same pixels give the same bytes on every thread. fast_image_resize's box
//! filter gives every source pixel whose centre lies inside the same weight, which shifts edges by up to half a pixel where the
//! factor is not a whole number; so the loops are weir's own. Whole factors go through integers.

/// Which source pixels make up each output pixel along one axis.
pub(crate) struct Axis {
    /// First source pixel and the range of `weights`, for each output pixel.
    taps: Vec<(i64, usize, usize)>,
    weights: Vec<f32>,
}

impl Axis {
    /// `n` output pixels, the first beginning at `origin`, each `scale` source pixels wide, over an image of `side` pixels.
    ///
    /// A `scale` below 1 interpolates linearly between the centres of source pixels, the outermost being continued to the edge.
    pub(crate) fn new(origin: f64, scale: f64, n: usize, side: i64) -> Self {
        let mut axis = Axis {
            taps: Vec::with_capacity(n),
            weights: Vec::new(),
        };
        for i in 0..n {
            let begin = origin + i as f64 * scale;
            let from = axis.weights.len();
            let first = if scale >= 1.0 {
                let end = origin + (i + 1) as f64 * scale;
                // A sliver of a thousandth of a pixel is rounding, not picture.
                let (first, last) = ((begin + 1e-3).floor(), (end - 1e-3).ceil());
                let total = end.min(last) - begin.max(first);
                let mut at = first;
                while at < last {
                    let covered = end.min(at + 1.0) - begin.max(at);
                    axis.weights.push((covered / total) as f32);
                    at += 1.0;
                }
                first as i64
            } else {
                let centre = begin + scale / 2.0 - 0.5;
                let inside = centre >= -0.5 && centre <= side as f64 - 0.5;
                let centre = if inside {
                    centre.clamp(0.0, (side - 1).max(0) as f64)
                } else {
                    centre
                };
                let first = centre.floor();
                let part = (centre - first) as f32;
                if part == 0.0 || (inside && first as i64 + 1 >= side) {
                    axis.weights.push(1.0);
                } else {
                    axis.weights.extend_from_slice(&[1.0 - part, part]);
                }
                first as i64
            };
            axis.taps.push((first, from, axis.weights.len()));
        }
        axis
    }

    /// First and one past the last source pixel of output pixels `from..to`.
    pub(crate) fn span(&self) -> (i64, i64) {
        let first = self.taps.first().map_or(0, |tap| tap.0);
        let last = self
            .taps
            .last()
            .map_or(0, |tap| tap.0 + (tap.2 - tap.1) as i64);
        (first, last)
    }

    /// Output pixels that source pixels `from..to` have a part in.
    pub(crate) fn touched(&self, from: i64, to: i64) -> std::ops::Range<usize> {
        let begin = self
            .taps
            .partition_point(|tap| tap.0 + (tap.2 - tap.1) as i64 <= from);
        let end = self.taps.partition_point(|tap| tap.0 < to);
        begin..end.max(begin)
    }

    /// The source pixels of output pixel `i`, from the first on, with their weights.
    pub(crate) fn taps(&self, i: usize) -> (i64, &[f32]) {
        let (first, from, to) = self.taps[i];
        (first, &self.weights[from..to])
    }

    /// How much of output pixel `i` lies on source pixels `0..side`.
    pub(crate) fn inside(&self, i: usize, side: i64) -> f32 {
        let (first, weights) = self.taps(i);
        weights
            .iter()
            .enumerate()
            .filter(|(k, _)| (0..side).contains(&(first + *k as i64)))
            .map(|(_, weight)| weight)
            .sum()
    }
}

/// Resamples a window of interleaved RGB, `window_width` px wide, whose top-left pixel is the first of both axes' spans.
pub(crate) fn area(
    window: &[u8],
    window_width: usize,
    x: &Axis,
    y: &Axis,
    line: &mut Vec<f32>,
    into: &mut [u8],
) {
    let (x0, y0) = (x.span().0, y.span().0);
    let pitch = window_width * 3;
    let width = x.taps.len();
    line.clear();
    line.resize(pitch, 0.0);
    for (row, out) in into.chunks_exact_mut(width * 3).enumerate() {
        let (first, weights) = y.taps(row);
        let mut at = (first - y0) as usize * pitch;
        for (k, weight) in weights.iter().enumerate() {
            let source = &window[at..at + pitch];
            if k == 0 {
                for (sum, value) in line.iter_mut().zip(source) {
                    *sum = weight * *value as f32;
                }
            } else {
                for (sum, value) in line.iter_mut().zip(source) {
                    *sum += weight * *value as f32;
                }
            }
            at += pitch;
        }
        let pixels = line.as_chunks::<3>().0;
        for (column, rgb) in out.as_chunks_mut::<3>().0.iter_mut().enumerate() {
            let (first, weights) = x.taps(column);
            let from = (first - x0) as usize;
            let (mut r, mut g, mut b) = (0.5f32, 0.5f32, 0.5f32);
            for (pixel, weight) in pixels[from..from + weights.len()].iter().zip(weights) {
                r += weight * pixel[0];
                g += weight * pixel[1];
                b += weight * pixel[2];
            }
            *rgb = [r as u8, g as u8, b as u8];
        }
    }
}

/// Means of `factor` x `factor` px of interleaved RGB, `width` output px a row; halves round up.
pub(crate) fn whole(
    window: &[u8],
    window_width: usize,
    factor: usize,
    width: usize,
    line: &mut Vec<u16>,
    into: &mut [u8],
) {
    let pitch = window_width * 3;
    let used = width * factor * 3;
    line.clear();
    line.resize(used, 0);
    for (row, out) in into.chunks_exact_mut(width * 3).enumerate() {
        let from = row * factor * pitch;
        if factor == 2 {
            let (above, below) = (
                &window[from..from + used],
                &window[from + pitch..from + pitch + used],
            );
            for ((sum, a), b) in line.iter_mut().zip(above).zip(below) {
                *sum = *a as u16 + *b as u16;
            }
            for (rgb, four) in out
                .as_chunks_mut::<3>()
                .0
                .iter_mut()
                .zip(line.as_chunks::<6>().0)
            {
                *rgb = [
                    ((four[0] + four[3] + 2) >> 2) as u8,
                    ((four[1] + four[4] + 2) >> 2) as u8,
                    ((four[2] + four[5] + 2) >> 2) as u8,
                ];
            }
            continue;
        }
        line.fill(0);
        for k in 0..factor {
            let source = &window[from + k * pitch..from + k * pitch + used];
            for (sum, value) in line.iter_mut().zip(source) {
                *sum += *value as u16;
            }
        }
        let count = (factor * factor) as u32;
        let share = 1.0 / count as f32;
        for (rgb, many) in out
            .as_chunks_mut::<3>()
            .0
            .iter_mut()
            .zip(line.chunks_exact(factor * 3))
        {
            let mut sums = [0u32; 3];
            for pixel in many.as_chunks::<3>().0 {
                for (sum, value) in sums.iter_mut().zip(pixel) {
                    *sum += *value as u32;
                }
            }
            *rgb = sums.map(|sum| (sum as f32 * share + 0.5) as u8);
        }
    }
}

/// The greatest factor of [`whole`]: a column of 255s must fit into 16 bits.
pub(crate) const MOST_WHOLE: f64 = 256.0;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn resample(window: &[u8], side: usize, origin: f64, scale: f64, n: usize) -> Vec<u8> {
        let axis = Axis::new(origin, scale, n, side as i64);
        let mut out = vec![0; n * n * 3];
        let (x0, x1) = axis.span();
        let cut: Vec<u8> = (x0..x1)
            .flat_map(|y| (x0..x1).flat_map(move |x| (0..3).map(move |c| (x, y, c))))
            .map(|(x, y, c)| window[(y as usize * side + x as usize) * 3 + c])
            .collect();
        area(
            &cut,
            (x1 - x0) as usize,
            &axis,
            &axis,
            &mut Vec::new(),
            &mut out,
        );
        out
    }

    proptest! {
        #[test]
        fn the_mean_is_kept_and_weights_sum_to_one(
            pixels in prop::collection::vec(any::<u8>(), 40 * 40 * 3),
            n in 1usize..30,
        ) {
            let scale = 40.0 / n as f64;
            let out = resample(&pixels, 40, 0.0, scale, n);
            let mean = |v: &[u8]| v.iter().map(|b| *b as f64).sum::<f64>() / v.len() as f64;
            prop_assert!((mean(&out) - mean(&pixels)).abs() < 0.51);
            let axis = Axis::new(0.3, scale, n, 40);
            for i in 0..n {
                let sum: f32 = axis.taps(i).1.iter().sum();
                prop_assert!((sum - 1.0).abs() < 1e-5);
            }
        }

        #[test]
        fn whole_factors_agree_with_weights(
            pixels in prop::collection::vec(any::<u8>(), 48 * 48 * 3),
            factor in prop::sample::select(vec![2usize, 3, 4, 6, 8]),
        ) {
            let n = 48 / factor;
            let mut out = vec![0; n * n * 3];
            whole(&pixels, 48, factor, n, &mut Vec::new(), &mut out);
            let other = resample(&pixels, 48, 0.0, factor as f64, n);
            for (a, b) in out.iter().zip(&other) {
                prop_assert!(a.abs_diff(*b) <= 1);
            }
        }

        #[test]
        fn an_even_colour_stays_even(value: u8, scale in 0.2f64..9.0, origin in 0.0f64..3.0) {
            let n = ((60.0 - origin) / scale) as usize;
            prop_assume!(n > 0);
            let out = resample(&vec![value; 60 * 60 * 3], 60, origin, scale, n.min(20));
            prop_assert!(out.iter().all(|b| b.abs_diff(value) <= 1));
        }
    }

    #[test]
    fn half_a_pixel_counts_half() {
        // 3 source pixels to 2: each takes one and a half.
        let axis = Axis::new(0.0, 1.5, 2, 3);
        let close =
            |got: &[f32], want: [f32; 2]| got.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-6);
        assert!(close(axis.taps(0).1, [2.0 / 3.0, 1.0 / 3.0]));
        assert_eq!(axis.taps(1).0, 1);
        assert!(close(axis.taps(1).1, [1.0 / 3.0, 2.0 / 3.0]));
    }
}
