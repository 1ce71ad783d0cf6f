"""H.264 videos (yuv420p, BT.709, index in front) that every player opens, written one frame at a time."""

import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import OutputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray

from .errors import DataError, DependencyError
from .files import atomic_path

BT709 = 1
"""FFmpeg's number of ITU-R BT.709 for matrix, primaries and transfer."""

LIMITED_RANGE = 1
"""FFmpeg's number of 16..235 luma."""


class VideoWriter:
    """Appends frames to an open video. Made by `open_video`."""

    def __init__(self, path: Path, container: OutputContainer, stream: VideoStream) -> None:
        self._path, self._container, self._stream = path, container, stream
        self._count = 0

    def write(self, frame: NDArray[np.uint8]) -> None:
        """Append one RGB frame. [H, W, 3]

        Raises:
            DataError: not uint8 RGB of the video's size.
        """
        expected = (self._stream.height, self._stream.width, 3)
        if frame.dtype != np.uint8 or frame.shape != expected:
            raise DataError(
                f"{self._path}: frame {self._count} is {frame.dtype} of shape {frame.shape}, "
                f"expected uint8 of shape {expected}."
            )
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        picture = picture.reformat(format="yuv420p", dst_colorspace="ITU709")
        picture.pts, picture.time_base = self._count, self._stream.codec_context.time_base
        self._count += 1
        self._container.mux(self._stream.encode(picture))

    def close(self) -> None:
        """Write what the encoder still holds."""
        self._container.mux(self._stream.encode())


@contextmanager
def open_video(
    path: Path, width: int, height: int, fps: float, crf: int = 16, keyframe_every: int = 30
) -> Iterator[VideoWriter]:
    """Open an MP4 for writing; it appears under its name when the block ends well.

    Args:
        path: Ends in .mp4.
        width: Even number of pixels.
        height: Even number of pixels.
        fps: Frames per second, constant.
        crf: Quality, 0 lossless to 51 worst.
        keyframe_every: Longest distance between keyframes.

    Raises:
        DataError: an odd size.
        DependencyError: this PyAV cannot encode H.264.
    """
    if width % 2 or height % 2:
        raise DataError(f"{path}: {width}x{height} pixels; H.264 with yuv420p needs even numbers.")
    rate = Fraction(fps).limit_denominator(1001)
    with (
        atomic_path(path) as temporary,
        av.open(str(temporary), "w", format="mp4", options={"movflags": "+faststart"}) as container,
    ):
        try:
            stream = container.add_stream("libx264", rate=rate)
        except (ValueError, av.FFmpegError) as error:
            raise DependencyError(
                f"{path}: this PyAV cannot encode H.264 ({error}). Install the `av` wheel from PyPI."
            ) from None
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        context = stream.codec_context
        context.time_base = 1 / rate
        context.colorspace = context.color_primaries = context.color_trc = BT709
        context.color_range = LIMITED_RANGE
        # One thread, because callers write videos side by side. Without B-frames encoding takes half the time
        # for an eighth more bytes, which are the same in every run; with them those of small pictures differ.
        stream.options = {
            "crf": str(crf),
            "preset": "veryfast",
            "g": str(keyframe_every),
            "bf": "0",
            "threads": "1",
        }
        writer = VideoWriter(path, container, stream)
        yield writer
        writer.close()


def write_video(path: Path, frames: Iterable[NDArray[np.uint8]], fps: float = 30.0) -> None:
    """Write frames [H, W, 3], RGB, all of one even size, consumed one at a time. See `open_video`.

    Raises:
        DataError: no frames, or frames of odd or different sizes, or not RGB uint8.
    """
    remaining = iter(frames)
    first = next(remaining, None)
    if first is None:
        raise DataError(f"{path}: no frames to write.")
    with open_video(path, first.shape[1], first.shape[0], fps) as video:
        for frame in itertools.chain([first], remaining):
            video.write(frame)
