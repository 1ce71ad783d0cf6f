"""COLMAP's text model as a calibration of a still rig: one image per camera.

Format: https://colmap.github.io/format.html. Poses are world to camera with OpenCV axes; the upper left
corner of the picture is (0, 0), so pixel centres lie at 0.5 already. The world's unit is arbitrary.
"""

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import CalibrationError
from .raw_cameras import RawCamera, RigFile, distortion_text, matrix, picture_size, pinhole

MODELS = {
    "SIMPLE_PINHOLE": ("f", "cx", "cy"),
    "PINHOLE": ("fx", "fy", "cx", "cy"),
    "SIMPLE_RADIAL": ("f", "cx", "cy", "k"),
    "RADIAL": ("f", "cx", "cy", "k1", "k2"),
    "OPENCV": ("fx", "fy", "cx", "cy", "k1", "k2", "p1", "p2"),
    "FULL_OPENCV": ("fx", "fy", "cx", "cy", "k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6"),
}
"""Parameters of each camera model, in COLMAP's order."""


def is_colmap(folder: Path) -> bool:
    """Whether a folder holds a COLMAP text model."""
    return (folder / "cameras.txt").is_file() and (folder / "images.txt").is_file()


def read_colmap(folder: Path) -> RigFile:
    """Read `cameras.txt` and `images.txt`.

    Raises:
        CalibrationError: unreadable, malformed, or a camera model that is not a pinhole with distortion.
    """
    lenses = {}
    for line in _lines(folder / "cameras.txt"):
        if line.strip() and not line.startswith("#"):
            fields = line.split()
            lenses[fields[0]] = fields[1:]
    cameras = tuple(_camera(folder, fields, lenses) for fields in _images(folder / "images.txt"))
    if not cameras:
        raise CalibrationError(f"{folder / 'images.txt'}: lists no image, expected one per camera.")
    return RigFile("COLMAP text model", cameras, fixed_convention=True)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise CalibrationError(
            f"{path}: cannot be read ({error}). Expected a COLMAP text model: cameras.txt and images.txt."
        ) from None


def _images(path: Path) -> list[list[str]]:
    """The fields of each image's first line; its second line lists 2D points and may be empty."""
    images = []
    lines = iter(_lines(path))
    for line in lines:
        if not line.strip() or line.startswith("#"):
            continue
        fields = line.split(maxsplit=9)
        if len(fields) != 10:
            raise CalibrationError(
                f"{path}: found the line '{line[:80]}', expected IMAGE_ID QW QX QY QZ TX TY TZ "
                "CAMERA_ID NAME."
            )
        points = next(lines, "").split()
        if len(points) % 3 or any(not re.fullmatch(r"[-+.\deE]+", point) for point in points[-3:]):
            raise CalibrationError(
                f"{path}: image {fields[9]} is followed by '{' '.join(points)[:60]}', expected a line of its "
                "2D points, which may be empty."
            )
        images.append(fields)
    return images


def _camera(folder: Path, fields: list[str], lenses: dict[str, list[str]]) -> RawCamera:
    where = f"{folder / 'images.txt'}: image {fields[9]}"
    if fields[8] not in lenses:
        raise CalibrationError(
            f"{where}: names camera {fields[8]}, but cameras.txt holds {', '.join(lenses) or 'none'}."
        )
    K, size, distortion = _lens(f"{folder / 'cameras.txt'}: camera {fields[8]}", lenses[fields[8]])
    R = _quaternion_to_rotation(where, matrix(where, "quaternion", fields[1:5], (4,)))
    t = matrix(where, "translation", fields[5:8], (3,))
    name = Path(fields[9]).with_suffix("").as_posix()
    return RawCamera(name, K, R, t, size, first_pixel=0.5, distortion=distortion)


def _lens(where: str, fields: list[str]) -> tuple[NDArray[np.float64], tuple[int, int], str]:
    model = fields[0] if fields else ""
    if model not in MODELS:
        raise CalibrationError(
            f"{where}: has the model '{model}', expected one of {', '.join(MODELS)}. Undistort the videos "
            "with `colmap image_undistorter`, which writes PINHOLE cameras."
        )
    names = MODELS[model]
    if len(fields) != 3 + len(names):
        raise CalibrationError(
            f"{where}: {model} with {len(fields) - 1} numbers, expected WIDTH HEIGHT {' '.join(names)}."
        )
    values = dict(zip(names, matrix(where, "parameters", fields[3:], (len(names),)).tolist(), strict=True))
    focal = (values["f"], values["f"]) if "f" in values else (values["fx"], values["fy"])
    lens = {name: value for name, value in values.items() if name[0] in "kp"}
    return (
        pinhole(where, focal, (values["cx"], values["cy"])),
        picture_size(where, fields[1], fields[2]),
        distortion_text(where, lens),
    )


def _quaternion_to_rotation(where: str, quaternion: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rotation matrix of a quaternion wxyz. [4] -> [3, 3]"""
    length = float(np.linalg.norm(quaternion))
    if abs(length - 1) > 1e-3:
        raise CalibrationError(f"{where}: the quaternion has length {length:.4g}, expected 1.")
    w, x, y, z = quaternion / length
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
