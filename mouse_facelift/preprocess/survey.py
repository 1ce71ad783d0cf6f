"""What the masks say: of one time step about the animal in 3D, of a whole recording about its calibration."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..capture.masks import CleanMask, Mask
from ..errors import CalibrationError
from ..geometry import Camera
from ..geometry.cameras import Array
from ..geometry.triangulation import triangulate
from ..geometry.visual_hull import VisualHull, carve, hull_silhouette_iou, reach
from .config import GeometryConfig, Limit, QualityConfig
from .descriptor import describe
from .limits import Action, Problem, check
from .observation import MaskStatistics, Observation

SEARCH_MARGIN = 1.2
"""The hull is searched in a cube this much larger than the largest mask, seen from the centre."""
TRIM = {"whole": 0.0, "body": 0.03}
"""Share of the hull's cells ignored at each side of an axis; a tail holds some 3 % of a mouse's volume."""
MAX_RESOLUTION = 100
"""Cells along half the search cube, at most: a wrong calibration must not ask for billions of them."""
BLAME_CELLS = 2
"""Cells are this much larger where a frame has failed and the view to blame is looked for."""
MIN_BLAME_VIEWS = 4
"""Of fewer views none can be blamed: the two that are left always agree."""
DIRECTIONS = np.stack(np.meshgrid(*[(-1.0, 0.0, 1.0)] * 3, indexing="ij"), -1).reshape(-1, 3)
DIRECTIONS = np.delete(DIRECTIONS, 13, axis=0)
DIRECTIONS /= np.linalg.norm(DIRECTIONS, axis=1, keepdims=True)
"""To the faces, edges and corners of a cube along the model's axes. [26, 3]"""


def observe(
    index: int,
    masks: Sequence[CleanMask],
    cameras: Sequence[Camera],
    camera_ids: Sequence[int],
    geometry: GeometryConfig,
    quality: QualityConfig,
    rotation: Array | None = None,
    posture: bool = True,
) -> Observation:
    """Find the animal of one time step in 3D and say whether the frame can be used.

    A frame is measured until something is found for which it is dropped.

    Args:
        index: The frame's number.
        masks: What each view sees. V
        cameras: The rig, in millimetres. V
        camera_ids: Their numbers, for messages. V
        geometry: The hull's cells and how the bounding box is taken.
        quality: The limits.
        rotation: Takes the rig's up to the model's Z; None where Z is up. [3, 3]
        posture: Whether the descriptor is needed.
    """
    statistics = tuple(MaskStatistics.of(mask) for mask in masks)
    views = _Views(tuple(masks), statistics, tuple(cameras), tuple(camera_ids))
    nowhere, unseen = np.full(3, np.nan), np.full(len(masks), np.nan)
    point, residual_px, hull_iou = nowhere, unseen, unseen
    center, outline, descriptor = nowhere, np.empty((0, 3)), np.empty(0, np.float32)
    found = _mask_problems(views, quality)
    if not _given_up(found):
        point, residual_px = views.meet()
        found += _residual_problems(views, residual_px, quality.center_residual)
    if not _given_up(found):
        hull, hull_iou = views.hull(point, geometry.cell_mm)
        found += _hull_problems(views, hull, hull_iou, quality.hull_iou)
        if len(hull.cells):
            trim = TRIM[geometry.fit_to]
            center, outline = hull.center(trim), _outline(hull, trim, rotation)
            descriptor = describe(hull, rotation) if posture else descriptor
    return Observation(
        frame=index,
        masks=views.statistics,
        point=point,
        center=center,
        outline=outline,
        residual_px=residual_px,
        hull_iou=hull_iou,
        descriptor=descriptor,
        problems=tuple(item for item in found if item.action == "drop"),
        warnings=tuple(item for item in found if item.action == "warn"),
        fatal=tuple(item for item in found if item.action == "stop"),
    )


