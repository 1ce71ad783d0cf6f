"""Training GS-LRM: show some views of a sample, render others from the Gaussians, compare."""

import logging
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from ..gaussians.gaussians import Gaussians
from ..gaussians.rendering import Rendering, render
from ..geometry.rays import CameraBatch, select_views
from ..metrics import psnr
from ..pictures import contact_sheet, write_png
from ..samples.datasets import EightBitSamples, SampleDataset, as_floats, composite
from ..samples.format import read_list
from ..training.data import open_samples
from ..training.loop import fit, seed_everything
from ..training.preflight import run_folder
from ..training.sampler import spread_evenly
from ..training.trial import trial
from .adapters import choose_parts
from .augment import augment
from .config import TrainGSLRMConfig
from .losses import PixelPoints, RenderingLoss, hull_depths
from .model import GSLRM
from .perceptual import check_vgg
from .scores import mean_scores, overfit_verdict, view_scores
from .views import draw_views, split_views
from .weights import find_weights, load_gslrm, save_gslrm

log = logging.getLogger(__name__)

COMMAND = "train-gslrm"


def run(config: TrainGSLRMConfig, dry_run: bool = False) -> Path:
    """Train as configured.

    Args:
        config: The resolved configuration.
        dry_run: Check everything, do one step, tell what the run will need, and leave nothing behind.

    Returns:
        The run's folder. Its checkpoints' `weights/` are what `load_gslrm` reads.

    Raises:
        ConfigError: more views are asked for than the samples have, `output` holds another run or another
            process trains there, or the optimizer is for other devices.
        DataError: a list or sample cannot be used.
        CheckpointError: the start weights cannot be used.
        DependencyError: adapters are asked for and peft is not installed, or the optimizer's library.
    """
    with run_folder(COMMAND, config.optimizer, config.training, config.output, dry_run):
        return _run(config, dry_run)


def _run(config: TrainGSLRMConfig, dry_run: bool) -> Path:
    weights = None if config.start.weights is None else find_weights(config.start.weights)
    inputs = _inputs(config, weights)
    data = config.data
    dataset = open_samples(data.train_list, data.image_size, config.overfit, config.training, dry_run)
    validation = dataset
    if data.val_list is not None and not config.overfit:
        validation = SampleDataset.from_list(data.val_list, data.image_size)
    seed_everything(config.training.seed)
    measured = config.validation.model_copy(update={"samples": 1}) if dry_run else config.validation
    task = GSLRMTask(
        config.model_copy(update={"validation": measured}), start_model(config, weights), dataset, validation
    )
    run_of = (task, config.optimizer, config.training, config.output, COMMAND, config, inputs)
    if dry_run:
        log.info("%d training and %d validation samples", len(dataset), len(validation))
        trial(*run_of, validation_samples=min(config.validation.samples, len(validation)))
        return config.output
    fit(*run_of)
    if config.overfit and task.measured:
        log.info(overfit_verdict(task.measured, config.training.steps))
    return config.output


def _inputs(config: TrainGSLRMConfig, weights: Path | None) -> list[Path]:
    """Files whose hashes are kept. A missing one is told, before anything large is read."""
    files = sorted({config.data.train_list, config.data.val_list or config.data.train_list})
    for path in files:
        # Without use in overfit, but part of the run's record.
        read_list(path)
    if weights is not None:
        files.append(weights)
    loss = config.loss
    if loss.perceptual and loss.perceptual_weights is not None:
        check_vgg(loss.perceptual_weights, 19)
        files.append(loss.perceptual_weights)
    if loss.lpips and loss.lpips_weights is not None:
        check_vgg(loss.lpips_weights, 16)
        files.append(loss.lpips_weights)
    return files


def start_model(config: TrainGSLRMConfig, weights: Path | None) -> GSLRM:
    """The model before the first step. What does not learn is frozen, and adapters are in place.

    Args:
        config: Of the training.
        weights: The file of `start.weights`; None begins from torch's global generator.
    """
    model = GSLRM(config.model) if weights is None else load_gslrm(weights, config=config.model)
    choose_parts(model, config.parts)
    if config.model.compile and torch.cuda.is_available():
        model.compile_blocks()
    return model


