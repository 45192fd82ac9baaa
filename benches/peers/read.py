"""The tiles of benches/src/bin/reader.rs read by OpenSlide and by libvips: CPU ns a pixel of the level, one thread.

The base is libjpeg-turbo alone on the same native tiles: divide what `reader` prints for it by what stands here.
"""

import os
import sys
import time

os.environ["VIPS_CONCURRENCY"] = "1"
import openslide  # noqa: E402
import pyvips  # noqa: E402

# The upper part of the slide, so that a bench takes seconds and not minutes.
PART = 4


def corners(width, height, side):
    columns, rows = int(width // side), int(height // side)
    return [(x * side, y * side) for y in range(rows // PART) for x in range(columns)]


def openslide_reader(path, level, px, side):
    slide = openslide.OpenSlide(path)
    slide.set_cache(openslide.OpenSlideCache(64 << 20))
    down = slide.level_downsamples[level]
    native = round(side / down)
    places = corners(*slide.dimensions, side)

    def read():
        for x, y in places:
            tile = slide.read_region((int(x), int(y)), level, (native, native)).convert("RGB")
            if native != px:
                tile = tile.resize((px, px), 4)  # 4: box
            tile.tobytes()

    return read, len(places)


def vips_reader(path, level, px, side):
    image = pyvips.Image.tiffload(path, page=level)
    full = pyvips.Image.tiffload(path)
    down = full.width / image.width
    native = round(side / down)
    places = corners(full.width, full.height, side)
    region = pyvips.Region.new(image)

    def read():
        for x, y in places:
            data = region.fetch(int(round(x / down)), int(round(y / down)), native, native)
            if native != px:
                tile = pyvips.Image.new_from_memory(data, native, native, image.bands, "uchar")
                tile.shrink(native / px, native / px).write_to_memory()

    return read, len(places)


def measure(make, path, level, px, side, down):
    best = None
    for _ in range(3):
        read, tiles = make(path, level, px, side)
        start = time.process_time()
        read()
        took = time.process_time() - start
        best = took if best is None else min(best, took)
    return best * 1e9 / (tiles * (side / down) ** 2)


def main():
    folder = sys.argv[1]
    pyramid = os.path.join(folder, "pyramid-20000.tiff")
    aperio = os.path.join(folder, "aperio-20000.svs")
    for path in (pyramid, aperio):
        if not os.path.isfile(path):
            sys.exit(f"{path} is not there; run `make bench` first, which makes it")
    print(f"OpenSlide {openslide.__library_version__}, libvips {pyvips.version(0)}.{pyvips.version(1)}.{pyvips.version(2)}: CPU ns/px\n")
    print("| what is read | OpenSlide | libvips |")
    print("|---|---|---|")
    work = [
        ("level 0, native tiles of 256 px", pyramid, 0, 256, 256, 1),
        ("level 1, tiles of 224 px at its mpp", pyramid, 1, 224, 448, 2),
        ("Aperio 1, 4, 16: tiles of 224 px at twice the mpp", aperio, 0, 224, 448, 1),
    ]
    for what, path, level, px, side, down in work:
        figures = [measure(make, path, level, px, side, down) for make in (openslide_reader, vips_reader)]
        print(f"| {what} | {figures[0]:.2f} | {figures[1]:.2f} |")


main()
