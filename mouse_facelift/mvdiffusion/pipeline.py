"""From one picture to V views: the trained denoiser, the frozen parts, what the views mean, the sampler."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Generator, Tensor

from ..errors import CheckpointError, ConfigError, DataError
from ..files import atomic_folder
from ..geometry.rays import CameraBatch
from .conditioning import Condition
from .config import SamplingConfig
from .denoiser import Denoiser
from .folders import find_prompts, load_slots, locate, prompt_width, write_frozen, write_trained
from .frozen import FrozenParts
from .pose import check_view_count
from .prompts import load_prompt_embeds
from .slots import SLOTS_FILE, Slots
from .solvers import Solver
from .unet import LATENT_CHANNELS, MultiViewUNet

log = logging.getLogger(__name__)


@dataclass
class MVDiffusionPipeline:
    """One picture of the animal in, V views of it out.

    Attributes:
        denoiser: The UNet, which predicts v for all views at once, and its prompts.
        frozen: VAE, CLIP image encoder, image normalizer, preprocessing and schedulers.
        slots: What the views mean; view 0 is the reference.
    """

    denoiser: Denoiser
    frozen: FrozenParts
    slots: Slots

    def __post_init__(self) -> None:
        slots, rows = self.slots, len(self.prompt_embeds)
        if (slots.mode == "pose") != self.unet.has_pose:
            raise CheckpointError(
                f"the slots have mode {slots.mode}, but the UNet takes {self.unet.config.in_channels} input "
                f"channels, {'with' if self.unet.has_pose else 'without'} rays; these parts do not belong "
                "together."
            )
        views = {len(slots)} if slots.mode == "pose" else {len(slots), self.unet.num_views}
        if len(views) != 1 or rows != len(slots.prompt_azimuths_deg):
            raise CheckpointError(
                f"the UNet has {self.unet.num_views} views, the slots {len(slots)}, the prompt embeddings "
                f"{rows} rows for {len(slots.prompt_azimuths_deg)} directions; these parts do not belong "
                "together."
            )

    @property
    def unet(self) -> MultiViewUNet:
        """The denoiser's UNet."""
        return self.denoiser.unet

    @property
    def prompt_embeds(self) -> Tensor:
        """The denoiser's bank of prompts. [P, T, C]"""
        return self.denoiser.prompt_embeds

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
        slots = load_slots(trained, frozen)
        if not (trained / SLOTS_FILE).is_file():
            log.info("%s: published FaceLift layout; slots are %s", frozen, ", ".join(slots.names))
        FrozenParts.check(frozen)
        prompts, rows = prompt_embeds or find_prompts(trained), len(slots.prompt_azimuths_deg)
        embeds = load_prompt_embeds(prompts, rows, prompt_width(trained))
        unet = MultiViewUNet.from_pretrained(trained / "unet")
        return cls(Denoiser(unet, embeds), FrozenParts.load(frozen), slots).to(device, dtype)

    def save(self, folder: Path) -> None:
        """Write a complete pipeline folder; it appears under its name only when complete."""
        with atomic_folder(folder) as temporary:
            write_frozen(temporary, self.frozen)
            write_trained(temporary, self.denoiser, self.slots)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> "MVDiffusionPipeline":
        """Move all networks in place."""
        self.denoiser.to(device=device, dtype=dtype)
        self.frozen.to(device, dtype)
        return self

    @torch.no_grad()
    def __call__(
        self,
        images: Tensor,
        *,
        generators: Sequence[Generator],
        sampling: SamplingConfig,
        cameras: CameraBatch | None = None,
    ) -> Tensor:
        """Make the views (facelift_spec.md 6.5).

        Args:
            images: Reference pictures on white, RGB in [0, 1], S = slots.image_size. [B, 3, S, S]
            generators: One per picture, so that a result does not depend on the batch. Each draws, in fp32 on
                its own device: embedding noise [V, D], initial latents [V, 4, h, w], and, where the solver
                needs it, the noise of every step [V, 4, h, w].
            sampling: Solver, steps and guidance.
            cameras: Where the views shall be seen from, the reference's camera first, K at size S, Z up; only
                for `slots.mode` pose, which takes any 2 to 16. None takes the slots' own.

        Returns:
            Views in the order of the cameras, RGB in [0, 1], on the networks' device. [B, V, 3, S, S]
        """
        self._check(images, generators, cameras)
        cameras = cameras or _repeated(self.slots.camera_batch, len(images))
        views, side = cameras.K.shape[1], self.slots.image_size // self.frozen.pixels_per_latent
        latent_shape = (views, LATENT_CHANNELS, side, side)
        noise = self._draw(generators, (views, self.frozen.image_encoder.config.projection_dim))
        condition = self.condition(images, noise, cameras)
        if sampling.guidance != 1:
            condition = condition.with_unconditional()
        latents = self._draw(generators, latent_shape)
        solver = Solver(self.frozen.scheduler, sampling)
        for timestep in solver.timesteps:
            velocity = self._velocity(latents, timestep, condition, sampling.guidance)
            step_noise = self._draw(generators, latent_shape) if solver.needs_noise else None
            latents = solver.step(velocity, timestep, latents, step_noise)
        return torch.stack([self.frozen.decode(pictures) for pictures in latents])

    def condition(self, images: Tensor, noise: Tensor, cameras: CameraBatch | None = None) -> Condition:
        """Encode reference pictures.

        Args:
            images: As in `__call__`. [B, 3, S, S]
            noise: Of the embeddings. [B, V, D]
            cameras: As in `__call__`.
        """
        device = self.unet.device
        images, noise = images.to(device), noise.to(device)
        cameras = (cameras or _repeated(self.slots.camera_batch, len(images))).to(device)
        latents = self.frozen.encode(images)
        embeds = self.frozen.image_embeds(images, eight_bit=True)
        return Condition(
            latents[:, None].expand(-1, noise.shape[1], -1, -1, -1),
            self.frozen.class_labels(embeds[:, None].expand_as(noise), noise),
            self.slots.prompt_index(cameras.w2c),
            self.slots.rays(cameras, latents.shape[-1]),
        )

    def _velocity(self, latents: Tensor, timestep: Tensor, condition: Condition, guidance: float) -> Tensor:
        """The prediction of v, fp32; guided where the condition holds the unconditional objects too."""
        noisy = latents.to(self.unet.dtype)
        timesteps = torch.full((len(latents),), int(timestep), device=latents.device)
        if guidance == 1:
            return self.denoiser(noisy, timesteps, condition).float()
        both = self.denoiser(torch.cat([noisy, noisy]), torch.cat([timesteps, timesteps]), condition)
        unconditional, conditional = both.float().chunk(2)
        return unconditional + guidance * (conditional - unconditional)

    def _draw(self, generators: Sequence[Generator], shape: tuple[int, ...]) -> Tensor:
        draws = [torch.randn(shape, generator=g, device=g.device) for g in generators]
        return torch.stack([draw.to(self.unet.device) for draw in draws])

    def _check(self, images: Tensor, generators: Sequence[Generator], cameras: CameraBatch | None) -> None:
        size = self.slots.image_size
        if images.ndim != 4 or tuple(images.shape[1:]) != (3, size, size):
            raise DataError(
                f"reference pictures have shape {tuple(images.shape)}, expected (B, 3, {size}, {size}): RGB "
                "at the size that this model was trained for."
            )
        if len(generators) != len(images):
            raise ValueError(f"{len(generators)} generators for {len(images)} pictures, expected one each.")
        if cameras is None:
            return
        if self.slots.mode != "pose":
            raise ConfigError(
                f"this MVDiffusion has slots of mode {self.slots.mode} and is not told its cameras; only one "
                "trained with diffusion.conditioning=pose is."
            )
        check_view_count(cameras.K.shape[1], "the cameras to make views for")
        if len(cameras.K) != len(images):
            raise ValueError(f"cameras of {len(cameras.K)} objects for {len(images)} pictures.")


def _repeated(cameras: CameraBatch, objects: int) -> CameraBatch:
    return CameraBatch(cameras.K.expand(objects, -1, -1, -1), cameras.w2c.expand(objects, -1, -1, -1))
