#!/usr/bin/env python3
"""The shapes of `weir bench kernels` through PyTorch, numpy and ONNX Runtime.

Reads the cases from what `weir bench kernels --json FILE` wrote and writes one JSON line for each case and peer, in the same
form: `weir bench kernels --peers FILE` shows both in one table. Inputs are random, caches cold, threads the same.

    pool.py CASES.jsonl [--device cpu|cuda] [--threads N] [--seconds S] [--only WORDS] [--no-compile] > PEERS.jsonl
"""

import argparse
import json
import os
import sys
import time

arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
arguments.add_argument("cases")
arguments.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
arguments.add_argument("--threads", type=int, default=0, help="those of the cases where it is not given")
arguments.add_argument("--seconds", type=float, default=1.0, help="for the samples of one case and peer")
arguments.add_argument("--most", type=int, default=0, help="only the first so many cases; a bench runs the stated ones first")
arguments.add_argument("--only", default="", help="peers whose name holds one of these words, comma-separated")
arguments.add_argument("--no-compile", action="store_true", help="leave torch.compile out, which takes seconds a case")
options = arguments.parse_args()

with open(options.cases) as lines:
    records = [json.loads(line) for line in lines if line.strip()]
cases = {r["case"]: r for r in records if r["record"] == "case" and not r.get("refused")}
threads = options.threads or max((c["threads"] for c in cases.values()), default=1)
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = str(threads)
# Where these are set they hold OpenBLAS down to an older processor's code.
for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
    os.environ.pop(name, None)

import numpy as np

try:
    import torch
except ImportError as error:
    sys.exit(f"pool.py: PyTorch is missing ({error}): benches/peers/kernels installs it")
try:
    import onnxruntime
    import onnx
except ImportError:
    onnxruntime = None

torch.set_num_threads(threads)
if options.device == "cuda" and not torch.cuda.is_available():
    sys.exit("pool.py: this PyTorch sees no CUDA device: leave --device out")
device = torch.device(options.device)
on_cuda = device.type == "cuda"
DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
GOLDEN = 0.6180339887498949


def lengths(case):
    """Rows of each bag, as benches/kernels/src/case.rs makes them."""
    if not case["ragged"]:
        return [case["rows"]] * case["bags"]
    return [max(1, int(2.0 * case["rows"] * (((bag + 1) * GOLDEN) % 1.0))) for bag in range(case["bags"])]


class Data:
    """Random inputs of a case; of an equal batch also as [bags, rows, ...]."""

    def __init__(self, case, gradients=False):
        torch.manual_seed(case["total"])
        dtype, d, l = DTYPES[case["dtype"]], case["d"], case["l"]
        of = lambda *shape: torch.rand(*shape, device=device) * 2 - 1
        self.case = case
        self.lengths = lengths(case)
        self.equal = not case["ragged"]
        n = sum(self.lengths)
        self.a = of(n) * 3
        self.h = of(n, d).to(dtype)
        self.offsets = np.concatenate([[0], np.cumsum(self.lengths)])
        self.bag_of_row = torch.repeat_interleave(
            torch.arange(case["bags"], device=device), torch.tensor(self.lengths, device=device)
        )
        self.masked = None
        if case["masked"]:
            rows = np.arange(1, n + 1) * GOLDEN
            self.masked = torch.tensor(rows % 1.0 < 0.1, device=device)
        self.u = of(case["bags"], d)
        if l:
            scale = 1.5 / d**0.5
            self.value, self.gate = (of(l, d) * scale).to(dtype), (of(l, d) * scale).to(dtype)
            self.value_bias, self.gate_bias = (of(l) * 0.2).to(dtype), (of(l) * 0.2).to(dtype)
            self.both = torch.cat([self.value, self.gate])
            self.both_bias = torch.cat([self.value_bias, self.gate_bias])
            self.last, self.last_bias = (of(1, l) / l**0.5).to(dtype), torch.full((1,), 1.5, device=device).to(dtype)
        if gradients:
            for name, tensor in vars(self).items():
                if isinstance(tensor, torch.Tensor) and tensor.is_floating_point() and name != "u":
                    tensor.requires_grad_(True)


