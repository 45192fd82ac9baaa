//! The kernels, as everybody calls them: one trait, a processor's and a CUDA device's implementation.
//!
//! All take [`View`]s. On the processor they must lie on the host. On a device those that lie on the host are carried over
//! and back, those that lie there are used where they are. A call returns when its results on the host can be read; results that
//! stay on a device are ordered in its stream.

use crate::bags::Bags;
use crate::error::KernelError;
use crate::gated::{GatedHead, GatedTape};
use crate::normalise::{Link, Normalisation};
use crate::view::{Dtype, View, ViewMut};
use std::fmt;

/// How attention logits become weights.
///
/// The kernels know `squared-average`, `power`, `sigmoid`, `mean` and `softmax`; `max` and `sparsemax`, which need the
/// whole bag's logits at once, are refused: [`crate::pool::pool`] has them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rule {
    /// From g to the numerator.
    pub normalisation: Normalisation,
    /// From the logit to g.
    pub link: Link,
}

/// What was noticed of a bag: bits of the `flags` that the kernels write.
pub mod flags {
    /// No member was left.
    pub const EMPTY: u32 = 1;
    /// The sum of the numerators was zero or out of range: the weights are uniform.
    pub const UNIFORM: u32 = 2;
    /// A value or a sum lay outside the domain in which squares keep f32's precision.
    pub const OUT_OF_DOMAIN: u32 = 4;
    /// A member was refused: a number that is none, or a feature of 1e18 or more. Its weight is 0 and the bag is as if it
    /// had not come.
    pub const REFUSED: u32 = 8;
}

/// Results of (a), one a row or one a bag. Rows that are masked or refused get weight 0.
#[derive(Debug)]
pub struct WeightsOut<'a> {
    /// w, f32 `[rows]`.
    pub weights: ViewMut<'a, 1>,
    /// S, the sum of the numerators, f32 `[bags]`; the number of members where the weights are uniform; 0 for an empty bag.
    pub sums: ViewMut<'a, 1>,
    /// Sum of w^2, f32 `[bags]`; its inverse is the effective number of members. 0 for an empty bag.
    pub squares: ViewMut<'a, 1>,
    /// Entropy of the weights, nats, f32 `[bags]`.
    pub entropy: ViewMut<'a, 1>,
    /// [`flags`], u32 `[bags]`.
    pub flags: ViewMut<'a, 1>,
}

impl WeightsOut<'_> {
    /// The same, for a shorter time.
    pub fn reborrow(&mut self) -> WeightsOut<'_> {
        WeightsOut {
            weights: self.weights.reborrow(),
            sums: self.sums.reborrow(),
            squares: self.squares.reborrow(),
            entropy: self.entropy.reborrow(),
            flags: self.flags.reborrow(),
        }
    }

    /// Whether the processor can write all of it.
    pub fn on_host(&self) -> bool {
        let of_bags = [&self.sums, &self.squares, &self.entropy, &self.flags];
        self.weights.layout().on_host() && of_bags.iter().all(|out| out.layout().on_host())
    }
}

/// Results of (b): those of (a) and the pooled vectors.
#[derive(Debug)]
pub struct PoolOut<'a> {
    /// z, f32 `[bags, d]`; zeros for an empty bag.
    pub pooled: ViewMut<'a, 2>,
    /// The rest.
    pub weights: WeightsOut<'a>,
}

impl PoolOut<'_> {
    /// The same, for a shorter time.
    pub fn reborrow(&mut self) -> PoolOut<'_> {
        PoolOut {
            pooled: self.pooled.reborrow(),
            weights: self.weights.reborrow(),
        }
    }

    /// Whether the processor can write all of it.
    pub fn on_host(&self) -> bool {
        self.pooled.layout().on_host() && self.weights.on_host()
    }
}

/// What (b)'s backward is given of its forward pass.
#[derive(Clone, Copy, Debug)]
pub struct PoolState<'a> {
    /// z, f32 `[bags, d]`.
    pub pooled: View<'a, 2>,
    /// w, f32 `[rows]`.
    pub weights: View<'a, 1>,
    /// S, f32 `[bags]`.
    pub sums: View<'a, 1>,
    /// u32 `[bags]`.
    pub flags: View<'a, 1>,
}

impl PoolState<'_> {
    /// Whether the processor can read all of it.
    pub fn on_host(&self) -> bool {
        let of_bags = [&self.sums, &self.flags, &self.weights];
        self.pooled.layout().on_host() && of_bags.iter().all(|view| view.layout().on_host())
    }
}

/// Gradient of the loss by (b)'s results.
#[derive(Clone, Copy, Debug)]
pub struct PoolGradient<'a> {
    /// u = dL/dz, f32 `[bags, d]`.
    pub pooled: View<'a, 2>,
    /// dL/dw where the loss looks at the weights too, f32 `[rows]`.
    pub weights: Option<View<'a, 1>>,
}

