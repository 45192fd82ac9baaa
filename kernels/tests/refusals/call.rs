//! A call of each kernel, one argument of which may be wrong.

use weir_kernels::attention::AttentionHead;
use weir_kernels::gated::GatedHead;
use weir_kernels::kernels::{
    Ends, GatedBackward, GatedOut, GatedState, Kernels, PoolBackward, PoolGradient, PoolOut,
    PoolState, Rule, TileForm, TopKOut, WeightsOut,
};
use weir_kernels::linear::Linear;
use weir_kernels::normalise::{Link, Normalisation};
use weir_kernels::view::{Dtype, Layout, Place, View, ViewMut};
use weir_kernels::{Bags, KernelError};

pub const BAGS: usize = 2;
pub const ROWS: usize = 5;
pub const WIDTH: usize = 8;
pub const HIDDEN: usize = 4;
pub const SQUARED: Rule = Rule {
    normalisation: Normalisation::SquaredAverage,
    link: Link::None,
};

/// An argument that is not as it should be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Wrong {
    /// One place fewer along the first axis.
    Shape,
    Dtype,
    /// Elements of a row apart.
    Strides,
    /// Rows that share elements.
    Overlap,
    /// On a device that is not there.
    Place,
    /// Between two elements.
    Address,
}

/// The arguments of one call: `wrong` says which is not as it should be.
pub struct Call<'a> {
    pub kernels: &'a dyn Kernels,
    pub wrong: Option<(&'a str, Wrong)>,
    pub memory: Vec<u64>,
}

