//! (a) on a device, and the passes over a bag that (b) makes too.
//!
//! (a) is (b) of vectors without a component. A bag in which a member is refused is passed again without it, one without a sum
//! with the numerator 1; the device sees to that by itself, so a call with everything on the device is a memset and three
//! launches (four for softmax) and waits for nothing.

use super::buffer::{Number, Span};
use super::launch::{Argument, Grid};
use super::stream::Stream;
use super::work::{Placed, PlacedBags, Work};
use crate::bags::Bags;
use crate::check::{Asked, weights as check};
use crate::error::{Cause, KernelError};
use crate::kernels::{Rule, WeightsOut};
use crate::normalise::{Link, Normalisation};
use crate::view::{Dtype, View, ViewMut};

/// Threads of a block of weights.cu's kernels; a warp takes an item.
const THREADS: u32 = 256;
/// The same of the pool's.
const POOL_THREADS: u32 = 128;
/// The same of settle.cuh's, of which a block takes no more bags than it has threads.
const SETTLE_THREADS: u32 = 256;
/// Its blocks, which a device runs at once: more bags than that share them, so that nobody waits for blocks that only look.
const SETTLE_BLOCKS: usize = 256;

/// `struct Rule` of cuda/rule.cuh.
pub(super) fn rule_argument(rule: Rule) -> Argument {
    let (normalisation, exponent) = match rule.normalisation {
        Normalisation::SquaredAverage => (0i32, 0.0f32),
        Normalisation::Power(p) => (1, p),
        Normalisation::Sigmoid => (2, 0.0),
        Normalisation::Softmax => (3, 0.0),
        // `Rule::check` has refused the last two.
        Normalisation::Mean | Normalisation::Max | Normalisation::Sparsemax => (4, 0.0),
    };
    let link = i32::from(rule.link == Link::Sigmoid);
    Argument::of(&[
        normalisation.into(),
        link.into(),
        exponent.into(),
        0i32.into(),
    ])
}

/// The features of a pass, as pool.cu reads them.
#[derive(Clone, Copy)]
pub(super) struct Features {
    pub(super) address: u64,
    /// Elements from row to row.
    pub(super) stride: u64,
    pub(super) width: u32,
    pub(super) dtype: Dtype,
    /// Rows are made of whole pieces of 16 bytes.
    pub(super) whole: bool,
}

impl Features {
    const NONE: Features = Features {
        address: 0,
        stride: 0,
        width: 0,
        dtype: Dtype::F32,
        whole: false,
    };

    pub(super) fn of(placed: &Placed<2>) -> Features {
        let width = placed.shape[1];
        Features {
            address: placed.address,
            stride: placed.strides[0] as u64,
            width: width as u32,
            dtype: placed.dtype,
            whole: width > 0 && in_pieces(placed),
        }
    }

    /// Columns of a slice: a piece a lane.
    fn columns(&self) -> usize {
        32 * 16 / self.dtype.bytes()
    }

    fn kernel(&self, listed: bool) -> &'static str {
        match (self.dtype, self.whole, listed) {
            (Dtype::F16, true, false) => "weir_pool_f16",
            (Dtype::F16, true, true) => "weir_pool_f16_list",
            (Dtype::F16, false, _) => "weir_pool_f16_scalar",
            (Dtype::Bf16, true, false) => "weir_pool_bf16",
            (Dtype::Bf16, true, true) => "weir_pool_bf16_list",
            (Dtype::Bf16, false, _) => "weir_pool_bf16_scalar",
            (_, true, false) => "weir_pool_f32",
            (_, true, true) => "weir_pool_f32_list",
            (_, false, _) => "weir_pool_f32_scalar",
        }
    }
}

/// Whether every row begins at a multiple of 16 bytes and is a whole number of them.
pub(super) fn in_pieces(placed: &Placed<2>) -> bool {
    let size = placed.dtype.bytes();
    let whole = |elements: usize| (elements * size).is_multiple_of(16);
    placed.address.is_multiple_of(16)
        && whole(placed.shape[1])
        && (whole(placed.strides[0]) || placed.shape[0] <= 1)
}

