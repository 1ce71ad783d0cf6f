"""The GPU memory of a training step, by an account that needs no trial step (docs/mvdiffusion.md)."""

import logging
from dataclasses import dataclass

import torch
from torch import nn

from .config import TrainMVDiffConfig
from .pipeline import MVDiffusionPipeline

log = logging.getLogger(__name__)

ACTIVATIONS = {("half", False): 1069, ("half", True): 148, ("fp32", False): 1663, ("fp32", True): 262}
"""Bytes at the peak per latent cell and channel of the finest level, by precision and whether activations are
computed twice. Counted on SD 2.1's UNet in training with CUDA's autocast, which keeps every norm in fp32, and
with attention that keeps no matrix of all tokens by all tokens."""
MOMENTA = {"adamw": 8, "adamw_8bit": 2 + 2 * 4 / 256}
"""Bytes per parameter; of 8-bit ones two fp32 scales for every 256 values."""
CONTEXT = 1e9
"""CUDA and its libraries."""
USABLE = 0.9
"""Of a GPU's memory; the rest goes to what the allocator cannot use."""


@dataclass(frozen=True)
class Sizes:
    """What the memory depends on.

    Attributes:
        parameters: Of the UNet, all trained.
        frozen: Parameters of VAE and image encoder.
        values: Latent cells times channels of the UNet's finest level, per picture.
    """

    parameters: int
    frozen: int
    values: int

    @classmethod
    def of(cls, pipeline: MVDiffusionPipeline) -> "Sizes":
        """Those of a pipeline that is to be trained."""
        unet, frozen = pipeline.unet, pipeline.frozen
        return cls(
            parameters=_count(unet),
            frozen=_count(frozen.vae) + _count(frozen.image_encoder),
            values=unet.config.sample_size**2 * unet.config.block_out_channels[0],
        )


def step_bytes(
    config: TrainMVDiffConfig, sizes: Sizes, views: int, checkpointing: bool, processes: int = 1
) -> float:
    """What a training step holds at its peak.

    Args:
        config: Batch, precision, optimizer, average and cache are read.
        sizes: Of the networks.
        views: Per object.
        checkpointing: Activations are computed twice.
        processes: Of the run.
    """
    training = config.training
    half = training.precision != "fp32"
    # Weights and gradients.
    per_parameter = 8 + MOMENTA[config.optimizer.kind]
    if training.ema_decay > 0:
        per_parameter += 4
    if half and not checkpointing:
        # Autocast keeps its copies of the weights for the backward pass.
        per_parameter += 2
    if processes > 1:
        # Gradients are summed over processes in buckets of their own.
        per_parameter += 4
    frozen = 0 if config.cache.latents else 4 * sizes.frozen
    pictures = training.batch_size * views
    activations = ACTIVATIONS["half" if half else "fp32", checkpointing] * sizes.values * pictures
    return per_parameter * sizes.parameters + frozen + activations + CONTEXT


def set_checkpointing(
    pipeline: MVDiffusionPipeline,
    config: TrainMVDiffConfig,
    views: int,
    device: torch.device,
    processes: int = 1,
) -> None:
    """Switch gradient checkpointing on where `diffusion.gradient_checkpointing` asks for it.

    `auto` does so on a CUDA device that is too small to keep all activations.

    Args:
        pipeline: To be trained.
        config: Of the training.
        views: Per object.
        device: Where it trains.
        processes: Of the run.
    """
    choice = config.diffusion.gradient_checkpointing
    if choice == "auto":
        if device.type != "cuda":
            return
        memory = torch.cuda.get_device_properties(device).total_memory
        needed = step_bytes(config, Sizes.of(pipeline), views, False, processes)
        choice = needed > USABLE * memory
        log.info(
            "gradient checkpointing is %s: a step without it needs about %.1f GB, the GPU has %.1f",
            "on" if choice else "off",
            needed / 1e9,
            memory / 1e9,
        )
    if choice:
        pipeline.unet.enable_gradient_checkpointing()


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