impl Call<'_> {
    /// Of that name, its dtype and shape; in memory of its own.
    pub fn layout<const N: usize>(
        &mut self,
        name: &str,
        dtype: Dtype,
        shape: [usize; N],
    ) -> Layout<N> {
        let mut layout = Layout {
            address: self.memory.as_mut_ptr() as u64,
            dtype,
            shape,
            strides: weir_kernels::view::dense(shape),
            place: Place::Host,
        };
        match self.wrong.filter(|(of, _)| *of == name).map(|(_, how)| how) {
            None => {}
            Some(Wrong::Shape) => layout.shape[0] -= 1,
            Some(Wrong::Dtype) if dtype == Dtype::U8 => layout.dtype = Dtype::I32,
            Some(Wrong::Dtype) => layout.dtype = Dtype::U8,
            Some(Wrong::Strides) => layout.strides = layout.strides.map(|stride| 2 * stride),
            Some(Wrong::Overlap) => layout.strides[0] -= 1,
            Some(Wrong::Place) => layout.place = Place::Cuda(7),
            Some(Wrong::Address) => layout.address += 1,
        }
        layout
    }

    pub fn view<const N: usize>(
        &mut self,
        name: &str,
        dtype: Dtype,
        shape: [usize; N],
    ) -> View<'static, N> {
        let layout = self.layout(name, dtype, shape);
        // SAFETY: a call with something wrong reads nothing, and one without finds initialised memory of enough bytes.
        unsafe { View::foreign(layout) }
    }

    pub fn out<const N: usize>(
        &mut self,
        name: &str,
        dtype: Dtype,
        shape: [usize; N],
    ) -> ViewMut<'static, N> {
        let layout = self.layout(name, dtype, shape);
        // SAFETY: such calls are refused before they write: each has something wrong.
        unsafe { ViewMut::foreign(layout) }
    }

    pub fn weights_out(&mut self) -> WeightsOut<'static> {
        WeightsOut {
            weights: self.out("weights", Dtype::F32, [ROWS]),
            sums: self.out("sums", Dtype::F32, [BAGS]),
            squares: self.out("squares", Dtype::F32, [BAGS]),
            entropy: self.out("entropy", Dtype::F32, [BAGS]),
            flags: self.out("flags", Dtype::U32, [BAGS]),
        }
    }

    pub fn state(&mut self) -> PoolState<'static> {
        PoolState {
            pooled: self.view("pooled", Dtype::F32, [BAGS, WIDTH]),
            weights: self.view("weights", Dtype::F32, [ROWS]),
            sums: self.view("sums", Dtype::F32, [BAGS]),
            flags: self.view("flags", Dtype::U32, [BAGS]),
        }
    }

    pub fn gradient(&mut self) -> PoolGradient<'static> {
        PoolGradient {
            pooled: self.view("pooled vectors' gradient", Dtype::F32, [BAGS, WIDTH]),
            weights: Some(self.view("weights' gradient", Dtype::F32, [ROWS])),
        }
    }

    pub fn weights(&mut self, rule: Rule) -> Result<(), KernelError> {
        let logits = self.view("logits", Dtype::F32, [ROWS]);
        let out = self.weights_out();
        self.kernels.weights(&bags(), rule, logits, out)
    }

    pub fn weights_backward(&mut self, rule: Rule) -> Result<(), KernelError> {
        let logits = self.view("logits", Dtype::F32, [ROWS]);
        let state = self.state();
        let gradient = self.view("gradient", Dtype::F32, [ROWS]);
        let out = self.out("logits' gradient", Dtype::F32, [ROWS]);
        let (weights, sums, flags) = (state.weights, state.sums, state.flags);
        self.kernels
            .weights_backward(&bags(), rule, logits, weights, sums, flags, gradient, out)
    }

    pub fn pool(&mut self, rule: Rule, width: usize) -> Result<(), KernelError> {
        let features = self.view("features", Dtype::Bf16, [ROWS, width]);
        let logits = self.view("logits", Dtype::F32, [ROWS]);
        let out = PoolOut {
            pooled: self.out("pooled", Dtype::F32, [BAGS, width]),
            weights: self.weights_out(),
        };
        self.kernels.pool(&bags(), rule, features, logits, out)
    }

    pub fn pool_backward(&mut self, rule: Rule) -> Result<(), KernelError> {
        let features = self.view("features", Dtype::F16, [ROWS, WIDTH]);
        let logits = self.view("logits", Dtype::F32, [ROWS]);
        let (state, gradient) = (self.state(), self.gradient());
        let out = PoolBackward {
            logits: self.out("logits' gradient", Dtype::F32, [ROWS]),
            features: Some(self.out("features' gradient", Dtype::F16, [ROWS, WIDTH])),
        };
        self.kernels
            .pool_backward(&bags(), rule, features, logits, state, gradient, out)
    }

    pub fn gated_pool(&mut self, rule: Rule) -> Result<(), KernelError> {
        let features = self.view("features", Dtype::F32, [ROWS, WIDTH]);
        let out = GatedOut {
            logits: self.out("logits", Dtype::F32, [ROWS]),
            pool: PoolOut {
                pooled: self.out("pooled", Dtype::F32, [BAGS, WIDTH]),
                weights: self.weights_out(),
            },
            tape: None,
        };
        self.kernels
            .gated_pool(&bags(), rule, &head(), features, out)
    }

    pub fn gated_pool_backward(&mut self, rule: Rule, gate: bool) -> Result<(), KernelError> {
        let features = self.view("features", Dtype::F32, [ROWS, WIDTH]);
        let state = GatedState {
            logits: self.view("logits", Dtype::F32, [ROWS]),
            pool: self.state(),
            tape: None,
        };
        let gradient = self.gradient();
        let layer = [HIDDEN, WIDTH];
        let out = GatedBackward {
            value: self.out("value", Dtype::F32, layer),
            value_bias: self.out("value bias", Dtype::F32, [HIDDEN]),
            gate: gate.then(|| {
                (
                    self.out("gate", Dtype::F32, layer),
                    self.out("gate bias", Dtype::F32, [HIDDEN]),
                )
            }),
            weight: self.out("weight", Dtype::F32, [HIDDEN]),
            bias: self.out("bias", Dtype::F32, [1]),
            features: Some(self.out("features' gradient", Dtype::F32, [ROWS, WIDTH])),
        };
        self.kernels
            .gated_pool_backward(&bags(), rule, &head(), features, state, gradient, out)
    }

    pub fn top_k(&mut self, highest: usize) -> Result<(), KernelError> {
        let scores = self.view("scores", Dtype::F32, [ROWS]);
        let out = TopKOut {
            highest: self.out("highest", Dtype::I32, [BAGS, highest]),
            lowest: self.out("lowest", Dtype::I32, [BAGS, 2]),
            nans: self.out("nans", Dtype::U32, [BAGS]),
        };
        let ends = Ends { highest, lowest: 2 };
        self.kernels.top_k(&bags(), ends, scores, out)
    }

    pub fn tiles(&mut self, form: TileForm) -> Result<(), KernelError> {
        let tiles = self.view("tiles", Dtype::U8, [2, 4, 4, 3]);
        let out = self.out("out", Dtype::F32, [2, 3, 4, 4]);
        self.kernels.normalise_tiles(tiles, form, out)
    }
}

pub fn bags() -> Bags {
    Bags::new(&[0, 3, ROWS], None).unwrap()
}

pub fn head() -> GatedHead {
    let layer = || Linear::new(&[0.5; HIDDEN * WIDTH], &[0.0; HIDDEN]);
    let weight = vec![1.0; HIDDEN];
    GatedHead::new(AttentionHead::new(layer(), Some(layer()), weight, 0.0))
}

pub fn form() -> TileForm {
    TileForm::new([0.5; 3], [0.25; 3])
}

pub type Ask = fn(&mut Call<'_>) -> Result<(), KernelError>;
