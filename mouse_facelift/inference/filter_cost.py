"""What the filters cost: how much better the shown views would look without them."""

import torch

from ..gaussians import Gaussians, render
from ..metrics import psnr
from ..samples.datasets import composite
from .inputs import Views
from .results import Reconstruction


@torch.no_grad()
def filter_cost_db(views: Views, result: Reconstruction, background: float) -> float | None:
    """PSNR on the animal that the filters take from the real views that were shown, mean over these.

    Args:
        views: All real views.
        result: With its unfiltered Gaussians.
        background: Grey level behind the animal.

    Returns:
        In dB, negative where the filters help; None without cameras, or where no shown view has an animal.
    """
    before = result.unfiltered
    if views.K is None or views.w2c is None or before is None:
        return None
    shown = [views.position(view_id) for view_id in result.shown_ids]
    rgba, K, w2c, size = views.rgba[shown], views.K[shown], views.w2c[shown], views.rgba.shape[-1]
    real, alpha = composite(rgba, background), rgba[:, 3:]

    def quality(gaussians: Gaussians) -> torch.Tensor:
        picture = render(gaussians, K, w2c, size, size, background)
        return psnr(picture.rgb.cpu(), real, alpha).nanmean()

    cost = float(quality(before) - quality(before[result.report.kept]))
    return cost if cost == cost else None
