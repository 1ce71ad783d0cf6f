"""Training GS-LRM: show some views of a sample, render others from the Gaussians, compare."""

import logging
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from ..errors import ConfigError
from ..gaussians.gaussians import Gaussians
from ..gaussians.rendering import Rendering, render
from ..geometry.rays import CameraBatch, select_views
from ..metrics import psnr, silhouette_iou
from ..pictures import contact_sheet, write_png
from ..samples.datasets import SampleDataset, composite
from ..training.checkpoints import checkpoint_to_resume
from ..training.loop import fit, seed_everything
from ..training.sampler import spread_evenly
from .config import TrainGSLRMConfig
from .losses import rendering_loss
from .model import GSLRM
from .weights import find_weights, load_gslrm, save_gslrm

log = logging.getLogger(__name__)


def run(config: TrainGSLRMConfig, dry_run: bool = False) -> Path:
    """Train as configured.

    Args:
        config: The resolved configuration.
        dry_run: Check data, cameras and start weights, then return without training.

    Returns:
        The run's folder. Its checkpoints' `weights/` are what `load_gslrm` reads.

    Raises:
        ConfigError: more views are asked for than the samples have, or `output` holds another run.
        DataError: a list or sample cannot be used.
        CheckpointError: the start weights cannot be used.
    """
    data = config.data
    dataset = SampleDataset.from_list(
        data.train_list, data.image_size, limit=config.overfit, cache=config.training.cache_samples
    )
    validation = dataset
    if data.val_list is not None and not config.overfit:
        validation = SampleDataset.from_list(data.val_list, data.image_size)
    _check_view_counts(config, dataset, validation)
    seed_everything(config.training.seed)
    task = GSLRMTask(config, start_model(config), dataset, validation)
    if dry_run:
        checkpoint_to_resume(config.output, config.training.resume)
        log.info("ready: %d training and %d validation samples", len(dataset), len(validation))
        return config.output
    return fit(
        task,
        optimizer=config.optimizer,
        training=config.training,
        output=config.output,
        command="train-gslrm",
        config=config,
        inputs=_inputs(config),
    )


def _inputs(config: TrainGSLRMConfig) -> list[Path]:
    lists = {config.data.train_list, config.data.val_list or config.data.train_list}
    weights = [] if config.start.weights is None else [find_weights(config.start.weights)]
    return [*sorted(lists), *weights]


def start_model(config: TrainGSLRMConfig) -> GSLRM:
    """The model before the first step: from `start.weights`, or random from torch's global generator."""
    if config.start.weights is None:
        return GSLRM(config.model)
    return load_gslrm(config.start.weights, config=config.model)


class GSLRMTask:
    """What the training loop needs to know (see `training.task.Task`)."""

    def __init__(
        self,
        config: TrainGSLRMConfig,
        module: GSLRM,
        dataset: SampleDataset,
        validation: SampleDataset,
    ) -> None:
        self.config = config
        self.module: nn.Module = module
        self.dataset: Dataset[dict[str, Any]] = dataset
        self.validation = validation

    def loss(self, module: nn.Module, batch: dict[str, Any], generator: torch.Generator) -> dict[str, Tensor]:
        """Draw input and target views per sample, reconstruct from the first, compare on the second."""
        samples, views = batch["rgba"].shape[:2]
        inputs = draw_views(samples, views, self.config.views.input_views, generator)
        targets = draw_views(samples, views, self.config.views.target_views, generator)
        cameras = CameraBatch(batch["K"], batch["w2c"])
        rgb, alpha = composite(batch["rgba"], self.config.data.background), batch["rgba"][:, :, 3:]

        shown = torch.cat([rgb, alpha], dim=2)
        gaussians = module(select_views(shown, inputs), cameras.select(inputs))
        picture = self._render(gaussians, cameras.select(targets))
        return rendering_loss(
            picture.rgb,
            picture.alpha,
            select_views(rgb, targets),
            select_views(alpha, targets),
            self.config.loss,
        )

    def validate(self, module: nn.Module, folder: Path) -> dict[str, float]:
        """Foreground PSNR and silhouette IoU on input and held-out views, and a grid of pictures per sample.

        Grids `views_XX.png` hold rows of real views, rendered views, absolute error.
        """
        device = next(module.parameters()).device
        scores: dict[str, list[Tensor]] = {}
        for number, index in enumerate(spread_evenly(len(self.validation), self.config.validation.samples)):
            item = self.validation[index]
            rgba = item["rgba"][None].to(device)
            cameras = CameraBatch(item["K"][None], item["w2c"][None]).to(device)
            inputs = spread_evenly(rgba.shape[1], self.config.validation.input_views)
            rgb, alpha = composite(rgba, self.config.data.background), rgba[:, :, 3:]

            shown = torch.cat([rgb, alpha], dim=2)[:, inputs]
            gaussians = module(shown, cameras.select(torch.tensor([inputs])))
            picture = self._render(gaussians, cameras)
            held_out = [view for view in range(rgba.shape[1]) if view not in inputs]
            for kind, views in (("input", inputs), ("held_out", held_out)):
                if views:
                    quality = psnr(picture.rgb[0, views], rgb[0, views], mask=alpha[0, views])
                    overlap = silhouette_iou(picture.alpha[0, views], alpha[0, views])
                    scores.setdefault(f"psnr_{kind}", []).append(quality.nanmean())
                    scores.setdefault(f"iou_{kind}", []).append(overlap.mean())
            error = (picture.rgb[0] - rgb[0]).abs()
            write_png(folder / f"views_{number:02d}.png", contact_sheet(rgb[0], picture.rgb[0], error))
        return {name: float(torch.stack(values).nanmean()) for name, values in scores.items()}

    def export(self, module: nn.Module, folder: Path) -> None:
        """Write what `load_gslrm` reads."""
        save_gslrm(cast(GSLRM, module), folder)

    def _render(self, gaussians: Gaussians, cameras: CameraBatch) -> Rendering:
        size = self.config.data.image_size
        return render(gaussians, cameras.K, cameras.w2c, size, size, background=self.config.data.background)


def draw_views(samples: int, views: int, count: int, generator: torch.Generator) -> Tensor:
    """Different random views for each sample, without repetition, in ascending order. [samples, count]"""
    order = torch.rand(samples, views, generator=generator).argsort(dim=1)
    return order[:, :count].sort(dim=1).values


def _check_view_counts(config: TrainGSLRMConfig, dataset: SampleDataset, validation: SampleDataset) -> None:
    wanted = {
        "views.input_views": (config.views.input_views, dataset),
        "views.target_views": (config.views.target_views, dataset),
        "validation.input_views": (config.validation.input_views, validation),
    }
    for key, (count, samples) in wanted.items():
        available = len(samples.view_ids)
        if count > available:
            raise ConfigError(
                f"{key} is {count}, but the samples have {available} views "
                f"({samples.samples[0].folder}). Set it to at most {available}."
            )
