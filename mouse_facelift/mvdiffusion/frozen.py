"""The frozen parts (VAE, CLIP image encoder, normalizer, schedulers) in diffusers' folder layout."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, DDPMScheduler
from diffusers.models.embeddings import get_timestep_embedding
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection
from transformers.utils import logging as transformers_logging

from ..errors import CheckpointError, DataError
from ..files import write_json
from ..training.tensors import read_tensors
from .unet import LATENT_CHANNELS
from .weights import TRANSFORMERS_STEMS, find_weights, read_json, read_state

# Its bars on stderr would break the one line of progress.
transformers_logging.disable_progress_bar()

BICUBIC = 3
"""Pillow's number for it, as written in preprocessor_config.json."""

AT_ONCE = 6
"""Pictures encoded by the VAE at once: enough to fill a GPU at 512 pixels; more would only take memory."""


class ImageNormalizer(nn.Module):
    """Mean and standard deviation of CLIP image embeddings, [1, D] each."""

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.mean, self.std = nn.Parameter(mean), nn.Parameter(std)

    @classmethod
    def load(cls, folder: Path) -> "ImageNormalizer":
        """Read `image_normalizer/`."""
        state = read_state(folder)
        if state.keys() != {"mean", "std"} or any(x.ndim != 2 or len(x) != 1 for x in state.values()):
            shapes = {key: tuple(value.shape) for key, value in state.items()}
            raise CheckpointError(f"{folder}: holds {shapes}, expected mean and std of shape (1, D).")
        return cls(state["mean"].float(), state["std"].float())

    def save(self, folder: Path) -> None:
        """Write `image_normalizer/` as diffusers' StableUnCLIPImageNormalizer does."""
        folder.mkdir()
        config = {"_class_name": "StableUnCLIPImageNormalizer", "embedding_dim": self.mean.shape[1]}
        write_json(folder / "config.json", config)
        state = {key: value.contiguous() for key, value in self.state_dict().items()}
        save_file(state, folder / "diffusion_pytorch_model.safetensors")


@dataclass(frozen=True)
class ClipPreprocessor:
    """Pictures to what CLIP expects; reads and writes transformers' `preprocessor_config.json`.

    Attributes:
        size: Side of CLIP's input.
        mean: Of the RGB channels.
        std: Of the RGB channels.
    """

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, images: Tensor, eight_bit: bool) -> Tensor:
        """Resize with anti-aliased bicubic and normalize.

        Args:
            images: Square RGB in [0, 1]. [N, 3, H, H]
            eight_bit: Resize rounded 8-bit pixels, as Pillow does: what the published weights see at
                inference. In training they saw the unrounded picture (facelift_spec.md 6.4).

        Returns:
            [N, 3, size, size]
        """
        pixels = images.mul(255).round().clamp(0, 255).byte().cpu() if eight_bit else images
        pixels = F.interpolate(
            pixels, size=(self.size, self.size), mode="bicubic", antialias=True, align_corners=False
        )
        pixels = pixels.to(images) / 255 if eight_bit else pixels
        mean, std = (images.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        return (pixels - mean) / std

    @classmethod
    def load(cls, folder: Path) -> "ClipPreprocessor":
        """Read `feature_extractor/`."""
        path = folder / "preprocessor_config.json"
        config = read_json(path)
        try:
            size, crop = _side(config["size"]), _side(config["crop_size"])
            mean, std = tuple(map(float, config["image_mean"])), tuple(map(float, config["image_std"]))
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path}: not a CLIP preprocessor ({error!r}).") from None
        if len(mean) != 3 or len(std) != 3:
            raise CheckpointError(
                f"{path}: image_mean and image_std hold {len(mean)} and {len(std)} numbers, expected 3."
            )
        if size != crop or config.get("resample", BICUBIC) != BICUBIC:
            raise CheckpointError(
                f"{path}: size {size}, crop {crop}, resample {config.get('resample')}; only square bicubic "
                "resizing without a crop is supported."
            )
        return cls(size, mean, std)

    def save(self, folder: Path) -> None:
        """Write `feature_extractor/`."""
        folder.mkdir()
        config = {
            "image_processor_type": "CLIPImageProcessor",
            "crop_size": {"height": self.size, "width": self.size},
            "do_center_crop": True,
            "do_convert_rgb": True,
            "do_normalize": True,
            "do_rescale": True,
            "do_resize": True,
            "image_mean": list(self.mean),
            "image_std": list(self.std),
            "resample": BICUBIC,
            "rescale_factor": 1 / 255,
            "size": {"shortest_edge": self.size},
        }
        write_json(folder / "preprocessor_config.json", config)


