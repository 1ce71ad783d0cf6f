"""From millimetres to the model's world: one similarity per sample, virtual cameras aimed at the origin."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import ConfigError
from ..geometry import FACELIFT_DISTANCE, FACELIFT_FOCAL, Camera, Similarity, look_at_rotation
from ..geometry.cameras import Array
from .config import GeometryConfig
from .observation import Observation
from .warp import View

HALF_FIELD = FACELIFT_DISTANCE / (2 * FACELIFT_FOCAL)
"""Half the width, in model units, that such a camera sees at the origin: 1.259."""
IMAGE_MARGIN = 0.02
"""Share of the picture kept free along its border when the scale or the crop is fitted."""
STEEP = 0.05
"""Sine of the angle to the vertical below which a camera's own up replaces the world's."""
MIN_UP = 0.3
"""Length of the cameras' mean up vector below which it means nothing: they look down, or are rolled."""
MAX_AXIS_ANGLE_DEG = 30.0
"""An axis of the world as near as this to the cameras' mean up is taken for up itself."""


@dataclass(frozen=True)
class Framing:
    """How large all samples of a data set show the animal.

    Attributes:
        scale: Model units per mm.
        crop_side_px: Side, in pixels of the recording, of the square that `virtual_camera: crop` cuts; None
            for other cameras.
    """

    scale: float
    crop_side_px: float | None


def choose_up(config: GeometryConfig, cameras: Sequence[Camera]) -> tuple[Array, str]:
    """Find which way is up in the calibration's world.

    Args:
        config: An axis, or how to find one.
        cameras: The rig.

    Returns:
        The smallest rotation that takes up to +Z, exactly the identity for a world with Z up [3, 3]; and a
        sentence that says which way that is, and why.

    Raises:
        ConfigError: the cameras' own up directions cancel out, so that nothing can be told from them.
    """
    if config.up not in ("auto", "rig"):
        return _rotation_to_z(_axis(config.up)), f"up is {config.up}, as geometry.up says."
    mean = np.mean([-camera.R[1] for camera in cameras], axis=0)
    length = float(np.linalg.norm(mean))
    if length < MIN_UP:
        forward = np.mean([camera.R[2] for camera in cameras], axis=0)
        raise ConfigError(
            f"geometry.up is {config.up}, but the cameras' own up directions cancel out (their mean has "
            f"length {length:.2f}, expected at least {MIN_UP}), as of cameras that look straight down or are "
            f"rolled. In the mean they look along ({_numbers(forward)}). Set geometry.up to the axis that "
            f"points up: {_nearest_axis(-forward)} where they look down at the animal, "
            f"{_nearest_axis(forward)} where they look up at it."
        )
    mean /= length
    axis = _nearest_axis(mean)
    angle = float(np.degrees(np.arccos(np.clip(mean @ _axis(axis), -1, 1))))
    if config.up == "auto" and angle <= MAX_AXIS_ANGLE_DEG:
        return _rotation_to_z(_axis(axis)), (
            f"up is {axis}, {angle:.1f} degrees from the cameras' mean up ({_numbers(mean)})."
        )
    return _rotation_to_z(mean), (
        f"up is the cameras' mean up ({_numbers(mean)}), {angle:.1f} degrees from {axis}."
    )


def azimuth_order(
    cameras: Sequence[Camera], camera_ids: Sequence[int], center: Array, rotation: Array
) -> tuple[int, ...]:
    """Camera numbers counter-clockwise as seen from above, from the first one at or after the model's +x.

    Args:
        cameras: The rig in mm. V
        camera_ids: Their numbers; they say nothing about directions. V
        center: Where the animal is, on average. [3]
        rotation: Takes up to the model's Z. [3, 3]
    """
    change = Similarity(1.0, rotation, center)
    azimuths = [camera.similarity(change).azimuth_deg for camera in cameras]
    return tuple(number for _, number in sorted(zip(azimuths, camera_ids, strict=True)))


def choose_framing(
    config: GeometryConfig,
    observations: Sequence[Observation],
    centers: Array,
    cameras: Sequence[Camera],
    rotation: Array,
) -> tuple[Framing, list[int]]:
    """Choose the data set's scale and crop.

    Args:
        config: How to choose.
        observations: The usable frames. T
        centers: Their centres in mm. [T, 3]
        cameras: The rig in mm. V
        rotation: Takes the rig's up to the model's Z, see `choose_up`. [3, 3]

    Returns:
        The framing, and the frames in which a part of the animal leaves the box or a picture.
    """
    located = [(item.outline, center) for item, center in zip(observations, centers, strict=True)]
    extents = np.array([np.abs((outline - center) @ rotation.T).max() for outline, center in located])
    reaches = np.array([reach(config, *pair, cameras, rotation[2]) for pair in located])
    if config.scale == "fit":
        limits = fitting_scales(config, extents, reaches)
        scale = float(np.percentile(limits, 100 - config.fit_percentile, method="lower"))
    elif config.scale == "mean_distance":
        rig = np.stack([camera.center for camera in cameras])
        scale = FACELIFT_DISTANCE / float(np.linalg.norm(centers[:, None] - rig, axis=-1).mean())
    else:
        scale = float(config.scale)
    side = None
    if config.virtual_camera == "crop":
        needed = float(np.percentile(reaches, config.fit_percentile, method="higher"))
        side = 2 * needed / (1 - IMAGE_MARGIN)
        room = side / 2
    else:
        room = HALF_FIELD / scale if config.focal == "per_view" else HALF_FIELD
    outside = (extents * scale > config.box * (1 + 1e-9)) | (reaches > room * (1 + 1e-9))
    cut = [item.frame for item, leaves in zip(observations, outside, strict=True) if leaves]
    return Framing(scale, side), cut


