"""The visual hull: all of space that projects into the mask of every view, as small cubes.

Every view turns its mask once into a picture of signed distances from the outline, cropped to the animal. A
point's distance outside the hull is the largest that any view gives it. Cubes are split coarse to fine and
stay while their circumscribed sphere may still touch every mask (after R. Szeliski, Rapid Octree Construction
from Image Sequences, 1993).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .cameras import Array, Camera

Mask = NDArray[np.bool_]
Floats = NDArray[np.float32]

START_CELLS = 8
"""Cells along a side of the search cube before the first split, at least."""
BLOCKS_PER_CELL = 3
"""Distances are measured on masks shrunk so far that a cell still spans this many pixels."""
MAX_BLOCK_PX = 8
MARGIN_BLOCKS = 8
"""Distances are exact this far around the mask's bounding box; beyond, they are at least the border's."""
PIXELS_PER_CELL = 2
"""Silhouettes are drawn in pixels of this share of a cell, then enlarged along the distances."""
HALF_DIAGONAL = float(np.sqrt(3) / 2)


@dataclass(frozen=True, eq=False)
class _Evidence:
    """What one view says about space: how far outside its mask a pixel lies, negative inside.

    Attributes:
        distance: Signed distance from the mask's outline in full pixels, one value per block. [h, w]
        projection: Takes points relative to the hull's origin to homogeneous block coordinates and the depth.
            [3, 4]
        block_px: Side of a block in pixels.
        focal: Mean focal length in pixels.
        stretch: By how much the perspective may enlarge a sphere anywhere in the picture, at most.
    """

    distance: Floats
    projection: Floats
    block_px: int
    focal: float
    stretch: float

    @classmethod
    def of(cls, mask: Mask, camera: Camera, origin: Array, cell_size: float) -> "_Evidence":
        focal = float(camera.K[0, 0] + camera.K[1, 1]) / 2
        depth = float(camera.R[2] @ origin + camera.t[2])
        cell_px = focal * cell_size / depth if depth > 0 else 0.0
        block = int(np.clip(cell_px / BLOCKS_PER_CELL, 1, MAX_BLOCK_PX))
        left, top, right, bottom = _box(mask)
        height, width = mask.shape
        # An animal that reaches the border goes on where this view cannot see it: outside counts as inside.
        cut_off = right > left and (left == 0 or top == 0 or right == width or bottom == height)
        if cut_off:
            left, top, right, bottom = 0, 0, width, height
        blocks = _shrink(mask[top:bottom, left:right], block)
        margin = 1 if cut_off else MARGIN_BLOCKS
        edges = (margin,) * 4
        blocks = cv2.copyMakeBorder(blocks, *edges, cv2.BORDER_CONSTANT, value=int(cut_off))
        to_block = np.array([[1 / block, 0, margin - left / block], [0, 1 / block, margin - top / block]])
        corners = np.array([[0, 0], [width, 0], [0, height], [width, height]]) - camera.K[:2, 2]
        tangent = float(np.hypot(*(corners / np.diag(camera.K)[:2]).T).max())
        projection = np.vstack([to_block, [0, 0, 1]]) @ _projection(camera, origin)
        return cls(
            _signed_distance(blocks, block), projection.astype(np.float32), block, focal, np.hypot(1, tangent)
        )

    def may_touch(self, cells: Floats, size: float) -> Mask:
        """False only where the sphere about a cell of this size surely misses the mask. [3, N] -> [N]"""
        distance, depth = self._look_up(cells)
        sphere = HALF_DIAGONAL * size
        nearest = np.maximum(depth - np.float32(sphere), np.float32(1e-6))
        # A block and a half: the position within its block, and the mask's nearest pixel within its own.
        limit = np.float32(self.focal * sphere * self.stretch) / nearest + np.float32(1.5 * self.block_px)
        return ((distance <= limit) & (depth > sphere)) | (np.abs(depth) <= sphere)

    def outside(self, points: Floats) -> Floats:
        """How far points lie outside the mask's cone, across the line of sight, world units. [3, N] -> [N]"""
        distance, depth = self._look_up(points)
        result: Floats = np.where(depth > 0, distance * depth / np.float32(self.focal), np.float32(np.inf))
        return result

    def _look_up(self, points: Floats) -> tuple[Floats, Floats]:
        """Distance at the block that each point projects to, and its depth. 2 x [N]"""
        height, width = self.distance.shape
        x, y, depth = _project(self.projection, points)
        blocks = np.clip(y, 0, height - 1).astype(np.intp) * width
        blocks += np.clip(x, 0, width - 1).astype(np.intp)
        return self.distance.ravel().take(blocks), depth


