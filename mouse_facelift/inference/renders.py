"""Pictures of a reconstruction beside its colours: depth, coverage, and views from named sides."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..gaussians import Gaussians, Rendering, render
from ..gaussians.turntable import named_cameras
from ..parallel import bounded_map, worker_count
from ..pictures import write_grey_png, write_png

DEPTH_STEPS = 4096
"""Grey levels of a depth picture per model unit: 16 bits reach 16 units, a camera stands at about 2.7."""

MAX_LEVEL = 2**16 - 1

DEPTH = {
    "unit": "model units along the optical axis, times depth_steps; 0 where coverage is at most one half, "
    f"{MAX_LEVEL} also beyond",
    "depth_steps": DEPTH_STEPS,
}
"""What the numbers in depth pictures mean, for `metrics.json`."""


def write_depth(path: Path, depth: Tensor, alpha: Tensor) -> None:
    """Write the depth of what is there as a 16-bit PNG, see `DEPTH`.

    Args:
        path: The file.
        depth: Mean depth of what covers a pixel, model units. [1, H, W]
        alpha: Coverage. [1, H, W]
    """
    levels = (depth[0].double() * DEPTH_STEPS).round().clamp(1, MAX_LEVEL)
    levels = torch.where(alpha[0] > 0.5, levels, 0)
    write_grey_png(path, levels.cpu().numpy().astype(np.uint16))


def write_alpha(path: Path, alpha: Tensor) -> None:
    """Write coverage [1, H, W] in [0, 1] as an 8-bit PNG."""
    levels = (alpha[0].clamp(0, 1) * 255).round().byte()
    write_grey_png(path, levels.cpu().numpy())


def write_real_cameras(
    folder: Path, view_ids: tuple[int, ...], picture: Rendering, depth: bool, alpha: bool
) -> dict[str, Any]:
    """Write what real cameras see: colours, and depth and coverage where asked for.

    Returns:
        What `metrics.json` must say about them.
    """

    def write(index: int) -> None:
        name = f"cam_{view_ids[index]:03d}.png"
        write_png(folder / f"render_{name}", picture.rgb[index])
        if depth:
            write_depth(folder / f"depth_{name}", picture.depth[index], picture.alpha[index])
        if alpha:
            write_alpha(folder / f"alpha_{name}", picture.alpha[index])

    _in_threads(write, len(view_ids))
    return {"depth": DEPTH} if depth else {}


@torch.no_grad()
def write_named_views(folder: Path, gaussians: Gaussians, size: int, background: float) -> None:
    """Write one scene seen from each named side, `novel_top.png` and so on."""
    cameras = named_cameras(size)
    K, w2c = (
        torch.from_numpy(np.stack([getattr(camera, name) for camera in cameras.values()]))
        for name in ("K", "w2c")
    )
    pictures = render(gaussians, K, w2c, size, size, background).rgb
    names = list(cameras)
    _in_threads(lambda index: write_png(folder / f"novel_{names[index]}.png", pictures[index]), len(names))


def _in_threads(write: Callable[[int], None], count: int) -> None:
    """Packing PNG files takes longer than rendering them."""
    for _ in bounded_map(write, range(count), worker_count(0)):
        pass
