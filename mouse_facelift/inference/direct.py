"""Direct mode: real posed views to Gaussians."""

import torch
from torch import Tensor

from ..errors import DataError
from ..gaussians import Gaussians
from ..geometry.rays import CameraBatch
from ..gslrm import GSLRM


@torch.no_grad()
def reconstruct(model: GSLRM, rgb: Tensor, K: Tensor, w2c: Tensor) -> Gaussians:
    """Run GS-LRM on one sample.

    The Gaussians are computed in fp32: half precision quantises depth (facelift_spec, fact 14).

    Args:
        model: In eval mode.
        rgb: Input views on their background, in [0, 1]. [V, 3, H, W]
        K: Intrinsics of exactly these pixels. [V, 3, 3]
        w2c: World-to-camera, model units. [V, 4, 4]

    Returns:
        Gaussians without a batch axis, model units.

    Raises:
        DataError: fewer than two views.
    """
    if rgb.shape[0] < 2:
        raise DataError(
            f"GS-LRM got {rgb.shape[0]} view; direct mode needs at least two. For one view use mode=e2e."
        )
    device = next(model.parameters()).device
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        gaussians = model(rgb[None].to(device), CameraBatch(K[None].to(device), w2c[None].to(device)))
    return gaussians[0].to(torch.float32)