/// Where the results lie on the device.
pub(super) struct Out {
    weights: Placed<1>,
    sums: Placed<1>,
    squares: Placed<1>,
    entropy: Placed<1>,
    flags: Placed<1>,
    pooled: Span<f32>,
}

impl Out {
    pub(super) fn place<'a>(
        work: &mut Work<'a>,
        out: WeightsOut<'a>,
        pooled: Span<f32>,
    ) -> Result<Out, KernelError> {
        Ok(Out {
            weights: work.output("weights", out.weights)?,
            sums: work.output("sums", out.sums)?,
            squares: work.output("squares", out.squares)?,
            entropy: work.output("entropy", out.entropy)?,
            flags: work.output("flags", out.flags)?,
            pooled,
        })
    }
}

/// The memory of a placed array that is dense, as `check` holds.
pub(super) fn span<T: Number, const N: usize>(placed: &Placed<N>) -> Span<T> {
    Span::of(placed.address, placed.shape.iter().product())
}

/// Blocks of `threads` threads with a warp for each of `units`.
pub(super) fn blocks(work: &Work<'_>, units: usize, threads: u32) -> Result<u32, KernelError> {
    let blocks = units.div_ceil(threads as usize / 32);
    let limit = i32::MAX as usize;
    if blocks > limit {
        return Err(work.refuse(Cause::Limit {
            what: "blocks of a launch",
            limit,
            got: blocks,
        }));
    }
    Ok(blocks as u32)
}

pub(super) fn forward(
    stream: &Stream,
    bags: &Bags,
    rule: Rule,
    logits: View<'_, 1>,
    out: WeightsOut<'_>,
) -> Result<(), KernelError> {
    let asked = Asked::rows("weights", bags, stream.gpu().place());
    rule.check(asked.kernel(), asked.shape())?;
    asked.dense("logits", logits.layout(), Dtype::F32, [bags.total()])?;
    check::out(&asked, bags, &out)?;
    let mut work = stream.begin(asked.kernel(), asked.shape())?;
    let logits = work.input("logits", logits)?;
    let out = Out::place(&mut work, out, Span::none())?;
    passes(&mut work, bags, rule, logits, Features::NONE, &out)?;
    work.finish()
}

/// The pass over all bags, and whatever some of them need after it. Nothing here waits for the device: what was noticed of a
/// bag is looked at there (cuda/settle.cuh).
pub(super) fn passes(
    work: &mut Work<'_>,
    bags: &Bags,
    rule: Rule,
    logits: Placed<1>,
    features: Features,
    out: &Out,
) -> Result<(), KernelError> {
    if bags.members() < bags.total() {
        // No kernel sees a masked row.
        work.fill(span::<f32, 1>(&out.weights), 0)?;
    }
    if bags.is_empty() {
        return Ok(());
    }
    let columns = features.columns();
    let slices = (features.width as usize).div_ceil(columns).max(1);
    let counters = bags.len().saturating_mul(slices);
    let zeros = work.zeros([bags.len() * 4, counters * 4, bags.len() * 4, bags.total()])?;
    let pass = Pass {
        rule: rule_argument(rule),
        shifted: rule.shifted(),
        lists: work.bags(bags)?,
        logits,
        features,
        slices,
        greatest: Span::of(zeros[0], bags.len()),
        count: Span::of(zeros[1], counters),
        noticed: Span::of(zeros[2], bags.len()),
        refused: Span::of(zeros[3], bags.total()),
    };
    pass.run(work, bags, out)?;
    pass.settle(work, bags, out)
}

