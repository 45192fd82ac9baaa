//! Writes a network as an ONNX graph for one tile: input `tile` [1, 3, size, size], output `feature` [1, feature].
//!
//! The messages are the subset of onnx.proto (ONNX 1.16, IR version 8) that these graphs use, with its field numbers.
//! Operators are of opset 17. GroupNorm is not among them, so it is written as PyTorch's exporter does: one instance
//! normalisation over [1, groups, rest], then scale and shift per channel, here as a 1x1 depthwise convolution, which
//! ONNX Runtime fuses with the ReLU behind it.

use crate::network::{EPSILON, Layer, Network};
use crate::weights::{Weights, WeightsError};
use prost::Message;

/// Name of the graph's input.
pub const INPUT: &str = "tile";
/// Name of the graph's output.
pub const OUTPUT: &str = "feature";

const OPSET: i64 = 17;
const IR_VERSION: i64 = 8;
/// TensorProto.DataType.FLOAT
const FLOAT: i32 = 1;
/// TensorProto.DataType.INT64
const INT64: i32 = 7;

#[derive(Clone, PartialEq, Message)]
struct ModelProto {
    #[prost(int64, tag = "1")]
    ir_version: i64,
    #[prost(string, tag = "2")]
    producer_name: String,
    #[prost(string, tag = "3")]
    producer_version: String,
    #[prost(message, optional, tag = "7")]
    graph: Option<GraphProto>,
    #[prost(message, repeated, tag = "8")]
    opset_import: Vec<OperatorSetIdProto>,
}

#[derive(Clone, PartialEq, Message)]
struct OperatorSetIdProto {
    #[prost(string, tag = "1")]
    domain: String,
    #[prost(int64, tag = "2")]
    version: i64,
}

#[derive(Clone, PartialEq, Message)]
struct GraphProto {
    #[prost(message, repeated, tag = "1")]
    node: Vec<NodeProto>,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(message, repeated, tag = "5")]
    initializer: Vec<TensorProto>,
    #[prost(message, repeated, tag = "11")]
    input: Vec<ValueInfoProto>,
    #[prost(message, repeated, tag = "12")]
    output: Vec<ValueInfoProto>,
}

#[derive(Clone, PartialEq, Message)]
struct NodeProto {
    #[prost(string, repeated, tag = "1")]
    input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    output: Vec<String>,
    #[prost(string, tag = "3")]
    name: String,
    #[prost(string, tag = "4")]
    op_type: String,
    #[prost(message, repeated, tag = "5")]
    attribute: Vec<AttributeProto>,
}

#[derive(Clone, PartialEq, Message)]
struct AttributeProto {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(float, tag = "2")]
    f: f32,
    #[prost(int64, tag = "3")]
    i: i64,
    #[prost(int64, repeated, packed = "false", tag = "8")]
    ints: Vec<i64>,
    /// FLOAT 1, INT 2, INTS 7.
    #[prost(int32, tag = "20")]
    kind: i32,
}

