"""Sizes of the smallest pipeline that has every part."""

from mouse_facelift.mvdiffusion.config import ComponentSizes

SIZES = ComponentSizes(
    unet_channels=(16, 16),
    head_channels=8,
    vae_channels=(8, 16, 16),
    prompt_width=8,
    clip_width=16,
    clip_layers=1,
)
