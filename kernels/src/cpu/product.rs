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

/// Steps of k between two visits of a tile: a panel of so many rows (16 KiB) stays in the first-level cache while all
/// rows of a block pass it.
const DEPTH: usize = 256;

/// Numbers of a left operand that stays in the second-level cache (288 KiB).
const RESIDENT: usize = 72 * 1024;

/// n, or the next multiple of [`PANEL`].
pub(super) const fn padded(n: usize) -> usize {
    n.next_multiple_of(PANEL)
}

/// A row length whose rows do not fall on the same cache sets: a multiple of [`PANEL`] that is no power of two.
pub(super) const fn spread(n: usize) -> usize {
    padded(n) + PANEL
}

/// The right operand, `[k, columns]`: element (k, j) stands at `(j / 16) * panel + k * step + j % 16`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Right<'a> {
    pub data: &'a [f32],
    pub k: usize,
    pub columns: usize,
    pub panel: usize,
    pub step: usize,
}

/// The left operand, `[rows, k]`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Left<'a> {
    pub data: &'a [f32],
    pub rows: usize,
    pub order: Order,
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
            step: PANEL,
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

/// c (`[left.rows, right.columns]`, rows `c_row` apart) = left right, plus c where `add`.
pub(super) fn product(
    simd: Simd,
    left: Left<'_>,
    right: Right<'_>,
    c: &mut [f32],
    c_row: usize,
    add: bool,
) {
    let (rows, k, columns) = (left.rows, right.k, right.columns);
    if rows == 0 || columns == 0 {
        return;
    }
    assert!(columns.is_multiple_of(PANEL) && columns <= c_row);
    assert!((rows - 1) * c_row + columns <= c.len());
    if k == 0 {
        if !add {
            (0..rows).for_each(|i| c[i * c_row..i * c_row + columns].fill(0.0));
        }
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
    let last = start(rows - 1) + (k - 1) * a_step;
    assert!(match left.order {
        Order::Rows(_) => last < left.data.len(),
        Order::Tiles(steps) => k <= steps && tiled(rows, steps) <= left.data.len(),
    });
    let last_panel = (columns / PANEL - 1) * right.panel;
    assert!(last_panel + (k - 1) * right.step + PANEL <= right.data.len());

    // Where rows may be cut anywhere, tiles of one height, or one more: none so low that its sums wait for each other.
    let tiles = rows.div_ceil(TILE);
    let height = |tile: usize| match left.order {
        Order::Rows(_) => rows / tiles + usize::from(tile < rows % tiles),
        Order::Tiles(_) => TILE.min(rows - tile * TILE),
    };
    // A left operand that stays in the second-level cache meets a panel's whole depth at once, and the panel's results are
    // done; a greater one goes by in slices.
    let (panels, depths) = (columns / PANEL, k.div_ceil(DEPTH));
    let whole = rows * k <= RESIDENT;
    for visit in 0..panels * depths {
        let (panel, from) = if whole {
            (visit / depths, visit % depths * DEPTH)
        } else {
            (visit % panels, visit / panels * DEPTH)
        };
        let depth = DEPTH.min(k - from);
        {
            let mut row = 0;
            for tile in 0..tiles {
                let height = height(tile);
                let tile = Tile {
                    // SAFETY: the assertions above hold the last element of each operand inside its slice.
                    a: unsafe { left.data.as_ptr().add(start(row) + from * a_step) },
                    a_row,
                    // SAFETY: as above.
                    b: unsafe {
                        (right.data.as_ptr()).add(panel * right.panel + from * right.step)
                    },
                    b_step: right.step,
                    // SAFETY: as above.
                    c: unsafe { c.as_mut_ptr().add(row * c_row + panel * PANEL) },
                    c_row,
                    depth,
                    add: add || from > 0,
                };
                // SAFETY: rows row..row + height, k from..from + depth and this panel lie inside the operands, and `simd`
                // is what the processor has.
                unsafe {
                    match left.order {
                        Order::Rows(_) => tile.run::<false>(simd, height),
                        Order::Tiles(_) => tile.run::<true>(simd, height),
                    }
                }
                row += height;
            }
        }
    }
}

/// One tile over a stretch of k.
#[derive(Clone, Copy)]
struct Tile {
    a: *const f32,
    a_row: usize,
    b: *const f32,
    b_step: usize,
    c: *mut f32,
    c_row: usize,
    depth: usize,
    add: bool,
}

impl Tile {
    /// # Safety
    /// `height` rows of a and c, `depth` steps and 16 columns lie inside the operands; `simd` is the processor's.
    #[inline(always)]
    unsafe fn run<const TILED: bool>(self, simd: Simd, height: usize) {
        macro_rules! by_height {
            ($run:ident) => {
                match height {
                    1 => self.$run::<1, TILED>(),
                    2 => self.$run::<2, TILED>(),
                    3 => self.$run::<3, TILED>(),
                    4 => self.$run::<4, TILED>(),
                    5 => self.$run::<5, TILED>(),
                    _ => self.$run::<6, TILED>(),
                }
            };
        }
        // SAFETY: the caller's.
        unsafe {
            match simd {
                #[cfg(target_arch = "x86_64")]
                Simd::Avx2 => by_height!(avx2),
                Simd::Portable => by_height!(portable),
            }
        }
    }

    /// # Safety
    /// As [`Tile::run`] for `ROWS` rows.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn avx2<const ROWS: usize, const TILED: bool>(self) {
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
            _mm_prefetch::<_MM_HINT_T0>(self.c.wrapping_add(i * self.c_row).cast());
        }
        let mut sums = [[_mm256_setzero_ps(); 2]; ROWS];
        let (mut a, mut b) = (self.a, self.b);
        for _ in 0..self.depth / TURN {
            for k in 0..TURN {
                step(
                    a.wrapping_add(k * a_step),
                    b.wrapping_add(k * self.b_step),
                    &mut sums,
                );
            }
            a = a.wrapping_add(TURN * a_step);
            b = b.wrapping_add(TURN * self.b_step);
        }
        for k in 0..self.depth % TURN {
            step(
                a.wrapping_add(k * a_step),
                b.wrapping_add(k * self.b_step),
                &mut sums,
            );
        }
        for (i, sums) in sums.iter().enumerate() {
            // SAFETY: ROWS rows of 16 columns at c lie inside the result.
            unsafe {
                let c = self.c.add(i * self.c_row);
                for (half, &sum) in sums.iter().enumerate() {
                    let c = c.add(8 * half);
                    let sum = if self.add {
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
    unsafe fn portable<const ROWS: usize, const TILED: bool>(self) {
        let (a_row, a_step) = if TILED { (1, TILE) } else { (self.a_row, 1) };
        let mut sums = [[0.0f32; PANEL]; ROWS];
        for k in 0..self.depth {
            // SAFETY: 16 columns at this step lie inside the operand.
            let b = unsafe { &*self.b.add(k * self.b_step).cast::<[f32; PANEL]>() };
            for (i, sums) in sums.iter_mut().enumerate() {
                // SAFETY: this row at this step lies inside the operand.
                let x = unsafe { *self.a.add(i * a_row + k * a_step) };
                for (sum, &b) in sums.iter_mut().zip(b) {
                    *sum += x * b;
                }
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            // SAFETY: ROWS rows of 16 columns at c lie inside the result.
            let c = unsafe { &mut *self.c.add(i * self.c_row).cast::<[f32; PANEL]>() };
            for (c, &sum) in c.iter_mut().zip(sums) {
                *c = if self.add { *c + sum } else { sum };
            }
        }
    }
}
