"""From one picture to V views: the trained UNet, the frozen parts, what the slots mean, and the sampler."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Generator, Tensor, nn

from ..errors import CheckpointError, ConfigError, DataError
from ..files import atomic_folder, write_json
from ..training.checkpoints import MANIFEST, find_checkpoint
from .conditioning import Condition, predict
from .frozen import FrozenParts
from .prompts import PROMPTS_FILE, load_prompt_embeds, save_prompt_embeds
from .slots import FACELIFT_NAMES, SLOTS_FILE, Slots
from .unet import LATENT_CHANNELS, MultiViewUNet
from .weights import read_json

log = logging.getLogger(__name__)

INDEX_FILE = "model_index.json"
PUBLISHED_MODULE = "mvdiffusion."
"""How the published `model_index.json` names the module of its UNet class; it is never imported."""
PUBLISHED_PROMPTS = "clr_embeds.pt"


@dataclass
class MVDiffusionPipeline:
    """One picture of the animal in, V views of it out.

    Attributes:
        unet: Predicts v for all views at once.
        frozen: VAE, CLIP image encoder, image normalizer, preprocessing and schedulers.
        prompt_embeds: Text embeddings of the slots. [V, T, C]
        slots: Which camera each view is; slot 0 is the reference.
    """

    unet: MultiViewUNet
    frozen: FrozenParts
    prompt_embeds: Tensor
    slots: Slots

    def __post_init__(self) -> None:
        views = {self.unet.num_views, len(self.slots), len(self.prompt_embeds)}
        if len(views) != 1:
            raise CheckpointError(
                f"the UNet has {self.unet.num_views} views, the slots {len(self.slots)}, the prompt "
                f"embeddings {len(self.prompt_embeds)}; these parts do not belong together."
            )

    @classmethod
    def load(
        cls,
        path: Path,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        prompt_embeds: Path | None = None,
    ) -> "MVDiffusionPipeline":
        """Read a pipeline, part by part.

        Args:
            path: A pipeline folder (ours or the published one), a training run (its newest complete
                checkpoint is taken), or one checkpoint of a run.
            device: Where it shall run.
            dtype: Of the networks; sampling itself is always fp32.
            prompt_embeds: A file to use instead of the folder's own.

        Raises:
            CheckpointError: a part is missing, damaged or does not fit the others; the message names it.
        """
        trained, frozen = locate(path)
        unet = MultiViewUNet.from_pretrained(trained / "unet")
        slots = _load_slots(trained, frozen, unet)
        embeds = load_prompt_embeds(
            prompt_embeds or find_prompts(trained), unet.num_views, unet.config.cross_attention_dim
        )
        return cls(unet, FrozenParts.load(frozen), embeds, slots).to(device, dtype)

    def save(self, folder: Path) -> None:
        """Write a complete pipeline folder; it appears under its name only when complete."""
        with atomic_folder(folder) as temporary:
            write_frozen(temporary, self.frozen)
            write_trained(temporary, self.unet, self.prompt_embeds, self.slots)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> "MVDiffusionPipeline":
        """Move all networks in place."""
        # Not ModelMixin.to, which warns at every cast.
        nn.Module.to(self.unet, device=device, dtype=dtype)
        self.frozen.to(device, dtype)
        self.prompt_embeds = self.prompt_embeds.to(device)
        return self

    @torch.no_grad()
    def __call__(
        self,
        images: Tensor,
        *,
        generators: Sequence[Generator],
        steps: int = 50,
        guidance: float = 3.0,
        eta: float = 1.0,
    ) -> Tensor:
        """Make the views (facelift_spec.md 6.5).

        Args:
            images: Reference pictures on white, RGB in [0, 1], S = slots.image_size. [B, 3, S, S]
            generators: One per picture, so that a result does not depend on the batch. Each draws, in fp32 on
                its own device: embedding noise [V, D], initial latents [V, 4, h, w], and with eta > 0 the
                noise of every step [V, 4, h, w].
            steps: DDIM steps.
            guidance: Weight of the condition over the unconditional prediction; 1 needs half the work.
            eta: 0 is deterministic DDIM, 1 draws as much noise as DDPM.

        Returns:
            Views in slot order, RGB in [0, 1], on the networks' device. [B, V, 3, S, S]
        """
        self._check(images, generators, steps)
        embed_width = self.frozen.image_encoder.config.projection_dim
        side = self.slots.image_size // self.frozen.pixels_per_latent
        latent_shape = (len(self.slots), LATENT_CHANNELS, side, side)
        condition = self.condition(images, self._draw(generators, (len(self.slots), embed_width)))
        latents = self._draw(generators, latent_shape)
        scheduler = self.frozen.scheduler
        scheduler.set_timesteps(steps)
        for timestep in scheduler.timesteps:
            velocity = self._guided(latents, timestep, condition, guidance)
            noise = self._draw(generators, latent_shape) if eta > 0 else None
            latents = scheduler.step(velocity, timestep, latents, eta=eta, variance_noise=noise).prev_sample
        return torch.stack([self.frozen.decode(views) for views in latents])

    def condition(self, images: Tensor, noise: Tensor) -> Condition:
        """Encode reference pictures [B, 3, S, S] with the given embedding noise [B, V, D]."""
        images, views = images.to(self.unet.device), len(self.slots)
        latents = self.frozen.encode(images)
        embeds = self.frozen.image_embeds(images, eight_bit=True)
        return Condition(
            latents[:, None].expand(-1, views, -1, -1, -1),
            self.frozen.class_labels(embeds[:, None].expand_as(noise), noise),
            self.prompt_embeds.expand(len(images), -1, -1, -1),
        )

    def _guided(self, latents: Tensor, timestep: Tensor, condition: Condition, guidance: float) -> Tensor:
        """The guided prediction of v, fp32. [B, V, 4, h, w]"""
        noisy = latents.to(self.unet.dtype)
        timesteps = timestep.to(latents.device).expand(len(latents))
        if guidance == 1:
            return predict(self.unet, noisy, timesteps, condition).float()
        twice = torch.cat([noisy, noisy]), torch.cat([timesteps, timesteps])
        unconditional, conditional = (
            predict(self.unet, *twice, condition.with_unconditional()).float().chunk(2)
        )
        return unconditional + guidance * (conditional - unconditional)

    def _draw(self, generators: Sequence[Generator], shape: tuple[int, ...]) -> Tensor:
        draws = [torch.randn(shape, generator=g, device=g.device) for g in generators]
        return torch.stack([draw.to(self.unet.device) for draw in draws])

    def _check(self, images: Tensor, generators: Sequence[Generator], steps: int) -> None:
        size = self.slots.image_size
        if images.ndim != 4 or tuple(images.shape[1:]) != (3, size, size):
            raise DataError(
                f"reference pictures have shape {tuple(images.shape)}, expected (B, 3, {size}, {size}): RGB "
                "at the size that this model was trained for."
            )
        if len(generators) != len(images):
            raise ValueError(f"{len(generators)} generators for {len(images)} pictures, expected one each.")
        longest = self.frozen.scheduler.config.num_train_timesteps
        if not 1 <= steps <= longest:
            raise ConfigError(f"{steps} sampling steps; expected 1 to {longest}.")


def locate(path: Path) -> tuple[Path, Path]:
    """Find the folder of the trained parts and the folder of the frozen ones.

    They are the same for a complete pipeline. A run keeps the frozen parts once, in `pipeline/`, and the
    trained ones in each checkpoint.

    Raises:
        CheckpointError: neither a pipeline, a run nor a checkpoint, or a checkpoint taken out of its run.
    """
    if (path / INDEX_FILE).is_file():
        return path, path
    if path.is_dir() and not any((path / name).exists() for name in ("checkpoints", MANIFEST)):
        raise CheckpointError(
            f"{path}: holds neither {INDEX_FILE} nor checkpoints; expected a pipeline folder, a training "
            "run, or one of its checkpoints."
        )
    checkpoint = find_checkpoint(path)
    if not (checkpoint.weights / "unet").is_dir():
        made_by = checkpoint.manifest.get("command", "another command")
        raise CheckpointError(
            f"{checkpoint.folder}: holds no UNet, it was written by {made_by}. Give a run of train-mvdiff."
        )
    frozen = frozen_folder(checkpoint.folder.resolve().parents[1])
    if not (frozen / INDEX_FILE).is_file():
        raise CheckpointError(
            f"{checkpoint.folder}: the frozen parts of its run are not at {frozen}. Keep checkpoints inside "
            "their run, or give a complete pipeline folder."
        )
    return checkpoint.weights, frozen


def frozen_folder(run: Path) -> Path:
    """Where a run keeps its frozen parts."""
    return run / "pipeline"


def find_prompts(folder: Path) -> Path:
    """The prompt embeddings file of a folder, ours or the published one.

    Raises:
        CheckpointError: there is none.
    """
    for name in (PROMPTS_FILE, PUBLISHED_PROMPTS):
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(
        f"{folder}: no prompt embeddings; expected {PROMPTS_FILE} or {PUBLISHED_PROMPTS} there. The "
        "published weights come without: put FaceLift's clr_embeds.pt into the folder, or name the file."
    )


def write_frozen(folder: Path, frozen: FrozenParts) -> None:
    """Write the parts that training leaves alone, and `model_index.json`, into an existing folder."""
    frozen.save(folder)
    index = {
        "_class_name": "MVDiffusionPipeline",
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
        "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
        "image_noising_scheduler": ["diffusers", "DDPMScheduler"],
        "image_normalizer": ["stable_diffusion", "StableUnCLIPImageNormalizer"],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    write_json(folder / INDEX_FILE, index)


def write_trained(folder: Path, unet: MultiViewUNet, prompt_embeds: Tensor, slots: Slots) -> None:
    """Write what training changes or decides into an existing folder."""
    unet.save_pretrained(folder / "unet")
    save_prompt_embeds(folder / PROMPTS_FILE, prompt_embeds)
    slots.save(folder / SLOTS_FILE)


def _load_slots(trained: Path, frozen: Path, unet: MultiViewUNet) -> Slots:
    if (trained / SLOTS_FILE).is_file():
        return Slots.load(trained / SLOTS_FILE)
    library = str((read_json(frozen / INDEX_FILE).get("unet") or [""])[0])
    if library.startswith(PUBLISHED_MODULE) and unet.num_views == len(FACELIFT_NAMES):
        vae = read_json(frozen / "vae" / "config.json")
        size = unet.config.sample_size * 2 ** (len(vae["block_out_channels"]) - 1)
        log.info("%s: published FaceLift layout; slots are %s", frozen, ", ".join(FACELIFT_NAMES))
        return Slots.facelift(size)
    raise CheckpointError(
        f"{trained}: no {SLOTS_FILE}, so nobody knows which camera each of its {unet.num_views} views is. "
        "Give a folder written by `mfl train-mvdiff`, or the published FaceLift one."
    )