/// What the kernels of a call have in common.
struct Pass {
    rule: Argument,
    /// Whether numerators need the bag's greatest g.
    shifted: bool,
    lists: PlacedBags,
    logits: Placed<1>,
    features: Features,
    slices: usize,
    greatest: Span<u32>,
    /// One a bag and slice.
    count: Span<u32>,
    noticed: Span<u32>,
    /// One a row.
    refused: Span<u8>,
}

impl Pass {
    /// Pooled vectors, then weights, of the bags of which nothing is noticed that makes another pass necessary.
    fn run(&self, work: &mut Work<'_>, bags: &Bags, out: &Out) -> Result<(), KernelError> {
        let items = bags.items().len();
        if items == 0 {
            return Ok(());
        }
        let (lists, features, slices) = (&self.lists, &self.features, self.slices);
        let item_blocks = blocks(work, items, THREADS)?;
        let item_count = items as u32;
        if self.shifted {
            let kernel = work.function("weights", "weir_greatest")?;
            let arguments = [
                self.logits.into(),
                lists.members.into(),
                lists.items.into(),
                item_count.into(),
                self.rule,
                self.greatest.into(),
            ];
            // SAFETY: the members' rows lie inside the logits, as `Bags` and `check` hold; `greatest` has one a bag.
            unsafe { work.launch(&kernel, Grid::new(item_blocks, THREADS), &arguments) }?;
        }
        let columns = features.columns();
        let partials = work.take::<f32>(items.saturating_mul(slices * columns))?;
        let partial_sums = work.take::<f32>(items * slices)?;
        let kernel = work.function("pool", features.kernel(bags.list().is_some()))?;
        let units = blocks(work, items.saturating_mul(slices), POOL_THREADS)?;
        let arguments = [
            features.address.into(),
            features.stride.into(),
            features.width.into(),
            (slices as u32).into(),
            self.logits.into(),
            lists.members.into(),
            lists.items.into(),
            item_count.into(),
            lists.first.into(),
            self.rule,
            self.greatest.into(),
            partials.into(),
            partial_sums.into(),
            self.count.into(),
            out.pooled.into(),
            out.sums.into(),
            self.noticed.into(),
            self.refused.into(),
        ];
        // SAFETY: as above; features have `width` columns in each of the rows, pooled vectors too, scratch memory is of the
        // sizes that cuda/pool.cu names.
        unsafe { work.launch(&kernel, Grid::new(units, POOL_THREADS), &arguments) }?;
        let squares = work.take::<f32>(items)?;
        let entropies = work.take::<f32>(items)?;
        let kernel = work.function("weights", "weir_weights")?;
        let arguments = [
            self.logits.into(),
            lists.members.into(),
            lists.items.into(),
            item_count.into(),
            lists.first.into(),
            self.rule,
            self.greatest.into(),
            out.sums.into(),
            self.noticed.into(),
            squares.into(),
            entropies.into(),
            self.count.into(),
            out.weights.into(),
            out.squares.into(),
            out.entropy.into(),
        ];
        // SAFETY: as above; `count` is all zero again.
        unsafe { work.launch(&kernel, Grid::new(item_blocks, THREADS), &arguments) }
    }

    /// Flags, bags without a member, and the bags that are passed again.
    fn settle(&self, work: &mut Work<'_>, bags: &Bags, out: &Out) -> Result<(), KernelError> {
        let features = &self.features;
        let kernel = work.function(
            "pool",
            match features.dtype {
                Dtype::F16 => "weir_settle_f16",
                Dtype::Bf16 => "weir_settle_bf16",
                _ => "weir_settle_f32",
            },
        )?;
        let arguments = [
            features.address.into(),
            features.stride.into(),
            features.width.into(),
            (self.slices as u32).into(),
            self.logits.into(),
            self.lists.members.into(),
            self.lists.starts.into(),
            (bags.len() as u32).into(),
            self.rule,
            self.noticed.into(),
            self.refused.into(),
            out.weights.into(),
            out.pooled.into(),
            out.sums.into(),
            out.squares.into(),
            out.entropy.into(),
            out.flags.into(),
        ];
        let some = bags.len().min(SETTLE_BLOCKS);
        let blocks = bags.len().div_ceil(SETTLE_THREADS as usize).max(some);
        let grid = Grid::new(blocks as u32, SETTLE_THREADS);
        // SAFETY: results have one element a row, one vector a bag or one element a bag, as `check` holds; `noticed` and
        // `refused` are the pass's, of one element a bag and one a row.
        unsafe { work.launch(&kernel, grid, &arguments) }
    }
}

