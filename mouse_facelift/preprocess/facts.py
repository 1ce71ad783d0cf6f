"""What a recording as a whole is: its cameras, how they were understood, how well they are in step."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..capture.recording import Recording
from ..errors import CalibrationError, DataError
from ..geometry import Camera
from ..geometry.cameras import Array
from .config import PreprocessConfig
from .contradiction import contradiction_text, is_beyond, measure_contradiction
from .normalize import choose_up
from .sync import check_colours, check_lags, choose_moments, measure_lags

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class RecordingFacts:
    """All that later stages need of a recording beside its frames; JSON and back without loss.

    Attributes:
        name: The recording folder's name.
        camera_ids: Numbers in the file names. V
        cameras: Millimetres, half-pixel centres. V
        frame_count: Frames that all streams have.
        fps: Frames per second; 0 where unknown.
        frame_counts: Camera -> frames of its video and of its masks.
        rotation: Takes the rig's up to the model's Z. [3, 3]
        up: Which way that is and how it was found, in words.
        convention: How the calibration's numbers are meant.
        evidence: Every reading of the calibration that was tried, with its figures.
        lags: Per camera, the synchronization curve.
        notes: What the user should know.
    """

    name: str
    camera_ids: tuple[int, ...]
    cameras: tuple[Camera, ...]
    frame_count: int
    fps: float
    frame_counts: Mapping[str, Sequence[int]]
    rotation: Array
    up: str
    convention: str
    evidence: Sequence[Mapping[str, Any]]
    lags: Sequence[Mapping[str, Any]]
    notes: Sequence[str]

    def to_json(self) -> dict[str, Any]:
        """JSON-ready values."""
        cameras = [
            {"K": c.K.tolist(), "w2c": c.w2c.tolist(), "width": c.width, "height": c.height}
            for c in self.cameras
        ]
        return {**vars(self), "cameras": cameras, "rotation": self.rotation.tolist()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "RecordingFacts":
        """Read `to_json` back."""
        cameras = tuple(
            Camera(np.array(c["K"]), np.array(c["w2c"]), c["width"], c["height"]) for c in content["cameras"]
        )
        ids, rotation = tuple(content["camera_ids"]), np.array(content["rotation"])
        return cls(**{**content, "cameras": cameras, "camera_ids": ids, "rotation": rotation})


def inspect(recording: Recording, config: PreprocessConfig) -> RecordingFacts:
    """Measure the recording's synchronization and agreement, and collect what opening it has shown.

    Raises:
        CalibrationError: a camera contradicts the others beyond `quality.contradiction`, and its action is
            stop.
        DataError: a camera runs late or early beyond `quality.sync_lag`, or its masks are not those of its
            video by `quality.colour_match`, and the action is stop.
    """
    moments = choose_moments(recording, config.quality)
    lags = measure_lags(recording, moments, config.quality, config.geometry.cell_mm)
    late, strange = check_lags(lags, config.quality), check_colours(lags, config.quality)
    for messages, limit in ((late, config.quality.sync_lag), (strange, config.quality.colour_match)):
        if messages and limit.action == "stop":
            raise DataError(f"{recording.config.recording}: {' '.join(messages)}")
        for message in messages:
            logger.warning("%s", message)
    contradictions = _contradictions(recording, config)
    rotation, up = choose_up(config.geometry, recording.cameras)
    return RecordingFacts(
        name=recording.config.recording.resolve().name,
        camera_ids=recording.camera_ids,
        cameras=recording.cameras,
        frame_count=recording.frame_count,
        fps=recording.fps,
        frame_counts={str(camera): list(counts) for camera, counts in recording.frame_counts.items()},
        rotation=rotation,
        up=up,
        convention=recording.calibration.convention,
        evidence=[asdict(item) for item in recording.calibration.evidence],
        lags=[asdict(item) for item in lags],
        notes=[*recording.notes, *late, *strange, *contradictions],
    )


def _contradictions(recording: Recording, config: PreprocessConfig) -> list[str]:
    """What is to be said of a camera that contradicts all others."""
    found = measure_contradiction(recording, config.geometry.cell_mm)
    text = contradiction_text(found, config.quality) if found else ""
    if found and is_beyond(found, config.quality) and config.quality.contradiction.action == "stop":
        raise CalibrationError(
            f"{recording.config.recording}: {text}; or set quality.contradiction.action=warn to go on."
        )
    if text:
        logger.warning("%s.", text)
    return [f"{text}."] if text else []
