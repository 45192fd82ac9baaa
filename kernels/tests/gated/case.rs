//! A random head over random bags, and what a device makes of them.

use half::{bf16, f16};
use weir_kernels::attention::AttentionHead;
use weir_kernels::gated::{GatedHead, GatedTape};
use weir_kernels::kernels::{
    GatedBackward, GatedOut, GatedState, PoolGradient, PoolOut, PoolState, WeightsOut,
};
use weir_kernels::linear::Linear;
use weir_kernels::{Bags, Dtype, KernelError, Kernels, Rule, View, ViewMut};

#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub d: usize,
    pub hidden: usize,
    pub gated: bool,
}

#[derive(Clone)]
enum Stored {
    F32(Vec<f32>),
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
}

impl Stored {
    fn wide(&self) -> Vec<f32> {
        match self {
            Stored::F32(h) => h.clone(),
            Stored::F16(h) => h.iter().map(|h| h.to_f32()).collect(),
            Stored::Bf16(h) => h.iter().map(|h| h.to_f32()).collect(),
        }
    }
}

pub struct Case {
    pub shape: Shape,
    pub bags: Bags,
    pub mask: Vec<bool>,
    pub offsets: Vec<usize>,
    pub value: (Vec<f32>, Vec<f32>),
    pub gate: (Vec<f32>, Vec<f32>),
    pub weight: Vec<f32>,
    pub bias: f32,
    /// As stored, widened.
    pub features: Vec<f32>,
    stored: Stored,
    pub head: GatedHead,
    seed: u64,
}

/// Uniform in -1..1.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> f32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let mut x = self.0;
        x ^= x >> 33;
        x = x.wrapping_mul(0xff51_afd7_ed55_8ccd);
        x ^= x >> 33;
        (x >> 40) as f32 / 8_388_608.0 - 1.0
    }

    pub fn many(&mut self, n: usize, scale: f32) -> Vec<f32> {
        (0..n).map(|_| self.next() * scale).collect()
    }
}

pub fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

fn head(
    shape: Shape,
    value: &(Vec<f32>, Vec<f32>),
    gate: &(Vec<f32>, Vec<f32>),
    weight: &[f32],
    bias: f32,
) -> GatedHead {
    let gate = shape.gated.then(|| Linear::new(&gate.0, &gate.1));
    let value = Linear::new(&value.0, &value.1);
    GatedHead::new(AttentionHead::new(value, gate, weight.to_vec(), bias))
}

