//! What a case runs on: random inputs in several sets, poisoned outputs, and the call itself.

use crate::Fault;
use crate::case::{Case, Kernel};
use crate::data::{Array, Random};
use std::collections::BTreeMap;
use weir_kernels::attention::AttentionHead;
use weir_kernels::gated::{GatedHead, GatedTape};
use weir_kernels::kernels::{
    Ends, GatedBackward, GatedOut, GatedState, PoolBackward, PoolGradient, PoolOut, PoolState,
    TileForm, TopKOut, WeightsOut,
};
use weir_kernels::linear::Linear;
use weir_kernels::{Bags, Dtype, KernelError, Kernels, View, ViewMut};

/// What one element of an output belongs to, so that a bag alone can be held against the bag in its batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// So many elements a row.
    Row(usize),
    /// So many elements a bag.
    Bag(usize),
    /// Sums over all bags.
    All,
}

/// Named arrays: the inputs or the outputs of a call.
pub type Arrays = BTreeMap<&'static str, Array>;

/// What a view can be had of: an array of the host, or one of a device.
pub trait Memory {
    /// To read.
    fn view<const N: usize>(&self, shape: [usize; N]) -> Result<View<'_, N>, KernelError>;

    /// To write.
    fn view_mut<const N: usize>(
        &mut self,
        shape: [usize; N],
    ) -> Result<ViewMut<'_, N>, KernelError>;
}

impl Memory for Array {
    fn view<const N: usize>(&self, shape: [usize; N]) -> Result<View<'_, N>, KernelError> {
        Array::view(self, shape)
    }

    fn view_mut<const N: usize>(
        &mut self,
        shape: [usize; N],
    ) -> Result<ViewMut<'_, N>, KernelError> {
        Array::view_mut(self, shape)
    }
}

/// The weights of an attention head, as its f64 reference wants them too.
#[derive(Clone, Debug)]
pub struct Head {
    /// V `[l, d]` and its bias, then U and its bias.
    pub value: (Vec<f32>, Vec<f32>),
    /// U.
    pub gate: (Vec<f32>, Vec<f32>),
    /// w `[l]` and b.
    pub last: (Vec<f32>, f32),
}

impl Head {
    fn random(random: &mut Random, l: usize, d: usize) -> Head {
        let scale = 1.5 / (d as f32).sqrt();
        let mut vector = |len: usize, range: f32| -> Vec<f32> {
            (0..len).map(|_| random.unit() * range).collect()
        };
        Head {
            value: (vector(l * d, scale), vector(l, 0.2)),
            gate: (vector(l * d, scale), vector(l, 0.2)),
            // A logit stays away from 0, where a squared average's weight is all rounding.
            last: (vector(l, 1.0 / (l as f32).sqrt()), 1.5),
        }
    }

    fn packed(&self) -> GatedHead {
        GatedHead::new(AttentionHead::new(
            Linear::new(&self.value.0, &self.value.1),
            Some(Linear::new(&self.gate.0, &self.gate.1)),
            self.last.0.clone(),
            self.last.1,
        ))
    }
}

/// A case with its inputs.
#[derive(Debug)]
pub struct Work {
    /// The case.
    pub case: Case,
    /// The bags.
    pub bags: Bags,
    /// Offsets of the bags.
    pub offsets: Vec<usize>,
    /// Which rows are members.
    pub mask: Option<Vec<bool>>,
    /// The head of (c).
    pub head: Option<Head>,
    packed: Option<GatedHead>,
    /// Inputs, several sets of them, so that no cache holds the next one.
    pub sets: Vec<Arrays>,
    /// What the forward pass over each set kept.
    tapes: Vec<GatedTape>,
}