@dataclass
class FrozenParts:
    """Everything of a pipeline that training leaves alone. Field names are the folders' names."""

    vae: AutoencoderKL
    image_encoder: CLIPVisionModelWithProjection
    image_normalizer: ImageNormalizer
    feature_extractor: ClipPreprocessor
    image_noising_scheduler: DDPMScheduler
    scheduler: DDIMScheduler

    def __post_init__(self) -> None:
        channels, prediction = self.vae.config.latent_channels, self.scheduler.config.prediction_type
        if channels != LATENT_CHANNELS:
            raise CheckpointError(
                f"the VAE makes latents of {channels} channels, expected {LATENT_CHANNELS} as in SD 2.1."
            )
        if prediction != "v_prediction":
            raise CheckpointError(
                f"the scheduler's prediction_type is {prediction!r}, expected 'v_prediction' as in "
                "SD 2.1-unCLIP."
            )
        for module in self._modules():
            module.requires_grad_(False).eval()

    @classmethod
    def load(cls, folder: Path) -> "FrozenParts":
        """Read each part from its folder in fp32, whatever classes `model_index.json` names.

        Raises:
            CheckpointError: a part is missing or incomplete; the message names it.
        """
        readers: dict[str, Callable[[Path], Any]] = {
            "vae": _load_vae,
            "image_encoder": _load_image_encoder,
            "image_normalizer": ImageNormalizer.load,
            "feature_extractor": ClipPreprocessor.load,
            "image_noising_scheduler": lambda path: _load_scheduler(DDPMScheduler, path),
            "scheduler": lambda path: _load_scheduler(DDIMScheduler, path),
        }
        cls.check(folder)
        parts = {name: read(folder / name) for name, read in readers.items()}
        try:
            return cls(**parts)
        except CheckpointError as error:
            raise CheckpointError(f"{folder}: {error}") from None

    @classmethod
    def check(cls, folder: Path) -> None:
        """Look whether there is a folder for each part.

        Raises:
            CheckpointError: a part is missing; the message names it.
        """
        names = [field.name for field in fields(cls)]
        missing = [name for name in names if not (folder / name).is_dir()]
        if missing:
            raise CheckpointError(
                f"{folder}: no {', '.join(missing)}; expected a pipeline folder with {', '.join(names)}. "
                "Download it again, or give the folder that holds model_index.json."
            )

    def save(self, folder: Path) -> None:
        """Write each part into its own folder under the existing `folder`."""
        for field in fields(self):
            part = getattr(self, field.name)
            writer = part.save_pretrained if hasattr(part, "save_pretrained") else part.save
            writer(folder / field.name)
            _forget_origin(folder / field.name / "config.json")

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> "FrozenParts":
        """Move the networks in place; schedulers stay on the CPU."""
        for module in self._modules():
            nn.Module.to(module, device=device, dtype=dtype)
        return self

    @property
    def pixels_per_latent(self) -> int:
        """Side of the square of pixels that one latent stands for."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """Scaled latents of RGB in [0, 1]; a sample of the posterior with `noise`, else its mode.

        Args:
            images: [N, 3, H, W]
            noise: Standard normal. [N, 4, h, w]

        Returns:
            [N, 4, h, w], fp32
        """
        mean, logvar = self.posterior(images)
        latents = mean.float()
        if noise is not None:
            latents = latents + (logvar.float() / 2).exp() * noise
        return latents * self.vae.config.scaling_factor

    @torch.no_grad()
    def posterior(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of RGB in [0, 1], not scaled, in the type in which they were computed.

        Args:
            images: [N, 3, H, W]

        Returns:
            [N, 4, h, w] each.

        Raises:
            DataError: the VAE cannot halve the sides.
        """
        if any(side % self.pixels_per_latent for side in images.shape[-2:]):
            raise DataError(
                f"pictures are {images.shape[-1]}x{images.shape[-2]}, sides must be divisible by "
                f"{self.pixels_per_latent}."
            )
        vae = self.vae
        encoded = [vae.encode(part.to(vae.dtype) * 2 - 1).latent_dist for part in images.split(AT_ONCE)]
        return torch.cat([part.mean for part in encoded]), torch.cat([part.logvar for part in encoded])

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """RGB in [0, 1] of scaled latents. [N, 4, h, w] -> [N, 3, H, W], fp32"""
        images = self.vae.decode((latents / self.vae.config.scaling_factor).to(self.vae.dtype)).sample
        return (images.float() / 2 + 0.5).clamp(0, 1)

    @torch.no_grad()
    def image_embeds(self, images: Tensor, eight_bit: bool) -> Tensor:
        """CLIP embeddings of square RGB in [0, 1]; see ClipPreprocessor. [N, 3, H, H] -> [N, D], fp32"""
        pixels = self.feature_extractor(images, eight_bit)
        return self.image_encoder(pixels.to(self.image_encoder.dtype)).image_embeds.float()

    @torch.no_grad()
    def class_labels(self, embeds: Tensor, noise: Tensor) -> Tensor:
        """Noise embeddings and append the noise level (facelift_spec.md 6.4): 0, which still adds a little.

        Args:
            embeds: [..., D]
            noise: Standard normal. [..., D]

        Returns:
            [..., 2D]
        """
        mean, std = self.image_normalizer.mean.float(), self.image_normalizer.std.float()
        kept = self.image_noising_scheduler.alphas_cumprod[0].to(embeds)
        noised = kept.sqrt() * (embeds - mean) / std + (1 - kept).sqrt() * noise
        level = torch.zeros(1, device=embeds.device)
        code = get_timestep_embedding(
            level, embeds.shape[-1], flip_sin_to_cos=True, downscale_freq_shift=0
        ).to(embeds)
        noised = noised * std + mean
        return torch.cat([noised, code.expand_as(noised)], dim=-1)

    def _modules(self) -> tuple[nn.Module, ...]:
        return self.vae, self.image_encoder, self.image_normalizer


