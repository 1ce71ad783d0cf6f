"""Cameras, rays, triangulation and visual hulls: NumPy and torch only, no files."""

from .cameras import (
    FACELIFT_DISTANCE,
    FACELIFT_FOCAL,
    Camera,
    Similarity,
    direction,
    look_at_rotation,
    similarity_scale,
    transform_pixels,
)

__all__ = [
    "FACELIFT_DISTANCE",
    "FACELIFT_FOCAL",
    "Camera",
    "Similarity",
    "direction",
    "look_at_rotation",
    "similarity_scale",
    "transform_pixels",
]
