"""Cameras, rays, triangulation and visual hulls: NumPy and torch only, no files."""

from .cameras import Camera, Similarity, look_at_rotation, transform_pixels

__all__ = ["Camera", "Similarity", "look_at_rotation", "transform_pixels"]
