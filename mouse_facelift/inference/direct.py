"""Direct mode: real posed views to Gaussians."""

import torch
from torch import Tensor

from ..errors import DataError
from ..gaussians import Gaussians
from ..gaussians.filters import filter_gaussians
from ..geometry.rays import CameraBatch
from ..gslrm import GSLRM
from ..samples.datasets import composite
from .config import ReconstructionConfig
from .inputs import Views
from .refine import refine
from .results import Reconstruction

INFERENCE_DTYPE = torch.float16
"""Of products on a GPU, as published."""


class Direct:
    """GS-LRM on a sample's real views, as a function from views to a reconstruction.

    Args:
        config: Of the inference.
        model: GS-LRM, in eval mode.
    """

    def __init__(self, config: ReconstructionConfig, model: GSLRM) -> None:
        self.config, self.model = config, model

    def __call__(self, views: Views) -> Reconstruction:
        """Look at `config.input_views`; the other views serve the metrics alone."""
        if views.K is None or views.w2c is None:
            raise DataError("these views have no cameras; direct mode needs a sample. Use mode=e2e.")
        shown = tuple(self.config.input_views or views.view_ids)
        indices = [views.position(view_id) for view_id in shown]
        # All arithmetic happens on the model's device: on a host it would take longer than the network.
        device = next(self.model.parameters()).device
        rgba = views.rgba[indices].to(device)
        pictures = torch.cat([composite(rgba, self.config.background), rgba[:, 3:]], dim=1)
        seen = pictures, views.K[indices].to(device), views.w2c[indices].to(device)
        gaussians = reconstruct(self.model, *seen)
        filtered, report = filter_gaussians(gaussians, self.config.filter)
        refined, refinement = refine(filtered, *seen, self.config.background, self.config.refine)
        return Reconstruction(refined, report, shown, unfiltered=gaussians, refinement=refinement)


@torch.no_grad()
def reconstruct(model: GSLRM, pictures: Tensor, K: Tensor, w2c: Tensor) -> Gaussians:
    """Run GS-LRM on one sample.

    The Gaussians are computed in fp32: half precision quantises depth (facelift_spec, fact 14).

    Args:
        model: In eval mode.
        pictures: Input views: RGB on their background, and the silhouette, in [0, 1]. [V, 4, H, W]
        K: Intrinsics of exactly these pixels. [V, 3, 3]
        w2c: World-to-camera, model units. [V, 4, 4]

    Returns:
        Gaussians without a batch axis, model units.

    Raises:
        DataError: fewer than two views, or a size that is not a multiple of the model's patches.
    """
    if pictures.shape[0] < 2:
        raise DataError(
            f"GS-LRM got {pictures.shape[0]} view; direct mode needs at least two. For one view use mode=e2e."
        )
    patch, side = model.config.patch_size, pictures.shape[-1]
    if side % patch:
        raise DataError(
            f"GS-LRM would get pictures of {side} pixels, expected a multiple of its patch size {patch}. Set "
            f"image_size={max(1, round(side / patch)) * patch}."
        )
    device = next(model.parameters()).device
    with torch.autocast(device.type, INFERENCE_DTYPE, enabled=device.type == "cuda"):
        gaussians = model(pictures[None].to(device), CameraBatch(K[None].to(device), w2c[None].to(device)))
    return gaussians[0].to(torch.float32)
