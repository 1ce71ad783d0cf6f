"""All that is decided before the first sample is written, as a function of the recording and its masks."""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..capture.jumps import find_jumps, segment_of
from ..errors import ConfigError, DataError
from ..geometry import Similarity
from ..geometry.cameras import Array
from ..samples.split import Split, split_samples
from .centres import frame_centers
from .config import PreprocessConfig
from .facts import RecordingFacts
from .first_pass import FirstPass
from .limits import Problem, check
from .normalize import Framing, azimuth_order, choose_framing
from .observation import Observation
from .selection import candidates, choose_diverse, replacements
from .survey import check_calibration

logger = logging.getLogger(__name__)

MIN_SIZE = 0.05
"""An animal that is smaller in model units is a few pixels in a picture."""

Survey = Callable[[Sequence[int], bool], None]
"""Makes sure that the first pass has seen these frames, and looked for jumps between them where asked to."""


@dataclass(frozen=True, eq=False)
class PlannedSample:
    """A sample to be written.

    Attributes:
        name: Its folder's name.
        frame: Frame number in the recording.
        segment: Which stretch between jumps it lies in.
        part: train, val or guard.
        similarity: From millimetres to the model's world.
        observation: What its masks say.
        area_jump: Relative change of each mask's area since the sample before in its segment; 0 for the
            first. [V]
    """

    name: str
    frame: int
    segment: int
    part: str
    similarity: Similarity
    observation: Observation
    area_jump: Array


@dataclass(frozen=True)
class Dropped:
    """A chosen frame that is no sample, why, and which frame took its place."""

    frame: int
    reasons: tuple[str, ...]
    replaced_by: int | None = None


@dataclass(frozen=True, eq=False)
class Plan:
    """What a run writes.

    Attributes:
        samples: In time order.
        dropped: Chosen frames that are not among them.
        framing: Scale and crop of the data set.
        jumps: First frames after a jump.
        azimuth_order: Camera numbers counter-clockwise as seen from above.
        cut: Frames in which a part of the animal leaves the box or a picture.
        notes: What the user should know.
    """

    samples: tuple[PlannedSample, ...]
    dropped: tuple[Dropped, ...]
    framing: Framing
    jumps: tuple[int, ...]
    azimuth_order: tuple[int, ...]
    cut: tuple[int, ...]
    notes: tuple[str, ...]


def make_plan(
    config: PreprocessConfig,
    facts: RecordingFacts,
    first_pass: FirstPass,
    survey: Survey,
    keypoints: Array | None = None,
) -> Plan:
    """Decide everything.

    Args:
        config: The run's configuration.
        facts: The recording.
        first_pass: What the masks say; asked for frames that `survey` has been called for.
        survey: Makes the first pass see frames; called with the selection, then with replacements.
        keypoints: 2D key points of all frames, for `centre: keypoints`. [V, frames, K, 2]

    Raises:
        ConfigError: the selection is empty.
        DataError: no frame is usable.
        CalibrationError: the masks contradict the cameras in most frames.
    """
    chosen, dropped, jumps = _choose(config, facts, first_pass, survey)
    observations = [first_pass.frames[frame].observation for frame in chosen]
    segments = segment_of(chosen, jumps)
    centers = frame_centers(config.geometry, observations, segments, facts.cameras, keypoints)
    area_jumps = _area_jumps(observations, segments)
    lost = _beyond_limits(config, facts, observations, centers, area_jumps)
    kept = [position for position, frame in enumerate(chosen) if frame not in lost]
    dropped += [Dropped(frame, (reason,)) for frame, reason in lost.items()]
    if not kept:
        raise _nothing_usable(config, len(chosen), dropped)
    observations = [observations[position] for position in kept]
    framing, cut = choose_framing(config.geometry, observations, centers[kept], facts.cameras, facts.rotation)
    _check_visible(config, observations, centers[kept], framing)
    frames = [item.frame for item in observations]
    segments = [segments[position] for position in kept]
    split = split_samples(
        frames,
        segments,
        facts.fps,
        config.split.mode,
        config.split.val_share,
        config.split.blocks,
        config.split.guard_s,
        config.split.seed,
    )
    parts = _parts(split, len(frames))
    samples = tuple(
        PlannedSample(
            name=f"sample_{number:06d}",
            frame=item.frame,
            segment=segments[number],
            part=parts[number],
            similarity=Similarity(framing.scale, facts.rotation, centers[position]),
            observation=item,
            area_jump=area_jumps[position],
        )
        for number, (position, item) in enumerate(zip(kept, observations, strict=True))
    )
    return Plan(
        samples=samples,
        dropped=tuple(sorted(dropped, key=lambda item: item.frame)),
        framing=framing,
        jumps=tuple(jumps),
        azimuth_order=azimuth_order(facts.cameras, facts.camera_ids, centers[kept].mean(0), facts.rotation),
        cut=tuple(cut),
        notes=tuple(split.notes),
    )


