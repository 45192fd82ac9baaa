//! What a network is: a list of layers as data, that both executors, the trainer and the ONNX writer walk.
//!
//! Every network here is an encoder: it turns one RGB tile into a vector of [`Network::feature`] numbers, none negative:
//! after the global pool come a linear layer named `feature` and a ReLU (claims 3 and 8 of the paper's patent put fully
//! connected layers of 128 and C in a row there; without a ReLU between them the two would be one).
//!
//! Names of parameters are torchvision's for ResNets (He et al. 2016, "v1.5": the stride of a bottleneck stands in its
//! 3x3 convolution), so that `init =` reads its files; the last layer of torchvision (`fc`) is replaced by `feature`.

use std::fmt;

/// The layer that every encoder ends with.
pub const FEATURE: &str = "feature";

/// Added to the variance before the square root, in both normalisations (PyTorch's default).
pub const EPSILON: f32 = 1e-5;

/// One layer. Activations are [batch, channels, height, width] until [`Layer::GlobalAveragePool`], [batch, channels] after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layer {
    /// Square convolution; parameter `NAME.weight` [output, input, kernel, kernel], with a bias also `NAME.bias` `[output]`.
    Conv {
        /// Stem of the parameter's name.
        name: String,
        /// Channels in.
        input: usize,
        /// Channels out.
        output: usize,
        /// Width and height of the kernel.
        kernel: usize,
        /// Step, px.
        stride: usize,
        /// Zeros on each side, px.
        padding: usize,
        /// Whether a number is added to each channel; before a normalisation it would be taken away again.
        bias: bool,
    },
    /// Group normalisation (Wu and He 2018); parameters `NAME.weight`, `NAME.bias` `[channels]`.
    GroupNorm {
        /// Stem of the parameters' names.
        name: String,
        /// Channels.
        channels: usize,
        /// Groups; divides `channels`.
        groups: usize,
    },
    /// Batch normalisation by running statistics; parameters `NAME.weight`, `NAME.bias`, statistics
    /// `NAME.running_mean`, `NAME.running_var` `[channels]`.
    BatchNorm {
        /// Stem of the parameters' names.
        name: String,
        /// Channels.
        channels: usize,
    },
    /// max(x, 0).
    Relu,
    /// Greatest of a square window; padding never wins.
    MaxPool {
        /// Width and height of the window.
        kernel: usize,
        /// Step, px.
        stride: usize,
        /// Border on each side, px.
        padding: usize,
    },
    /// Mean of a square window without padding.
    AveragePool {
        /// Width and height of the window.
        kernel: usize,
        /// Step, px.
        stride: usize,
    },
    /// relu(body(x) + shortcut(x)); an empty shortcut is the identity.
    Residual {
        /// The path with the convolutions.
        body: Vec<Layer>,
        /// The other path: nothing, or a projection.
        shortcut: Vec<Layer>,
    },
    /// Mean over height and width.
    GlobalAveragePool,
    /// Fully connected; parameters `NAME.weight` [output, input], `NAME.bias` `[output]`.
    Linear {
        /// Stem of the parameters' names.
        name: String,
        /// Numbers in.
        input: usize,
        /// Numbers out.
        output: usize,
    },
}

/// A parameter of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// As in the safetensors file.
    pub name: String,
    /// As PyTorch lays it out, slowest axis first.
    pub shape: Vec<usize>,
    /// What it holds before training.
    pub start: Start,
    /// False for running statistics: no gradient reaches them.
    pub trained: bool,
}

/// What a parameter holds before training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Uniform in +-sqrt(6 / fan), the variance of He et al. 2015 for what stands before a ReLU.
    He {
        /// Numbers that go out of one input (torchvision's `fan_out`).
        fan: usize,
    },
    /// Uniform in +-sqrt(1 / fan): PyTorch's default for a linear layer and its bias.
    Linear {
        /// Numbers that come in.
        fan: usize,
    },
    /// All zero.
    Zero,
    /// All one.
    One,
}

/// A network: what `model.toml` calls `arch` and `feature`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// `small`, `resnet18`, `resnet34`, `resnet50`.
    pub arch: String,
    /// Width of the feature vector.
    pub feature: usize,
    /// From the tile to the feature vector.
    pub layers: Vec<Layer>,
}

/// Why there is no such network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkError {
    /// The name is none of [`Network::ARCHITECTURES`].
    UnknownArchitecture(String),
    /// A feature vector of no numbers.
    NoFeature,
    /// The tile is so small that nothing is left of it after the pools.
    TileTooSmall {
        /// Architecture.
        arch: String,
        /// Tile's width and height, px.
        size: usize,
        /// Least that works, px.
        least: usize,
    },
}

impl fmt::Display for NetworkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NetworkError::UnknownArchitecture(name) => write!(
                f,
                "there is no architecture `{name}`; there are {}",
                Network::ARCHITECTURES.join(", ")
            ),
            NetworkError::NoFeature => {
                f.write_str("a feature vector of 0 numbers; set `feature` to 128")
            }
            NetworkError::TileTooSmall { arch, size, least } => write!(
                f,
                "nothing is left of a tile of {size} px after the pools of `{arch}`; it takes tiles of at least {least} px"
            ),
        }
    }
}

