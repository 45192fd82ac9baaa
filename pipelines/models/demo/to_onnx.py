"""Writes the demo's two networks as ONNX files, for pipelines/onnx.weir.toml: a/scorer.onnx, b/encoder.onnx.

    python to_onnx.py            needs numpy and onnx

The weights are kept as f16, which halves the files, and are made f32 when they are loaded; so the numbers are those of weir's own
network to about three digits. The number of tiles is open; a tile is 50 x 50 px, as both models were trained.
"""

import json
import pathlib
import struct

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper

HERE = pathlib.Path(__file__).parent
GROUPS = 8
# GroupNorm's, as PyTorch has it.
EPSILON = 1e-5
# Whether a 2x2 max pool stands before the stage, and its convolution's step.
STAGES = [(False, 2), (False, 1), (True, 1), (True, 1)]


def weights(path):
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    head = json.loads(data[8 : 8 + length])
    body = data[8 + length :]
    tensors = {}
    for name, about in head.items():
        if name != "__metadata__":
            start, end = about["data_offsets"]
            tensors[name] = np.frombuffer(body[start:end], "<f4").reshape(about["shape"])
    return tensors


class Graph:
    def __init__(self, tensors):
        self.tensors, self.nodes, self.initializers, self.made = tensors, [], [], {}

    def node(self, op, inputs, **attributes):
        out = f"{op.lower()}{len(self.nodes)}"
        self.nodes.append(h.make_node(op, inputs, [out], name=out, **attributes))
        return out

    def constant(self, name, values):
        if name not in self.made:
            self.initializers.append(numpy_helper.from_array(values, name))
            self.made[name] = name
        return name

    def weight(self, name, shape=None):
        """A tensor of the model, kept as f16."""
        values = self.tensors[name].astype(np.float16)
        kept = self.constant(name, values if shape is None else values.reshape(shape))
        return self.node("Cast", [kept], to=T.FLOAT)

    def group_norm(self, x, name):
        """One instance normalisation over groups, then scale and shift of each channel; 0 keeps a dimension, -1 is what is left."""
        channels = len(self.tensors[f"{name}.weight"])
        one = self.constant("ones", np.ones(GROUPS, np.float32))
        zero = self.constant("zeros", np.zeros(GROUPS, np.float32))
        shape = self.node("Shape", [x])
        rows = self.node("Reshape", [x, self.constant("groups", np.array([0, GROUPS, -1]))])
        normal = self.node("InstanceNormalization", [rows, one, zero], epsilon=EPSILON)
        back = self.node("Reshape", [normal, shape])
        scaled = self.node("Mul", [back, self.weight(f"{name}.weight", (1, channels, 1, 1))])
        return self.node("Add", [scaled, self.weight(f"{name}.bias", (1, channels, 1, 1))])

    def linear(self, x, name):
        return self.node("Gemm", [x, self.weight(f"{name}.weight"), self.weight(f"{name}.bias")], transB=1)

    def feature(self, x):
        for number, (pool, step) in enumerate(STAGES, 1):
            stem = f"stage{number}"
            if pool:
                x = self.node("MaxPool", [x], kernel_shape=[2, 2], strides=[2, 2])
            kernel = self.tensors[f"{stem}.conv.weight"].shape[2]
            inputs = [x, self.weight(f"{stem}.conv.weight")]
            if number == 1:
                inputs.append(self.weight(f"{stem}.conv.bias"))
            x = self.node("Conv", inputs, kernel_shape=[kernel] * 2, strides=[step] * 2, pads=[kernel // 2] * 4)
            if number > 1:
                x = self.group_norm(x, f"{stem}.norm")
            x = self.node("Relu", [x])
        x = self.node("Flatten", [self.node("GlobalAveragePool", [x])])
        return self.node("Relu", [self.linear(x, "feature")])


def write(tensors, path, output, scores):
    graph = Graph(tensors)
    last = graph.feature("tile")
    if scores:
        last = graph.linear(last, "classifier")
    graph.nodes.append(h.make_node("Identity", [last], [output]))
    width = len(tensors["classifier.bias" if scores else "feature.bias"])
    made = h.make_graph(
        graph.nodes,
        path.stem,
        [h.make_tensor_value_info("tile", T.FLOAT, ["tiles", 3, 50, 50])],
        [h.make_tensor_value_info(output, T.FLOAT, ["tiles", width])],
        graph.initializers,
    )
    model = h.make_model(made, opset_imports=[h.make_opsetid("", 17)], producer_name="weir")
    model.ir_version = 8
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    print(f"{path}: {path.stat().st_size} bytes")


def main():
    write(weights(HERE / "a/weights.safetensors"), HERE / "a/scorer.onnx", "logits", True)
    write(weights(HERE / "b/weights.safetensors"), HERE / "b/encoder.onnx", "feature", False)


if __name__ == "__main__":
    main()
