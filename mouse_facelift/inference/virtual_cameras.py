"""Cameras that no rig has, for videos over time: in the rig's frame, as near as shows all of the animal."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..geometry import Camera, direction
from .config import SequenceCameraConfig

Array = NDArray[np.float64]

FILLED = 0.9
"""Share of the picture's side that the animal may take."""


def aimed_cameras(
    targets: Array, azimuths_deg: Array, boxes: Array, config: SequenceCameraConfig, size: int
) -> list[Camera]:
    """One camera a moment, all at the same distance from what they are aimed at.

    Args:
        targets: What each is aimed at, millimetres. [T, 3]
        azimuths_deg: Where each stands about its target, counter-clockwise from +x seen from above. [T]
        boxes: Corners of a box around the animal at each moment, millimetres. [T, 8, 3]
        config: Elevation, field of view, and the distance unless it is to be found.
        size: Side of the pictures in pixels.

    Returns:
        T cameras in the rig's frame.
    """
    outwards = direction(np.radians(azimuths_deg), np.radians(config.elevation_deg))
    tangent = np.tan(np.radians(config.fov_deg) / 2)
    focal = size / (2 * tangent)
    # At a distance of 0 first: only the rotations are needed to find the distance.
    rotations = np.stack([Camera.look_at(way, (0, 0, 0), focal, size).R for way in outwards])
    distance = config.distance_mm
    if distance is None:
        offsets = (boxes - targets[:, None]) @ rotations.swapaxes(-1, -2)
        across = np.abs(offsets[..., :2]).max(-1)
        distance = float((across / (FILLED * tangent) - offsets[..., 2]).max())
    return [
        Camera.look_at(target + distance * way, target, focal, size)
        for target, way in zip(targets, outwards, strict=True)
    ]


def smoothed(positions: Array, frames: Sequence[int], sigma: float) -> Array:
    """Positions [T, 3] averaged over time by a Gaussian of `sigma` recorded frames; 0 leaves them alone.

    Where the recording begins or ends, or frames are missing, the average is over those that are there.
    """
    if sigma == 0:
        return positions
    times, result = np.asarray(frames, float), np.empty_like(positions)
    for index, time in enumerate(times):
        first, last = np.searchsorted(times, (time - 4 * sigma, time + 4 * sigma))
        weights = np.exp(-0.5 * ((times[first:last] - time) / sigma) ** 2)
        result[index] = weights @ positions[first:last] / weights.sum()
    return result
