"""What a path holds that can be looked at: results of `mfl infer`, sequences, samples. Reads no Gaussians."""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..gaussians import Gaussians
from ..gaussians.compact import CompactSequence
from ..provenance import noted
from ..samples.format import CAMERAS_FILE, read_list, read_sample

log = logging.getLogger(__name__)

PLY, COMPACT = "gaussians.ply", "gaussians.npz"

DEPTH = 2
"""Folders are searched so far down; what is found first is taken."""

KNOWN = (
    f"a PLY of Gaussians, a folder with {PLY}, a folder of such results, a sequence ({COMPACT}), a sample "
    f"(a folder with {CAMERAS_FILE}), a list of samples (.txt) or a folder of samples"
)

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Moment:
    """Something that is shown at one time.

    Attributes:
        name: The sample's, where there is one.
        read: Gives the Gaussians; None where there are only pictures.
        frame_index: Of the recording, where known.
        in_rig: Whether the Gaussians are in the rig's millimetres.
        world_from_model: From model units to the rig's millimetres, where known. [4, 4]
        sample: The folder of the sample that it came from, where given.
    """

    name: str
    read: Callable[[], Gaussians] | None = None
    frame_index: int | None = None
    in_rig: bool = False
    world_from_model: Array | None = None
    sample: Path | None = None


@dataclass(frozen=True)
class Group:
    """Moments that follow each other, such as the results of one method.

    Attributes:
        place: Where they were found.
        moments: In their order.
        name: Tells it from other groups.
    """

    place: Path
    moments: tuple[Moment, ...]
    name: str = ""


def find_groups(paths: Sequence[Path]) -> list[Group]:
    """Find all that paths hold, and join results with the samples that they came from.

    Samples stand alone only where there are no results.

    Raises:
        DataError: a path holds nothing that can be shown, or is damaged.
    """
    groups: list[Group] = []
    samples: dict[str, Path] = {}
    for path in paths:
        found_groups, found_samples = _look_into(path)
        groups += found_groups
        for folder in found_samples:
            name = folder.resolve().name
            if samples.setdefault(name, folder).resolve() != folder.resolve():
                log.warning("%s is left out: %s has the same name.", folder, samples[name])
    if groups:
        return _joined(_named(groups), _Samples(samples))
    moments = tuple(Moment(name, sample=folder) for name, folder in samples.items())
    return [Group(paths[0], moments, "samples")]


def _look_into(path: Path) -> tuple[list[Group], Iterable[Path]]:
    """Groups of results, and folders of samples."""
    if path.is_file():
        return _look_into_file(path)
    if path.is_dir():
        for depth in range(DEPTH + 1):
            # Hidden folders are what a killed command left.
            inside = "[!.]*/" * depth
            results = sorted(path.glob(inside + PLY))
            samples = sorted(file.parent for file in path.glob(inside + CAMERAS_FILE))
            # A sequence lies beside the results that it is made of, which are finer.
            sequences = [] if results else sorted(path.glob(inside + COMPACT))
            if results or sequences or samples:
                return [*_grouped(results, depth), *map(_sequence, sequences)], samples
        found = sorted(item.name for item in path.iterdir())
        what = f"a folder with {', '.join(found[:4])}{', ...' if found[4:] else ''}"
        what = what if found else "an empty folder"
    else:
        what = "no such file or folder"
    raise DataError(f"{path}: found {what}; `mfl view` shows {KNOWN}.")


def _look_into_file(path: Path) -> tuple[list[Group], Iterable[Path]]:
    kind = path.suffix.lower()
    if kind == ".ply":
        place = path.resolve()
        return [Group(place.parent if path.name == PLY else place.with_suffix(""), (_result(path),))], ()
    if kind == ".npz":
        return [_sequence(path)], ()
    if path.name == CAMERAS_FILE:
        return [], [path.parent]
    if kind == ".txt":
        return [], read_list(path)
    raise DataError(f"{path}: found a file of kind '{kind}'; `mfl view` shows {KNOWN}.")


