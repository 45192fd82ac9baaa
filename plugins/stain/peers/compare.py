"""Tiles of the repository's slides through the plugin's arithmetic and through what people use today: grey levels apart, and speed.

    python compare.py FIXTURES TILES     FIXTURES: the repository's tests/fixtures; TILES: the built example `tiles`

Needs what requirements.txt names. One thread each, seconds of the processor, the best of seven runs over all tiles.
"""

import os

for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[threads] = "1"

import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np
import openslide
import skimage.color
import torchstain.numpy.normalizers as torchstain

SIDE = 256
fixtures, program = pathlib.Path(sys.argv[1]), sys.argv[2]


def tiles():
    """Tiles of which at least half is stained."""
    found = []
    for name in ("CMU-1-Small-Region.svs", "slide-14082.tiff"):
        slide = openslide.OpenSlide(str(fixtures / name))
        width, height = slide.dimensions
        whole = np.asarray(slide.read_region((0, 0), 0, (width, height)).convert("RGB"))
        for y in range(0, height - SIDE + 1, SIDE):
            for x in range(0, width - SIDE + 1, SIDE):
                tile = whole[y : y + SIDE, x : x + SIDE]
                if (tile.max(axis=2) < 206).mean() > 0.5:
                    found.append(tile)
    return np.stack(found)


def timed(function, tiles):
    best = float("inf")
    for _ in range(7):
        start = time.process_time()
        made = [function(tile) for tile in tiles]
        best = min(best, time.process_time() - start)
    return np.stack(made), best


def ours(method, tiles, keep_glass):
    with tempfile.TemporaryDirectory() as folder:
        raw, out = pathlib.Path(folder) / "in", pathlib.Path(folder) / "out"
        raw.write_bytes(tiles.tobytes())
        command = [program, method, raw, str(SIDE), out, "true" if keep_glass else "false"]
        seconds = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        return np.frombuffer(out.read_bytes(), np.uint8).reshape(tiles.shape), seconds


def macenko():
    normalizer = torchstain.NumpyMacenkoNormalizer()
    return lambda tile: normalizer.normalize(tile, stains=False)[0]


def macenko_exact():
    """The same with its last line as the inverse of its first: what it made before it was cut to whole numbers, less 1."""
    normalizer = torchstain.NumpyMacenkoNormalizer()
    compute = normalizer._NumpyMacenkoNormalizer__compute_matrices

    def normalise(tile):
        _, concentrations, most = compute(tile.reshape(-1, 3), 240, 1, 0.15)
        scaled = concentrations * (normalizer.maxCRef / most)[:, None]
        made = 240 * np.exp(-normalizer.HERef @ scaled) - 1
        return np.clip(np.floor(made + 0.5), 0, 255).T.reshape(tile.shape).astype(np.uint8)

    return normalise


def reinhard():
    normalizer = torchstain.NumpyReinhardNormalizer()
    normalizer.target_means = np.array([58.12343, 26.483482, -12.701005])
    normalizer.target_stds = np.array([14.675022, 7.5744166, 5.226378])
    return normalizer.normalize


def haematoxylin(tile):
    """scikit-image's separation, its concentration as the picture that the plugin makes."""
    stains = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]])
    stains = stains / np.linalg.norm(stains, axis=1)[:, None]
    residual = np.cross(stains[0], stains[1])
    inverse = np.linalg.inv(np.vstack([stains, residual / np.linalg.norm(residual)]))
    # Its densities are counted from 255 levels without the 1 that is added here.
    amount = skimage.color.separate_stains((tile.astype(np.float64) + 1) / 240, inverse)[..., 0]
    amount = amount * -np.log(1e-6)
    made = np.clip(np.floor(240 * np.exp(-amount) - 0.5), 0, 255).astype(np.uint8)
    return np.repeat(made[..., None], 3, axis=2)


tiles = tiles()
pixels = tiles.shape[0] * SIDE * SIDE / 1e6
print(f"{tiles.shape[0]} tiles of {SIDE} px, {pixels:.1f} Mpx; grey levels apart from the peer, one thread each\n")
print("| method | keep-glass | peer | mean | most | equal | at most 1 | weir, Mpx/s | peer, Mpx/s |")
print("|---|---|---|---|---|---|---|---|---|")
rows = [
    ("macenko", False, "torchstain 1.4.1", macenko()),
    ("macenko", False, "torchstain, exact inverse", macenko_exact()),
    ("macenko", True, "torchstain 1.4.1", macenko()),
    ("reinhard", False, "torchstain 1.4.1", reinhard()),
    ("reinhard", True, "torchstain 1.4.1", reinhard()),
    ("ruifrok", False, "scikit-image 0.26", haematoxylin),
]
for method, keep_glass, name, function in rows:
    made, seconds = ours(method, tiles, keep_glass)
    theirs, their_seconds = timed(function, tiles)
    if method == "ruifrok":
        made = np.minimum(made, 239)  # the peer has no less than nothing of a stain
    apart = np.abs(made.astype(int) - theirs.astype(int))
    equal, near = (apart == 0).mean() * 100, (apart <= 1).mean() * 100
    print(
        f"| {method} | {str(keep_glass).lower()} | {name} | {apart.mean():.3f} | {apart.max()} | {equal:.2f} % | {near:.3f} % "
        f"| {pixels / seconds:.0f} | {pixels / their_seconds:.1f} |",
        flush=True,
    )
