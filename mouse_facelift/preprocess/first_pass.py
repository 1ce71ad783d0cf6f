"""First pass: what the masks say of every frame, kept in a journal that kills and job arrays can share."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from ..capture.masks import Mask
from ..capture.recording import MaskStep, Recording
from ..errors import DataError
from ..parallel import overlapped, worker_count
from ..progress import bar
from .config import PreprocessConfig
from .facts import RecordingFacts
from .journal import Journal, Record
from .mask_store import pack_mask, unpack_mask
from .observation import Observation, from_record, to_record
from .shard import Shard
from .survey import observe

logger = logging.getLogger(__name__)

LEFTOVER_FRAMES = 32
"""Frames that a shard takes over from another at a time."""


@dataclass(frozen=True, eq=False)
class Surveyed:
    """A frame that the first pass has seen.

    Attributes:
        observation: What its masks say.
        record: Where its packed masks lie; none for frames that cannot be used.
    """

    observation: Observation
    record: Record


class FirstPass:
    """Observations by frame: those in the journals, and those made on demand.

    Args:
        config: The run's configuration.
        facts: The recording's cameras.
        journal: Where observations are kept, opened for writing by the caller where `survey` is used.
    """

    def __init__(self, config: PreprocessConfig, facts: RecordingFacts, journal: Journal) -> None:
        self._config = config
        self._facts = facts
        self._journal = journal
        self.frames: dict[int, Surveyed] = {}
        self.overlaps: dict[int, float] = {}
        self.lost: dict[int, str] = {}

    def refresh(self) -> None:
        """Take in what the journals hold by now, this process's and others'."""
        for record in self._journal.news():
            content = record.content
            if "lost" in content:
                self.lost[content["frame"]] = content["lost"]
                continue
            self.overlaps.update({int(frame): value for frame, value in content["overlaps"].items()})
            observation = from_record(content["observation"])
            # Only the place of the masks is kept: 18,000 records of JSON would not be small.
            place = Record({}, record.path, record.offset, record.sizes)
            self.frames[observation.frame] = Surveyed(observation, place)

    def missing(self, frames: Sequence[int]) -> list[int]:
        """Those of `frames` that nobody has surveyed."""
        self.refresh()
        return [frame for frame in frames if frame not in self.frames]

    def survey(self, recording: Recording, frames: Sequence[int], shard: Shard, watch: bool) -> None:
        """Survey what is missing of `frames`: first this shard's share, then what the others have not done.

        Args:
            recording: Where the masks are.
            frames: Frame numbers, increasing.
            shard: Which process this is.
            watch: Whether jumps are looked for in what lies between `frames`.

        Raises:
            DataError: a figure is beyond a limit whose action is stop.
        """
        own = self.missing(shard.share(frames))
        self._survey_frames(recording, frames, own, watch, "masks")
        while left := self.missing(frames):
            # From the end: the process that these belong to works from the front.
            self._survey_frames(recording, frames, left[-LEFTOVER_FRAMES:], watch, "masks of other shards")

    def masks(self, frame: int) -> list[Mask]:
        """The clean masks of a usable frame, V x [H, W]."""
        blobs = self.frames[frame].record.blobs()
        return [
            unpack_mask(blob, camera.width, camera.height)
            for blob, camera in zip(blobs, self._facts.cameras, strict=True)
        ]

    def lose(self, frame: int, reason: str) -> None:
        """Note that a frame's sample cannot be written."""
        self.lost[frame] = reason
        self._journal.append({"frame": frame, "lost": reason})

    def _survey_frames(
        self, recording: Recording, frames: Sequence[int], wanted: Sequence[int], watch: bool, title: str
    ) -> None:
        with bar(title, len(wanted)) as line:
            for start, run in _runs(frames, wanted):
                for _ in self._survey_run(recording, start if watch else None, run):
                    line.advance()

    def _survey_run(self, recording: Recording, start: int | None, run: Sequence[int]) -> Iterator[None]:
        """Survey frames that follow each other in the selection.

        Args:
            recording: Where the masks are.
            start: The frame from which jumps are looked for; None for no look.
            run: The frames.
        """
        facts, config = self._facts, self._config

        def work(step: MaskStep) -> tuple[MaskStep, Observation, list[bytes]]:
            seen = observe(
                step.index,
                step.masks,
                facts.cameras,
                facts.camera_ids,
                config.geometry,
                config.quality,
                facts.rotation,
                posture=config.selection.mode == "diverse",
            )
            packed = [] if seen.problems else [pack_mask(mask.mask) for mask in step.masks]
            return step, seen, packed

        first = [start] if start is not None and start < run[0] else []
        steps = recording.read_masks([*first, *run], watch=start is not None)
        for step, seen, packed in overlapped(work, steps, worker_count(config.workers)):
            if seen.fatal:
                reasons = "; ".join(map(str, seen.fatal))
                raise DataError(f"{config.input.recording}: frame {step.index}: {reasons}.")
            if step.index in first:
                continue
            # What lies before the stretch depends on where its keyframe is.
            overlaps = {str(frame): value for frame, value in step.overlaps.items() if frame > (start or 0)}
            self._journal.append({"observation": to_record(seen), "overlaps": overlaps}, packed)
            yield


def _runs(frames: Sequence[int], wanted: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
    """Stretches of `wanted` without a gap in `frames`, each with the frame before it in `frames`."""
    place = {frame: position for position, frame in enumerate(frames)}
    for _, group in groupby(enumerate(wanted), lambda item: place[item[1]] - item[0]):
        run = [frame for _, frame in group]
        yield frames[max(place[run[0]] - 1, 0)], run
