"""Reads and makes feature files by the code of TRIDENT, CLAM and STAMP itself, out of a checkout of each.

    originals.py read LAYOUT CHECKOUT FOLDER          reads FOLDER's *.h5 (of clam FOLDER/h5_files): NAME.f32 and NAME.coords (f64)
                                                      beside each, and one object of JSON with what each says
    originals.py make LAYOUT CHECKOUT SLIDE FOLDER    the program's own tiling of a slide, its own writing of what a small encoder
                                                      makes of the tiles; FOLDER/SLIDE.h5, .f32 and .coords as above

None of it is copied here: what is called is named at each call. peers.py makes the same calls without the programs.
"""
import importlib.metadata
import json
import os
import re
import sys
import tempfile
import types
import warnings
from pathlib import Path

import h5py
import numpy as np
import torch


def versioned(checkout):
    """STAMP asks its installed package for its version, which a checkout has not."""
    text = (Path(checkout) / "pyproject.toml").read_text()
    own = re.search(r'^version = "([^"]+)"', text, re.M)[1]
    known = importlib.metadata.version
    importlib.metadata.version = lambda name: own if name == "stamp" else known(name)


class Bag(torch.nn.Module):
    """A slide encoder that keeps what it was given."""

    def forward(self, batch, device):
        self.batch = batch
        return batch["features"].mean(1)


def read_trident(path):
    from trident.IO import read_coords
    from trident.wsi_objects.WSI import WSI
    from trident.wsi_objects.WSIPatcher import WSIPatcher

    attrs, coords = read_coords(path)
    encoder = Bag()
    with tempfile.TemporaryDirectory() as out, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        slide = types.SimpleNamespace(name="slide")
        made = WSI.extract_slide_features(slide, path, encoder, out, device="cpu")
        with h5py.File(made, "r") as f:
            mean = f["features"][:]
    with h5py.File(path, "r") as f:
        features = f["features"][:]
        name = f["features"].attrs["encoder"]
    if len(features):
        assert np.array_equal(encoder.batch["features"][0].numpy(), features.astype(np.float32))
        assert np.array_equal(encoder.batch["coords"][0].numpy(), coords)
        assert np.allclose(mean, features.astype(np.float32).mean(0), rtol=1e-3, atol=1e-2)
    # As `visualize_coords` and `extract_patch_features` make one of such a file.
    slide = types.SimpleNamespace(
        get_dimensions=lambda: (attrs["level0_width"], attrs["level0_height"]),
        get_best_level_and_custom_downsample=lambda downsample, tolerance: (0, downsample),
        level_downsamples=[1.0],
    )
    patcher = WSIPatcher(
        slide,
        patch_size=attrs["patch_size"],
        src_mag=attrs["level0_magnification"],
        dst_mag=attrs["target_magnification"],
        custom_coords=coords,
        coords_only=True,
    )
    assert len(patcher) == len(coords)
    assert all(tuple(patcher[i]) == tuple(coords[i]) for i in range(0, len(coords), 100))
    said = {
        "patch_size": int(attrs["patch_size"]),
        "patch_size_level0": int(patcher.patch_size_src),
        "overlap": int(attrs["overlap"]),
        "level0_width": int(attrs["level0_width"]),
        "level0_height": int(attrs["level0_height"]),
        "level0_magnification": float(attrs["level0_magnification"]),
        "target_magnification": float(attrs["target_magnification"]),
        "name": attrs["name"],
        "encoder": name,
    }
    return features, coords, said


def read_clam(path):
    from dataset_modules.dataset_generic import Generic_MIL_Dataset
    from dataset_modules.dataset_h5 import Whole_Slide_Bag_FP

    slide = Path(path).stem
    with tempfile.NamedTemporaryFile("w", suffix=".csv") as table:
        table.write(f"case_id,slide_id,label\ncase,{slide},tumour\n")
        table.flush()
        dataset = Generic_MIL_Dataset(
            data_dir=str(Path(path).parent.parent),
            csv_path=table.name,
            label_dict={"tumour": 0},
            print_info=False,
        )
    dataset.load_from_h5(True)
    features, label, coords = dataset[0]
    assert label == 0
    bag = Whole_Slide_Bag_FP(path, wsi=None)
    assert len(bag) == len(coords)
    with h5py.File(path, "r") as f:
        attrs = dict(f["coords"].attrs)
    said = {
        "patch_size": int(bag.patch_size),
        "patch_level": int(bag.patch_level),
        # TRIDENT's read_coords_legacy takes it like this.
        "custom_downsample": int(attrs.get("custom_downsample", 1)),
        "downsample": [float(x) for x in attrs["downsample"]],
        "level_dim": [int(x) for x in attrs["level_dim"]],
        "name": attrs["name"],
    }
    return features.numpy(), coords, said


def read_stamp(path):
    from stamp.encoding.encoder import Encoder
    from stamp.modeling.data import BagDataset, detect_feature_type, get_coords

    dataset = BagDataset(
        bags=[[Path(path)]], ground_truths=torch.ones(1, 1), transform=None
    )
    features, coords, count, _ = dataset[0]
    assert count == len(features)
    given, info, extractor = Encoder._read_h5(
        types.SimpleNamespace(precision=torch.float32), str(path)
    )
    assert torch.equal(given, features)
    assert np.array_equal(info.coords_um, coords.numpy())
    with h5py.File(path, "r") as f:
        assert get_coords(f).tile_size_um == info.tile_size_um
        unit, dtype = f.attrs["unit"], str(f["feats"].dtype)
    said = {
        "tile_size_um": float(info.tile_size_um),
        "tile_size_px": int(info.tile_size_px),
        "unit": unit,
        "extractor": extractor,
        "feat_type": detect_feature_type(Path(path).parent),
        "dtype": dtype,
        "mpp": float(info.mpp),
    }
    return features.numpy(), coords.numpy(), said


