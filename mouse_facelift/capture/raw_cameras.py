"""Cameras as a calibration file states them: checked for shape and finiteness, not yet interpreted."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import CalibrationError

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class RawCamera:
    """One camera as stored in a file.

    Attributes:
        name: What the file calls it.
        K: Intrinsics in pixels, as stored, perhaps transposed. [3, 3]
        R: Rotation, as stored. [3, 3]
        t: Translation or camera centre, as stored; millimetres once `read_rig` has applied the unit. [3]
        size: Width and height of the pictures that it was calibrated for, where the file says so.
        first_pixel: Where the first pixel's centre lies: 0 (OpenCV), 0.5 (half-pixel) or 1 (MATLAB).
        distortion: The lens distortion in words; empty where there is none.
    """

    name: str
    K: Array
    R: Array
    t: Array
    size: tuple[int, int] | None = None
    first_pixel: float = 0.0
    distortion: str = ""


@dataclass(frozen=True, eq=False)
class RigFile:
    """What a calibration file holds.

    Attributes:
        kind: The format's name.
        cameras: In the file's order.
        fixed_convention: Whether the format defines what R, T and K mean; else the masks decide.
        row_vectors: Whether the format is documented to store R and K transposed.
        ordered: Whether the file's order is that of the videos where the names do not tell.
    """

    kind: str
    cameras: tuple[RawCamera, ...]
    fixed_convention: bool
    row_vectors: bool = False
    ordered: bool = False


@dataclass(frozen=True, eq=False)
class Rig:
    """The cameras of a recording, each one checked, their convention not yet decided.

    Attributes:
        path: The calibration's file or folder.
        kind: The format's name.
        cameras: In the videos' order; t in millimetres. V
        camera_ids: The videos' numbers. V
        fixed_convention: Whether the format defines what R and T mean; else the masks decide.
        row_vectors: Whether the format is documented to store R and K transposed.
        transposed_K: Whether K is stored transposed, as its zeros show.
    """

    path: Path
    kind: str
    cameras: tuple[RawCamera, ...]
    camera_ids: tuple[int, ...]
    fixed_convention: bool
    row_vectors: bool
    transposed_K: bool

    @property
    def K(self) -> Array:
        """Intrinsics in column form, half-pixel centres: the one place where they are shifted. [V, 3, 3]"""
        K = np.stack([camera.K.T if self.transposed_K else camera.K for camera in self.cameras])
        K[:, :2, 2] += 0.5 - np.array([[camera.first_pixel] for camera in self.cameras])
        return K

    @property
    def R(self) -> Array:
        """Rotations as stored. [V, 3, 3]"""
        return np.stack([camera.R for camera in self.cameras])

    @property
    def t(self) -> Array:
        """Translations or centres as stored, mm. [V, 3]"""
        return np.stack([camera.t for camera in self.cameras])


def matrix(where: str, name: str, value: Any, shape: tuple[int, ...]) -> Array:
    """Turn untrusted numbers into an array of finite numbers; vectors may lie or stand.

    Raises:
        CalibrationError: not numeric, another shape, NaN or infinity.
    """
    try:
        array = np.array(value, np.float64)
    except (TypeError, ValueError, OverflowError):
        raise CalibrationError(f"{where}: {name} is not numeric: {value!r:.80}.") from None
    if len(shape) == 1 and array.ndim == 2 and 1 in array.shape and array.size == shape[0]:
        array = array.reshape(shape)
    if array.shape != shape:
        raise CalibrationError(f"{where}: {name} has shape {array.shape}, expected {shape}.")
    if not np.isfinite(array).all():
        raise CalibrationError(
            f"{where}: {name} holds NaN or infinity ({numbers(array)}), expected finite numbers. "
            "Calibrate this camera again."
        )
    return array


def pinhole(
    where: str,
    focal: Sequence[Any],
    principal: Sequence[Any],
    names: Sequence[str] = ("fx", "fy", "cx", "cy"),
) -> Array:
    """K from two focal lengths and the principal point. [3, 3]"""
    fx, fy, cx, cy = (
        float(matrix(where, name, value, ())) for name, value in zip(names, (*focal, *principal), strict=True)
    )
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])


def picture_size(where: str, width: Any, height: Any) -> tuple[int, int]:
    """Width and height as whole numbers."""
    size = matrix(where, "picture size", (width, height), (2,))
    if (size < 1).any() or (size != np.round(size)).any():
        raise CalibrationError(f"{where}: picture size is {width!r} x {height!r}, expected whole pixels.")
    return int(size[0]), int(size[1])


def distortion_text(where: str, coefficients: Mapping[str, Any], lens: str = "") -> str:
    """The coefficients that are not zero, in words, empty for a pinhole.

    Args:
        where: File and camera, for the message.
        coefficients: Name -> number or flat list of numbers.
        lens: A projection that is no pinhole even with all coefficients at zero, such as fisheye.
    """
    parts = [lens] if lens else []
    for name, value in coefficients.items():
        values = np.ravel(np.asarray(value, dtype=object))
        if matrix(where, f"distortion {name}", list(values), values.shape).any():
            parts.append(f"{name} = {numbers(values.astype(np.float64))}")
    return ", ".join(parts)


def require(where: str, entry: Any, keys: Sequence[str]) -> Mapping[str, Any]:
    """The entry, if it is a mapping with these keys.

    Raises:
        CalibrationError: another type, or keys are missing.
    """
    if not isinstance(entry, Mapping):
        raise CalibrationError(
            f"{where}: is a {type(entry).__name__}, expected an entry with {', '.join(keys)}."
        )
    if not set(keys) <= set(entry):
        raise CalibrationError(
            f"{where}: holds {', '.join(sorted(map(str, entry))) or 'nothing'}, expected {', '.join(keys)}."
        )
    return entry


def order_by_number(path: Path, names: Sequence[str], camera_ids: Sequence[int]) -> list[int] | None:
    """Find each video's camera by a number in the cameras' names.

    The number may stand anywhere in the name, but at the same place in all; a constant difference (cameras
    1 to 6, videos 0 to 5) is fine where no place fits exactly.

    Returns:
        For every video the position of its camera, or None where no place in the names fits.

    Raises:
        CalibrationError: several places fit and disagree.
    """
    runs = [[int(digits) for digits in re.findall(r"\d{1,9}", name)] for name in names]
    places = range(-min(map(len, runs), default=0), min(map(len, runs), default=0))
    columns = {tuple(run[place] for run in runs) for place in places}
    wanted = sorted(camera_ids)
    for allow_shift in (False, True):
        orders = set()
        for column in columns:
            shift = min(column) - wanted[0] if allow_shift else 0
            if sorted(column) == [number + shift for number in wanted]:
                orders.add(tuple(column.index(camera + shift) for camera in camera_ids))
        if len(orders) > 1:
            raise CalibrationError(
                f"{path}: the names {', '.join(names[:4])}, ... hold several numbers that could be the "
                f"videos' ({', '.join(map(str, camera_ids))}). Name each camera by its video's number alone."
            )
        if orders:
            return list(orders.pop())
    return None


def numbers(values: NDArray[Any]) -> str:
    """Numbers as they are shown in messages."""
    return ", ".join(f"{value:.4g}" for value in np.ravel(values))