/// What (e) is asked to do: the usual means, mirrored, the channels turned, so that no part of it is left out.
pub fn tile_form() -> TileForm {
    TileForm {
        channels: [2, 1, 0],
        flip: true,
        ..TileForm::new([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    }
}

impl Work {
    /// Random inputs; masked rows hold NaN.
    pub fn new(case: Case, sets: usize, seed: u64) -> Result<Work, Fault> {
        let mut random = Random::new(seed ^ 0x77e1_5eed);
        let (offsets, mask) = (case.offsets(), case.mask());
        let head =
            (case.kernel == Kernel::Gated).then(|| Head::random(&mut random, case.l, case.d));
        let sets = (0..sets.max(1))
            .map(|_| inputs(&case, &mut random, &offsets, mask.as_deref()))
            .collect();
        Work::of(case, offsets, mask, head, sets)
    }

    fn of(
        case: Case,
        offsets: Vec<usize>,
        mask: Option<Vec<bool>>,
        head: Option<Head>,
        sets: Vec<Arrays>,
    ) -> Result<Work, Fault> {
        let bags = match case.kernel {
            Kernel::Tiles => Bags::one(0)?,
            _ => Bags::new(&offsets, mask.as_deref())?,
        };
        Ok(Work {
            bags,
            packed: head.as_ref().map(Head::packed),
            case,
            offsets,
            mask,
            head,
            tapes: sets.iter().map(|_| GatedTape::new()).collect(),
            sets,
        })
    }

    /// Bytes of one set of inputs and of the outputs.
    pub fn size(case: &Case) -> usize {
        let (n, size) = (case.total(), case.dtype.bytes());
        match case.kernel {
            Kernel::Tiles => n * 3 * (1 + size),
            Kernel::Weights | Kernel::TopK => n * 24 + case.bags * 16,
            Kernel::Pool | Kernel::Gated => {
                let copies = if case.backward { 2 } else { 1 };
                n * (case.d * size * copies + 20) + case.bags * case.d * 8
            }
        }
    }

    /// What the backward pass needs of the forward pass, made by `kernels` and kept as further inputs.
    pub fn prepare(&mut self, kernels: &dyn Kernels) -> Result<(), KernelError> {
        if !self.case.backward {
            return Ok(());
        }
        let forward = Case {
            backward: false,
            ..self.case
        };
        for set in 0..self.sets.len() {
            let mut made = shaped(&forward, self.bags.total(), self.bags.len());
            let mut tape = self.case.kept.then(GatedTape::new);
            let outputs = &mut made.iter_mut().map(|(_, array, _)| array);
            self.call(
                &forward,
                kernels,
                &self.sets[set],
                None,
                tape.as_mut(),
                outputs,
            )?;
            self.tapes[set] = tape.unwrap_or_default();
            self.sets[set].extend(
                made.into_iter()
                    .map(|(name, array, _)| (state_name(name), array)),
            );
        }
        Ok(())
    }

    /// Fresh, poisoned outputs.
    pub fn outputs(&self) -> Outputs {
        outputs_of(&self.case)
    }

    /// The call.
    pub fn run(
        &self,
        kernels: &dyn Kernels,
        set: usize,
        out: &mut Outputs,
    ) -> Result<(), KernelError> {
        let outputs = &mut out.iter_mut().map(|(_, array, _)| array);
        let tape = Some(&self.tapes[set]);
        self.call(&self.case, kernels, &self.sets[set], tape, None, outputs)
    }

    /// What the forward pass over that set kept.
    pub fn tape(&self, set: usize) -> Option<&GatedTape> {
        self.tapes.get(set)
    }

    /// The call on inputs and outputs that lie anywhere.
    pub fn call<'a, M: Memory + 'a>(
        &self,
        case: &Case,
        kernels: &dyn Kernels,
        set: &BTreeMap<&'static str, M>,
        tape: Option<&GatedTape>,
        keeps: Option<&mut GatedTape>,
        outputs: &mut dyn Iterator<Item = &'a mut M>,
    ) -> Result<(), KernelError> {
        let (bags, rule) = (&self.bags, case.rule());
        let (n, b, d, l) = (bags.total(), bags.len(), case.d, case.l);
        let mut next = || outputs.next().ok_or_else(|| short(case));
        let state = || -> Result<PoolState<'_>, KernelError> {
            Ok(PoolState {
                pooled: set["state.pooled"].view([b, d])?,
                weights: set["state.weights"].view([n])?,
                sums: set["state.sums"].view([b])?,
                flags: set["state.flags"].view([b])?,
            })
        };
        match (case.kernel, case.backward) {
            (Kernel::Weights, false) => {
                let out = WeightsOut {
                    weights: next()?.view_mut([n])?,
                    sums: next()?.view_mut([b])?,
                    squares: next()?.view_mut([b])?,
                    entropy: next()?.view_mut([b])?,
                    flags: next()?.view_mut([b])?,
                };
                kernels.weights(bags, rule, set["logits"].view([n])?, out)
            }
            (Kernel::Weights, true) => kernels.weights_backward(
                bags,
                rule,
                set["logits"].view([n])?,
                set["state.weights"].view([n])?,
                set["state.sums"].view([b])?,
                set["state.flags"].view([b])?,
                set["gradient"].view([n])?,
                next()?.view_mut([n])?,
            ),
            (Kernel::Pool, false) => {
                let out = pool_out(&mut next, n, b, d)?;
                let features = set["features"].view([n, d])?;
                kernels.pool(bags, rule, features, set["logits"].view([n])?, out)
            }
            (Kernel::Pool, true) => {
                let out = PoolBackward {
                    logits: next()?.view_mut([n])?,
                    features: Some(next()?.view_mut([n, d])?),
                };
                let gradient = PoolGradient {
                    pooled: set["gradient"].view([b, d])?,
                    weights: None,
                };
                let features = set["features"].view([n, d])?;
                let logits = set["logits"].view([n])?;
                kernels.pool_backward(bags, rule, features, logits, state()?, gradient, out)
            }
            (Kernel::Gated, false) => {
                let out = GatedOut {
                    logits: next()?.view_mut([n])?,
                    pool: pool_out(&mut next, n, b, d)?,
                    tape: keeps,
                };
                kernels.gated_pool(
                    bags,
                    rule,
                    self.packed(case)?,
                    set["features"].view([n, d])?,
                    out,
                )
            }
            (Kernel::Gated, true) => {
                let out = GatedBackward {
                    value: next()?.view_mut([l, d])?,
                    value_bias: next()?.view_mut([l])?,
                    gate: Some((next()?.view_mut([l, d])?, next()?.view_mut([l])?)),
                    weight: next()?.view_mut([l])?,
                    bias: next()?.view_mut([1])?,
                    features: Some(next()?.view_mut([n, d])?),
                };
                let gradient = PoolGradient {
                    pooled: set["gradient"].view([b, d])?,
                    weights: None,
                };
                let features = set["features"].view([n, d])?;
                let state = GatedState {
                    logits: set["state.logits"].view([n])?,
                    pool: state()?,
                    tape,
                };
                kernels.gated_pool_backward(
                    bags,
                    rule,
                    self.packed(case)?,
                    features,
                    state,
                    gradient,
                    out,
                )
            }
            (Kernel::TopK, _) => {
                let out = TopKOut {
                    highest: next()?.view_mut([b, d])?,
                    lowest: next()?.view_mut([b, d])?,
                    nans: next()?.view_mut([b])?,
                };
                let ends = Ends {
                    highest: d,
                    lowest: d,
                };
                kernels.top_k(bags, ends, set["logits"].view([n])?, out)
            }
            (Kernel::Tiles, _) => {
                let (tiles, side) = (case.bags, case.rows);
                let bytes = set["tiles"].view([tiles, side, side, 3])?;
                let out = next()?.view_mut([tiles, 3, side, side])?;
                kernels.normalise_tiles(bytes, tile_form(), out)
            }
        }
    }

    fn packed(&self, case: &Case) -> Result<&GatedHead, KernelError> {
        self.packed.as_ref().ok_or_else(|| short(case))
    }

    /// The same with bag `bag` alone, by its first set.
    pub fn alone(&self, bag: usize) -> Result<Work, Fault> {
        let case = Case {
            bags: 1,
            ..self.case
        };
        let rows = self.rows_of(bag);
        let mut set = Arrays::new();
        for (name, array) in &self.sets[0] {
            let per = match extent(&self.case, name) {
                Extent::Row(width) => (rows.start * width, rows.end * width),
                Extent::Bag(width) => (bag * width, (bag + 1) * width),
                Extent::All => (0, array.len()),
            };
            set.insert(name, array.part(per.0, per.1));
        }
        let mask = self.mask.as_ref().map(|mask| mask[rows.clone()].to_vec());
        Work::of(
            case,
            vec![0, rows.len()],
            mask,
            self.head.clone(),
            vec![set],
        )
    }

    /// Fresh outputs for this work's own rows, which are another number than its case's when it is a bag alone.
    pub fn own_outputs(&self) -> Outputs {
        if self.case.kernel == Kernel::Tiles {
            return self.outputs();
        }
        shaped(&self.case, self.bags.total(), self.bags.len())
    }

    /// Rows of a bag.
    pub fn rows_of(&self, bag: usize) -> std::ops::Range<usize> {
        match self.case.kernel {
            Kernel::Tiles => bag..bag + 1,
            _ => self.offsets[bag]..self.offsets[bag + 1],
        }
    }

    /// Whether row `row` is a member.
    pub fn member(&self, row: usize) -> bool {
        self.mask.as_ref().is_none_or(|mask| mask[row])
    }
}

/// Named arrays in the order in which a call takes them, with what their elements belong to.
pub type Outputs = Vec<(&'static str, Array, Extent)>;

fn short(case: &Case) -> KernelError {
    KernelError {
        kernel: case.kernel.name(),
        shape: case.name(),
        cause: weir_kernels::Cause::Limit {
            what: "outputs",
            limit: 0,
            got: 1,
        },
    }
}

fn pool_out<'a, M: Memory + 'a>(
    next: &mut impl FnMut() -> Result<&'a mut M, KernelError>,
    n: usize,
    b: usize,
    d: usize,
) -> Result<PoolOut<'a>, KernelError> {
    Ok(PoolOut {
        pooled: next()?.view_mut([b, d])?,
        weights: WeightsOut {
            weights: next()?.view_mut([n])?,
            sums: next()?.view_mut([b])?,
            squares: next()?.view_mut([b])?,
            entropy: next()?.view_mut([b])?,
            flags: next()?.view_mut([b])?,
        },
    })
}

fn state_name(name: &str) -> &'static str {
    match name {
        "pooled" => "state.pooled",
        "weights" => "state.weights",
        "sums" => "state.sums",
        "logits" => "state.logits",
        "squares" => "state.squares",
        "entropy" => "state.entropy",
        _ => "state.flags",
    }
}

