"""`mfl train-mvdiff`: fine-tune the multi-view diffusion on samples."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Generator, Tensor, nn
from torch.utils.data import Dataset

from ..errors import CheckpointError, ConfigError
from ..files import atomic_folder
from ..samples.datasets import SampleDataset, composite
from ..training.checkpoints import Checkpoint, checkpoint_to_resume
from ..training.loop import fit, seed_everything, this_process
from ..training.sampler import spread_evenly
from .conditioning import Condition
from .config import DiffusionConfig, TrainMVDiffConfig, ValidationConfig
from .frozen import FrozenParts
from .objective import Draws, diffusion_loss
from .pipeline import MVDiffusionPipeline, frozen_folder, write_frozen, write_trained
from .slots import SLOTS_FILE, Slots
from .start import BACKGROUNDS, fit_random_vae, read_start, start_pipeline
from .unet import LATENT_CHANNELS, MultiViewUNet
from .validation import view_metrics, write_grid

log = logging.getLogger(__name__)

COMMAND = "train-mvdiff"


class SlotDataset(Dataset[dict[str, Any]]):
    """Samples with their views in slot order; every tensor of an item has the view axis first."""

    def __init__(self, data: SampleDataset, slots: Slots) -> None:
        self.data = data
        self.order = [data.view_ids.index(view) for view in slots.view_ids]

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = self.data[index]
        return {key: value[self.order] if isinstance(value, Tensor) else value for key, value in item.items()}


class MVDiffusionTask:
    """What the training loop must know; see `training.task.Task`."""

    def __init__(
        self,
        pipeline: MVDiffusionPipeline,
        dataset: SlotDataset,
        validation_set: SlotDataset,
        background: str,
        diffusion: DiffusionConfig,
        validation: ValidationConfig,
    ) -> None:
        self.pipeline = pipeline
        self.module: nn.Module = pipeline.unet
        self.dataset: Dataset[dict[str, Any]] = dataset
        self.validation_set = validation_set
        self.backgrounds = torch.tensor(BACKGROUNDS[background])
        self.diffusion = diffusion
        self.validation = validation

    def loss(self, module: nn.Module, batch: dict[str, Any], generator: Generator) -> dict[str, Tensor]:
        """The published objective. Draws: one background per object, then `Draws`."""
        rgba = batch["rgba"]
        frozen = self._frozen_on(rgba.device)
        chosen = torch.randint(len(self.backgrounds), (len(rgba),), generator=generator)
        background = self.backgrounds[chosen].to(rgba.device)[:, None, None, None, None]
        views = composite(rgba, background)
        side = rgba.shape[-1] // frozen.pixels_per_latent
        shape = (*rgba.shape[:2], LATENT_CHANNELS, side, side)
        schedule = frozen.scheduler.alphas_cumprod
        draws = Draws.sample(generator, shape, frozen.image_encoder.config.projection_dim, len(schedule))
        draws = draws.to(rgba.device)
        latents = frozen.encode(views.flatten(0, 1), draws.posterior.flatten(0, 1)).view(shape)
        condition = training_condition(frozen, views[:, 0], self.pipeline.prompt_embeds, draws)
        condition = condition.dropped(draws.drop, self.diffusion.condition_drop_rate)
        return {"loss": diffusion_loss(module, latents, condition, draws, schedule, self.diffusion.snr_gamma)}

    def validate(self, module: nn.Module, folder: Path) -> dict[str, float]:
        """Sample fixed objects with fixed noise; writes `views_XX.png` per object."""
        unet = cast(MultiViewUNet, module)
        self._frozen_on(unet.device)
        pipeline = replace(self.pipeline, unet=unet)
        generated, real, alpha = [], [], []
        for number, index in enumerate(spread_evenly(len(self.validation_set), self.validation.samples)):
            rgba = self.validation_set[index]["rgba"].to(unet.device)
            views = composite(rgba, 1.0)
            made = pipeline(
                views[:1],
                generators=[Generator().manual_seed(self.validation.seed + number)],
                steps=self.validation.steps,
                guidance=self.validation.guidance,
            )[0]
            write_grid(folder / f"views_{number:02d}.png", views[0], views, made)
            generated.append(made)
            real.append(views)
            alpha.append(rgba[:, 3:])
        names = self.pipeline.slots.names
        return view_metrics(torch.stack(generated), torch.stack(real), torch.stack(alpha), names)

    def export(self, module: nn.Module, folder: Path) -> None:
        """Write UNet, prompt embeddings and slots; the frozen parts lie once in the run's `pipeline/`."""
        write_trained(folder, cast(MultiViewUNet, module), self.pipeline.prompt_embeds, self.pipeline.slots)

    def _frozen_on(self, device: torch.device) -> FrozenParts:
        if self.pipeline.frozen.vae.device != device:
            self.pipeline.frozen.to(device)
            self.pipeline.prompt_embeds = self.pipeline.prompt_embeds.to(device)
        return self.pipeline.frozen


