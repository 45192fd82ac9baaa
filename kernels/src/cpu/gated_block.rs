//! A block of (c)'s backward pass on the processor: some rows' dL/da, dL/dp and dL/dh, and the rows as the gradient of V and
//! U wants them.

use super::gate::{Row, admissible, backward, dot, logit_kept};
use super::gated::PackedHead;
use super::gated_arguments::Features;
use super::product::{Left, Order, PANEL, Pieces, Simd, TILE, ask, product, spread};
use crate::ROWS;
use crate::bags::Bags;
use crate::kernels::{Rule, flags};
use crate::view::Element;
use half::{bf16, f16};

/// From one panel of a block's rows to the next: 16 columns of all rows, side by side, so that dL/dp' h reads memory in
/// order, where rows would lie each on a page of its own; and 16 numbers more, so that what is at the same place of all
/// panels does not fall on the same cache sets.
pub(super) const PANEL_ROWS: usize = (ROWS + 1) * PANEL;

/// Bytes that memory gives at once.
const LINE: usize = 64;

/// What all blocks are given.
pub(super) struct Pass<'a> {
    pub bags: &'a Bags,
    /// Bag of each item's first member, by which a member finds its own.
    pub bag_of: Vec<u32>,
    pub rule: Rule,
    pub head: &'a PackedHead,
    pub features: Features<'a>,
    pub logits: &'a [f32],
    pub weights: &'a [f32],
    pub sums: &'a [f32],
    pub flags: &'a [u32],
    pub dz: &'a [f32],
    pub dw: Option<&'a [f32]>,
    /// Of each bag: the mean of dL/dw by the weights.
    pub means: Vec<f32>,
    pub tape: Option<&'a [f32]>,
    pub simd: Simd,
    pub d: usize,
}

/// A block's part of a chunk's memory, and its sums.
pub(super) struct Block<'a, T> {
    pub first: usize,
    pub count: usize,
    /// Its rows in panels, [`PANEL_ROWS`] apart.
    pub rows: &'a mut [f32],
    /// dL/dp, transposed: hidden columns by members, in tiles.
    pub dp: &'a mut [f32],
    pub sums: &'a mut [f32],
    /// dL/dh of the matrix rows `from..`, up to the next block's.
    pub features: Option<(usize, Vec<&'a mut [T]>)>,
}

/// A thread's memory.
pub(super) struct Scratch {
    row: Vec<f32>,
    /// All rows, where the hidden units are made of them.
    rows: Vec<f32>,
    dp: Vec<f32>,
    hidden: Vec<f32>,
    /// dL/dh through the head, where it is wanted.
    features: Vec<f32>,
}

impl Scratch {
    pub fn new(d: usize, columns: usize, kept: bool, wanted: bool) -> Scratch {
        let again = |numbers| vec![0.0; if kept { 0 } else { numbers }];
        Scratch {
            row: vec![0.0; d],
            rows: again(ROWS * spread(d)),
            dp: vec![0.0; ROWS * spread(columns)],
            hidden: again(ROWS * columns),
            features: vec![0.0; if wanted { ROWS * spread(d) } else { 0 }],
        }
    }
}

/// Where a member's dL/dh goes, and its part through the pool: w dz.
struct Out<'a, T> {
    w: f32,
    dz: &'a [f32],
    to: &'a mut [T],
}

impl<'p> Pass<'p> {
    /// dL/da of a member and the weight with which it entered the pool; `None` when it is refused.
    fn slope(&self, place: usize, bag: usize, row: &[f32]) -> Option<(f32, f32)> {
        let at = self.bags.row(place);
        let (a, w) = (self.logits[at], self.weights[at]);
        if !a.is_finite() || !admissible(self.simd, row) {
            return None;
        }
        let noticed = self.flags[bag];
        if noticed & (flags::UNIFORM | flags::EMPTY) != 0 {
            return Some((0.0, w));
        }
        let gradient = dot(self.simd, row, self.dz(bag)) + self.dw.map_or(0.0, |dw| dw[at]);
        let apart = gradient - self.means[bag];
        Some((self.rule.slope(a, w, self.sums[bag], apart), w))
    }

