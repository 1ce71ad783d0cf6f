"""The animal in one frame, as far as its masks tell: what the first pass finds, and how it is kept."""

import base64
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..capture.masks import CleanMask
from ..geometry.cameras import Array
from .limits import Problem

ARRAYS = {
    "point": ("<f8", (3,)),
    "center": ("<f8", (3,)),
    "outline": ("<f8", (-1, 3)),
    "residual_px": ("<f8", (-1,)),
    "hull_iou": ("<f8", (-1,)),
    "descriptor": ("<f4", (-1,)),
}
"""Fields of `Observation` that are arrays: type and shape in a record."""
PROBLEMS = ("problems", "warnings", "fatal")


@dataclass(frozen=True)
class MaskStatistics:
    """A mask in numbers.

    Attributes:
        area: Pixels on the animal.
        centroid: Their mean position, half-pixel centres; NaN where the mask is empty.
        touches_border: The animal reaches the picture's border.
        removed_share: Share of the raw mask that cleaning removed.
        problem: Why the mask is none; empty where it is one.
    """

    area: int
    centroid: tuple[float, float]
    touches_border: bool
    removed_share: float
    problem: str = ""

    @classmethod
    def of(cls, mask: CleanMask) -> "MaskStatistics":
        """Measure a mask."""
        centroid = mask.centroid() if mask.area else (np.nan, np.nan)
        return cls(mask.area, centroid, mask.touches_border, mask.removed_share, mask.problem)


@dataclass(frozen=True, eq=False)
class Observation:
    """The animal in one frame, in the rig's millimetres.

    Attributes:
        frame: Frame number in the recording.
        masks: Per view, without the pixels. V
        point: The masks' triangulated centroid; NaN where a mask is missing. [3]
        center: Middle of the hull's bounding box; NaN where there is no hull. [3]
        outline: The hull's outermost points in 26 directions about the model's axes; empty where there is no
            hull. [26, 3]
        residual_px: Distance of each mask's centroid from the reprojection of `point`. [V]
        hull_iou: Intersection over union of each mask and the silhouette of the hull of all. [V]
        descriptor: The posture, see `descriptor.describe`; empty where there is no hull, or no need. [D]
        problems: Why the frame is dropped; empty where it can be used.
        warnings: What else is beyond its limit.
        fatal: What stops the run.
    """

    frame: int
    masks: tuple[MaskStatistics, ...]
    point: Array
    center: Array
    outline: Array
    residual_px: Array
    hull_iou: Array
    descriptor: NDArray[np.float32]
    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...]
    fatal: tuple[Problem, ...]


def to_record(observation: Observation) -> dict[str, Any]:
    """JSON-ready values, from which `from_record` makes the very same observation.

    Arrays become base64 of their bytes: exact, NaN included, and half as long as digits.
    """
    record: dict[str, Any] = {"frame": observation.frame}
    for name, (kind, _) in ARRAYS.items():
        content = np.ascontiguousarray(getattr(observation, name), kind).tobytes()
        record[name] = base64.b64encode(content).decode("ascii")
    record["masks"] = [
        {**asdict(mask), "centroid": list(mask.centroid) if mask.area else None} for mask in observation.masks
    ]
    for name in PROBLEMS:
        record[name] = [asdict(problem) for problem in getattr(observation, name)]
    return record


def from_record(record: Mapping[str, Any]) -> Observation:
    """Read `to_record` back."""
    values: dict[str, Any] = {
        name: np.frombuffer(base64.b64decode(record[name]), kind).reshape(shape)
        for name, (kind, shape) in ARRAYS.items()
    }
    masks = [
        MaskStatistics(**{**mask, "centroid": tuple(mask["centroid"] or (np.nan, np.nan))})
        for mask in record["masks"]
    ]
    for name in PROBLEMS:
        values[name] = tuple(Problem(**problem) for problem in record[name])
    return Observation(frame=record["frame"], masks=tuple(masks), **values)
