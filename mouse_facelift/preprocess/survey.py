"""What the masks say: of one time step about the animal in 3D, of a whole recording about its calibration."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..capture.masks import CleanMask
from ..capture.recording import TimeStep
from ..errors import CalibrationError
from ..geometry import Camera
from ..geometry.cameras import Array
from ..geometry.triangulation import triangulate
from ..geometry.visual_hull import VisualHull, carve, hull_silhouette_iou, reach
from .config import GeometryConfig, QualityConfig

SEARCH_MARGIN = 1.2
"""The hull is searched in a cube this much larger than the largest mask, seen from the centre."""
TRIM = {"whole": 0.0, "body": 0.03}
"""Share of the hull's cells ignored at each side of an axis; a tail holds some 3 % of a mouse's volume."""
MAX_RESOLUTION = 100
"""Cells along half the search cube, at most: a wrong calibration must not ask for billions of them."""
EVIDENCE_FRAMES = 50
"""Frames used to tell whether a calibration fits."""


@dataclass(frozen=True, eq=False)
class Observation:
    """The animal in one frame, in the rig's millimetres.

    Attributes:
        frame: Frame number in the videos.
        masks: Per view, without the pixels: see `MaskStatistics`. V
        center: Middle of the hull's bounding box; NaN where the frame is unusable. [3]
        outline: The hull's farthest cells in 26 directions; empty where the frame is unusable. [26, 3]
        residual_px: Distance of each mask's centroid from the reprojection of their common point. [V]
        hull_iou: Share of each mask that the other views support. [V]
        problems: Why the frame cannot be used; empty where it can.
    """

    frame: int
    masks: tuple["MaskStatistics", ...]
    center: Array
    outline: Array
    residual_px: Array
    hull_iou: Array
    problems: tuple[str, ...]


@dataclass(frozen=True)
class MaskStatistics:
    """A mask in numbers: area, centroid (NaN where empty), border contact, share removed."""

    area: int
    centroid: tuple[float, float]
    touches_border: bool
    removed_share: float

    @classmethod
    def of(cls, mask: CleanMask) -> "MaskStatistics":
        """Measure a mask."""
        centroid = mask.centroid() if mask.area else (np.nan, np.nan)
        return cls(mask.area, centroid, mask.touches_border, mask.removed_share)


def observe(
    step: TimeStep,
    cameras: Sequence[Camera],
    camera_ids: Sequence[int],
    geometry: GeometryConfig,
    quality: QualityConfig,
) -> Observation:
    """Find the animal of one time step in 3D and say whether the frame can be used."""
    views = len(cameras)
    statistics = tuple(MaskStatistics.of(mask) for mask in step.masks)
    problems = _mask_problems(statistics, cameras, camera_ids, quality)
    center, outline = np.full(3, np.nan), np.empty((0, 3))
    residual, iou = np.full(views, np.nan), np.full(views, np.nan)
    if not problems:
        found = triangulate([mask.centroid for mask in statistics], cameras)
        residual = found.residual_px
        if not _residual_share(residual, cameras) <= quality.max_center_residual:
            problems = ("the masks' centres do not meet in one point (quality.max_center_residual)",)
    if not problems:
        masks = [mask.mask for mask in step.masks]
        radius = SEARCH_MARGIN * max(
            reach(mask, camera, found.point) for mask, camera in zip(masks, cameras, strict=True)
        )
        hull = carve(masks, cameras, found.point, radius, max(geometry.cell_mm, radius / MAX_RESOLUTION))
        iou = hull_silhouette_iou(hull, masks, cameras)
        problems = _hull_problems(hull, iou, camera_ids, quality)
        if len(hull.cells):
            center = hull.center(TRIM[geometry.fit_to])
            outline = _outline(hull, TRIM[geometry.fit_to])
    return Observation(step.index, statistics, center, outline, residual, iou, problems)


def check_calibration(
    observations: Sequence[Observation], cameras: Sequence[Camera], quality: QualityConfig
) -> None:
    """Refuse cameras that contradict the masks in most frames.

    The centroids of a true rig's masks meet in one point up to the animal's shape, within a few per cent of
    the picture's diagonal, and each mask agrees with the hull of the others.

    Args:
        observations: All frames; those with an empty mask say nothing.
        cameras: The rig.
        quality: The limits.

    Raises:
        CalibrationError: most frames contradict; the message says whether transposed rotations explain it.
    """
    usable = [item for item in observations if all(mask.area for mask in item.masks)]
    usable = usable[:: max(1, len(usable) // EVIDENCE_FRAMES)]
    if not usable:
        return
    residual = _median_residual(usable, cameras)
    support = float(np.median([np.nan_to_num(item.hull_iou).min() for item in usable]))
    if residual <= quality.max_center_residual and support >= quality.min_hull_iou:
        return
    transposed = [Camera.from_rt(c.K, c.R.T, c.t, c.width, c.height) for c in cameras]
    other = _median_residual(usable, transposed)
    reason = (
        f"With R transposed the distance would be {other:.1%}: the calibration stores R in row form; "
        "transpose R in the export."
        if other <= residual / 2
        else "Are the cameras in the order of the videos, and from the same day as the recording?"
    )
    raise CalibrationError(
        f"the calibration contradicts the masks: in the median frame the animal's centre reprojects "
        f"{residual:.1%} of the picture's diagonal away from the masks' centres (expected at most "
        f"{quality.max_center_residual:.1%}), and the worst mask agrees by {support:.0%} with the others "
        f"(expected at least {quality.min_hull_iou:.0%}). {reason}"
    )


def _residual_share(residual_px: Array, cameras: Sequence[Camera]) -> float:
    """Mean over views of the centroid residual as a share of the picture's diagonal, at most 1."""
    shares = [r / np.hypot(c.width, c.height) for r, c in zip(residual_px, cameras, strict=True)]
    return float(np.mean(np.minimum(shares, 1)))


