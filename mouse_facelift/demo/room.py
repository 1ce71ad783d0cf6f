"""The room around the demo mouse: white disc, grey table, dark curtain, and the mouse's soft shadow."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ..geometry import Camera
from .mouse import Mesh
from .rig import ARENA_CENTER_MM

Float32 = NDArray[np.float32]

DISC_RADIUS_MM = 125.0
TABLE_RADIUS_MM = 330.0
WAVES = 24
"""Plane waves that make up the stains of the floor."""

CELL_MM = 2.0
CELLS = 160
"""The shadow map covers 320 x 320 mm of floor about the arena's centre."""

SAMPLES = 2


@dataclass(frozen=True, eq=False)
class Backdrop:
    """What one camera sees without the mouse.

    Attributes:
        rgb: sRGB in [0, 1]. [H, W, 3]
        shadow_x: Column in the shadow map per pixel, far outside where no floor is seen. [H, W]
        shadow_y: Row in the shadow map. [H, W]
    """

    rgb: Float32
    shadow_x: Float32
    shadow_y: Float32

    def shaded(self, shadow: Float32) -> Float32:
        """The backdrop with the mouse's shadow [CELLS, CELLS] on the floor. [H, W, 3]"""
        here = cv2.remap(shadow, self.shadow_x, self.shadow_y, cv2.INTER_LINEAR, borderValue=1.0)
        return self.rgb * here[..., None]


def backdrop(camera: Camera, seed: int) -> Backdrop:
    """Paint the room as a camera sees it; the floor's stains are the same for all cameras of a seed."""
    fine = camera.resized(SAMPLES * camera.width, SAMPLES * camera.height)[0]
    picture = _paint(_floor(fine), _directions(fine), seed)
    size = (camera.width, camera.height)
    rgb = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    cell = (_floor(camera) - ARENA_CENTER_MM[:2]) / CELL_MM + 0.5 * CELLS - 0.5
    cell = np.nan_to_num(cell, nan=-1e4).clip(-1e4, 1e4).astype(np.float32)
    return Backdrop(rgb, np.ascontiguousarray(cell[..., 0]), np.ascontiguousarray(cell[..., 1]))


def contact_shadow(mesh: Mesh) -> Float32:
    """How bright the floor stays under the mouse: darker the nearer the body is above it. [CELLS, CELLS]"""
    cell = (mesh.vertices[:, :2] - ARENA_CENTER_MM[:2]) / CELL_MM + 0.5 * CELLS
    column, row = np.clip(cell.astype(np.int64), 0, CELLS - 1).T
    nearness = np.exp(-mesh.vertices[:, 2] / 18.0)
    cover = np.zeros((CELLS, CELLS))
    np.maximum.at(cover, (row, column), nearness)
    cover = cv2.dilate(cover, np.ones((3, 3)))
    soft = 0.5 * cv2.GaussianBlur(cover, (0, 0), 2.0) + 0.5 * cv2.GaussianBlur(cover, (0, 0), 6.0)
    return (1.0 - 0.55 * soft).astype(np.float32)


def _paint(floor: NDArray[np.float64], direction: NDArray[np.float64], seed: int) -> Float32:
    """Colours for floor points (NaN where the ray goes up) and ray directions. [H, W, 3]"""
    rng = np.random.default_rng((seed, 4))
    waves = rng.normal(0.0, 0.10, (WAVES, 2))
    # Far out the floor is curtain anyway; a limit keeps the waves finite.
    place = np.nan_to_num(floor, nan=1e3).clip(-1e3, 1e3).astype(np.float32)
    stains = np.zeros(place.shape[:2], np.float32)
    for wave, phase in zip(waves.astype(np.float32), rng.uniform(0, 2 * np.pi, WAVES), strict=True):
        stains += np.cos(place @ wave + np.float32(phase))
    stains /= np.sqrt(WAVES / 2)
    radius = np.linalg.norm(place - np.asarray(ARENA_CENTER_MM[:2], np.float32), axis=-1)
    rim = np.exp(-(((radius - DISC_RADIUS_MM + 5.0) / 1.2) ** 2))
    disc = 0.84 + 0.012 * stains - 0.0006 * radius - 0.35 * rim
    table = 0.40 + 0.02 * stains - 0.0005 * radius
    azimuth = np.arctan2(direction[..., 1], direction[..., 0])
    folds = np.sin(37 * azimuth + 2 * np.sin(5 * azimuth)) + 0.5 * np.sin(83 * azimuth)
    curtain = 0.075 + 0.018 * folds + 0.05 * np.clip(direction[..., 2] + 0.1, -0.2, 0.4)
    on_disc, on_table = radius < DISC_RADIUS_MM, radius < TABLE_RADIUS_MM
    grey = np.where(on_disc, disc, np.where(on_table, table, curtain))
    tint = np.where((on_disc | on_table)[..., None], (1.0, 0.99, 0.96), (0.92, 1.0, 0.94))
    return (grey[..., None] * tint).clip(0, 1).astype(np.float32)


def _directions(camera: Camera) -> NDArray[np.float64]:
    """Unit ray directions of the pixel centres in the world. [H, W, 3]"""
    column, row = np.meshgrid(np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5)
    rays = np.stack([column, row, np.ones_like(row)], axis=-1) @ (np.linalg.inv(camera.K).T @ camera.R)
    return rays / np.linalg.norm(rays, axis=-1, keepdims=True)


def _floor(camera: Camera) -> NDArray[np.float64]:
    """Where the rays of the pixel centres meet the floor, NaN where they do not. [H, W, 2]"""
    rays = _directions(camera)
    down = np.where(rays[..., 2:] < -1e-6, rays[..., 2:], np.nan)
    return camera.center[:2] - camera.center[2] / down * rays[..., :2]
