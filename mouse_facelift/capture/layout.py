"""Which files make up a recording: one video, or folder of PNG frames, per camera, and one of masks."""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError
from .config import InputConfig
from .image_folder import ImageFolder
from .sources import FrameSource
from .video import VideoReader

logger = logging.getLogger(__name__)

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".avi")
MIN_CAMERAS, MAX_CAMERAS = 2, 16
ALPHA = "alpha"
"""Value of input.masks that stands for the alpha channel of the pictures."""


@dataclass(frozen=True, eq=False)
class Layout:
    """The frame sources of a recording.

    Attributes:
        camera_ids: Numbers in the file names, increasing; the order of everything else. V
        pictures: Colour frames. V
        masks: Masks; the same sources as `pictures` where the alpha channel is taken. V
        offsets: Frames skipped at each camera's start. V
        frame_count: Frames that all streams have after that.
        frame_counts: Camera -> frames in its pictures and in its masks.
        notes: What the user should know about the files.
    """

    camera_ids: tuple[int, ...]
    pictures: tuple[FrameSource, ...]
    masks: tuple[FrameSource, ...]
    offsets: tuple[int, ...]
    frame_count: int
    frame_counts: dict[int, tuple[int, int]]
    notes: tuple[str, ...]

    @property
    def keyframes(self) -> list[int]:
        """The recording's frames of which the first camera's masks are decoded without any other."""
        return [key - self.offsets[0] for key in self.masks[0].keyframes]


def find_sources(config: InputConfig) -> Layout:
    """Open a recording's videos and masks and compare them. Every video is read through to count its frames.

    Raises:
        DataError: files are missing or damaged, or numbers, sizes or frame counts do not agree.
    """
    folder = config.recording
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder. Set input.recording to a recording.")
    picture_paths = _numbered_paths(folder / config.videos, "input.videos")
    camera_ids = tuple(sorted(picture_paths))
    mask_paths: dict[int, Path] = {}
    if config.masks != ALPHA:
        mask_paths = _numbered_paths(folder / config.masks, "input.masks")
        if set(picture_paths) != set(mask_paths):
            raise DataError(
                f"{folder}: videos of cameras {sorted(picture_paths)}, but masks of cameras "
                f"{sorted(mask_paths)}; expected one mask video per video, with the same number."
            )
    paths = [files[camera] for files in (picture_paths, mask_paths) for camera in camera_ids if files]
    with ThreadPoolExecutor(len(camera_ids)) as pool:
        sources = list(pool.map(_open, paths))
    pictures = tuple(sources[: len(camera_ids)])
    masks = tuple(sources[len(camera_ids) :]) or pictures
    _check_sizes(camera_ids, pictures, masks)
    offsets = _offsets(config, camera_ids)
    frame_count, notes = _common_frames(config, camera_ids, pictures, masks, offsets)
    notes += _first_numbers(sources)
    counts = {
        camera: (picture.frame_count, mask.frame_count)
        for camera, picture, mask in zip(camera_ids, pictures, masks, strict=True)
    }
    for note in notes:
        logger.warning("%s", note)
    return Layout(camera_ids, pictures, masks, offsets, frame_count, counts, tuple(notes))


def _open(path: Path) -> FrameSource:
    if path.is_dir():
        return ImageFolder(path)
    return VideoReader(path)


def _numbered_paths(folder: Path, key: str) -> dict[int, Path]:
    """Camera number -> video or folder; numbers must be consecutive, so that a missing camera is noticed."""
    if not folder.is_dir():
        raise DataError(
            f"{folder}: no such folder. Set {key} to the sub-folder with the videos, or with a folder of PNG "
            "frames per camera."
        )
    paths: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        name = path.name if path.is_dir() else path.stem
        if not name.isdecimal() or not (path.is_dir() or path.suffix.lower() in VIDEO_SUFFIXES):
            continue
        if int(name) in paths:
            raise DataError(f"{folder}: {paths[int(name)].name} and {path.name} have the same number.")
        paths[int(name)] = path
    if not MIN_CAMERAS <= len(paths) <= MAX_CAMERAS:
        raise DataError(
            f"{folder}: found {len(paths)} videos, or folders of frames, named by a number (0.mp4, 1.mp4, "
            f"...), expected {MIN_CAMERAS} to {MAX_CAMERAS}."
        )
    missing = sorted(set(range(min(paths), max(paths) + 1)) - set(paths))
    if missing:
        raise DataError(
            f"{folder}: camera {', '.join(map(str, missing))} is missing; found {sorted(paths)}. Add the "
            "video, or take the camera out of the calibration and number the rest without a gap."
        )
    return paths


