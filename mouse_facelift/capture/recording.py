"""A multi-camera recording: videos, mask videos and calibration, checked together and streamed in step."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..geometry import Camera
from .calibration import read_calibration
from .config import InputConfig
from .masks import CleanMask, clean_mask
from .video import VideoReader

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".avi")


@dataclass(frozen=True, eq=False)
class TimeStep:
    """What all cameras saw at one moment.

    Attributes:
        index: Frame number in the videos.
        images: RGB pictures; empty where only masks were asked for. V x [H, W, 3]
        masks: The animal in each picture. V
    """

    index: int
    images: tuple[NDArray[np.uint8], ...]
    masks: tuple[CleanMask, ...]


@dataclass(frozen=True, eq=False)
class Recording:
    """An opened recording.

    Attributes:
        config: How it is read.
        camera_ids: Numbers in the file names, increasing; the order of everything else. V
        cameras: Millimetres, half-pixel centres. V
        videos: Colour videos. V
        mask_videos: Mask videos. V
        frame_count: Frames that all streams have.
        fps: Frame rate of the first video in 1/s.
    """

    config: InputConfig
    camera_ids: tuple[int, ...]
    cameras: tuple[Camera, ...]
    videos: tuple[VideoReader, ...]
    mask_videos: tuple[VideoReader, ...]
    frame_count: int
    fps: float

    @property
    def files(self) -> list[Path]:
        """All files that the recording is read from."""
        readers = (*self.videos, *self.mask_videos)
        return [self.config.recording / self.config.calibration, *(reader.path for reader in readers)]

    def frames(self, indices: Sequence[int], images: bool = True) -> Iterator[TimeStep]:
        """Stream time steps; cameras are decoded in parallel, one step ahead of the caller.

        Args:
            indices: Frame numbers, strictly increasing.
            images: Whether to decode the colour videos too.

        Raises:
            DataError: a frame cannot be decoded, or masks are inverted.
        """
        streams = [self._camera_stream(view, indices, images) for view in range(len(self.cameras))]
        with ThreadPoolExecutor(len(streams)) as pool:
            ahead = [pool.submit(next, stream) for stream in streams]
            for index in indices:
                views = [future.result() for future in ahead]
                if index != indices[-1]:
                    ahead = [pool.submit(next, stream) for stream in streams]
                pictures = tuple(picture for picture, _ in views if picture is not None)
                yield TimeStep(index, pictures, tuple(mask for _, mask in views))

    def _camera_stream(self, view: int, indices: Sequence[int], images: bool) -> "Iterator[_Seen]":
        config = self.config
        masks = self.mask_videos[view].frames(indices, "gray")
        pictures = self.videos[view].frames(indices) if images else repeat((-1, None), len(indices))
        for (index, gray), (_, picture) in zip(masks, pictures, strict=True):
            try:
                mask = clean_mask(
                    gray,
                    config.mask_threshold,
                    config.mask_inverted,
                    config.mask_join_distance * gray.shape[1],
                    config.mask_max_hole,
                )
            except DataError as error:
                raise DataError(f"{self.mask_videos[view].path}: frame {index}: {error}") from None
            yield picture, mask


_Seen = tuple[NDArray[np.uint8] | None, CleanMask]


def open_recording(config: InputConfig) -> Recording:
    """Find and check a recording's files. Every stream is read through once to count its frames.

    Raises:
        DataError: files are missing or damaged, or sizes or frame counts differ.
        CalibrationError: the calibration is not one of this rig and these videos.
    """
    folder = config.recording
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder. Set input.recording to a recording.")
    video_files = _numbered_videos(folder / config.videos, "input.videos")
    mask_files = _numbered_videos(folder / config.masks, "input.masks")
    if set(video_files) != set(mask_files):
        raise DataError(
            f"{folder}: videos of cameras {sorted(video_files)}, but masks of cameras {sorted(mask_files)}; "
            "expected one mask video per video, with the same number."
        )
    camera_ids = sorted(video_files)
    with ThreadPoolExecutor(len(camera_ids)) as pool:
        videos = list(pool.map(VideoReader, [video_files[camera] for camera in camera_ids]))
        masks = list(pool.map(VideoReader, [mask_files[camera] for camera in camera_ids]))
    for camera, video, mask in zip(camera_ids, videos, masks, strict=True):
        if (video.width, video.height) != (mask.width, mask.height):
            raise DataError(
                f"camera {camera}: mask video is {mask.width}x{mask.height}, video is "
                f"{video.width}x{video.height} ({mask.path}). Export the masks at the video's size."
            )
    frame_count = _common_frame_count(camera_ids, [*videos, *masks], config.max_frame_count_difference)
    cameras = read_calibration(folder / config.calibration, [(video.width, video.height) for video in videos])
    return Recording(
        config, tuple(camera_ids), tuple(cameras), tuple(videos), tuple(masks), frame_count, videos[0].fps
    )


def _numbered_videos(folder: Path, key: str) -> dict[int, Path]:
    """Camera number -> file; numbers must be consecutive, so that a missing camera is noticed."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder. Set {key} to the sub-folder with the videos.")
    files: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in VIDEO_SUFFIXES and path.stem.isdecimal():
            if int(path.stem) in files:
                raise DataError(
                    f"{folder}: {files[int(path.stem)].name} and {path.name} have the same number."
                )
            files[int(path.stem)] = path
    if len(files) < 2:
        raise DataError(
            f"{folder}: found {len(files)} videos named by a number (0.mp4, 1.mp4, ...), expected at least 2."
        )
    missing = sorted(set(range(min(files), max(files) + 1)) - set(files))
    if missing:
        raise DataError(
            f"{folder}: camera {', '.join(map(str, missing))} is missing; found {sorted(files)}. Add the "
            "video, or take the camera out of the calibration and number the rest without a gap."
        )
    return files


def _common_frame_count(camera_ids: Sequence[int], streams: Sequence[VideoReader], allowed: int) -> int:
    counts = [stream.frame_count for stream in streams]
    shortest, longest = min(counts), max(counts)
    if longest - shortest > allowed:
        short, long = streams[counts.index(shortest)].path, streams[counts.index(longest)].path
        cameras = len(camera_ids)
        listed = ", ".join(
            f"{camera}: {counts[i]} / {counts[i + cameras]}" for i, camera in enumerate(camera_ids)
        )
        raise DataError(
            f"{short} has {shortest} frames, {long} has {longest}; expected a difference of at most "
            f"{allowed} (camera: video / mask frames: {listed}). Export them again, or set "
            f"input.max_frame_count_difference={longest - shortest} to use the common range."
        )
    return shortest
