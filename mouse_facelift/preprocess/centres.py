"""Where the animal is: the point of every frame that becomes the model's origin."""

from collections.abc import Sequence

import numpy as np

from ..errors import DataError
from ..geometry import Camera
from ..geometry.cameras import Array
from ..geometry.triangulation import triangulate_many
from .config import GeometryConfig
from .observation import Observation

MAX_KEYPOINT_RESIDUAL = 0.01
"""Median distance, over the views that see it, of a key point from its reprojection; a share of the picture's
diagonal. Beyond it the views mean different points."""
MIN_KEYPOINT_SHARE = 0.5
"""Share of the key points that a frame needs: the mean of fewer is not the animal's middle."""
FRAMES_AT_ONCE = 512
"""Frames whose key points are triangulated together, which bounds memory."""
SIGMAS = 4.0
"""Neighbours farther away than this many standard deviations have no say in a smoothed centre."""


def frame_centers(
    config: GeometryConfig,
    observations: Sequence[Observation],
    segments: Sequence[int],
    cameras: Sequence[Camera],
    keypoints: Array | None = None,
) -> Array:
    """The centre of every frame.

    Args:
        config: Which point, and how it is smoothed.
        observations: The usable frames, in time order. T
        segments: Number of the stretch between two jumps that each lies in; centres are smoothed inside. T
        cameras: The rig in mm. V
        keypoints: Of all frames of the recording, for `centre: keypoints`; see `read_keypoints`.
            [V, frames, K, 2]

    Returns:
        Centres in mm; NaN for frames of which too few key points agree between the views. [T, 3]

    Raises:
        DataError: `centre: keypoints`, but there are none.
    """
    frames = [item.frame for item in observations]
    if config.centre == "fixed":
        fixed = config.fixed_centre_mm or np.median([item.center for item in observations], axis=0)
        return np.tile(np.asarray(fixed, float), (len(frames), 1))
    if config.centre == "keypoints":
        if keypoints is None:
            raise DataError("geometry.centre is keypoints, but none were read. Set input.keypoints.")
        centers = keypoint_centers(keypoints[:, frames], cameras)
    elif config.centre == "triangulated":
        centers = np.stack([item.point for item in observations])
    else:
        centers = np.stack([item.center for item in observations])
    return smooth_centers(frames, segments, centers, config.smoothing_frames)


def keypoint_centers(keypoints: Array, cameras: Sequence[Camera]) -> Array:
    """Mean of the triangulated key points of every frame, without those that the views disagree about.

    Args:
        keypoints: Pixel positions, half-pixel centres; NaN where not detected. [V, T, K, 2]
        cameras: The rig. V

    Returns:
        World points; NaN for frames with fewer than `MIN_KEYPOINT_SHARE` of the key points. [T, 3]
    """
    frames, count = keypoints.shape[1:3]
    diagonals = np.array([np.hypot(camera.width, camera.height) for camera in cameras])
    centers = np.full((frames, 3), np.nan)
    for start in range(0, frames, FRAMES_AT_ONCE):
        part = keypoints[:, start : start + FRAMES_AT_ONCE].transpose(1, 2, 0, 3)
        found = triangulate_many(part.reshape(-1, *part.shape[2:]), cameras)
        shares = np.where(np.isnan(found.point[:, :1]), np.inf, found.residual_px / diagonals)
        agreed = (np.nanmedian(shares, axis=1) <= MAX_KEYPOINT_RESIDUAL).reshape(-1, count)
        points = np.where(agreed[..., None], found.point.reshape(-1, count, 3), 0.0)
        enough = agreed.sum(1) >= MIN_KEYPOINT_SHARE * count
        centers[start : start + FRAMES_AT_ONCE][enough] = (
            points[enough].sum(1) / agreed[enough].sum(1)[:, None]
        )
    return centers


def smooth_centers(
    frames: Sequence[int], segments: Sequence[int], centers: Array, sigma_frames: float
) -> Array:
    """Smooth centres over time inside each segment.

    Each becomes the value of a straight line fitted to its neighbours with Gaussian weights: a steady walk
    stays as it is, also where the samples are uneven or end (W. Cleveland, Robust locally weighted
    regression, 1979).

    Args:
        frames: Frame numbers, increasing. T
        segments: Number of the stretch between two jumps that each lies in. T
        centers: Centres in mm; NaN ones stay NaN and count for nothing. [T, 3]
        sigma_frames: Width in video frames; 0 returns the centres as they are.
    """
    if sigma_frames == 0:
        return centers
    known = ~np.isnan(centers).any(1)
    result = centers.copy()
    for segment in set(segments):
        rows = np.flatnonzero((np.asarray(segments) == segment) & known)
        times, values = np.asarray(frames, float)[rows], centers[rows]
        for row, time in zip(rows, times, strict=True):
            reach = SIGMAS * sigma_frames
            near = slice(*np.searchsorted(times, (time - reach, np.nextafter(time + reach, np.inf))))
            result[row] = _line_at_zero(times[near] - time, values[near], sigma_frames)
    return result


def _line_at_zero(times: Array, values: Array, sigma: float) -> Array:
    """Value at time 0 of the line through `values` [n, 3]; one of the `times` [n] is 0."""
    weights = np.exp(-0.5 * (times / sigma) ** 2)
    total, first, second = weights.sum(), weights @ times, weights @ times**2
    if second == 0:
        return np.asarray(values[0], np.float64)
    weights = weights * (second - first * times) / (total * second - first**2)
    return np.asarray(weights @ values, np.float64)
