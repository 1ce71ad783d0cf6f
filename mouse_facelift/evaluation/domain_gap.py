"""How generated views differ from real ones at the same cameras: fine detail, noise, colour.

Every figure looks at the animal's inside only, the same pixels in both pictures, so that neither the
background nor a wrong outline counts.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

BINS = 24
"""Rings of the spectrum, equally wide, up to half a cycle a pixel."""
FINE = 0.25
"""Cycles a pixel from which detail counts as fine."""
EDGE_SHARE = 1 / 128
"""Left out along the outline, of the picture's side: both pictures mix the background in there."""
TAPER_SHARE = 1 / 64
"""Over so much more the spectrum's window falls to zero; a hard edge would look like detail."""
LUMA = (0.2126, 0.7152, 0.0722)
LAPLACIAN = ((1.0, -2.0, 1.0), (-2.0, 4.0, -2.0), (1.0, -2.0, 1.0))
LAPLACIAN_GAIN = 6.0
"""Standard deviation of its answer to white noise of standard deviation 1."""
MEDIAN_TO_SIGMA = 1.4826
D65 = (0.95047, 1.0, 1.08883)


@dataclass(frozen=True)
class Look:
    """Figures of some pictures' animal.

    Attributes:
        spectrum: Power of the luma by rings of spatial frequency, NaN without an inside. [V, BINS]
        noise: Standard deviation of the finest structure, grey levels of 255. [V]
        lab_mean: Mean CIELAB colour. [V, 3]
        lab_spread: Its standard deviation over pixels. [V, 3]
    """

    spectrum: Tensor
    noise: Tensor
    lab_mean: Tensor
    lab_spread: Tensor


def look(rgb: Tensor, inside: Tensor) -> Look:
    """Measure pictures on the pixels of `inside`.

    Args:
        rgb: In [0, 1]. [V, 3, H, W]
        inside: See `common_inside`. Boolean [V, 1, H, W]
    """
    lab = to_lab(rgb)
    mean, spread = _mean_and_spread(lab, inside)
    return Look(power_spectrum(rgb, inside), noise_level(rgb, inside), mean, spread)


def common_inside(alpha: Tensor, other: Tensor) -> Tensor:
    """Pixels that lie inside both silhouettes, away from either outline. [V, 1, H, W] twice -> boolean"""
    return eroded((alpha > 0.5) & (other > 0.5), _pixels(EDGE_SHARE, alpha))


def eroded(mask: Tensor, pixels: int) -> Tensor:
    """A mask without what lies within `pixels` of its outline or the picture's border. [V, 1, H, W]"""
    if pixels == 0:
        return mask.bool()
    outside = F.pad(1 - mask.float(), (pixels,) * 4, value=1.0)
    return F.max_pool2d(outside, 2 * pixels + 1, stride=1) == 0


def power_spectrum(rgb: Tensor, inside: Tensor) -> Tensor:
    """Radially averaged power spectral density of the luma inside the animal.

    The luma's mean is taken off and the rest is multiplied with a window that is zero outside the animal and
    rises smoothly inside. Divided by the window's energy, white noise of variance s^2 has s^2 in every ring,
    whatever the animal's size.

    Args:
        rgb: In [0, 1]. [V, 3, H, W]
        inside: Pixels that count. Boolean [V, 1, H, W]

    Returns:
        Power in squared units of `rgb`; NaN where the window is empty. [V, BINS]
    """
    window = _tapered(inside)
    energy = window.square().sum(dim=(-3, -2, -1))
    grey = _luma(rgb)
    weight = window.sum(dim=(-3, -2, -1), keepdim=True)
    centred = (grey - (grey * window).sum(dim=(-3, -2, -1), keepdim=True) / weight) * window
    power = torch.fft.fft2(centred)[:, 0].abs().square() / energy[:, None, None]
    height, width = power.shape[-2:]
    radius = torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.fftfreq(width)[None]).to(rgb.device)
    ring = (radius * 2 * BINS).long().flatten()
    # Corners lie beyond half a cycle a pixel: a ring of their own, dropped.
    ring = ring.clamp_max(BINS)
    sums = power.new_zeros(len(power), BINS + 1).index_add_(1, ring, power.flatten(1))
    counts = torch.bincount(ring, minlength=BINS + 1).to(power)
    means = (sums / counts)[:, :BINS]
    return torch.where(energy[:, None] > 0, means, math.nan)


