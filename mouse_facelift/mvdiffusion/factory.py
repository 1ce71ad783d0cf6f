"""Pipelines with random weights and small sizes: every part is there, so whole runs are tested on a CPU."""

import torch
from diffusers import AutoencoderKL, DDIMScheduler, DDPMScheduler
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from .attention import AttentionMode
from .config import ComponentSizes
from .denoiser import Denoiser
from .frozen import ClipPreprocessor, FrozenParts, ImageNormalizer
from .pipeline import MVDiffusionPipeline
from .prompts import TOKENS
from .slots import Slots
from .unet import INPUT_CHANNELS, LATENT_CHANNELS, POSE_CHANNELS, MultiViewUNet

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
GROUPS = 8
CLIP_PATCH = 8


def random_pipeline(
    sizes: ComponentSizes, slots: Slots, seed: int, attention: AttentionMode = "sparse"
) -> MVDiffusionPipeline:
    """Make a pipeline with seeded random weights; torch's global generator is left as it was.

    The UNet takes rays if the slots have mode `pose`. The VAE cannot picture anything before `fit_vae`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        frozen = FrozenParts(
            vae=_vae(sizes, slots.image_size),
            image_encoder=_image_encoder(sizes),
            image_normalizer=ImageNormalizer(
                torch.zeros(1, sizes.embed_width), torch.ones(1, sizes.embed_width)
            ),
            feature_extractor=ClipPreprocessor(sizes.clip_size, CLIP_MEAN, CLIP_STD),
            image_noising_scheduler=DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
            scheduler=_scheduler(),
        )
        side = slots.image_size // frozen.pixels_per_latent
        channels = POSE_CHANNELS if slots.mode == "pose" else INPUT_CHANNELS
        unet = _unet(sizes, side, channels, len(slots), attention)
        prompts = random_prompt_embeds(len(slots.prompt_azimuths_deg), sizes.prompt_width)
        return MVDiffusionPipeline(Denoiser(unet.eval(), prompts), frozen, slots)


def random_prompt_embeds(rows: int, width: int) -> Tensor:
    """Stand-in for text: standard normal, different for every row of the bank. [P, 77, D]"""
    return torch.randn(rows, TOKENS, width)


def _unet(
    sizes: ComponentSizes, side: int, channels: int, views: int, attention: AttentionMode
) -> MultiViewUNet:
    """Levels as in SD 2.1: text and multi-view attention on all but the coarsest, and in the middle."""
    finer = len(sizes.unet_channels) - 1
    return MultiViewUNet(
        num_views=views,
        attention=attention,
        sample_size=side,
        in_channels=channels,
        out_channels=LATENT_CHANNELS,
        down_block_types=("CrossAttnDownBlock2D",) * finer + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * finer,
        block_out_channels=sizes.unet_channels,
        layers_per_block=sizes.unet_layers,
        norm_num_groups=GROUPS,
        cross_attention_dim=sizes.prompt_width,
        # diffusers' name says width but it is the number of heads.
        attention_head_dim=tuple(channels // sizes.head_channels for channels in sizes.unet_channels),
        use_linear_projection=True,
        class_embed_type="projection",
        projection_class_embeddings_input_dim=2 * sizes.embed_width,
    )


def _vae(sizes: ComponentSizes, image_size: int) -> AutoencoderKL:
    levels = len(sizes.vae_channels)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=sizes.vae_channels,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=GROUPS,
        sample_size=image_size,
        mid_block_add_attention=False,
    )


def _image_encoder(sizes: ComponentSizes) -> CLIPVisionModelWithProjection:
    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=sizes.clip_width,
            intermediate_size=2 * sizes.clip_width,
            projection_dim=sizes.embed_width,
            num_hidden_layers=sizes.clip_layers,
            num_attention_heads=4,
            image_size=sizes.clip_size,
            patch_size=CLIP_PATCH,
            hidden_act="gelu",
        )
    )


def _scheduler() -> DDIMScheduler:
    """SD 2.1-unCLIP's numbers (facelift_spec.md 6.3)."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        set_alpha_to_one=False,
        steps_offset=1,
        clip_sample=False,
        timestep_spacing="leading",
    )
