"""Attention head, squared average and pool on the processor: PyTorch, numpy and ONNX Runtime.

    python benches/peers/gated_cpu.py [--rows 20000] [--features 1024] [--hidden 256] [--threads 1] [--runs 9] [--json]

Best of the runs, interleaved, processor milliseconds of all threads. Forward: logits, weights, pooled vector. Backward: from dL/dz to the head's
gradients, without and with the features'; PyTorch alone, the forward not counted.
"""

import argparse
import json
import os
import time

parser = argparse.ArgumentParser()
parser.add_argument("--rows", type=int, default=20000)
parser.add_argument("--features", type=int, default=1024)
parser.add_argument("--hidden", type=int, default=256)
parser.add_argument("--threads", type=int, default=1)
parser.add_argument("--runs", type=int, default=9)
parser.add_argument("--json", action="store_true")
options = parser.parse_args()
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = str(options.threads)

import numpy as np  # noqa: E402  (after the number of threads is said)

n, d, hidden = options.rows, options.features, options.hidden
random = np.random.default_rng(7)
h = random.standard_normal((n, d), dtype=np.float32)
v, u = (random.standard_normal((hidden, d), dtype=np.float32) / np.sqrt(d).astype(np.float32) for _ in range(2))
v_bias, u_bias = (0.1 * random.standard_normal(hidden, dtype=np.float32) for _ in range(2))
w = random.standard_normal(hidden, dtype=np.float32) / np.sqrt(hidden).astype(np.float32)
b = np.float32(0.5)
dz = random.standard_normal(d, dtype=np.float32)
cases = {}


def numpy_forward():
    gate = np.tanh(h @ v.T + v_bias) * (1 / (1 + np.exp(-(h @ u.T + u_bias))))
    a = gate @ w + b
    squares = a * a
    weights = squares / squares.sum()
    return weights @ h


cases["numpy"] = numpy_forward

try:
    import torch

    torch.set_num_threads(options.threads)
    H, V, U, BV, BU, W, DZ = (torch.from_numpy(x.copy()) for x in (h, v, u, v_bias, u_bias, w, dz))
    VU, BVU = torch.cat([V, U]), torch.cat([BV, BU])

    def torch_forward(features=H, value=V, gate=U, value_bias=BV, gate_bias=BU, weight=W):
        hidden_units = torch.tanh(torch.nn.functional.linear(features, value, value_bias)) * torch.sigmoid(
            torch.nn.functional.linear(features, gate, gate_bias)
        )
        a = hidden_units @ weight + float(b)
        squares = a * a
        return (squares / squares.sum()) @ features

    def torch_concatenated():
        value, gate = torch.nn.functional.linear(H, VU, BVU).chunk(2, dim=1)
        a = (torch.tanh(value) * torch.sigmoid(gate)) @ W + float(b)
        squares = a * a
        return (squares / squares.sum()) @ H

    def timed_backward(with_features):
        leaves = [x.clone().requires_grad_() for x in (V, U, BV, BU, W)]
        features = H.clone().requires_grad_() if with_features else H
        z = torch_forward(features, *leaves)
        begin = time.process_time()
        z.backward(DZ)
        return time.process_time() - begin

    def inference(f):
        def run():
            with torch.inference_mode():
                return f()

        return run

    cases["torch"] = inference(torch_forward)
    cases["torch, one product"] = inference(torch_concatenated)
    cases["torch backward"] = lambda: timed_backward(False)
    cases["torch backward with dh"] = lambda: timed_backward(True)
except ImportError as error:
    print("no torch:", error)

try:
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    def constant(name, value):
        return numpy_helper.from_array(np.ascontiguousarray(value), name)

    nodes = [
        helper.make_node("Gemm", ["h", "v", "v_bias"], ["hv"], transB=1),
        helper.make_node("Gemm", ["h", "u", "u_bias"], ["hu"], transB=1),
        helper.make_node("Tanh", ["hv"], ["t"]),
        helper.make_node("Sigmoid", ["hu"], ["s"]),
        helper.make_node("Mul", ["t", "s"], ["g"]),
        helper.make_node("MatMul", ["g", "w"], ["aw"]),
        helper.make_node("Add", ["aw", "b"], ["a"]),
        helper.make_node("Mul", ["a", "a"], ["e"]),
        helper.make_node("ReduceSum", ["e"], ["sum"], keepdims=1),
        helper.make_node("Div", ["e", "sum"], ["weights"]),
        helper.make_node("Transpose", ["weights"], ["row"], perm=[1, 0]),
        helper.make_node("MatMul", ["row", "h"], ["z"]),
    ]
    graph = helper.make_graph(
        nodes,
        "head",
        [helper.make_tensor_value_info("h", TensorProto.FLOAT, [n, d])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, d])],
        [
            constant("v", v),
            constant("u", u),
            constant("v_bias", v_bias),
            constant("u_bias", u_bias),
            constant("w", w[:, None]),
            constant("b", np.array([b])),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    session_options = onnxruntime.SessionOptions()
    session_options.intra_op_num_threads = options.threads
    session = onnxruntime.InferenceSession(model.SerializeToString(), session_options, providers=["CPUExecutionProvider"])
    cases["onnxruntime"] = lambda: session.run(None, {"h": h})
except ImportError as error:
    print("no onnxruntime:", error)

best = {name: float("inf") for name in cases}
for _ in range(options.runs):
    for name, run in cases.items():
        begin = time.process_time()
        inner = run()
        took = time.process_time() - begin
        best[name] = min(best[name], inner if isinstance(inner, float) else took)
if options.json:
    print(json.dumps({"rows": n, "features": d, "hidden": hidden, "threads": options.threads, "ms": {k: t * 1e3 for k, t in best.items()}}))
else:
    print(f"{n} x {d}, hidden {hidden}, {options.threads} threads")
    for name, took in best.items():
        print(f"{name:>24} {took * 1e3:9.1f} ms")
