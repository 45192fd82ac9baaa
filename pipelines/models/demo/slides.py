"""Turns the IDC mosaics into slides, a manifest, and bags: the input of `weir train`.

    python slides.py DATA OUT

DATA holds patches/{train,val}.{csv,webp} and slides/slide-PATIENT.{tiff,tumour.csv}, as shared/data/idc does. OUT gets

    slide-PATIENT.tiff   a slide a patient: lossless, every 50 x 50 px patch at its own coordinates, white elsewhere
    manifest.csv         slide,label,split,patient,mpp
    bags.csv             bag,slide,split,label,tiles: the neighbourhoods that are trained and validated on
    truth/SLIDE.csv      x,y,class of every tile, for evaluation alone: training never opens this folder

A bag is 12 to 32 nearest tiles of one patient. Where it is cut never depends on what its tiles show; its label is `tumour`
when any of them is tumour. Slide 14082 is the test: it has no bags.
"""

import csv
import pathlib
import shutil
import sys

import numpy as np
import tifffile
from PIL import Image

PATCH = 50  # px
ROW = 20  # patches in a row of a mosaic
MPP = 4.0  # um per px: the 40x scans reduced 16:1
LEAST, MOST = 12, 32  # tiles in a bag
SEED = 7
POSITIVE, NEGATIVE = "tumour", "no-tumour"
TRAIN_SLIDES = ["8863", "8867", "8913"]
TEST_SLIDE = "14082"
Image.MAX_IMAGE_PIXELS = None  # a mosaic is 1000 px wide and 50 px high for each 20 patches


def fail(message):
    sys.exit(f"slides.py: {message}")


def read_table(path, columns):
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows or any(column not in rows[0] for column in columns):
        fail(f"{path}: expected the columns {','.join(columns)} and at least one row")
    try:
        return [{column: int(row[column]) for column in columns} for row in rows]
    except (TypeError, ValueError) as error:
        fail(f"{path}: {error}; every cell is a whole number")


def write_table(path, header, rows):
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def write_slide(path, patches):
    """patches: (x, y, pixels); one tiled TIFF that holds them, white elsewhere."""
    side = 256
    width, height = (max(p[axis] for p in patches) + PATCH for axis in (0, 1))
    canvas = np.full((height, width, 3), 255, np.uint8)
    for x, y, pixels in patches:
        canvas[y : y + PATCH, x : x + PATCH] = pixels
    per_cm = 10_000 / MPP
    tifffile.imwrite(
        path,
        canvas,
        photometric="rgb",
        tile=(side, side),
        compression="adobe_deflate",
        predictor=True,
        resolution=(per_cm, per_cm),
        resolutionunit="CENTIMETER",
        software="weir pipelines/models/demo/slides.py",
        metadata=None,
        datetime=None,
    )


