"""Faults of generated views, put on the inputs: noise, blur, JPEG, colours, a shift of picture and camera.

Only what the model is shown is changed, never what is compared. All but the shift leave silhouettes and
cameras alone; the shift is a legal operation (docs/architecture.md, i): pixels and principal point together.
"""

import torch
from torch import Tensor

from ..geometry.rays import CameraBatch
from .config import InputAugmentConfig
from .jpeg import compress


def augment_inputs(
    shown: Tensor,
    cameras: CameraBatch,
    config: InputAugmentConfig,
    background: float,
    generator: torch.Generator,
) -> tuple[Tensor, CameraBatch]:
    """Change input views, each by strengths of its own.

    Args:
        shown: RGB on the background and alpha, in [0, 1]. [B, V, 4, H, W]
        cameras: Of exactly these pixels.
        config: Strongest changes; what is 0 draws nothing.
        background: Grey level behind the animal.
        generator: On the CPU. Noise comes from one on the pictures' device that it seeds.

    Returns:
        The same of the changed views.
    """
    strongest = max(config.noise, config.blur, config.jpeg, config.colour, config.shift_px)
    if config.probability == 0 or strongest == 0:
        return shown, cameras
    # Autocast would round colours to 8 bits.
    with torch.autocast(shown.device.type, enabled=False):
        return _change(shown.float(), cameras, config, background, generator)


def _change(
    shown: Tensor,
    cameras: CameraBatch,
    config: InputAugmentConfig,
    background: float,
    generator: torch.Generator,
) -> tuple[Tensor, CameraBatch]:
    lead, device = shown.shape[:2], shown.device

    def draw(*shape: int) -> Tensor:
        return torch.rand(*lead, *shape, generator=generator).to(device)

    chosen = draw() < config.probability
    rgb, alpha = shown[:, :, :3], shown[:, :, 3:]
    if config.colour:
        rgb = multiply_colours(rgb, alpha, background, 1 + config.colour * (2 * draw(3) - 1))
    if config.blur:
        rgb = blur(rgb, config.blur * draw(), config.blur)
    if config.noise:
        seed = int(torch.randint(2**62, (), generator=generator))
        noise = torch.randn(rgb.shape, generator=torch.Generator(device).manual_seed(seed), device=device)
        rgb = rgb + config.noise * draw()[..., None, None, None] * noise
    if config.jpeg:
        rgb = compress(rgb, 100 - config.jpeg * draw())
    rgb = torch.where(chosen[..., None, None, None], rgb.clamp(0, 1), shown[:, :, :3])
    shown = torch.cat([rgb, alpha], dim=2)
    if config.shift_px:
        reach = config.shift_px
        offsets = torch.randint(-reach, reach + 1, (*lead, 2), generator=generator).to(device)
        shown, cameras = shift(shown, cameras, offsets * chosen[..., None], background)
    return shown, cameras


def multiply_colours(rgb: Tensor, alpha: Tensor, background: float, factors: Tensor) -> Tensor:
    """Multiply the animal's colours; the background shows through as before.

    Args:
        rgb: On the background. [B, V, 3, H, W]
        alpha: [B, V, 1, H, W]
        background: Its grey level.
        factors: Per channel. [B, V, 3]
    """
    animal = rgb - (1 - alpha) * background
    return rgb + (factors[..., None, None] - 1) * animal


def blur(pictures: Tensor, sigma: Tensor, most: float) -> Tensor:
    """Gaussian blur; the border's pixels go on outside.

    Args:
        pictures: [B, V, C, H, W]
        sigma: In pixels, one per view; below a tenth of a pixel nothing changes. [B, V]
        most: Upper bound of sigma: sums reach three times as far.
    """
    reach = max(1, int(3 * most + 0.5))
    taps = torch.arange(-reach, reach + 1, device=pictures.device)
    weights = (-0.5 * (taps / sigma[..., None].clamp_min(0.1)).square()).exp()
    weights = (weights / weights.sum(-1, keepdim=True))[..., None, None, None]
    for axis in (-1, -2):
        size = pictures.shape[axis]
        places = (taps[:, None] + torch.arange(size, device=pictures.device)).clamp(0, size - 1)
        # One tap at a time: a convolution with a kernel per view would be rounded to TF32 on a GPU.
        parts = (weights[:, :, i] * pictures.index_select(axis, place) for i, place in enumerate(places))
        pictures = sum(parts, torch.zeros_like(pictures))
    return pictures


def shift(
    shown: Tensor, cameras: CameraBatch, offsets: Tensor, background: float
) -> tuple[Tensor, CameraBatch]:
    """Move pictures by whole pixels, and their principal points with them; what comes in is background.

    Args:
        shown: RGB on the background and alpha. [B, V, 4, H, W]
        cameras: Of exactly these pixels.
        offsets: To the right and down, int64. [B, V, 2]
        background: Its grey level.
    """
    *_, channels, height, width = shown.shape
    columns = torch.arange(width, device=shown.device) - offsets[..., 0, None]
    rows = torch.arange(height, device=shown.device) - offsets[..., 1, None]
    inside = ((rows >= 0) & (rows < height))[..., :, None] & ((columns >= 0) & (columns < width))[
        ..., None, :
    ]
    rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    moved = shown.gather(3, rows[:, :, None, :, None].expand_as(shown))
    moved = moved.gather(4, columns[:, :, None, None, :].expand_as(shown))
    outside = shown.new_tensor([*[background] * (channels - 1), 0.0])[:, None, None]
    K = cameras.K.clone()
    K[..., :2, 2] += offsets
    return torch.where(inside[:, :, None], moved, outside), CameraBatch(K, cameras.w2c)