class GSLRMTask:
    """What the training loop needs to know (see `training.task.Task`).

    Attributes:
        split: Which views serve what.
        measured: What the last validation returned; empty before it.
    """

    def __init__(
        self,
        config: TrainGSLRMConfig,
        module: GSLRM,
        dataset: SampleDataset,
        validation: SampleDataset,
    ) -> None:
        self.config = config
        self.criterion = RenderingLoss(config.loss)
        self.split = split_views(config, dataset, validation)
        self.measured: dict[str, float | str] = {}
        self.module: nn.Module = module
        self.dataset: Dataset[dict[str, Any]] = EightBitSamples(dataset)
        self.validation = validation

    @property
    def best_metric(self) -> str:
        """The figure by which the best checkpoints are kept."""
        return "psnr_held_out" if self.split.held_out else "psnr_input"

    def loss(self, module: nn.Module, batch: dict[str, Any], generator: torch.Generator) -> dict[str, Tensor]:
        """Move the worlds, draw views; reconstruct from the inputs, compare on the targets.

        Returns the loss's terms and `psnr`, of the animal's pixels alone, in dB.
        """
        batch = as_floats(batch)
        # Views that are held out for good go no further than here.
        rgba, K, w2c = (batch[key][:, self.split.trained] for key in ("rgba", "K", "w2c"))
        cameras = augment(CameraBatch(K, w2c), self.config.augment, generator)
        inputs, targets = draw_views(self.config.views, len(rgba), rgba.shape[1], generator)
        rgb, alpha = composite(rgba, self.config.data.background), rgba[:, :, 3:]

        shown = torch.cat([rgb, alpha], dim=2)
        gaussians = module(select_views(shown, inputs), cameras.select(inputs))
        picture = self._render(gaussians, cameras.select(targets))
        step = batch.get("step", 0)
        hull = points = None
        if self.config.loss.hull_depth:
            reach, samples = self.config.model.depth_range, self.config.model.hull_samples
            hull = select_views(hull_depths(alpha, cameras, reach, samples), targets)
        if self.criterion.needs_points(step):
            points = self._pixel_points(gaussians, cameras.select(inputs))
        real, mask = select_views(rgb, targets), select_views(alpha, targets)
        terms = self.criterion(picture, real, mask, step, hull_depth=hull, gaussians=gaussians, points=points)
        with torch.no_grad():
            return terms | {"psnr": psnr(picture.rgb, real, mask).nanmean()}

    def validate(self, module: nn.Module, folder: Path) -> dict[str, float | str]:
        """Scores on input and on held-out views (see `scores`), and a grid of pictures per sample.

        Grids `views_XX.png` hold rows of real views, rendered views, absolute error.
        """
        device = next(module.parameters()).device
        shown, scores = list(self.split.shown), []
        for number, index in enumerate(spread_evenly(len(self.validation), self.config.validation.samples)):
            item = self.validation[index]
            rgba = item["rgba"][None].to(device)
            cameras = CameraBatch(item["K"][None], item["w2c"][None]).to(device)
            rgb, alpha = composite(rgba, self.config.data.background), rgba[:, :, 3:]
            inputs = torch.cat([rgb, alpha], dim=2)[:, shown]
            picture = self._render(module(inputs, cameras.select(torch.tensor([shown]))), cameras)
            scores.append(view_scores(picture.rgb[0], picture.alpha[0], rgb[0], alpha[0], self.split))
            error = (picture.rgb[0] - rgb[0]).abs()
            write_png(folder / f"views_{number:02d}.png", contact_sheet(rgb[0], picture.rgb[0], error))
        self.measured = {**self.split.names(self.validation.view_ids), **mean_scores(scores)}
        return self.measured

    def export(self, module: nn.Module, folder: Path) -> None:
        """Write what `load_gslrm` reads."""
        save_gslrm(cast(GSLRM, module), folder)

    def _pixel_points(self, gaussians: Gaussians, cameras: CameraBatch) -> PixelPoints:
        means = gaussians.means[:, self.config.model.free_gaussians :]
        centers = -(cameras.w2c[..., :3, :3] * cameras.w2c[..., :3, 3:]).sum(-2)
        return PixelPoints(means.unflatten(1, (cameras.K.shape[1], -1)), centers)

    def _render(self, gaussians: Gaussians, cameras: CameraBatch) -> Rendering:
        size = self.config.data.image_size
        return render(gaussians, cameras.K, cameras.w2c, size, size, background=self.config.data.background)
