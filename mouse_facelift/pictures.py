"""Colour tensors to 8-bit pictures and PNG files."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, cat

from .files import atomic_path


def to_uint8(rgb: Tensor) -> NDArray[np.uint8]:
    """Clamp and round a colour picture in [0, 1] to 8 bits. [3, H, W] -> [H, W, 3]"""
    levels = (rgb.detach().float().clamp(0, 1) * 255).round().byte()
    return levels.movedim(0, -1).contiguous().cpu().numpy()


def write_png(path: Path, rgb: Tensor) -> None:
    """Write a colour picture in [0, 1] [3, H, W]; its folder is made, it appears only when complete."""
    with atomic_path(path) as temporary:
        Image.fromarray(to_uint8(rgb)).save(temporary)


def contact_sheet(*rows: Tensor) -> Tensor:
    """Lay rows of equally many pictures [V, 3, H, W] below each other. [3, R * H, V * W]"""
    return cat([cat(list(row), dim=-1) for row in rows], dim=-2)
