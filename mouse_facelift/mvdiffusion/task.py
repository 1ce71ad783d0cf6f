"""What the training loop must know about the multi-view diffusion: its loss, its validation, its export."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Generator, Tensor, nn
from torch.utils.data import Dataset

from ..geometry.rays import CameraBatch
from ..samples.datasets import EightBitSamples, SampleDataset, as_floats
from ..samples.training_data import TrainingData
from .augment import jitter
from .conditioning import Condition
from .config import TrainMVDiffConfig
from .denoiser import Denoiser
from .encoding import Encoded, encode_batch, encoders_on, from_cache
from .folders import write_trained
from .frozen import FrozenParts
from .latents import CachedLatents
from .objective import Draws, diffusion_loss
from .pipeline import MVDiffusionPipeline
from .pose import PosedViews, draw_order
from .slots import Slots
from .start import BACKGROUNDS
from .validation import validate


class SlotDataset(Dataset[dict[str, Any]]):
    """Samples with their views in slot order; every tensor of an item has the view axis first."""

    def __init__(self, data: SampleDataset | EightBitSamples | CachedLatents, slots: Slots) -> None:
        self.data = data
        self.order = [data.view_ids.index(view) for view in slots.view_ids]

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = self.data[index]
        return {key: value[self.order] if isinstance(value, Tensor) else value for key, value in item.items()}


class MVDiffusionTask:
    """See `training.task.Task`.

    Args:
        pipeline: To be trained.
        dataset: Training samples, as pictures or as encodings.
        validation_set: Pictures.
        config: Of the training.
        training_data: See `training.task.Task`.
    """

    best_metric = "psnr_animal"

    def __init__(
        self,
        pipeline: MVDiffusionPipeline,
        dataset: SlotDataset,
        validation_set: SlotDataset,
        config: TrainMVDiffConfig,
        training_data: Callable[[], TrainingData] | None = None,
    ) -> None:
        self.pipeline, self.training_data = pipeline, training_data
        self.module: nn.Module = pipeline.denoiser
        self.dataset: Dataset[dict[str, Any]] = dataset
        self.validation_set = validation_set
        self.config = config
        self.backgrounds = torch.tensor(BACKGROUNDS[config.data.background])

    def loss(self, module: nn.Module, batch: dict[str, Any], generator: Generator) -> dict[str, Tensor]:
        """The published objective.

        Draws, each only where it is asked for: reference and views of each object, one background per object,
        the colour jitter, then `Draws`.
        """
        batch = as_floats(batch)
        data, diffusion = self.config.data, self.config.diffusion
        objects, there = batch["view_ids"].shape
        random = data.reference_view == "random"
        order = draw_order(generator, objects, there, random, data.views_per_object)
        background = torch.randint(len(self.backgrounds), (objects,), generator=generator)
        if "rgba" in batch:
            # Before views are chosen: contrast is about the mean colour of all, as it is in the cache.
            batch["rgba"] = jitter(batch["rgba"], self.config.augment, generator)
        views = PosedViews.of(batch).reordered(order)
        encoded = self._encoded(batch, views, order, background, generator)
        frozen, device = self.pipeline.frozen, encoded.mean.device
        schedule = frozen.scheduler.alphas_cumprod
        draws = Draws.sample(
            generator,
            tuple(encoded.mean.shape),
            encoded.embeds.shape[-1],
            len(schedule),
            diffusion.noise_offset,
            diffusion.noise_offset_shared,
        ).to(device)
        condition = training_condition(frozen, self.pipeline.slots, encoded, views.cameras, draws)
        condition = condition.dropped(draws.drop, diffusion.condition_drop_rate)
        latents = encoded.sample(draws.posterior)
        return {"loss": diffusion_loss(module, latents, condition, draws, schedule, diffusion.snr_gamma)}

    def validate(self, module: nn.Module, folder: Path) -> dict[str, float]:
        """Sample fixed objects with fixed noise; see `validation.validate`."""
        denoiser = cast(Denoiser, module)
        device, pipeline = denoiser.unet.device, replace(self.pipeline, denoiser=denoiser)
        settings = self.config.validation
        if not self.config.cache.latents:
            self.pipeline.frozen.to(device)
            return validate(pipeline, self.validation_set, settings, folder)
        self.pipeline.frozen.image_normalizer.to(device)
        with encoders_on(self.pipeline.frozen, device):
            return validate(pipeline, self.validation_set, settings, folder)

    def export(self, module: nn.Module, folder: Path) -> None:
        """Write UNet, prompt embeddings and slots; the frozen parts lie once in the run's `pipeline/`."""
        write_trained(folder, cast(Denoiser, module), self.pipeline.slots)

    def _encoded(
        self,
        batch: dict[str, Any],
        views: PosedViews,
        order: Tensor,
        background: Tensor,
        generator: Generator,
    ) -> Encoded:
        """Encodings of the chosen views, from their pictures or from the cache."""
        frozen, device = self.pipeline.frozen, views.w2c.device
        if views.rgba is not None:
            if frozen.vae.device != device:
                frozen.to(device)
            return encode_batch(frozen, views.rgba, self.backgrounds[background])
        frozen.image_normalizer.to(device)
        variants = batch["mean"].shape[2]
        variant = torch.zeros(len(order), dtype=torch.long)
        if variants > 1:
            variant = torch.randint(variants, (len(order),), generator=generator)
        return from_cache(frozen, batch, order, background, variant)


def training_condition(
    frozen: FrozenParts, slots: Slots, encoded: Encoded, cameras: CameraBatch, draws: Draws
) -> Condition:
    """What the denoiser is told in training, before anything is dropped.

    Args:
        frozen: Its normalizer must be on the encodings' device.
        slots: What the views mean.
        encoded: Of the views, the reference first.
        cameras: Of the same views, K at the pictures' size.
        draws: Its embedding noise is used.
    """
    views = draws.embed.shape[1]
    embeds = encoded.embeds[:, None].expand_as(draws.embed)
    return Condition(
        encoded.reference[:, None].expand(-1, views, -1, -1, -1),
        frozen.class_labels(embeds, draws.embed),
        slots.prompt_index(cameras.w2c),
        slots.rays(cameras, encoded.mean.shape[-1]),
    )