impl Case {
    /// Every ninth row is masked and holds NaN.
    pub fn random(seed: u64, shape: Shape, lengths: &[usize], dtype: Dtype) -> Case {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) + shape.d as u64);
        let mut offsets = vec![0];
        for length in lengths {
            offsets.push(offsets[offsets.len() - 1] + length);
        }
        let rows = offsets[lengths.len()];
        let mask: Vec<bool> = (0..rows).map(|row| row % 9 != 4).collect();
        let scale = 2.0 / (shape.d as f32).sqrt();
        let layer = |random: &mut Random| {
            (
                random.many(shape.hidden * shape.d, scale),
                random.many(shape.hidden, 0.3),
            )
        };
        let (value, gate) = (layer(&mut random), layer(&mut random));
        let weight = random.many(shape.hidden, 3.0 / (shape.hidden as f32).sqrt());
        let mut features = random.many(rows * shape.d, 2.0);
        let stored = match dtype {
            Dtype::F16 => Stored::F16(features.iter().map(|&h| f16::from_f32(h)).collect()),
            Dtype::Bf16 => Stored::Bf16(features.iter().map(|&h| bf16::from_f32(h)).collect()),
            _ => Stored::F32(features.clone()),
        };
        features = stored.wide();
        let mut case = Case {
            head: head(shape, &value, &gate, &weight, 0.4),
            bags: Bags::new(&offsets, Some(&mask)).unwrap(),
            shape,
            mask,
            offsets,
            value,
            gate,
            weight,
            bias: 0.4,
            features,
            stored,
            seed,
        };
        for row in 0..rows {
            if !case.mask[row] {
                case.poison(row, f32::NAN);
            }
        }
        case
    }

    /// A head whose every logit is 0.
    pub fn silent(shape: Shape, lengths: &[usize]) -> Case {
        let mut case = Case::random(1, shape, lengths, Dtype::F32);
        case.weight.fill(0.0);
        case.bias = 0.0;
        case.mask.fill(true);
        case.features.fill(1.0);
        case.stored = Stored::F32(case.features.clone());
        case.bags = Bags::new(&case.offsets, None).unwrap();
        case.head = head(shape, &case.value, &case.gate, &case.weight, 0.0);
        case
    }

    /// The logits' last layer and the features multiplied.
    pub fn scaled(mut self, head: f32, features: f32) -> Case {
        self.weight.iter_mut().for_each(|w| *w *= head);
        self.bias *= head;
        self.head = self::head(self.shape, &self.value, &self.gate, &self.weight, self.bias);
        let by = |h: f32| h * features;
        match &mut self.stored {
            Stored::F32(h) => h.iter_mut().for_each(|h| *h = by(*h)),
            Stored::F16(h) => h
                .iter_mut()
                .for_each(|h| *h = f16::from_f32(by(h.to_f32()))),
            Stored::Bf16(h) => h
                .iter_mut()
                .for_each(|h| *h = bf16::from_f32(by(h.to_f32()))),
        }
        self.features = self.stored.wide();
        self
    }

    fn poison(&mut self, row: usize, with: f32) {
        let range = row * self.shape.d..(row + 1) * self.shape.d;
        match &mut self.stored {
            Stored::F32(h) => h[range].fill(with),
            Stored::F16(h) => h[range].fill(f16::from_f32(with)),
            Stored::Bf16(h) => h[range].fill(bf16::from_f32(with)),
        }
    }

    fn copy(&self, lengths: &[usize]) -> Case {
        let mut case = Case::random(self.seed, self.shape, lengths, Dtype::F32);
        case.value.clone_from(&self.value);
        case.gate.clone_from(&self.gate);
        case.weight.clone_from(&self.weight);
        case.bias = self.bias;
        case.head = head(self.shape, &self.value, &self.gate, &self.weight, self.bias);
        case
    }

    fn lengths(&self) -> Vec<usize> {
        self.offsets.windows(2).map(|w| w[1] - w[0]).collect()
    }

    /// One row holds `poison` in one feature; it is a member or it is masked.
    pub fn with_row(&self, row: usize, poison: f32, member: bool) -> Case {
        let mut case = self.copy(&self.lengths());
        case.features.clone_from(&self.features);
        case.stored = self.stored.clone();
        if let Stored::F32(h) = &mut case.stored {
            h[row * self.shape.d + 3] = poison;
        }
        case.mask[row] = member;
        case.bags = Bags::new(&case.offsets, Some(&case.mask)).unwrap();
        case
    }

    /// One bag of it.
    pub fn alone(&self, bag: usize) -> Case {
        let rows = self.offsets[bag]..self.offsets[bag + 1];
        let mut case = self.copy(&[rows.len()]);
        let range = rows.start * self.shape.d..rows.end * self.shape.d;
        case.features = self.features[range.clone()].to_vec();
        case.stored = match &self.stored {
            Stored::F32(h) => Stored::F32(h[range].to_vec()),
            Stored::F16(h) => Stored::F16(h[range].to_vec()),
            Stored::Bf16(h) => Stored::Bf16(h[range].to_vec()),
        };
        case.mask = self.mask[rows].to_vec();
        case.bags = Bags::new(&case.offsets, Some(&case.mask)).unwrap();
        case
    }

    /// Under a head of fewer features than it has.
    pub fn narrower(&self) -> Case {
        let mut case = self.copy(&self.lengths());
        let other = Case::random(
            2,
            Shape {
                d: self.shape.d - 1,
                ..self.shape
            },
            &[1],
            Dtype::F32,
        );
        case.head = other.head;
        case
    }

    pub fn random_gradient(&self) -> Vec<f32> {
        Random(self.seed + 99).many(self.bags.len() * self.shape.d, 1.0)
    }

    pub fn random_weights_gradient(&self) -> Vec<f32> {
        Random(self.seed + 98).many(self.bags.total(), 1.0)
    }

    /// Of the features.
    pub fn dtype(&self) -> Dtype {
        self.view().dtype()
    }

    fn view(&self) -> View<'_, 2> {
        let shape = [self.bags.total(), self.shape.d];
        match &self.stored {
            Stored::F32(h) => View::new(h, shape),
            Stored::F16(h) => View::new(h, shape),
            Stored::Bf16(h) => View::new(h, shape),
        }
        .unwrap()
    }

    pub fn forward(
        &self,
        device: &dyn Kernels,
        rule: Rule,
        tape: Option<&mut GatedTape>,
    ) -> Results {
        let mut out = Results::poisoned(self, self.bags.total());
        device
            .gated_pool(
                &self.bags,
                rule,
                &self.head,
                self.view(),
                out.views(self, tape),
            )
            .unwrap();
        out
    }

    pub fn try_forward(
        &self,
        device: &dyn Kernels,
        rule: Rule,
        rows: usize,
    ) -> Result<(), KernelError> {
        let mut out = Results::poisoned(self, rows);
        device.gated_pool(
            &self.bags,
            rule,
            &self.head,
            self.view(),
            out.views(self, None),
        )
    }

    pub fn backward(
        &self,
        device: &dyn Kernels,
        rule: Rule,
        dz: &[f32],
        dw: Option<&[f32]>,
        features: bool,
        taped: bool,
    ) -> Gradients {
        let mut tape = GatedTape::new();
        let state = self.forward(device, rule, taped.then_some(&mut tape));
        self.backward_from(
            &state,
            device,
            rule,
            dz,
            dw,
            features,
            taped.then_some(&tape),
        )
    }

    /// The backward pass alone, after that forward pass.
    #[allow(clippy::too_many_arguments)]
    pub fn backward_from(
        &self,
        state: &Results,
        device: &dyn Kernels,
        rule: Rule,
        dz: &[f32],
        dw: Option<&[f32]>,
        features: bool,
        tape: Option<&GatedTape>,
    ) -> Gradients {
        let (n, rows, Shape { d, hidden, gated }) =
            (self.bags.len(), self.bags.total(), self.shape);
        // Rows apart, and what lies between them is nobody's.
        let stride = d + 3;
        let nan = |n| vec![f32::NAN; n];
        let mut out = Gradients {
            value: nan(hidden * d),
            value_bias: nan(hidden),
            gate: nan(if gated { hidden * d } else { 0 }),
            gate_bias: nan(if gated { hidden } else { 0 }),
            weight: nan(hidden),
            bias: nan(1),
            features: Vec::new(),
        };
        let mut dh = match &self.stored {
            Stored::F32(_) => Stored::F32(nan(rows * stride)),
            Stored::F16(_) => Stored::F16(vec![f16::NAN; rows * stride]),
            Stored::Bf16(_) => Stored::Bf16(vec![bf16::NAN; rows * stride]),
        };
        let of_features = features.then(|| {
            match &mut dh {
                Stored::F32(h) => ViewMut::strided(h, [rows, d], [stride, 1]),
                Stored::F16(h) => ViewMut::strided(h, [rows, d], [stride, 1]),
                Stored::Bf16(h) => ViewMut::strided(h, [rows, d], [stride, 1]),
            }
            .unwrap()
        });
        let gradients = GatedBackward {
            value: ViewMut::new(&mut out.value, [hidden, d]).unwrap(),
            value_bias: ViewMut::new(&mut out.value_bias, [hidden]).unwrap(),
            gate: gated.then(|| {
                let gate = ViewMut::new(&mut out.gate, [hidden, d]).unwrap();
                (gate, ViewMut::new(&mut out.gate_bias, [hidden]).unwrap())
            }),
            weight: ViewMut::new(&mut out.weight, [hidden]).unwrap(),
            bias: ViewMut::new(&mut out.bias, [1]).unwrap(),
            features: of_features,
        };
        let pool = PoolState {
            pooled: View::new(&state.pooled, [n, d]).unwrap(),
            weights: View::new(&state.weights, [rows]).unwrap(),
            sums: View::new(&state.sums, [n]).unwrap(),
            flags: View::new(&state.flags, [n]).unwrap(),
        };
        let state = GatedState {
            logits: View::new(&state.logits, [rows]).unwrap(),
            pool,
            tape,
        };
        let gradient = PoolGradient {
            pooled: View::new(dz, [n, d]).unwrap(),
            weights: dw.map(|dw| View::new(dw, [rows]).unwrap()),
        };
        device
            .gated_pool_backward(
                &self.bags,
                rule,
                &self.head,
                self.view(),
                state,
                gradient,
                gradients,
            )
            .unwrap();
        if features {
            let wide = dh.wide();
            let mut rows = wide.chunks_exact(stride);
            assert!(rows.all(|row| row[d..].iter().all(|gap| gap.is_nan())));
            out.features = wide
                .chunks_exact(stride)
                .flat_map(|row| &row[..d])
                .copied()
                .collect();
        }
        out
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Results {
    pub logits: Vec<f32>,
    pub pooled: Vec<f32>,
    pub weights: Vec<f32>,
    pub sums: Vec<f32>,
    pub squares: Vec<f32>,
    pub entropy: Vec<f32>,
    pub flags: Vec<u32>,
}

impl Results {
    fn poisoned(case: &Case, rows: usize) -> Results {
        let n = case.bags.len();
        let nan = |n| vec![f32::NAN; n];
        Results {
            logits: nan(rows),
            pooled: nan(n * case.shape.d),
            weights: nan(case.bags.total()),
            sums: nan(n),
            squares: nan(n),
            entropy: nan(n),
            flags: vec![u32::MAX; n],
        }
    }

    fn views<'a>(&'a mut self, case: &Case, tape: Option<&'a mut GatedTape>) -> GatedOut<'a> {
        let n = case.bags.len();
        let (rows, all) = (self.logits.len(), self.weights.len());
        GatedOut {
            logits: ViewMut::new(&mut self.logits, [rows]).unwrap(),
            pool: PoolOut {
                pooled: ViewMut::new(&mut self.pooled, [n, case.shape.d]).unwrap(),
                weights: WeightsOut {
                    weights: ViewMut::new(&mut self.weights, [all]).unwrap(),
                    sums: ViewMut::new(&mut self.sums, [n]).unwrap(),
                    squares: ViewMut::new(&mut self.squares, [n]).unwrap(),
                    entropy: ViewMut::new(&mut self.entropy, [n]).unwrap(),
                    flags: ViewMut::new(&mut self.flags, [n]).unwrap(),
                },
            },
            tape,
        }
    }

    /// What it says of one bag.
    pub fn of_bag(&self, case: &Case, bag: usize) -> Results {
        let (rows, d) = (case.bags.rows(bag), case.shape.d);
        Results {
            logits: self.logits[rows.clone()].to_vec(),
            pooled: self.pooled[bag * d..(bag + 1) * d].to_vec(),
            weights: self.weights[rows].to_vec(),
            sums: vec![self.sums[bag]],
            squares: vec![self.squares[bag]],
            entropy: vec![self.entropy[bag]],
            flags: vec![self.flags[bag]],
        }
    }

    pub fn bits(&self) -> Vec<u32> {
        let parts = [
            &self.logits,
            &self.pooled,
            &self.weights,
            &self.sums,
            &self.squares,
            &self.entropy,
        ];
        let mut all: Vec<u32> = parts.into_iter().flat_map(|part| bits(part)).collect();
        all.extend(&self.flags);
        all
    }
}

#[derive(Clone, Debug)]
pub struct Gradients {
    pub value: Vec<f32>,
    pub value_bias: Vec<f32>,
    pub gate: Vec<f32>,
    pub gate_bias: Vec<f32>,
    pub weight: Vec<f32>,
    pub bias: Vec<f32>,
    pub features: Vec<f32>,
}

impl Gradients {
    pub fn parts(&self) -> [(&'static str, &Vec<f32>); 7] {
        [
            ("value", &self.value),
            ("value bias", &self.value_bias),
            ("gate", &self.gate),
            ("gate bias", &self.gate_bias),
            ("weight", &self.weight),
            ("bias", &self.bias),
            ("features", &self.features),
        ]
    }

    pub fn bits(&self) -> Vec<u32> {
        self.parts()
            .into_iter()
            .flat_map(|(_, part)| bits(part))
            .collect()
    }

    pub fn all_finite(&self) -> bool {
        self.parts()
            .into_iter()
            .all(|(_, part)| part.iter().all(|g| g.is_finite()))
    }
}
