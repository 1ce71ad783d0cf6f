"""What a video and a folder of pictures have in common: numbered frames of one size, decoded on demand."""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from threading import Event
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError

Pixels = Literal["rgb24", "gray", "alpha"]
"""RGB [H, W, 3], grey levels [H, W] or the alpha channel [H, W], all uint8."""

Watch = Callable[[int, NDArray[np.uint8]], None]
"""Called with a frame's number and its small grey picture, see `shrink`."""

SHRINK = 8
"""A small picture has every 8th pixel of every 8th row."""


class FrameSource(Protocol):
    """Frames of one camera, numbered from 0 in the order of time.

    Attributes:
        path: The video, or the folder of pictures.
        files: Everything the frames are read from.
        width: Picture width in pixels.
        height: Picture height in pixels.
        frame_count: Frames that are really there.
        fps: Frame rate in 1/s; 0 where it is not known.
        has_alpha: Whether `alpha` can be asked for.
        keyframes: Frames that are decoded without any other, increasing; the first is 0.
        first_number: What the files call frame 0; position counts, not the name.
    """

    path: Path
    files: list[Path]
    width: int
    height: int
    frame_count: int
    fps: float
    has_alpha: bool
    keyframes: Sequence[int]
    first_number: int

    def frames(
        self,
        indices: Sequence[int],
        pixels: Pixels = "rgb24",
        watch: Watch | None = None,
        stop: Event | None = None,
    ) -> Iterator[tuple[int, NDArray[np.uint8] | None]]:
        """Decode some frames.

        Args:
            indices: Frame numbers, strictly increasing.
            pixels: What is given of them.
            watch: Called for every frame, asked for or not, from the first that is decoded to the last that
                is asked for, in order; frames that cannot be decoded are left out. Nothing is skipped then.
            stop: Once it is set, another thread wants the iteration to end early.

        Yields:
            Frame number and picture, in the order of `indices`. None in place of a picture that is damaged
            although its place in time is known.

        Raises:
            DataError: a number is out of range or order, there is no alpha channel, or frames after some
                damage could not be numbered with certainty.
        """
        ...


def shrink(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A small copy of a picture for watching. [H, W] -> [ceil(H / 8), ceil(W / 8)]"""
    return np.ascontiguousarray(picture[::SHRINK, ::SHRINK])


def check_request(source: FrameSource, indices: Sequence[int], pixels: Pixels) -> None:
    """Refuse frame numbers or pixels that a source cannot give.

    Raises:
        DataError: see `FrameSource.frames`.
    """
    if any(later <= earlier for earlier, later in pairwise(indices)):
        raise DataError(f"{source.path}: frame numbers must be strictly increasing.")
    if len(indices) and not (indices[0] >= 0 and indices[-1] < source.frame_count):
        raise DataError(
            f"{source.path}: frames {indices[0]} to {indices[-1]} were asked for, there are "
            f"{source.frame_count} (0 to {source.frame_count - 1})."
        )
    if pixels == "alpha" and not source.has_alpha:
        raise DataError(
            f"{source.path}: has no alpha channel, expected RGBA pictures because of input.masks=alpha. "
            "Set input.masks to the folder with the masks."
        )
