"""Camera calibrations (`new_cam.pkl`: R, T, K per camera) read without running any code, and checked.

Integer pixel centres (OpenCV) become half-pixel centres here, and nowhere else.
"""

import io
import logging
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import CalibrationError
from ..geometry import Camera

logger = logging.getLogger(__name__)

MIN_SPREAD_MM, MAX_SPREAD_MM = 100.0, 10_000.0
"""Plausible distance between the two cameras farthest apart."""
MAX_OFF_CENTER = 0.25
"""Largest distance of the principal point from the picture's middle, as a share of the picture's side."""


def read_calibration(path: Path, sizes: Sequence[tuple[int, int]]) -> list[Camera]:
    """Read the cameras of a rig.

    Args:
        path: A pickle of a list, or of a dict with integer keys, of `{R, T, K}` in millimetres,
            `x_cam = R X + T`, with integer pixel centres.
        sizes: Width and height of each camera's video, in order.

    Returns:
        One camera per video: world in millimetres, half-pixel centres.

    Raises:
        CalibrationError: the file is not such a pickle, or the cameras are not those of this recording.
    """
    entries = _entries(path, load_pickle(path))
    if len(entries) != len(sizes):
        raise CalibrationError(
            f"{path}: holds {len(entries)} cameras, but there are {len(sizes)} videos. Expected one entry "
            "per video, in numeric order of the file names; remove the surplus or export the missing ones."
        )
    cameras = [_camera(f"{path}: camera {i}", entry, sizes[i]) for i, entry in enumerate(entries)]
    _check_rig(path, cameras)
    return cameras


def load_pickle(path: Path) -> Any:
    """Load a pickle of NumPy arrays and plain containers; anything else is refused before it can run.

    Raises:
        CalibrationError: unreadable, not a pickle, or it names anything but an array.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CalibrationError(
            f"{path}: cannot be read ({error.strerror}). Expected the calibration."
        ) from None
    try:
        return _ArrayUnpickler(path, content).load()
    except CalibrationError:
        raise
    except (
        pickle.UnpicklingError,
        ArithmeticError,
        AssertionError,
        AttributeError,
        EOFError,
        ImportError,
        LookupError,
        MemoryError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        raise CalibrationError(
            f"{path}: is not a readable pickle ({type(error).__name__}: {error}). Expected a pickled list of "
            "{R, T, K}, one per camera; export the calibration again."
        ) from None


class _ArrayUnpickler(pickle.Unpickler):
    """Knows four names, all of them NumPy's own for arrays."""

    def __init__(self, path: Path, content: bytes) -> None:
        super().__init__(io.BytesIO(content), encoding="latin1")
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        known = _ARRAY_GLOBALS.get((module.replace("numpy._core", "numpy.core"), name))
        if known is None:
            raise CalibrationError(
                f"{self._path}: names '{module}.{name}', which could run code; only NumPy arrays in lists "
                "and dicts are read. Nothing was run. Do not trust this file; export the calibration again."
            )
        return known


def _reconstruct(subtype: Any, shape: Any, dtype: Any) -> NDArray[Any]:
    """An empty array, filled later by its `__setstate__`; the arguments in the pickle are not trusted."""
    return np.ndarray((0,), np.int8)


def _frombuffer(buffer: Any, dtype: Any, shape: Any, order: Any) -> NDArray[Any]:
    return np.frombuffer(buffer, dtype).reshape(shape, order=order)


def _scalar(dtype: Any, content: Any) -> Any:
    return np.frombuffer(content, dtype)[0]


def _encode(text: str, encoding: str) -> bytes:
    """How protocol 2 spells bytes."""
    if encoding != "latin1":
        raise ValueError(f"encoding {encoding!r}")
    return text.encode("latin1")


_ARRAY_GLOBALS = {
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _frombuffer,
    ("_codecs", "encode"): _encode,
}


def _entries(path: Path, content: Any) -> list[Mapping[str, Any]]:
    """The cameras in order, whatever container holds them."""
    if isinstance(content, Mapping):
        try:
            content = [content[key] for key in sorted(content, key=int)]
        except (TypeError, ValueError):
            raise CalibrationError(
                f"{path}: is a dict with keys {sorted(map(str, content))[:6]}, expected camera numbers 0, 1, "
                "and so on."
            ) from None
    if not isinstance(content, (list, tuple)):
        raise CalibrationError(
            f"{path}: holds a {type(content).__name__}, expected a list or dict of cameras with R, T, K."
        )
    for index, entry in enumerate(content):
        if not isinstance(entry, Mapping) or not {"R", "T", "K"} <= set(entry):
            found = sorted(map(str, entry)) if isinstance(entry, Mapping) else type(entry).__name__
            raise CalibrationError(f"{path}: camera {index} holds {found}, expected a dict with R, T, K.")
    return list(content)


