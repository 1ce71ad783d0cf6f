"""From millimetres to the model's world: one similarity per sample, virtual cameras aimed at the origin."""

from collections.abc import Sequence

import numpy as np

from ..geometry import Camera, Similarity, look_at_rotation
from ..geometry.cameras import Array
from .config import GeometryConfig
from .survey import Observation
from .warp import View

REFERENCE_FOCAL, REFERENCE_DISTANCE, REFERENCE_SIZE = 548.9937744, 2.7, 512
"""The published models' cameras: focal length in pixels at this picture size, and distance in model units."""
HALF_FIELD = REFERENCE_DISTANCE * (REFERENCE_SIZE / 2) / REFERENCE_FOCAL
"""Half the width, in model units, that such a camera sees at the origin: 1.259."""
IMAGE_MARGIN = 0.02
"""Share of the picture kept free along its border when the scale is fitted."""
STEEP = 0.05
"""Sine of the angle to the vertical below which a camera's own up replaces the world's."""


def smooth_centers(frames: Sequence[int], centers: Array, sigma_frames: float) -> Array:
    """Average centres over neighbouring frames with Gaussian weights.

    Args:
        frames: Frame numbers. T
        centers: Centres in mm. [T, 3]
        sigma_frames: Width in video frames; 0 returns the centres as they are.
    """
    if sigma_frames == 0:
        return centers
    times = np.asarray(frames, float)
    result = np.empty_like(centers)
    for row, time in enumerate(times):
        near = slice(*np.searchsorted(times, (time - 4 * sigma_frames, time + 4 * sigma_frames + 1)))
        weights = np.exp(-0.5 * ((times[near] - time) / sigma_frames) ** 2)
        result[row] = weights @ centers[near] / weights.sum()
    return result


def choose_scale(
    config: GeometryConfig, observations: Sequence[Observation], centers: Array, cameras: Sequence[Camera]
) -> tuple[float, int]:
    """The data set's scale and the number of frames that it cuts.

    Args:
        config: How to choose.
        observations: The usable frames. T
        centers: Their centres in mm. [T, 3]
        cameras: The rig in mm.

    Returns:
        Model units per mm, and in how many frames the animal leaves the box or a picture.
    """
    limits = np.array(
        [
            _largest_scale(config, item.outline, c, cameras)
            for item, c in zip(observations, centers, strict=True)
        ]
    )
    if config.scale == "fit":
        scale = float(np.percentile(limits, 100 - config.fit_percentile, method="lower"))
    elif config.scale == "mean_distance":
        rig = np.stack([camera.center for camera in cameras])
        distances = np.linalg.norm(centers[:, None] - rig, axis=-1)
        scale = REFERENCE_DISTANCE / float(distances.mean())
    else:
        scale = float(config.scale)
    return scale, int((limits < scale * (1 - 1e-9)).sum())


def normalized_view(view: View, similarity: Similarity, config: GeometryConfig, size: int) -> View:
    """Make a sample's view: re-aimed or cropped about the animal, in model units.

    Args:
        view: The recorded picture, camera in mm.
        similarity: The sample's change of world.
        config: Which virtual camera.
        size: Side of the new picture in pixels.
    """
    camera = view.camera
    if config.virtual_camera == "crop":
        pixel, depth = camera.project(similarity.center)
        half_side = HALF_FIELD / similarity.scale / float(depth) * camera.K[0, 0]
        moved = view.crop(pixel[0] - half_side, pixel[1] - half_side, 2 * half_side, size)
    else:
        focal = REFERENCE_FOCAL * size / REFERENCE_SIZE
        if config.focal == "per_view":
            distance = similarity.scale * float(np.linalg.norm(similarity.center - camera.center))
            focal *= distance / REFERENCE_DISTANCE
        K = np.array([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]])
        moved = view.reaim(K, aim(camera, similarity.center), size, size)
    return moved.similarity(similarity)


def aim(camera: Camera, target: Array) -> Array:
    """World-to-camera rotation that looks from the camera at `target`, world's Z up in the picture. [3, 3]

    Cameras that look straight up or down keep their own up direction.
    """
    forward = target - camera.center
    level = float(np.hypot(forward[0], forward[1]) / np.linalg.norm(forward))
    return look_at_rotation(forward, (0.0, 0.0, 1.0) if level > STEEP else -camera.R[1])


def _largest_scale(config: GeometryConfig, outline: Array, center: Array, cameras: Sequence[Camera]) -> float:
    """The scale at which the animal just fills the box, or a picture where that comes first."""
    limit = config.box / float(np.abs(outline - center).max())
    if config.virtual_camera == "lookat" and config.focal == "per_view":
        for camera in cameras:
            # f grows with the distance, hence with the scale: pixels per unit of scale follow.
            in_camera = (outline - camera.center) @ aim(camera, center).T
            tangent = float(np.abs(in_camera[:, :2] / in_camera[:, 2:]).max())
            distance = float(np.linalg.norm(center - camera.center))
            limit = min(limit, (1 - IMAGE_MARGIN) * HALF_FIELD / (distance * tangent))
    return limit