def _choose(
    config: PreprocessConfig, facts: RecordingFacts, first_pass: FirstPass, survey: Survey
) -> tuple[list[int], list[Dropped], list[int]]:
    """The usable frames, those that failed with what replaces them, and the jumps."""
    selection = config.selection
    wanted = candidates(selection, facts.frame_count)
    survey(wanted, config.input.jumps == "detect")
    check_calibration([first_pass.frames[f].observation for f in wanted], facts.cameras, config.quality)
    given = config.input.jumps
    jumps = find_jumps(first_pass.overlaps) if given == "detect" else sorted(given)
    while True:
        good = {frame: not seen.observation.problems for frame, seen in first_pass.frames.items()}
        search = replacements(selection, wanted, good, jumps, facts.frame_count)
        if not search.pending:
            break
        survey(search.pending, False)
    dropped = [
        Dropped(frame, _texts(first_pass.frames[frame].observation.problems), search.found[frame])
        for frame in wanted
        if not good[frame]
    ]
    substitutes = {frame for frame in search.found.values() if frame is not None}
    usable = sorted(substitutes.union(frame for frame in wanted if good[frame]))
    if not usable:
        raise _nothing_usable(config, len(wanted), dropped)
    if selection.mode == "diverse":
        descriptors = np.stack([first_pass.frames[frame].observation.descriptor for frame in usable])
        usable = [usable[position] for position in choose_diverse(descriptors, selection.count)]
    return usable, dropped, jumps


def _texts(problems: Sequence[Problem]) -> tuple[str, ...]:
    return tuple(problem.text for problem in problems)


def _area_jumps(observations: Sequence[Observation], segments: Sequence[int]) -> Array:
    """Change of every mask's area since the sample before in the same segment, relative to it. [T, V]"""
    areas = np.array([[mask.area for mask in item.masks] for item in observations], float)
    changes = np.zeros_like(areas)
    same = np.diff(segments) == 0
    changes[1:][same] = areas[1:][same] / areas[:-1][same] - 1
    return changes


def _beyond_limits(
    config: PreprocessConfig,
    facts: RecordingFacts,
    observations: Sequence[Observation],
    centers: Array,
    area_jumps: Array,
) -> dict[int, str]:
    """Frames that cannot be samples although their masks are good, with the reason.

    Raises:
        DataError: a mask's area changes beyond a limit whose action is stop.
    """
    lost = {}
    limit = config.quality.area_jump
    for item, center, changes in zip(observations, centers, area_jumps, strict=True):
        if np.isnan(center).any():
            lost[item.frame] = "too few key points agree between the views (geometry.centre=keypoints)"
            continue
        view = int(np.abs(changes).argmax())
        problem = check(limit, "area_jump", facts.camera_ids[view], abs(float(changes[view])))
        if problem and problem.action == "stop":
            raise DataError(f"{config.input.recording}: frame {item.frame}: {problem.text}.")
        if problem and problem.action == "drop":
            lost[item.frame] = problem.text
    return lost


def _check_visible(
    config: PreprocessConfig, observations: Sequence[Observation], centers: Array, framing: Framing
) -> None:
    """Refuse geometry that leaves the animal outside the model's box, or makes it a speck.

    Raises:
        ConfigError: so it is in most frames.
    """
    outlines = [item.outline - center for item, center in zip(observations, centers, strict=True)]
    nearest = framing.scale * float(np.median([np.abs(points).max(1).min() for points in outlines]))
    size = framing.scale * float(np.median([np.ptp(points, axis=0).max() for points in outlines]))
    if nearest < 1 and size > MIN_SIZE:
        return
    raise ConfigError(
        f"{config.input.recording}: in the model's world the animal would be {size:.3g} units long and begin "
        f"{nearest:.3g} from the origin, expected it to fill a box of +-{config.geometry.box} about it. "
        "Check geometry.scale and geometry.fixed_centre_mm."
    )


def _nothing_usable(config: PreprocessConfig, count: int, dropped: Sequence[Dropped]) -> DataError:
    reasons = Counter(reason for item in dropped for reason in item.reasons).most_common(3)
    listed = "; ".join(f"{reason} ({times} frames)" for reason, times in reasons)
    return DataError(
        f"{config.input.recording}: none of {count} frames can be used: {listed}. Repair the recording, or "
        "change the limits named."
    )


def _parts(split: Split, count: int) -> list[str]:
    parts = ["train"] * count
    for name, positions in (("val", split.val), ("guard", split.guard)):
        for position in positions:
            parts[position] = name
    return parts
