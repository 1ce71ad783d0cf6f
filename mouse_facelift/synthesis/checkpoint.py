"""The MVDiffusion checkpoint that makes the views: where it lies, what it is, what its views mean."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from ..mvdiffusion import Slots
from ..mvdiffusion.folders import load_slots, locate, pin, trained_files
from ..mvdiffusion.weights import find_weights
from ..provenance import sha256
from ..samples.training_data import TrainingData
from ..training.data import with_start


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that stays the same while its training goes on. Only small files have been read.

    Attributes:
        folder: A pipeline folder or a checkpoint of a run.
        hashes: SHA-256 of every file that was trained, by its resolved path.
        slots: What the views mean.
    """

    folder: Path
    hashes: dict[str, str]
    slots: Slots

    @classmethod
    def find(cls, path: Path) -> "Checkpoint":
        """Look it up and hash it.

        Args:
            path: A pipeline folder, a training run (its newest checkpoint is taken) or a checkpoint.

        Raises:
            CheckpointError: there is none, or it lacks parts.
        """
        folder = pin(path)
        hashes = {str(file.resolve()): sha256(file) for file in trained_files(folder)}
        return cls(folder, hashes, load_slots(*locate(folder)))

    @property
    def sha256(self) -> str:
        """One hash for all, the same wherever it lies."""
        return hashlib.sha256("\n".join(self.hashes.values()).encode()).hexdigest()

    def training_data(self) -> TrainingData:
        """What it was trained on: whoever trains on its views learns from that, too."""
        trained, _ = locate(self.folder)
        return with_start(TrainingData(()), find_weights(trained / "unet")[0], trained)