/// What the backward passes of (a) and (b) have in common, on the device.
pub(super) struct Slopes {
    pub(super) lists: PlacedBags,
    pub(super) logits: Placed<1>,
    pub(super) weights: Placed<1>,
    pub(super) sums: Placed<1>,
    pub(super) flags: Placed<1>,
    /// dL/dw.
    pub(super) gradient: Span<f32>,
    /// One a row, not 0 where it does not count; none where logits alone decide.
    pub(super) refused: Span<u8>,
    pub(super) out: Placed<1>,
}

impl Slopes {
    pub(super) fn run(
        &self,
        work: &mut Work<'_>,
        bags: &Bags,
        rule: Rule,
    ) -> Result<(), KernelError> {
        work.fill(span::<f32, 1>(&self.out), 0)?;
        let items = bags.items().len();
        if items == 0 {
            return Ok(());
        }
        let grid = Grid::new(blocks(work, items, THREADS)?, THREADS);
        let item_count = items as u32;
        let sums = work.take::<f32>(items)?;
        let count = work.zeroed::<u32>(bags.len())?;
        let mean = work.take::<f32>(bags.len())?;
        let kernel = work.function("weights", "weir_mean")?;
        let arguments = [
            self.logits.into(),
            self.refused.into(),
            self.lists.members.into(),
            self.lists.items.into(),
            item_count.into(),
            self.lists.first.into(),
            self.lists.starts.into(),
            self.flags.into(),
            self.weights.into(),
            self.gradient.into(),
            sums.into(),
            count.into(),
            mean.into(),
        ];
        // SAFETY: all arrays have one element a row or one a bag, as the caller's `check` holds; scratch one an item or bag.
        unsafe { work.launch(&kernel, grid, &arguments) }?;
        let kernel = work.function("weights", "weir_slopes")?;
        let arguments = [
            self.logits.into(),
            self.refused.into(),
            self.lists.members.into(),
            self.lists.items.into(),
            item_count.into(),
            rule_argument(rule),
            self.flags.into(),
            self.weights.into(),
            self.sums.into(),
            self.gradient.into(),
            mean.into(),
            self.out.into(),
        ];
        // SAFETY: as above.
        unsafe { work.launch(&kernel, grid, &arguments) }
    }
}

pub(super) fn backward(
    stream: &Stream,
    bags: &Bags,
    rule: Rule,
    logits: View<'_, 1>,
    (weights, sums, flags): (View<'_, 1>, View<'_, 1>, View<'_, 1>),
    gradient: View<'_, 1>,
    out: ViewMut<'_, 1>,
) -> Result<(), KernelError> {
    let asked = Asked::rows("weights backward", bags, stream.gpu().place());
    rule.check(asked.kernel(), asked.shape())?;
    check::backward(&asked, bags, logits, weights, sums, flags, &out)?;
    asked.dense("gradient", gradient.layout(), Dtype::F32, [bags.total()])?;
    let mut work = stream.begin(asked.kernel(), asked.shape())?;
    let gradient = work.input("gradient", gradient)?;
    let slopes = Slopes {
        lists: work.bags(bags)?,
        logits: work.input("logits", logits)?,
        weights: work.input("weights", weights)?,
        sums: work.input("sums", sums)?,
        flags: work.input("flags", flags)?,
        gradient: span(&gradient),
        refused: Span::none(),
        out: work.output("logits' gradient", out)?,
    };
    slopes.run(&mut work, bags, rule)?;
    work.finish()
}
