"""Writes the tiles of this folder, what the float64 reference makes of them, and its statistics.

    python make.py FIXTURES     FIXTURES: the repository's tests/fixtures

Needs numpy, Pillow and openslide-python (with openslide-bin). Pictures of one tile stand below each other: Macenko, Macenko with
`keep-glass = false`, Reinhard, then haematoxylin, eosin and residual as densities, and haematoxylin in its colour.
"""

import json
import pathlib
import sys

import numpy as np
import openslide
from PIL import Image

import reference

SIDE = 64
TILES = {
    "epidermis": ("CMU-1-Small-Region.svs", 1180, 1750),
    "stroma": ("CMU-1-Small-Region.svs", 1480, 2500),
    "edge": ("CMU-1-Small-Region.svs", 1180, 200),
    "tumour": ("slide-14082.tiff", 1570, 1670),
    "connective": ("slide-14082.tiff", 1350, 1950),
}

here = pathlib.Path(__file__).parent
statistics = {}
for name, (slide, x, y) in TILES.items():
    tile = openslide.OpenSlide(str(pathlib.Path(sys.argv[1]) / slide)).read_region((x, y), 0, (SIDE, SIDE)).convert("RGB")
    tile.save(here / f"{name}.png", optimize=True)
    pixels = np.asarray(tile).reshape(-1, 3)
    stains, most = reference.macenko(pixels)
    mean, deviation = reference.reinhard(pixels)
    statistics[name] = {
        "haematoxylin": stains[:, 0].tolist(),
        "eosin": stains[:, 1].tolist(),
        "concentrations": most.tolist(),
        "mean": mean.tolist(),
        "deviation": deviation.tolist(),
    }
    pictures = [
        reference.normalise_macenko(pixels, (stains, most)),
        reference.normalise_macenko(pixels, (stains, most), keep_glass=False),
        reference.normalise_reinhard(pixels, (mean, deviation)),
        *reference.separate(pixels),
        reference.separate(pixels, colour=True)[0],
    ]
    column = np.concatenate([np.floor(picture + 0.5).reshape(SIDE, SIDE, 3) for picture in pictures]).astype(np.uint8)
    Image.fromarray(column).save(here / f"{name}.made.png", optimize=True)
Image.open(here / "tumour.png").save(here / "tumour.jpg", quality=95, subsampling=0)
(here / "statistics.json").write_text(json.dumps(statistics, indent=2) + "\n")
