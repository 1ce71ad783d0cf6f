"""Gaussians as tensors, on disk and on screen: PLY, rendering (gsplat or torch), filters, video."""

from typing import TYPE_CHECKING

from .._lazy import lazy_exports

if TYPE_CHECKING:
    from .gaussians import Gaussians
    from .rendering import Rendering, render

__all__ = ["Gaussians", "Rendering", "render"]

__getattr__ = lazy_exports(
    __name__, {"Gaussians": "gaussians", "Rendering": "rendering", "render": "rendering"}
)
