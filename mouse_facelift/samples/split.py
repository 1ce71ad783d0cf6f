"""Training and validation as blocks of time with guard gaps: no validation frame has a twin in training."""

from bisect import bisect, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from statistics import median
from typing import Literal

from ..errors import ConfigError

MAX_GUARD_SHARE = 0.25
"""Largest share of samples given up to guard gaps; beyond it there are fewer blocks, then narrower gaps."""


@dataclass(frozen=True)
class Split:
    """Positions in the list of samples, each in time order; together all of them.

    Attributes:
        train: For training.
        val: For validation.
        guard: In neither, being too near in time to validation.
        notes: What the user should know: narrower gaps, fewer blocks, leakage.
    """

    train: tuple[int, ...]
    val: tuple[int, ...]
    guard: tuple[int, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Samples:
    """When the samples were taken: frame numbers, and the number of the segment each lies in."""

    frames: Sequence[int]
    segments: Sequence[int]

    def divide(self, val: Sequence[int], guard_frames: float) -> Split:
        """The split with these validation samples; a guard acts only inside a segment."""
        chosen = set(val)
        gaps = self.gaps(sorted(chosen), [at for at in range(len(self.frames)) if at not in chosen])
        return Split(
            tuple(at for at, gap in gaps.items() if gap > guard_frames),
            tuple(sorted(chosen)),
            tuple(at for at, gap in gaps.items() if gap <= guard_frames),
        )

    def gaps(self, targets: Sequence[int], sources: Sequence[int]) -> dict[int, float]:
        """Frames from each of `sources` to the nearest of `targets` of its segment; infinite without one."""
        times: dict[int, list[int]] = {}
        for at in targets:
            times.setdefault(self.segments[at], []).append(self.frames[at])
        return {at: _distance(self.frames[at], times.get(self.segments[at], [])) for at in sources}


def split_samples(
    frames: Sequence[int],
    segments: Sequence[int],
    fps: float,
    mode: Literal["blocks", "random"],
    val_share: float,
    blocks: int,
    guard_s: float,
    seed: int,
) -> Split:
    """Divide samples into training and validation.

    From two samples on there is at least one of each kind, unless `val_share` is 0.

    Mode `blocks`: validation blocks lie in the middles of equal stretches of the samples, never across a
    jump of the recording, with a guard gap on both sides; beyond a jump is another time and needs none.
    Where gaps would cost too many samples there are fewer blocks, then narrower gaps, and a note says so.

    Args:
        frames: Frame number of every sample, strictly increasing.
        segments: Number of the stretch between two jumps that each sample lies in, not decreasing.
        fps: Frames per second of the recording; 0 where unknown.
        mode: `blocks`, or `random` single frames, which leaks; a note tells how much.
        val_share: Share of the samples for validation, 0 <= val_share < 1.
        blocks: Validation blocks, at most.
        guard_s: Samples as near in seconds as this to a validation sample are not trained on.
        seed: For `random`.

    Raises:
        ConfigError: a guard in seconds, but the frame rate is unknown.
    """
    samples, total = _Samples(frames, segments), len(frames)
    if val_share == 0 or total < 2:
        return Split(tuple(range(total)), (), ())
    wanted = min(total - 1, max(1, round(total * val_share)))
    if mode == "random":
        split = samples.divide(Random(seed).sample(range(total), wanted), 0)
        return _with_notes(split, [_leakage(samples, split, fps)])
    check_clock(fps, mode, val_share, guard_s)
    return _blocks(samples, wanted, blocks, guard_s, fps)


def check_clock(fps: float, mode: Literal["blocks", "random"], val_share: float, guard_s: float) -> None:
    """Refuse a guard in seconds where the frame rate is unknown; known before any frame is looked at.

    Raises:
        ConfigError: so it is.
    """
    if mode == "blocks" and val_share > 0 and guard_s > 0 and not fps > 0:
        raise ConfigError(
            f"split.guard_s is {guard_s:g} s, but the recording's frame rate is unknown, so seconds cannot "
            "be turned into frames. Set input.fps, or split.guard_s=0."
        )


def _blocks(samples: _Samples, wanted: int, blocks: int, guard_s: float, fps: float) -> Split:
    """As many blocks as can have the full guard; where none can, one with the widest that is affordable."""
    guard_frames = round(guard_s * fps, 6)
    places = {count: _place(samples.segments, wanted, count) for count in range(1, min(blocks, wanted) + 1)}
    notes = []
    for count in sorted(places, reverse=True):
        split = samples.divide(places[count], guard_frames)
        if _affordable(split):
            break
    else:
        guards = range(int(guard_frames) + 1)
        fits = bisect_right(
            guards, False, key=lambda guard: not _affordable(samples.divide(places[1], guard))
        )
        split = samples.divide(places[1], guards[fits - 1])
        notes.append(
            f"split: {len(samples.frames)} samples are too few for a gap of {guard_s:g} s "
            f"({guard_frames:g} frames); it is {guards[fits - 1] / fps:.3g} s ({guards[fits - 1]} frames)."
        )
    if count < min(blocks, wanted):
        notes.append(
            f"split: validation blocks: {count} instead of {min(blocks, wanted)}, because the gaps "
            "around more would cost too many samples. Set split.guard_s lower for more blocks."
        )
    if len(split.val) < wanted:
        notes.append(
            f"split: validation has {len(split.val)} of {wanted} wanted samples, because its blocks end "
            "at the recording's jumps. Set split.blocks higher for more."
        )
    return _with_notes(split, notes)


def _affordable(split: Split) -> bool:
    total = len(split.train) + len(split.val) + len(split.guard)
    return bool(split.train) and len(split.guard) <= MAX_GUARD_SHARE * total


def _place(segments: Sequence[int], wanted: int, blocks: int) -> list[int]:
    """`wanted` positions in `blocks` blocks: each in the middle of its stretch's longest part without a jump.

    A part too short for its block leaves the rest to the later ones.
    """
    total = len(segments)
    jumps = [at for at in range(1, total) if segments[at] != segments[at - 1]]
    val: list[int] = []
    for block in range(blocks):
        stretch = range(total * block // blocks, total * (block + 1) // blocks)
        edges = [stretch.start, *(at for at in jumps if at in stretch and at > stretch.start), stretch.stop]
        start, stop = max(pairwise(edges), key=lambda part: part[1] - part[0])
        length = min(wanted * (block + 1) // blocks - len(val), stop - start)
        first = start + (stop - start - length) // 2
        val += range(first, first + length)
    return val


def _leakage(samples: _Samples, split: Split, fps: float) -> str:
    """How near the validation samples of a random split are to training."""
    gaps = [gap for gap in samples.gaps(split.train, split.val).values() if gap != float("inf")]
    if not gaps:
        return "split: random frames leak where neighbours look alike; here no two share a segment."

    def told(gap: float) -> str:
        return f"{gap:g} frames" + (f" ({gap / fps:.3g} s)" if fps > 0 else "")

    return (
        f"split: random frames leak: a validation sample has its nearest training sample {told(min(gaps))} "
        f"away at the least, {told(median(gaps))} in the median, and looks like it. Figures measured on it "
        "flatter the model; set split.mode=blocks."
    )


def _with_notes(split: Split, notes: Sequence[str]) -> Split:
    return Split(split.train, split.val, split.guard, tuple(notes))


def _distance(frame: int, sorted_frames: Sequence[int]) -> float:
    at = bisect(sorted_frames, frame)
    near = sorted_frames[max(0, at - 1) : at + 1]
    return min((abs(frame - other) for other in near), default=float("inf"))
