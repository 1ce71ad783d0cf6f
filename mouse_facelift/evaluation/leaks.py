"""Whether training had seen the frames and cameras that are measured."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from ..errors import ConfigError
from ..inference.config import ReconstructionConfig
from ..inference.models import Weights
from ..provenance import sha256
from ..samples.format import Sample
from ..samples.training_data import SAME_PLACE_MM, Rig, TrainedSet, TrainingData, cameras_hash

Verdict = Literal["seen frame", "unknown", "seen camera", "clean"]

VERDICTS: dict[Verdict, str] = {
    "seen frame": "this frame, or one within guard_frames of it, was trained on: the figure says little "
    "about new frames",
    "unknown": "nobody wrote down what the weights, or those that they started from, were trained on, or the "
    "sample does not say which frame of which recording it is",
    "seen camera": "the frame is new, but training has seen other frames through this camera",
    "clean": "neither the frame nor the camera was trained on",
}
"""What a verdict means, the worst first."""


@dataclass(frozen=True)
class LeakGuard:
    """Judges for one method; of its networks, the one that has seen most counts.

    Attributes:
        records: What each network was trained on; None where that is unknown.
        guard_frames: Frames as near as this to a trained one count as trained on.
    """

    records: Sequence[TrainingData | None]
    guard_frames: int = 0

    @classmethod
    def of(cls, weights: Weights, guard_frames: int, trusted: Collection[str]) -> "LeakGuard":
        """Read the records beside a method's weights.

        Args:
            weights: The method's.
            guard_frames: See the class.
            trusted: SHA-256 of weights that are known to have seen none of this.

        Raises:
            DataError: a record cannot be read.
        """
        places = [(weights.gslrm.parent, weights.gslrm), *_diffusion(weights.config)]
        return cls([_record(folder, file, trusted) for folder, file in places], guard_frames)

    def verdicts(self, sample: Sample, truth: Sample | None = None) -> dict[int, Verdict]:
        """Judge all cameras of one frame, by camera id.

        Args:
            sample: The frame's sample.
            truth: The sample with its further cameras.
        """
        frames = [(record, self._of_frame(record, sample)) for record in self.records]
        judged: dict[int, Verdict] = {}
        for holder in (sample, truth) if truth is not None else (sample,):
            rig = Rig.of(holder)
            for view in holder.views:
                found = {verdict or _of_camera(record, rig, view.view_id) for record, verdict in frames}
                judged[view.view_id] = next(verdict for verdict in VERDICTS if verdict in found)
        return judged

    def _of_frame(self, record: TrainingData | None, sample: Sample) -> Verdict | None:
        """What the frame alone decides; None leaves it to the camera."""
        if record is None:
            return "unknown"
        rig, digest = Rig.of(sample), cameras_hash(sample)
        if any(self._seen(trained, sample.frame_index, rig, digest) for trained in record.sets):
            return "seen frame"
        if record.unrecorded:
            return "unknown"
        # Of samples that do not say where they are from, nobody knows whether they are others.
        named = all(trained.rig.recording for trained in record.sets)
        told = named and rig.recording and sample.frame_index is not None
        return None if told or not record.sets else "unknown"

    def _seen(self, trained: TrainedSet, frame: int | None, rig: Rig, digest: str) -> bool:
        same = bool(rig.recording) and trained.rig.may_be(rig)
        return any(
            known.cameras_sha256 == digest or (same and _near(known.frame, frame, self.guard_frames))
            for known in trained.samples
        )


def trusted_hashes(paths: Sequence[Path]) -> set[str]:
    """SHA-256 of the files that the user vouches for.

    Raises:
        ConfigError: a path is no file.
    """
    for path in paths:
        if not path.is_file():
            raise ConfigError(
                f"leaks.trusted: {path} is {'a folder' if path.is_dir() else 'not there'}; expected a file "
                "of weights, such as gslrm.safetensors or a UNet's diffusion_pytorch_model.safetensors."
            )
    return {sha256(path) for path in paths}


def _diffusion(config: ReconstructionConfig) -> list[tuple[Path, Path]]:
    """Folder of MVDiffusion's record, and the weights themselves; none in mode direct."""
    if config.mvdiffusion is None:
        return []
    from ..mvdiffusion.folders import locate
    from ..mvdiffusion.weights import find_weights

    trained, _ = locate(config.mvdiffusion)
    return [(trained, find_weights(trained / "unet")[0])]


def _record(folder: Path, file: Path, trusted: Collection[str]) -> TrainingData | None:
    record = TrainingData.load(folder)
    if record is None:
        return TrainingData(()) if trusted and sha256(file) in trusted else None
    unknown = tuple(digest for digest in record.unrecorded if digest not in trusted)
    return TrainingData(record.sets, unknown)


def _near(one: int | None, other: int | None, frames: int) -> bool:
    return one is not None and other is not None and abs(one - other) <= frames


def _of_camera(record: TrainingData | None, rig: Rig, view_id: int) -> Verdict:
    seen = any(_seen_camera(trained, rig, view_id) for trained in record.sets) if record else False
    return "seen camera" if seen else "clean"


def _seen_camera(trained: TrainedSet, rig: Rig, view_id: int) -> bool:
    then, now = trained.rig.centers_mm.get(view_id), rig.centers_mm.get(view_id)
    if view_id not in trained.view_ids or then is None or now is None:
        return False
    return bool(np.linalg.norm(np.subtract(then, now)) < SAME_PLACE_MM)
