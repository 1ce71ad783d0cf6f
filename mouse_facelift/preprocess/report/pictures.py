"""A sample's pictures with the outline of its visual hull: what the written cameras say about the pixels.

The hull is carved from the written alphas through the written cameras. Where pixels and cameras belong
together its outline runs along the animal's in every view; where they do not, it falls short.
"""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...geometry.cameras import Array
from ...geometry.visual_hull import Mask, VisualHull, carve, mask_iou, reach, silhouette
from ...pages.document import data_url
from ...pages.markup import Markup, tag
from ...samples.format import Sample, read_rgba

SEARCH_MARGIN = 1.1
"""The hull is searched in a cube this much larger than the largest mask, seen from the origin."""
RESOLUTION = 72
"""Cells along half the search cube; outlines are exact to a fraction of a cell."""
WINDOW_MARGIN = 1.06
"""Room around the animal in a thumbnail."""
SMOOTH_PX = 0.8
"""Corners of an outline that lie nearer than this to a straight line are left out."""
ENLARGED = 4
"""Silhouettes are enlarged by this before their outline is traced."""


@dataclass(frozen=True, eq=False)
class HullView:
    """One written view beside the hull's silhouette.

    Attributes:
        file: The written picture.
        rgba: Its pixels. uint8 [H, W, 4]
        outline: Closed lines around the hull's silhouette, in pixels of the picture. each [P, 2]
        iou: Intersection over union of the written alpha and the silhouette.
    """

    file: Path
    rgba: NDArray[np.uint8]
    outline: tuple[Array, ...]
    iou: float


@dataclass(frozen=True, eq=False)
class HullSample:
    """A sample beside its hull.

    Attributes:
        views: In the order of the sample. V
        lowest_mm: The hull's lowest point in the rig's millimetres along up; None where the hull is empty.
        window: Half the side of the square about the pictures' middle that holds the animal in all views, as
            a share of half the picture.
    """

    views: tuple[HullView, ...]
    lowest_mm: float | None
    window: float


def overlay(sample: Sample, rotation: Array) -> HullSample:
    """Carve a written sample's hull and draw it in its views.

    Args:
        sample: On disk, in model units about the origin.
        rotation: Takes the rig's up direction to Z. [3, 3]
    """
    pictures = [read_rgba(view.file) for view in sample.views]
    masks = [picture[..., 3] > 127 for picture in pictures]
    hull = _carve(sample, masks)
    views = []
    for view, picture, mask in zip(sample.views, pictures, masks, strict=True):
        drawn = silhouette(hull, view.camera) if hull else np.zeros_like(mask)
        views.append(HullView(view.file, picture, _outline(drawn), mask_iou(drawn, mask)))
    return HullSample(tuple(views), _lowest(sample, hull, rotation), _window(views))


def thumbnail(view: HullView, window: float, side_px: int, name: str, description: str) -> Markup:
    """The animal's part of a picture, embedded, with the hull's outline above it.

    Args:
        view: The picture and the outline.
        window: As in `HullSample`.
        side_px: Side of the embedded picture.
        name: Of the outline, unlike any other in the page: it is drawn twice, so that it shows on any fur.
        description: Read aloud.
    """
    height, width = view.rgba.shape[:2]
    half = window * np.array([width, height]) / 2
    left, top = np.array([width, height]) / 2 - half
    box = (left, top, left + 2 * half[0], top + 2 * half[1])
    small = Image.fromarray(view.rgba).resize((side_px, side_px), Image.Resampling.BOX, box=box)
    zoom = side_px / (2 * half)
    line = "".join(_closed(points, (left, top), zoom) for points in view.outline)
    return tag(
        "svg",
        tag("title", description),
        tag("image", href=data_url(small), width=side_px, height=side_px),
        tag("defs", tag("path", d=line, id=name)),
        tag("use", href=f"#{name}", class_="hull under"),
        tag("use", href=f"#{name}", class_="hull over"),
        viewBox=f"0 0 {side_px} {side_px}",
        role="img",
        class_="thumbnail",
    )


def _carve(sample: Sample, masks: list[Mask]) -> VisualHull | None:
    """The hull about the origin; None where a mask is empty."""
    origin = np.zeros(3)
    if not all(mask.any() for mask in masks):
        return None
    cameras = [view.camera for view in sample.views]
    radius = SEARCH_MARGIN * max(
        reach(mask, camera, origin) for mask, camera in zip(masks, cameras, strict=True)
    )
    return carve(masks, cameras, origin, radius, radius / RESOLUTION)


def _lowest(sample: Sample, hull: VisualHull | None, rotation: Array) -> float | None:
    matrix = sample.world_from_model
    if hull is None or len(hull.cells) == 0 or matrix is None:
        return None
    world = hull.cells @ matrix[:3, :3].T + matrix[:3, 3]
    return float((world @ rotation[2]).min())


def _window(views: list[HullView]) -> float:
    """The square about the middle that all views need, between an eighth of the picture and all of it."""
    share = 0.125
    for view in views:
        height, width = view.rgba.shape[:2]
        seen = view.rgba[..., 3] > 0
        for places, size in ((np.flatnonzero(seen.any(0)), width), (np.flatnonzero(seen.any(1)), height)):
            if len(places):
                farthest = max(size / 2 - places[0], places[-1] + 1 - size / 2)
                share = max(share, WINDOW_MARGIN * farthest / (size / 2))
    return min(share, 1.0)


def _outline(drawn: Mask) -> tuple[Array, ...]:
    """Lines around a silhouette and its holes.

    OpenCV's run through the outermost pixels' centres; in an enlarged picture these lie near the true edge.
    """
    size = (ENLARGED * drawn.shape[1], ENLARGED * drawn.shape[0])
    large = cv2.resize(drawn.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    lines, _ = cv2.findContours(large, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    corners = (cv2.approxPolyDP(line, ENLARGED * SMOOTH_PX, True)[:, 0] for line in lines)
    return tuple((points + 0.5) / ENLARGED for points in corners)


def _closed(points: Array, corner: tuple[float, float], zoom: Array) -> str:
    moved = (points - corner) * zoom
    return "M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in moved) + "Z"
