"""Gaussians as viser takes them."""

from typing import Any

import torch
from numpy.typing import NDArray

from ..gaussians import Gaussians
from ..gaussians.projection import principal_axes


def splat_arrays(gaussians: Gaussians, fineness: float) -> dict[str, NDArray[Any]]:
    """The arguments of viser's `add_gaussian_splats`. Colours keep their degree-0 part.

    Args:
        gaussians: One scene on the CPU, float32. [N, ...]
        fineness: Lengths are multiplied by it. viser keeps covariances in 16-bit floats, for which those of
            an animal's Gaussians in model units are too small.

    Returns:
        centers [N, 3] and covariances [N, 3, 3], float32; rgbs [N, 3] and opacities [N, 1], uint8.
    """
    axes = fineness * principal_axes(gaussians[None])[0]
    return {
        "centers": (fineness * gaussians.means).numpy(),
        "covariances": torch.einsum("abn,cbn->nac", axes, axes).numpy(),
        "rgbs": _levels(gaussians.rgb),
        "opacities": _levels(gaussians.opacities[:, None]),
    }


def _levels(values: torch.Tensor) -> NDArray[Any]:
    levels: NDArray[Any] = (values.clamp(0, 1) * 255).round().byte().numpy()
    return levels
