"""The calibration of a recording: read, put into the videos' order, checked for plausibility, decided upon.

Formats are read by `rig_files`; what R and T mean is decided by `convention`. This module refuses numbers
that cannot belong to these videos, each with what was found, what was expected, and what to do.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..errors import CalibrationError
from ..geometry.cameras import ROTATION_TOLERANCE
from .config import InputConfig
from .convention import (
    MAX_SPREAD_MM,
    MIN_SPREAD_MM,
    Calibration,
    camera_distances,
    decide,
    hypotheses,
    is_plausible,
    spread,
)
from .raw_cameras import Array, RawCamera, Rig, RigFile, numbers, order_by_number
from .rig_files import KINDS, find_rig_files, read_rig_file

logger = logging.getLogger(__name__)

SAME_PLACE_MM = 0.1
"""Cameras nearer to each other are one."""
MAX_OFF_CENTER = 0.25
"""Largest distance of the principal point from the picture's middle, as a share of the picture's side."""
MIN_FOCAL, MAX_FOCAL = 0.2, 50.0
"""Plausible focal lengths, as a multiple of the picture's side."""
MAX_SKEW = 0.05
"""Largest skew of the pixel grid, as a share of fx."""
MAX_ANISOTROPY = 0.02
"""Relative difference of fx and fy that is still a camera's; more is a squeezed picture."""


def read_rig(config: InputConfig, camera_ids: Sequence[int], sizes: Sequence[tuple[int, int]]) -> Rig:
    """Read the recording's calibration.

    Args:
        config: Which file, in which unit, and whether the videos are undistorted.
        camera_ids: Numbers of the videos. V
        sizes: Width and height of the videos. V

    Returns:
        One camera per video, in the videos' order, as stored but in millimetres.

    Raises:
        CalibrationError: the file is missing, malformed, or cannot belong to these videos.
    """
    path = config.recording / config.calibration
    if not path.exists():
        raise CalibrationError(_missing(config, path))
    file = read_rig_file(path, sizes)
    cameras = _in_order(path, file, camera_ids)
    for camera in cameras:
        _check_distortion(f"{path}: camera {camera.name}", camera, config.undistorted)
        _check_rotation(f"{path}: camera {camera.name}", camera)
    rig = Rig(
        path,
        file.kind,
        tuple(replace(camera, t=camera.t * config.unit_mm) for camera in cameras),
        tuple(camera_ids),
        file.fixed_convention,
        file.row_vectors,
        _transposed_K(path, cameras),
    )
    _check_intrinsics(rig, sizes)
    _check_copies(rig)
    spreads = [spread(poses) for poses in hypotheses(rig).values()]
    if not any(map(is_plausible, spreads[:1] if rig.fixed_convention else spreads)):
        raise CalibrationError(_spread_message(rig, spreads[0]))
    return rig


def choose_convention(
    rig: Rig, sizes: Sequence[tuple[int, int]], centroids: Array, frames: Sequence[int]
) -> Calibration:
    """Decide by the masks what R, T and K mean, and build the cameras.

    Args:
        rig: As `read_rig` gives it.
        sizes: Width and height of the videos. V
        centroids: Centroids of the masks in pixels, half-pixel centres; NaN where there is none. [T, V, 2]
        frames: Numbers of these frames; at least 20 where the recording has them. T

    Raises:
        CalibrationError: no convention, or more than one, explains the masks; or the chosen one puts two
            cameras at one place.
    """
    calibration = decide(rig, sizes, centroids, frames)
    R = np.stack([camera.R for camera in calibration.cameras])
    t = np.stack([camera.t for camera in calibration.cameras])
    distances = camera_distances((R, t)) + np.diag(np.full(len(R), np.inf))
    if distances.min() < SAME_PLACE_MM:
        first, second = np.unravel_index(int(distances.argmin()), distances.shape)
        raise CalibrationError(
            f"{rig.path}: cameras {rig.camera_ids[first]} and {rig.camera_ids[second]} stand at the same "
            f"place, {numbers(calibration.cameras[first].center)} mm. Expected one entry per camera; is one "
            "a copy?"
        )
    return calibration


def _missing(config: InputConfig, path: Path) -> str:
    found = find_rig_files(config.recording) if config.recording.is_dir() else []
    if found:
        others = f" (or {', '.join(found[1:])})" if found[1:] else ""
        return (
            f"{path}: cannot be read (no such file). Found {found[0]}{others}; set "
            f"input.calibration={found[0]}."
        )
    return f"{path}: cannot be read (no such file). Expected the calibration: {KINDS}."


