#!/usr/bin/env python3
"""The processor's figures that the kernels must hold, in one table: weir and its peers in turns.

    figures.py BENCH [--rounds N] [--threads 1,2]

BENCH is the program: `weir` or `weir-bench-kernels`. Each round runs the bench on the whole-slide bag (20,000 x 1,024 f32,
L 256), then pool.py on the same cases. A time is the least of all samples, since a neighbour on the machine only ever adds; the
ratio of the least rounds' medians stands beside it. Where the two lie on different sides of a bound, the machine was too busy.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version

arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
arguments.add_argument("bench")
arguments.add_argument("--rounds", type=int, default=3)
arguments.add_argument("--threads", default="1,2")
options = arguments.parse_args()

FILTER = "squared-average f32 1x20000 d1024 -masked -l128 -l512 -pool.backward"
POOL = "pool.forward squared-average f32 1x20000 d1024"
GATED = "gated-pool.forward squared-average f32 1x20000 d1024 l256"
BACKWARD = "gated-pool.backward squared-average f32 1x20000 d1024 l256 kept"
AGAIN = BACKWARD.removesuffix(" kept")
# Forward with the units kept, then backward with dL/dh, as one call; PyTorch builds its graph in the call and throws it away.
STEP = "gated-pool.step squared-average f32 1x20000 d1024 l256"
HERE = os.path.dirname(os.path.abspath(__file__))
command = [options.bench] + (["bench", "kernels"] if os.path.basename(options.bench) == "weir" else [])


def cases(path):
    with open(path) as lines:
        return [r for r in map(json.loads, lines) if r["record"] == "case"]


def measure(threads, folder):
    """One round: weir, then its peers."""
    ours, theirs = os.path.join(folder, "weir.jsonl"), os.path.join(folder, "peers.jsonl")
    subprocess.run(
        command + ["--filter", FILTER, "--threads", str(threads), "--budget", "100", "--json", ours],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with open(theirs, "w") as out:
        script = [sys.executable, os.path.join(HERE, "pool.py"), ours, "--threads", str(threads), "--seconds", "2"]
        subprocess.run(script + ["--no-compile"], check=True, stdout=out)
    with open(ours) as lines:
        machine = next(r for r in map(json.loads, lines) if r["record"] == "machine")
    return machine, cases(ours), cases(theirs)


def versions():
    """Of what the peers are."""
    said = [f"Python {platform.python_version()}"]
    for package, name in (("torch", "PyTorch"), ("numpy", "numpy"), ("onnxruntime", "ONNX Runtime")):
        try:
            said.append(f"{name} {version(package)}")
        except PackageNotFoundError:
            said.append(f"no {name}")
    return ", ".join(said)


def ms(seconds):
    return f"{seconds * 1e3:.2f} ms"


rows, machine = [], None
for threads in map(int, options.threads.split(",")):
    times, of_read, refused = {}, [], {}
    with tempfile.TemporaryDirectory() as folder:
        for round_ in range(options.rounds):
            print(f"figures.py: {threads} threads, round {round_ + 1} of {options.rounds}", file=sys.stderr)
            machine, ours, theirs = measure(threads, folder)
            for found in ours + theirs:
                if found.get("refused"):
                    refused[found["case"]] = found["refused"]
                elif found.get("median"):
                    times.setdefault((found["case"], found["by"]), []).append((found["least"], found["median"]))
                if found.get("of_read"):
                    of_read.append(found["of_read"])

    def least(case, by):
        return min(t[0] for t in times[case, by]) if (case, by) in times else None

    def median(case, by):
        return min(t[1] for t in times[case, by]) if (case, by) in times else None

    def add(case, what, by, bound):
        mine, peer = least(case, "weir"), least(case, by)
        ratio = mine / peer if mine and peer else None
        medians = f"{median(case, 'weir') / median(case, by):.2f}" if ratio else ""
        line(case, what, ms(peer) if peer else "", ratio, medians, bound)

    def line(case, what, other, ratio, medians, bound):
        verdict = "open" if ratio is None else "holds" if ratio <= bound else "DOES NOT HOLD"
        mine = least(case, "weir")
        said = "" if ratio is None else f"{ratio:.2f}"
        limit = f"<= {bound:.2f}" if bound < 1e9 else ""
        verdict = verdict if bound < 1e9 else ""
        rows.append([what, threads, ms(mine) if mine else "refused", other, said, medians, limit, verdict])

    # Each round's ratio is of the least samples, which alternate; the middle round counts.
    line(POOL, "pool / plain read", "", sorted(of_read)[len(of_read) // 2] if of_read else None, "", 1.25)
    for case, what, bound in (
        (POOL, "pool", 1e9),
        (GATED, "head and pool", 1.15),
        (BACKWARD, "head and pool, backward", 0.8),
        (AGAIN, "head and pool, backward, units made again", 1e9),
        (STEP, "head and pool, forward and backward", 0.8),
    ):
        peers = sorted({by for c, by in times if c == case and by != "weir"}, key=lambda by: least(case, by))
        for place, by in enumerate(peers):
            best = place == 0
            add(case, f"{what} / {by}" + (" (the best)" if best else ""), by, bound if best else 1e9)

head = ["figure", "threads", "weir", "other", "ratio", "of medians", "must be", ""]
print(f"{machine['name']}, {machine['cores']} cores, load {machine['load']}, weir {machine['version']}")
print(f"(program hash {machine['program']}), {machine['date']}; 20,000 x 1,024 f32, L 256, {options.rounds} rounds in turns")
print(f"`benches/peers/kernels PROGRAM figures`; {versions()}\n")
text = [head] + [[str(cell) for cell in row] for row in rows]
widths = [max(len(row[c]) for row in text) for c in range(len(head))]
for number, row in enumerate(text):
    print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |")
    if number == 0:
        print("| " + " | ".join("-" * width for width in widths) + " |")
