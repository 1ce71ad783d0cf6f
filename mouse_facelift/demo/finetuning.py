"""A few steps of fine-tuning, measured before and after on the same samples in the same way."""

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from ..errors import DataError
from ..files import atomic_folder, write_json
from ..gslrm import find_weights
from ..gslrm.config import TrainGSLRMConfig
from ..gslrm.train import GSLRMTask, start_model
from ..gslrm.train import run as train_gslrm
from ..inference.models import choose_device
from ..mvdiffusion.config import TrainMVDiffConfig
from ..mvdiffusion.slots import Slots
from ..mvdiffusion.start import start_pipeline
from ..mvdiffusion.task import SlotDataset
from ..mvdiffusion.train import run as train_mvdiff
from ..mvdiffusion.validation import validate
from ..samples.datasets import SampleDataset
from ..samples.mixture import Mixture
from ..training.logging import read_log

log = logging.getLogger(__name__)

Figures = Mapping[str, float | str]

FIGURES_FILE = "figures.json"
OF_VALIDATION = "validation/"
"""What its figures' names begin with in a training's log."""


def tune_gslrm(config: TrainGSLRMConfig, before: Path) -> tuple[Figures, Figures]:
    """Validate the start weights, fine-tune, and return the validations before and after.

    Args:
        config: Of the training; `start.weights` must be given.
        before: Folder for the first validation, which is kept.
    """
    first = _kept(before, lambda folder: _validate_gslrm(config, folder))
    train_gslrm(config)
    return first, last_validation(config.output)


def tune_mvdiff(config: TrainMVDiffConfig, before: Path) -> tuple[Figures, Figures]:
    """The same for MVDiffusion with pose conditioning; `start.kind` must be run."""
    first = _kept(before, lambda folder: _validate_mvdiff(config, folder))
    train_mvdiff(config)
    return first, last_validation(config.output)


def last_validation(run: Path) -> dict[str, float | str]:
    """What a training measured last.

    Raises:
        DataError: it has measured nothing, as where its disk was full.
    """
    lines = [line for line in read_log(run) if any(key.startswith(OF_VALIDATION) for key in line)]
    if not lines:
        raise DataError(
            f"{run}: the training has measured nothing (see its messages). Free disk space, remove that "
            "folder and call again."
        )
    return {
        key.removeprefix(OF_VALIDATION): value
        for key, value in lines[-1].items()
        if key.startswith(OF_VALIDATION)
    }


def _kept(folder: Path, measure: Callable[[Path], Figures]) -> Figures:
    """Figures that lie in a folder; it appears whole, with the pictures that go with them."""
    if not (folder / FIGURES_FILE).is_file():
        with atomic_folder(folder) as temporary, torch.no_grad():
            write_json(temporary / FIGURES_FILE, dict(measure(temporary)))
    figures: dict[str, float | str] = json.loads((folder / FIGURES_FILE).read_text(encoding="utf-8"))
    return figures


def _validate_gslrm(config: TrainGSLRMConfig, folder: Path) -> Figures:
    assert config.start.weights is not None and config.data.val_list is not None
    weights, size = find_weights(config.start.weights), config.data.image_size
    model = start_model(config, weights).to(choose_device("auto"))
    training = Mixture([SampleDataset.from_list(path, size) for path, _ in config.data.weighted_lists])
    validation = SampleDataset.from_list(config.data.val_list, size)
    return GSLRMTask(config, model, training, validation, weights).validate(model.eval(), folder)


def _validate_mvdiff(config: TrainMVDiffConfig, folder: Path) -> Figures:
    data = config.data
    training = SampleDataset.from_list(data.train_list, data.image_size)
    reference = "first" if data.reference_view == "random" else data.reference_view
    slots = Slots.pose(training.samples, data.image_size, reference)
    pipeline = start_pipeline(config.start, slots, config.diffusion.attention, config.training.seed)
    pipeline.to(choose_device("auto"))
    samples = SlotDataset(SampleDataset.from_list(data.val_list, data.image_size), slots)
    return validate(pipeline, samples, config.validation, folder)
