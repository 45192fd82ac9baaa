"""Makes the tiny models beside this file and what onnxruntime says of them: expected.json.

    python -m venv venv && venv/bin/pip install -r requirements.txt && venv/bin/python make.py

Each model is one 3x3 convolution, a pool and a matrix product, or less, with weights of a fixed seed: enough to have each
form of input and output, and small enough to be kept. `real.py` asks onnxruntime by the functions that stand here.
"""

import json
import pathlib

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper

HERE = pathlib.Path(__file__).parent
OPSET = 17
WIDTH = 6


def noise(seed, size):
    """A tile [size, size, 3] of the bytes that the plugin's tests make of the same seed."""
    state, out = seed, bytearray()
    for _ in range(size * size * 3):
        state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
        out.append(state >> 24)
    return np.frombuffer(bytes(out), np.uint8).reshape(size, size, 3)


def pixels(tiles, layout="nchw", channels="rgb", scale=255.0, mean=0.0, std=1.0, dtype=np.float32):
    """(value / scale - mean) / std, in f32, in the model's layout, order and type."""
    x = np.stack(tiles)
    if channels == "bgr":
        x = x[..., ::-1]
    if dtype != np.uint8:
        x = (x.astype(np.float32) / np.float32(scale) - np.float32(mean)) / np.float32(std)
    if layout == "nchw":
        x = x.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(x.astype(dtype))


def session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])


def rows(model, tiles, output=None, **form):
    """The output of each tile, one tile a run where the model takes that, else in the model's own batches with zeros."""
    first = model.get_inputs()[0]
    x = pixels(tiles, **form)
    batch = first.shape[0] if isinstance(first.shape[0], int) else 1
    name = output or model.get_outputs()[0].name
    made = []
    for tile in x:
        run = np.zeros((batch, *tile.shape), x.dtype)
        run[0] = tile
        made.append(np.asarray(model.run([name], {first.name: run})[0][0], np.float32).reshape(-1))
    return np.stack(made)


def tensor(name, values):
    return numpy_helper.from_array(values, name)


def save(name, nodes, weights, inputs, outputs):
    graph = h.make_graph(nodes, name, inputs, outputs, weights)
    model = h.make_model(graph, opset_imports=[h.make_opsetid("", OPSET)], producer_name="weir tests")
    model.ir_version = 8
    onnx.checker.check_model(model)
    onnx.save(model, HERE / f"{name}.onnx")


def head(rng, dtype, of="x"):
    """Nodes and weights from `of` [n, 3, h, w] to `pooled` [n, 8, 1, 1]."""
    weights = [tensor("kernel", rng.normal(0, 0.3, (8, 3, 3, 3)).astype(dtype)), tensor("bias", rng.normal(0, 0.3, 8).astype(dtype))]
    nodes = [
        h.make_node("Conv", [of, "kernel", "bias"], ["conv"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2]),
        h.make_node("Relu", ["conv"], ["relu"]),
        h.make_node("GlobalAveragePool", ["relu"], ["pooled"]),
    ]
    return nodes, weights


def product(rng, dtype, width, out="y"):
    weights = [tensor("matrix", rng.normal(0, 1, (8, width)).astype(dtype)), tensor("shift", rng.normal(0, 1, width).astype(dtype))]
    return [h.make_node("Flatten", ["pooled"], ["flat"]), h.make_node("Gemm", ["flat", "matrix", "shift"], [out])], weights


