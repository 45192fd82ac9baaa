//! Random ragged bags for the tests of (a) and (b): empty and one-row bags, an odd bag last, masked rows full of NaN,
//! members that must be refused, logits huge, tiny and zero, rows that lie apart.
#![allow(clippy::unwrap_used, dead_code, missing_docs)]

pub mod edges;

use half::{bf16, f16};
use proptest::prelude::*;
use weir_kernels::bags::Bags;
use weir_kernels::kernels::{
    Kernels, PoolBackward, PoolGradient, PoolOut, PoolState, Rule, WeightsOut,
};
use weir_kernels::normalise::{Link, Normalisation};
use weir_kernels::{View, ViewMut};

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Type {
    F32,
    F16,
    Bf16,
}

/// Features as they are stored.
#[derive(Clone, Debug)]
pub enum Stored {
    F32(Vec<f32>),
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
}

impl Type {
    pub fn store(self, values: &[f32]) -> Stored {
        match self {
            Type::F32 => Stored::F32(values.to_vec()),
            Type::F16 => Stored::F16(values.iter().map(|&v| f16::from_f32(v)).collect()),
            Type::Bf16 => Stored::Bf16(values.iter().map(|&v| bf16::from_f32(v)).collect()),
        }
    }
}

impl Stored {
    pub fn kind(&self) -> Type {
        match self {
            Stored::F32(_) => Type::F32,
            Stored::F16(_) => Type::F16,
            Stored::Bf16(_) => Type::Bf16,
        }
    }

    pub fn wide(&self) -> Vec<f32> {
        match self {
            Stored::F32(v) => v.clone(),
            Stored::F16(v) => v.iter().map(|v| v.to_f32()).collect(),
            Stored::Bf16(v) => v.iter().map(|v| v.to_f32()).collect(),
        }
    }

    pub fn view(&self, shape: [usize; 2], stride: usize) -> View<'_, 2> {
        let strides = [stride, 1];
        match self {
            Stored::F32(v) => View::strided(v, shape, strides),
            Stored::F16(v) => View::strided(v, shape, strides),
            Stored::Bf16(v) => View::strided(v, shape, strides),
        }
        .unwrap()
    }

    pub fn view_mut(&mut self, shape: [usize; 2], stride: usize) -> ViewMut<'_, 2> {
        let strides = [stride, 1];
        match self {
            Stored::F32(v) => ViewMut::strided(v, shape, strides),
            Stored::F16(v) => ViewMut::strided(v, shape, strides),
            Stored::Bf16(v) => ViewMut::strided(v, shape, strides),
        }
        .unwrap()
    }
}

#[derive(Clone, Debug)]
pub struct Case {
    pub offsets: Vec<usize>,
    pub mask: Vec<bool>,
    pub logits: Vec<f32>,
    pub width: usize,
    /// Elements from row to row.
    pub stride: usize,
    pub features: Stored,
    /// dL/dz, `[bags, width]`.
    pub u: Vec<f32>,
    /// dL/dw, `[rows]`.
    pub direct: Vec<f32>,
}

/// SplitMix64.
pub struct Random(pub u64);

impl Random {
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    /// In 0..n.
    pub fn below(&mut self, n: usize) -> usize {
        (self.bits() % n as u64) as usize
    }
    /// In -1..1.
    pub fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / 8_388_608.0 - 1.0
    }
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// What is odd about a bag.
#[derive(Clone, Copy, Debug)]
pub enum Odd {
    Nothing,
    /// Every logit is 0.
    Zeros,
    /// Logits beyond the domain of squares.
    Huge,
    Tiny,
    /// Members that must be refused.
    Refused,
    /// Refused ones, and what is left has no sum.
    RefusedZeros,
    /// Features whose weighted sums leave f32's range.
    Overflow,
}

pub const ODD: [Odd; 7] = [
    Odd::Nothing,
    Odd::Zeros,
    Odd::Huge,
    Odd::Tiny,
    Odd::Refused,
    Odd::RefusedZeros,
    Odd::Overflow,
];

