//! What a case runs on: random inputs in several sets, poisoned outputs, and the call itself.

use crate::Fault;
use crate::case::{Case, Kernel};
use crate::data::{Array, Random};
use crate::shapes::{Arrays, Extent, Outputs, extent, inputs, outputs_of, shaped, state_name};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use weir_kernels::attention::AttentionHead;
use weir_kernels::gated::{GatedHead, GatedTape};
use weir_kernels::kernels::{
    Ends, GatedBackward, GatedOut, GatedState, PoolBackward, PoolGradient, PoolOut, PoolState,
    TileForm, TopKOut, WeightsOut,
};
use weir_kernels::linear::Linear;
use weir_kernels::{Bags, KernelError, Kernels, View, ViewMut};

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
    /// What a step's forward pass writes, the same memory in every step, as in a training loop.
    step: Mutex<(Outputs, GatedTape)>,
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
            step: Mutex::default(),
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
        let forward = self.forward();
        for set in 0..self.sets.len() {
            let mut made = shaped(&forward, self.bags.total(), self.bags.len());
            let mut tape = self.case.kept.then(GatedTape::new);
            let outputs = &mut made.iter_mut().map(|(_, array, _)| array);
            let inputs = (&self.sets[set], &Arrays::new());
            self.call(&forward, kernels, inputs, None, tape.as_mut(), outputs)?;
            self.tapes[set] = tape.unwrap_or_default();
            self.sets[set].extend(
                made.into_iter()
                    .map(|(name, array, _)| (state_name(name), array)),
            );
        }
        Ok(())
    }

    /// The case's forward pass.
    fn forward(&self) -> Case {
        Case {
            backward: false,
            step: false,
            ..self.case
        }
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
        let set_of = &self.sets[set];
        if !self.case.step {
            let tape = Some(&self.tapes[set]);
            return self.call(&self.case, kernels, (set_of, set_of), tape, None, outputs);
        }
        let mut step = self.step.lock().unwrap_or_else(PoisonError::into_inner);
        let (made, tape) = &mut *step;
        let forward = self.forward();
        if made.is_empty() {
            *made = shaped(&forward, self.bags.total(), self.bags.len());
        }
        let keeps = Some(&mut *tape);
        let of_forward = &mut made.iter_mut().map(|(_, array, _)| array);
        let inputs = (set_of, &Arrays::new());
        self.call(&forward, kernels, inputs, None, keeps, of_forward)?;
        // The arrays are only moved: what the one pass wrote is what the other reads.
        let order: Vec<_> = made
            .iter()
            .map(|(name, _, extent)| (*name, *extent))
            .collect();
        let mut state: Arrays = made
            .drain(..)
            .map(|(name, array, _)| (state_name(name), array))
            .collect();
        let done = self.call(
            &self.case,
            kernels,
            (set_of, &state),
            Some(tape),
            None,
            outputs,
        );
        made.extend(
            order
                .into_iter()
                .filter_map(|(name, extent)| Some((name, state.remove(state_name(name))?, extent))),
        );
        done
    }

    /// What the forward pass over that set kept.
    pub fn tape(&self, set: usize) -> Option<&GatedTape> {
        self.tapes.get(set)
    }

    /// The call on inputs and outputs that lie anywhere: the case's inputs and what its forward pass left.
    pub fn call<'a, M: Memory + 'a>(
        &self,
        case: &Case,
        kernels: &dyn Kernels,
        (set, left): (&BTreeMap<&'static str, M>, &BTreeMap<&'static str, M>),
        tape: Option<&GatedTape>,
        keeps: Option<&mut GatedTape>,
        outputs: &mut dyn Iterator<Item = &'a mut M>,
    ) -> Result<(), KernelError> {
        let (bags, rule) = (&self.bags, case.rule());
        let (n, b, d, l) = (bags.total(), bags.len(), case.d, case.l);
        let mut next = || outputs.next().ok_or_else(|| short(case));
        let state = || -> Result<PoolState<'_>, KernelError> {
            Ok(PoolState {
                pooled: left["state.pooled"].view([b, d])?,
                weights: left["state.weights"].view([n])?,
                sums: left["state.sums"].view([b])?,
                flags: left["state.flags"].view([b])?,
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
                left["state.weights"].view([n])?,
                left["state.sums"].view([b])?,
                left["state.flags"].view([b])?,
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
                    logits: left["state.logits"].view([n])?,
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