    fn dz(&self, bag: usize) -> &'p [f32] {
        &self.dz[bag * self.d..(bag + 1) * self.d]
    }

    pub fn run<T: Narrow>(&self, block: Block<'_, T>, scratch: &mut Scratch) {
        let (d, head, simd) = (self.d, self.head, self.simd);
        let (columns, stride, dp_stride) = (head.columns, spread(d), spread(head.columns));
        let rows = block.count;
        // A refused row's features may be no numbers: nothing of it may reach a product.
        let nothing = vec![0.0f32; d];
        let mut slopes = [(0.0f32, 0.0f32, 0usize); ROWS];
        for (i, slope) in slopes[..rows].iter_mut().enumerate() {
            let place = block.first + i;
            let bag = self.bag_of[place] as usize;
            let row = self.features.row::<T>(self.bags.row(place));
            let mut row = T::wide(row, &mut scratch.row);
            *slope = match self.slope(place, bag, row) {
                Some((da, w)) => (da, w, bag),
                None => {
                    row = &nothing;
                    (0.0, 0.0, bag)
                }
            };
            // The next row, and where it goes, a page a panel, are asked for while this one is put there.
            if i + 1 < rows {
                let next = self.features.row::<T>(self.bags.row(place + 1));
                (0..size_of_val(next))
                    .step_by(LINE)
                    .for_each(|at| ask(next, at));
                let place = (i + 1) * PANEL * size_of::<f32>();
                let panels = block.rows.chunks_exact(PANEL_ROWS);
                panels.for_each(|panel| ask(panel, place));
            }
            let panels = block.rows.chunks_exact_mut(PANEL_ROWS);
            for (piece, panel) in row.chunks(PANEL).zip(panels) {
                let to = &mut panel[i * PANEL..(i + 1) * PANEL];
                match (piece.first_chunk::<PANEL>(), to.first_chunk_mut::<PANEL>()) {
                    (Some(piece), Some(to)) => *to = *piece,
                    _ => {
                        to.fill(0.0);
                        to[..piece.len()].copy_from_slice(piece);
                    }
                }
            }
            if self.tape.is_none() {
                scratch.rows[i * stride..][..d].copy_from_slice(row);
            }
        }
        let left = |data, stride| Left {
            data,
            rows,
            order: Order::Rows(stride),
        };
        let hidden: &[f32] = match self.tape {
            Some(tape) => &tape[block.first * columns..(block.first + rows) * columns],
            None => {
                let hidden = &mut scratch.hidden[..rows * columns];
                let (left, right) = (left(&scratch.rows, stride), head.forward.right());
                product(simd, left, right, Pieces::ONE, hidden, columns, false);
                for hidden in hidden.chunks_exact_mut(columns.max(1)) {
                    logit_kept(simd, hidden, &head.bias, &head.weight, head.gated);
                }
                hidden
            }
        };
        let dp = &mut scratch.dp[..rows * dp_stride];
        let (bias, rest) = block.sums.split_at_mut(columns);
        let (weight, offset) = rest.split_at_mut(head.weight.len());
        for ((&(da, ..), hidden), dp) in slopes
            .iter()
            .zip(hidden.chunks_exact(columns.max(1)))
            .zip(dp.chunks_exact_mut(dp_stride))
        {
            // What a refused row left on a tape may be no number either.
            if da == 0.0 {
                dp.fill(0.0);
                continue;
            }
            backward(simd, hidden, da, &head.weight, head.gated, dp, bias, weight);
            offset[0] += da;
        }
        for (tile, packed) in block.dp.chunks_exact_mut(TILE * ROWS).enumerate() {
            let packed = packed.chunks_exact_mut(TILE);
            for (dp, packed) in dp.chunks_exact(dp_stride).zip(packed) {
                packed.copy_from_slice(&dp[tile * TILE..(tile + 1) * TILE]);
            }
        }
        let Some((from, features)) = block.features else {
            return;
        };
        let mut outs = Vec::with_capacity(rows);
        for (at, to) in (from..).zip(features) {
            let place = block.first + outs.len();
            if outs.len() == rows || self.bags.row(place) != at {
                // A masked row.
                to.fill(T::default());
                continue;
            }
            let (_, w, bag) = slopes[outs.len()];
            let dz = self.dz(bag);
            outs.push(Out { w, dz, to });
        }
        let right = head.backward.right();
        let width = spread(d);
        let dh = &mut scratch.features[..rows * width];
        let left = left(dp, dp_stride);
        product(simd, left, right, Pieces::ONE, dh, width, false);
        for (dh, Out { w, dz, to }) in dh.chunks_exact(width).zip(outs) {
            finish(simd, &dh[..d], w, dz, to);
        }
    }
}

/// Writes a row's dL/dh: what came through the head, `dh`, and what came through the pool, w dz.
fn finish<T: Narrow>(simd: Simd, dh: &[f32], w: f32, dz: &[f32], to: &mut [T]) {
    match simd {
        // SAFETY: `Simd::here` has seen that the processor has these instructions.
        #[cfg(target_arch = "x86_64")]
        Simd::Avx2 => unsafe { finish_avx2(dh, w, dz, to) },
        Simd::Portable => finish_loop(dh, w, dz, to),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
fn finish_avx2<T: Narrow>(dh: &[f32], w: f32, dz: &[f32], to: &mut [T]) {
    finish_loop(dh, w, dz, to);
}

#[inline(always)]
fn finish_loop<T: Narrow>(dh: &[f32], w: f32, dz: &[f32], to: &mut [T]) {
    for ((to, dh), dz) in to.iter_mut().zip(dh).zip(dz) {
        *to = T::narrow(w * dz + dh);
    }
}

/// A type of features, rounded to.
pub(super) trait Narrow: Element {
    fn narrow(x: f32) -> Self;

    /// A row as f32: itself, or widened into `to`.
    fn wide<'a>(row: &'a [Self], to: &'a mut [f32]) -> &'a [f32];
}

impl Narrow for f32 {
    #[inline(always)]
    fn narrow(x: f32) -> f32 {
        x
    }

    fn wide<'a>(row: &'a [f32], _: &'a mut [f32]) -> &'a [f32] {
        row
    }
}

impl Narrow for f16 {
    #[inline(always)]
    fn narrow(x: f32) -> f16 {
        f16::from_f32(x)
    }

    fn wide<'a>(row: &'a [f16], to: &'a mut [f32]) -> &'a [f32] {
        Row::F16(row).widen(to);
        to
    }
}

impl Narrow for bf16 {
    #[inline(always)]
    fn narrow(x: f32) -> bf16 {
        bf16::from_f32(x)
    }

    fn wide<'a>(row: &'a [bf16], to: &'a mut [f32]) -> &'a [f32] {
        Row::Bf16(row).widen(to);
        to
    }
}
