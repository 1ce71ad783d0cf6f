"""What shall be made of which sample: names, parts of the split, reference views, seeds."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError, DataError, MflError
from ..inference.generation import choose_reference
from ..progress import track
from ..provenance import sha256
from ..samples.datasets import check_ids
from ..samples.format import CAMERAS_FILE, Sample, SampleView, read_list, read_sample
from .checkpoint import Checkpoint
from .config import SynthesizeConfig

PARTS = ("train", "val")
LISTS = {part: f"data_{part}.txt" for part in PARTS}


@dataclass(frozen=True)
class Planned:
    """A sample to be made.

    Attributes:
        name: Of its folder.
        part: `train` or `val`, that of the source.
        source: What its reference view is taken from.
        reference: Camera id of the shown view.
        seed: Of the sampling noise; other noise for every name and variant.
        recipe: All that decides what it will look like, JSON-ready.
    """

    name: str
    part: str
    source: Sample
    reference: int
    seed: int
    recipe: Mapping[str, Any]

    @property
    def shown(self) -> SampleView:
        """The view that MVDiffusion is shown."""
        return next(view for view in self.source.views if view.view_id == self.reference)


def find_samples(config: SynthesizeConfig) -> dict[str, list[Sample]]:
    """The samples of each part of the split.

    Raises:
        DataError: a list or sample cannot be used, there are no samples, or two of one name: one sample in
            both lists would be validated on after it had been trained on.
    """
    paths = _lists(config)
    found = {part: [read_sample(folder) for folder in read_list(path)] for part, path in paths.items()}
    places: dict[str, Path] = {}
    for part, samples in found.items():
        for sample in samples:
            check_ids(sample.folder, [view.view_id for view in sample.views])
            name, folder = sample.folder.resolve().name, sample.folder.resolve()
            if name in places:
                twice = "is listed twice" if places[name] == folder else f"has the name of {places[name]}"
                raise DataError(
                    f"{paths[part]}: {folder} {twice}; every sample needs a name of its own, and belongs to "
                    "one list."
                )
            places[name] = folder
    return {part: samples[: config.limit or None] for part, samples in found.items()}


def make_plan(
    config: SynthesizeConfig, samples: Mapping[str, Sequence[Sample]], checkpoint: Checkpoint
) -> list[Planned]:
    """List what shall be made, in the order of the lists.

    The hashes of pictures make sure that nothing is kept of samples that have changed.

    Args:
        config: Of the synthesis.
        samples: By part of the split.
        checkpoint: What makes the views.

    Raises:
        ConfigError: MVDiffusion is tied to another reference, or two new samples would have one name.
        DataError: a sample lacks cameras that its views need.
    """
    wanted: Sequence[int | None] = config.reference_views or [None]
    members = [(part, sample) for part, of_part in samples.items() for sample in of_part]
    plan = [
        _planned(config, part, sample, variant, wanted[variant % len(wanted)], checkpoint)
        for part, sample in track(members, "hashing")
        for variant in range(config.variants)
    ]
    sources: dict[str, Path] = {}
    for planned in plan:
        first = sources.setdefault(planned.name, planned.source.folder)
        if first != planned.source.folder:
            raise ConfigError(
                f"variants={config.variants}: {first} and {planned.source.folder} would both become "
                f"{planned.name}. Rename one of them."
            )
    return plan


def _lists(config: SynthesizeConfig) -> dict[str, Path]:
    if config.input is None:
        given = {"train": config.train_list, "val": config.val_list}
        return {part: path for part, path in given.items() if path is not None}
    if not config.input.is_dir():
        raise DataError(f"{config.input}: no such folder; expected one as written by `mfl preprocess`.")
    paths = {part: config.input / name for part, name in LISTS.items()}
    # `mfl preprocess` leaves a list empty where there are too few frames.
    found = {part: path for part, path in paths.items() if path.is_file() and path.stat().st_size}
    if not found:
        raise DataError(
            f"{config.input}: has neither {' nor '.join(LISTS.values())} with samples "
            "in it. Give a folder written by `mfl preprocess`, or train_list and val_list."
        )
    return found


def _planned(
    config: SynthesizeConfig,
    part: str,
    sample: Sample,
    variant: int,
    wanted: int | None,
    checkpoint: Checkpoint,
) -> Planned:
    try:
        reference = choose_reference(checkpoint.slots, wanted, [view.view_id for view in sample.views])
    except MflError as error:
        raise type(error)(f"{sample.folder}: {error}") from None
    name = sample.folder.resolve().name
    key = f"{config.seed}/{name}/{variant}"
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4])
    recipe = {
        "source": sample.sample_id,
        "source_sha256": _hash(sample, None if config.targets == "real" else reference),
        "mvdiffusion_sha256": checkpoint.sha256,
        "sampling": config.diffusion.model_dump(mode="json"),
        "seed": seed,
        "variant": variant,
        "reference_view": reference,
        "reference": config.reference,
        "targets": config.targets,
    }
    return Planned(f"{name}_v{variant}" if variant else name, part, sample, reference, seed, recipe)


def _hash(sample: Sample, shown: int | None) -> str:
    """Of what is read of a sample: its cameras, and the picture of one view or, for None, of all."""
    files = [view.file for view in sample.views if shown in (None, view.view_id)]
    hashes = [sha256(path) for path in (sample.folder / CAMERAS_FILE, *files)]
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()
