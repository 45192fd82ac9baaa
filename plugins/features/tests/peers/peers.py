"""Reads and makes feature files with h5py, as TRIDENT, CLAM and STAMP read and write them.

    peers.py read LAYOUT FILE OUT    reads as the peer does; OUT.f32, OUT.coords (f64) and a line of JSON with what it says
    peers.py make FOLDER             files as h5py writes them in many ways, each with NAME.f32 beside it

None of the three programs is on PyPI (the packages `trident`, `clam` and `STAMP` there are others), and the licences of two forbid to
copy them, so the reading calls stand here in our words. Each names the lines that it stands for; originals.py calls those lines
themselves, out of a checkout. The commits:

    TRIDENT a91fa8490e0210ebbbe58452c3babe009e0ab7ca
    CLAM    53e2409d4a8189c682c173382964a85f114f923c
    STAMP   c54ce06739622c127a83eccb35a7082e504b9aef
"""
import json
import os
import sys

import h5py
import numpy as np


def trident(path):
    # trident/IO.py:602-605 (read_coords), trident/wsi_objects/WSI.py:774-782 and 1102-1105.
    with h5py.File(path, "r") as f:
        attrs = dict(f["coords"].attrs)
        coords = f["coords"][:]
        features = f["features"][:]
    assert features.ndim == 2 and coords.shape == (len(features), 2)
    assert np.issubdtype(coords.dtype, np.integer)
    said = {
        "patch_size": int(attrs["patch_size"]),
        "patch_size_level0": int(attrs["patch_size_level0"]),
        "overlap": int(attrs["overlap"]),
        "level0_width": int(attrs["level0_width"]),
        "level0_height": int(attrs["level0_height"]),
        "name": attrs["name"],
    }
    for name in ("level0_magnification", "target_magnification"):
        if name in attrs:
            said[name] = float(attrs[name])
    with h5py.File(path, "r") as f:
        said["encoder"] = f["features"].attrs["encoder"]
    return features, coords, said


def clam(path):
    # dataset_modules/dataset_generic.py:346-352, with use_h5; dataset_modules/dataset_h5.py:63-67.
    with h5py.File(path, "r") as f:
        features = f["features"][:]
        coords = f["coords"][:]
        attrs = dict(f["coords"].attrs)
    # As TRIDENT reads CLAM's: trident/IO.py:638-643 (read_coords_legacy).
    said = {
        "patch_size": int(attrs["patch_size"]),
        "patch_level": int(attrs["patch_level"]),
        "custom_downsample": int(attrs.get("custom_downsample", 1)),
        "downsample": [float(x) for x in attrs["downsample"]],
        "level_dim": [int(x) for x in attrs["level_dim"]],
        "name": attrs["name"],
    }
    assert coords.dtype == np.int32, coords.dtype
    return features, coords, said


def version(text):
    return tuple(int(part) for part in text.split("."))


def opened(path):
    # src/stamp/modeling/data.py:597-605: for files on shared storage, and what does not open so is opened plainly.
    try:
        return h5py.File(path, "r", swmr=True, libver="latest")
    except Exception:
        return h5py.File(path, "r")


def stamp(path, own="2.0.0"):
    # src/stamp/modeling/data.py:610-632 (BagDataset) and 741-806 (get_coords); src/stamp/encoding/encoder/__init__.py:190-199.
    with opened(path) as f:
        features = f["feats"][:].astype(np.float32)
        coords = f["coords"][:]
        size_um = size_px = coords_um = None
        if (size := f.attrs.get("tile_size", None)) and f.attrs.get("unit", None) == "um":
            size_um, coords_um = float(size), coords
        elif size := f.attrs.get("tile_size_um", None):
            size_um, coords_um = float(size), coords
        if (text := f.attrs.get("stamp_version")) and version(text) > version(own):
            raise RuntimeError("features were extracted with a newer version of stamp")
        if "tile_size_px" in f.attrs:
            size_px = int(f.attrs["tile_size_px"])
        assert size_um and coords_um is not None
        said = {
            "tile_size_um": size_um,
            "tile_size_px": size_px,
            "unit": f.attrs["unit"],
            "extractor": f.attrs["extractor"],
            # detect_feature_type, data.py:438-446, compares it as a text.
            "feat_type": str(f.attrs.get("feat_type")),
            "dtype": str(f["feats"].dtype),
        }
    return features, coords_um, said


def read(layout, path, out):
    features, coords, said = {"trident": trident, "clam": clam, "stamp": stamp}[layout](path)
    said["shape"] = list(features.shape)
    features.astype("<f4").tofile(out + ".f32")
    coords.astype("<f8").tofile(out + ".coords")
    print(json.dumps(said))


def make(folder):
    random = np.random.default_rng(20)
    coords = lambda n: np.stack([np.arange(n) % 40 * 256, np.arange(n) // 40 * 256], 1)

    def one(name, libver="earliest", n=333, d=48, dtype="f4", places="i8", array="features", head=(), **how):
        values = (random.standard_normal((n, d)) * 3).astype(dtype)
        with h5py.File(os.path.join(folder, name + ".h5"), "w", libver=libver) as f:
            f.create_dataset(array, data=values.reshape(*head, n, d), **how)
            c = f.create_dataset("coords", data=coords(n).astype(places))
            c.attrs["patch_size_level0"] = 256
            # As Python has it: a text, numbers of numpy, a dict as JSON.
            c.attrs["name"] = name
            c.attrs["extra"] = json.dumps({"a": 1})
            c.attrs["flags"] = np.array([True, False])
        values.astype("<f4").tofile(os.path.join(folder, name + ".f32"))

    for libver in ("earliest", "v110", "latest"):
        one(libver + "-contiguous", libver)
        one(libver + "-rows", libver, chunks=(1, 48), maxshape=(None, 48))
        one(libver + "-chunked", libver, n=5000, chunks=(1024, 48), maxshape=(None, 48))
        one(libver + "-auto", libver, n=5000, chunks=True)
        one(libver + "-f2", libver, dtype="f2", places="f4")
        one(libver + "-f8-big-endian", libver, dtype=">f8", places=">i4")
        one(libver + "-ints", libver, dtype="i2", places="u4")
        one(libver + "-empty", libver, n=0, chunks=(1, 48), maxshape=(None, 48))
        one(libver + "-batch", libver, head=(1,))
    for libver in ("earliest", "v110"):
        one(libver + "-gzip", libver, chunks=(32, 48), maxshape=(None, 48), compression="gzip", shuffle=True)
        one(libver + "-lzf", libver, chunks=(32, 48), maxshape=(None, 48), compression="lzf")
        one(libver + "-narrow", libver, chunks=(32, 16), compression="gzip", fletcher32=True)


if __name__ == "__main__":
    {"read": read, "make": make}[sys.argv[1]](*sys.argv[2:])