def _in_order(path: Path, file: RigFile, camera_ids: Sequence[int]) -> list[RawCamera]:
    """One camera per video, by the number in its name or else by the file's order."""
    names = [camera.name for camera in file.cameras]
    if len(names) != len(camera_ids):
        raise CalibrationError(
            f"{path}: holds {len(names)} cameras, but there are {len(camera_ids)} videos "
            f"({', '.join(map(str, camera_ids))}). Expected one entry per video, in numeric order of the "
            "file names; remove the surplus or export the missing ones."
        )
    order = order_by_number(path, names, camera_ids)
    if order is None and not file.ordered:
        raise CalibrationError(
            f"{path}: has the cameras {', '.join(names)}, expected the videos' numbers "
            f"{', '.join(map(str, camera_ids))} in their names, once each. Rename them."
        )
    return [file.cameras[i] for i in order] if order is not None else list(file.cameras)


def _check_distortion(where: str, camera: RawCamera, undistorted: bool) -> None:
    if not camera.distortion:
        return
    if not undistorted:
        raise CalibrationError(
            f"{where}: has lens distortion ({camera.distortion}), expected none. Undistort the videos and "
            "masks, or set input.undistorted=true if they already are."
        )
    logger.info("%s: distortion ignored (%s): input.undistorted is true.", where, camera.distortion)


def _check_rotation(where: str, camera: RawCamera) -> None:
    R, T = camera.R, camera.t
    with np.errstate(over="ignore", invalid="ignore"):  # Absurd numbers are refused below.
        determinant = float(np.linalg.det(R))
        error = float(np.abs(R @ R.T - np.eye(3)).max())
    if abs(determinant) < 1e-3:
        raise CalibrationError(
            f"{where}: R is singular (determinant {determinant:.3g}), expected a rotation. Export it again."
        )
    if determinant < 0:
        raise CalibrationError(
            f"{where}: R has determinant {determinant:.3f}, expected +1: it mirrors the world. "
            "Export it with a right-handed world and OpenCV camera axes (x right, y down, z forward)."
        )
    if not error <= ROTATION_TOLERANCE:
        raise CalibrationError(
            f"{where}: R is not orthonormal: R R^T differs from the identity by {error:.3g}, expected at "
            f"most {ROTATION_TOLERANCE:g}. Export the calibration again."
        )
    if np.array_equal(R, np.eye(3)) and T[2] != 0 and not T[:2].any():
        raise CalibrationError(
            f"{where}: R is the identity and T is {numbers(T)}: a placeholder for a single view, expected a "
            "calibrated camera. Use the rig's own calibration."
        )


def _transposed_K(path: Path, cameras: Sequence[RawCamera]) -> bool:
    """Whether K is stored transposed, which its zeros show; the same for all cameras."""
    forms = []
    for camera in cameras:
        K = camera.K
        transposed = bool(K[2, :2].any() and not K[:2, 2].any())
        upright = K.T if transposed else K
        if upright[1, 0] or upright[2, :2].any() or abs(upright[2, 2] - 1) > 1e-9:
            rows = "; ".join(numbers(row) for row in K)
            raise CalibrationError(
                f"{path}: camera {camera.name}: K is ({rows}), expected (fx, s, cx; 0, fy, cy; 0, 0, 1) or "
                "its transpose."
            )
        forms.append(transposed)
    if len(set(forms)) > 1:
        first, second = cameras[0], cameras[forms.index(not forms[0])]
        raise CalibrationError(
            f"{path}: the last row of K is {numbers(first.K[2])} in camera {first.name}, but "
            f"{numbers(second.K[2])} in camera {second.name}; expected all K upright or all transposed."
        )
    return forms[0]


def _check_intrinsics(rig: Rig, sizes: Sequence[tuple[int, int]]) -> None:
    _check_resolution(rig, sizes)
    for camera, K, size in zip(rig.cameras, rig.K, sizes, strict=True):
        _check_lens(f"{rig.path}: camera {camera.name}", K, size)
    middles = np.array(sizes) / 2
    off = np.abs(rig.K[:, :2, 2] - middles).max()
    if off <= 0.5 and not rig.fixed_convention:
        logger.warning(
            "%s: every principal point is the picture's exact middle. Was it thrown away? Real lenses are "
            "off by tens of pixels, and every view is shifted by as much.",
            rig.path,
        )


