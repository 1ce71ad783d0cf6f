"""Writes H.264 videos frame by frame, as real recordings come: yuv420p, a keyframe every 30 frames."""

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray


class VideoWriter:
    """Appends pictures to an open video file. Made by `open_video`."""

    def __init__(self, container: Any, stream: Any) -> None:
        self._container = container
        self._stream = stream
        self._count = 0

    def write(self, picture: NDArray[np.uint8]) -> None:
        """Append one RGB picture. [H, W, 3]"""
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame.pts = self._count
        frame.time_base = self._stream.codec_context.time_base
        self._count += 1
        self._container.mux(self._stream.encode(frame))

    def flush(self) -> None:
        """Write what the encoder still holds."""
        self._container.mux(self._stream.encode(None))


@contextmanager
def open_video(path: Path, width: int, height: int, fps: int, crf: int) -> Iterator[VideoWriter]:
    """Open an MP4 file for writing; it is complete when the block ends.

    Args:
        path: Where to.
        width: Even number of pixels.
        height: Even number of pixels.
        fps: Frames per second, constant.
        crf: Quality, 0 lossless to 51 worst.
    """
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = Fraction(1, fps)
        # One thread: cameras already run side by side, and the bytes shall not depend on the machine.
        stream.options = {"crf": str(crf), "preset": "veryfast", "g": "30", "threads": "1"}
        writer = VideoWriter(container, stream)
        yield writer
        writer.flush()
