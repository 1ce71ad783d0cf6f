"""Cameras out of step: by how many frames a camera's masks run late against the others, and its own video.

At some moments of the recording the hull of all other cameras is compared with what the camera shows a few
frames earlier and later. One late camera spoils the hulls of all others, so cameras are corrected one by one,
the clearest first, and all are measured again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..capture.masks import CleanMask, Mask
from ..capture.moments import spread_moments
from ..capture.recording import Recording
from ..geometry import Camera
from ..geometry.cameras import Array
from ..geometry.triangulation import triangulate
from ..geometry.visual_hull import mask_iou, silhouette
from ..words import several
from .config import QualityConfig
from .survey import animal_hull

SMALL_WIDTH = 288
"""Pictures are compared at about this width."""
CELLS = 2
"""Cells are this much larger than those of the samples."""
MIN_MOMENTS = 4
"""Nothing is concluded from fewer moments in which the animal moves."""
STANDARD_ERRORS = 3
"""Of the mean over moments, by which one lag must beat another."""
MIN_GAIN = 0.01
"""By which it must beat it at least, in intersection over union or correlation."""
MIN_MOTION = 0.05
"""Within the window the agreement must fall by this, or the animal hardly moves."""
MIN_BACKGROUND = 2
"""Moments at which a pixel must be free of the animal for its background to be known."""
MIN_KNOWN = 0.5
"""Share of the animal's surroundings whose background must be known."""
MIN_CORRELATION = 0.4
"""Correlation of a mask with what differs from the background, below which the picture says nothing."""
MAX_DIFFERENCE = 48.0
"""Grey levels; a picture that differs more from the background differs no more clearly."""


@dataclass(frozen=True)
class CameraLag:
    """How well a camera is in step.

    Attributes:
        camera: Its number.
        lags: Frames; at lag l the camera's frame t + l is compared with the others' frame t.
        hull_iou: Mean overlap of the camera's masks with the hull of the others, per lag; empty where nothing
            could be measured.
        best: The lag of the camera's masks: positive where the camera is late.
        gain: By how much the overlap at `best` is larger than at 0.
        conclusive: False where the animal hardly moves or too few moments are usable; `best` is 0 then.
        mask_lag: The lag of the camera's masks against its own colour video; None where it cannot be told.
        frame_offset: Frames that input.frame_offsets has skipped already.
        colour_match: Correlation of the masks with what differs from the background in the camera's own
            colour video, in the median moment; None where the background is unknown.
    """

    camera: int
    lags: tuple[int, ...]
    hull_iou: tuple[float, ...]
    best: int
    gain: float
    conclusive: bool
    mask_lag: int | None
    frame_offset: int
    colour_match: float | None = None