def _check_resolution(rig: Rig, sizes: Sequence[tuple[int, int]]) -> None:
    """Refuse a K that belongs to another resolution: nothing else looks wrong about it."""
    for camera, size in zip(rig.cameras, sizes, strict=True):
        if camera.size is not None and camera.size != size:
            width, height = camera.size
            raise CalibrationError(
                f"{rig.path}: camera {camera.name}: calibrated for {width}x{height}, the video is "
                f"{size[0]}x{size[1]}: K is for another resolution. {_scale_text(size[0] / width)}"
            )
    factors = 2 * rig.K[:, :2, 2] / np.array(sizes)
    if (factors <= 0).any():
        return
    along_x, along_y = np.median(factors, axis=0)
    factor = float(np.sqrt(along_x * along_y))
    if abs(np.log(factor)) > 0.15 and abs(np.log(along_x / along_y)) < 0.15:
        width, height = sizes[0]
        raise CalibrationError(
            f"{rig.path}: camera {rig.cameras[0].name}: the principal point is "
            f"({numbers(rig.K[0, :2, 2])}) for a {width}x{height} video, expected near "
            f"({width / 2:.0f}, {height / 2:.0f}), and so in the other cameras: K is for another "
            f"resolution, about {factor:.2g} times the video's. {_scale_text(1 / factor)}"
        )


def _scale_text(factor: float) -> str:
    return (
        f"Use the videos that it was made for, or scale it: fx, fy times {factor:.2g}, and cx, cy as well "
        "(OpenCV's: (c + 0.5) times that, minus 0.5)."
    )


def _check_lens(where: str, K: Array, size: tuple[int, int]) -> None:
    for focal, principal, side, axis in ((K[0, 0], K[0, 2], size[0], "x"), (K[1, 1], K[1, 2], size[1], "y")):
        if abs(principal - side / 2) > MAX_OFF_CENTER * side:
            guess = f"; it fits a picture about {2 * principal:.0f} pixels long" if principal > 0 else ""
            raise CalibrationError(
                f"{where}: the principal point c{axis} is {principal:.1f} for a {size[0]}x{size[1]} video, "
                f"expected near {side / 2:.0f}{guess}. Is K for another resolution? Scale K to the video."
            )
        if not MIN_FOCAL * side < focal < MAX_FOCAL * side:
            raise CalibrationError(
                f"{where}: the focal length f{axis} is {focal:.1f} px for a video of {size[0]}x{size[1]}, "
                f"expected {MIN_FOCAL * side:.0f} to {MAX_FOCAL * side:.0f}. Is K in pixels, and of this "
                "resolution?"
            )
    if abs(K[0, 1]) > MAX_SKEW * K[0, 0]:
        raise CalibrationError(
            f"{where}: K has a skew of {K[0, 1]:.4g}, expected 0 or nearly. Export it again."
        )
    if abs(K[0, 0] / K[1, 1] - 1) > MAX_ANISOTROPY:
        logger.warning(
            "%s: fx is %.1f and fy is %.1f, %.1f %% apart. Was the picture squeezed after calibration?",
            where,
            K[0, 0],
            K[1, 1],
            100 * abs(K[0, 0] / K[1, 1] - 1),
        )


def _check_copies(rig: Rig) -> None:
    for second, camera in enumerate(rig.cameras):
        for first, other in zip(rig.camera_ids[:second], rig.cameras[:second], strict=True):
            if np.allclose(camera.t, other.t, rtol=1e-6) and np.allclose(camera.R, other.R, atol=1e-6):
                raise CalibrationError(
                    f"{rig.path}: cameras {first} and {rig.camera_ids[second]} stand at the same place and "
                    f"look the same way (T is {numbers(camera.t)} mm for both). Expected one entry per "
                    "camera; is one a copy?"
                )


def _spread_message(rig: Rig, found_mm: float) -> str:
    found = (
        f"{rig.path}: the cameras farthest apart are {found_mm:.4g} mm from each other, expected "
        f"{MIN_SPREAD_MM:.0f} to {MAX_SPREAD_MM:.0f} mm. "
    )
    if rig.kind in UNITLESS:
        return (
            f"{found}The world of a {rig.kind} has no unit of its own: measure a distance between two "
            "cameras and set input.unit_mm to the millimetres in one unit."
        )
    for unit, name in ((1000.0, "metres"), (10.0, "centimetres"), (0.001, "micrometres")):
        if is_plausible(found_mm * unit):
            return f"{found}Is T in {name}? Set input.unit_mm={unit:g}."
    return f"{found}Set input.unit_mm to the millimetres in one unit of T."


UNITLESS = ("COLMAP text model", "transforms.json")
"""Kinds whose world has an arbitrary scale."""