def ring_centres() -> list[float]:
    """The rings' middle frequencies, cycles a pixel."""
    return [(index + 0.5) / (2 * BINS) for index in range(BINS)]


def sharpness_db(spectrum: Tensor, reference: Tensor) -> Tensor:
    """Fine detail of one spectrum against another's: 0 dB is as much, below is softer.

    Args:
        spectrum: As of `power_spectrum`. [V, BINS]
        reference: Of the same pixels of another picture. [V, BINS]

    Returns:
        Ratio of the power from `FINE` cycles a pixel on. [V]
    """
    fine = [index for index, centre in enumerate(ring_centres()) if centre >= FINE]
    tiny = torch.finfo(spectrum.dtype).tiny
    ratio = spectrum[:, fine].sum(-1) / reference[:, fine].sum(-1).clamp_min(tiny)
    return 10 * ratio.clamp_min(1e-12).log10()


def noise_level(rgb: Tensor, inside: Tensor) -> Tensor:
    """Standard deviation of white noise that would explain the finest structure of the animal.

    The mask of Immerkaer (1996), which plane slopes do not move, and the median of its size instead of the
    mean, which edges hardly move. Fur counts as noise too, so only differences at the same pixels say much.

    Args:
        rgb: In [0, 1]. [V, 3, H, W]
        inside: Pixels that count. Boolean [V, 1, H, W]

    Returns:
        Grey levels of 255, mean over channels; NaN where nothing is inside. [V]
    """
    kernel = torch.tensor(LAPLACIAN, device=rgb.device).expand(3, 1, 3, 3)
    answer = F.conv2d(rgb.float(), kernel, groups=3).abs()
    fits = eroded(inside, 1)[..., 1:-1, 1:-1].expand_as(answer)
    median = torch.where(fits, answer, math.nan).flatten(2).nanmedian(dim=-1).values
    return 255 * MEDIAN_TO_SIGMA * median.mean(-1) / LAPLACIAN_GAIN


def to_lab(rgb: Tensor) -> Tensor:
    """sRGB in [0, 1] to CIELAB (D65): distances of about 2 are just visible. [V, 3, H, W]"""
    rgb = rgb.float().clamp(0, 1)
    linear = torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    matrix = rgb.new_tensor(
        [
            [0.4124564, 0.3575761, 0.1804375],
            [0.2126729, 0.7151522, 0.0721750],
            [0.0193339, 0.1191920, 0.9503041],
        ]
    )
    xyz = torch.einsum("ij,vjhw->vihw", matrix, linear) / rgb.new_tensor(D65)[:, None, None]
    delta = 6 / 29
    root = torch.where(xyz > delta**3, xyz.clamp_min(delta**3) ** (1 / 3), xyz / (3 * delta**2) + 4 / 29)
    x, y, z = root.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


def _mean_and_spread(values: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
    """Over pixels; NaN where nothing is inside. [V, 3, H, W] -> [V, 3] twice"""
    count = inside.sum(dim=(-2, -1)).to(values)
    mean = (values * inside).sum(dim=(-2, -1)) / count
    squared = ((values - mean[..., None, None]).square() * inside).sum(dim=(-2, -1)) / count
    return mean, squared.sqrt()


def _tapered(inside: Tensor) -> Tensor:
    """A window that is 0 outside and rises to 1 inside. [V, 1, H, W]"""
    width = _pixels(TAPER_SHARE, inside)
    window = F.pad(eroded(inside, width).float(), (width,) * 4)
    # Blurred twice by half the width: a smooth slope that ends where the inside does.
    for reach in (width // 2, width - width // 2):
        window = F.avg_pool2d(window, 2 * reach + 1, stride=1, padding=reach, count_include_pad=True)
    return window[..., width:-width, width:-width]


def _pixels(share: float, picture: Tensor) -> int:
    """A share of a picture's side in pixels, at least 1."""
    return max(1, round(share * picture.shape[-1]))


def _luma(rgb: Tensor) -> Tensor:
    return (rgb.float() * rgb.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)
