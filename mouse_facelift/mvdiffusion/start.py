"""The pipeline that training starts from: published, plain SD 2.1-unCLIP, an earlier run, or random."""

import logging
from pathlib import Path

import torch
from torch import Tensor

from ..errors import ConfigError
from ..samples.datasets import SampleDataset, composite
from ..training.loop import this_process
from ..training.sampler import spread_evenly
from .attention import AttentionMode
from .config import StartConfig
from .factory import random_pipeline
from .frozen import FrozenParts
from .pipeline import MVDiffusionPipeline, find_prompts, locate
from .prompts import load_prompt_embeds
from .slots import Slots
from .unet import MultiViewUNet
from .vae import fit_vae

log = logging.getLogger(__name__)

BACKGROUNDS = {"white": (1.0,), "three_choices": (1.0, 0.0, 0.5)}
"""Grey levels behind the animal, by the value of data.background."""

VAE_PICTURES = 600
"""At most so many pictures are kept in memory for the fit of a random VAE."""


def start_pipeline(
    start: StartConfig, slots: Slots, attention: AttentionMode, seed: int
) -> MVDiffusionPipeline:
    """Make or read the pipeline to train, for the slots of the data.

    Raises:
        CheckpointError: weights or prompt embeddings are missing or do not fit.
        ConfigError: the picture size does not suit the networks.
    """
    if start.path is not None:
        return read_start(start.path, slots, attention, start.prompt_embeds, start.kind == "sd21unclip")
    pipeline = random_pipeline(start.sizes, slots, seed, attention)
    _check_sides(slots.image_size, pipeline)
    if start.prompt_embeds is not None:
        width = start.sizes.prompt_width
        pipeline.prompt_embeds = load_prompt_embeds(start.prompt_embeds, len(slots), width)
    return pipeline


def read_start(
    path: Path,
    slots: Slots,
    attention: AttentionMode,
    prompt_embeds: Path | None = None,
    widen: bool = False,
) -> MVDiffusionPipeline:
    """Read trained and frozen parts and give them these slots, whatever slots they had."""
    trained, frozen = locate(path)
    unet = MultiViewUNet.from_pretrained(trained / "unet", widen=widen).float()
    unet.set_views(len(slots), attention)
    width = unet.config.cross_attention_dim
    embeds = load_prompt_embeds(prompt_embeds or find_prompts(trained), len(slots), width)
    pipeline = MVDiffusionPipeline(unet, FrozenParts.load(frozen), embeds, slots)
    _check_sides(slots.image_size, pipeline)
    unet.register_to_config(sample_size=slots.image_size // pipeline.frozen.pixels_per_latent)
    return pipeline


def fit_random_vae(
    pipeline: MVDiffusionPipeline, data: SampleDataset, background: str, start: StartConfig, seed: int
) -> float:
    """Fit the VAE of a random start on the training pictures; returns its PSNR in dB."""
    vae = pipeline.frozen.vae.to(this_process().device)
    images = _pictures(data, BACKGROUNDS[background])
    psnr = fit_vae(
        vae, images, steps=start.vae_steps, lr=start.vae_lr, batch_size=start.vae_batch_size, seed=seed
    )
    vae.to("cpu")
    return psnr


def _pictures(data: SampleDataset, levels: tuple[float, ...]) -> Tensor:
    """Pictures of samples spread evenly over the data, on every background in turn. [N, 3, S, S]"""
    count = -(-VAE_PICTURES // len(data.view_ids))
    rgba = torch.cat([data[index]["rgba"] for index in spread_evenly(len(data), count)])
    grey = torch.tensor(levels).repeat(-(-len(rgba) // len(levels)))[: len(rgba)]
    return composite(rgba, grey[:, None, None, None])


def _check_sides(image_size: int, pipeline: MVDiffusionPipeline) -> None:
    levels = len(pipeline.unet.config.block_out_channels) - 1
    multiple = pipeline.frozen.pixels_per_latent * 2**levels
    if image_size % multiple:
        raise ConfigError(f"data.image_size is {image_size}; these weights need a multiple of {multiple}.")