impl Case {
    /// Bags of these sizes; `odd` comes up in one bag of three.
    pub fn new(seed: u64, sizes: &[usize], width: usize, kind: Type, masked: bool) -> Case {
        Case::with(seed, sizes, width, kind, masked, &ODD)
    }

    pub fn with(
        seed: u64,
        sizes: &[usize],
        width: usize,
        kind: Type,
        masked: bool,
        odd: &[Odd],
    ) -> Case {
        let mut r = Random(seed);
        let mut offsets = vec![0];
        offsets.extend(sizes.iter().scan(0, |sum, n| {
            *sum += n;
            Some(*sum)
        }));
        let rows = offsets[sizes.len()];
        let stride = width + [0, 0, 1, 8][r.below(4)];
        let mask: Vec<bool> = (0..rows).map(|_| !masked || !r.one_in(7)).collect();
        let mut logits: Vec<f32> = (0..rows).map(|_| r.unit() * 6.0).collect();
        let mut h: Vec<f32> = (0..rows * stride).map(|_| r.unit() * 4.0).collect();
        for bag in 0..sizes.len() {
            let own = offsets[bag]..offsets[bag + 1];
            let what = match r.one_in(3) {
                true => odd[r.below(odd.len())],
                false => Odd::Nothing,
            };
            for row in own {
                let any = if width > 0 { r.below(width) } else { 0 };
                let feature = row * stride + any;
                match what {
                    Odd::Nothing => {}
                    Odd::Zeros => logits[row] = [0.0, -0.0][r.below(2)],
                    Odd::Huge => logits[row] *= 10f32.powi(r.below(21) as i32),
                    Odd::Tiny => logits[row] *= 10f32.powi(-(r.below(44) as i32)),
                    Odd::Refused | Odd::RefusedZeros => {
                        if matches!(what, Odd::RefusedZeros) {
                            logits[row] = 0.0;
                        }
                        let bad = [f32::NAN, f32::INFINITY, -f32::INFINITY, 1e18, -2e30];
                        if r.one_in(5) {
                            logits[row] = bad[r.below(3)];
                        } else if r.one_in(5) && width > 0 {
                            h[feature] = bad[r.below(5)];
                        }
                    }
                    Odd::Overflow => {
                        logits[row] = 1e12 * r.unit();
                        if width > 0 {
                            h[feature] = 9e17;
                        }
                    }
                }
            }
        }
        for row in (0..rows).filter(|&row| !mask[row]) {
            logits[row] = f32::NAN;
            h[row * stride..row * stride + width].fill(f32::NAN);
        }
        // What lies between rows is nobody's.
        for row in 0..rows {
            h[row * stride + width..(row + 1) * stride].fill(f32::NAN);
        }
        Case {
            mask,
            logits,
            width,
            stride,
            features: kind.store(&h),
            u: (0..sizes.len() * width).map(|_| r.unit()).collect(),
            direct: (0..rows).map(|_| r.unit()).collect(),
            offsets,
        }
    }

    pub fn bags(&self) -> Bags {
        Bags::new(&self.offsets, Some(&self.mask)).unwrap()
    }

    pub fn rows(&self) -> usize {
        self.mask.len()
    }

    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Each row's features.
    pub fn wide(&self) -> Vec<Vec<f32>> {
        let wide = self.features.wide();
        (0..self.rows())
            .map(|row| wide[row * self.stride..row * self.stride + self.width].to_vec())
            .collect()
    }

