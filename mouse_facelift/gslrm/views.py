"""Which views of a sample a training step shows and compares, and which ones validation holds out."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import ConfigError
from ..samples.datasets import SampleDataset
from ..training.sampler import spread_evenly
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


def split_views(config: TrainGSLRMConfig, training: SampleDataset, validation: SampleDataset) -> ViewSplit:
    """Decide which views serve what.

    To overfit means to train on the very samples that are validated. Views would be held out in name only if
    training drew them, so it draws from the shown ones alone, and at least one view is held out.

    Raises:
        ConfigError: more views are asked for than there are.
    """
    count = len(validation.view_ids)
    if config.overfit:
        return _overfit_split(config, validation)
    _check_counts(config, training, validation)
    if config.data.val_list is None:
        log.warning(
            "data.val_list is null: validation repeats training samples; training has seen its held-out views"
        )
    shown = spread_evenly(count, config.validation.input_views)
    held_out = [view for view in range(count) if view not in shown]
    return ViewSplit(tuple(range(len(training.view_ids))), tuple(shown), tuple(held_out))


def _overfit_split(config: TrainGSLRMConfig, samples: SampleDataset) -> ViewSplit:
    count = len(samples.view_ids)
    if count < 2:
        raise ConfigError(
            f"overfit={config.overfit} needs a view to show and one to hold out, but the samples have "
            f"{count} ({samples.samples[0].folder})."
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


def _check_counts(config: TrainGSLRMConfig, training: SampleDataset, validation: SampleDataset) -> None:
    wanted = {
        "views.input_views": (config.views.input_range[1], training),
        "views.target_views": (config.views.target_views, training),
        "validation.input_views": (config.validation.input_views, validation),
    }
    for key, (count, samples) in wanted.items():
        available = len(samples.view_ids)
        if count > available:
            raise ConfigError(
                f"{key} is {count}, but the samples have {available} views "
                f"({samples.samples[0].folder}). Set it to at most {available}."
            )


def draw_views(
    config: ViewsConfig, samples: int, views: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw input and target views for one step, other ones for each sample.

    Args:
        config: How many; never more than there are.
        samples: Batch size B.
        views: Number of views to draw from.
        generator: On the CPU.

    Returns:
        Positions of the inputs [B, k] and of the targets [B, m], each ascending and without repetition; k is
        the same for the whole batch.
    """
    least, most = (min(count, views) for count in config.input_range)
    k = int(torch.randint(least, most + 1, (), generator=generator))
    inputs = torch.rand(samples, views, generator=generator).argsort(dim=1)[:, :k]
    rank = torch.rand(samples, views, generator=generator)
    if config.targets == "apart":
        # Ranks lie below 1, so inputs come after all other views.
        rank = rank.scatter_add(1, inputs, torch.ones(inputs.shape))
    targets = rank.argsort(dim=1)[:, : config.target_views]
    return inputs.sort(dim=1).values, targets.sort(dim=1).values