def normalized_view(
    view: View,
    similarity: Similarity,
    config: GeometryConfig,
    size: int,
    crop_side_px: float | None = None,
) -> View:
    """Make a sample's view: re-aimed or cropped about the animal, in model units.

    Args:
        view: The recorded picture, camera in mm.
        similarity: The sample's change of world.
        config: Which virtual camera.
        size: Side of the new picture in pixels.
        crop_side_px: `Framing.crop_side_px`, needed for `virtual_camera: crop`.
    """
    if config.virtual_camera == "crop":
        if crop_side_px is None:
            raise ValueError("virtual_camera is crop: crop_side_px is needed.")
        left, top = view.camera.project(similarity.center)[0] - crop_side_px / 2
        moved = view.crop(left, top, crop_side_px, size)
    else:
        moved = view.reaim(*lookat_camera(view.camera, similarity, config, size), size, size)
    return moved.similarity(similarity)


def lookat_camera(
    camera: Camera, similarity: Similarity, config: GeometryConfig, size: int
) -> tuple[Array, Array]:
    """Intrinsics and rotation, still in mm, of the camera re-aimed at the animal; its centre stays.

    Args:
        camera: In mm.
        similarity: The sample's change of world.
        config: Which focal length.
        size: Side of the new picture in pixels.

    Returns:
        K [3, 3] and the world-to-camera rotation [3, 3].
    """
    focal = FACELIFT_FOCAL * size
    if config.focal == "per_view":
        distance = similarity.scale * float(np.linalg.norm(similarity.center - camera.center))
        focal *= distance / FACELIFT_DISTANCE
    K = np.array([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]])
    return K, aim(camera, similarity.center, similarity.rotation[2])


def aim(camera: Camera, target: Array, up: Array) -> Array:
    """World-to-camera rotation that looks from the camera at `target`, `up` towards the picture's top. [3, 3]

    Cameras that look along `up`, or against it, keep their own up direction.
    """
    forward = target - camera.center
    level = float(np.linalg.norm(np.cross(forward, up)) / np.linalg.norm(forward))
    return look_at_rotation(forward, up if level > STEEP else -camera.R[1])


def fitting_scales(config: GeometryConfig, extents: Array, reaches: Array) -> Array:
    """Of every frame, the largest scale at which the animal stays in the box and in the pictures.

    Args:
        config: The box and the virtual camera.
        extents: How far the animal reaches from its centre along an axis, in mm. [T]
        reaches: See `reach`. [T]

    Returns:
        Model units per mm. [T]
    """
    limits = config.box / extents
    if config.virtual_camera == "lookat" and config.focal == "per_view":
        limits = np.minimum(limits, (1 - IMAGE_MARGIN) * HALF_FIELD / reaches)
    return limits


def reach(
    config: GeometryConfig, outline: Array, center: Array, cameras: Sequence[Camera], up: Array
) -> float:
    """How far the animal reaches from the middle of a picture, in the view where that is most.

    The unit is that of which `choose_framing` knows how much fits into half a picture: pixels of the
    recording for a crop; mm as seen from the reference distance where f follows the distance; model units as
    seen from the reference distance where f is fixed.
    """
    reaches = []
    for camera in cameras:
        if config.virtual_camera == "crop":
            reaches.append(np.abs(camera.project(outline)[0] - camera.project(center)[0]).max())
            continue
        in_camera = (outline - camera.center) @ aim(camera, center, up).T
        tangent = np.abs(in_camera[:, :2] / in_camera[:, 2:]).max()
        per_view = config.focal == "per_view"
        reaches.append(tangent * (np.linalg.norm(center - camera.center) if per_view else FACELIFT_DISTANCE))
    return float(max(reaches))


def _axis(name: str) -> Array:
    vector = np.zeros(3)
    vector["xyz".index(name[-1])] = -1.0 if name.startswith("-") else 1.0
    return vector


def _nearest_axis(direction: Array) -> str:
    index = int(np.abs(direction).argmax())
    return ("-" if direction[index] < 0 else "") + "xyz"[index]


def _rotation_to_z(up: Array) -> Array:
    """The smallest rotation from the unit vector `up` to +Z; a signed permutation for an axis. [3, 3]"""
    x, y, z = up
    sine = np.hypot(x, y)
    if z < 0 and sine < 1e-12:
        return np.diag([1.0, -1.0, -1.0])
    # Rodrigues' formula about up x Z; 1 + z itself would lose its digits near -Z.
    one_plus_z = 1 + z if z > 0 else sine**2 / (1 - z)
    across = np.array([[0, 0, -x], [0, 0, -y], [x, y, 0]])
    return np.asarray(np.eye(3) + across + across @ across / one_plus_z, np.float64)


def _numbers(values: Array) -> str:
    return ", ".join(f"{value:.2f}" for value in values)