@dataclass(frozen=True, eq=False)
class VisualHull:
    """Occupied cells: those with any of their inscribed sphere in the hull.

    Attributes:
        cells: Centres of the occupied cubes, outermost first, world units; empty where the masks share no
            space. [N, 3]
        outside: How far each centre lies outside the hull, negative inside, world units: at most half a cell.
            The sphere of that radius about a centre inside is in the hull too. [N]
        cell_size: Side of a cube, world units.
        origin: The point that the views measure from. [3]
        views: What the hull was carved from.
    """

    cells: Array
    outside: Array
    cell_size: float
    origin: Array
    views: tuple[_Evidence, ...]

    @cached_property
    def local(self) -> Floats:
        """The cells relative to the origin, as they are projected. [3, N]"""
        return np.ascontiguousarray((self.cells - self.origin).T, np.float32)

    @property
    def shares(self) -> Array:
        """About how much of each cell lies in the hull, 0 to 1. [N]"""
        return np.clip(0.5 - self.outside / self.cell_size, 0.01, 1)

    def bounds(self, trim: float = 0.0) -> tuple[Array, Array]:
        """Lower and upper corner of the bounding box, exact to a fraction of a cell. 2 x [3]

        Args:
            trim: Share of the volume that is left out at each side of every axis.

        Raises:
            DataError: the hull is empty.
        """
        if len(self.cells) == 0:
            raise DataError("visual hull is empty: no point in space projects into all masks.")
        if trim == 0:
            spheres = self.outside[:, None]
            return (self.cells + spheres).min(0), (self.cells - spheres).max(0)
        first = self.cells.min(0)
        layers = np.rint((self.cells - first) / self.cell_size).astype(np.intp)
        corners = []
        for axis in range(3):
            below = np.append(0, np.cumsum(np.bincount(layers[:, axis], self.shares)))
            edges = first[axis] + (np.arange(len(below)) - 0.5) * self.cell_size
            corners.append(np.interp((trim * below[-1], (1 - trim) * below[-1]), below, edges))
        low, high = np.array(corners).T
        return low, high

    def center(self, trim: float = 0.0) -> Array:
        """Middle of the bounding box. [3]"""
        low, high = self.bounds(trim)
        return (low + high) / 2


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
    start = np.asarray(start, float)
    views = tuple(_Evidence.of(*view, start, cell_size) for view in zip(masks, cameras, strict=True))
    levels = max(0, int(np.ceil(np.log2(2 * radius / (cell_size * START_CELLS)))))
    size = cell_size * 2**levels
    side = int(np.ceil(2 * radius / size))
    steps = ((np.arange(side) - (side - 1) / 2) * size).astype(np.float32)
    cells = np.stack(np.meshgrid(steps, steps, steps, indexing="ij")).reshape(3, -1)
    for _ in range(levels):
        for view in views:
            cells = cells.compress(view.may_touch(cells, size), axis=1)
        size /= 2
        cells = _split(cells, size)
    outside = np.full(cells.shape[1], -np.inf, np.float32)
    for view in views:
        outside = np.maximum(outside, view.outside(cells))
        touching = outside <= cell_size / 2
        cells, outside = cells.compress(touching, axis=1), outside[touching]
    order = np.argsort(-outside, kind="stable")
    return VisualHull(start + cells.T[order], outside[order].astype(float), cell_size, start, views)


def reach(mask: Mask, camera: Camera, center: Array) -> float:
    """Distance from `center` [3] of the mask's farthest corner, at the centre's depth; world units."""
    (x, y), depth = camera.project(center)
    left, top, right, bottom = _box(mask)
    across = max(abs(left - x), abs(right - x)) / camera.K[0, 0]
    down = max(abs(top - y), abs(bottom - y)) / camera.K[1, 1]
    return float(np.hypot(across, down) * depth)


