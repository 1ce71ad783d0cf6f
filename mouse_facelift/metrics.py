"""Image metrics, one number per view, on whole pictures or on the foreground alone.

An animal covers a small part of a view, so a whole-picture PSNR mostly measures the background.
"""

import math

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .blur import gaussian_blur
from .errors import DataError

MAX_PSNR_DB = 100.0
SSIM_TAPS = 11
SSIM_SIGMA = 1.5


def psnr(images: Tensor, targets: Tensor, mask: Tensor | None = None) -> Tensor:
    """Peak signal-to-noise ratio of clamped images in dB, at most 100.

    Args:
        images: Clamped to [0, 1] before comparing. [..., 3, H, W]
        targets: In [0, 1]. [..., 3, H, W]
        mask: Pixels to compare are those above 0.5; None compares all. [..., 1, H, W]

    Returns:
        [...]; NaN where the mask is empty.
    """
    squared = (images.float().clamp(0, 1) - targets.float()).square()
    return -10 * _mean(squared, mask).clamp_min(10 ** (-MAX_PSNR_DB / 10)).log10()


def ssim(images: Tensor, targets: Tensor, mask: Tensor | None = None) -> Tensor:
    """Structural similarity of clamped images, mean over channels and full windows.

    Uses sample covariances, as the published evaluation (facelift_spec 8), unlike the training loss.

    Args:
        images: Clamped to [0, 1] before comparing. [..., 3, H, W]
        targets: In [0, 1]. [..., 3, H, W]
        mask: Windows to count are those whose centre lies above 0.5; None counts all. [..., 1, H, W]

    Returns:
        [...]; NaN where the mask is empty.

    Raises:
        DataError: the images are smaller than the 11-pixel window.
    """
    samples = SSIM_TAPS**2
    values = ssim_map(images.clamp(0, 1), targets, covariance_scale=samples / (samples - 1))
    if mask is not None:
        border = SSIM_TAPS // 2
        mask = mask[..., border:-border, border:-border]
    return _mean(values, mask)


def silhouette_iou(alpha: Tensor, target_alpha: Tensor) -> Tensor:
    """Intersection over union of two silhouettes, alpha above 0.5; 1 where both are empty.

    Args:
        alpha: [..., 1, H, W]
        target_alpha: [..., 1, H, W]

    Returns:
        [...]
    """
    a, b = alpha > 0.5, target_alpha > 0.5
    union = (a | b).sum(dim=(-3, -2, -1))
    return torch.where(union > 0, (a & b).sum(dim=(-3, -2, -1)) / union.clamp_min(1), 1.0)


def boundary_distance(alpha: Tensor, target_alpha: Tensor) -> Tensor:
    """Mean distance between the outlines of two silhouettes, alpha above 0.5, in pixels.

    An outline is the pixels of a silhouette that share an edge with a pixel outside it or with the border.
    From each pixel of one outline to the nearest of the other: mean over the outline, then of both ways.

    Args:
        alpha: [..., 1, H, W]
        target_alpha: [..., 1, H, W]

    Returns:
        [...]; 0 where both silhouettes are empty, the picture's diagonal where one is. On the CPU.
    """
    height, width = alpha.shape[-2:]
    pairs = zip(_silhouettes(alpha), _silhouettes(target_alpha), strict=True)
    distances = [_outline_distance(one, other) for one, other in pairs]
    return torch.tensor(distances).reshape(alpha.shape[:-3]).clamp_max(float(np.hypot(height, width)))


def outline_in_one_color(rgba: Tensor, background: float = 1.0) -> Tensor:
    """The trivial prediction to beat: the true outline filled with the animal's mean colour.

    Args:
        rgba: True views, straight alpha. [V, 4, H, W]
        background: Grey level behind it.

    Returns:
        RGB. [V, 3, H, W]
    """
    alpha = rgba[:, 3:]
    color = (rgba[:, :3] * alpha).sum(dim=(2, 3), keepdim=True) / alpha.sum(dim=(2, 3), keepdim=True)
    return color * alpha + background * (1 - alpha)


def ssim_map(images: Tensor, targets: Tensor, covariance_scale: float = 1.0) -> Tensor:
    """Structural similarity (Wang et al. 2004) of every full window, data range 1.

    11-tap Gaussian of sigma 1.5, valid convolution, K = (0.01, 0.03): as in the published training.

    Args:
        images: [..., H, W]
        targets: [..., H, W]
        covariance_scale: Factor on variances and covariance; n / (n - 1) makes sample statistics of them.

    Returns:
        [..., H - 10, W - 10]

    Raises:
        DataError: the images are smaller than the window.
    """
    if min(images.shape[-2:]) < SSIM_TAPS:
        raise DataError(
            f"images are {images.shape[-1]}x{images.shape[-2]} pixels; SSIM needs at least "
            f"{SSIM_TAPS}x{SSIM_TAPS}."
        )
    a, b = images.float(), targets.float()
    # Apart, because targets need no gradient.
    mean_b, bb = gaussian_blur(torch.stack([b, b * b]), SSIM_TAPS, SSIM_SIGMA)
    mean_a, aa, ab = gaussian_blur(torch.stack([a, a * a, a * b]), SSIM_TAPS, SSIM_SIGMA)
    c1, c2 = 0.01**2, 0.03**2
    covariance = covariance_scale * (ab - mean_a * mean_b)
    variances = covariance_scale * (aa - mean_a.square() + bb - mean_b.square())
    luminance = (2 * mean_a * mean_b + c1) / (mean_a.square() + mean_b.square() + c1)
    return luminance * (2 * covariance + c2) / (variances + c2)


def finite(figure: float | Tensor) -> float | None:
    """A figure as JSON can hold it: None where it is NaN or infinite."""
    number = float(figure)
    return number if math.isfinite(number) else None


def _mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """Mean over channels and pixels [..., C, H, W] -> [...], of the masked pixels if there is a mask."""
    if mask is None:
        return values.mean(dim=(-3, -2, -1))
    chosen = (mask > 0.5).to(values.dtype)
    return (values * chosen).sum(dim=(-3, -2, -1)) / (values.shape[-3] * chosen.sum(dim=(-3, -2, -1)))


def _silhouettes(alpha: Tensor) -> NDArray[np.uint8]:
    """[..., 1, H, W] -> [N, H, W]"""
    return (alpha > 0.5).flatten(0, -3).byte().cpu().numpy()


def _outline_distance(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """See `boundary_distance`; infinite where exactly one is empty."""
    if not one.any() or not other.any():
        return float("inf") if one.any() or other.any() else 0.0
    outlines = [_outline(one), _outline(other)]
    away = [
        cv2.distanceTransform((~edge).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        for edge in outlines
    ]
    return float((away[1][outlines[0]].mean() + away[0][outlines[1]].mean()) / 2)


def _outline(silhouette: NDArray[np.uint8]) -> NDArray[np.bool_]:
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    inner = cv2.erode(silhouette, cross, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return (silhouette > 0) & (inner == 0)
