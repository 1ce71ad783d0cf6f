"""Image metrics."""

import pytest
import torch

from mouse_facelift.errors import DataError
from mouse_facelift.metrics import psnr, silhouette_iou, ssim, ssim_map


def test_psnr_of_a_known_error() -> None:
    targets = torch.full((2, 3, 4, 4), 0.5)
    images = targets + torch.tensor([0.1, 0.01])[:, None, None, None]
    torch.testing.assert_close(psnr(images, targets), torch.tensor([20.0, 40.0]), atol=1e-3, rtol=0)


def test_psnr_clips_the_rendering_and_is_bounded() -> None:
    white = torch.ones(3, 4, 4)
    assert psnr(white + 5, white) == 100


def test_foreground_psnr_does_not_see_the_background() -> None:
    targets = torch.ones(1, 3, 8, 8)
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., :2, :2] = 1
    images = targets - 0.1 * mask
    assert psnr(images, targets, mask).item() == pytest.approx(20, abs=1e-3)
    assert psnr(images, targets).item() == pytest.approx(
        20 + 10 * torch.log10(torch.tensor(16)).item(), abs=1e-2
    )
    assert psnr(images, targets, torch.zeros_like(mask)).isnan()


def test_ssim_is_one_for_equal_images_and_lower_for_noise() -> None:
    torch.manual_seed(0)
    targets = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(ssim(targets, targets), torch.ones(2))
    assert (ssim(targets + 0.3 * torch.randn_like(targets), targets) < 0.9).all()


def test_masked_ssim_counts_windows_centred_on_the_foreground() -> None:
    torch.manual_seed(0)
    targets = torch.rand(1, 3, 40, 40)
    images = targets.clone()
    images[..., 20:] = 1 - images[..., 20:]
    mask = torch.zeros(1, 1, 40, 40)
    mask[..., 5:14] = 1
    torch.testing.assert_close(ssim(images, targets, mask), torch.ones(1))
    assert ssim(images, targets) < 0.9


def test_silhouette_iou() -> None:
    a, b = torch.zeros(3, 1, 4, 4), torch.zeros(3, 1, 4, 4)
    a[0, :, :2] = 1
    b[0, :, 1:3] = 0.8
    a[1] = 1
    torch.testing.assert_close(silhouette_iou(a, b), torch.tensor([1 / 3, 0.0, 1.0]))


def test_ssim_of_unequal_flat_images_is_the_luminance_term() -> None:
    value = ssim_map(torch.full((1, 12, 14), 0.25), torch.full((1, 12, 14), 0.75))
    assert value.shape == (1, 2, 4)
    expected = (2 * 0.25 * 0.75 + 1e-4) / (0.25**2 + 0.75**2 + 1e-4)
    torch.testing.assert_close(value, torch.full((1, 2, 4), expected), atol=5e-4, rtol=0)


def test_ssim_is_computed_in_float32_under_autocast() -> None:
    a, b = torch.rand(1, 3, 16, 16), torch.rand(1, 3, 16, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = ssim_map(a, b)
    torch.testing.assert_close(rounded, ssim_map(a, b))


def test_images_smaller_than_the_window_are_refused() -> None:
    with pytest.raises(DataError, match="10x16"):
        ssim_map(torch.zeros(3, 16, 10), torch.zeros(3, 16, 10))
