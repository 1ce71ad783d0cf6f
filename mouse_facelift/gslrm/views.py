"""Which views of a sample a training step shows and compares, and which ones validation holds out."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..errors import ConfigError
from ..samples.datasets import SampleDataset
from ..samples.format import Sample
from ..samples.mixture import Mixture
from ..samples.training_data import Rig
from ..spacing import spread_evenly
from .config import TrainGSLRMConfig, ViewsConfig

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ViewSplit:
    """Positions of a data set's views by what they serve.

    Attributes:
        trained: Training sees these alone.
        shown: Validation shows these to the model.
        held_out: Validation compares these without having shown them.
    """

    trained: tuple[int, ...]
    shown: tuple[int, ...]
    held_out: tuple[int, ...]

    def names(self, view_ids: Sequence[int]) -> dict[str, str]:
        """Camera ids of the two groups of validation, for the log."""
        groups = {"input_views": self.shown, "held_out_views": self.held_out}
        return {
            name: " ".join(str(view_ids[view]) for view in views) or "none" for name, views in groups.items()
        }


def split_views(config: TrainGSLRMConfig, training: Mixture, validation: SampleDataset) -> ViewSplit:
    """Decide which views serve what.

    To overfit means to train on the very samples that are validated. Views would be held out in name only if
    training drew them, so it draws from the shown ones alone, and at least one view is held out.

    Raises:
        ConfigError: more views are asked for than there are.
    """
    if config.overfit:
        return _overfit_split(config, validation)
    _check_counts(config, training, validation)
    if config.data.val_list is None:
        log.warning(
            "data.val_list is null: validation repeats training samples; training has seen its held-out views"
        )
    else:
        _warn_of_repeated_frames(training, validation)
    inputs = validation.input_positions
    shown = tuple(inputs[i] for i in spread_evenly(len(inputs), config.validation.input_views))
    held_out = tuple(view for view in validation.target_positions if view not in shown)
    return ViewSplit(tuple(range(training.views)), shown, held_out)


def _overfit_split(config: TrainGSLRMConfig, samples: SampleDataset) -> ViewSplit:
    count, folder = len(samples.view_ids), samples.samples[0].folder
    if count < 2:
        raise ConfigError(
            f"overfit={config.overfit} needs a view to show and one to hold out, but the samples have "
            f"{count} ({folder})."
        )
    if len(samples.input_positions) < count:
        raise ConfigError(
            f"overfit={config.overfit} needs samples whose views are all alike, but those of {folder} tell "
            "inputs from truth. Give the list of the samples that they were made from."
        )
    shown = tuple(spread_evenly(count, min(config.validation.input_views, count - 1)))
    split = ViewSplit(shown, shown, tuple(view for view in range(count) if view not in shown))
    names = split.names(samples.view_ids)
    log.info(
        "overfit: trained are cameras %s; held out, and never trained on: %s",
        names["input_views"],
        names["held_out_views"],
    )
    return split


def _check_counts(config: TrainGSLRMConfig, training: Mixture, validation: SampleDataset) -> None:
    _, most = config.views.input_range
    wanted = [
        *(("views.input_views", most, samples, samples.input_positions) for samples in training.sets),
        *(
            ("views.target_views", config.views.target_views, samples, samples.target_positions)
            for samples in training.sets
        ),
        ("validation.input_views", config.validation.input_views, validation, validation.input_positions),
    ]
    for key, count, samples, positions in wanted:
        available, folder = len(positions), samples.samples[0].folder
        kind = "" if available == len(samples.view_ids) else f" for that, of {len(samples.view_ids)}"
        if count > available:
            raise ConfigError(
                f"{key} is {count}, but the samples have {available} views{kind} ({folder}). Set it to at "
                f"most {available}."
            )


def _warn_of_repeated_frames(training: Mixture, validation: SampleDataset) -> None:
    """Generated samples and the real ones that they are made of are of one frame."""
    trained = {_moment(sample) for samples in training.sets for sample in samples.samples}
    repeated = [sample for sample in validation.samples if _moment(sample) in trained]
    if repeated:
        log.warning(
            "%d of %d validation samples are of frames that are trained on, such as %s: what is measured "
            "there says little about new frames",
            len(repeated),
            len(validation.samples),
            repeated[0].folder,
        )


def _moment(sample: Sample) -> tuple[str, int] | Path:
    """Recording and frame; where they are not known, the sample's place."""
    recording, frame = Rig.of(sample).recording, sample.frame_index
    return (recording, frame) if recording and frame is not None else sample.folder.resolve()


def draw_views(
    config: ViewsConfig, may_show: Tensor, may_compare: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw input and target views for one step, other ones for each sample.

    Args:
        config: How many; never more than every sample has.
        may_show: Which views may be inputs, bool. [B, V]
        may_compare: Which views may be targets, bool. [B, V]
        generator: On the CPU.

    Returns:
        Positions of the inputs [B, k] and of the targets [B, m], each ascending and without repetition; k and
        m are the same for the whole batch.
    """
    may_show, may_compare = may_show.cpu(), may_compare.cpu()
    least, most = (min(count, _fewest(may_show)) for count in config.input_range)
    k = int(torch.randint(least, most + 1, (), generator=generator))
    # Ranks lie below 1: added to them, 1 puts a view after all others, and 2 after these.
    order = torch.rand(may_show.shape, generator=generator) + 2.0 * ~may_show
    inputs = order.argsort(dim=1)[:, :k]
    rank = torch.rand(may_show.shape, generator=generator) + 2.0 * ~may_compare
    if config.targets == "apart":
        rank = rank.scatter_add(1, inputs, torch.ones(inputs.shape))
    targets = rank.argsort(dim=1)[:, : min(config.target_views, _fewest(may_compare))]
    return inputs.sort(dim=1).values, targets.sort(dim=1).values


def _fewest(allowed: Tensor) -> int:
    """Of the samples' numbers of allowed views, the smallest. [B, V]"""
    return int(allowed.sum(dim=1).min())
