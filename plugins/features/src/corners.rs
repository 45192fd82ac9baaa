//! Where the rows of a slide lie.

/// Side of a tile where nothing says it: of a slide with one place.
pub const SIDE: f64 = 256.0;

/// Corners that the engine can name, level-0 px, along both axes.
pub const REACH: std::ops::RangeInclusive<i64> = -(1 << 20)..=(1 << 24) - 2 - (1 << 20);

/// Where the rows of a slide lie.
#[derive(Clone, Debug, PartialEq)]
pub struct Corners {
    /// Left and top edge of each row's tile, level-0 px, in the order of the file.
    pub at: Vec<(i64, i64)>,
    /// Row of each corner, sorted by corner.
    rows: Vec<u32>,
    /// Side of a tile, level-0 px.
    pub side: f64,
    /// Right and lower edge of the lot, level-0 px.
    pub extent: (u64, u64),
}

impl Corners {
    /// Rows whose tiles' corners are `at`; `side` is that of a tile where somebody says it, else it is the smallest distance of two
    /// corners.
    ///
    /// # Errors
    /// When a corner lies where no slide reaches, or two are the same.
    pub fn new(at: Vec<(i64, i64)>, side: Option<f64>) -> Result<Corners, String> {
        let side = side
            .or_else(|| smallest_distance(&at).map(|distance| distance as f64))
            .unwrap_or(SIDE);
        let mut extent = (0, 0);
        for (row, (x, y)) in at.iter().enumerate() {
            if !REACH.contains(x) || !REACH.contains(y) {
                return Err(format!(
                    "row {row} lies at ({x}, {y}), and corners are between {} and {} px",
                    REACH.start(),
                    REACH.end()
                ));
            }
            let end = |corner: i64| (corner as f64 + side).ceil().max(0.0) as u64;
            extent = (end(*x).max(extent.0), end(*y).max(extent.1));
        }
        let count = u32::try_from(at.len()).map_err(|_| format!("it has {} rows", at.len()))?;
        let mut rows: Vec<u32> = (0..count).collect();
        rows.sort_unstable_by_key(|row| at[*row as usize]);
        let twice = rows
            .windows(2)
            .find(|pair| at[pair[0] as usize] == at[pair[1] as usize]);
        if let Some(pair) = twice {
            let (x, y) = at[pair[0] as usize];
            return Err(format!(
                "the rows {} and {} both lie at ({x}, {y})",
                pair[0].min(pair[1]),
                pair[0].max(pair[1])
            ));
        }
        Ok(Corners {
            at,
            rows,
            side,
            extent,
        })
    }

    /// Rows without places, side by side in a square.
    ///
    /// # Errors
    /// As of `new`.
    pub fn square(count: usize, side: Option<f64>) -> Result<Corners, String> {
        let side = side.unwrap_or(SIDE);
        let columns = (count as f64).sqrt().ceil().max(1.0) as usize;
        let step = side.round().max(1.0) as i64;
        let at = |row: usize| ((row % columns) as i64 * step, (row / columns) as i64 * step);
        Corners::new((0..count).map(at).collect(), Some(side))
    }

    /// The row whose tile's corner this is.
    pub fn row(&self, corner: (i64, i64)) -> Option<u32> {
        self.rows
            .binary_search_by_key(&corner, |row| self.at[*row as usize])
            .ok()
            .map(|place| self.rows[place])
    }
}

/// The smallest distance between two different numbers of one axis.
pub fn smallest_distance(at: &[(i64, i64)]) -> Option<u64> {
    let axis = |of: fn(&(i64, i64)) -> i64| {
        let mut values: Vec<i64> = at.iter().map(of).collect();
        values.sort_unstable();
        values.dedup();
        values
            .windows(2)
            .map(|pair| pair[1].abs_diff(pair[0]))
            .min()
    };
    let (x, y) = (axis(|corner| corner.0), axis(|corner| corner.1));
    x.into_iter().chain(y).min()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_side_of_a_tile_is_the_smallest_distance_when_nobody_says_it() {
        let at = vec![(100, 0), (612, 512), (356, 768)];
        assert_eq!(Corners::new(at.clone(), None).unwrap().side, 256.0);
        assert_eq!(Corners::new(at, Some(224.0)).unwrap().side, 224.0);
        assert_eq!(Corners::new(vec![(7, 7)], None).unwrap().side, SIDE);
    }

    #[test]
    fn rows_without_places_are_laid_out_in_a_square() {
        let corners = Corners::square(5, Some(10.0)).unwrap();
        assert_eq!(corners.at, [(0, 0), (10, 0), (20, 0), (0, 10), (10, 10)]);
        assert_eq!(corners.extent, (30, 20));
        assert_eq!(Corners::square(0, None).unwrap().at, []);
    }

    #[test]
    fn two_rows_at_one_place_and_places_out_of_reach_are_refused_by_their_numbers() {
        let what = Corners::new(vec![(5, 6), (0, 0), (5, 6)], None).unwrap_err();
        assert_eq!(what, "the rows 0 and 2 both lie at (5, 6)");
        let what = Corners::new(vec![(0, 0), (1 << 40, 0)], None).unwrap_err();
        assert!(what.contains("row 1 lies at (1099511627776, 0)"), "{what}");
    }

    proptest! {
        #[test]
        fn each_corner_leads_to_its_row(places in prop::collection::hash_set((-500_i64..500, -500_i64..500), 0..60)) {
            let at: Vec<_> = places.into_iter().collect();
            let corners = Corners::new(at.clone(), None).unwrap();
            for (row, corner) in at.iter().enumerate() {
                prop_assert_eq!(corners.row(*corner), Some(row as u32));
            }
            prop_assert_eq!(corners.row((1000, 1000)), None);
        }
    }
}
