//! Some pixels of a tile, always the same ones.

/// `most` pixels of a tile, or all of fewer; 0 means all.
///
/// Pixel `i` of the sample is pixel `i * step mod n` of the tile, with a step near the golden section of `n` that has no common
/// divisor with it: spread evenly over rows and columns, never twice the same, and a function of the tile's size alone. So a
/// slide's statistics depend neither on the order of its tiles nor on how many threads there are.
pub fn sample(pixels: &[u8], most: usize) -> Vec<u8> {
    let pixels = pixels.as_chunks::<3>().0;
    let n = pixels.len();
    if most == 0 || n <= most {
        return pixels.as_flattened().to_vec();
    }
    let step = step(n);
    let mut taken = Vec::with_capacity(3 * most);
    let mut at = 0;
    for _ in 0..most {
        taken.extend(pixels[at]);
        at = (at + step) % n;
    }
    taken
}

fn step(n: usize) -> usize {
    let golden = (n as f64 * 0.618_033_988_749_895) as usize;
    (golden.max(1)..n)
        .find(|step| divisor(*step, n) == 1)
        .unwrap_or(1)
}

fn divisor(mut a: usize, mut b: usize) -> usize {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_pixel_comes_twice_and_rows_and_columns_are_met_alike() {
        let side = 256;
        let pixels: Vec<u8> = (0..side * side)
            .flat_map(|i| [(i % side) as u8, (i / side) as u8, 7])
            .collect();
        let taken = sample(&pixels, 1024);
        let (mut columns, mut rows) = ([0u32; 16], [0u32; 16]);
        let mut seen = std::collections::BTreeSet::new();
        for [x, y, _] in taken.as_chunks::<3>().0 {
            assert!(seen.insert((*x, *y)));
            columns[usize::from(x / 16)] += 1;
            rows[usize::from(y / 16)] += 1;
        }
        assert_eq!(seen.len(), 1024);
        assert!(
            columns
                .iter()
                .chain(&rows)
                .all(|count| (48..=80).contains(count)),
            "{columns:?} {rows:?}"
        );
    }

    #[test]
    fn few_pixels_are_all_taken() {
        let pixels: Vec<u8> = (0..30).collect();
        assert_eq!(sample(&pixels, 10), pixels);
        assert_eq!(sample(&pixels, 0), pixels);
        assert_eq!(sample(&pixels, 4).len(), 12);
        assert_eq!(sample(&[], 4), Vec::<u8>::new());
    }
}
