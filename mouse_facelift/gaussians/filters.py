"""Clean-up of a scene: drop what is transparent, too long, a floater or outside the box, as FaceLift does."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import DataError
from .config import FilterConfig
from .gaussians import Gaussians


@dataclass(frozen=True)
class FilterReport:
    """What a filter did.

    Attributes:
        kept: True where a Gaussian stays. [N] bool
        dropped: Gaussians dropped by each rule, counted at the first rule that drops them.
        opacity_cut: Share of the summed opacity that was dropped although visible, by all rules but
            `min_opacity`, in [0, 1]. Much of it means that a part of the animal is gone.
    """

    kept: Tensor
    dropped: dict[str, int]
    opacity_cut: float


def filter_gaussians(gaussians: Gaussians, config: FilterConfig) -> tuple[Gaussians, FilterReport]:
    """Keep the Gaussians of one scene that pass every rule.

    Args:
        gaussians: One scene. [N, ...]
        config: The rules.

    Returns:
        The kept Gaussians in their order, and what was dropped.

    Raises:
        DataError: a batch of scenes, which would leave a different number in each.
    """
    if gaussians.means.ndim != 2:
        raise DataError(
            f"filter_gaussians: means have shape {tuple(gaussians.means.shape)}, expected [N, 3]; "
            "filter the scenes of a batch one by one."
        )
    kept = torch.ones_like(gaussians.opacities, dtype=torch.bool)
    dropped = {}
    rules = _rules(gaussians, config)
    for rule, passes in rules.items():
        dropped[rule] = int((kept & ~passes).sum())
        kept = kept & passes
    opacities = gaussians.opacities.detach().double()
    total, cut = opacities.sum(), opacities[rules["min_opacity"] & ~kept].sum()
    share = float(cut / total) if total > 0 else 0.0
    return gaussians[kept], FilterReport(kept, dropped, share)


def _rules(gaussians: Gaussians, config: FilterConfig) -> dict[str, Tensor]:
    x, y, z = gaussians.means.unbind(-1)
    rules = {"min_opacity": gaussians.opacities > config.min_opacity}
    if config.max_scale is not None:
        # Only below the middle: there, long Gaussians are artefacts of the floor.
        rules["max_scale"] = (gaussians.scales.amax(-1) < config.max_scale) | (z > 0)
    if (far := config.floater_distance) is not None:
        rules["floater_distance"] = ~((x.abs() > far) & (y.abs() > far) & (z < -far))
    if config.box is not None:
        rules["box"] = (gaussians.means.abs() <= gaussians.means.new_tensor(config.box)).all(-1)
    return rules