def silhouette(hull: VisualHull, camera: Camera, step: int = 1) -> Mask:
    """Draw the hull in a camera's picture, filled.

    Along the outline the hull's distance is measured anew on the pixels' rays, at the depth of the deepest
    cell nearby; so the outline is exact to a fraction of a cell, and parts as thin as a cell stay whole.

    Args:
        hull: The hull.
        camera: Any camera, of the hull's views or not.
        step: Every `step`-th pixel of the picture is drawn, from `step // 2` on.

    Returns:
        True on the hull. [H // step, W // step]
    """
    height, width = camera.height // step, camera.width // step
    drawn = _draw_distance(hull, camera)
    if drawn is None:
        return np.zeros((height, width), bool)
    distance, left, top, pixel = drawn
    scale, first = step / pixel, (step // 2 + 0.5) / pixel - 0.5
    to_drawn = np.array([[scale, 0, first - left], [0, scale, first - top]])
    enlarged = cv2.warpAffine(
        distance,
        to_drawn,
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=hull.cell_size,
    )
    return np.asarray(enlarged <= 0)


def hull_silhouette_iou(hull: VisualHull, masks: Sequence[Mask], cameras: Sequence[Camera]) -> Array:
    """Intersection over union of each mask with the silhouette of the hull. [V]

    Near 1 for true cameras in step, lower where a calibration, a mask or the timing of one view disagrees
    with the rest. The silhouette's area is right on average, but its outline wavers by a fraction of a cell:
    consistent masks of a ball of radius r score about `1 - 0.15 * cell / r`, those of a mouse in cells of
    1.5 mm 0.976, since its tail is two cells thick.
    """
    steps = (2 * view.block_px for view in hull.views)
    views = zip(masks, cameras, steps, strict=True)
    return np.array([mask_iou(silhouette(hull, camera, step), mask, step) for mask, camera, step in views])


def mask_iou(drawn: Mask, mask: Mask, step: int = 1) -> float:
    """Intersection over union of a silhouette drawn with `step` and a mask [H, W]; 0 where both are empty."""
    rows, columns = drawn.shape
    seen = mask[step // 2 :: step, step // 2 :: step][:rows, :columns]
    union = int(np.count_nonzero(drawn | seen))
    return int(np.count_nonzero(drawn & seen)) / max(union, 1)


def _draw_distance(hull: VisualHull, camera: Camera) -> tuple[Floats, float, float, float] | None:
    """The least distance outside the hull along each ray near it; None where the camera does not show it.

    Returns:
        Distances in world units [h, w]; left and top of that picture in its own pixels; a pixel's side in
        the camera's pixels.
    """
    x, y, depth = _project(_projection(camera, hull.origin).astype(np.float32), hull.local)
    shown = (depth > 0) & (x >= 0) & (y >= 0) & (x < camera.width) & (y < camera.height)
    if not shown.any():
        return None
    x, y, depth = x[shown], y[shown], depth[shown]
    focal = float(camera.K[0, 0] + camera.K[1, 1]) / 2
    pixel = focal * hull.cell_size / float(depth.mean()) / PIXELS_PER_CELL
    x, y = x / np.float32(pixel), y / np.float32(pixel)
    left, top = np.floor(x.min()) - 2, np.floor(y.min()) - 2
    shape = int(y.max() - top) + 3, int(x.max() - left) + 3
    place = (y - top).astype(np.intp), (x - left).astype(np.intp)
    found, depths = np.full(shape, np.inf, np.float32), np.zeros(shape, np.float32)
    # Cells come outermost first, so the deepest one of a pixel is written last and stays.
    found[place], depths[place] = hull.outside[shown], depth
    found, depths = _deepest_nearby(found, depths)
    # The nearby cell's centre is at most 1.5 pixels away in x and in y.
    sure = -1.5 * np.sqrt(2) / PIXELS_PER_CELL * hull.cell_size
    rows, columns = np.nonzero((depths > 0) & (found >= sure))
    pixels = np.stack([(columns + left + 0.5) * pixel, (rows + top + 0.5) * pixel])
    found[rows, columns] = _least_along_rays(hull, camera, pixels, depths[rows, columns])
    return np.minimum(found, np.float32(hull.cell_size)), float(left), float(top), pixel


def _deepest_nearby(found: Floats, depths: Floats) -> tuple[Floats, Floats]:
    """Every pixel takes over the deepest cell among itself and its eight neighbours."""
    rows, columns = found.shape
    best, best_depths = found.copy(), depths.copy()
    around, around_depths = np.pad(found, 1, constant_values=np.inf), np.pad(depths, 1)
    for down in range(3):
        for right in range(3):
            window = np.s_[down : down + rows, right : right + columns]
            better = around[window] < best
            np.copyto(best, around[window], where=better)
            np.copyto(best_depths, around_depths[window], where=better)
    return best, best_depths


def _least_along_rays(hull: VisualHull, camera: Camera, pixels: Array, depths: Floats) -> Floats:
    """The hull's least distance on the rays through pixels [2, N], within half a cell of depths [N]. [N]"""
    to_ray = camera.R.T @ np.linalg.inv(camera.K)
    rays = to_ray[:, :1] * pixels[0] + to_ray[:, 1:2] * pixels[1] + to_ray[:, 2:]
    base = (camera.center - hull.origin)[:, None]
    along = np.concatenate([depths - hull.cell_size / 2, depths, depths + hull.cell_size / 2])
    points = (base + np.tile(rays, 3) * along).astype(np.float32)
    return np.asarray(_outside(hull.views, points).reshape(3, -1).min(0))


def _outside(views: Sequence[_Evidence], points: Floats) -> Floats:
    """The largest of the views' distances. [3, N] -> [N]"""
    result = np.full(points.shape[1], -np.inf, np.float32)
    for view in views:
        np.maximum(result, view.outside(points), out=result)
    return result


def _projection(camera: Camera, origin: Array) -> Array:
    """`K [R | R origin + t]`: takes points relative to `origin` to homogeneous pixels. [3, 4]"""
    return camera.K @ np.column_stack([camera.R, camera.R @ origin + camera.t])


def _project(P: Floats, points: Floats) -> tuple[Floats, Floats, Floats]:
    """x, y and depth of points [3, N]; element by element, so that the result depends on no thread count."""
    x, y, depth = (row[0] * points[0] + row[1] * points[1] + row[2] * points[2] + row[3] for row in P)
    inverse = 1 / np.maximum(depth, np.float32(1e-6))
    return x * inverse, y * inverse, depth


def _split(cells: Floats, size: float) -> Floats:
    """Centres of the eight children, of side `size`, of every cell. [3, N] -> [3, 8 N]"""
    corners = np.stack(np.meshgrid(*[(-0.5, 0.5)] * 3, indexing="ij")).reshape(3, 1, 8)
    return (cells[:, :, None] + (size * corners).astype(np.float32)).reshape(3, -1)


def _box(mask: Mask) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of what is True; right and bottom are one past it; all 0 where nothing is."""
    left, top, width, height = cv2.boundingRect(mask.view(np.uint8))
    return left, top, left + width, top + height


def _shrink(mask: Mask, block: int) -> NDArray[np.uint8]:
    """One pixel per block: 1 where any of its pixels is on the animal."""
    if mask.size == 0:
        return np.zeros((1, 1), np.uint8)
    height, width = mask.shape
    edges = (0, -height % block, 0, -width % block)
    padded = cv2.copyMakeBorder(255 * mask.view(np.uint8), *edges, cv2.BORDER_CONSTANT, value=0)
    size = padded.shape[1] // block, padded.shape[0] // block
    return (cv2.resize(padded, size, interpolation=cv2.INTER_AREA) > 0).astype(np.uint8)


def _signed_distance(blocks: NDArray[np.uint8], block: int) -> Floats:
    """Signed distance of block centres from the outline of the mask in pixels, right on average. [h, w]

    Distances between block centres overshoot that from the outline by half a pixel outside; inside they fall
    short of it by half a pixel less than a block, since a block counts as soon as any of its pixels does.
    """
    if not blocks.any():
        return np.full(blocks.shape, np.inf, np.float32)
    outside = cv2.distanceTransform(1 - blocks, cv2.DIST_L2, cv2.DIST_MASK_5)
    inside = cv2.distanceTransform(blocks, cv2.DIST_L2, cv2.DIST_MASK_5)
    signed: Floats = block * (outside - inside) + np.where(blocks, block - 0.5, -0.5).astype(np.float32)
    return signed
