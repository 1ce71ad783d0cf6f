"""2D key points of a recording: `result_view_0.pkl`, ... per camera, read without running any code.

Integer pixel centres become half-pixel centres here, and nowhere else.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .config import InputConfig
from .pickles import load_pickle

MIN_CONFIDENCE = 0.25
"""Key points below it are ignored, as MAMMAL does."""
EXPECTED = "a pickled array of frames x key points x (x, y, confidence)"


def keypoint_files(config: InputConfig, camera_ids: Sequence[int]) -> list[Path]:
    """The file of each camera's key points."""
    folder = config.recording / config.keypoints
    return [folder / f"result_view_{camera}.pkl" for camera in camera_ids]


def read_keypoints(config: InputConfig, camera_ids: Sequence[int], frame_count: int) -> NDArray[np.float64]:
    """Read the key points of all cameras.

    Args:
        config: Where the recording lies, and by how many frames its cameras are offset.
        camera_ids: Numbers in the file names. V
        frame_count: Frames of the recording. T

    Returns:
        Pixel positions, half-pixel centres; NaN where a detector gave none, or trusts it too little.
        [V, T, K, 2]

    Raises:
        DataError: a file is missing, no such array, shorter than the recording, or of other key points than
            the first camera's.
    """
    offsets = config.frame_offsets or [0] * len(camera_ids)
    views: list[NDArray[np.float64]] = []
    for camera, offset, path in zip(camera_ids, offsets, keypoint_files(config, camera_ids), strict=True):
        rows = _read(path)
        if len(rows) < offset + frame_count:
            raise DataError(
                f"{path}: camera {camera}: holds {len(rows)} frames, expected at least "
                f"{offset + frame_count}. Detect key points in all frames, or set geometry.centre=hull."
            )
        if views and rows.shape[1] != views[0].shape[1]:
            raise DataError(
                f"{path}: camera {camera}: holds {rows.shape[1]} key points, the first camera "
                f"{views[0].shape[1]}. Expected the same ones in all views; detect them with one model."
            )
        rows = rows[offset : offset + frame_count]
        trusted = np.isfinite(rows).all(-1, keepdims=True) & (rows[..., 2:] >= MIN_CONFIDENCE)
        views.append(np.where(trusted, rows[..., :2] + 0.5, np.nan))
    return np.stack(views)


def _read(path: Path) -> NDArray[np.float64]:
    """Frames x key points x (x, y, confidence). [T, K, 3]"""
    if not path.is_file():
        raise DataError(
            f"{path}: no such file; expected {EXPECTED}. Set input.keypoints, or geometry.centre=hull."
        )
    content = load_pickle(path, EXPECTED, DataError)
    try:
        rows = np.asarray(content, np.float64)
    except (TypeError, ValueError):
        raise DataError(
            f"{path}: holds a {type(content).__name__} that is no array, expected {EXPECTED}."
        ) from None
    if rows.ndim != 3 or rows.shape[1] == 0 or rows.shape[2] != 3:
        raise DataError(f"{path}: holds an array of shape {rows.shape}, expected {EXPECTED}: [T, K, 3].")
    return rows
