"""A multi-camera recording: pictures, masks and calibration, checked together and streamed in step."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..geometry import Camera
from .calibration import choose_convention, read_rig
from .config import InputConfig
from .convention import Calibration
from .layout import Layout, find_sources
from .masks import CleanMask
from .moments import spread_moments
from .streaming import MaskStep, PictureStep, stream_masks, stream_pictures

EVIDENCE_MOMENTS = 24
"""Moments whose masks decide how the calibration is meant; all frames where there are no more than these."""


@dataclass(frozen=True, eq=False)
class Recording(Layout):
    """An opened recording: its streams, and the cameras that they are seen through.

    Its frame i is frame i + offset of each camera's files.

    Attributes:
        config: How it is read.
        calibration: The cameras, and the evidence for how they are understood.
        fps: Frame rate in 1/s; 0 where neither the config nor the first video says.
    """

    config: InputConfig
    calibration: Calibration
    fps: float

    @property
    def cameras(self) -> tuple[Camera, ...]:
        """Millimetres, half-pixel centres. V"""
        return self.calibration.cameras

    @property
    def files(self) -> list[Path]:
        """All files that the recording is read from, each once."""
        calibration = self.config.recording / self.config.calibration
        inside = sorted(path for path in calibration.rglob("*") if path.is_file())
        sources = dict.fromkeys([*self.pictures, *self.masks])
        return [*(inside or [calibration]), *(path for source in sources for path in source.files)]

    def read_masks(self, indices: Sequence[int], watch: bool = False) -> Iterator[MaskStep]:
        """Stream cleaned masks; memory does not grow with the recording's length.

        Args:
            indices: Frame numbers, strictly increasing.
            watch: Look at all frames between, too, and give their overlaps.

        Raises:
            DataError: numbers out of order or range, or a stream cannot be read on.
        """
        return stream_masks(self.config, self.masks, self.offsets, indices, watch)

    def read_pictures(self, indices: Sequence[int]) -> Iterator[PictureStep]:
        """Stream colour pictures; memory does not grow with the recording's length.

        Args:
            indices: Frame numbers, strictly increasing.

        Raises:
            DataError: numbers out of order or range, or a stream cannot be read on.
        """
        return stream_pictures(self.pictures, self.offsets, indices)


def open_recording(config: InputConfig) -> Recording:
    """Find and check a recording's files, and decide by some of its masks how the calibration is meant.

    Raises:
        DataError: files are missing or damaged, their numbers, sizes or frame counts do not agree, or masks
            are inverted or empty throughout.
        CalibrationError: the calibration is not one of this rig and these videos.
    """
    layout = find_sources(config)
    sizes = [(source.width, source.height) for source in layout.pictures]
    rig = read_rig(config, layout.camera_ids, sizes)
    moments = spread_moments(layout.keyframes, 0, layout.frame_count - 1, EVIDENCE_MOMENTS)
    centroids, problems = [], []
    for step in stream_masks(config, layout.masks, layout.offsets, moments):
        centroids.append([_centroid(mask) for mask in step.masks])
        problems.append([mask.problem for mask in step.masks])
    _check_colours(config, layout, problems)
    _check_presence(config, layout, np.array(centroids))
    calibration = choose_convention(rig, sizes, np.array(centroids), moments)
    return Recording(
        **vars(layout), config=config, calibration=calibration, fps=config.fps or layout.pictures[0].fps
    )


def _centroid(mask: CleanMask) -> tuple[float, float]:
    return mask.centroid() if mask.area and not mask.problem else (np.nan, np.nan)


def _check_colours(config: InputConfig, layout: Layout, problems: Sequence[Sequence[str]]) -> None:
    """Refuse masks that are white along the picture's border in most moments.

    Args:
        config: Whether the masks are said to be inverted.
        layout: Where the masks are.
        problems: What is wrong with each mask, see `CleanMask`. [T, V]
    """
    white = np.array([[text.startswith("mask is white") for text in moment] for moment in problems])
    inverted = np.flatnonzero(white.mean(0) > 0.5)
    if not len(inverted):
        return
    view = int(inverted[0])
    text = next(moment[view] for moment in problems if moment[view].startswith("mask is white"))
    facts = f"{layout.masks[view].path}: {text} in {white[:, view].sum()} of {len(white)} frames"
    others = len(layout.masks) - len(inverted)
    if config.mask_inverted:
        facts += " after input.mask_inverted=true, so these masks are not inverted"
        fix = "Set input.mask_inverted=false."
    else:
        facts += ", expected a white animal on black"
        fix = "Where the masks are inverted, set input.mask_inverted=true."
    if others:
        ids = ", ".join(str(layout.camera_ids[i]) for i in inverted)
        fix = f"Of the cameras, {ids} are so and {others} are not: export all masks alike. {fix}"
    raise DataError(f"{facts}. {fix}")


def _check_presence(config: InputConfig, layout: Layout, centroids: NDArray[np.float64]) -> None:
    """Refuse a camera without any mask: no frame can be used. [T, V, 2]"""
    absent = np.isnan(centroids).any(-1).all(0)
    if not absent.any():
        return
    frames = len(centroids)
    views = [(layout.camera_ids[i], layout.masks[i].path) for i in np.flatnonzero(absent)]
    listed = "; ".join(
        f"camera {camera}: mask is empty ({frames} frames) in {path}" for camera, path in views
    )
    raise DataError(
        f"{config.recording}: none of {frames} frames spread over the recording has a mask in every view: "
        f"{listed}. Expected grey levels above input.mask_threshold={config.mask_threshold} on the animal; "
        "export the masks again, or lower the threshold (to 0 where they are 0 and 1)."
    )
