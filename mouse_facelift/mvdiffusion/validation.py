"""Generated against real views: figures per slot, and a picture to look at."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..metrics import psnr
from ..pictures import contact_sheet, write_png


def view_metrics(generated: Tensor, real: Tensor, alpha: Tensor, names: Sequence[str]) -> dict[str, float]:
    """PSNR in dB, the mean over samples of each picture's own.

    Args:
        generated: RGB in [0, 1]. [B, V, 3, H, W]
        real: The same views, on white. [B, V, 3, H, W]
        alpha: Of the real views. [B, V, 1, H, W]
        names: Of the slots. [V]

    Returns:
        `psnr_animal` (pixels with alpha > 0.5) and `psnr_full`, both over slots 1 and up, since slot 0 shows
        what the model was given; and `psnr_animal_<slot>` for every slot.
    """
    animal, full = psnr(generated, real, alpha).mean(0), psnr(generated, real).mean(0)
    novel = slice(1, None) if len(names) > 1 else slice(None)
    metrics = {"psnr_animal": float(animal[novel].mean()), "psnr_full": float(full[novel].mean())}
    return metrics | {f"psnr_animal_{name}": float(value) for name, value in zip(names, animal, strict=True)}


def write_grid(path: Path, reference: Tensor, real: Tensor, generated: Tensor) -> None:
    """Write a PNG: the reference at the left; rows of real views, generated views, absolute error.

    Args:
        path: The PNG.
        reference: [3, H, W]
        real: [V, 3, H, W]
        generated: [V, 3, H, W]
    """
    left = reference[None]
    blank = torch.ones_like(left)
    rows = ((left, real), (blank, generated), (blank, (generated - real).abs()))
    write_png(path, contact_sheet(*(torch.cat(row) for row in rows)))
