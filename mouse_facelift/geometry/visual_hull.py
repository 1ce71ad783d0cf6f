"""The visual hull: all of space that projects into the mask of every view, as small cubes.

Carved coarse to fine: a large cube stays while its circumscribed sphere may still touch every mask, which a
distance transform of the mask answers in one look-up (after R. Szeliski, Rapid Octree Construction from Image
Sequences, 1993).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .cameras import Array, Camera

Mask = NDArray[np.bool_]

START_CELLS = 8
"""Cells along a side of the search cube before the first split, at least."""
DISTANCE_STEP_PX = 4
"""Distance transforms are computed on masks shrunk by this factor."""
HALF_DIAGONAL = float(np.sqrt(3) / 2)


@dataclass(frozen=True, eq=False)
class VisualHull:
    """Occupied cells: those with any of their inscribed sphere in the hull.

    Attributes:
        cells: Centres of the occupied cubes, world units; empty where the masks share no space. [N, 3]
        cell_size: Side of a cube, world units.
    """

    cells: Array
    cell_size: float

    def bounds(self, trim: float = 0.0) -> tuple[Array, Array]:
        """Lower and upper corner of the bounding box, without the share `trim` of cells at each side. 2 x [3]

        Raises:
            DataError: the hull is empty.
        """
        if len(self.cells) == 0:
            raise DataError("visual hull is empty: no point in space projects into all masks.")
        low, high = np.quantile(self.cells, (trim, 1 - trim), axis=0)
        return low, high

    def center(self, trim: float = 0.0) -> Array:
        """Middle of the bounding box. [3]"""
        low, high = self.bounds(trim)
        return (low + high) / 2


@dataclass(frozen=True, eq=False)
class _Evidence:
    """What one view says about space."""

    camera: Camera
    grown: Mask
    distance: NDArray[np.float32]
    cut_off: bool

    @classmethod
    def of(cls, mask: Mask, camera: Camera, start: Array, cell_size: float) -> "_Evidence":
        border = mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any()
        depth = float(camera.project(start)[1])
        half_cell_px = camera.K[0, 0] * cell_size / 2 / depth if depth > 0 else 0.0
        return cls(camera, _grow(mask, round(half_cell_px)), _distance_outside(mask), bool(border))

    def may_touch(self, cells: Array, size: float) -> Mask:
        """Conservative: False only where a cell's circumscribed sphere surely misses the mask."""
        pixels, depth = self.camera.project(cells)
        sphere = HALF_DIAGONAL * size
        focal = max(self.camera.K[0, 0], self.camera.K[1, 1])
        tangent = np.hypot(*(pixels - self.camera.K[:2, 2]).T) / focal
        with np.errstate(invalid="ignore", divide="ignore"):
            radius_px = focal * sphere * (1 + tangent) / (depth - sphere)
        # Two block diagonals: the position within its block, and the mask's nearest pixel within its own.
        radius_px += 2 * np.sqrt(2) * DISTANCE_STEP_PX
        beyond = _beyond(pixels, self.camera)
        rows, columns = _pixel_indices(pixels / DISTANCE_STEP_PX, self.distance.shape)
        keep = (self.distance[rows, columns] <= radius_px) & (beyond <= radius_px)
        if self.cut_off:
            keep |= beyond > 0
        return (keep | (depth <= sphere)) & (depth > -sphere)

    def contains(self, cells: Array) -> Mask:
        """Whether the cells' centres project into the mask grown by half a cell, so that thin parts stay."""
        pixels, depth = self.camera.project(cells)
        rows, columns = _pixel_indices(pixels, self.grown.shape)
        inside = np.where(_beyond(pixels, self.camera) >= 0, self.cut_off, self.grown[rows, columns])
        return inside & (depth > 0)


def carve(
    masks: Sequence[Mask], cameras: Sequence[Camera], start: Array, radius: float, cell_size: float
) -> VisualHull:
    """Carve the hull inside the cube of half side `radius` about `start`.

    Space outside a picture is carved too, unless that view's mask reaches the picture's border: then the
    animal goes on where the view cannot see it.

    Args:
        masks: True on the animal. V x [H, W]
        cameras: The V cameras of these masks.
        start: Centre of the search cube, world units. [3]
        radius: Half the cube's side, world units.
        cell_size: Side of the final cells, world units.
    """
    views = [_Evidence.of(*view, start, cell_size) for view in zip(masks, cameras, strict=True)]
    levels = max(0, int(np.ceil(np.log2(2 * radius / (cell_size * START_CELLS)))))
    size = cell_size * 2**levels
    side = int(np.ceil(2 * radius / size))
    steps = (np.arange(side) - (side - 1) / 2) * size
    cells = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 3) + start
    for _ in range(levels):
        for view in views:
            cells = cells[view.may_touch(cells, size)]
        size /= 2
        cells = _split(cells, size)
    for view in views:
        cells = cells[view.contains(cells)]
    return VisualHull(cells, cell_size)


