"""Training losses: renderings against real views. Unmasked, not clamped, always in float32."""

import torch.nn.functional as F
from torch import Tensor

from ..metrics import ssim_map
from .config import LossConfig


def rendering_loss(
    rgb: Tensor, alpha: Tensor, target_rgb: Tensor, target_alpha: Tensor, weights: LossConfig
) -> dict[str, Tensor]:
    """Weighted sum of the terms whose weight is not 0.

    Args:
        rgb: Rendered colour, not clamped. [B, V, 3, H, W]
        alpha: Rendered opacity. [B, V, 1, H, W]
        target_rgb: Real view on the rendering's background, in [0, 1]. [B, V, 3, H, W]
        target_alpha: Soft mask in [0, 1]. [B, V, 1, H, W]
        weights: Weight of each term.

    Returns:
        `loss`, and each term used, unweighted, under its name in `weights`. Scalars.
    """
    total = rgb.new_zeros(())
    terms = {}
    if weights.l2:
        terms["l2"] = F.mse_loss(rgb, target_rgb)
        total = total + weights.l2 * terms["l2"]
    if weights.ssim:
        terms["ssim"] = 1 - ssim_map(rgb, target_rgb).mean()
        total = total + weights.ssim * terms["ssim"]
    if weights.alpha:
        terms["alpha"] = F.mse_loss(alpha, target_alpha)
        total = total + weights.alpha * terms["alpha"]
    return {"loss": total, **terms}
