"""How well cameras explain the masks: one point triangulated from their centroids, all frames at once."""

from dataclasses import dataclass, replace

import numpy as np

from .raw_cameras import Array

REFINEMENTS = 4
"""Times that the rays are weighted anew by their depth, so that pixels count, not millimetres."""

Poses = tuple[Array, Array]
"""World-to-camera rotations [V, 3, 3] and translations [V, 3]."""


@dataclass(frozen=True, eq=False)
class Witness:
    """What the masks say, to be held against poses.

    Attributes:
        K: Intrinsics, half-pixel centres. [V, 3, 3]
        diagonal: Of the pictures in pixels. [V]
        pixels: Centroids of the masks, NaN where there is none; at least two per frame. [T, V, 2]
    """

    K: Array
    diagonal: Array
    pixels: Array

    @property
    def frames(self) -> int:
        """Number of frames."""
        return len(self.pixels)

    @property
    def views(self) -> int:
        """Number of cameras."""
        return len(self.K)

    def shares(self, poses: Poses) -> Array:
        """Residual of each frame as a share of the diagonal. [T]"""
        return residual_shares(self.K, *poses, self.diagonal, self.pixels)

    def share(self, poses: Poses) -> float:
        """Median of `shares`."""
        return float(np.median(self.shares(poses)))

    def exchanged(self, first: int, second: int) -> "Witness":
        """As if the videos of two cameras had each other's names."""
        order = list(range(self.views))
        order[first], order[second] = second, first
        return replace(self, pixels=self.pixels[:, order])

    def zoomed(self, factor: float) -> "Witness":
        """As if all focal lengths were longer by a factor."""
        K = self.K.copy()
        K[:, :2, :2] *= factor
        return replace(self, K=K)

    def without(self, view: int) -> "Witness":
        """As if one camera had no masks."""
        pixels = self.pixels.copy()
        pixels[:, view] = np.nan
        seen = np.all(np.isfinite(pixels), axis=-1).sum(axis=1)
        return replace(self, pixels=pixels[seen >= 2])


def residual_shares(K: Array, R: Array, t: Array, diagonal: Array, pixels: Array) -> Array:
    """Triangulate one point per frame and measure how far its pictures are from the observations.

    The point nearest to all rays, `sum w (I - d d') (X - c) = 0`, with weights `(f / depth)^2` that turn
    millimetres into pixels; linear, and all frames at once.

    Args:
        K: Intrinsics. [V, 3, 3]
        R: World-to-camera rotations. [V, 3, 3]
        t: World-to-camera translations. [V, 3]
        diagonal: Of the pictures in pixels. [V]
        pixels: Observations, NaN where there is none; at least two per frame. [T, V, 2]

    Returns:
        The mean over views of the residual as a share of the diagonal, each capped at 1, which also stands
        for points behind a camera. [T]
    """
    centers = -np.einsum("vji,vj->vi", R, t)
    centers = centers - centers.mean(axis=0)
    centers /= max(float(np.abs(centers).max()), 1e-12)  # Well conditioned, whatever the unit.
    seen = np.all(np.isfinite(pixels), axis=-1)
    observed = np.where(seen[..., None], pixels, 0.0)
    rays = np.concatenate([observed, np.ones_like(observed[..., :1])], axis=-1)
    rays = np.einsum("vij,tvj->tvi", np.swapaxes(R, 1, 2) @ np.linalg.inv(K), rays)
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    across = np.eye(3) - rays[..., :, None] * rays[..., None, :]
    weight = seen.astype(float)
    for _ in range(REFINEMENTS):
        normal = np.einsum("tv,tvij->tij", weight, across) + 1e-9 * np.eye(3)
        right = np.einsum("tv,tvij,vj->ti", weight, across, centers)
        points = np.linalg.solve(normal, right[..., None])[..., 0]
        in_camera = np.einsum("vij,tvj->tvi", R, points[:, None] - centers)
        depth = in_camera[..., 2]
        weight = seen * (K[:, 0, 0] / np.maximum(np.abs(depth), 1e-3)) ** 2
        weight /= weight.max(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        projected = np.einsum("vij,tvj->tvi", K, in_camera)
        distance = np.linalg.norm(projected[..., :2] / projected[..., 2:] - observed, axis=-1) / diagonal
    share = np.where((depth > 0) & (distance < 1), distance, 1.0)
    mean: Array = (share * seen).sum(axis=1) / seen.sum(axis=1)
    return mean


def count_positions(pixels: Array, diagonal: Array, apart: float) -> list[int]:
    """Frames in which the animal stands elsewhere than in those before: frames that add evidence.

    Args:
        pixels: Centroids, NaN where there is none. [T, V, 2]
        diagonal: Of the pictures in pixels. [V]
        apart: Share of the diagonal by which one view's centroid must differ.

    Returns:
        Indices of these frames, the first one included.
    """
    kept: list[int] = []
    for index, seen in enumerate(pixels):
        moved = np.nan_to_num(np.linalg.norm(pixels[kept] - seen, axis=-1) / diagonal)
        if (moved.max(axis=1, initial=0) > apart).all():
            kept.append(index)
    return kept