def models():
    rng = np.random.default_rng(7)
    f32, f16 = np.float32, np.float16
    value = h.make_tensor_value_info

    # Everything open, [n, d].
    (n, w), (n2, w2) = head(rng, f32), product(rng, f32, WIDTH)
    save("open", n + n2, w + w2, [value("x", T.FLOAT, ["n", 3, "height", "width"])], [value("y", T.FLOAT, ["n", WIDTH])])

    # Channels last, a fixed size.
    (n, w), (n2, w2) = head(rng, f32, "first"), product(rng, f32, WIDTH)
    first = [h.make_node("Transpose", ["x"], ["first"], perm=[0, 3, 1, 2])]
    save("nhwc", first + n + n2, w + w2, [value("x", T.FLOAT, ["n", 24, 24, 3])], [value("y", T.FLOAT, ["n", WIDTH])])

    # Batches of four.
    (n, w), (n2, w2) = head(rng, f32), product(rng, f32, WIDTH)
    save("batch4", n + n2, w + w2, [value("x", T.FLOAT, [4, 3, 24, 24])], [value("y", T.FLOAT, [4, WIDTH])])

    # f16 in and out.
    (n, w), (n2, w2) = head(rng, f16), product(rng, f16, WIDTH)
    save("f16", n + n2, w + w2, [value("x", T.FLOAT16, ["n", 3, 24, 24])], [value("y", T.FLOAT16, ["n", WIDTH])])

    # A vector of four dimensions, [n, 8, 1, 1]; and the map before it.
    n, w = head(rng, f32)
    save(
        "map",
        n,
        w,
        [value("x", T.FLOAT, ["n", 3, "size", "size"])],
        [value("pooled", T.FLOAT, ["n", 8, 1, 1]), value("relu", T.FLOAT, ["n", 8, "h", "w"])],
    )

    # Several outputs, of which one is of integers, one a logit alone.
    (n, w), (n2, w2) = head(rng, f32), product(rng, f32, 3, "logits")
    more = [
        h.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        h.make_node("ArgMax", ["logits"], ["class"], axis=1, keepdims=0),
        h.make_node("Slice", ["logits", "from", "to", "axis"], ["one"]),
    ]
    ends = [tensor("from", np.array([0])), tensor("to", np.array([1])), tensor("axis", np.array([1]))]
    save(
        "classes",
        n + n2 + more,
        w + w2 + ends,
        [value("x", T.FLOAT, ["n", 3, 24, 24])],
        [
            value("logits", T.FLOAT, ["n", 3]),
            value("probabilities", T.FLOAT, ["n", 3]),
            value("class", T.INT64, ["n"]),
            value("one", T.FLOAT, ["n", 1]),
        ],
    )

    # Pixels as they are.
    (n, w), (n2, w2) = head(rng, f32, "first"), product(rng, f32, WIDTH)
    first = [
        h.make_node("Cast", ["x"], ["real"], to=T.FLOAT),
        h.make_node("Div", ["real", "most"], ["unit"]),
        h.make_node("Transpose", ["unit"], ["first"], perm=[0, 3, 1, 2]),
    ]
    save("u8", first + n + n2, w + w2 + [tensor("most", np.array(255, f32))], [value("x", T.UINT8, ["n", 24, 24, 3])], [value("y", T.FLOAT, ["n", WIDTH])])

    # A tile's numbers hang on its place: the row's number is added.
    (n, w), (n2, w2) = head(rng, f32), product(rng, f32, WIDTH, "own")
    place = [h.make_node("Add", ["own", "places"], ["y"])]
    places = [tensor("places", np.arange(4, dtype=f32).reshape(4, 1))]
    save("place", n + n2 + place, w + w2 + places, [value("x", T.FLOAT, [4, 3, 24, 24])], [value("y", T.FLOAT, [4, WIDTH])])

    # No number where the first pixel is red enough: log of what may be negative.
    nodes = [
        h.make_node("GlobalAveragePool", ["x"], ["mean"]),
        h.make_node("Flatten", ["mean"], ["flat"]),
        h.make_node("Sub", ["half", "flat"], ["off"]),
        h.make_node("Log", ["off"], ["y"]),
    ]
    save("log", nodes, [tensor("half", np.array(0.5, f32))], [value("x", T.FLOAT, ["n", 3, 24, 24])], [value("y", T.FLOAT, ["n", 3])])

    # Two inputs.
    nodes = [h.make_node("GlobalAveragePool", ["x"], ["mean"]), h.make_node("Mul", ["mean", "by"], ["y"])]
    save("two", nodes, [], [value("x", T.FLOAT, ["n", 3, 24, 24]), value("by", T.FLOAT, [1])], [value("y", T.FLOAT, ["n", 3, 1, 1])])


IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}

# Name of the case: model, size of the tiles, output, form.
CASES = {
    "open-24": ("open", 24, None, {}),
    "open-31-bgr": ("open", 31, None, {"channels": "bgr", **IMAGENET}),
    "nhwc": ("nhwc", 24, None, {"layout": "nhwc", "scale": 127.5, "mean": 1.0}),
    "batch4": ("batch4", 24, None, IMAGENET),
    "f16": ("f16", 24, None, {"dtype": "float16", **IMAGENET}),
    "map": ("map", 24, "pooled", {}),
    "classes-logits": ("classes", 24, "logits", {}),
    "classes-probabilities": ("classes", 24, "probabilities", {}),
    "classes-one": ("classes", 24, "one", {}),
    "u8": ("u8", 24, None, {"layout": "nhwc", "dtype": "uint8"}),
    "place": ("place", 24, None, {}),
}
TILES = 7


def main():
    models()
    expected = {}
    for case, (model, size, output, form) in CASES.items():
        form = dict(form, dtype=np.dtype(form.get("dtype", "float32")).type)
        tiles = [noise(seed, size) for seed in range(TILES)]
        made = rows(session(HERE / f"{model}.onnx"), tiles, output, **form)
        expected[case] = [[float(f"{number:.9g}") for number in row] for row in made]
    text = json.dumps(expected).replace("]], ", "]],\n").replace("], [", "],\n [")
    (HERE / "expected.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