    pub fn view(&self) -> View<'_, 2> {
        self.features.view([self.rows(), self.width], self.stride)
    }

    /// The bag of these rows alone.
    pub fn part(&self, bag: usize) -> Case {
        let (from, to) = (self.offsets[bag], self.offsets[bag + 1]);
        let mut part = self.clone();
        part.offsets = vec![0, to - from];
        part.mask = self.mask[from..to].to_vec();
        part.logits = self.logits[from..to].to_vec();
        part.direct = self.direct[from..to].to_vec();
        part.u = self.u[bag * self.width..(bag + 1) * self.width].to_vec();
        let span = from * self.stride..to * self.stride;
        part.features = match &self.features {
            Stored::F32(v) => Stored::F32(v[span].to_vec()),
            Stored::F16(v) => Stored::F16(v[span].to_vec()),
            Stored::Bf16(v) => Stored::Bf16(v[span].to_vec()),
        };
        part
    }
}

pub fn types() -> impl Strategy<Value = Type> {
    prop_oneof![Just(Type::F32), Just(Type::F16), Just(Type::Bf16)]
}

pub fn case() -> impl Strategy<Value = Case> {
    let size = prop_oneof![
        Just(0usize),
        Just(1),
        2usize..60,
        120usize..140,
        Just(256),
        250usize..700
    ];
    let width = prop_oneof![
        Just(1usize),
        Just(8),
        Just(5),
        9usize..80,
        Just(256),
        250usize..600
    ];
    (
        any::<u64>(),
        prop::collection::vec(size, 0..5),
        1usize..60,
        width,
        types(),
        any::<bool>(),
    )
        .prop_map(|(seed, mut sizes, last, width, kind, masked)| {
            sizes.push(2 * last + 1);
            Case::new(seed, &sizes, width, kind, masked)
        })
}

/// Every rule that the kernels know.
pub const RULES: [Normalisation; 8] = [
    Normalisation::SquaredAverage,
    Normalisation::Softmax,
    Normalisation::Sigmoid,
    Normalisation::Mean,
    Normalisation::Power(2.0),
    Normalisation::Power(1.5),
    Normalisation::Power(3.0),
    Normalisation::Power(0.25),
];

pub fn rules() -> impl Strategy<Value = Rule> {
    (
        0..RULES.len(),
        prop_oneof![Just(Link::None), Just(Link::Sigmoid)],
    )
        .prop_map(|(normalisation, link)| Rule {
            normalisation: RULES[normalisation],
            link,
        })
}

/// Results of (a) and (b), as bits where they are floats would differ by NaN; no result is one.
#[derive(Clone, Debug, PartialEq)]
pub struct Results {
    pub weights: Vec<f32>,
    pub sums: Vec<f32>,
    pub squares: Vec<f32>,
    pub entropy: Vec<f32>,
    pub flags: Vec<u32>,
    pub pooled: Vec<f32>,
}

impl Results {
    pub fn new(case: &Case) -> Results {
        Results::filled(case, 0.0)
    }

    /// Poisoned, where a kernel is to write.
    pub fn filled(case: &Case, value: f32) -> Results {
        let bags = vec![value; case.len()];
        Results {
            weights: vec![value; case.rows()],
            sums: bags.clone(),
            squares: bags.clone(),
            entropy: bags,
            flags: vec![value.to_bits(); case.len()],
            pooled: vec![value; case.len() * case.width],
        }
    }

    /// (b) of the case that they were made for.
    pub fn pool(&mut self, on: &dyn Kernels, case: &Case, rule: Rule) {
        let logits = View::new(&case.logits, [case.rows()]).unwrap();
        let shape = [case.len(), case.width];
        let (weights, pooled) = self.weights_out();
        let out = PoolOut {
            pooled: ViewMut::new(pooled, shape).unwrap(),
            weights,
        };
        on.pool(&case.bags(), rule, case.view(), logits, out)
            .unwrap();
    }

    fn weights_out(&mut self) -> (WeightsOut<'_>, &mut Vec<f32>) {
        let (rows, bags) = (self.weights.len(), self.sums.len());
        let out = WeightsOut {
            weights: ViewMut::new(&mut self.weights, [rows]).unwrap(),
            sums: ViewMut::new(&mut self.sums, [bags]).unwrap(),
            squares: ViewMut::new(&mut self.squares, [bags]).unwrap(),
            entropy: ViewMut::new(&mut self.entropy, [bags]).unwrap(),
            flags: ViewMut::new(&mut self.flags, [bags]).unwrap(),
        };
        (out, &mut self.pooled)
    }
}