def weights(data, a):
    """Weights of the rows, each bag's adding up to 1."""
    softmax = data.case["rule"] == "softmax"
    if data.masked is not None:
        a = torch.where(data.masked, float("-inf") if softmax else 0.0, a)
    bags = data.case["bags"]
    if data.equal:
        a = a.view(bags, -1)
        w = torch.softmax(a, 1) if softmax else a * a / (a * a).sum(1, keepdim=True)
        return w.view(-1)
    if softmax:
        most = torch.full((bags,), float("-inf"), device=a.device).index_reduce(0, data.bag_of_row, a, "amax")
        e = torch.exp(a - most[data.bag_of_row])
    else:
        e = a * a
    return e / torch.zeros(bags, device=a.device).index_add(0, data.bag_of_row, e)[data.bag_of_row]


def pool_product(data, w, h):
    """The best form: a product of a row of weights with a matrix of features."""
    w = w.to(h.dtype)
    if data.equal:
        bags = data.case["bags"]
        if bags == 1:
            return (w @ h).view(1, -1)
        return torch.bmm(w.view(bags, 1, -1), h.view(bags, -1, h.shape[1])).squeeze(1)
    parts = [w[i:j] @ h[i:j] for i, j in zip(data.offsets[:-1], data.offsets[1:])]
    return torch.stack(parts)


def pool_sum(data, w, h):
    """The form that most code has: (w * h).sum."""
    product = w[:, None].to(h.dtype) * h
    if data.equal:
        return product.view(data.case["bags"], -1, h.shape[1]).sum(1)
    return torch.zeros(data.case["bags"], h.shape[1], dtype=h.dtype, device=h.device).index_add(
        0, data.bag_of_row, product
    )


def head_eager(data, h):
    f = torch.nn.functional
    t = torch.tanh(f.linear(h, data.value, data.value_bias))
    s = torch.sigmoid(f.linear(h, data.gate, data.gate_bias))
    return f.linear(t * s, data.last, data.last_bias).view(-1).float()


def head_one_product(data, h):
    f = torch.nn.functional
    t, s = f.linear(h, data.both, data.both_bias).chunk(2, 1)
    return f.linear(torch.tanh(t) * torch.sigmoid(s), data.last, data.last_bias).view(-1).float()


def numpy_weights(data, a):
    softmax = data.case["rule"] == "softmax"
    if data.masked is not None:
        a = np.where(data.masked.numpy(), -np.inf if softmax else 0.0, a).astype(np.float32)
    parts = []
    for i, j in zip(data.offsets[:-1], data.offsets[1:]):
        e = np.exp(a[i:j] - a[i:j].max()) if softmax else a[i:j] * a[i:j]
        parts.append(e / e.sum())
    return np.concatenate(parts)


def numpy_pool(data, a, h):
    w = numpy_weights(data, a)
    return np.stack([w[i:j] @ h[i:j] for i, j in zip(data.offsets[:-1], data.offsets[1:])])


def numpy_head(data):
    h, both, bias, last = data.h.numpy(), data.both.numpy(), data.both_bias.numpy(), data.last.numpy()
    l, last_bias = data.case["l"], data.last_bias.numpy()
    transposed = np.ascontiguousarray(both.T)

    def run():
        p = h @ transposed + bias
        t, s = np.tanh(p[:, :l]), 1.0 / (1.0 + np.exp(-p[:, l:]))
        return numpy_pool(data, ((t * s) @ last.T).reshape(-1) + last_bias, h)

    return run


