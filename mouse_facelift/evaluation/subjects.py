"""The samples that are measured on, each with its truth from further cameras."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..errors import ConfigError, DataError
from ..inference.inputs import Views, find_sources
from ..samples.datasets import check_ids, load_sample
from ..samples.format import Sample, read_sample
from ..samples.training_data import Rig, cameras_hash
from .surface import Surface

SAME_FRAME = 1e-6
"""Largest difference of two matrices `world_from_model` that mean one frame, relative to the larger entry."""


@dataclass(frozen=True)
class Subject:
    """One frame to measure on.

    Attributes:
        sample: Its views.
        truth: Views of further cameras in the same model frame; None if there are none.
        measured_size: Side of the pictures that are measured; None takes the sample's own.
    """

    sample: Sample
    truth: Sample | None = None
    measured_size: int | None = None

    @property
    def name(self) -> str:
        """Of the sample's folder."""
        return self.sample.folder.resolve().name

    @property
    def view_ids(self) -> tuple[int, ...]:
        """The sample's cameras."""
        return tuple(view.view_id for view in self.sample.views)

    @property
    def further_ids(self) -> tuple[int, ...]:
        """The cameras of its truth."""
        return () if self.truth is None else tuple(view.view_id for view in self.truth.views)

    @property
    def size(self) -> int:
        """Side of the pictures that are measured."""
        return self.measured_size or self.sample.views[0].camera.width

    @property
    def fingerprint(self) -> list[str]:
        """Another one where a cameras file has changed."""
        return [cameras_hash(sample) for sample in (self.sample, self.truth) if sample is not None]

    def read(self, size: int) -> Views:
        """The sample's views at some size."""
        return Views.of_sample(self.sample, load_sample(self.sample, size))

    def read_all(self) -> Views:
        """The sample's views and then those of its truth, all at `size`."""
        views = self.read(self.size)
        if self.truth is None:
            return views
        further = Views.of_sample(self.truth, load_sample(self.truth, self.size))
        assert views.K is not None and views.w2c is not None
        assert further.K is not None and further.w2c is not None
        return Views(
            torch.cat([views.rgba, further.rgba]),
            (*views.view_ids, *further.view_ids),
            torch.cat([views.K, further.K]),
            torch.cat([views.w2c, further.w2c]),
        )

    def surface(self) -> Surface | None:
        """The true surface, if the truth has it."""
        return None if self.truth is None else Surface.read(self.truth)


def find_subjects(
    data: Path, truth: Path | None = None, limit: int = 0, measured_size: int | None = None
) -> list[Subject]:
    """Read the cameras of all samples and of their truth; pictures are read when they are needed.

    Args:
        data: Samples.
        truth: Samples of further cameras; None for none.
        limit: Take the first so many; 0 takes all.
        measured_size: Side of the pictures that are measured; None takes each sample's own.

    Returns:
        Recording by recording in the order of time, which blocks of frames rest on.

    Raises:
        DataError: there are no samples, or a sample of truth is missing or belongs to another frame.
        ConfigError: `data` is a lone picture.
    """
    sources = find_sources(data, limit)
    if sources[0].is_picture:
        raise ConfigError(f"data={data} is a picture; there is nothing to compare with. Give samples.")
    further = {} if truth is None else {source.name: source.path for source in find_sources(truth)}
    missing = [source.name for source in sources if truth is not None and source.name not in further]
    if missing:
        raise DataError(
            f"{truth}: has no sample called {missing[0]}, as {data} has ({len(missing)} of {len(sources)} "
            "are missing). Truth goes by the sample's name; limit data to samples that have truth."
        )
    subjects = []
    for source in sources:
        known = read_sample(further[source.name]) if source.name in further else None
        subjects.append(Subject(read_sample(source.path), known, measured_size))
        _check(subjects[-1])
    return sorted(subjects, key=lambda s: (Rig.of(s.sample).recording, s.sample.frame_index or 0))


def _check(subject: Subject) -> None:
    ids, further = subject.view_ids, subject.further_ids
    check_ids(subject.sample.folder, ids)
    if subject.truth is None:
        return
    twice = sorted(set(ids) & set(further)) or [view for view in further if further.count(view) > 1]
    if twice:
        raise DataError(
            f"{subject.truth.folder}: its camera {twice[0]} is there twice, or also a camera of "
            f"{subject.sample.folder}; truth holds further cameras alone."
        )
    frames = [subject.sample.world_from_model, subject.truth.world_from_model]
    if not _same(frames):
        raise DataError(
            f"{subject.truth.folder}: its world_from_model is not that of {subject.sample.folder}, so both "
            "show the animal at different places. Make the truth for exactly these samples."
        )


def _same(frames: Sequence[np.ndarray | None]) -> bool:
    one, other = frames
    if one is None or other is None:
        return True
    return bool(np.abs(one - other).max() <= SAME_FRAME * np.abs(one).max())
