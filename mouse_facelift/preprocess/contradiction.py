"""A camera that contradicts all others: without it the masks of the rest agree, with it they do not.

A focal length that is off by some per cent, or a camera that was bumped after calibration, leaves every
frame good enough by itself; the centroids of the masks hardly notice. But one false camera carves the animal
away in all views, so leaving it out heals all others, and leaving out any other camera heals nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..capture.moments import spread_moments
from ..capture.recording import Recording
from ..capture.streaming import MaskStep
from ..geometry.triangulation import triangulate
from ..geometry.visual_hull import hull_silhouette_iou
from .config import QualityConfig
from .survey import MIN_BLAME_VIEWS, animal_hull

MAX_CELL_MM = 1.5
"""Larger cells make every rig disagree."""
MOMENTS = 12
"""Moments of the recording that are looked at."""
NOTICE = 0.015
"""Gain in mean agreement that is worth a word; a true rig with clean masks has 0.001, fx off by 2 % 0.02."""
ALONE = 0.5
"""A camera is to blame where leaving it out gains this much more than leaving out any other, at least."""
POOR = 0.08
"""Disagreement that is worth a word where no single camera is to blame."""


@dataclass(frozen=True)
class Contradiction:
    """How well masks agree with their visual hull, and the camera that spoils it.

    Attributes:
        agreement: Mean overlap of the masks with the hull of all, over views and moments.
        camera: The camera to blame; None where there is none.
        without: That mean without this camera; `agreement` where there is none.
        moments: Moments that were looked at.
    """

    agreement: float
    camera: int | None
    without: float
    moments: int

    @property
    def gain(self) -> float:
        """What leaving that camera out gains."""
        return self.without - self.agreement


def measure_contradiction(recording: Recording, cell_mm: float) -> Contradiction | None:
    """Look for the one camera without which the others' masks agree.

    Args:
        recording: The recording.
        cell_mm: Side of the hull's cells, at most.

    Returns:
        What was found; None with fewer than four cameras, of which none can be blamed, or without a moment
        at which all see the animal.
    """
    views = range(len(recording.cameras))
    if len(views) < MIN_BLAME_VIEWS:
        return None
    moments = spread_moments(recording.keyframes, 0, recording.frame_count - 1, MOMENTS)
    subsets = [list(views), *([view for view in views if view != left] for left in views)]
    cell_mm = min(cell_mm, MAX_CELL_MM)
    rows = [
        [_agreement(recording, step, subset, cell_mm) for subset in subsets]
        for step in recording.read_masks(moments)
        if all(mask.area and not mask.problem for mask in step.masks)
    ]
    if not rows:
        return None
    agreement, *without = np.mean(rows, axis=0).tolist()
    gains = np.array(without) - agreement
    best = int(gains.argmax())
    others = max(0.0, float(np.delete(gains, best).max()))
    if gains[best] < NOTICE or others > (1 - ALONE) * gains[best]:
        return Contradiction(agreement, None, agreement, len(rows))
    return Contradiction(agreement, recording.camera_ids[best], without[best], len(rows))


def contradiction_text(found: Contradiction, quality: QualityConfig) -> str:
    """What is to be said, with what to do; empty where all is well."""
    if found.camera is None:
        if 1 - found.agreement < POOR:
            return ""
        return (
            f"the masks agree with their visual hull by {found.agreement:.1%} in the mean over "
            f"{found.moments} moments (expected more than {1 - POOR:.0%}), and no single camera is to blame: "
            "check the focal lengths and principal points of all cameras, and the masks"
        )
    limit = "" if quality.contradiction.value is None else f", limit {quality.contradiction.value:.1%}"
    return (
        f"camera {found.camera} contradicts all others: without it their masks agree with their visual hull "
        f"by {found.without:.1%} in the mean over {found.moments} moments, with it by {found.agreement:.1%} "
        f"(a gain of {found.gain:.1%}{limit}). Check its K, R and T in the calibration, whether it was moved "
        "since, and its masks"
    )


def is_beyond(found: Contradiction, quality: QualityConfig) -> bool:
    """Whether a camera contradicts beyond `quality.contradiction`."""
    limit = quality.contradiction.value
    return found.camera is not None and limit is not None and found.gain > limit


def _agreement(recording: Recording, step: MaskStep, views: Sequence[int], cell_mm: float) -> float:
    """Mean overlap of these views' masks with the silhouettes of their hull."""
    cameras = [recording.cameras[view] for view in views]
    masks = [step.masks[view] for view in views]
    point = triangulate([mask.centroid() for mask in masks], cameras).point
    pixels = [mask.mask for mask in masks]
    hull = animal_hull(pixels, cameras, point, cell_mm)
    return float(hull_silhouette_iou(hull, pixels, cameras).mean())