#[derive(Clone, PartialEq, Message)]
struct TensorProto {
    #[prost(int64, repeated, packed = "false", tag = "1")]
    dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    data_type: i32,
    #[prost(string, tag = "8")]
    name: String,
    #[prost(bytes = "vec", tag = "9")]
    raw_data: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct ValueInfoProto {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    r#type: Option<TypeProto>,
}

#[derive(Clone, PartialEq, Message)]
struct TypeProto {
    #[prost(message, optional, tag = "1")]
    tensor_type: Option<TensorType>,
}

#[derive(Clone, PartialEq, Message)]
struct TensorType {
    #[prost(int32, tag = "1")]
    elem_type: i32,
    #[prost(message, optional, tag = "2")]
    shape: Option<Shape>,
}

#[derive(Clone, PartialEq, Message)]
struct Shape {
    #[prost(message, repeated, tag = "1")]
    dim: Vec<Dimension>,
}

#[derive(Clone, PartialEq, Message)]
struct Dimension {
    #[prost(int64, optional, tag = "1")]
    dim_value: Option<i64>,
}

/// The bytes of an ONNX file for tiles of `size` x `size` px.
pub fn write(network: &Network, weights: &Weights, size: usize) -> Result<Vec<u8>, WeightsError> {
    let mut graph = Graph {
        weights,
        proto: GraphProto {
            name: network.arch.clone(),
            input: vec![value_info(INPUT, &[1, 3, size, size])],
            output: vec![value_info(OUTPUT, &[1, network.feature])],
            ..GraphProto::default()
        },
        made: 0,
    };
    let last = graph.layers(
        &network.layers,
        Value {
            name: INPUT.to_string(),
            shape: vec![1, 3, size, size],
        },
    )?;
    graph.proto.node.push(NodeProto {
        input: vec![last.name],
        output: vec![OUTPUT.to_string()],
        name: OUTPUT.to_string(),
        op_type: "Identity".to_string(),
        attribute: Vec::new(),
    });
    let model = ModelProto {
        ir_version: IR_VERSION,
        producer_name: "weir".to_string(),
        producer_version: env!("CARGO_PKG_VERSION").to_string(),
        graph: Some(graph.proto),
        opset_import: vec![OperatorSetIdProto {
            domain: String::new(),
            version: OPSET,
        }],
    };
    Ok(model.encode_to_vec())
}

fn value_info(name: &str, shape: &[usize]) -> ValueInfoProto {
    let dim = shape
        .iter()
        .map(|&d| Dimension {
            dim_value: Some(d as i64),
        })
        .collect();
    ValueInfoProto {
        name: name.to_string(),
        r#type: Some(TypeProto {
            tensor_type: Some(TensorType {
                elem_type: FLOAT,
                shape: Some(Shape { dim }),
            }),
        }),
    }
}

fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto {
        name: name.to_string(),
        i,
        kind: 2,
        ..AttributeProto::default()
    }
}

fn ints(name: &str, values: [usize; 4]) -> AttributeProto {
    let used = if name == "pads" { 4 } else { 2 };
    AttributeProto {
        name: name.to_string(),
        ints: values[..used].iter().map(|&v| v as i64).collect(),
        kind: 7,
        ..AttributeProto::default()
    }
}

fn epsilon() -> AttributeProto {
    AttributeProto {
        name: "epsilon".to_string(),
        f: EPSILON,
        kind: 1,
        ..AttributeProto::default()
    }
}

/// An edge of the graph.
#[derive(Clone)]
struct Value {
    name: String,
    shape: Vec<usize>,
}

struct Graph<'a> {
    weights: &'a Weights,
    proto: GraphProto,
    /// Edges named so far.
    made: usize,
}