/// What the elements of an input belong to.
fn extent(case: &Case, name: &str) -> Extent {
    match name {
        "features" => Extent::Row(case.d),
        "tiles" => Extent::Row(case.rows * case.rows * 3),
        "gradient" if case.kernel == Kernel::Weights => Extent::Row(1),
        "gradient" | "state.pooled" => Extent::Bag(case.d),
        "logits" | "state.logits" | "state.weights" => Extent::Row(1),
        _ => Extent::Bag(1),
    }
}

fn inputs(case: &Case, random: &mut Random, offsets: &[usize], mask: Option<&[bool]>) -> Arrays {
    let n = offsets.last().copied().unwrap_or(0);
    let mut set = Arrays::new();
    match case.kernel {
        Kernel::Tiles => {
            set.insert("tiles", random.array(Dtype::U8, case.total() * 3, 1.0));
            return set;
        }
        Kernel::Pool | Kernel::Gated => {
            set.insert("features", random.array(case.dtype, n * case.d, 1.0));
        }
        Kernel::Weights | Kernel::TopK => {}
    }
    set.insert("logits", random.array(Dtype::F32, n, 3.0));
    if case.backward {
        let len = match case.kernel {
            Kernel::Weights => n,
            _ => case.bags * case.d,
        };
        set.insert("gradient", random.array(Dtype::F32, len, 1.0));
    }
    let masked = (0..n).filter(|&row| mask.is_some_and(|mask| !mask[row]));
    for row in masked {
        for (name, array) in &mut set {
            if let Extent::Row(width) = extent(case, name) {
                let places = row * width..(row + 1) * width;
                match array {
                    Array::F32(data) => data[places].fill(f32::NAN),
                    Array::F16(data) => data[places].fill(half::f16::NAN),
                    Array::Bf16(data) => data[places].fill(half::bf16::NAN),
                    _ => {}
                }
            }
        }
    }
    set
}

