"""What the MVDiffusion benchmark measures with: random networks of SD 2.1-unCLIP's sizes and their inputs."""

import torch
from bench import Bench
from diffusers import AutoencoderKL
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from mouse_facelift.mvdiffusion.conditioning import Condition
from mouse_facelift.mvdiffusion.config import ComponentSizes
from mouse_facelift.mvdiffusion.denoiser import Denoiser
from mouse_facelift.mvdiffusion.factory import CLIP_MEAN, CLIP_STD, random_pipeline, random_prompt_embeds
from mouse_facelift.mvdiffusion.frozen import ClipPreprocessor, FrozenParts, ImageNormalizer
from mouse_facelift.mvdiffusion.objective import Draws
from mouse_facelift.mvdiffusion.pipeline import MVDiffusionPipeline
from mouse_facelift.mvdiffusion.slots import Slots
from mouse_facelift.mvdiffusion.unet import MultiViewUNet

VIEWS = 6


def random_denoiser(bench: Bench, dtype: torch.dtype) -> Denoiser:
    """870 M parameters, always the same ones."""
    torch.manual_seed(0)
    if bench.tiny:
        return random_views_pipeline(bench).denoiser.to(bench.device, dtype)
    with bench.device:
        unet = MultiViewUNet(
            VIEWS,
            "sparse",
            sample_size=64,
            in_channels=8,
            out_channels=4,
            down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
            up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
            block_out_channels=(320, 640, 1280, 1280),
            layers_per_block=2,
            norm_num_groups=32,
            cross_attention_dim=1024,
            attention_head_dim=(5, 10, 20, 20),
            use_linear_projection=True,
            class_embed_type="projection",
            projection_class_embeddings_input_dim=2048,
        )
        prompts = random_prompt_embeds(VIEWS, 1024)
    return Denoiser(unet.eval(), prompts).to(bench.device, dtype)


def random_frozen(bench: Bench) -> FrozenParts:
    """SD 2.1's VAE and CLIP ViT-H/14."""
    small = random_pipeline(ComponentSizes(), Slots.facelift(32), seed=0).frozen
    if bench.tiny:
        return small
    with bench.device:
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
            latent_channels=4,
            sample_size=512,
        )
        clip = CLIPVisionConfig(
            hidden_size=1280,
            intermediate_size=5120,
            projection_dim=1024,
            num_hidden_layers=32,
            num_attention_heads=16,
            image_size=224,
            patch_size=14,
            hidden_act="gelu",
        )
        return FrozenParts(
            vae=vae,
            image_encoder=CLIPVisionModelWithProjection(clip),
            image_normalizer=ImageNormalizer(torch.zeros(1, 1024), torch.ones(1, 1024)),
            feature_extractor=ClipPreprocessor(224, CLIP_MEAN, CLIP_STD),
            image_noising_scheduler=small.image_noising_scheduler,
            scheduler=small.scheduler,
        )


def random_views_pipeline(bench: Bench) -> MVDiffusionPipeline:
    """Denoiser and frozen parts in the published precision."""
    if bench.tiny:
        return random_pipeline(ComponentSizes(), Slots.facelift(bench.size), seed=0).to(bench.device)
    denoiser, frozen = random_denoiser(bench, bench.half), random_frozen(bench)
    return MVDiffusionPipeline(denoiser, frozen, Slots.facelift(bench.size)).to(bench.device, bench.half)


def random_condition(bench: Bench, objects: int, dtype: torch.dtype) -> Condition:
    """Standard normal conditions."""
    side, width = (8, 32) if bench.tiny else (64, 2048)
    return Condition(
        torch.randn(objects, VIEWS, 4, side, side, device=bench.device, dtype=dtype),
        torch.randn(objects, VIEWS, width, device=bench.device, dtype=dtype),
        torch.arange(VIEWS, device=bench.device).expand(objects, -1),
    )


def random_draws(bench: Bench, objects: int) -> Draws:
    """Made on the GPU, so that no case waits for them."""
    side, width = (8, 16) if bench.tiny else (64, 1024)
    shape = (objects, VIEWS, 4, side, side)
    return Draws(
        posterior=torch.randn(shape, device=bench.device),
        noise=torch.randn(shape, device=bench.device),
        timesteps=torch.randint(1000, (objects,), device=bench.device),
        embed=torch.randn(objects, VIEWS, width, device=bench.device),
        drop=torch.rand(objects, device=bench.device),
    )
