"""A recording as input: its frames are chosen and prepared in memory by the stages of `mfl preprocess`."""

import hashlib
import json
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from ..capture.config import InputConfig
from ..errors import MflError
from ..preprocess.config import PreprocessConfig, SplitConfig
from ..preprocess.memory import PlannedFrames, planned_frames
from ..preprocess.opening import open_input
from ..preprocess.second_pass import Lost, Prepared
from ..provenance import Run
from ..samples.datasets import sample_in_memory
from ..samples.format import CAMERAS_FILE, Sample, SampleView
from .config import InferConfig, RecordingConfig
from .inputs import Source, Views

log = logging.getLogger(__name__)

KEY = re.compile(r"(?<![\w./])(?=(?:input|selection|geometry|quality)\.[a-z])")
"""Where a message of the preparation names a key, which lies under `preprocess` here."""


def is_recording(config: InferConfig) -> bool:
    """Whether the input is a recording and not samples."""
    folder = config.input
    return (folder / config.preprocess.input.videos).is_dir() and not (folder / CAMERAS_FILE).exists()


@dataclass(frozen=True)
class RecordedFrame(Source):
    """One frame of a recording; it can be read once it has been prepared.

    Attributes:
        frame: Its number.
        cameras: The recording's camera ids.
        digest: Of the recording's files.
        mm_per_unit: See `Source`; None until the frames have been chosen.
        prepared: Its pictures.
    """

    frame: int = -1
    cameras: tuple[int, ...] = ()
    digest: str = ""
    mm_per_unit: float | None = None
    prepared: Prepared | None = field(default=None, compare=False)

    @property
    def place(self) -> str:
        """Recording and frame."""
        return f"{self.path.resolve()}, frame {self.frame}"

    @property
    def fingerprint(self) -> str:
        """Of the whole recording."""
        return self.digest

    def check(self) -> None:
        """All was checked when the recording was opened."""

    @property
    def view_ids(self) -> tuple[int, ...]:
        """The recording's camera ids."""
        return self.cameras

    @property
    def moment(self) -> None:
        """The similarity is made when the frame is prepared."""

    @property
    def has_rig_frame(self) -> bool:
        """Always: the similarity is made here."""
        return True

    def read(self, image_size: int | None, fill: float) -> Views:
        """The same views that reading a sample written by `mfl preprocess` gives."""
        assert self.prepared is not None, "the frame has not been prepared"
        made = self.prepared
        views = tuple(
            SampleView(self.path / f"{self.name}, camera {view_id}", camera, view_id)
            for camera, view_id in zip(made.cameras, made.view_ids, strict=True)
        )
        sample = Sample(self.path, made.name, views, made.metadata)
        item = sample_in_memory(sample, made.images, image_size or views[0].camera.width)
        return Views.of_sample(sample, item)


class RecordingInput:
    """Frames of a recording; see `open_inputs`.

    Args:
        config: Names the recording, and how to choose and prepare its frames.
        record: Gets the hashes of the recording's files.

    Raises:
        ConfigError: the selection is empty.
        DataError: the recording is damaged.
        CalibrationError: the calibration is malformed or contradicts the masks.
    """

    def __init__(self, config: InferConfig, record: Run) -> None:
        self._config = config
        with _keys_of_infer():
            self._opened = open_input(_as_preprocess(config), record)
        files = {
            path.relative_to(config.input).as_posix(): value for path, value in self._opened.hashes.items()
        }
        digest = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
        cameras = self._opened.recording.camera_ids
        self._any = RecordedFrame(config.input, config.input.resolve().name, cameras=cameras, digest=digest)
        self._frames: PlannedFrames | None = None

    @property
    def known(self) -> Sequence[Source]:
        """None: which frames are usable is told by their masks."""
        return ()

    @property
    def examples(self) -> Sequence[Source]:
        """A frame that stands for all of them."""
        return [self._any]

    @property
    def facts(self) -> dict[str, Any]:
        """For `run.json`: scale of the model's world, and frames that were chosen and cannot be used."""
        assert self._frames is not None
        plan, lost = self._frames.plan, self._frames.lost
        dropped = {item.frame: list(item.reasons) for item in plan.dropped}
        dropped |= {frame: [reason] for frame, reason in lost.items()}
        return {"recording": {"scale": plan.framing.scale, "dropped": dict(sorted(dropped.items()))}}

    @contextmanager
    def find(self) -> Iterator[Sequence[Source]]:
        """Look at the masks and choose the frames; what was seen is kept while the block lasts."""
        with _keys_of_infer(), planned_frames(self._opened, self._config.output) as frames:
            self._frames = frames
            for note in frames.plan.notes:
                log.warning("%s", note)
            log.info(
                "%d frames to reconstruct, %d dropped; %.5g units per mm",
                len(frames.samples),
                len(frames.plan.dropped),
                frames.plan.framing.scale,
            )
            self._any = replace(self._any, mm_per_unit=1 / frames.plan.framing.scale)
            sources = [replace(self._any, name=item.name, frame=item.frame) for item in frames.samples]
            yield sources[: self._config.limit] if self._config.limit else sources

    def stream(self, sources: Sequence[Source]) -> Iterator[Source]:
        """Prepare them, a few ahead of the caller; those whose pictures cannot be used are left out."""
        assert self._frames is not None
        names = {source.name for source in sources}
        wanted = [sample for sample in self._frames.samples if sample.name in names]
        for sample, result in self._frames.prepare(wanted):
            if isinstance(result, Lost):
                log.warning("%s: frame %d is dropped: %s", sample.name, result.frame, result.reason)
            else:
                yield replace(self._any, name=sample.name, frame=sample.frame, prepared=result)


def _as_preprocess(config: InferConfig) -> PreprocessConfig:
    """The settings of `mfl preprocess` that give the same pictures."""
    section: RecordingConfig = config.preprocess
    return PreprocessConfig(
        input=InputConfig(recording=config.input, **section.input.model_dump()),
        output=config.output,
        size=section.size,
        workers=section.workers,
        selection=section.selection,
        geometry=section.geometry,
        quality=section.quality,
        split=SplitConfig(val_share=0),
    )


@contextmanager
def _keys_of_infer() -> Iterator[None]:
    """Messages of the preparation name keys as they are called here."""
    try:
        yield
    except MflError as error:
        raise type(error)(KEY.sub("preprocess.", str(error))) from None