fn outputs_of(case: &Case) -> Outputs {
    let n = match case.kernel {
        Kernel::Tiles => 0,
        _ => case.total(),
    };
    shaped(case, n, case.bags)
}

fn shaped(case: &Case, n: usize, b: usize) -> Outputs {
    let (d, l) = (case.d, case.l);
    let of = |name, dtype, extent| {
        let len = match extent {
            Extent::Row(width) => n * width,
            Extent::Bag(width) => b * width,
            Extent::All => 0,
        };
        (name, Array::poisoned(dtype, len), extent)
    };
    let all = |name, len| (name, Array::poisoned(Dtype::F32, len), Extent::All);
    let f32s = Dtype::F32;
    let weights = || {
        vec![
            of("weights", f32s, Extent::Row(1)),
            of("sums", f32s, Extent::Bag(1)),
            of("squares", f32s, Extent::Bag(1)),
            of("entropy", f32s, Extent::Bag(1)),
            of("flags", Dtype::U32, Extent::Bag(1)),
        ]
    };
    let pool = || {
        let mut out = vec![of("pooled", f32s, Extent::Bag(d))];
        out.extend(weights());
        out
    };
    match (case.kernel, case.backward) {
        (Kernel::Weights, false) => weights(),
        (Kernel::Weights, true) => vec![of("logits", f32s, Extent::Row(1))],
        (Kernel::Pool, false) => pool(),
        (Kernel::Pool, true) => vec![
            of("logits", f32s, Extent::Row(1)),
            of("features", case.dtype, Extent::Row(d)),
        ],
        (Kernel::Gated, false) => {
            let mut out = vec![of("logits", f32s, Extent::Row(1))];
            out.extend(pool());
            out
        }
        (Kernel::Gated, true) => vec![
            all("value", l * d),
            all("value bias", l),
            all("gate", l * d),
            all("gate bias", l),
            all("weight", l),
            all("bias", 1),
            of("features", case.dtype, Extent::Row(d)),
        ],
        (Kernel::TopK, _) => vec![
            of("highest", Dtype::I32, Extent::Bag(d)),
            of("lowest", Dtype::I32, Extent::Bag(d)),
            of("nans", Dtype::U32, Extent::Bag(1)),
        ],
        (Kernel::Tiles, _) => vec![of(
            "numbers",
            case.dtype,
            Extent::Bag(3 * case.rows * case.rows),
        )],
    }
}