impl PoolGradient<'_> {
    /// Whether the processor can read all of it.
    pub fn on_host(&self) -> bool {
        let weights = self.weights.as_ref();
        self.pooled.layout().on_host() && weights.is_none_or(|view| view.layout().on_host())
    }
}

/// Gradient of the loss by (b)'s arguments. Masked and refused rows get 0.
#[derive(Debug)]
pub struct PoolBackward<'a> {
    /// dL/da, f32 `[rows]`.
    pub logits: ViewMut<'a, 1>,
    /// dL/dh through the pool alone, `[rows, d]`, of the features' type; `None`: not wanted.
    pub features: Option<ViewMut<'a, 2>>,
}

impl PoolBackward<'_> {
    /// The same, for a shorter time.
    pub fn reborrow(&mut self) -> PoolBackward<'_> {
        PoolBackward {
            logits: self.logits.reborrow(),
            features: self.features.as_mut().map(ViewMut::reborrow),
        }
    }

    /// Whether the processor can write all of it.
    pub fn on_host(&self) -> bool {
        let features = self.features.as_ref();
        self.logits.layout().on_host() && features.is_none_or(|view| view.layout().on_host())
    }
}

/// Results of (c): the attention logits and those of (b), under the contract [`crate::gated::CONTRACT`].
#[derive(Debug)]
pub struct GatedOut<'a> {
    /// a, f32 `[rows]`; 0 for a masked row.
    pub logits: ViewMut<'a, 1>,
    /// The rest.
    pub pool: PoolOut<'a>,
    /// Keeps what the backward pass would make again; `None`: nothing is kept.
    pub tape: Option<&'a mut GatedTape>,
}

/// What (c)'s backward is given of its forward pass.
#[derive(Clone, Copy, Debug)]
pub struct GatedState<'a> {
    /// a, f32 `[rows]`.
    pub logits: View<'a, 1>,
    /// Of the pool.
    pub pool: PoolState<'a>,
    /// The tape of that pass; `None`, or an empty one: the hidden units are made again.
    pub tape: Option<&'a GatedTape>,
}

/// Gradient of the loss by (c)'s arguments; sums over all members of all bags, in one fixed order.
#[derive(Debug)]
pub struct GatedBackward<'a> {
    /// By V, f32 `[hidden, d]`.
    pub value: ViewMut<'a, 2>,
    /// By V's bias, f32 `[hidden]`.
    pub value_bias: ViewMut<'a, 1>,
    /// By U and its bias, where the head has a gate.
    pub gate: Option<(ViewMut<'a, 2>, ViewMut<'a, 1>)>,
    /// By w, f32 `[hidden]`.
    pub weight: ViewMut<'a, 1>,
    /// By the bias, f32 `[1]`.
    pub bias: ViewMut<'a, 1>,
    /// By h, through pool and head, `[rows, d]`, of the features' type; `None`: not wanted.
    pub features: Option<ViewMut<'a, 2>>,
}

/// How many of each end of a ranking, 0 to [`Ends::LIMIT`] each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// From the top.
    pub highest: usize,
    /// From the bottom.
    pub lowest: usize,
}

impl Ends {
    /// The most of each end that a kernel selects.
    pub const LIMIT: usize = 1024;
}

/// Results of (d). Places are rows counted from the bag's first row; -1 fills what a short bag leaves.
#[derive(Debug)]
pub struct TopKOut<'a> {
    /// The highest, best first, i32 `[bags, highest]`.
    pub highest: ViewMut<'a, 2>,
    /// The lowest, worst last, i32 `[bags, lowest]`. A bag of no more than highest + lowest members is selected whole and
    /// once: then this holds what `highest` left.
    pub lowest: ViewMut<'a, 2>,
    /// Members whose score is a NaN, which are never selected, u32 `[bags]`.
    pub nans: ViewMut<'a, 1>,
}

impl TopKOut<'_> {
    /// The same, for a shorter time.
    pub fn reborrow(&mut self) -> TopKOut<'_> {
        TopKOut {
            highest: self.highest.reborrow(),
            lowest: self.lowest.reborrow(),
            nans: self.nans.reborrow(),
        }
    }

    /// Whether the processor can write all of it.
    pub fn on_host(&self) -> bool {
        let ends = [&self.highest, &self.lowest];
        self.nans.layout().on_host() && ends.iter().all(|out| out.layout().on_host())
    }
}