def _check_sizes(
    camera_ids: Sequence[int], pictures: Sequence[FrameSource], masks: Sequence[FrameSource]
) -> None:
    for camera, picture, mask in zip(camera_ids, pictures, masks, strict=True):
        if (picture.width, picture.height) != (mask.width, mask.height):
            raise DataError(
                f"camera {camera}: mask video is {mask.width}x{mask.height}, video is "
                f"{picture.width}x{picture.height} ({mask.path}). Export the masks at the video's size."
            )
        if masks is pictures and not mask.has_alpha:
            raise DataError(
                f"{mask.path}: has no alpha channel, expected RGBA frames because of input.masks=alpha. Set "
                "input.masks to the sub-folder with the masks."
            )


def _offsets(config: InputConfig, camera_ids: Sequence[int]) -> tuple[int, ...]:
    offsets = config.frame_offsets or [0] * len(camera_ids)
    if len(offsets) != len(camera_ids):
        raise DataError(
            f"input.frame_offsets holds {len(offsets)} numbers, expected one for each of the "
            f"{len(camera_ids)} cameras {list(camera_ids)}."
        )
    return tuple(offsets)


def _common_frames(
    config: InputConfig,
    camera_ids: Sequence[int],
    pictures: Sequence[FrameSource],
    masks: Sequence[FrameSource],
    offsets: Sequence[int],
) -> tuple[int, list[str]]:
    """Frames that all streams have after their offsets, and a note where some have more."""
    streams, allowed = [*pictures, *masks], config.max_frame_count_difference
    counts = [source.frame_count - skip for source, skip in zip(streams, [*offsets] * 2, strict=True)]
    shortest, longest = min(counts), max(counts)
    if shortest <= 0:
        which = counts.index(shortest)
        raise DataError(
            f"{streams[which].path} has {streams[which].frame_count} frames, but input.frame_offsets skips "
            f"{[*offsets, *offsets][which]}. Skip fewer."
        )
    if shortest == longest:
        return shortest, []
    short, long = streams[counts.index(shortest)].path, streams[counts.index(longest)].path
    views = len(camera_ids)
    listed = ", ".join(f"{camera}: {counts[i]} / {counts[i + views]}" for i, camera in enumerate(camera_ids))
    after = " after input.frame_offsets" if any(offsets) else ""
    facts = f"{short} has {shortest} frames, {long} has {longest}{after}"
    raw = [source.frame_count for source in streams]
    # Offsets make equal files unequal, and unequal ones equal: either is a recording that was thought about.
    if min(longest - shortest, max(raw) - min(raw)) > allowed:
        raise DataError(
            f"{facts}; expected a difference of at most {allowed} (camera: video / mask frames: {listed}). "
            f"Export them again, or set input.max_frame_count_difference={longest - shortest} to use the "
            "common range."
        )
    return shortest, [
        f"{facts} (camera: video / mask frames: {listed}): the first {shortest} are used. Streams that end "
        "at different moments may also be out of step."
    ]


def _first_numbers(sources: Sequence[FrameSource]) -> list[str]:
    """A note where frames are not numbered from 0."""
    firsts = sorted({source.first_number for source in sources})
    if firsts == [0]:
        return []
    example = next(source for source in sources if source.first_number == firsts[-1])
    return [
        f"the files' frame numbers start at {' and '.join(map(str, firsts))}; position counts: "
        f"{example.files[0]} is frame 0."
    ]
