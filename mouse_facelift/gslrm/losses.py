"""Training losses: renderings against real views, never clamped, in float32.

Scores to report are in `metrics`; these terms are only there to be minimised.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..gaussians import Gaussians
from ..gaussians.config import PUBLISHED_BOX
from ..gaussians.rendering import Rendering
from ..geometry.hull_depth import first_hull_depth
from ..geometry.rays import CameraBatch, pixel_rays
from ..metrics import SSIM_TAPS, ssim_map
from .config import LossConfig
from .perceptual import LPIPS, PerceptualLoss

T = TypeVar("T")

TERMS = ("l2", "ssim", "alpha", "perceptual", "lpips", "background", "hull_depth", "outside", "points")

POINTS_WARMUP_WEIGHT = 0.1
"""Weight of `points` while nothing else counts (facelift_spec 4.3)."""

POINTS_SPREAD = 0.5
"""Standard deviation of distances that `points` asks for, model units (facelift_spec 4.1)."""

CROP_MULTIPLE = 16
"""Windows are rounded up to this many pixels, so that their sizes repeat."""


@dataclass(frozen=True)
class PixelPoints:
    """The Gaussians of all pixels of the input views, for `points`.

    Attributes:
        means: Centres in model units, pixels in any order. [B, V, P, 3]
        centers: Of the cameras, model units. [B, V, 3]
    """

    means: Tensor
    centers: Tensor


class RenderingLoss:
    """The weighted sum of the configured terms; holds the networks that some of them need."""

    def __init__(self, config: LossConfig) -> None:
        """Read the networks of terms whose weight is not 0.

        Raises:
            CheckpointError: their weights are missing or of something else.
            DependencyError: LPIPS is asked for and not installed.
        """
        self.config = config
        self.networks: dict[str, nn.Module] = {}
        if config.perceptual and config.perceptual_weights is not None:
            self.networks["perceptual"] = PerceptualLoss.load(config.perceptual_weights)
        if config.lpips and config.lpips_weights is not None:
            self.networks["lpips"] = LPIPS(config.lpips_weights)

    def needs_points(self, step: int) -> bool:
        """Whether `points` must be given at this step."""
        return bool(weights_at(self.config, step).points)

    def __call__(
        self,
        rendered: Rendering,
        target_rgb: Tensor,
        target_alpha: Tensor,
        step: int = 0,
        *,
        hull_depth: Tensor | None = None,
        gaussians: Gaussians | None = None,
        points: PixelPoints | None = None,
    ) -> dict[str, Tensor]:
        """Compare renderings with real views.

        Args:
            rendered: Of the target cameras. [B, V, ...]
            target_rgb: Real views on the rendering's background, in [0, 1]. [B, V, 3, H, W]
            target_alpha: Soft masks in [0, 1]. [B, V, 1, H, W]
            step: Updates made so far, for warm-ups.
            hull_depth: Needed with a weight of `hull_depth`: see `hull_depths`. [B, V, 1, H, W]
            gaussians: What was rendered; needed with a weight of `outside`.
            points: Needed where `needs_points`.

        Returns:
            `loss`, and each term that counts, unweighted, under its name. Scalars, float32.
        """
        weights = weights_at(self.config, step)
        region = _Region(weights, rendered.rgb.float(), target_rgb.float(), target_alpha.float())
        compute: dict[str, Callable[[], Tensor]] = {
            "l2": region.l2,
            "ssim": region.ssim,
            "perceptual": lambda: region.judged_by(self._network("perceptual", target_rgb)),
            "lpips": lambda: region.judged_by(self._network("lpips", target_rgb)),
            "alpha": lambda: F.mse_loss(rendered.alpha.float(), target_alpha.float()),
            "background": lambda: weighted_mean(
                (rendered.rgb.float() - target_rgb.float()).square(), 1 - target_alpha.float()
            ),
            "hull_depth": lambda: hull_depth_loss(rendered, _given(hull_depth), weights.hull_slack),
            "outside": lambda: outside_loss(_given(gaussians)),
            "points": lambda: points_loss(_given(points)),
        }
        terms = {name: compute[name]() for name in TERMS if getattr(weights, name)}
        total = torch.stack([getattr(weights, name) * value for name, value in terms.items()]).sum()
        return {"loss": total, **terms}

    def _network(self, name: str, like: Tensor) -> nn.Module:
        return self.networks[name].to(like.device)


def weights_at(config: LossConfig, step: int) -> LossConfig:
    """The weights after `step` updates: `config` after its warm-ups (facelift_spec 4.3)."""
    if step < config.warmup_points_steps:
        return config.model_copy(update=dict.fromkeys(TERMS, 0.0) | {"points": POINTS_WARMUP_WEIGHT})
    if step < config.warmup_l2_steps:
        return config.model_copy(update={"perceptual": 0.0, "lpips": 0.0})
    return config


def weighted_mean(values: Tensor, weights: Tensor | None) -> Tensor:
    """Mean over all pixels and channels, each pixel counted with its weight; 0 where all weights are 0.

    Args:
        values: [..., C, H, W]
        weights: At least 0, None for equal ones. [..., 1, H, W]
    """
    if weights is None:
        return values.mean()
    return (values * weights).sum() / (values.shape[-3] * weights.sum()).clamp_min(1e-8)


class _Region:
    """Pictures cut or weighted as `region` says.

    `masked` weighs pixels by alpha and divides by its sum over all views, so that a term has the size that it
    would have if the animal filled the pictures. SSIM weighs its windows by the alpha of their centre. For
    networks the rendering is laid over the real view by alpha, so that only the animal differs and yet stands
    in its surroundings, and the distance is divided by the mean alpha.
    """

    def __init__(self, config: LossConfig, rgb: Tensor, target: Tensor, alpha: Tensor) -> None:
        rgb, target, alpha = rgb.flatten(0, 1), target.flatten(0, 1), alpha.flatten(0, 1)
        if config.region == "cropped":
            window = animal_windows(alpha, config.crop_margin)
            rgb, target = cut(rgb, *window), cut(target, *window)
        self.rgb, self.target = rgb, target
        self.mask = alpha if config.region == "masked" else None

    def l2(self) -> Tensor:
        return weighted_mean((self.rgb - self.target).square(), self.mask)

    def ssim(self) -> Tensor:
        border = SSIM_TAPS // 2
        centres = None if self.mask is None else self.mask[..., border:-border, border:-border]
        return weighted_mean(1 - ssim_map(self.rgb, self.target), centres)

    def judged_by(self, network: nn.Module) -> Tensor:
        if self.mask is None:
            return network(self.rgb, self.target).mean()
        inside = self.target + self.mask * (self.rgb - self.target)
        return network(inside, self.target).mean() / self.mask.mean().clamp_min(1e-8)


def animal_windows(alpha: Tensor, margin: int) -> tuple[Tensor, Tensor]:
    """Windows of one size, one in each picture, that hold all of its animal and a margin.

    Args:
        alpha: Masks; above 0 is the animal. [N, 1, H, W]
        margin: Pixels kept around the animal.

    Returns:
        Rows [N, h] and columns [N, w] of the windows.
    """
    return _span(alpha.amax((1, 3)) > 0, margin), _span(alpha.amax((1, 2)) > 0, margin)


def _span(used: Tensor, margin: int) -> Tensor:
    """Consecutive places, as many in every line, that cover those used. [N, L] bool -> [N, l]"""
    length = used.shape[1]
    place = torch.arange(length, device=used.device)
    first = torch.where(used, place, length).amin(1)
    last = torch.where(used, place, -1).amax(1)
    needed = int((last - first + 1).amax().clamp_min(1)) + 2 * margin
    size = min(length, -(-needed // CROP_MULTIPLE) * CROP_MULTIPLE)
    start = torch.div(first + last + 1 - size, 2, rounding_mode="floor").clamp(0, length - size)
    return start[:, None] + place[:size]


def cut(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Cut windows out. [N, C, H, W], rows [N, h], columns [N, w] -> [N, C, h, w]"""
    _, channels, _, width = images.shape
    lines = images.gather(2, rows[:, None, :, None].expand(-1, channels, -1, width))
    return lines.gather(3, columns[:, None, None, :].expand(-1, channels, rows.shape[1], -1))