def animal_hull(masks: Sequence[Mask], cameras: Sequence[Camera], point: Array, cell_mm: float) -> VisualHull:
    """Carve the hull of masks that are not empty.

    Args:
        masks: V x [H, W]
        cameras: Of these masks. V
        point: A point in the animal, such as the masks' triangulated centroid. [3]
        cell_mm: Side of the cells; larger where the masks ask for too many of them.
    """
    radius = max(reach(mask, camera, point) for mask, camera in zip(masks, cameras, strict=True))
    # Where the point lies behind a camera its reach is negative.
    radius = max(SEARCH_MARGIN * radius, cell_mm)
    return carve(masks, cameras, point, radius, max(cell_mm, radius / MAX_RESOLUTION))


def check_calibration(
    observations: Sequence[Observation], cameras: Sequence[Camera], quality: QualityConfig
) -> None:
    """Refuse cameras that contradict the masks in most frames.

    The centroids of a true rig's masks meet in one point up to the animal's shape, within a few per cent of
    the picture's diagonal, and each mask agrees with the hull of all. This is the last net: what a wrong
    calibration was meant to be is told where it is read (`capture.convention`), and which camera is wrong
    where the recording is measured (`contradiction`).

    Args:
        observations: All frames; those dropped for their masks alone say nothing.
        cameras: The rig.
        quality: The limits; one that is null or only warns is not checked.

    Raises:
        CalibrationError: most frames contradict.
    """
    usable = [item for item in observations if not np.isnan(item.residual_px).all()]
    if not usable:
        return
    residual = float(np.median([_residual_share(item.residual_px, cameras) for item in usable]))
    support = float(np.median([np.nan_to_num(item.hull_iou).min() for item in usable]))
    most, least = (
        None if limit.action == "warn" else limit.value
        for limit in (quality.center_residual, quality.hull_iou)
    )
    found = []
    if most is not None and residual > most:
        found.append(
            f"the animal's centre reprojects {residual:.1%} of the picture's diagonal away from the masks' "
            f"centres (expected at most {most:.1%})"
        )
    if least is not None and support < least:
        found.append(
            f"the worst mask agrees by {support:.0%} with the visual hull of all (expected at least "
            f"{least:.0%})"
        )
    if found:
        raise CalibrationError(
            f"the calibration contradicts the masks: in the median frame {' and '.join(found)}. Are the "
            "cameras in the order of the videos, and from the same day as the recording?"
        )


def _residual_share(residual_px: Array, cameras: Sequence[Camera]) -> float:
    """Mean over views of the centroid residual as a share of the picture's diagonal, at most 1."""
    shares = [r / np.hypot(c.width, c.height) for r, c in zip(residual_px, cameras, strict=True)]
    return float(np.mean(np.minimum(shares, 1)))


@dataclass(frozen=True, eq=False)
class _Views:
    """What the cameras see at one moment."""

    masks: tuple[CleanMask, ...]
    statistics: tuple[MaskStatistics, ...]
    cameras: tuple[Camera, ...]
    camera_ids: tuple[int, ...]

    def meet(self) -> tuple[Array, Array]:
        """The centroids' common point [3] and its residuals in pixels [V]."""
        found = triangulate([mask.centroid for mask in self.statistics], self.cameras)
        return found.point, found.residual_px

    def hull(self, point: Array, cell_mm: float) -> tuple[VisualHull, Array]:
        """The hull about a point, and how it overlaps with the masks [V]."""
        pixels = [mask.mask for mask in self.masks]
        hull = animal_hull(pixels, self.cameras, point, cell_mm)
        return hull, hull_silhouette_iou(hull, pixels, self.cameras)

    def blame(
        self, figure: Callable[["_Views"], float], good: Callable[[float], bool]
    ) -> tuple[int, float] | None:
        """The one camera without which the others' figure is good, and that figure.

        None where there is no such camera, or more than one.
        """
        if len(self.cameras) < MIN_BLAME_VIEWS:
            return None
        figures = [figure(self._without(view)) for view in range(len(self.cameras))]
        healed = [view for view, value in enumerate(figures) if good(value)]
        return (self.camera_ids[healed[0]], figures[healed[0]]) if len(healed) == 1 else None

    def _without(self, view: int) -> "_Views":
        rest = [other for other in range(len(self.cameras)) if other != view]
        return _Views(
            tuple(self.masks[other] for other in rest),
            tuple(self.statistics[other] for other in rest),
            tuple(self.cameras[other] for other in rest),
            tuple(self.camera_ids[other] for other in rest),
        )


