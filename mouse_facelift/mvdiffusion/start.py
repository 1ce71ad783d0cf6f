"""The pipeline that training starts from: published, plain SD 2.1-unCLIP, an earlier run, or random."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ..errors import CheckpointError, ConfigError
from ..hub import fetch
from ..samples.datasets import SampleDataset, composite
from ..spacing import spread_evenly
from ..training.process import this_process
from .attention import AttentionMode
from .config import StartConfig
from .denoiser import Denoiser
from .factory import random_pipeline
from .folders import PUBLISHED_PROMPTS, find_prompts, locate, prompt_width
from .frozen import FrozenParts
from .pipeline import MVDiffusionPipeline
from .prompts import PROMPTS_FILE, load_prompt_embeds, read_prompt_azimuths
from .slots import FACELIFT_RELATIVE_DEG, SLOTS_FILE, Slots
from .unet import MultiViewUNet
from .vae import fit_vae

log = logging.getLogger(__name__)

BACKGROUNDS = {"white": (1.0,), "three_choices": (1.0, 0.0, 0.5)}
"""Grey levels behind the animal, by the value of data.background."""

MISLEADING_DEG = 67.5
"""A prompt that is farther from its slot's direction than this names another side of the animal."""

VAE_PICTURES = 600
"""At most so many pictures are kept in memory for the fit of a random VAE."""

PIPELINE_FILES = (
    "model_index.json",
    "feature_extractor/preprocessor_config.json",
    "image_encoder/config.json",
    "image_encoder/model.safetensors",
    "image_noising_scheduler/scheduler_config.json",
    "image_normalizer/diffusion_pytorch_model.safetensors",
    "scheduler/scheduler_config.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
)
"""All that is read of a published pipeline; text encoder and tokenizer only make prompt embeddings."""
EXPORTED_FILES = (*PIPELINE_FILES, PROMPTS_FILE, SLOTS_FILE)
"""All that is read of a pipeline that we exported."""


def start_pipeline(
    start: StartConfig, slots: Slots, attention: AttentionMode, seed: int, learned_prompts: bool = False
) -> MVDiffusionPipeline:
    """Make or read the pipeline to train, in fp32, for the slots of the data.

    Its slots are those of the data, but for the directions of the prompts, which come with the prompts.

    Raises:
        CheckpointError: weights or prompt embeddings are missing or do not fit.
        DependencyError: they are on the Hub, and it cannot be reached.
        ConfigError: the picture size does not suit the networks.
    """
    if start.kind != "random":
        folder = start_folder(start)
        return read_start(folder, slots, attention, start.prompt_embeds, start.kind, learned_prompts)
    if start.prompt_embeds is not None:
        slots = _with_directions(slots, start.prompt_embeds)
    pipeline = random_pipeline(start.sizes, slots, seed, attention)
    _check_sides(pipeline)
    if start.prompt_embeds is not None:
        rows, width = len(slots.prompt_azimuths_deg), start.sizes.prompt_width
        pipeline.denoiser = Denoiser(pipeline.unet, load_prompt_embeds(start.prompt_embeds, rows, width))
    pipeline.denoiser.prompt_embeds.requires_grad_(learned_prompts)
    return pipeline


def start_folder(start: StartConfig) -> Path:
    """The local folder of the weights; fetches them where only `start.hub` is given.

    Raises:
        CheckpointError: a file where a folder is expected, or the Hub refuses.
        DependencyError: the Hub cannot be reached.
    """
    if start.path is not None:
        if start.path.is_file():
            raise CheckpointError(
                f"{start.path}: is a file; expected a pipeline folder, a run, or one of its checkpoints."
            )
        if start.hub is not None and not start.path.exists():
            raise CheckpointError(
                f"{start.path}: no such folder; it goes before start.hub. Set start.path=null to take the "
                "weights from the Hub."
            )
        return start.path
    if start.hub is None or start.revision is None:
        raise ValueError(f"kind {start.kind} reads no folder.")
    needed = EXPORTED_FILES if start.kind == "run" else PIPELINE_FILES
    return fetch(start.hub, start.revision, start.subfolder, needed, local_key="start.path")


