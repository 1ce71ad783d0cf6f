"""The presets of configs/train_mvdiff.yaml load, and need the memory that the page's account gives them."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from mouse_facelift.config import load_config
from mouse_facelift.mvdiffusion.config import TrainMVDiffConfig
from mouse_facelift.mvdiffusion.memory import ACTIVATIONS, Sizes, set_checkpointing, step_bytes
from mouse_facelift.mvdiffusion.pipeline import MVDiffusionPipeline
from mouse_facelift.mvdiffusion.unet import MultiViewUNet
from mouse_facelift.training.optimizer import SMALLEST_8BIT

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "configs" / "train_mvdiff.yaml"
PAGE = (ROOT / "docs" / "mvdiffusion.md").read_text(encoding="utf-8")
PARAMETERS = 870_184_644
OTHERS = 715_730_663
VIEWS = 6


def unet(channels: int = 8) -> MultiViewUNet:
    """SD 2.1-unCLIP's UNet without memory (facelift_spec.md 6.1)."""
    with torch.device("meta"):
        return MultiViewUNet(
            sample_size=64,
            in_channels=channels,
            down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
            up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
            block_out_channels=(320, 640, 1280, 1280),
            cross_attention_dim=1024,
            attention_head_dim=(5, 10, 20, 20),
            use_linear_projection=True,
            class_embed_type="projection",
            projection_class_embeddings_input_dim=2048,
        )


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def presets() -> dict[str, list[str]]:
    """Rows of the table in the YAML's comments: label -> one value per preset."""
    rows = re.findall(r"^#   (\S.*?) {2,}(\S.*)$", CONFIG.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {label: re.split(r" {2,}", values.strip()) for label, values in rows}


def needed_gb(config: TrainMVDiffConfig, **changes: Any) -> float:
    checkpointing = changes.pop("checkpointing", config.diffusion.gradient_checkpointing is True)
    values = (config.data.image_size // 8) ** 2 * 320
    return step_bytes(config, Sizes(PARAMETERS, OTHERS, values), VIEWS, checkpointing, **changes) / 1e9


def test_parameters_are_as_many_as_the_page_says() -> None:
    assert count(unet()) == PARAMETERS
    assert f"{PARAMETERS:,}".replace(",", " ") in PAGE
    assert count(unet(14)) - PARAMETERS == 17_280
    assert "17 280 more with pose" in PAGE


def test_frozen_parts_are_as_large_as_the_page_says() -> None:
    clip = CLIPVisionConfig(
        hidden_size=1280,
        intermediate_size=5120,
        num_hidden_layers=32,
        num_attention_heads=16,
        projection_dim=1024,
        patch_size=14,
        image_size=224,
    )
    with torch.device("meta"):
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
        )
        assert count(vae) + count(CLIPVisionModelWithProjection(clip)) == OTHERS
    assert f"{OTHERS / 1e6:.0f} M others | {4 * OTHERS / 1e9:.2f}" in PAGE


def test_norms_and_biases_keep_32_bit_momenta_and_nearly_all_else_does_not() -> None:
    parameters = list(unet().parameters())
    assert max(p.numel() for p in parameters if p.ndim < 2) < SMALLEST_8BIT
    small = sum(p.numel() for p in parameters if p.numel() < SMALLEST_8BIT)
    assert small / PARAMETERS < 1e-3


@pytest.mark.parametrize("preset", [0, 1, 2], ids=["12 GB", "24 GB", "80 GB"])
def test_preset_loads_and_fits(preset: int) -> None:
    table = presets()
    keys = [label for label in table if "." in label]
    assert {"training.batch_size", "optimizer.kind", "training.ema_decay", "cache.latents"} <= set(keys)
    config = load_config(TrainMVDiffConfig, CONFIG, [f"{key}={table[key][preset]}" for key in keys])
    gpu = float(table["GPU"][preset].removesuffix(" GB")) * 2**30 / 1e9
    assert needed_gb(config) < 0.9 * gpu
    assert f"{needed_gb(config):.1f}" == table["GB needed for a training step"][preset]
    assert f"| {needed_gb(config):.1f} |" in PAGE
    assert config.training.batch_size * config.training.gradient_accumulation == 16


@pytest.mark.parametrize("checkpointing", [False, True])
def test_activations_are_those_of_the_page(checkpointing: bool) -> None:
    per_picture = ACTIVATIONS["half", checkpointing] * 64**2 * 320 / 1e9
    row = f"| {str(checkpointing).lower()} | {per_picture:.2f} | {6 * per_picture:.2f} |"
    assert row in PAGE


@pytest.mark.parametrize(
    ("settings", "gigabytes"),
    [
        (["optimizer.kind=adamw_8bit"], -PARAMETERS * (8 - 2.03125) / 1e9),
        (["training.ema_decay=0"], -PARAMETERS * 4 / 1e9),
        (["cache.latents=true"], -OTHERS * 4 / 1e9),
        (["training.batch_size=3"], -6 * 1.4012),
        (["data.image_size=256"], -24 * 1.4012 * 3 / 4),
        (["training.precision=fp32"], 24 * (2.1797 - 1.4012) - PARAMETERS * 2 / 1e9),
    ],
)
def test_account_knows_what_a_setting_saves(settings: list[str], gigabytes: float) -> None:
    plain, changed = (load_config(TrainMVDiffConfig, CONFIG, overrides) for overrides in ([], settings))
    assert needed_gb(changed) - needed_gb(plain) == pytest.approx(gigabytes, abs=2e-3)


def test_account_knows_of_further_processes() -> None:
    config = load_config(TrainMVDiffConfig, CONFIG, [])
    more = needed_gb(config, processes=2) - needed_gb(config)
    assert more == pytest.approx(PARAMETERS * 4 / 1e9)


def test_auto_computes_twice_only_where_a_gpu_is_too_small(
    pose_pipeline: MVDiffusionPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config(TrainMVDiffConfig, CONFIG, ["data.image_size=32"])
    assert config.diffusion.gradient_checkpointing == "auto"
    needed = step_bytes(config, Sizes.of(pose_pipeline), 4, False)
    for memory, on in ((needed / 0.89, False), (needed / 0.91, True)):
        properties = SimpleNamespace(total_memory=memory)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _, found=properties: found)
        set_checkpointing(pose_pipeline, config, 4, torch.device("cuda"))
        assert pose_pipeline.unet.is_gradient_checkpointing is on


def test_auto_leaves_a_cpu_alone(pose_pipeline: MVDiffusionPipeline) -> None:
    config = load_config(TrainMVDiffConfig, CONFIG, ["training.batch_size=100000"])
    set_checkpointing(pose_pipeline, config, 4, torch.device("cpu"))
    assert not pose_pipeline.unet.is_gradient_checkpointing