class Colours(torch.nn.Module):
    """An encoder of tiles: mean and deviation of each channel, 0 to 1."""

    enc_name = "colour-statistics"
    precision = torch.float32
    embedding_dim = 6

    def forward(self, tiles):
        return torch.cat([tiles.mean((2, 3)), tiles.std((2, 3))], 1)

    @staticmethod
    def eval_transforms(image):
        values = np.asarray(image.convert("RGB"), dtype=np.float32) / 255
        return torch.from_numpy(values).permute(2, 0, 1)


def make_trident(slide, folder):
    from trident.wsi_objects.OpenSlideWSI import OpenSlideWSI

    wsi = OpenSlideWSI(slide_path=slide, lazy_init=False, max_workers=0)
    places = wsi.extract_tissue_coords(20, 256, folder, overlap=32)
    return wsi.extract_patch_features(Colours(), places, folder, device="cpu", batch_limit=32)


def make_clam(slide, folder):
    import openslide
    from dataset_modules.dataset_h5 import Whole_Slide_Bag_FP
    from utils.file_utils import save_hdf5

    open_slide = openslide.open_slide(slide)
    # The places as WholeSlideImage.process_contour saves them, a batch at a time.
    name = Path(slide).stem
    width, height = open_slide.level_dimensions[0]
    said = {
        "patch_size": 256,
        "patch_level": 0,
        "downsample": (1.0, 1.0),
        "downsampled_level_dim": (width, height),
        "level_dim": (width, height),
        "name": name,
        "save_path": folder,
    }
    places = os.path.join(folder, "places.h5")
    mode = "w"
    for y in range(0, height - 256, 256):
        row = np.array([(x, y) for x in range(0, width - 256, 256)])
        save_hdf5(places, {"coords": row}, attr_dict={"coords": said}, mode=mode)
        mode = "a"
    bag = Whole_Slide_Bag_FP(places, open_slide, Colours.eval_transforms)
    # As extract_features_fp.compute_w_loader, whose file is a program and no module.
    path = os.path.join(folder, name + ".h5")
    mode, model = "w", Colours()
    for batch in torch.utils.data.DataLoader(bag, batch_size=32):
        with torch.inference_mode():
            features = model(batch["img"]).numpy().astype(np.float32)
        coords = batch["coord"].numpy().astype(np.int32)
        save_hdf5(path, {"features": features, "coords": coords}, attr_dict=None, mode=mode)
        mode = "a"
    os.remove(places)
    return path


def make_stamp(slide, folder):
    from stamp.preprocessing import extract_
    from stamp.preprocessing.extractor import Extractor

    with tempfile.TemporaryDirectory() as slides:
        os.symlink(os.path.abspath(slide), os.path.join(slides, os.path.basename(slide)))
        extract_(
            wsi_dir=Path(slides),
            output_dir=Path(folder),
            wsi_list=None,
            cache_dir=None,
            cache_tiles_ext="jpg",
            extractor=Extractor(
                model=Colours(),
                transform=Colours.eval_transforms,
                identifier="colour-statistics",
            ),
            tile_size_px=224,
            tile_size_um=128.0,
            max_workers=1,
            device="cpu",
            default_slide_mpp=None,
            brightness_cutoff=None,
            canny_cutoff=None,
            generate_hash=False,
        )
    return os.path.join(folder, "colour-statistics", Path(slide).stem + ".h5")


def keep(stem, features, coords):
    features.astype("<f4").tofile(f"{stem}.f32")
    coords.astype("<f8").tofile(f"{stem}.coords")


def read(layout, folder):
    reader = {"trident": read_trident, "clam": read_clam, "stamp": read_stamp}[layout]
    said = {}
    for path in sorted(Path(folder, "h5_files" if layout == "clam" else ".").glob("*.h5")):
        features, coords, what = reader(str(path))
        keep(path.with_suffix(""), features, coords)
        said[path.stem] = {**what, "shape": list(features.shape)}
    return said


def make(layout, slide, folder):
    made = {"trident": make_trident, "clam": make_clam, "stamp": make_stamp}[layout](slide, folder)
    with h5py.File(made, "r") as f:
        features, coords = f["feats" if layout == "stamp" else "features"][:], f["coords"][:]
    path = Path(folder, Path(slide).stem + ".h5")
    os.replace(made, path)
    keep(path.with_suffix(""), features, coords)
    return {"shape": list(features.shape)}


if __name__ == "__main__":
    task, layout, checkout, *rest = sys.argv[1:]
    if layout == "stamp":
        versioned(checkout)
    sys.path.insert(0, os.path.join(checkout, "src") if layout == "stamp" else checkout)
    # What the programs print is not the answer.
    answer, sys.stdout = sys.stdout, sys.stderr
    print(json.dumps({"read": read, "make": make}[task](layout, *rest)), file=answer)
