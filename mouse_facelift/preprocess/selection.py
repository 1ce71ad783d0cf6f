"""Which frames of a recording become samples."""

import numpy as np

from ..errors import ConfigError
from .config import SelectionConfig


def select_frames(config: SelectionConfig, frame_count: int) -> list[int]:
    """Choose frames, in time order and without repetition.

    Args:
        config: How to choose.
        frame_count: Frames in the recording.

    Raises:
        ConfigError: nothing is chosen, or a listed frame does not exist.
    """
    if config.mode == "uniform":
        chosen = _uniform(frame_count, config.count, config.middle_share)
    elif config.mode == "interval":
        chosen = list(range(config.start, min(config.stop or frame_count, frame_count), config.step))
    else:
        chosen = sorted(set(config.frames))
        if chosen and not (chosen[0] >= 0 and chosen[-1] < frame_count):
            raise ConfigError(
                f"selection.frames holds {chosen[0] if chosen[0] < 0 else chosen[-1]}, the recording has "
                f"frames 0 to {frame_count - 1}."
            )
    frames = [frame for frame in chosen if frame not in set(config.exclude)]
    if not frames:
        raise ConfigError(
            f"selection chooses none of the recording's {frame_count} frames (mode {config.mode}). Check "
            "selection.frames, start, stop and exclude."
        )
    return frames


def _uniform(frame_count: int, count: int, middle_share: float) -> list[int]:
    """`count` frames at equal steps over the middle share; all of them where there are fewer."""
    length = max(1, round(frame_count * middle_share))
    first = (frame_count - length) // 2
    if count >= length:
        return list(range(first, first + length))
    centers = (np.arange(count) + 0.5) * length / count
    return [first + int(center) for center in centers]