def _given_up(found: Sequence[Problem]) -> bool:
    return any(problem.action != "warn" for problem in found)


def _mask_problems(views: _Views, quality: QualityConfig) -> list[Problem]:
    found: list[Problem | None] = []
    for mask, camera, number in zip(views.statistics, views.cameras, views.camera_ids, strict=True):
        if mask.problem or mask.area == 0:
            limit, text = quality.mask_share, f"camera {number}: {mask.problem or 'mask is empty'}"
            found.append(Problem("mask_share", number, None, limit.value, _at_least_drop(limit), text))
            continue
        share = mask.area / (camera.width * camera.height)
        found.append(check(quality.mask_share, "mask_share", number, share))
        found.append(check(quality.removed_share, "removed_share", number, mask.removed_share))
    touching = sum(mask.touches_border for mask in views.statistics)
    found.append(check(quality.border_views, "border_views", None, touching))
    return [problem for problem in found if problem]


def _residual_problems(views: _Views, residual_px: Array, limit: Limit) -> list[Problem]:
    share = _residual_share(residual_px, views.cameras)
    problem = check(limit, "center_residual", None, share)
    if problem is None:
        return []
    blamed = views.blame(
        lambda rest: _residual_share(rest.meet()[1], rest.cameras),
        lambda value: check(limit, "center_residual", None, value) is None,
    )
    if blamed is None:
        return [problem]
    number, other = blamed
    text = f"camera {number}: contradicts the other views: {problem.text}; without this camera {other:.1%}"
    return [replace(problem, camera=number, text=text)]


def _hull_problems(views: _Views, hull: VisualHull, iou: Array, limit: Limit) -> list[Problem]:
    worst = float(iou.min())
    if len(hull.cells) == 0:
        text = "the masks share no point in space: the visual hull is empty"
        problems = [Problem("hull_iou", None, 0.0, limit.value, _at_least_drop(limit), text)]
    else:
        found = [check(limit, "hull_iou", *item) for item in zip(views.camera_ids, iou.tolist(), strict=True)]
        problems = [problem for problem in found if problem]
    if not problems:
        return []
    least = limit.value or 0.0
    blamed = views.blame(
        lambda rest: float(rest.hull(rest.meet()[0], BLAME_CELLS * hull.cell_size)[1].min()),
        lambda value: value > 0 and value >= least,
    )
    if blamed is None:
        return problems
    number, other = blamed
    text = (
        f"camera {number}: contradicts the other views: the worst mask agrees with the visual hull by "
        f"{worst:.2f}, without this camera by {other:.2f}, limit {least:.2f} (quality.hull_iou)"
    )
    return [replace(problems[0], camera=number, found=worst, text=text)]


def _at_least_drop(limit: Limit) -> Action:
    """What happens where a frame has no hull, so that a warning alone is not possible."""
    return "stop" if limit.action == "stop" else "drop"


def _outline(hull: VisualHull, trim: float, rotation: Array | None) -> Array:
    """The hull's outermost points in 26 directions, of its part inside the trimmed bounding box. [26, 3]"""
    directions = DIRECTIONS if rotation is None else DIRECTIONS @ rotation
    low, high = hull.bounds(trim)
    cells, outside = hull.cells, hull.outside
    if trim:
        inside = ((cells >= low) & (cells <= high)).all(1)
        cells, outside = (
            (cells[inside], outside[inside]) if inside.any() else (np.stack([low, high]), np.zeros(2))
        )
    # Each cell stands for a sphere that is in the hull.
    farthest = (np.einsum("ni,di->dn", cells, directions) - outside).argmax(1)
    return cells[farthest] - outside[farthest, None] * directions