impl std::error::Error for NetworkError {}

/// The small network, for tiles of some 50 px: stages of a convolution, GroupNorm and ReLU, some with a 2x2 max pool before
/// them; the global average pool follows. The first stage has a bias in place of the norm, which would take away how dark a
/// tile is and of which colour. Widths and depths stand here and nowhere else.
const SMALL: [Stage; 4] = [
    // A step of 2 at once: the finest pixels are most of the cost and little of the answer.
    Stage {
        width: 24,
        kernel: 5,
        stride: 2,
        pool: false,
    },
    Stage {
        width: 48,
        kernel: 3,
        stride: 1,
        pool: false,
    },
    Stage {
        width: 96,
        kernel: 3,
        stride: 1,
        pool: true,
    },
    Stage {
        width: 128,
        kernel: 3,
        stride: 1,
        pool: true,
    },
];

/// Groups of the small network's normalisations.
const GROUPS: usize = 8;

/// One stage of the small network.
struct Stage {
    width: usize,
    kernel: usize,
    stride: usize,
    /// Whether a max pool stands before it.
    pool: bool,
}

impl Network {
    /// The names that [`Network::new`] knows.
    pub const ARCHITECTURES: [&'static str; 4] = ["small", "resnet18", "resnet34", "resnet50"];

    /// The network of that name with a feature vector of `feature` numbers.
    pub fn new(arch: &str, feature: usize) -> Result<Network, NetworkError> {
        if feature == 0 {
            return Err(NetworkError::NoFeature);
        }
        let layers = match arch {
            "small" => small(&SMALL, feature),
            "resnet18" => resnet(Block::Basic, [2, 2, 2, 2], feature),
            "resnet34" => resnet(Block::Basic, [3, 4, 6, 3], feature),
            "resnet50" => resnet(Block::Bottleneck, [3, 4, 6, 3], feature),
            other => return Err(NetworkError::UnknownArchitecture(other.to_string())),
        };
        Ok(Network {
            arch: arch.to_string(),
            feature,
            layers,
        })
    }

    /// Every parameter and running statistic, in the order in which the layers use them; this order is fixed.
    pub fn parameters(&self) -> Vec<Parameter> {
        let mut list = Vec::new();
        for_each(&self.layers, &mut |layer| layer.parameters(&mut list));
        list
    }

    /// Whether running statistics of batches are part of it.
    pub fn has_batch_norm(&self) -> bool {
        let mut found = false;
        for_each(&self.layers, &mut |layer| {
            found |= matches!(layer, Layer::BatchNorm { .. })
        });
        found
    }

    /// Whether something is left of a tile of `size` x `size` px when it reaches the global pool.
    pub fn check_tile(&self, size: usize) -> Result<(), NetworkError> {
        if side(&self.layers, size).is_some() {
            return Ok(());
        }
        let least = (size + 1..=4096)
            .find(|&size| side(&self.layers, size).is_some())
            .unwrap_or(4096);
        Err(NetworkError::TileTooSmall {
            arch: self.arch.clone(),
            size,
            least,
        })
    }
}

impl Layer {
    /// Appends the layer's own parameters, in their order of use; a residual block has none of its own.
    fn parameters(&self, list: &mut Vec<Parameter>) {
        let mut add = |stem: &str, part: &str, shape: &[usize], start, trained| {
            list.push(Parameter {
                name: format!("{stem}.{part}"),
                shape: shape.to_vec(),
                start,
                trained,
            });
        };
        match self {
            Layer::Conv {
                name,
                input,
                output,
                kernel,
                bias,
                ..
            } => {
                let fan = output * kernel * kernel;
                add(
                    name,
                    "weight",
                    &[*output, *input, *kernel, *kernel],
                    Start::He { fan },
                    true,
                );
                if *bias {
                    add(name, "bias", &[*output], Start::Zero, true);
                }
            }
            Layer::GroupNorm { name, channels, .. } => {
                add(name, "weight", &[*channels], Start::One, true);
                add(name, "bias", &[*channels], Start::Zero, true);
            }
            Layer::BatchNorm { name, channels } => {
                add(name, "weight", &[*channels], Start::One, true);
                add(name, "bias", &[*channels], Start::Zero, true);
                add(name, "running_mean", &[*channels], Start::Zero, false);
                add(name, "running_var", &[*channels], Start::One, false);
            }
            Layer::Linear {
                name,
                input,
                output,
            } => {
                let start = Start::Linear { fan: *input };
                add(name, "weight", &[*output, *input], start, true);
                add(name, "bias", &[*output], start, true);
            }
            Layer::Relu
            | Layer::MaxPool { .. }
            | Layer::AveragePool { .. }
            | Layer::Residual { .. }
            | Layer::GlobalAveragePool => {}
        }
    }
}

/// Calls `what` for every layer in the order of execution: a residual block itself, its body, its shortcut.
pub fn for_each(layers: &[Layer], what: &mut dyn FnMut(&Layer)) {
    for layer in layers {
        what(layer);
        if let Layer::Residual { body, shortcut } = layer {
            for_each(body, what);
            for_each(shortcut, what);
        }
    }
}

/// Width of the square that comes out of `layers`, px; `None` when nothing does.
fn side(layers: &[Layer], mut size: usize) -> Option<usize> {
    let window = |size: usize, kernel: usize, stride: usize, padding: usize| {
        Some((size + 2 * padding).checked_sub(kernel)? / stride + 1)
    };
    for layer in layers {
        size = match layer {
            Layer::Conv {
                kernel,
                stride,
                padding,
                ..
            }
            | Layer::MaxPool {
                kernel,
                stride,
                padding,
            } => window(size, *kernel, *stride, *padding)?,
            Layer::AveragePool { kernel, stride } => window(size, *kernel, *stride, 0)?,
            Layer::Residual { body, .. } => side(body, size)?,
            Layer::GroupNorm { .. } | Layer::BatchNorm { .. } | Layer::Relu => size,
            Layer::GlobalAveragePool | Layer::Linear { .. } => 1,
        };
        if size == 0 {
            return None;
        }
    }
    Some(size)
}

fn conv(
    name: String,
    input: usize,
    output: usize,
    kernel: usize,
    stride: usize,
    padding: usize,
) -> Layer {
    Layer::Conv {
        name,
        input,
        output,
        kernel,
        stride,
        padding,
        bias: false,
    }
}

fn batch_norm(name: String, channels: usize) -> Layer {
    Layer::BatchNorm { name, channels }
}

fn small(stages: &[Stage], feature: usize) -> Vec<Layer> {
    let mut layers = Vec::new();
    let mut input = 3;
    for (number, stage) in stages.iter().enumerate() {
        let &Stage {
            width,
            kernel,
            stride,
            pool,
        } = stage;
        if pool {
            layers.push(Layer::MaxPool {
                kernel: 2,
                stride: 2,
                padding: 0,
            });
        }
        let stem = format!("stage{}", number + 1);
        let first = number == 0;
        layers.push(Layer::Conv {
            name: format!("{stem}.conv"),
            input,
            output: width,
            kernel,
            stride,
            padding: kernel / 2,
            bias: first,
        });
        if !first {
            layers.push(Layer::GroupNorm {
                name: format!("{stem}.norm"),
                channels: width,
                groups: GROUPS,
            });
        }
        layers.push(Layer::Relu);
        input = width;
    }
    end(layers, input, feature)
}

fn end(mut layers: Vec<Layer>, input: usize, feature: usize) -> Vec<Layer> {
    layers.push(Layer::GlobalAveragePool);
    layers.push(Layer::Linear {
        name: FEATURE.to_string(),
        input,
        output: feature,
    });
    layers.push(Layer::Relu);
    layers
}

#[derive(Clone, Copy)]
enum Block {
    Basic,
    Bottleneck,
}

/// torchvision.models.resnet: stem, four stages of residual blocks, global pool.
fn resnet(block: Block, depths: [usize; 4], feature: usize) -> Vec<Layer> {
    let mut layers = vec![
        conv("conv1".into(), 3, 64, 7, 2, 3),
        batch_norm("bn1".into(), 64),
        Layer::Relu,
        Layer::MaxPool {
            kernel: 3,
            stride: 2,
            padding: 1,
        },
    ];
    let mut input = 64;
    for (stage, &depth) in depths.iter().enumerate() {
        let width = 64 << stage;
        for index in 0..depth {
            let stride = if stage > 0 && index == 0 { 2 } else { 1 };
            let stem = format!("layer{}.{index}", stage + 1);
            let (body, output) = match block {
                Block::Basic => (
                    vec![
                        conv(format!("{stem}.conv1"), input, width, 3, stride, 1),
                        batch_norm(format!("{stem}.bn1"), width),
                        Layer::Relu,
                        conv(format!("{stem}.conv2"), width, width, 3, 1, 1),
                        batch_norm(format!("{stem}.bn2"), width),
                    ],
                    width,
                ),
                Block::Bottleneck => (
                    vec![
                        conv(format!("{stem}.conv1"), input, width, 1, 1, 0),
                        batch_norm(format!("{stem}.bn1"), width),
                        Layer::Relu,
                        conv(format!("{stem}.conv2"), width, width, 3, stride, 1),
                        batch_norm(format!("{stem}.bn2"), width),
                        Layer::Relu,
                        conv(format!("{stem}.conv3"), width, 4 * width, 1, 1, 0),
                        batch_norm(format!("{stem}.bn3"), 4 * width),
                    ],
                    4 * width,
                ),
            };
            let shortcut = if stride != 1 || input != output {
                vec![
                    conv(format!("{stem}.downsample.0"), input, output, 1, stride, 0),
                    batch_norm(format!("{stem}.downsample.1"), output),
                ]
            } else {
                Vec::new()
            };
            layers.push(Layer::Residual { body, shortcut });
            input = output;
        }
    }
    end(layers, input, feature)
}