/// (a) of a case.
pub fn weights(on: &dyn Kernels, case: &Case, rule: Rule) -> Results {
    let mut results = Results::filled(case, f32::NAN);
    results.pooled.fill(0.0);
    let logits = View::new(&case.logits, [case.rows()]).unwrap();
    let (out, _) = results.weights_out();
    on.weights(&case.bags(), rule, logits, out).unwrap();
    results
}

/// (b) of a case.
pub fn pooled(on: &dyn Kernels, case: &Case, rule: Rule) -> Results {
    let mut results = Results::filled(case, f32::NAN);
    results.pool(on, case, rule);
    results
}

/// Gradients by logits and features.
#[derive(Clone, Debug, PartialEq)]
pub struct Slopes {
    pub logits: Vec<f32>,
    pub features: Vec<f32>,
}

/// Where a backward pass writes.
pub struct Gradients {
    pub logits: Vec<f32>,
    pub features: Stored,
}

impl Gradients {
    /// Poisoned.
    pub fn new(case: &Case) -> Gradients {
        let rows = case.rows();
        let poison = vec![f32::NAN; rows * case.stride];
        Gradients {
            logits: vec![f32::NAN; rows],
            features: case.features.kind().store(&poison),
        }
    }

    /// (b)'s backward pass over a case and its forward pass's `state`, with or without a gradient by the weights.
    pub fn pool(
        &mut self,
        on: &dyn Kernels,
        case: &Case,
        rule: Rule,
        state: &Results,
        direct: bool,
    ) {
        let rows = case.rows();
        let vectors = [case.len(), case.width];
        on.pool_backward(
            &case.bags(),
            rule,
            case.view(),
            View::new(&case.logits, [rows]).unwrap(),
            PoolState {
                pooled: View::new(&state.pooled, vectors).unwrap(),
                weights: View::new(&state.weights, [rows]).unwrap(),
                sums: View::new(&state.sums, [case.len()]).unwrap(),
                flags: View::new(&state.flags, [case.len()]).unwrap(),
            },
            PoolGradient {
                pooled: View::new(&case.u, vectors).unwrap(),
                weights: direct.then(|| View::new(&case.direct, [rows]).unwrap()),
            },
            PoolBackward {
                logits: ViewMut::new(&mut self.logits, [rows]).unwrap(),
                features: Some(self.features.view_mut([rows, case.width], case.stride)),
            },
        )
        .unwrap();
    }
}

/// Forward, then backward.
pub fn slopes(on: &dyn Kernels, case: &Case, rule: Rule, direct: bool) -> Slopes {
    let state = pooled(on, case, rule);
    let mut to = Gradients::new(case);
    to.pool(on, case, rule, &state, direct);
    let wide = to.features.wide();
    let features = (0..case.rows())
        .flat_map(|row| wide[row * case.stride..row * case.stride + case.width].to_vec())
        .collect();
    Slopes {
        logits: to.logits,
        features,
    }
}

/// (a)'s backward pass, of its own forward pass.
pub fn weights_slopes(on: &dyn Kernels, case: &Case, rule: Rule) -> Vec<f32> {
    let state = weights(on, case, rule);
    let rows = case.rows();
    let mut out = vec![f32::NAN; rows];
    on.weights_backward(
        &case.bags(),
        rule,
        View::new(&case.logits, [rows]).unwrap(),
        View::new(&state.weights, [rows]).unwrap(),
        View::new(&state.sums, [case.len()]).unwrap(),
        View::new(&state.flags, [case.len()]).unwrap(),
        View::new(&case.direct, [rows]).unwrap(),
        ViewMut::new(&mut out, [rows]).unwrap(),
    )
    .unwrap();
    out
}
