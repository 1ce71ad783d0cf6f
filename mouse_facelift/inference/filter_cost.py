"""What the filters cost: how much better the shown views would look without them."""

import torch
from torch import Tensor

from ..gaussians import Gaussians, render
from ..metrics import psnr
from ..samples.datasets import composite
from .inputs import Views
from .results import Reconstruction


@torch.no_grad()
def filter_cost_db(
    views: Views, result: Reconstruction, background: float, filtered_db: Tensor | None = None
) -> Tensor | None:
    """PSNR on the animal that the filters take from the real views that were shown, mean over these.

    Args:
        views: All real views.
        result: With its unfiltered Gaussians.
        background: Grey level behind the animal.
        filtered_db: PSNR on the animal of what the filters left, where that is known already, of each of the
            views. Not used of refined Gaussians, which hide the cost. [V]

    Returns:
        In dB, negative where the filters help, NaN where no shown view has an animal; None without cameras.
        On the computing device. []
    """
    before = result.unfiltered
    if views.K is None or views.w2c is None or before is None:
        return None
    shown = [views.position(view_id) for view_id in result.shown_ids]
    K, w2c, size = views.K[shown], views.w2c[shown], views.rgba.shape[-1]
    rgba = views.rgba[shown].to(before.means.device)
    real = composite(rgba, background)

    def quality(gaussians: Gaussians) -> Tensor:
        return psnr(render(gaussians, K, w2c, size, size, background).rgb, real, rgba[:, 3:])

    if filtered_db is None or result.refinement is not None:
        after = quality(before[result.report.kept])
    else:
        after = filtered_db[shown]
    return quality(before).nanmean() - after.nanmean()
