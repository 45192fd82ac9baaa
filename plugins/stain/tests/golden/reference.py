"""Stain normalisation in float64 and by the textbook: a logarithm and an exponential a pixel, no table, no shared line with the plugin.

Needs numpy alone. Pixels are arrays (n, 3) of uint8; what comes back is float64 grey levels, not rounded.
"""

import numpy as np

LIGHT, BETA, ALPHA = 240.0, 0.15, 1.0
MACENKO = (np.array([[0.5626, 0.2159], [0.7201, 0.8012], [0.4062, 0.5581]]), np.array([1.9705, 1.0308]))
REINHARD = (np.array([58.12343, 26.483482, -12.701005]), np.array([14.675022, 7.5744166, 5.226378]))
RUIFROK = np.array([[0.65, 0.07], [0.70, 0.99], [0.29, 0.11]])
XYZ = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
WHITE = np.array([0.95047, 1.0, 1.08883])


def density(pixels):
    return np.log(LIGHT / (pixels.astype(np.float64) + 1))


def macenko(pixels):
    """Stain vectors as columns, and the 99th percentile of each concentration."""
    od = density(pixels)
    stained = od[(od >= BETA).all(axis=1)]
    _, vectors = np.linalg.eigh(np.cov(stained.T))
    plane = vectors[:, 1:]
    # The mean's direction is angle 0, so that nothing wraps around.
    mean = plane.T @ stained.mean(axis=0)
    turn = np.arctan2(mean[1], mean[0])
    across, along = (stained @ plane).T
    angle = np.arctan2(along, across) - turn
    angle = (angle + np.pi) % (2 * np.pi) - np.pi
    ends = [plane @ [np.cos(a + turn), np.sin(a + turn)] for a in np.percentile(angle, [ALPHA, 100 - ALPHA])]
    stains = np.array(sorted(ends, key=lambda end: -end[0])).T
    most = np.percentile(np.linalg.lstsq(stains, od.T, rcond=None)[0], 99, axis=1)
    return stains, most


def shares(pixels, keep_glass):
    if not keep_glass:
        return 1.0
    return np.clip(density(pixels).max(axis=1) / BETA, 0, 1)[:, None]


def mixed(pixels, new, keep_glass):
    return pixels + shares(pixels, keep_glass) * (np.clip(new, 0, 255) - pixels)


def normalise_macenko(pixels, source, target=MACENKO, keep_glass=True):
    concentrations = np.linalg.lstsq(source[0], density(pixels).T, rcond=None)[0]
    concentrations *= (target[1] / source[1])[:, None]
    return mixed(pixels, LIGHT * np.exp(-(target[0] @ concentrations).T) - 1, keep_glass)


def lab(pixels):
    v = pixels / 255.0
    linear = np.where(v > 0.04045, ((v + 0.055) / 1.055) ** 2.4, v / 12.92)
    t = linear @ XYZ.T / WHITE
    x, y, z = np.where(t > (6 / 29) ** 3, np.cbrt(t), t * (29 / 6) ** 2 / 3 + 4 / 29).T
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)]).T


def levels(lab):
    y = (lab[:, 0] + 16) / 116
    f = np.array([y + lab[:, 1] / 500, y, y - lab[:, 2] / 200]).T
    t = np.where(f > 6 / 29, f**3, (f - 4 / 29) * 3 * (6 / 29) ** 2) * WHITE
    linear = np.clip(t @ np.linalg.inv(XYZ).T, 0, 1)
    return 255 * np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear)


def reinhard(pixels, keep_glass=True):
    """Mean and deviation of L, a, b."""
    if keep_glass:
        pixels = pixels[(density(pixels) >= BETA).any(axis=1)]
    values = lab(pixels)
    return values.mean(axis=0), values.std(axis=0)


def normalise_reinhard(pixels, source, target=REINHARD, keep_glass=True):
    values = (lab(pixels) - source[0]) / source[1] * target[1] + target[0]
    return mixed(pixels, levels(values), keep_glass)


def separate(pixels, stains=RUIFROK, colour=False):
    """Pictures of haematoxylin, eosin and the residual."""
    stains = stains / np.linalg.norm(stains, axis=0)
    residual = np.cross(stains[:, 0], stains[:, 1])
    residual /= np.linalg.norm(residual) * (1 if residual.sum() >= 0 else -1)
    basis = np.column_stack([stains, residual])
    concentrations = np.linalg.solve(basis, density(pixels).T)
    pictures = []
    for vector, amount in zip(basis.T, concentrations):
        direction = vector if colour else np.ones(3)
        pictures.append(np.clip(LIGHT * np.exp(-np.outer(amount, direction)) - 1, 0, 255))
    return pictures
