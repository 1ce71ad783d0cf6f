"""Gaussians in a page: an interactive 3D view in one HTML file that loads nothing."""

from typing import TYPE_CHECKING

from .._lazy import lazy_exports

if TYPE_CHECKING:
    from .page import Scene, View, splat_viewer, write_viewer
    from .scene import Packed, pack

__all__ = ["Packed", "Scene", "View", "pack", "splat_viewer", "write_viewer"]

__getattr__ = lazy_exports(
    __name__,
    {
        "Packed": "scene",
        "Scene": "page",
        "View": "page",
        "pack": "scene",
        "splat_viewer": "page",
        "write_viewer": "page",
    },
)
