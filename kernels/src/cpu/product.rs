//! The matrix product of (c) on the processor: blocks of rows times a packed matrix, tile by tile in registers.
//!
//! A library's product would pack the head's weights again for each block of rows, or make all rows' hidden units before
//! the first is used; this one takes the weights packed once and blocks of any height. Every element of a result is one
//! sum over ascending k, whatever tile it falls into, so neither its neighbours nor the threads change its bits.

/// Columns of a panel, and of a tile.
pub(super) const PANEL: usize = 16;

/// Rows of a full tile: 6 x 16 sums take twelve of sixteen vector registers, enough to hide the latency of a
/// multiply-add.
pub(super) const TILE: usize = 6;

/// Numbers of a left operand that stay in the second-level cache (288 KiB) while the panels of the right one pass them.
const RESIDENT: usize = 72 * 1024;

/// n, or the next multiple of [`PANEL`].
pub(super) const fn padded(n: usize) -> usize {
    n.next_multiple_of(PANEL)
}

/// A row length whose rows do not fall on the same cache sets: a multiple of [`PANEL`] that is no power of two.
pub(super) const fn spread(n: usize) -> usize {
    let row = padded(n) + PANEL;
    if row.is_power_of_two() {
        return row + PANEL;
    }
    row
}

/// The right operand, `[k, columns]`: element (k, j) stands at `(j / 16) * panel + k * 16 + j % 16`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Right<'a> {
    pub data: &'a [f32],
    pub k: usize,
    pub columns: usize,
    pub panel: usize,
}

/// The left operand, `[rows, k]`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Left<'a> {
    pub data: &'a [f32],
    pub rows: usize,
    pub order: Order,
}

/// Operands that lie in several pieces, one behind the other along k, each of the right one's k steps: how many there are,
/// and from one to the next of the left and of the right operand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pieces {
    pub count: usize,
    pub left: usize,
    pub right: usize,
}

impl Pieces {
    /// Operands in one piece.
    pub const ONE: Pieces = Pieces {
        count: 1,
        left: 0,
        right: 0,
    };
}

/// Where element (i, k) of a left operand stands.
#[derive(Clone, Copy, Debug)]
pub(super) enum Order {
    /// At `i * stride + k`.
    Rows(usize),
    /// At `i / 6 * 6 * steps + k * 6 + i % 6`: for `steps` steps of k, the rows of a tile side by side.
    Tiles(usize),
}

/// Numbers of an operand of that many rows and steps in [`Order::Tiles`].
pub(super) const fn tiled(rows: usize, steps: usize) -> usize {
    rows.div_ceil(TILE) * TILE * steps
}

/// A matrix in panels: `[column / 16][k][16]`, zeros beyond the last column.
#[derive(Clone, Debug)]
pub(super) struct Panels {
    data: Vec<f32>,
    k: usize,
    columns: usize,
}

impl Panels {
    /// `[k, columns]` of `element(k, column)`.
    pub fn pack(k: usize, columns: usize, element: impl Fn(usize, usize) -> f32) -> Panels {
        let mut data = vec![0.0; padded(columns) * k];
        for (panel, data) in data.chunks_exact_mut((k * PANEL).max(1)).enumerate() {
            for (k, row) in data.chunks_exact_mut(PANEL).enumerate() {
                for (j, place) in row.iter_mut().enumerate() {
                    let column = panel * PANEL + j;
                    if column < columns {
                        *place = element(k, column);
                    }
                }
            }
        }
        Panels { data, k, columns }
    }

    /// As an operand.
    pub fn right(&self) -> Right<'_> {
        Right {
            data: &self.data,
            k: self.k,
            columns: padded(self.columns),
            panel: self.k * PANEL,
        }
    }
}

/// What the processor can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Simd {
    /// 8 numbers at once, fused multiply-add.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// What the compiler's target has.
    Portable,
}

impl Simd {
    /// Of this processor.
    pub fn here() -> Simd {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2")
            && std::arch::is_x86_feature_detected!("fma")
            && std::arch::is_x86_feature_detected!("f16c")
        {
            return Simd::Avx2;
        }
        Simd::Portable
    }

    /// What products that go this way have in common: their bits. Two ways that round otherwise have two names.
    pub fn name(self) -> &'static str {
        match self {
            #[cfg(target_arch = "x86_64")]
            Simd::Avx2 => "x86-64 avx2+fma",
            Simd::Portable => "portable",
        }
    }
}

