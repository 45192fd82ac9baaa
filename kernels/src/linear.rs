//! Fully connected layer.

/// y = W x + b.
#[derive(Clone, Debug, PartialEq)]
pub struct Linear {
    outputs: usize,
    /// [input, output]: the transpose of PyTorch's layout, so that the outputs of one input lie side by side and the
    /// compiler may run several at once without changing the order of any sum.
    transposed: Vec<f32>,
    bias: Vec<f32>,
}

impl Linear {
    /// From PyTorch's layout: `weight` [outputs, inputs] row by row, `bias` `[outputs]`.
    ///
    /// # Panics
    /// When `weight` is no whole number of rows of `bias.len()` outputs: the caller has checked its file.
    pub fn new(weight: &[f32], bias: &[f32]) -> Linear {
        let outputs = bias.len();
        assert!(
            outputs > 0 && weight.len().is_multiple_of(outputs),
            "a weight of {} numbers has no {outputs} rows",
            weight.len()
        );
        let inputs = weight.len() / outputs;
        let mut transposed = vec![0.0; weight.len()];
        for (output, row) in weight.chunks_exact(inputs.max(1)).enumerate() {
            for (input, &value) in row.iter().enumerate() {
                transposed[input * outputs + output] = value;
            }
        }
        Linear {
            outputs,
            transposed,
            bias: bias.to_vec(),
        }
    }

    /// Numbers in.
    pub fn inputs(&self) -> usize {
        self.transposed.len() / self.outputs
    }

    /// Numbers out.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// The weights of one output, by input.
    pub fn row(&self, output: usize) -> Vec<f32> {
        self.transposed
            .iter()
            .skip(output)
            .step_by(self.outputs)
            .copied()
            .collect()
    }

    /// The weight of one input for one output.
    #[inline]
    pub fn weight(&self, output: usize, input: usize) -> f32 {
        self.transposed[input * self.outputs + output]
    }

    /// Bias of one output.
    pub fn bias(&self, output: usize) -> f32 {
        self.bias[output]
    }

    /// Writes W x + b into `y`: for each output a sum over ascending inputs from 0, the bias last.
    pub fn apply_into(&self, x: &[f32], y: &mut Vec<f32>) {
        y.clear();
        y.resize(self.outputs, 0.0);
        for (&x, column) in x.iter().zip(self.transposed.chunks_exact(self.outputs)) {
            for (sum, &weight) in y.iter_mut().zip(column) {
                *sum += weight * x;
            }
        }
        for (sum, &bias) in y.iter_mut().zip(&self.bias) {
            *sum += bias;
        }
    }

    /// W x + b.
    pub fn apply(&self, x: &[f32]) -> Vec<f32> {
        let mut y = Vec::new();
        self.apply_into(x, &mut y);
        y
    }
}