impl Graph<'_> {
    fn node(
        &mut self,
        op: &str,
        inputs: Vec<String>,
        attribute: Vec<AttributeProto>,
        shape: Vec<usize>,
    ) -> Value {
        self.made += 1;
        let name = format!("{}{}", op.to_lowercase(), self.made);
        self.proto.node.push(NodeProto {
            input: inputs,
            output: vec![name.clone()],
            name: name.clone(),
            op_type: op.to_string(),
            attribute,
        });
        Value { name, shape }
    }

    fn floats(&mut self, name: &str, shape: &[usize], values: &[f32]) -> String {
        self.proto.initializer.push(TensorProto {
            dims: shape.iter().map(|&d| d as i64).collect(),
            data_type: FLOAT,
            name: name.to_string(),
            raw_data: values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        });
        name.to_string()
    }

    fn reshape(&mut self, x: Value, shape: Vec<usize>) -> Value {
        self.made += 1;
        let name = format!("shape{}", self.made);
        self.proto.initializer.push(TensorProto {
            dims: vec![shape.len() as i64],
            data_type: INT64,
            name: name.clone(),
            raw_data: shape
                .iter()
                .flat_map(|&d| (d as i64).to_le_bytes())
                .collect(),
        });
        self.node("Reshape", vec![x.name, name], Vec::new(), shape)
    }

    /// The weights `STEM.PART` as an initializer of that name.
    fn weight(&mut self, stem: &str, part: &str, shape: &[usize]) -> Result<String, WeightsError> {
        let name = format!("{stem}.{part}");
        let weights = self.weights;
        Ok(self.floats(&name, shape, weights.values(&name, shape)?))
    }

    fn layers(&mut self, layers: &[Layer], mut x: Value) -> Result<Value, WeightsError> {
        for layer in layers {
            x = self.layer(layer, x)?;
        }
        Ok(x)
    }

    fn layer(&mut self, layer: &Layer, x: Value) -> Result<Value, WeightsError> {
        let shape = x.shape.clone();
        let window = |kernel: usize, stride: usize, padding: usize, channels: usize| {
            let side = |n: usize| (n + 2 * padding - kernel) / stride + 1;
            let attributes = vec![
                ints("kernel_shape", [kernel; 4]),
                ints("strides", [stride; 4]),
                ints("pads", [padding; 4]),
            ];
            (
                attributes,
                vec![1, channels, side(shape[2]), side(shape[3])],
            )
        };
        Ok(match layer {
            Layer::Conv {
                name,
                input,
                output,
                kernel,
                stride,
                padding,
                bias,
            } => {
                let weight = self.weight(name, "weight", &[*output, *input, *kernel, *kernel])?;
                let mut inputs = vec![x.name, weight];
                if *bias {
                    inputs.push(self.weight(name, "bias", &[*output])?);
                }
                let (attributes, out) = window(*kernel, *stride, *padding, *output);
                self.node("Conv", inputs, attributes, out)
            }
            Layer::GroupNorm {
                name,
                channels,
                groups,
            } => {
                let one = self.floats(&format!("{name}.one"), &[*groups], &vec![1.0; *groups]);
                let zero = self.floats(&format!("{name}.zero"), &[*groups], &vec![0.0; *groups]);
                let rest = shape.iter().product::<usize>() / groups;
                let rows = self.reshape(x, vec![1, *groups, rest]);
                let rows_shape = rows.shape.clone();
                let normal = self.node(
                    "InstanceNormalization",
                    vec![rows.name, one, zero],
                    vec![epsilon()],
                    rows_shape,
                );
                let normal = self.reshape(normal, shape.clone());
                let weights = self.weights;
                let scale = weights.values(&format!("{name}.weight"), &[*channels])?;
                let scale = self.floats(&format!("{name}.weight"), &[*channels, 1, 1, 1], scale);
                let shift = self.weight(name, "bias", &[*channels])?;
                self.node(
                    "Conv",
                    vec![normal.name, scale, shift],
                    vec![ints("kernel_shape", [1; 4]), int("group", *channels as i64)],
                    shape,
                )
            }
            Layer::BatchNorm { name, channels } => {
                let channels = &[*channels];
                let inputs = vec![
                    x.name,
                    self.weight(name, "weight", channels)?,
                    self.weight(name, "bias", channels)?,
                    self.weight(name, "running_mean", channels)?,
                    self.weight(name, "running_var", channels)?,
                ];
                self.node("BatchNormalization", inputs, vec![epsilon()], shape)
            }
            Layer::Relu => self.node("Relu", vec![x.name], Vec::new(), shape),
            Layer::MaxPool {
                kernel,
                stride,
                padding,
            } => {
                let (attributes, out) = window(*kernel, *stride, *padding, shape[1]);
                self.node("MaxPool", vec![x.name], attributes, out)
            }
            Layer::AveragePool { kernel, stride } => {
                let (attributes, out) = window(*kernel, *stride, 0, shape[1]);
                self.node("AveragePool", vec![x.name], attributes, out)
            }
            Layer::Residual { body, shortcut } => {
                let through = self.layers(body, x.clone())?;
                let past = self.layers(shortcut, x)?;
                let shape = through.shape.clone();
                let sum = self.node(
                    "Add",
                    vec![through.name, past.name],
                    Vec::new(),
                    shape.clone(),
                );
                self.node("Relu", vec![sum.name], Vec::new(), shape)
            }
            Layer::GlobalAveragePool => {
                let channels = shape[1];
                let mean = self.node(
                    "GlobalAveragePool",
                    vec![x.name],
                    Vec::new(),
                    vec![1, channels, 1, 1],
                );
                self.node(
                    "Flatten",
                    vec![mean.name],
                    vec![int("axis", 1)],
                    vec![1, channels],
                )
            }
            Layer::Linear {
                name,
                input,
                output,
            } => {
                let weight = self.weight(name, "weight", &[*output, *input])?;
                let bias = self.weight(name, "bias", &[*output])?;
                self.node(
                    "Gemm",
                    vec![x.name, weight, bias],
                    vec![int("transB", 1)],
                    vec![1, *output],
                )
            }
        })
    }
}