def _median_residual(observations: Sequence[Observation], cameras: Sequence[Camera]) -> float:
    """Median over frames of `_residual_share` under some other cameras."""
    shares = []
    for item in observations:
        found = triangulate([mask.centroid for mask in item.masks], cameras)
        shares.append(_residual_share(found.residual_px, cameras))
    return float(np.median(shares))


def _mask_problems(
    masks: Sequence[MaskStatistics],
    cameras: Sequence[Camera],
    camera_ids: Sequence[int],
    quality: QualityConfig,
) -> tuple[str, ...]:
    problems = []
    for mask, camera, number in zip(masks, cameras, camera_ids, strict=True):
        if mask.area == 0:
            problems.append(f"camera {number}: mask is empty")
        elif mask.area < quality.min_mask_share * camera.width * camera.height:
            problems.append(f"camera {number}: mask is smaller than quality.min_mask_share")
    if sum(mask.touches_border for mask in masks) > quality.max_border_views:
        problems.append("the animal touches the border in more views than quality.max_border_views")
    return tuple(problems)


def _hull_problems(
    hull: VisualHull, iou: Array, camera_ids: Sequence[int], quality: QualityConfig
) -> tuple[str, ...]:
    if len(hull.cells) == 0:
        return ("the visual hull is empty",)
    return tuple(
        f"camera {number}: mask agrees with the other views less than quality.min_hull_iou"
        for number, value in zip(camera_ids, iou, strict=True)
        if value < quality.min_hull_iou
    )


def _outline(hull: VisualHull, trim: float) -> Array:
    """The cells farthest in 26 directions, of those inside the trimmed bounding box: enough to fit."""
    low, high = hull.bounds(trim)
    cells = hull.cells[((hull.cells >= low) & (hull.cells <= high)).all(1)]
    steps = np.stack(np.meshgrid(*[(-1, 0, 1)] * 3, indexing="ij"), -1).reshape(-1, 3)
    directions = steps[np.any(steps != 0, axis=1)]
    return cells[(cells @ directions.T).argmax(0)] if len(cells) else np.stack([low, high])