def _camera(where: str, entry: Mapping[str, Any], size: tuple[int, int]) -> Camera:
    K = _matrix(where, "K", entry["K"], (3, 3))
    R = _matrix(where, "R", entry["R"], (3, 3))
    T = _matrix(where, "T", entry["T"], (3,))
    if np.any(K[2, :2] != 0) and not np.any(K[:2, 2] != 0):
        raise CalibrationError(
            f"{where}: K is transposed: its last row is {_numbers(K[2])}, expected 0, 0, 1. "
            "Store K in column form (MAMMAL's loader transposes K and R after reading; undo that)."
        )
    determinant = float(np.linalg.det(R))
    if abs(determinant) < 1e-3:
        raise CalibrationError(
            f"{where}: R is singular (determinant {determinant:.3g}), expected a rotation. Export it again."
        )
    if determinant < 0:
        raise CalibrationError(
            f"{where}: R has determinant {determinant:.3f}, expected +1: it mirrors the world. "
            "Export it with a right-handed world and OpenCV camera axes (x right, y down, z forward)."
        )
    if np.array_equal(R, np.eye(3)):
        raise CalibrationError(
            f"{where}: R is the identity, T is {_numbers(T)}: a placeholder or a world tied to this camera, "
            "expected a calibrated rig with Z up. Use the rig's own calibration."
        )
    _check_intrinsics(where, K, size)
    K[:2, 2] += 0.5  # OpenCV puts the first pixel's centre at 0; ours is at 0.5.
    try:
        return Camera.from_rt(K, R, T, *size)
    except CalibrationError as error:
        raise CalibrationError(f"{where}: {error} Export the calibration again.") from None


def _matrix(where: str, name: str, value: Any, shape: tuple[int, ...]) -> NDArray[np.float64]:
    try:
        array = np.array(value, np.float64)
    except (TypeError, ValueError):
        raise CalibrationError(f"{where}: {name} is not numeric: {value!r:.80}.") from None
    if shape == (3,) and array.shape in ((3, 1), (1, 3)):
        array = array.reshape(3)
    if array.shape != shape:
        raise CalibrationError(f"{where}: {name} has shape {array.shape}, expected {shape}.")
    if not np.isfinite(array).all():
        raise CalibrationError(
            f"{where}: {name} holds NaN or infinity ({_numbers(array.ravel())}), expected finite numbers. "
            "Calibrate this camera again."
        )
    return array


def _check_intrinsics(where: str, K: NDArray[np.float64], size: tuple[int, int]) -> None:
    """Refuse a K that belongs to another resolution: nothing else looks wrong about it."""
    for focal, principal, side, axis in ((K[0, 0], K[0, 2], size[0], "x"), (K[1, 1], K[1, 2], size[1], "y")):
        if abs(principal - (side - 1) / 2) > MAX_OFF_CENTER * side:
            guess = f"; it fits a picture about {2 * principal + 1:.0f} pixels long" if principal > 0 else ""
            raise CalibrationError(
                f"{where}: the principal point c{axis} is {principal:.1f} for a {size[0]}x{size[1]} video, "
                f"expected near {side / 2:.0f}{guess}. Is K for another resolution? Scale K to the video."
            )
        if not 0.2 * side < focal < 50 * side:
            raise CalibrationError(
                f"{where}: the focal length f{axis} is {focal:.1f} px for a video of {size[0]}x{size[1]}, "
                f"expected {0.2 * side:.0f} to {50 * side}. Is K in pixels, and of this resolution?"
            )


def _check_rig(path: Path, cameras: Sequence[Camera]) -> None:
    centers = np.stack([camera.center for camera in cameras])
    distances = np.linalg.norm(centers[:, None] - centers[None], axis=-1)
    spread = float(distances.max())
    if not MIN_SPREAD_MM <= spread <= MAX_SPREAD_MM:
        hint = "Is T in metres? Multiply it by 1000." if spread < MIN_SPREAD_MM else "Is T in micrometres?"
        raise CalibrationError(
            f"{path}: the cameras farthest apart are {spread:.4g} mm from each other, expected "
            f"{MIN_SPREAD_MM:.0f} to {MAX_SPREAD_MM:.0f} mm. {hint}"
        )
    np.fill_diagonal(distances, np.inf)
    if distances.min() < 1e-3 * spread:
        first, second = np.unravel_index(int(distances.argmin()), distances.shape)
        raise CalibrationError(
            f"{path}: cameras {first} and {second} stand at the same place, {_numbers(centers[first])} mm. "
            "Expected one entry per camera; is one a copy?"
        )
    up = np.mean([-camera.R[1] for camera in cameras], axis=0)
    if up[2] < 0.5 * np.linalg.norm(up) and np.linalg.norm(up) > 0.5:
        logger.warning(
            "%s: the cameras' mean up direction is (%s), expected near (0, 0, 1). Is Z up in this world?",
            path,
            _numbers(up),
        )


def _numbers(values: NDArray[np.float64]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)
