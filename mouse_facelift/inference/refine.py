"""Test-time refinement: a scene's Gaussians are fitted for some steps to the views that were shown anyway.

Nothing else is looked at, so a result stays honest at held-out cameras.
"""

import logging
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import DataError
from ..gaussians import Gaussians, render
from ..gslrm.losses import animal_windows, cut
from ..metrics import SSIM_TAPS, ssim_map
from .config import RefineConfig

log = logging.getLogger(__name__)

INVISIBLE = 1 / 255
"""No renderer draws a Gaussian below this opacity, so it has no gradient."""

MARGIN = 1 / 16
"""Share of a picture's side that is drawn around the animal: there leaks are seen, beyond nothing is."""

CHECK_EVERY = 10
"""Steps from one look at the loss to the next; each makes a GPU wait for the host."""

LAST_RATE = 0.1
"""Rates fall to this share of their first values, along half a cosine."""


@dataclass(frozen=True)
class Refinement:
    """What a refinement did.

    Attributes:
        steps: Updates made.
        loss_before: Of the Gaussians that came in.
        loss_after: Of those that went out; never more.
    """

    steps: int
    loss_before: float
    loss_after: float


def refine(
    gaussians: Gaussians, pictures: Tensor, K: Tensor, w2c: Tensor, background: float, config: RefineConfig
) -> tuple[Gaussians, Refinement | None]:
    """Fit one scene to its views with Adam, as 3D Gaussian splatting does, without making new Gaussians.

    Dropped before: Gaussians that no renderer draws, and those whose centre a picture shows beyond the margin
    around its animal. Views without an animal are not used. Where the loss would not fall, the Gaussians come
    back unchanged.

    Args:
        gaussians: One scene, of any degree; higher harmonics stay as they are. [N, ...]
        pictures: The views that were shown: RGB on `background`, and the silhouette, in [0, 1]. [V, 4, H, W]
        K: Intrinsics of exactly these pixels. [V, 3, 3]
        w2c: World-to-camera. [V, 4, 4]
        background: Grey level behind the animal.
        config: Steps, rates and weights.

    Returns:
        The refined Gaussians, detached, and what was done; the same ones and None without steps, or where
        there are no Gaussians or no animal to refine them on.

    Raises:
        DataError: the views are smaller than the window of SSIM.
    """
    if config.steps == 0 or len(gaussians) == 0:
        return gaussians, None
    device, useful = gaussians.means.device, (pictures[:, 3] > 0.5).flatten(1).any(1)
    if not bool(useful.any()):
        log.warning("refine: no view shows an animal (alpha above 0.5); nothing is refined")
        return gaussians, None
    pictures, K, w2c = (values.to(device)[useful.to(device)] for values in (pictures, K, w2c))
    target = _Target.cut_out(pictures, K, w2c, background, len(gaussians))
    start = gaussians.detach()
    start = start[(start.opacities >= INVISIBLE) & ~target.excludes(start.means)]
    before = target.error(gaussians, config)
    if len(start) == 0 or not math.isfinite(before):
        return gaussians, None
    with torch.enable_grad():
        refined, steps = _descend(_Raw.of(start), target, config)
    after = target.error(refined, config)
    if after < before and _is_finite(refined):
        return refined, Refinement(steps, before, after)
    return gaussians, Refinement(steps, before, before)


def _is_finite(scene: Gaussians) -> bool:
    """No renderer draws the others, so a loss does not tell of them."""
    parts = (scene.means, scene.quats, scene.scales, scene.opacities, scene.sh0)
    return all(bool(values.isfinite().all()) for values in parts)


def _descend(raw: "_Raw", target: "_Target", config: RefineConfig) -> tuple[Gaussians, int]:
    """Run the optimizer; the result, and how many steps were made."""
    optimizer = raw.optimizer(config)
    first_rates = [group["lr"] for group in optimizer.param_groups]
    losses: list[Tensor] = []
    progress, idle = math.inf, 0
    for step in range(config.steps):
        decay = LAST_RATE + (1 - LAST_RATE) * 0.5 * (1 + math.cos(math.pi * step / config.steps))
        for group, rate in zip(optimizer.param_groups, first_rates, strict=True):
            group["lr"] = decay * rate
        loss = target.loss(raw.activated(), config)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
        if len(losses) % CHECK_EVERY == 0:
            recent = float(torch.stack(losses[-CHECK_EVERY:]).mean())
            idle = idle + 1 if not recent < (1 - config.tolerance) * progress else 0
            progress = min(progress, recent)
            if idle >= config.patience or not math.isfinite(recent):
                break
    return raw.activated().detach(), len(losses)