def onnx_head(data):
    """The head and the pool of one bag as a graph: one product for V and U."""
    node, array = onnx.helper.make_node, onnx.numpy_helper.from_array
    l, softmax = data.case["l"], data.case["rule"] == "softmax"
    nodes = [
        node("Gemm", ["h", "both", "bias"], ["p"]),
        node("Split", ["p"], ["pt", "ps"], axis=1, num_outputs=2),
        node("Tanh", ["pt"], ["t"]),
        node("Sigmoid", ["ps"], ["s"]),
        node("Mul", ["t", "s"], ["g"]),
        node("Gemm", ["g", "last", "last_bias"], ["a"]),
        node("Transpose", ["a"], ["row"], perm=[1, 0]),
    ]
    if softmax:
        nodes += [node("Softmax", ["row"], ["w"], axis=1)]
    else:
        nodes += [
            node("Mul", ["row", "row"], ["e"]),
            node("ReduceSum", ["e"], ["sum"], keepdims=1),
            node("Div", ["e", "sum"], ["w"]),
        ]
    nodes += [node("MatMul", ["w", "h"], ["z"])]
    constants = {
        "both": data.both.numpy().T.copy(),
        "bias": data.both_bias.numpy(),
        "last": data.last.numpy().T.copy(),
        "last_bias": data.last_bias.numpy(),
    }
    value, float32 = onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        nodes,
        "head",
        [value("h", float32, list(data.h.shape))],
        [value("z", float32, [1, data.h.shape[1]])],
        [array(v, name) for name, v in constants.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads, settings.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), settings, providers=["CPUExecutionProvider"]
    )
    h = data.h.numpy()
    return lambda: session.run(["z"], {"h": h})


def compiled(function):
    # Each case is compiled for its own shapes; the compiler gives up on a function after some of them unless it forgets.
    torch._dynamo.reset()
    return torch.compile(function, dynamic=False)


def backward(data, forward):
    """Only the backward pass: the graph is kept. Gradients are fresh, not added up."""
    z = forward()
    inputs = [t for t in vars(data).values() if isinstance(t, torch.Tensor) and t.requires_grad]
    used = torch.autograd.grad(z, inputs, data.u.to(z.dtype), retain_graph=True, allow_unused=True)
    inputs = [t for t, g in zip(inputs, used) if g is not None]
    return lambda: torch.autograd.grad(z, inputs, data.u.to(z.dtype), retain_graph=True)


def step(data, forward):
    """A training step's two passes as one call: the graph is built, its gradients are taken, and it is thrown away."""
    inputs = [t for t in vars(data).values() if isinstance(t, torch.Tensor) and t.requires_grad]
    z = forward()
    used = torch.autograd.grad(z, inputs, data.u.to(z.dtype), allow_unused=True)
    inputs = [t for t, g in zip(inputs, used) if g is not None]
    return lambda: torch.autograd.grad((z := forward()), inputs, data.u.to(z.dtype))


def peers(case):
    """Name and call of each way to do the case's work."""
    kernel, back = case["kernel"], case["direction"] != "forward"
    plain = case["dtype"] == "f32" and not on_cuda and not back
    if kernel == "tiles":
        yield from tiles(case)
        return
    data = Data(case, gradients=back)
    if kernel == "weights":
        if not back:
            yield "torch eager", lambda: weights(data, data.a)
            yield "torch.compile", compiled(lambda: weights(data, data.a))
            if plain:
                a = data.a.numpy()
                yield "numpy", lambda: numpy_weights(data, a)
        else:
            data.u = torch.rand_like(data.a)
            yield "torch eager", backward(data, lambda: weights(data, data.a))
    elif kernel == "pool":
        product = lambda: pool_product(data, weights(data, data.a), data.h)
        summed = lambda: pool_sum(data, weights(data, data.a), data.h)
        if back:
            yield "torch product", backward(data, product)
            yield "torch (w*h).sum", backward(data, summed)
        else:
            yield "torch product", product
            yield "torch (w*h).sum", summed
            yield "torch.compile", compiled(summed)
            if plain:
                a, h = data.a.numpy(), data.h.numpy()
                yield "numpy", lambda: numpy_pool(data, a, h)
    elif kernel == "gated-pool":
        eager = lambda: pool_product(data, weights(data, head_eager(data, data.h)), data.h)
        one = lambda: pool_product(data, weights(data, head_one_product(data, data.h)), data.h)
        # A loop over 2,000 bags is not what a compiler should be given.
        pool = pool_product if data.equal else pool_sum
        whole = lambda: pool(data, weights(data, head_one_product(data, data.h)), data.h)
        if back:
            of = step if case["direction"] == "step" else backward
            yield "torch eager", of(data, eager)
            yield "torch one product", of(data, one)
            yield "torch.compile", of(data, compiled(whole))
        else:
            yield "torch eager", eager
            yield "torch one product", one
            yield "torch.compile", compiled(whole)
            if plain:
                yield "numpy", numpy_head(data)
                if onnxruntime and case["bags"] == 1 and data.masked is None:
                    yield "onnxruntime", onnx_head(data)
    elif kernel == "top-k":
        k = case["d"]

        def both_ends(row):
            return torch.topk(row, min(k, row.shape[-1])), torch.topk(row, min(k, row.shape[-1]), largest=False)

        if data.equal:
            yield "torch eager", lambda: both_ends(data.a.view(case["bags"], -1))
        else:
            bounds = list(zip(data.offsets[:-1], data.offsets[1:]))
            yield "torch eager", lambda: [both_ends(data.a[i:j]) for i, j in bounds]