/// Asks memory for the line of `data` that is `bytes` from its beginning; nothing waits for it.
#[inline(always)]
pub(super) fn ask<T>(data: &[T], bytes: usize) {
    let at = data.as_ptr().cast::<i8>().wrapping_add(bytes);
    // SAFETY: asking reads nothing, whatever the address is.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(at);
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// c (`[left.rows, right.columns]`, rows `c_row` apart) = left right, plus c where `add`.
pub(super) fn product(
    simd: Simd,
    left: Left<'_>,
    right: Right<'_>,
    pieces: Pieces,
    c: &mut [f32],
    c_row: usize,
    add: bool,
) {
    if left.rows == 0 || right.columns == 0 {
        return;
    }
    assert!(right.columns <= c_row && (left.rows - 1) * c_row + right.columns <= c.len());
    let c = c.as_mut_ptr();
    tiles(left, right, pieces, |row, column, tile| {
        // SAFETY: `tiles` gives tiles that lie inside the operands and the result, which the assertion holds inside c;
        // `simd` is what the processor has.
        unsafe { tile.run(simd, c.add(row * c_row + column), c_row, add) }
    });
}

/// Gives each tile of a product to `visit`, with its first row and column. A tile runs over all of k at once: what it costs
/// to begin and to end one is paid once, and a panel of the right operand streams from the second-level cache.
#[inline(always)]
fn tiles(
    left: Left<'_>,
    right: Right<'_>,
    pieces: Pieces,
    mut visit: impl FnMut(usize, usize, Tile),
) {
    let (rows, k, columns) = (left.rows, right.k, right.columns);
    assert!(columns.is_multiple_of(PANEL));
    if rows == 0 || columns == 0 {
        return;
    }
    // From one row of a tile to the next, from one step to the next.
    let (a_row, a_step) = match left.order {
        Order::Rows(stride) => (stride, 1),
        Order::Tiles(_) => (1, TILE),
    };
    let start = |row: usize| match left.order {
        Order::Rows(stride) => row * stride,
        Order::Tiles(steps) => row * steps,
    };
    if k > 0 && pieces.count > 0 {
        let last = pieces.count - 1;
        assert!(match left.order {
            Order::Rows(_) => last * pieces.left + start(rows - 1) + k <= left.data.len(),
            Order::Tiles(steps) =>
                k <= steps && last * pieces.left + tiled(rows, steps) <= left.data.len(),
        });
        let panel = (columns / PANEL - 1) * right.panel;
        assert!(last * pieces.right + panel + k * PANEL <= right.data.len());
    }

    // Where rows may be cut anywhere, tiles of one height, or one more: none so low that its sums wait for each other.
    let tiles = rows.div_ceil(TILE);
    let first = |tile: usize| match left.order {
        Order::Rows(_) => rows / tiles * tile + tile.min(rows % tiles),
        Order::Tiles(_) => rows.min(tile * TILE),
    };
    // As many tiles together as the second-level cache holds rows of the left operand.
    let groups = (rows * k * pieces.count).div_ceil(RESIDENT).clamp(1, tiles);
    for group in 0..groups {
        for panel in 0..columns / PANEL {
            for tile in group * tiles / groups..(group + 1) * tiles / groups {
                let row = first(tile);
                let tile = Tile {
                    a: left.data.as_ptr().wrapping_add(start(row)),
                    a_row,
                    a_step,
                    a_piece: pieces.left,
                    b: right.data.as_ptr().wrapping_add(panel * right.panel),
                    b_piece: pieces.right,
                    depth: k,
                    pieces: pieces.count,
                    height: first(tile + 1) - row,
                };
                visit(row, panel * PANEL, tile);
            }
        }
    }
}

/// Some rows of a left operand, and a panel of a right one.
#[derive(Clone, Copy)]
struct Tile {
    a: *const f32,
    a_row: usize,
    a_step: usize,
    a_piece: usize,
    b: *const f32,
    b_piece: usize,
    depth: usize,
    pieces: usize,
    height: usize,
}

impl Tile {
    /// c, rows `c_row` apart, = the product, plus c where `add`.
    ///
    /// # Safety
    /// `height` rows of a and c, `depth` steps of each piece and 16 columns lie inside the operands and the result; `simd` is
    /// the processor's.
    #[inline(always)]
    unsafe fn run(&self, simd: Simd, c: *mut f32, c_row: usize, add: bool) {
        macro_rules! by_height {
            ($run:ident, $tiled:literal) => {
                match self.height {
                    1 => self.$run::<1, $tiled>(c, c_row, add),
                    2 => self.$run::<2, $tiled>(c, c_row, add),
                    3 => self.$run::<3, $tiled>(c, c_row, add),
                    4 => self.$run::<4, $tiled>(c, c_row, add),
                    5 => self.$run::<5, $tiled>(c, c_row, add),
                    _ => self.$run::<6, $tiled>(c, c_row, add),
                }
            };
        }
        // SAFETY: the caller's.
        unsafe {
            match (simd, self.a_step == TILE) {
                #[cfg(target_arch = "x86_64")]
                (Simd::Avx2, true) => by_height!(avx2, true),
                #[cfg(target_arch = "x86_64")]
                (Simd::Avx2, false) => by_height!(avx2, false),
                (Simd::Portable, true) => by_height!(portable, true),
                (Simd::Portable, false) => by_height!(portable, false),
            }
        }
    }

    /// # Safety
    /// As [`Tile::run`] for `ROWS` rows.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn avx2<const ROWS: usize, const TILED: bool>(
        &self,
        c: *mut f32,
        c_row: usize,
        add: bool,
    ) {
        use std::arch::x86_64::{
            __m256, _MM_HINT_T0, _mm_prefetch, _mm256_add_ps, _mm256_broadcast_ss, _mm256_fmadd_ps,
            _mm256_loadu_ps, _mm256_setzero_ps, _mm256_storeu_ps,
        };
        // Steps in one turn of the loop: the pointers' additions, each of which waits for the last, would else take as
        // long as the products.
        const TURN: usize = 4;
        let (a_row, a_step) = if TILED { (1, TILE) } else { (self.a_row, 1) };
        let step = |a: *const f32, b: *const f32, sums: &mut [[__m256; 2]; ROWS]| {
            // SAFETY: 16 columns at b and ROWS rows at a lie inside the operands, the caller says.
            unsafe {
                let low = _mm256_loadu_ps(b);
                let high = _mm256_loadu_ps(b.add(8));
                for (i, sums) in sums.iter_mut().enumerate() {
                    let x = _mm256_broadcast_ss(&*a.add(i * a_row));
                    sums[0] = _mm256_fmadd_ps(x, low, sums[0]);
                    sums[1] = _mm256_fmadd_ps(x, high, sums[1]);
                }
            }
        };
        // The result's rows are asked for while the sums run; at their end they would be waited for.
        for i in 0..ROWS {
            _mm_prefetch::<_MM_HINT_T0>(c.wrapping_add(i * c_row).cast());
        }
        let mut sums = [[_mm256_setzero_ps(); 2]; ROWS];
        for piece in 0..self.pieces {
            let mut a = self.a.wrapping_add(piece * self.a_piece);
            let mut b = self.b.wrapping_add(piece * self.b_piece);
            for _ in 0..self.depth / TURN {
                for k in 0..TURN {
                    step(
                        a.wrapping_add(k * a_step),
                        b.wrapping_add(k * PANEL),
                        &mut sums,
                    );
                }
                a = a.wrapping_add(TURN * a_step);
                b = b.wrapping_add(TURN * PANEL);
            }
            for k in 0..self.depth % TURN {
                step(
                    a.wrapping_add(k * a_step),
                    b.wrapping_add(k * PANEL),
                    &mut sums,
                );
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            // SAFETY: ROWS rows of 16 columns at c lie inside the result.
            unsafe {
                let c = c.add(i * c_row);
                for (half, &sum) in sums.iter().enumerate() {
                    let c = c.add(8 * half);
                    let sum = if add {
                        _mm256_add_ps(_mm256_loadu_ps(c), sum)
                    } else {
                        sum
                    };
                    _mm256_storeu_ps(c, sum);
                }
            }
        }
    }

    /// # Safety
    /// As [`Tile::run`] for `ROWS` rows.
    unsafe fn portable<const ROWS: usize, const TILED: bool>(
        &self,
        c: *mut f32,
        c_row: usize,
        add: bool,
    ) {
        let (a_row, a_step) = if TILED { (1, TILE) } else { (self.a_row, 1) };
        let mut sums = [[0.0f32; PANEL]; ROWS];
        for piece in 0..self.pieces {
            let a = self.a.wrapping_add(piece * self.a_piece);
            let b = self.b.wrapping_add(piece * self.b_piece);
            for k in 0..self.depth {
                // SAFETY: 16 columns at this step lie inside the operand.
                let b = unsafe { &*b.add(k * PANEL).cast::<[f32; PANEL]>() };
                for (i, sums) in sums.iter_mut().enumerate() {
                    // SAFETY: this row at this step lies inside the operand.
                    let x = unsafe { *a.add(i * a_row + k * a_step) };
                    for (sum, &b) in sums.iter_mut().zip(b) {
                        *sum += x * b;
                    }
                }
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            // SAFETY: ROWS rows of 16 columns at c lie inside the result.
            let c = unsafe { &mut *c.add(i * c_row).cast::<[f32; PANEL]>() };
            for (c, &sum) in c.iter_mut().zip(sums) {
                *c = if add { *c + sum } else { sum };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Small whole numbers, whose sums have no rounding.
    fn value(k: usize) -> f32 {
        ((k * 2_654_435_761) >> 7) as f32 % 8.0 - 3.0
    }

    /// Rows, steps a piece and panels, with gaps between the pieces that are no numbers.
    fn holds(simd: Simd, rows: usize, k: usize, panels: usize, pieces: usize, in_tiles: bool) {
        let order = if in_tiles {
            Order::Tiles(k)
        } else {
            Order::Rows(k + 3)
        };
        let size = if in_tiles {
            tiled(rows, k)
        } else {
            rows * (k + 3)
        };
        let (left_piece, right_piece) = (size + 5, panels * (k + 1) * PANEL + 7);
        let mut left = vec![f32::NAN; pieces * left_piece];
        let mut right = vec![f32::NAN; pieces * right_piece];
        let columns = panels * PANEL;
        let mut wanted = vec![0.0f32; rows * columns];
        for piece in 0..pieces {
            for step in 0..k {
                let a = |i: usize| value(i * 131 + step * 17 + piece);
                let b = |j: usize| value(j * 37 + step * 101 + piece * 7);
                for i in 0..rows {
                    let at = match order {
                        Order::Rows(stride) => i * stride + step,
                        Order::Tiles(steps) => i / TILE * TILE * steps + step * TILE + i % TILE,
                    };
                    left[piece * left_piece + at] = a(i);
                    for j in 0..columns {
                        wanted[i * columns + j] += a(i) * b(j);
                    }
                }
                for j in 0..columns {
                    let at = j / PANEL * (k + 1) * PANEL + step * PANEL + j % PANEL;
                    right[piece * right_piece + at] = b(j);
                }
            }
        }
        let left = Left {
            data: &left,
            rows,
            order,
        };
        let right = Right {
            data: &right,
            k,
            columns,
            panel: (k + 1) * PANEL,
        };
        let pieces = Pieces {
            count: pieces,
            left: left_piece,
            right: right_piece,
        };
        let c_row = columns + 2;
        let mut c = vec![f32::NAN; rows * c_row];
        product(simd, left, right, pieces, &mut c, c_row, false);
        product(simd, left, right, pieces, &mut c, c_row, true);
        for (i, c) in c.chunks_exact(c_row).enumerate() {
            for (j, &got) in c.iter().enumerate() {
                if j < columns {
                    assert_eq!(got, 2.0 * wanted[i * columns + j], "{i}, {j}");
                } else {
                    assert!(got.is_nan(), "written beyond the columns");
                }
            }
        }
    }

    #[test]
    fn a_product_is_the_sum_of_its_terms_whatever_its_height_depth_pieces_and_order() {
        for simd in [Simd::here(), Simd::Portable] {
            for (rows, k, panels, pieces) in [
                (1, 1, 1, 1),
                (5, 0, 1, 1),
                (6, 7, 2, 1),
                (13, 128, 3, 2),
                (128, 33, 2, 8),
                // Its left operand is cut into groups.
                (150, 600, 1, 3),
            ] {
                holds(simd, rows, k, panels, pieces, false);
                holds(simd, rows, k, panels, pieces, true);
            }
        }
    }
}