def training_condition(
    frozen: FrozenParts, reference: Tensor, prompt_embeds: Tensor, draws: Draws
) -> Condition:
    """Encode reference pictures as in training: CLIP sees unrounded pixels.

    Args:
        frozen: The frozen parts, on the pictures' device.
        reference: RGB in [0, 1]. [B, 3, S, S]
        prompt_embeds: [V, T, C]
        draws: Its embedding noise is used.
    """
    latents = frozen.encode(reference)[:, None].expand(-1, len(prompt_embeds), -1, -1, -1)
    embeds = frozen.image_embeds(reference, eight_bit=False)[:, None].expand_as(draws.embed)
    labels = frozen.class_labels(embeds, draws.embed)
    return Condition(latents, labels, prompt_embeds.expand(len(reference), -1, -1, -1))


def run(config: TrainMVDiffConfig, dry_run: bool = False) -> Path:
    """Train, or continue the run in `config.output`.

    Args:
        config: The resolved configuration.
        dry_run: Read and check data and weights, then return without writing anything.

    Returns:
        The run's folder.

    Raises:
        DataError: samples are missing or have other views than the slots need.
        CheckpointError: weights are missing or do not fit.
        ConfigError: settings that contradict each other.
    """
    seed_everything(config.training.seed)
    train_data, val_data = _read_data(config)
    slots = _slots(config, train_data)
    resumed = checkpoint_to_resume(config.output, config.training.resume)
    attention = config.diffusion.attention
    if resumed is not None:
        _check_same_slots(resumed, slots)
        pipeline = read_start(resumed.folder, slots, attention)
    else:
        pipeline = start_pipeline(config.start, slots, attention, config.training.seed)
    task = MVDiffusionTask(
        pipeline,
        SlotDataset(train_data, slots),
        SlotDataset(val_data, slots),
        config.data.background,
        config.diffusion,
        config.validation,
    )
    if dry_run:
        return config.output
    if resumed is None or not resumed.folder.resolve().is_relative_to(config.output.resolve()):
        _share_frozen(config, pipeline, train_data if resumed is None else None)
    inputs = sorted({config.data.train_list, config.data.val_list})
    return fit(task, config.optimizer, config.training, config.output, COMMAND, config, inputs)


def _read_data(config: TrainMVDiffConfig) -> tuple[SampleDataset, SampleDataset]:
    data, cache = config.data, config.training.cache_samples
    train = SampleDataset.from_list(data.train_list, data.image_size, config.overfit, cache)
    if config.overfit:
        return train, train
    val = SampleDataset.from_list(data.val_list, data.image_size)
    if sorted(val.view_ids) != sorted(train.view_ids):
        raise ConfigError(
            f"{data.val_list} has views {val.view_ids}, {data.train_list} has {train.view_ids}; training and "
            "validation need the same cameras."
        )
    return train, val


def _slots(config: TrainMVDiffConfig, train: SampleDataset) -> Slots:
    data = config.data
    if data.slots == "rig":
        return Slots.rig(
            train.samples, data.image_size, data.reference_view, clockwise=data.slot_order == "clockwise"
        )
    slots = Slots.facelift(data.image_size)
    slots.check_samples(train.samples)
    return slots


def _check_same_slots(resumed: Checkpoint, slots: Slots) -> None:
    then = Slots.load(resumed.weights / SLOTS_FILE)
    if (then.view_ids, then.image_size) != (slots.view_ids, slots.image_size):
        raise CheckpointError(
            f"{resumed.folder} was trained on views {list(then.view_ids)} at {then.image_size} px, the data "
            f"now gives {list(slots.view_ids)} at {slots.image_size} px. Restore the data, or set "
            "start.kind=run."
        )


def _share_frozen(
    config: TrainMVDiffConfig, pipeline: MVDiffusionPipeline, vae_data: SampleDataset | None
) -> None:
    """Write the run's `pipeline/`; with `vae_data` and a random start, fit the VAE first.

    The first process does it, the others then read what it wrote, so that all share one VAE to the bit.
    """
    folder, state = frozen_folder(config.output), this_process()
    if state.is_main_process:
        if vae_data is not None and config.start.kind == "random":
            fit_random_vae(pipeline, vae_data, config.data.background, config.start, config.training.seed)
        with atomic_folder(folder) as temporary:
            write_frozen(temporary, pipeline.frozen)
    state.wait_for_everyone()
    if not state.is_main_process:
        pipeline.frozen = FrozenParts.load(folder)
