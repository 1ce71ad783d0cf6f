"""`training_data.json`: what weights were trained on, so that nobody measures there unawares.

It lies in a run's folder and beside the weights of each checkpoint, and goes with them when they are copied.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from ..files import write_json
from .format import CAMERAS_FILE, Sample

FILE = "training_data.json"
FORMAT = 1

SAME_PLACE_MM = 0.5
"""Cameras of one rig lie this near to where another sample's file has them."""


@dataclass(frozen=True)
class Rig:
    """What tells one recording from another, whatever size and scale its samples were made at.

    Attributes:
        recording: Name of the recording; empty where a sample does not say.
        centers_mm: By camera id, where the cameras stand, millimetres of the rig; empty where it is unknown.
    """

    recording: str
    centers_mm: Mapping[int, tuple[float, float, float]]

    @classmethod
    def of(cls, sample: Sample) -> "Rig":
        """The rig that a sample's cameras file describes; a lone sample's is nameless and nowhere."""
        source = sample.metadata.get("source")
        name = str(source.get("recording", "")) if isinstance(source, dict) else ""
        to_mm = sample.world_from_model
        if to_mm is None:
            return cls(name, {})
        places = {view.view_id: to_mm[:3, :3] @ view.camera.center + to_mm[:3, 3] for view in sample.views}
        rounded = {view_id: np.round(place, 1) + 0.0 for view_id, place in places.items()}
        return cls(name, {view_id: (float(x), float(y), float(z)) for view_id, (x, y, z) in rounded.items()})

    def may_be(self, other: "Rig") -> bool:
        """Whether both can be one recording: one name, and no camera of both stands elsewhere."""
        common = self.centers_mm.keys() & other.centers_mm.keys()
        return self.recording == other.recording and all(
            np.linalg.norm(np.subtract(self.centers_mm[view], other.centers_mm[view])) < SAME_PLACE_MM
            for view in common
        )


@dataclass(frozen=True)
class TrainedSample:
    """A sample that was trained on.

    Attributes:
        name: Of its folder.
        frame: Index in the source video, where known.
        cameras_sha256: Of its cameras file: it is the same sample wherever that is found again.
    """

    name: str
    frame: int | None
    cameras_sha256: str


@dataclass(frozen=True)
class TrainedSet:
    """Samples of one recording that were trained on.

    Attributes:
        rig: The recording.
        view_ids: Cameras that training has seen.
        held_out_views: Cameras of the samples that it has not.
        samples: The samples.
        mm_per_unit: Least and largest scale of the samples; None where one does not tell, and in records
            from before it was written down.
    """

    rig: Rig
    view_ids: tuple[int, ...]
    held_out_views: tuple[int, ...]
    samples: tuple[TrainedSample, ...]
    mm_per_unit: tuple[float, float] | None = None


@dataclass(frozen=True)
class TrainingData:
    """All that weights were trained on, the weights that they started from included.

    Attributes:
        sets: By recording.
        unrecorded: SHA-256 of the start weights of which nobody knows what they were trained on.
    """

    sets: tuple[TrainedSet, ...]
    unrecorded: tuple[str, ...] = ()

    @classmethod
    def of(cls, samples: Sequence[Sample], view_ids: Sequence[int]) -> "TrainingData":
        """What a training on these samples sees, if it looks at these cameras alone; see also `of_makers`."""
        rigs: dict[str, Rig] = {}
        groups: defaultdict[str, list[Sample]] = defaultdict(list)
        for sample in samples:
            rig = Rig.of(sample)
            key = json.dumps(asdict(rig))
            rigs[key] = rig
            groups[key].append(sample)
        sets = []
        for key, members in groups.items():
            there = [view.view_id for view in members[0].views]
            seen = tuple(view for view in there if view in view_ids)
            others = tuple(view for view in there if view not in view_ids)
            sets.append(TrainedSet(rigs[key], seen, others, tuple(map(_trained, members)), _scales(members)))
        return cls(tuple(sets)).joined(cls.of_makers(samples))

    @classmethod
    def of_makers(cls, samples: Sequence[Sample]) -> "TrainingData":
        """What the networks that generated samples were trained on; real samples have none.

        Whoever trains on generated samples learns from that, too. It lies where `mfl synthesize` wrote them.

        Raises:
            DataError: a record cannot be read.
        """
        found = cls(())
        folders: dict[Path, set[str]] = {}
        for sample in samples:
            made = sample.metadata.get("synthesis")
            weights = {str(made.get("mvdiffusion_sha256"))} if isinstance(made, dict) else set()
            folders.setdefault(sample.folder.resolve().parent, set()).update(weights)
        for folder, weights in folders.items():
            found = found.joined(cls.load(folder) or cls((), tuple(sorted(weights))))
        return found

    def joined(self, earlier: "TrainingData") -> "TrainingData":
        """Together with what the start weights were trained on."""
        return TrainingData((*earlier.sets, *self.sets), (*earlier.unrecorded, *self.unrecorded))

    def save(self, folder: Path) -> None:
        """Write `training_data.json` into a folder."""
        write_json(folder / FILE, {"format": FORMAT, **asdict(self)})

    @classmethod
    def load(cls, folder: Path) -> "TrainingData | None":
        """Read the file of a folder; None if it has none.

        Raises:
            DataError: it is there and cannot be read.
        """
        path = folder / FILE
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["format"] != FORMAT:
                raise ValueError(f"format {content['format']}")
            return cls(tuple(map(_set_of, content["sets"])), tuple(map(str, content["unrecorded"])))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{path}: not a record of training data ({error!r}). Restore it; without the file nobody "
                "knows what the weights were trained on."
            ) from None


def cameras_hash(sample: Sample) -> str:
    """SHA-256 of a sample's cameras file."""
    return hashlib.sha256((sample.folder / CAMERAS_FILE).read_bytes()).hexdigest()


def _trained(sample: Sample) -> TrainedSample:
    return TrainedSample(sample.folder.resolve().name, sample.frame_index, cameras_hash(sample))


def _scales(samples: Sequence[Sample]) -> tuple[float, float] | None:
    scales = [scale for sample in samples if (scale := sample.mm_per_unit) is not None]
    return (min(scales), max(scales)) if len(scales) == len(samples) else None


def _set_of(content: Mapping[str, Any]) -> TrainedSet:
    rig = content["rig"]
    scales = content.get("mm_per_unit")
    centers = {int(view): (float(x), float(y), float(z)) for view, (x, y, z) in rig["centers_mm"].items()}
    return TrainedSet(
        Rig(str(rig["recording"]), centers),
        tuple(map(int, content["view_ids"])),
        tuple(map(int, content["held_out_views"])),
        tuple(TrainedSample(**sample) for sample in content["samples"]),
        None if scales is None else (float(scales[0]), float(scales[1])),
    )