@dataclass(frozen=True)
class _Raw:
    """Gaussians before activation, as leaves of a graph."""

    means: Tensor
    quats: Tensor
    log_scales: Tensor
    logit_opacities: Tensor
    sh0: Tensor
    sh_rest: Tensor | None

    @classmethod
    def of(cls, scene: Gaussians) -> "_Raw":
        def leaf(values: Tensor) -> Tensor:
            return values.detach().float().clone().requires_grad_()

        # Far from 0 and 1 a logit has no gradient to speak of.
        logits = torch.logit(scene.opacities.float(), eps=1e-3)
        return cls(
            leaf(scene.means),
            leaf(F.normalize(scene.quats, dim=-1)),
            leaf(scene.log_scales),
            leaf(logits),
            leaf(scene.sh0),
            scene.sh_rest,
        )

    def activated(self) -> Gaussians:
        return Gaussians(
            self.means,
            self.quats,
            self.log_scales.exp(),
            self.logit_opacities.sigmoid(),
            self.sh0,
            self.sh_rest,
        )

    def optimizer(self, config: RefineConfig) -> torch.optim.Adam:
        middle = self.means.detach().median(0).values
        extent = float((self.means.detach() - middle).norm(dim=-1).median())
        rates = {
            "means": config.rate_means * extent,
            "quats": config.rate_quats,
            "log_scales": config.rate_scales,
            "logit_opacities": config.rate_opacities,
            "sh0": config.rate_colors,
        }
        groups = [{"params": [getattr(self, name)], "lr": rate} for name, rate in rates.items()]
        return torch.optim.Adam(groups, eps=1e-15, fused=self.means.device.type == "cuda")


@dataclass(frozen=True)
class _Target:
    """The views, cut to windows of one size around the animal, and cameras that draw just these windows.

    Attributes:
        rgb: On the background. [V, 3, h, w]
        alpha: Silhouettes. [V, 1, h, w]
        K: Of the windows. [V, 3, 3]
        w2c: World-to-camera. [V, 4, 4]
        beyond: Distances from the windows' left and top to the pictures' left, top, right and bottom. [V, 4]
        background: Grey level.
        count: Gaussians that came in. The opacity of those that were dropped counts as 0, so that losses
            before and after can be compared.
    """

    rgb: Tensor
    alpha: Tensor
    K: Tensor
    w2c: Tensor
    beyond: Tensor
    background: float
    count: int

    @classmethod
    def cut_out(cls, pictures: Tensor, K: Tensor, w2c: Tensor, background: float, count: int) -> "_Target":
        height, width = pictures.shape[-2:]
        if min(height, width) < SSIM_TAPS:
            raise DataError(
                f"refine: views are {width}x{height} pixels, expected at least {SSIM_TAPS}. Set "
                "refine.steps=0, or use larger views."
            )
        margin = max(SSIM_TAPS, round(MARGIN * max(height, width)))
        rows, columns = animal_windows((pictures[:, 3:] > 0.5).float(), margin)
        pictures = cut(pictures.float(), rows, columns)
        corner = torch.stack([columns[:, 0], rows[:, 0]], -1).to(K)
        shifted = K.clone()
        shifted[:, :2, 2] -= corner
        beyond = torch.cat([-corner, corner.new_tensor([width, height]) - corner], -1)
        return cls(pictures[:, :3], pictures[:, 3:], shifted, w2c, beyond, background, count)

    @torch.no_grad()
    def excludes(self, means: Tensor) -> Tensor:
        """Whether any picture shows a point outside its window. [N, 3] -> [N] bool"""
        in_camera = torch.einsum("vij,nj->vni", self.w2c[:, :3, :3], means) + self.w2c[:, None, :3, 3]
        pixels = torch.einsum("vij,vnj->vni", self.K[:, :2], in_camera) / in_camera[..., 2:].clamp_min(1e-6)
        low, high = self.beyond[:, None, :2], self.beyond[:, None, 2:]
        shown = ((pixels > low) & (pixels < high)).all(-1) & (in_camera[..., 2] > 0)
        size = pixels.new_tensor([self.rgb.shape[-1], self.rgb.shape[-2]])
        inside = ((pixels >= 0) & (pixels <= size)).all(-1)
        return (shown & ~inside).any(0)

    @torch.no_grad()
    def error(self, scene: Gaussians, config: RefineConfig) -> float:
        return float(self.loss(scene, config))

    def loss(self, scene: Gaussians, config: RefineConfig) -> Tensor:
        height, width = self.rgb.shape[-2:]
        drawn = render(scene, self.K, self.w2c, width, height, self.background)
        terms = [
            config.l1 * (drawn.rgb - self.rgb).abs().mean(),
            config.alpha * (drawn.alpha - self.alpha).abs().mean(),
        ]
        if config.opacity:
            terms.append(config.opacity * scene.opacities.sum() / self.count)
        if config.l2:
            terms.append(config.l2 * (drawn.rgb - self.rgb).square().mean())
        if config.ssim:
            terms.append(config.ssim * (1 - ssim_map(drawn.rgb, self.rgb)).mean())
        return torch.stack(terms).sum()
