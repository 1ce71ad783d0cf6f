"""Where a picture's error comes from: parts of the squared error that add up to all of it.

Both pictures are on the same uniform background, so outside both silhouettes there is nothing to compare, and
every error is charged to the animal: one that is drawn too large cannot hide in a large background.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..metrics import MAX_PSNR_DB

PARTS = ("missing", "extra", "colour")


@dataclass(frozen=True)
class ErrorSplit:
    """Squared error a channel and per pixel of the true animal, in three parts. [V] each, NaN without one.

    Attributes:
        missing: Where the true animal is and the predicted one is not.
        extra: Where the predicted animal is and the true one is not.
        colour: Where both are.
    """

    missing: Tensor
    extra: Tensor
    colour: Tensor

    @property
    def total(self) -> Tensor:
        """All of it: over the union of the silhouettes. [V]"""
        return self.missing + self.extra + self.colour

    @property
    def psnr_db(self) -> Tensor:
        """`total` as a PSNR. [V]"""
        return psnr_of(self.total)


def split_error(rgb: Tensor, alpha: Tensor, true_rgb: Tensor, true_alpha: Tensor) -> ErrorSplit:
    """Split the squared error over the union of two silhouettes.

    Args:
        rgb: Predicted, on the background, clamped to [0, 1]. [V, 3, H, W]
        alpha: Predicted silhouette. [V, 1, H, W]
        true_rgb: On the same background. [V, 3, H, W]
        true_alpha: [V, 1, H, W]
    """
    squared = (rgb.float().clamp(0, 1) - true_rgb.float()).square().mean(dim=-3, keepdim=True)
    predicted, true = alpha > 0.5, true_alpha > 0.5
    pixels = true.sum(dim=(-3, -2, -1)).to(squared)
    regions = {"missing": true & ~predicted, "extra": predicted & ~true, "colour": predicted & true}
    return ErrorSplit(
        **{name: (squared * area).sum(dim=(-3, -2, -1)) / pixels for name, area in regions.items()}
    )


def psnr_of(error: Tensor) -> Tensor:
    """A mean squared error of values in [0, 1] in dB, at most 100."""
    return -10 * torch.clamp_min(error, 10 ** (-MAX_PSNR_DB / 10)).log10()
