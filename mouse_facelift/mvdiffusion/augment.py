"""Colour jitter of the animal, on straight RGB before compositing: the background keeps its grey."""

import torch
from torch import Generator, Tensor

from .config import AugmentConfig

LUMA = (0.299, 0.587, 0.114)
"""Rec. 601 weights of R, G, B: the grey that saturation moves from and to."""


def jitter(rgba: Tensor, strengths: AugmentConfig, generator: Generator) -> Tensor:
    """Change brightness, then contrast, then saturation of whole objects, by factors within 1 +- strength.

    All views of an object are changed alike, since they show one animal. Contrast is about the animal's own
    mean colour over its views, weighted by alpha, so that neither background nor the animal's size counts.

    Args:
        rgba: Straight alpha, in [0, 1]. [B, V, 4, H, W]
        strengths: How far the factors may be from 1. With all of them 0 nothing is drawn.
        generator: On the CPU; three uniform draws per object.

    Returns:
        The same with other colours, clipped to [0, 1]; alpha, and RGB where alpha is 0, as they were.
        [B, V, 4, H, W]
    """
    if not strengths.enabled:
        return rgba
    reach = torch.tensor([strengths.brightness, strengths.contrast, strengths.saturation])
    factors = 1 + reach * (2 * torch.rand((len(rgba), 3), generator=generator) - 1)
    brightness, contrast, saturation = factors.to(rgba).T[..., None, None, None, None]
    rgb, alpha = rgba[:, :, :3], rgba[:, :, 3:]
    changed = rgb * brightness
    # Written as mixtures, which at a factor of 1 give back the very same number.
    changed = changed * contrast + _mean_colour(changed, alpha) * (1 - contrast)
    changed = changed * saturation + _luma(changed) * (1 - saturation)
    return torch.cat([torch.where(alpha > 0, changed.clamp(0, 1), rgb), alpha], dim=2)


def _mean_colour(rgb: Tensor, alpha: Tensor) -> Tensor:
    """Alpha-weighted over views and pixels. [B, 1, 3, 1, 1]"""
    axes = (1, 3, 4)
    weight = alpha.sum(axes, keepdim=True).clamp_min(1e-6)
    return (rgb * alpha).sum(axes, keepdim=True) / weight


def _luma(rgb: Tensor) -> Tensor:
    """[B, V, 1, H, W]"""
    return (rgb * rgb.new_tensor(LUMA)[:, None, None]).sum(2, keepdim=True)
