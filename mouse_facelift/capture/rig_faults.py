"""What else would explain the masks: two cameras exchanged, K of another resolution, one camera wrong.

Such faults hide: with all cameras aimed at one small arena, two exchanged ones raise the residual from 1 % to
2 %, which by itself could be a poor mask. But no fault of this kind makes a true rig fit better.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations

import numpy as np

from .centroid_residuals import Poses, Witness

STRONG = 0.6
"""A fault is believed where undoing it cuts the residual to this share, ..."""
STRONG_FRAMES = 0.75
"""... and lowers it in this share of the frames."""
MIN_VIEWS, MIN_FRAMES = 4, 8
"""Fewer cameras or frames fit too many rigs by chance."""
SINGLE = 0.6
"""... or leaving out one camera cuts it to this share of what any other repair leaves."""
FOCAL_FACTORS = (0.25, 0.5, 2.0, 4.0)


def explain(witness: Witness, conventions: Sequence[Poses], camera_ids: Sequence[int], limit: float) -> str:
    """What explains masks that do not fit, in words; empty where nothing does.

    A single wrong camera is named only where leaving it out helps clearly more than undoing any other fault:
    with one view less, everything fits a little better.

    Args:
        witness: The masks.
        conventions: Poses that the calibration may mean.
        camera_ids: The videos' numbers. V
        limit: The residual at which a rig fits.
    """
    fault, text = find_fault(witness, conventions, camera_ids, limit)
    left, other = find_wrong_camera(witness, conventions, camera_ids, limit)
    return other if other and left <= SINGLE * fault else text


def find_fault(
    witness: Witness, conventions: Iterable[Poses], camera_ids: Sequence[int], limit: float
) -> tuple[float, str]:
    """Look for a fault that explains masks which fit badly, or not as well as they should.

    Args:
        witness: The masks.
        conventions: Poses that the calibration may mean.
        camera_ids: The videos' numbers. V
        limit: The residual at which a rig fits.

    Returns:
        The residual without the fault that explains most, and that fault in words; 1 and empty where there
        is none.
    """
    if witness.views < MIN_VIEWS or witness.frames < MIN_FRAMES:
        return 1.0, ""
    found: list[tuple[float, str]] = []
    for poses in conventions:
        given = witness.shares(poses)
        for changed, text in _repairs(witness, camera_ids):
            shares = changed.shares(poses)
            share = float(np.median(shares))
            if share <= min(limit, STRONG * np.median(given)) and (shares < given).mean() >= STRONG_FRAMES:
                found.append((share, text.format(f"{100 * share:.2g} %")))
    return min(found, default=(1.0, ""))


def find_wrong_camera(
    witness: Witness, conventions: Iterable[Poses], camera_ids: Sequence[int], limit: float
) -> tuple[float, str]:
    """The camera without which the others fit: their residual, and words; 1 and empty where there is none.

    Args:
        witness: The masks.
        conventions: Poses that the calibration may mean.
        camera_ids: The videos' numbers. V
        limit: The residual at which the others fit.
    """
    if witness.views < MIN_VIEWS:
        return 1.0, ""
    found = []
    for poses in conventions:
        for view, camera in enumerate(camera_ids):
            left = witness.without(view)
            if left.frames:
                found.append((left.share(poses), camera))
    share, camera = min(found, default=(1.0, -1))
    if share > limit:
        return 1.0, ""
    return share, (
        f"Without camera {camera} the residual is {100 * share:.2g} %: check that camera's entry in the "
        "calibration, its video and its masks."
    )


def _repairs(witness: Witness, camera_ids: Sequence[int]) -> Iterator[tuple[Witness, str]]:
    for first, second in combinations(range(witness.views), 2):
        yield (
            witness.exchanged(first, second),
            f"With cameras {camera_ids[first]} and {camera_ids[second]} exchanged the residual is {{}}: are "
            "the videos named in the calibration's order?",
        )
    for factor in FOCAL_FACTORS:
        yield (
            witness.zoomed(factor),
            f"With fx and fy times {factor:g} the residual is {{}}: is K for another resolution? Scale fx "
            "and fy to the videos'.",
        )
