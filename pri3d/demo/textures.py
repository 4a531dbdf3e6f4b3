"""Procedural textures of eight families.

A texture is one row of `COLUMNS`, evaluated by `shading`. All object classes share one distribution
of colors, so that color alone does not reveal the class.
"""

import colorsys

import numpy as np

FAMILIES = ("plain", "stripes", "checker", "fractal", "wood", "dots", "bricks", "voronoi")

COLUMNS = ["family", "period", "angle", "seed", "gloss", "r0", "g0", "b0", "r1", "g1", "b1"]


def _color(rng: np.random.Generator) -> np.ndarray:
    hue, saturation, value = rng.random(), rng.beta(1.2, 2.8), rng.uniform(0.25, 0.95)
    return np.array(colorsys.hsv_to_rgb(hue, saturation, value)) ** 2.2  # to linear RGB


def draw(rng: np.random.Generator) -> np.ndarray:
    """A random texture, float64 [len(COLUMNS)].

    period: meters per repeat; angle: radians; gloss: strength of highlights; r0 to b1: the two
    colors of the pattern in linear RGB.
    """
    family = rng.integers(len(FAMILIES))
    period = np.exp(rng.uniform(np.log(0.07), np.log(0.45)))
    angle = rng.choice([0, np.pi / 2, rng.uniform(0, np.pi)])
    gloss = rng.choice([0.0, rng.uniform(0.1, 0.6)])
    first = _color(rng)
    second = first + (_color(rng) - first) * rng.uniform(0.4, 1.0)
    return np.array([family, period, angle, rng.integers(1 << 20), gloss, *first, *second])
