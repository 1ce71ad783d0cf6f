"""Silhouettes of generated pictures, which have no alpha: told apart by colour from a uniform background."""

from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

LEAST_NOISE, MOST_NOISE = 0.04, 0.20
"""Limits of the distance from the background's colour up to which a pixel is background."""
NOISE_SIGMAS = 3
"""Between them it is so many robust standard deviations above the median distance of the picture's rim."""
RIM_PX = 2
DISTINCT = 0.06
"""By how much every part of the animal exceeds that distance somewhere."""
EDGE_PX = 3
"""How far the outline's blur reaches, and how far inside the animal its own colour is looked for."""
LARGEST_HOLE = 0.01
"""A hole of at most this share of the part around it is a highlight; larger ones are seen through."""


def estimate_silhouettes(pictures: Tensor, background: float) -> Tensor:
    """Soft silhouettes of pictures that were generated on a uniform background.

    Pixels along the outline mix the animal's colour, taken from nearby, with the background's; the share of
    the animal is its alpha. Everything farther inside is 1. What is coloured as the background cannot be told
    from it: only small highlights are closed, and a shadow that the model paints counts as animal. Never use
    it where real alpha exists.

    Args:
        pictures: RGB in [0, 1]. [V, 3, H, W]
        background: Its grey level.

    Returns:
        0 for the background, 1 for the animal. [V, 1, H, W], fp32
    """
    distance = (pictures.float() - background).abs().amax(dim=1, keepdim=True)
    parts = np.stack([_animal(picture) for picture in distance[:, 0].cpu().numpy()])
    animal = torch.from_numpy(parts).to(distance)[:, None]
    strongest = _neighbourhood_max(distance)
    mixed = animal * distance / strongest.clamp_min(LEAST_NOISE + DISTINCT)
    deep_inside = _neighbourhood_max(1 - animal) == 0
    return torch.where(deep_inside, torch.ones_like(mixed), mixed)


def _animal(distance: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Connected parts that are distinct somewhere, with small holes closed. [H, W] -> [H, W]"""
    noise, smooth = _noise_level(distance), cv2.GaussianBlur(distance, (3, 3), 0)
    _, labels = cv2.connectedComponents((smooth > noise).astype(np.uint8), connectivity=8)
    distinct = np.zeros(labels.max() + 1, bool)
    distinct[labels[smooth > noise + DISTINCT]] = True
    animal = distinct[labels]
    _, holes, stats, _ = cv2.connectedComponentsWithStats((~animal).astype(np.uint8), connectivity=4)
    small = stats[:, cv2.CC_STAT_AREA] <= LARGEST_HOLE * animal.sum()
    # Background that the picture's border cuts off is no hole.
    small[_rim(holes, 1)] = False
    return animal | small[holes]


def _noise_level(distance: NDArray[np.float32]) -> float:
    """Read off the rim, which animals touch but do not cover: a young model's white is tinted and noisy."""
    rim = _rim(distance, RIM_PX)
    median = np.median(rim)
    sigma = 1.4826 * np.median(np.abs(rim - median))
    return float(np.clip(median + NOISE_SIGMAS * sigma, LEAST_NOISE, MOST_NOISE))


def _rim(values: NDArray[Any], width: int) -> NDArray[Any]:
    """What lies along the four sides, corners twice. [H, W] -> [N]"""
    sides = values[:width], values[-width:], values[:, :width], values[:, -width:]
    return np.concatenate([side.ravel() for side in sides])


def _neighbourhood_max(values: Tensor) -> Tensor:
    """Largest value within EDGE_PX along both axes. [V, 1, H, W]"""
    return F.max_pool2d(values, 2 * EDGE_PX + 1, stride=1, padding=EDGE_PX)