@torch.no_grad()
def hull_depths(alpha: Tensor, cameras: CameraBatch, radius: float, samples: int) -> Tensor:
    """Depth of the visual hull along each camera's optical axis.

    Args:
        alpha: Silhouettes of all views that carve. [B, V, 1, H, W]
        cameras: Theirs.
        radius: See `first_hull_depth`.
        samples: See `first_hull_depth`.

    Returns:
        World units, NaN where there is no hull. [B, V, 1, H, W]
    """
    origins, directions = pixel_rays(cameras.K, cameras.w2c, *alpha.shape[-2:])
    distance = first_hull_depth(alpha[:, :, 0], cameras, origins, directions, radius, samples)
    forward = cameras.w2c[..., 2, :3, None, None]
    return (distance * (forward * directions).sum(2)).unsqueeze(2)


def hull_depth_loss(rendered: Rendering, hull: Tensor, slack: float) -> Tensor:
    """Mean squared distance of rendered depths from where the surface can be.

    The hull contains the animal, so nothing can be in front of it; behind it the surface may be `slack` deep,
    as in a hollow that no outline shows. The rendered depth and not the Gaussians' means: it is what is seen,
    whichever Gaussian draws it, so transparent ones are left alone and target views count as well.

    Args:
        rendered: [B, V, ...]
        hull: Depth of the hull; NaN where unknown. [B, V, 1, H, W]
        slack: World units.
    """
    known = ~hull.isnan() & (rendered.alpha > 0.5)
    ahead = hull.nan_to_num() - rendered.depth.float()
    return weighted_mean((ahead.relu() + (-ahead - slack).relu()).square(), known.float())


def outside_loss(gaussians: Gaussians) -> Tensor:
    """Mean squared distance beyond the box that inference keeps, Gaussians weighted by opacity.

    A few opaque ones near the cameras, each in front of one view, improve a training view and are cut
    afterwards: what they drew is then missing.
    """
    beyond = (gaussians.means.abs() - gaussians.means.new_tensor(PUBLISHED_BOX)).relu().square().sum(-1)
    return (gaussians.opacities * beyond).sum() / gaussians.opacities.sum().clamp_min(1e-8)


def points_loss(points: PixelPoints) -> Tensor:
    """How far distances along the rays are from being spread about the origin (facelift_spec 4.1).

    Each view's distances, brought to a standard deviation of 0.5 about the camera's distance to the origin,
    are the constant target of these distances: it starts a training whose Gaussians lie anywhere.
    """
    distance = (points.means.float() - points.centers[:, :, None]).norm(dim=-1)
    with torch.no_grad():
        spread, mean = torch.std_mean(distance, dim=-1, keepdim=True)
        middle = points.centers.norm(dim=-1, keepdim=True)
        target = POINTS_SPREAD * (distance - mean) / (spread + 1e-8) + middle
    return F.mse_loss(distance, target)


def _given(value: T | None) -> T:
    if value is None:
        raise ValueError("a term of the loss lacks its input: hull_depth, gaussians or points")
    return value
