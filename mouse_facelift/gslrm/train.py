"""Training GS-LRM: show some views of a sample, render others from the Gaussians, compare."""

import logging
from dataclasses import replace
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
from ..samples.datasets import SampleDataset, as_floats, composite
from ..samples.format import read_list
from ..samples.mixture import Mixture
from ..samples.training_data import TrainingData
from ..spacing import spread_evenly
from ..training.data import open_samples, with_start
from ..training.loop import fit, seed_everything
from ..training.preflight import run_folder
from ..training.process import this_process
from ..training.trial import trial
from .adapters import choose_parts
from .augment import augment
from .config import TrainGSLRMConfig
from .input_augment import augment_inputs
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
    dataset = _training_samples(config, dry_run)
    validation = dataset.sets[0]
    if data.val_list is not None and not config.overfit:
        validation = SampleDataset.from_list(data.val_list, data.image_size)
    seed_everything(config.training.seed)
    measured = config.validation.model_copy(update={"samples": 1}) if dry_run else config.validation
    task = GSLRMTask(
        config.model_copy(update={"validation": measured}),
        start_model(config, weights),
        dataset,
        validation,
        weights,
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


def _training_samples(config: TrainGSLRMConfig, dry_run: bool) -> Mixture:
    """All data sets of training; of several the log says what each will contribute."""
    data, training = config.data, config.training
    sets, weights = [], []
    for path, weight in data.weighted_lists:
        sets.append(open_samples(path, data.image_size, config.overfit, training, dry_run))
        weights.append(weight)
    mixture = Mixture(sets, weights)
    if len(sets) > 1:
        drawn = training.steps * training.batch_size * training.gradient_accumulation
        drawn *= this_process().num_processes
        for (path, _), samples, (count, share) in zip(data.weighted_lists, sets, mixture.parts, strict=True):
            log.info(
                "%s: %.1f %% of what is drawn, from %d samples of %d views: each %.1f times",
                path,
                100 * share,
                count,
                len(samples.view_ids),
                drawn * share / count,
            )
    return mixture


def _inputs(config: TrainGSLRMConfig, weights: Path | None) -> list[Path]:
    """Files whose hashes are kept. A missing one is told, before anything large is read."""
    lists = {path for path, _ in config.data.weighted_lists}
    files = sorted(lists | ({config.data.val_list} if config.data.val_list else set()))
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

    Args:
        config: Of the training.
        module: The model before the first step.
        dataset: Training samples.
        validation: Validation samples.
        start: File of the weights that `module` starts from; None for random ones.

    Attributes:
        parts: Samples and share of each data set.
        split: Which views serve what.
        measured: What the last validation returned; empty before it.
    """

    def __init__(
        self,
        config: TrainGSLRMConfig,
        module: GSLRM,
        dataset: Mixture,
        validation: SampleDataset,
        start: Path | None = None,
    ) -> None:
        self.config, self.sets, self.start = config, dataset.sets, start
        self.criterion = RenderingLoss(config.loss)
        self.split = split_views(config, dataset, validation)
        self.measured: dict[str, float | str] = {}
        self.module: nn.Module = module
        self.dataset: Dataset[dict[str, Any]] = dataset
        self.parts = dataset.parts
        self.validation = validation

    @property
    def best_metric(self) -> str:
        """The figure by which the best checkpoints are kept."""
        return "psnr_held_out" if self.split.held_out else "psnr_input"

    def training_data(self) -> TrainingData:
        """What is trained on; see `training.task.Task`."""
        here = TrainingData(())
        for samples in self.sets:
            view_ids = samples.view_ids
            seen = [view_ids[position] for position in self.split.trained if position < len(view_ids)]
            here = TrainingData.of(samples.samples, seen).joined(here)
        return here if self.start is None else with_start(here, self.start)

    def loss(self, module: nn.Module, batch: dict[str, Any], generator: torch.Generator) -> dict[str, Tensor]:
        """Move the worlds, draw views, spoil the inputs; reconstruct from these, compare on the targets.

        Returns the loss's terms and `psnr`, of the animal's pixels alone, in dB.
        """
        batch = as_floats(batch)
        # Views that are held out for good go no further than here.
        names = ("rgba", "K", "w2c", "may_show", "may_compare")
        rgba, K, w2c, may_show, may_compare = (batch[name][:, self.split.trained] for name in names)
        cameras = augment(CameraBatch(K, w2c), self.config.augment, generator)
        inputs, targets = draw_views(self.config.views, may_show, may_compare, generator)
        background = self.config.data.background
        rgb, alpha = composite(rgba, background), rgba[:, :, 3:]

        shown = select_views(torch.cat([rgb, alpha], dim=2), inputs)
        gaussians = module(
            *augment_inputs(shown, cameras.select(inputs), self.config.input_augment, background, generator)
        )
        picture = self._render(gaussians, cameras.select(targets))
        step = batch.get("step", 0)
        hull = points = None
        if self.config.loss.hull_depth:
            hull = select_views(self._hull(alpha, cameras, may_compare), targets)
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
            background = self.config.data.background
            rgb = composite(rgba, background)
            inputs = torch.cat([rgb, rgba[:, :, 3:]], dim=2)[:, shown]
            picture = self._render(module(inputs, cameras.select(torch.tensor([shown]))), cameras)
            scores.append(view_scores(picture.rgb[0], picture.alpha[0], rgba[0], background, self.split))
            error = (picture.rgb[0] - rgb[0]).abs()
            write_png(folder / f"views_{number:02d}.png", contact_sheet(rgb[0], picture.rgb[0], error))
        self.measured = {**self.split.names(self.validation.view_ids), **mean_scores(scores)}
        return self.measured

    def export(self, module: nn.Module, folder: Path) -> None:
        """Write what `load_gslrm` reads."""
        save_gslrm(cast(GSLRM, module), folder, self.config.data.image_size)

    def _hull(self, alpha: Tensor, cameras: CameraBatch, carving: Tensor) -> Tensor:
        """Depth of each sample's hull in the views that are truth, which alone carve it. [B, V, 1, H, W]"""
        reach, samples = self.config.model.depth_range, self.config.model.hull_samples
        if carving.all():
            return hull_depths(alpha, cameras, reach, samples)
        depths = torch.full_like(alpha, torch.nan)
        for number, views in enumerate(carving):
            own = CameraBatch(cameras.K[number, views][None], cameras.w2c[number, views][None])
            depths[number, views] = hull_depths(alpha[number, views][None], own, reach, samples)[0]
        return depths

    def _pixel_points(self, gaussians: Gaussians, cameras: CameraBatch) -> PixelPoints:
        means = gaussians.means[:, self.config.model.free_gaussians :]
        centers = -(cameras.w2c[..., :3, :3] * cameras.w2c[..., :3, 3:]).sum(-2)
        return PixelPoints(means.unflatten(1, (cameras.K.shape[1], -1)), centers)

    def _render(self, gaussians: Gaussians, cameras: CameraBatch) -> Rendering:
        size, threshold = self.config.data.image_size, self.config.loss.min_opacity
        if threshold:
            opacities = gaussians.opacities
            gaussians = replace(gaussians, opacities=opacities * (opacities > threshold))
        return render(gaussians, cameras.K, cameras.w2c, size, size, background=self.config.data.background)