def reach(mask: Mask, camera: Camera, center: Array) -> float:
    """Distance from `center` [3] of the mask's farthest corner, at the centre's depth; world units."""
    pixel, depth = camera.project(center)
    rows, columns = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
    across = max(abs(columns[0] - pixel[0]), abs(columns[-1] + 1 - pixel[0])) / camera.K[0, 0]
    down = max(abs(rows[0] - pixel[1]), abs(rows[-1] + 1 - pixel[1])) / camera.K[1, 1]
    return float(np.hypot(across, down) * depth)


def hull_silhouette_iou(hull: VisualHull, masks: Sequence[Mask], cameras: Sequence[Camera]) -> Array:
    """How much of each mask the hull accounts for. [V]

    The hull never projects outside a mask, so the intersection over union of its silhouette with the mask is
    the share of the mask that the other views support: near 1 for true cameras in step, lower where a
    calibration, a mask or the timing of one view disagrees with the rest. Cells are drawn with the size that
    they have in the picture; the result is exact to about one cell along the outline.
    """
    step = DISTANCE_STEP_PX
    result = np.zeros(len(masks))
    for view, (mask, camera) in enumerate(zip(masks, cameras, strict=True)):
        small = _shrink(mask).astype(bool)
        pixels, depth = camera.project(hull.cells)
        columns, rows = np.floor(pixels.T / step).astype(int)
        shown = (columns >= 0) & (rows >= 0) & (columns < small.shape[1]) & (rows < small.shape[0])
        drawn = np.zeros(small.shape, np.uint8)
        drawn[rows[shown], columns[shown]] = 1
        if shown.any():
            radius = HALF_DIAGONAL * hull.cell_size * camera.K[0, 0] / float(np.median(depth[shown])) / step
            side = 2 * int(np.ceil(radius)) + 1
            drawn = cv2.dilate(drawn, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)))
        result[view] = float((drawn.astype(bool) & small).sum() / max(int(small.sum()), 1))
    return result


def _split(cells: Array, size: float) -> Array:
    """Centres of the eight children, of side `size`, of every cell."""
    corners = np.stack(np.meshgrid(*[(-0.5, 0.5)] * 3, indexing="ij"), -1).reshape(1, 8, 3)
    return (cells[:, None] + size * corners).reshape(-1, 3)


def _shrink(mask: Mask) -> NDArray[np.uint8]:
    """One pixel per block of DISTANCE_STEP_PX: 1 where any of its pixels is on the animal."""
    step = DISTANCE_STEP_PX
    height, width = mask.shape
    padded = cv2.copyMakeBorder(
        np.where(mask, np.uint8(255), np.uint8(0)),
        0,
        -height % step,
        0,
        -width % step,
        cv2.BORDER_CONSTANT,
        value=0,
    )
    size = padded.shape[1] // step, padded.shape[0] // step
    return (cv2.resize(padded, size, interpolation=cv2.INTER_AREA) > 0).astype(np.uint8)


def _distance_outside(mask: Mask) -> NDArray[np.float32]:
    """Distance of every block from the nearest block on the animal, in pixels."""
    distance = cv2.distanceTransform(1 - _shrink(mask), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return DISTANCE_STEP_PX * np.asarray(distance, np.float32)


def _grow(mask: Mask, radius: int) -> Mask:
    """Dilate by a disc; only the mask's surroundings are touched, which is most of the speed."""
    if radius < 1 or not mask.any():
        return mask
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    part = np.s_[
        max(rows[0] - radius, 0) : rows[-1] + radius + 1,
        max(columns[0] - radius, 0) : columns[-1] + radius + 1,
    ]
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    grown = mask.copy()
    grown[part] = cv2.dilate(mask[part].astype(np.uint8), disc).astype(bool)
    return grown


def _beyond(pixels: Array, camera: Camera) -> Array:
    """How far a position lies outside the picture, in pixels; negative inside. [N]"""
    x, y = pixels.T
    return np.maximum(np.maximum(-x, x - camera.width), np.maximum(-y, y - camera.height))


def _pixel_indices(pixels: Array, shape: tuple[int, ...]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Row and column of each position, moved to the nearest pixel where it lies outside."""
    clipped = np.nan_to_num(np.clip(pixels, 0, (shape[1] - 1, shape[0] - 1)))
    columns, rows = clipped.astype(np.intp).T
    return rows, columns
