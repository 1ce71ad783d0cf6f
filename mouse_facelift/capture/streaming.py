"""Frames of all cameras in step: each camera is decoded in its own thread, one step ahead of the caller."""

from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from threading import Event
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from .config import InputConfig
from .masks import CleanMask, Mask, clean_mask
from .sources import FrameSource, Pixels

Item = TypeVar("Item")

WATCHERS = 3
"""A recording jumps in all views at once, so a few show it; the others skip what is not asked for."""


@dataclass(frozen=True, eq=False)
class MaskStep:
    """The masks of one moment.

    Attributes:
        index: Frame number in the recording.
        masks: The animal in each picture; one that cannot be decoded is empty and has a `problem`. V
        overlaps: Frame -> intersection over union of its coarse mask with that of the frame before, in the
            median of the watched views, for all frames since the step before; see `jumps.find_jumps`.
    """

    index: int
    masks: tuple[CleanMask, ...]
    overlaps: dict[int, float]


@dataclass(frozen=True, eq=False)
class PictureStep:
    """The pictures of one moment.

    Attributes:
        index: Frame number in the recording.
        images: RGB; None where a picture cannot be decoded. V x [H, W, 3]
    """

    index: int
    images: tuple[NDArray[np.uint8] | None, ...]


def stream_masks(
    config: InputConfig,
    sources: Sequence[FrameSource],
    offsets: Sequence[int],
    indices: Sequence[int],
    watch: bool = False,
) -> Iterator[MaskStep]:
    """Read and clean masks.

    Args:
        config: How masks are read.
        sources: Where they are. V
        offsets: Frames skipped at each source's start. V
        indices: Frame numbers in the recording, strictly increasing.
        watch: Look at all frames between, too, in up to `WATCHERS` of the views.

    Raises:
        DataError: numbers out of order or range, or a stream cannot be read on.
    """
    stop = Event()
    watchers = {len(sources) * number // WATCHERS for number in range(WATCHERS)} if watch else set()
    streams = [
        _masks_of(config, source, offset, indices, view in watchers, stop)
        for view, (source, offset) in enumerate(zip(sources, offsets, strict=True))
    ]
    with closing(_in_step(streams, stop)) as steps:
        for index, views in zip(indices, steps, strict=True):
            overlaps = [overlap for _, overlap in views]
            median = {
                frame: float(np.median([overlap[frame] for overlap in overlaps if frame in overlap]))
                for frame in sorted(set().union(*overlaps))
            }
            yield MaskStep(index, tuple(mask for mask, _ in views), median)


def stream_pictures(
    sources: Sequence[FrameSource], offsets: Sequence[int], indices: Sequence[int]
) -> Iterator[PictureStep]:
    """Read colour pictures; arguments and errors as in `stream_masks`."""
    stop = Event()
    streams = [
        source.frames([index + offset for index in indices], "rgb24", None, stop)
        for source, offset in zip(sources, offsets, strict=True)
    ]
    with closing(_in_step(streams, stop)) as steps:
        for index, views in zip(indices, steps, strict=True):
            yield PictureStep(index, tuple(picture for _, picture in views))


def _masks_of(
    config: InputConfig,
    source: FrameSource,
    offset: int,
    indices: Sequence[int],
    watch: bool,
    stop: Event,
) -> Iterator[tuple[CleanMask, dict[int, float]]]:
    pixels: Pixels = "alpha" if config.masks == "alpha" else "gray"
    overlaps = _Overlaps(config, offset) if watch else None
    for _, gray in source.frames([index + offset for index in indices], pixels, overlaps, stop):
        if gray is None:
            mask = CleanMask.missing(source.width, source.height)
        else:
            mask = clean_mask(
                gray,
                config.mask_threshold,
                config.mask_inverted,
                config.mask_join_distance * source.width,
                config.mask_max_hole,
            )
        yield mask, overlaps.take() if overlaps is not None else {}


class _Overlaps:
    """Compares the coarse masks of neighbouring frames of one camera; a `sources.Watch`."""

    def __init__(self, config: InputConfig, offset: int) -> None:
        self._config, self._offset = config, offset
        self._found: dict[int, float] = {}
        self._before: tuple[int, Mask] | None = None

    def __call__(self, index: int, small: NDArray[np.uint8]) -> None:
        above = small > self._config.mask_threshold
        mask = ~above if self._config.mask_inverted else above
        if self._before is not None and self._before[0] == index - 1:
            before = self._before[1]
            # A mask that is missing says nothing about where the animal is.
            if mask.any() and before.any():
                common, union = np.count_nonzero(mask & before), np.count_nonzero(mask | before)
                self._found[index - self._offset] = common / union
        self._before = index, mask

    def take(self) -> dict[int, float]:
        """What was found since the last call."""
        found, self._found = self._found, {}
        return found


def _in_step(streams: Sequence[Iterator[Item]], stop: Event) -> Generator[list[Item], None, None]:
    """Take one item of each stream at a time, until they end; the next ones are prepared meanwhile.

    However this ends (error, interrupt, or the caller has seen enough), `stop` is set, the threads are waited
    for and the streams are closed.
    """
    pool = ThreadPoolExecutor(len(streams), thread_name_prefix="camera")
    try:
        ahead = [pool.submit(next, stream, None) for stream in streams]
        while True:
            items = [item for future in ahead if (item := future.result()) is not None]
            if len(items) < len(streams):
                return
            ahead = [pool.submit(next, stream, None) for stream in streams]
            yield items
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)
        for stream in streams:
            if isinstance(stream, Generator):
                stream.close()