def _forget_origin(config: Path) -> None:
    """Remove where on this machine a network was read from: weights go to others."""
    if not config.is_file():
        return
    content = read_json(config)
    if content.pop("_name_or_path", None) is not None:
        write_json(config, content)


def _load_vae(folder: Path) -> AutoencoderKL:
    """Through diffusers, which knows older key names."""
    read_json(folder / "config.json")
    path, variant = find_weights(folder)
    try:
        vae, report = AutoencoderKL.from_pretrained(
            folder,
            variant=variant,
            use_safetensors=path.suffix == ".safetensors",
            local_files_only=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, TypeError) as error:
        # Tells more, if the file is damaged.
        read_tensors(path)
        raise CheckpointError(f"{folder}: does not fit config.json ({_first_sentence(error)}).") from None
    _check_report(folder, report)
    return vae.float()


def _load_image_encoder(folder: Path) -> CLIPVisionModelWithProjection:
    """From tensors that were read here: transformers lets every fault of a file through."""
    read_json(folder / "config.json")
    path, _ = find_weights(folder, TRANSFORMERS_STEMS)
    state = read_tensors(path)
    try:
        with _silent_transformers():
            config = CLIPVisionConfig.from_pretrained(folder, local_files_only=True)
            encoder, report = CLIPVisionModelWithProjection.from_pretrained(
                None, config=config, state_dict=state, ignore_mismatched_sizes=True, output_loading_info=True
            )
    except (OSError, ValueError, RuntimeError, TypeError, KeyError, StrictDataclassError) as error:
        raise CheckpointError(
            f"{folder}: config.json is of no CLIP model ({_first_sentence(error)})."
        ) from None
    _check_report(folder, report)
    return encoder.float()


@contextmanager
def _silent_transformers() -> Iterator[None]:
    """What its report on stderr says is said in one message instead."""
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)


def _check_report(folder: Path, report: Mapping[str, Any]) -> None:
    """Insist on every key."""
    problems = {kind: sorted(map(str, keys))[:5] for kind, keys in report.items() if keys}
    if problems:
        raise CheckpointError(f"{folder}: the weights do not fit config.json: {problems}.")


def _first_sentence(error: Exception) -> str:
    """What a library found; its advice is for those who call it."""
    return str(error).strip().split("\n")[0].partition(". ")[0]


def _load_scheduler(scheduler: Any, folder: Path) -> Any:
    path = folder / "scheduler_config.json"
    try:
        return scheduler.from_config(read_json(path))
    except (ValueError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"{path}: not a {scheduler.__name__} ({_first_sentence(error)}).") from None


def _side(value: Any) -> int:
    if isinstance(value, dict):
        sides = set(value.values())
        if len(sides) != 1:
            raise ValueError(f"not square: {value}")
        return int(sides.pop())
    return int(value)
