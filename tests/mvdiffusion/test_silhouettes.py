"""Outlines of pictures without alpha."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mouse_facelift.metrics import silhouette_iou
from mouse_facelift.mvdiffusion.silhouettes import estimate_silhouettes


def disc(colour: float, blur_px: float = 0.0, size: int = 64) -> tuple[Tensor, Tensor]:
    """An anti-aliased disc on white and its alpha. [1, 3, H, W], [1, 1, H, W]"""
    fine = (torch.arange(4 * size) + 0.5) / 4 - size / 2
    inside = ((fine[:, None] ** 2 + fine**2) < (size / 3) ** 2).float()
    alpha = F.avg_pool2d(inside[None, None], 4)
    if blur_px:
        alpha = torch.from_numpy(cv2.GaussianBlur(alpha[0, 0].numpy(), (0, 0), blur_px))[None, None]
    return (colour * alpha + 1 - alpha).expand(-1, 3, -1, -1), alpha


@pytest.mark.parametrize("colour", [0.05, 0.5, 0.85])
@pytest.mark.parametrize("blur_px", [0.0, 1.0])
def test_outline_does_not_move_with_the_animals_brightness(colour: float, blur_px: float) -> None:
    picture, alpha = disc(colour, blur_px)
    found = estimate_silhouettes(picture, 1.0)
    assert found.shape == alpha.shape
    assert silhouette_iou(found, alpha).item() > 0.98
    assert (found.sum() / alpha.sum()).item() == pytest.approx(1, abs=0.02)


def test_any_uniform_background_serves() -> None:
    picture, _ = disc(0.3)
    torch.testing.assert_close(estimate_silhouettes(1 - picture, 0.0), estimate_silhouettes(picture, 1.0))


def test_noise_and_faint_stains_are_background() -> None:
    picture = 1 - 0.035 * torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    picture[:, :, 10:20, 10:20] = 0.93
    assert not estimate_silhouettes(picture, 1.0).any()


@pytest.mark.parametrize(("tint", "sigma"), [(0.9, 0.02), (1.0, 0.06)])
def test_tinted_and_noisy_white_of_a_young_model_is_background(tint: float, sigma: float) -> None:
    picture, alpha = disc(0.2)
    noise = torch.randn(picture.shape, generator=torch.Generator().manual_seed(0))
    found = estimate_silhouettes((tint * picture + sigma * noise).clamp(0, 1), 1.0)
    assert silhouette_iou(found, alpha).item() > 0.95


def test_pale_part_of_an_animal_stays() -> None:
    picture = torch.ones(1, 3, 64, 64)
    picture[:, :, 20:44, 10:30] = 0.2
    picture[:, :, 20:44, 30:54] = 0.93
    found = estimate_silhouettes(picture, 1.0)
    assert (found[:, :, 24:40, 14:50] == 1).all()


def test_highlight_is_closed_but_a_gap_is_seen_through() -> None:
    picture = torch.full((1, 3, 96, 96), 0.3)
    picture[:, :, 30:33, 30:33] = 1
    picture[:, :, 50:70, 50:70] = 1
    found = estimate_silhouettes(picture, 1.0)
    assert (found[:, :, 30:33, 30:33] == 1).all()
    assert not found[:, :, 50:70, 50:70].any()


def test_background_cut_off_by_the_border_is_no_hole() -> None:
    picture = torch.full((1, 3, 96, 96), 0.3)
    picture[:, :, :3, 40:43] = 1
    assert not estimate_silhouettes(picture, 1.0)[:, :, :3, 40:43].any()


def test_empty_and_full_pictures() -> None:
    pictures = torch.stack([torch.ones(3, 16, 16), torch.zeros(3, 16, 16)])
    found = estimate_silhouettes(pictures, 1.0)
    assert not found[0].any()
    assert (found[1] == 1).all()


def test_rendered_mouse_is_outlined(shared: Path) -> None:
    """Held-out renderings with true alpha, blurred by a pixel and noisy as generated views are."""
    paths = sorted((shared / "data" / "mouse_capture" / "ground_truth" / "novel_views").glob("*.png"))
    assert paths
    rng = np.random.default_rng(0)
    scores = []
    for path in paths[:4]:
        rgba = cv2.imread(str(path), cv2.IMREAD_UNCHANGED).astype(np.float32) / 255
        alpha = rgba[..., 3:]
        white = cv2.GaussianBlur(rgba[..., :3] * alpha + 1 - alpha, (0, 0), 1)
        picture = torch.from_numpy(white + rng.normal(0, 0.006, white.shape).astype(np.float32))
        found = estimate_silhouettes(picture.permute(2, 0, 1)[None].clamp(0, 1), 1.0)
        scores.append(silhouette_iou(found, torch.from_numpy(alpha).permute(2, 0, 1)[None]).item())
    assert min(scores) > 0.97