def _grouped(results: Sequence[Path], depth: int) -> list[Group]:
    """Results that lie beside each other follow each other, in the order of frames where all are known."""
    together: dict[Path, list[Moment]] = {}
    for ply in results:
        folder = ply.parent if depth == 0 else ply.parent.parent
        together.setdefault(folder, []).append(_result(ply))
    return [Group(folder.resolve(), _in_order(moments)) for folder, moments in together.items()]


def _in_order(moments: Sequence[Moment]) -> tuple[Moment, ...]:
    frames = [moment.frame_index for moment in moments if moment.frame_index is not None]
    if len(set(frames)) < len(moments):
        return tuple(moments)
    return tuple(sorted(moments, key=lambda moment: moment.frame_index or 0))


def _result(ply: Path) -> Moment:
    """A PLY and what `mfl infer` says of it."""
    metrics = noted(ply.parent / "metrics.json")
    stored = metrics.get("output_frame")
    if stored is None:
        settings = noted(ply.parent.parent / "run.json").get("config")
        stored = settings.get("output_frame") if isinstance(settings, dict) else None
    frame = metrics.get("frame_index")
    return Moment(
        ply.resolve().parent.name if ply.name == PLY else ply.stem,
        partial(Gaussians.load_ply, ply),
        frame if isinstance(frame, int) else None,
        stored == "rig",
        _matrix(metrics.get("world_from_model"), ply.parent),
    )


def _matrix(value: Any, where: Path) -> Array | None:
    try:
        matrix = None if value is None else np.asarray(value, float)
        good = matrix is None or (matrix.shape == (4, 4) and bool(np.isfinite(matrix).all()))
    except (TypeError, ValueError):
        good = False
    if not good:
        raise DataError(f"{where}: world_from_model is {value!r}, expected 4x4 numbers.")
    return matrix


def _sequence(file: Path) -> Group:
    """A compact file. It stays open; one moment at a time is read."""
    sequence = CompactSequence(file)
    moments = (
        Moment(f"frame {frame}", partial(sequence.__getitem__, number), frame, False, matrix)
        for number, (frame, matrix) in enumerate(
            zip(sequence.frame_indices, sequence.world_from_model, strict=True)
        )
    )
    return Group(file.resolve().parent, tuple(moments))


def _named(groups: Sequence[Group]) -> list[Group]:
    """Each place once, called by as many of its last folders as it takes to tell it from the others."""
    once = list({group.place: group for group in groups}.values())
    deepest = max(len(group.place.parts) for group in once)
    for parts in range(1, deepest + 1):
        names = ["/".join(group.place.parts[-parts:]) for group in once]
        if len(set(names)) == len(names):
            break
    return [replace(group, name=name) for group, name in zip(once, names, strict=True)]


class _Samples:
    """Samples by their names, and by their frames only if they are asked for so."""

    def __init__(self, folders: dict[str, Path]) -> None:
        self.folders = folders

    @cached_property
    def by_frame(self) -> dict[int, Path]:
        """Those whose frame is known."""
        frames = {folder: read_sample(folder).frame_index for folder in self.folders.values()}
        return {frame: folder for folder, frame in frames.items() if frame is not None}

    def of(self, moment: Moment) -> Path | None:
        """The sample that a result came from."""
        if moment.name in self.folders:
            return self.folders[moment.name]
        return None if moment.frame_index is None else self.by_frame.get(moment.frame_index)


def _joined(groups: Sequence[Group], samples: _Samples) -> list[Group]:
    if not samples.folders:
        return list(groups)
    if len(samples.folders) == len(groups) == len(groups[0].moments) == 1:
        # One result and one sample were meant to be seen together, whatever they are called.
        (folder,), (moment,) = samples.folders.values(), groups[0].moments
        return [replace(groups[0], moments=(replace(moment, sample=folder),))]
    joined = [
        replace(group, moments=tuple(replace(moment, sample=samples.of(moment)) for moment in group.moments))
        for group in groups
    ]
    if not any(moment.sample for group in joined for moment in group.moments):
        log.warning(
            "none of the %d samples, such as %s, has the name or the frame of a result, such as %s: "
            "Gaussians are shown without cameras.",
            len(samples.folders),
            next(iter(samples.folders)),
            groups[0].moments[0].name,
        )
    return joined