def read_start(
    path: Path,
    slots: Slots,
    attention: AttentionMode,
    prompt_embeds: Path | None = None,
    kind: str = "run",
    learned_prompts: bool = False,
) -> MVDiffusionPipeline:
    """Read trained and frozen parts in fp32 and give them these slots.

    Args:
        path: A pipeline folder, a run, or one of its checkpoints.
        slots: What the views shall be. With mode pose the UNet gets channels for rays if it has none.
        attention: What a view shall attend to.
        prompt_embeds: A file to use instead of the folder's own.
        kind: `start.kind`.
        learned_prompts: Train the prompt embeddings too.

    Raises:
        CheckpointError: a part is missing or does not fit.
        ConfigError: the picture size does not suit the networks.
    """
    trained, frozen = locate(path)
    if kind == "run":
        _check_views(path, trained, slots)
    prompts = prompt_embeds or find_prompts(trained)
    slots = _with_directions(slots, prompts)
    # Before the UNet is read: what is missing or too small is told at once.
    FrozenParts.check(frozen)
    embeds = load_prompt_embeds(prompts, len(slots.prompt_azimuths_deg), prompt_width(trained))
    unet = MultiViewUNet.from_pretrained(
        trained / "unet", widen=kind == "sd21unclip", pose=slots.mode == "pose"
    ).float()
    unet.set_views(len(slots), attention)
    pipeline = MVDiffusionPipeline(Denoiser(unet, embeds, learned_prompts), FrozenParts.load(frozen), slots)
    _check_sides(pipeline)
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


def _check_views(path: Path, trained: Path, slots: Slots) -> None:
    """A run's slots must be as many as the data's, unless the model is told its cameras, then and now."""
    if not (trained / SLOTS_FILE).is_file():
        raise CheckpointError(
            f"{trained}: no {SLOTS_FILE}, so this is no run of ours. For the published pipeline set "
            "start.kind=facelift, for plain SD 2.1-unCLIP start.kind=sd21unclip."
        )
    then = Slots.load(trained / SLOTS_FILE)
    if slots.mode == "pose":
        return
    if then.mode == "pose":
        raise CheckpointError(
            f"{path} was trained with diffusion.conditioning=pose and cannot go on without rays. Set "
            "diffusion.conditioning=pose, or start from other weights."
        )
    if len(then) != len(slots):
        raise CheckpointError(
            f"{path} was trained on {len(then)} views {list(then.view_ids)}, the data has {len(slots)}: "
            f"{list(slots.view_ids)}. Start from a run with as many views, or set "
            "diffusion.conditioning=pose, which takes any number."
        )


def _with_directions(slots: Slots, prompts: Path) -> Slots:
    """Each prompt stands for a direction; the file, or the folder it lies in, says for which.

    With pose a view is told the prompt for its direction; else row k belongs to slot k, whatever it says.
    """
    told, own = _directions(prompts), slots.prompt_azimuths_deg
    if slots.mode == "pose":
        if told is not None:
            return replace(slots, prompt_azimuths_deg=told)
        log.warning(
            "%s does not say for which directions its prompts were written; they are taken for those of the "
            "cameras %s, at %s degrees from the reference. `mfl prompts` notes directions.",
            prompts,
            list(slots.view_ids),
            _signed(own),
        )
    elif told is not None and len(told) == len(own):
        off = max(abs(angle) for angle in _signed([a - b for a, b in zip(told, own, strict=True)]))
        if off > MISLEADING_DEG:
            log.warning(
                "%s was written for views at %s degrees from the reference, but the slots stand at %s. Set "
                "data.slot_order to the other sense, make prompts for these slots with `mfl prompts`, or use "
                "diffusion.conditioning=pose.",
                prompts,
                _signed(told),
                _signed(own),
            )
    return slots


def _directions(prompts: Path) -> tuple[float, ...] | None:
    """Relative azimuths that the rows were written for; None if nobody noted them."""
    if not prompts.is_file():
        raise CheckpointError(
            f"{prompts}: no such file; expected prompt embeddings. Check start.prompt_embeds."
        )
    if (prompts.parent / SLOTS_FILE).is_file():
        return Slots.load(prompts.parent / SLOTS_FILE).prompt_azimuths_deg
    if prompts.name == PUBLISHED_PROMPTS:
        return FACELIFT_RELATIVE_DEG
    return read_prompt_azimuths(prompts)


def _signed(degrees: Sequence[float]) -> list[int]:
    """Rounded, from -180 on."""
    return [round((angle + 180) % 360 - 180) for angle in degrees]


def _check_sides(pipeline: MVDiffusionPipeline) -> None:
    image_size, levels = pipeline.slots.image_size, len(pipeline.unet.config.block_out_channels) - 1
    multiple = pipeline.frozen.pixels_per_latent * 2**levels
    if image_size % multiple:
        raise ConfigError(f"data.image_size is {image_size}; these weights need a multiple of {multiple}.")