def tiles(case):
    bags, side = case["bags"], case["rows"]
    pixels = torch.randint(0, 256, (bags, side, side, 3), dtype=torch.uint8, device=device)
    scale = torch.tensor([0.229, 0.224, 0.225], device=device).mul(255).reciprocal().view(1, 3, 1, 1)
    shift = torch.tensor([-2.1, -2.0, -1.8], device=device).view(1, 3, 1, 1)
    dtype = DTYPES[case["dtype"]]

    def run():
        turned = pixels.permute(0, 3, 1, 2).flip(1, 3)
        return (turned.float() * scale + shift).to(dtype).contiguous()

    yield "torch eager", run
    yield "torch.compile", compiled(run)


# Twice a usual last cache, read and never written.
cold = torch.ones(64 << 20 if on_cuda else 16 << 20, dtype=torch.float32, device=device)


def sample(call):
    """Seconds of each call, caches cold, until the median is steady or the time is over."""
    times, begun = [], time.perf_counter()
    for _ in range(2):
        call()
    while len(times) < 101:
        cold.sum()
        if on_cuda:
            start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            call()
            stop.record()
            torch.cuda.synchronize()
            times.append(start.elapsed_time(stop) / 1e3)
        else:
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
        low, middle, high = np.quantile(times, [0.25, 0.5, 0.75])
        steady = 1.253 * (high - low) / 1.349 / len(times) ** 0.5 < 0.01 * middle
        if len(times) >= 5 and (steady or time.perf_counter() - begun > options.seconds):
            break
    return times


def memory_of(call):
    """Bytes of the card that a call takes beside what was there before it."""
    call()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


wanted = [word for word in options.only.split(",") if word]
for case in list(cases.values())[: options.most or None]:
    try:
        for name, call in peers(case):
            if wanted and not any(word in name for word in wanted):
                continue
            if options.no_compile and name == "torch.compile":
                continue
            try:
                memory = memory_of(call) if on_cuda else None
                times = sample(call)
            except Exception as error:  # A peer that cannot do a case is left out of its row, and said.
                print(f"pool.py: {name}: {case['case']}: {str(error).splitlines()[0]}", file=sys.stderr)
                continue
            found = {key: case[key] for key in ("case", "kernel", "direction", "rule", "dtype", "bags", "rows", "total")}
            found |= {key: case[key] for key in ("ragged", "masked", "d", "l", "bytes", "flops")}
            low, middle, high = (float(q) for q in np.quantile(times, [0.1, 0.5, 0.9]))
            found |= {
                "record": "case",
                "by": name,
                "device": "cuda:0" if on_cuda else "cpu",
                "threads": case["threads"] if on_cuda else threads,
                "samples": len(times),
                "least": min(times),
                "p10": low,
                "median": middle,
                "p90": high,
                "memory": memory,
            }
            print(json.dumps(found), flush=True)
    except torch.OutOfMemoryError as error:
        print(f"pool.py: {case['case']}: {str(error).splitlines()[0]}", file=sys.stderr)
    if on_cuda:
        torch.cuda.empty_cache()