@dataclass(frozen=True, eq=False)
class _SmallMask:
    """A mask at about SMALL_WIDTH, packed to bits: long windows of many cameras stay small in memory.

    Attributes:
        bits: Eight pixels a byte.
        shape: Height and width.
        centroid: Mean position in small pixels. [2]
    """

    bits: NDArray[np.uint8]
    shape: tuple[int, int]
    centroid: Array

    @classmethod
    def of(cls, mask: CleanMask, step: int) -> "_SmallMask | None":
        """Shrink a mask; None where it is none."""
        if mask.problem or mask.area == 0:
            return None
        left, top, right, bottom = mask.bounds()
        left, top = left - left % step, top - top % step
        height, width = mask.mask.shape[0] // step, mask.mask.shape[1] // step
        small = np.zeros((height, width), bool)
        # Up to the end of the last block that the animal reaches; what lies around it is empty.
        part = mask.mask[top : bottom + -bottom % step, left : right + -right % step].view(np.uint8)
        if min(part.shape) < step:
            return None
        blocks = _shrink(255 * part, step) > 127
        small[top // step :, left // step :][: blocks.shape[0], : blocks.shape[1]] = blocks
        return cls(np.packbits(small), small.shape, np.array(mask.centroid()) / step) if small.any() else None

    @property
    def pixels(self) -> Mask:
        """[h, w]"""
        count = self.shape[0] * self.shape[1]
        return np.unpackbits(self.bits, count=count).view(np.bool_).reshape(self.shape)


_Window = list[list[_SmallMask | None]]
"""All cameras' masks about one moment, from its window's first frame to its last. [2 w + 1][V]"""


def choose_moments(recording: Recording, quality: QualityConfig) -> list[int]:
    """Frames spread over the recording at which lags are measured, with room for the window on both sides."""
    window = quality.sync_window
    last = recording.frame_count - 1 - window
    return spread_moments(recording.keyframes, window, last, quality.sync_moments, window)


def measure_lags(
    recording: Recording, moments: Sequence[int], quality: QualityConfig, cell_mm: float
) -> tuple[CameraLag, ...]:
    """Measure every camera's lag.

    Args:
        recording: The recording.
        moments: Frames, increasing; those nearer to an end than the window are left out.
        quality: The window.
        cell_mm: Side of the samples' cells; larger ones do here.

    Returns:
        One per camera; none where no lag is looked for or no moment is left.
    """
    window = quality.sync_window
    inner = [t for t in moments if window <= t < recording.frame_count - window]
    if window == 0 or not inner:
        return ()
    steps = [max(1, round(camera.width / SMALL_WIDTH)) for camera in recording.cameras]
    cameras = [_small_camera(*item) for item in zip(recording.cameras, steps, strict=True)]
    windows = _read_windows(recording, inner, window, steps)
    shifts, curves = _hull_lags(windows, cameras, CELLS * cell_mm)
    contrast = _colour_curves(recording, inner, windows, steps)
    return tuple(
        _camera_lag(number, curves[:, view], contrast[:, view], shifts[view], recording.offsets[view])
        for view, number in enumerate(recording.camera_ids)
    )


def _camera_lag(camera: int, curves: Array, contrast: Array, shift: int, offset: int) -> CameraLag:
    window = curves.shape[1] // 2
    mask_verdict = _judge(contrast, MIN_CORRELATION)
    measured = curves[np.isfinite(curves).all(1)]
    mean = measured.mean(0) if len(measured) else np.empty(0)
    matches = contrast[:, window + mask_verdict.lag]
    matches = matches[np.isfinite(matches)]
    return CameraLag(
        camera=camera,
        lags=tuple(range(-window, window + 1)),
        hull_iou=tuple(mean.tolist()),
        best=shift,
        gain=float(mean[window + shift] - mean[window]) if len(mean) else 0.0,
        conclusive=shift != 0 or _judge(curves).conclusive,
        mask_lag=mask_verdict.lag if mask_verdict.conclusive else None,
        frame_offset=offset,
        colour_match=float(np.median(matches)) if len(matches) >= MIN_MOMENTS else None,
    )


def check_colours(lags: Sequence[CameraLag], quality: QualityConfig) -> list[str]:
    """A message where masks do not lie on what moves in their own video, though other cameras' masks do.

    Where no camera's do, the animal looks like its surroundings, and nothing can be told.
    """
    limit = quality.colour_match.value
    known = {item.camera: item.colour_match for item in lags if item.colour_match is not None}
    if limit is None or len(known) < 2:
        return []
    usual = float(np.median(sorted(known.values())[len(known) // 2 :]))
    if usual < MIN_CORRELATION:
        return []
    strange = {camera: match for camera, match in known.items() if match < limit * usual}
    if not strange:
        return []
    listed = "; ".join(f"camera {camera}: {match:.2f}" for camera, match in strange.items())
    pair = " and ".join(map(str, strange))
    guess = f"Are the colour videos of cameras {pair} exchanged? " if len(strange) == 2 else ""
    return [
        f"the masks do not lie on what moves in their own colour video (correlation {listed}; {usual:.2f} in "
        f"other cameras, expected at least {limit * usual:.2f}). {guess}Check that a camera's video "
        "and masks belong together, or set quality.colour_match.action=warn to go on."
    ]


def check_lags(lags: Sequence[CameraLag], quality: QualityConfig) -> list[str]:
    """One message for every camera out of step beyond `quality.sync_lag`, with what corrects it."""
    limit = quality.sync_lag.value
    if limit is None:
        return []
    starts = [item.frame_offset + item.best for item in lags]
    offsets = [start - min(starts) for start in starts]
    messages = []
    for item in lags:
        if item.mask_lag is not None and abs(item.mask_lag) > limit:
            messages.append(_mask_message(item))
        elif abs(item.best) > limit:
            messages.append(_late_message(item, offsets))
    return messages


def _late_message(item: CameraLag, offsets: Sequence[int]) -> str:
    found, now = (item.hull_iou[item.lags.index(lag)] for lag in (item.best, 0))
    listed = ",".join(map(str, offsets))
    edge = abs(item.best) == item.lags[-1]
    more = " It may be more: try a larger quality.sync_window." if edge else ""
    return (
        f"camera {item.camera} shows at frame t what the others show at t{-item.best:+d}: its masks overlap "
        f"with the visual hull of the others by {found:.3f} there, by {now:.3f} at t. Set "
        f"input.frame_offsets=[{listed}], or quality.sync_lag.action=warn to go on.{more}"
    )


def _mask_message(item: CameraLag) -> str:
    lag, video = item.mask_lag or 0, item.best - (item.mask_lag or 0)
    return (
        f"camera {item.camera}: its mask at frame t is that of frame t{-lag:+d} of its own video; against "
        f"the other cameras' masks its masks are {_late(item.best)} and its video {_late(video)}. Export its "
        "video and its masks from the same first frame, or set quality.sync_lag.action=warn to go on."
    )


def _late(frames: int) -> str:
    if frames == 0:
        return "in step"
    return f"{several(abs(frames), 'frame')} {'late' if frames > 0 else 'early'}"


@dataclass(frozen=True)
class _Verdict:
    """The best lag, its mean gain over lag 0, and whether the curves tell."""

    lag: int
    gain: float
    conclusive: bool


def _judge(curves: Array, least: float = 0.0) -> _Verdict:
    """Judge one camera's agreement per moment and lag [M, 2 w + 1]; NaN where it was not measured.

    Where the best agreement is below `least`, something else is wrong, and no lag explains it.
    """
    measured = curves[np.isfinite(curves).all(1)]
    ends = (measured[:, 0] + measured[:, -1]) / 2
    moving = measured[measured.max(1) - ends > MIN_MOTION]
    if len(moving) < MIN_MOMENTS or moving.mean(0).max() < least:
        return _Verdict(0, 0.0, False)
    middle = moving.shape[1] // 2
    best = int(moving.mean(0).argmax())
    gain = moving[:, best] - moving[:, middle]
    error = float(gain.std(ddof=1)) / np.sqrt(len(gain))
    if best == middle or gain.mean() > max(MIN_GAIN, STANDARD_ERRORS * error):
        return _Verdict(best - middle, float(gain.mean()), True)
    return _Verdict(0, 0.0, False)


def _hull_lags(
    windows: Sequence[_Window], cameras: Sequence[Camera], cell_mm: float
) -> tuple[list[int], Array]:
    """Every camera's lag [V], and its curves with the others in step [M, V, 2 w + 1]."""
    shifts = [0] * len(cameras)
    while True:
        curves = np.stack([_overlaps(window, cameras, shifts, cell_mm) for window in windows])
        verdicts = [_judge(curves[:, view]) for view in range(len(cameras))]
        late = [view for view, verdict in enumerate(verdicts) if verdict.lag != 0 and shifts[view] == 0]
        if not late:
            return shifts, curves
        clearest = max(late, key=lambda view: verdicts[view].gain)
        shifts[clearest] = verdicts[clearest].lag


def _overlaps(window: _Window, cameras: Sequence[Camera], shifts: Sequence[int], cell_mm: float) -> Array:
    """Overlap of each camera's masks with the hull of the others, shifted into step. [V, 2 w + 1]"""
    curves = np.full((len(cameras), len(window)), np.nan)
    present = [window[len(window) // 2 + shift][view] for view, shift in enumerate(shifts)]
    for view, camera in enumerate(cameras):
        others = [(mask, rig) for mask, rig in zip(present, cameras, strict=True) if rig is not camera]
        masks = [mask for mask, _ in others if mask]
        if len(masks) < max(2, len(others)):
            continue
        rig = [rig for _, rig in others]
        point = triangulate([mask.centroid for mask in masks], rig).point
        drawn = silhouette(animal_hull([mask.pixels for mask in masks], rig, point, cell_mm), camera)
        for lag, row in enumerate(window):
            seen = row[view]
            if seen:
                curves[view, lag] = mask_iou(drawn, seen.pixels)
    return curves


def _colour_curves(
    recording: Recording, moments: Sequence[int], windows: Sequence[_Window], steps: Sequence[int]
) -> Array:
    """Correlation of masks with where the picture differs from the background. [M, V, 2 w + 1]"""
    pictures: list[list[NDArray[np.uint8] | None]] = []
    for step in recording.read_pictures(moments):
        small = [
            image if image is None else _shrink(image, factor)
            for image, factor in zip(step.images, steps, strict=True)
        ]
        pictures.append(
            [image if image is None else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in small]
        )
    curves = np.full((len(moments), len(steps), len(windows[0])), np.nan)
    for view in range(len(steps)):
        masks = [[row[view] for row in window] for window in windows]
        usable = [i for i, row in enumerate(pictures) if row[view] is not None and None not in masks[i]]
        if usable:
            found = _contrast([pictures[i][view] for i in usable], [masks[i] for i in usable])
            curves[usable, view] = found
    return curves


def _contrast(pictures: Sequence[Any], masks: Sequence[Sequence[Any]]) -> Array:
    """One camera's grey pictures [h, w], each with the masks around it, to correlations. [M, 2 w + 1]"""
    windows = np.array([[mask.pixels for mask in window] for window in masks])
    # Wherever the animal is during the window, there is no background to be seen.
    grow = np.ones((3, 3), np.uint8)
    hidden = np.array([cv2.dilate(w.any(0).astype(np.uint8), grow).astype(bool) for w in windows])
    known = (~hidden).sum(0) >= MIN_BACKGROUND
    seen = np.ma.masked_array(np.array(pictures, np.float32), hidden)
    background = np.ma.median(seen, axis=0).filled(0)
    curves = np.full(windows.shape[:2], np.nan)
    for index, picture in enumerate(pictures):
        if known[hidden[index]].mean() < MIN_KNOWN:
            continue
        difference = np.minimum(np.abs(picture - background), MAX_DIFFERENCE)[known]
        curves[index] = [_correlation(difference, mask[known]) for mask in windows[index]]
    return curves


def _correlation(values: Array, mask: Mask) -> float:
    """Pearson's correlation of values [N] with being in a mask [N]."""
    share, spread = float(mask.mean()), float(values.std())
    if spread == 0 or share in (0, 1):
        return 0.0
    above = float(values[mask].mean() - values.mean())
    return above * share / (spread * np.sqrt(share * (1 - share)))


def _read_windows(
    recording: Recording, moments: Sequence[int], window: int, steps: Sequence[int]
) -> list[_Window]:
    """Read all windows, each frame once and in order."""
    spans = [range(moment - window, moment + window + 1) for moment in moments]
    wanted = sorted({frame for span in spans for frame in span})
    rows = {
        step.index: [_SmallMask.of(*item) for item in zip(step.masks, steps, strict=True)]
        for step in recording.read_masks(wanted)
    }
    return [[rows[frame] for frame in span] for span in spans]


def _small_camera(camera: Camera, step: int) -> Camera:
    """The camera of `_shrink`'s pictures."""
    size = camera.width // step, camera.height // step
    return camera.affine(np.eye(2) / step, (0, 0), *size)[0]


def _shrink(picture: NDArray[np.uint8], step: int) -> NDArray[np.uint8]:
    """Means of blocks; what does not fill a block at the right and lower border is left out. [H, W, ...]"""
    height, width = picture.shape[0] // step, picture.shape[1] // step
    whole = picture[: height * step, : width * step]
    return np.asarray(cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA))
