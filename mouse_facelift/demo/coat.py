"""Paints the demo mouse: one texture for all parts, fur strands and colour zones from formulas and a seed."""

from collections.abc import Mapping

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from .animal import Colour, MouseShape

Array = NDArray[np.float64]

COLUMNS = 512
"""Texture width: every part's length, from its first to its last ring."""

ROWS: Mapping[str, int] = {
    "body": 384,
    "tail": 24,
    "ear": 48,
    "eye": 24,
    "foreleg": 48,
    "hindleg": 48,
    "toe": 8,
}
"""Texture rows of each kind of part: once around it, from the lowest line over the left side and the top."""


def texture_rows(kind: str) -> tuple[int, int]:
    """First and last texture row of a kind of part."""
    names = list(ROWS)
    first = sum(ROWS[name] for name in names[: names.index(kind)])
    return first, first + ROWS[kind] - 1


def paint_coat(shape: MouseShape) -> NDArray[np.float32]:
    """Paint the texture, sRGB in [0, 1]. [sum(ROWS), COLUMNS, 3]"""
    rng = np.random.default_rng(shape.coat_seed)
    painters = {
        "body": _body,
        "tail": _tail,
        "ear": _ear,
        "eye": _eye,
        "foreleg": _leg,
        "hindleg": _leg,
        "toe": _toe,
    }
    parts = [painters[kind](shape, rows, rng) for kind, rows in ROWS.items()]
    return np.clip(np.concatenate(parts), 0.0, 1.0).astype(np.float32)


def _body(shape: MouseShape, rows: int, rng: np.random.Generator) -> Array:
    along, height = _coordinates(rows)
    strands = _noise(rows, rng, 7.0, 1.1)
    tufts = _noise(rows, rng, 12.0, 7.0)
    blotches = _noise(rows, rng, 40.0, 30.0)
    # How far up the flank the light belly reaches: higher on the throat, cheeks and rump than on the trunk.
    line = np.interp(along, (0.0, 0.15, 0.5, 0.66, 0.8, 1.0), (-0.5, -0.5, -0.42, -0.3, -0.3, -0.2))
    top = _step(height + 0.10 * blotches + 0.06 * tufts, line - 0.1, line + 0.22)
    spine = _step(height + 0.08 * blotches, 0.45, 1.0)
    colour = _mix(_rgb(shape.flank), _rgb(shape.back), spine)
    saddle = _step(along, 0.2, 0.42) * _step(-along, -0.68, -0.5)
    colour = _mix(colour, 1.25 * _rgb(shape.flank), 0.35 * saddle * top)
    colour = _mix(_rgb(shape.belly), colour, top)
    contrast = 0.4 + 0.6 * top
    colour = colour * (1.0 + contrast * (0.22 * strands + 0.10 * tufts + 0.08 * blotches))[..., None]
    ticking = np.clip(_noise(rows, rng, 5.0, 1.0) - 0.9, 0.0, 1.0) * top
    colour = _mix(colour, 1.7 * _rgb(shape.flank), 0.5 * ticking)
    muzzle = _step(along, 0.90, 0.97)
    colour = _mix(colour, 0.55 * _rgb(shape.skin) + 0.45 * _rgb(shape.flank), 0.6 * muzzle)
    bare = np.maximum(_step(along, 0.978, 0.986), _step(-along, -0.02, -0.005))
    return _mix(colour, _rgb(shape.skin), bare)


def _tail(shape: MouseShape, rows: int, rng: np.random.Generator) -> Array:
    along, height = _coordinates(rows)
    rings = 0.06 * np.sign(np.sin(2 * np.pi * 60 * along))
    tone = 0.78 + 0.2 * along - 0.10 * height + rings + 0.03 * _noise(rows, rng, 3.0, 1.0)
    return _rgb(shape.skin) * tone[..., None]


def _ear(shape: MouseShape, rows: int, rng: np.random.Generator) -> Array:
    # The tube's upper half is the ear's hollow front, its lower half the furred back.
    along, height = _coordinates(rows)
    inner = _step(height, -0.2, 0.2)
    rim = _step(np.abs(2 * along - 1.0) + 0.35 * (1 - np.abs(height)), 0.75, 1.1)
    front = _mix(_rgb(shape.skin), 0.72 * _rgb(shape.skin), rim)
    behind = 0.55 * _rgb(shape.skin) + 0.30 * _rgb(shape.back)
    tone = 1.0 + 0.04 * _noise(rows, rng, 8.0, 3.0)
    return _mix(behind, front, inner) * tone[..., None]


def _eye(shape: MouseShape, rows: int, rng: np.random.Generator) -> Array:
    along, height = _coordinates(rows)
    glint = _step(-((along - 0.5) ** 2) / 0.012 - (height - 0.75) ** 2 / 0.06, -1.0, -0.3)
    return _mix(np.array((0.03, 0.02, 0.03)), np.array((0.75, 0.78, 0.82)), glint)


def _leg(shape: MouseShape, rows: int, rng: np.random.Generator) -> Array:
    along, _ = _coordinates(rows)
    fur = _mix(_rgb(shape.flank), 0.6 * _rgb(shape.flank) + 0.4 * _rgb(shape.belly), _step(along, 0.3, 0.6))
    fur = fur * (1.0 + 0.16 * _noise(rows, rng, 10.0, 1.0) + 0.04 * _noise(rows, rng, 20.0, 6.0))[..., None]
    skin = _rgb(shape.skin) * (1.0 + 0.04 * _noise(rows, rng, 4.0, 2.0))[..., None]
    return _mix(fur, skin, _step(along + 0.03 * _noise(rows, rng, 12.0, 1.0), 0.60, 0.70))


def _toe(shape: MouseShape, rows: int, rng: np.random.Generator) -> Array:
    along, _ = _coordinates(rows)
    return _mix(_rgb(shape.skin), np.array((0.92, 0.85, 0.82)), _step(along, 0.75, 0.95))


def _coordinates(rows: int) -> tuple[Array, Array]:
    """Position along the part in [0, 1] and height on its outline in [-1, 1]. 2 x [rows, COLUMNS]"""
    angle = np.linspace(-0.5 * np.pi, 1.5 * np.pi, rows)
    along, height = np.meshgrid(np.linspace(0, 1, COLUMNS), np.sin(angle))
    return along, height


def _noise(rows: int, rng: np.random.Generator, along: float, around: float) -> Array:
    """Unit-variance noise, grains of `along` x `around` texels, closed around the part. [rows, COLUMNS]"""
    grains = rng.standard_normal((rows - 1, COLUMNS)).astype(np.float32)
    tiled = np.concatenate([grains] * 3)
    smooth = cv2.GaussianBlur(tiled, (0, 0), sigmaX=along, sigmaY=around)[rows - 1 : 2 * rows - 1]
    return ((smooth - smooth.mean()) / smooth.std()).astype(np.float64)


def _step(value: Array, low: ArrayLike, high: ArrayLike) -> Array:
    t = np.clip((value - np.asarray(low)) / np.subtract(high, low), 0.0, 1.0)
    return t * t * (3 - 2 * t)


def _mix(first: Array, second: Array, share: Array) -> Array:
    return first + (second - first) * share[..., None]


def _rgb(colour: Colour) -> Array:
    return np.asarray(colour, float)