/// How tiles of bytes become a network's numbers: byte * scale + shift per channel, mul then add.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TileForm {
    /// 1 / (255 std), per channel of the output.
    pub scale: [f32; 3],
    /// -mean / std, per channel of the output.
    pub shift: [f32; 3],
    /// Channel of the input for each one of the output: [0, 1, 2], or [2, 1, 0] for BGR.
    pub channels: [u8; 3],
    /// Top-left of the part that is taken, rows and columns of the input.
    pub corner: [usize; 2],
    /// Mirrored left to right.
    pub flip: bool,
}

impl TileForm {
    /// From the mean and standard deviation of channels in 0..1.
    pub fn new(mean: [f32; 3], std: [f32; 3]) -> TileForm {
        let of = |f: &dyn Fn(f64, f64) -> f64| -> [f32; 3] {
            std::array::from_fn(|c| f(f64::from(mean[c]), f64::from(std[c])) as f32)
        };
        TileForm {
            scale: of(&|_, std| 1.0 / (255.0 * std)),
            shift: of(&|mean, std| -mean / std),
            channels: [0, 1, 2],
            corner: [0, 0],
            flip: false,
        }
    }
}

/// The kernels of a device.
pub trait Kernels: fmt::Debug + Send + Sync {
    /// As `cpu` or `cuda:0`.
    fn device(&self) -> String;

    /// What the bits of (c) hang on beside the bag: the architecture and which of its kernels runs over `features` of that type,
    /// as `sm_90a wgmma`, `sm_80 mma`, `x86-64 avx2+fma`, or `portable` for loops that give the same bits on every processor. Two
    /// devices of one kind give the same bits. An error where (c) cannot run here.
    fn kind(&self, features: Dtype) -> Result<String, KernelError>;

    /// (a) Weights of the rows by their `logits`, f32 `[rows]`.
    fn weights(
        &self,
        bags: &Bags,
        rule: Rule,
        logits: View<'_, 1>,
        out: WeightsOut<'_>,
    ) -> Result<(), KernelError>;

    /// (a) backward: dL/da, f32 `[rows]`, from `gradient` = dL/dw, f32 `[rows]`, and the forward pass's `weights`, `sums`
    /// and `flags`.
    #[allow(clippy::too_many_arguments)]
    fn weights_backward(
        &self,
        bags: &Bags,
        rule: Rule,
        logits: View<'_, 1>,
        weights: View<'_, 1>,
        sums: View<'_, 1>,
        flags: View<'_, 1>,
        gradient: View<'_, 1>,
        out: ViewMut<'_, 1>,
    ) -> Result<(), KernelError>;

    /// (b) The weighted mean of `features`, f32, f16 or bf16 `[rows, d]`, by `logits`, f32 `[rows]`. One pass over the
    /// features, but for bags in which a member is refused or no sum is left, whose pass is made again.
    fn pool(
        &self,
        bags: &Bags,
        rule: Rule,
        features: View<'_, 2>,
        logits: View<'_, 1>,
        out: PoolOut<'_>,
    ) -> Result<(), KernelError>;

    /// (b) backward.
    #[allow(clippy::too_many_arguments)]
    fn pool_backward(
        &self,
        bags: &Bags,
        rule: Rule,
        features: View<'_, 2>,
        logits: View<'_, 1>,
        state: PoolState<'_>,
        gradient: PoolGradient<'_>,
        out: PoolBackward<'_>,
    ) -> Result<(), KernelError>;

    /// (c) Attention head, normalisation and pool over `features`, f32, f16 or bf16 `[rows, d]`, at once.
    fn gated_pool(
        &self,
        bags: &Bags,
        rule: Rule,
        head: &GatedHead,
        features: View<'_, 2>,
        out: GatedOut<'_>,
    ) -> Result<(), KernelError>;

    /// (c) backward; the hidden units are made again where the forward pass kept no tape.
    #[allow(clippy::too_many_arguments)]
    fn gated_pool_backward(
        &self,
        bags: &Bags,
        rule: Rule,
        head: &GatedHead,
        features: View<'_, 2>,
        state: GatedState<'_>,
        gradient: PoolGradient<'_>,
        out: GatedBackward<'_>,
    ) -> Result<(), KernelError>;

    /// (d) The highest and lowest of each bag by `scores`, f32 `[rows]`: score descending (of two zeros the positive one
    /// first), then row ascending.
    fn top_k(
        &self,
        bags: &Bags,
        ends: Ends,
        scores: View<'_, 1>,
        out: TopKOut<'_>,
    ) -> Result<(), KernelError>;

    /// (e) `tiles`, u8 `[tiles, height, width, 3]` of any pitch, to f32, f16 or bf16 `[tiles, 3, h, w]`, the part of each
    /// tile that begins at the form's corner.
    fn normalise_tiles(
        &self,
        tiles: View<'_, 4>,
        form: TileForm,
        out: ViewMut<'_, 4>,
    ) -> Result<(), KernelError>;
}