def neighbourhoods(places, random):
    """Splits places [n, 2] into compact groups of LEAST to about 2 LEAST: halves of halves across the longer side, as a k-d
    tree does, seen from a random angle, so that another seed cuts elsewhere."""
    angle = random.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    turned = places @ turn

    def split(members):
        parts = len(members) // LEAST
        if parts <= 1:
            return [members]
        axis = np.argmax(np.ptp(turned[members], axis=0))
        members = members[np.argsort(turned[members][:, axis], kind="stable")]
        cut = len(members) * (parts // 2) // parts
        return split(members[:cut]) + split(members[cut:])

    return split(np.arange(len(places)))


def bags_of(slide, split, truth, random):
    truth = sorted(truth, key=lambda row: (row["y"], row["x"]))
    places = np.array([(row["x"], row["y"]) for row in truth], float)
    if len(places) < LEAST:
        print(f"{slide}: {len(places)} tiles are too few for a bag of {LEAST}: left out")
        return []
    bags = []
    for number, members in enumerate(neighbourhoods(places, random)):
        assert LEAST <= len(members) <= MOST, (slide, len(members))
        rows = [truth[member] for member in sorted(members)]
        label = POSITIVE if any(row["class"] for row in rows) else NEGATIVE
        tiles = " ".join(f"{row['x']}:{row['y']}" for row in rows)
        bags.append([f"{slide}-{number:03}", slide, split, label, tiles])
    return bags


def main():
    if len(sys.argv) != 3:
        fail("usage: python slides.py DATA OUT")
    data, out = map(pathlib.Path, sys.argv[1:])
    patches = {split: [data / f"patches/{split}.{kind}" for kind in ("csv", "webp")] for split in ("train", "val")}
    slides = {
        patient: [data / f"slides/slide-{patient}.{kind}" for kind in ("tiff", "tumour.csv")]
        for patient in TRAIN_SLIDES + [TEST_SLIDE]
    }
    missing = [str(path) for pair in [*patches.values(), *slides.values()] for path in pair if not path.is_file()]
    if missing:
        fail(
            "these files are missing:\n  "
            + "\n  ".join(missing)
            + '\nThe data are not in the repository. They come from "Breast Histopathology Images" (CC0-1.0; Cruz-Roa et al. 2014,'
            + "\nJanowczyk and Madabhushi 2016); pipelines/models/demo/README.md says how the folder is laid out."
        )
    (out / "truth").mkdir(parents=True, exist_ok=True)

    tables = []  # slide, split, patient, truth
    for split, (table, mosaic) in patches.items():
        rows = read_table(table, ["index", "patient", "x", "y", "class"])
        pixels = np.asarray(Image.open(mosaic).convert("RGB"))
        held = pixels.shape[0] // PATCH * ROW
        if pixels.shape[1] != ROW * PATCH or max(row["index"] for row in rows) >= held:
            fail(f"{mosaic}: {pixels.shape[1]} x {pixels.shape[0]} px do not hold the {len(rows)} patches of {table}")
        for patient in sorted({row["patient"] for row in rows}):
            own = [row for row in rows if row["patient"] == patient]
            found = []
            for row in own:
                top, left = row["index"] // ROW * PATCH, row["index"] % ROW * PATCH
                found.append((row["x"], row["y"], pixels[top : top + PATCH, left : left + PATCH]))
            name = f"slide-{patient}"
            write_slide(out / f"{name}.tiff", found)
            tables.append((name, split, patient, own))
    for patient, (slide, table) in slides.items():
        name = slide.stem
        shutil.copyfile(slide, out / f"{name}.tiff")
        split = "test" if patient == TEST_SLIDE else "train"
        tables.append((name, split, patient, read_table(table, ["x", "y", "class"])))

    tables.sort(key=lambda table: table[0])
    manifest, bags = [], []
    for name, split, patient, truth in tables:
        label = POSITIVE if any(row["class"] for row in truth) else NEGATIVE
        manifest.append([name, label, split, patient, MPP])
        write_table(out / "truth" / f"{name}.csv", ["x", "y", "class"], [[r["x"], r["y"], r["class"]] for r in truth])
        if split != "test":
            bags += bags_of(name, split, truth, np.random.default_rng([SEED, int(patient)]))
    write_table(out / "manifest.csv", ["slide", "label", "split", "patient", "mpp"], manifest)
    write_table(out / "bags.csv", ["bag", "slide", "split", "label", "tiles"], bags)
    for split in ("train", "val"):
        labels = [bag[3] for bag in bags if bag[2] == split]
        positive = labels.count(POSITIVE)
        if not len(labels) <= 4 * positive <= 3 * len(labels):
            fail(f"{split}: {positive} of {len(labels)} bags are {POSITIVE}: a class has less than a quarter; take another LEAST")
        print(f"{split}: {len(labels)} bags, {positive} {POSITIVE}")
    print(f"{len(manifest)} slides, manifest.csv, bags.csv and truth/ in {out}")


main()
