"""Clean binary masks from mask video frames, which lossy coding and segmentation leave dirty."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import DataError

Mask = NDArray[np.bool_]
Levels = NDArray[np.uint8]
"""A mask as OpenCV wants it: 0, and anything else on the animal. [H, W]"""

MAX_WHITE_BORDER = 0.5
"""Share of the picture's border that may be white: an animal fills no camera's picture from edge to edge."""


@dataclass(frozen=True, eq=False)
class CleanMask:
    """The animal in one picture.

    Attributes:
        mask: True on the animal; all False where the frame shows none. [H, W]
        area: Pixels on the animal.
        touches_border: The animal reaches the picture's border, so part of it may be unseen.
        removed_share: Share of the thresholded pixels that was removed as not the animal's.
        problem: Why this cannot be a mask of the animal; empty where nothing speaks against it.
    """

    mask: Mask
    area: int
    touches_border: bool
    removed_share: float
    problem: str = ""

    @classmethod
    def missing(cls, width: int, height: int) -> "CleanMask":
        """In place of a mask that cannot be decoded."""
        return cls(np.zeros((height, width), bool), 0, False, 0.0, "mask cannot be decoded")

    def bounds(self) -> tuple[int, int, int, int]:
        """Left, top, right, bottom of the animal in pixels; right and bottom are one past it.

        Raises:
            DataError: the mask is empty.
        """
        if self.area == 0:
            raise DataError("mask is empty: it has no bounds.")
        left, top, width, height = cv2.boundingRect(self.mask.view(np.uint8))
        return left, top, left + width, top + height

    def centroid(self) -> tuple[float, float]:
        """Mean position of the animal's pixels, half-pixel centres.

        Raises:
            DataError: the mask is empty.
        """
        left, top, right, bottom = self.bounds()
        part = self.mask[top:bottom, left:right]
        x = part.sum(0) @ (np.arange(left, right) + 0.5) / self.area
        y = part.sum(1) @ (np.arange(top, bottom) + 0.5) / self.area
        return float(x), float(y)


def clean_mask(
    gray: NDArray[np.uint8],
    threshold: int = 127,
    inverted: bool = False,
    join_distance_px: float = 35.0,
    max_hole: float = 0.005,
) -> CleanMask:
    """Threshold a mask frame, keep the animal and fill small holes.

    Beyond the threshold the work is that of the animal's bounding box, not of the picture.

    Args:
        gray: The decoded frame, white animal on black. [H, W]
        threshold: Grey levels above this are the animal.
        inverted: The animal is black on white.
        join_distance_px: Parts that are this near to the largest one, directly or through other parts, belong
            to the animal: whiskers and cage bars cut tails off.
        max_hole: Holes up to this share of the animal's area are coding errors; larger ones (under a curled
            tail) are real and stay.

    Returns:
        The animal; where most of the picture's border is white, the uncleaned mask with its `problem`.
    """
    kind = cv2.THRESH_BINARY_INV if inverted else cv2.THRESH_BINARY
    _, levels = cv2.threshold(gray, threshold, 1, kind)
    x, y, width, height = cv2.boundingRect(levels)
    if width == 0:
        return CleanMask(levels.view(bool), 0, False, 0.0)
    found = cv2.countNonZero(levels)
    white = _border(levels).mean()
    if white > MAX_WHITE_BORDER:
        problem = f"mask is white along {white:.0%} of the picture's border"
        return CleanMask(levels.view(bool), found, True, 0.0, problem)
    box = levels[y : y + height, x : x + width]
    rows, columns, part, kept = _animal(box, join_distance_px, max_hole)
    if part.shape != box.shape:
        levels = np.zeros_like(levels)
        box = levels[y : y + height, x : x + width]
    box[rows, columns] = part
    touches = bool(_border(levels).any())
    return CleanMask(levels.view(bool), cv2.countNonZero(part), touches, 1 - kept / found)


def _border(levels: Levels) -> Levels:
    """The outermost pixels. [N]"""
    return np.concatenate([levels[0], levels[-1], levels[1:-1, 0], levels[1:-1, -1]])


def _animal(levels: Levels, join_distance_px: float, max_hole: float) -> tuple[slice, slice, Levels, int]:
    """Find the largest component and all that belong to it, and fill their small holes.

    Outlines cost a twentieth of labelled components, and are enough where no second part is near.

    Returns:
        Rows and columns of the animal's box, its filled pixels there, and their number before filling.
    """
    outlines, hierarchy = cv2.findContours(levels, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    parent = hierarchy[0, :, 3]
    outer = np.flatnonzero(parent < 0)[::-1]  # From the top down.
    # Pick's theorem: pixels on and inside a part's outline; pixels strictly inside a hole's.
    pixels = np.array([cv2.contourArea(line) for line in outlines]) + 1
    pixels += np.where(parent < 0, 0.5, -0.5) * np.array([len(line) for line in outlines])
    areas = pixels.copy()
    np.subtract.at(areas, parent[parent >= 0], pixels[parent >= 0])
    boxes = np.array([cv2.boundingRect(outlines[i]) for i in outer])
    largest = int(areas[outer].argmax())
    near, (left, top, right, bottom) = _chain(boxes, largest, join_distance_px)
    rows, columns = slice(top, bottom), slice(left, right)
    if near > 1:
        part = _joined(levels[rows, columns], join_distance_px)
        kept = cv2.countNonZero(part)
        return rows, columns, _fill_holes(part, max_hole * kept), kept
    part, kept = levels[rows, columns].copy(), int(areas[outer[largest]])
    small = (parent == outer[largest]) & (pixels <= max_hole * kept)
    for hole in np.flatnonzero(small):
        cv2.drawContours(part, outlines, int(hole), 1, cv2.FILLED, offset=(-left, -top))
    return rows, columns, part, kept


def _chain(
    boxes: NDArray[np.int64], largest: int, distance_px: float
) -> tuple[int, tuple[int, int, int, int]]:
    """Count and bounds of the boxes in a chain with the largest part's; no other part is within reach.

    Args:
        boxes: Left, top, width, height of each part. [N, 4]
        largest: The one that the chain starts with.
        distance_px: Largest distance between pixels of neighbours in the chain.
    """
    low, high = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    start, end = low[largest], high[largest]
    while True:
        near = ((low < end + distance_px) & (high > start - distance_px)).all(1)
        grown_start, grown_end = low[near].min(0), high[near].max(0)
        if (grown_start == start).all() and (grown_end == end).all():
            left, top, right, bottom = map(int, (*start, *end))
            return int(near.sum()), (left, top, right, bottom)
        start, end = grown_start, grown_end


def _joined(levels: Levels, join_distance_px: float) -> Levels:
    """The largest component and the chain of components within reach of it."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(levels, connectivity=8)
    if count == 2:
        return levels
    largest = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    gap = cv2.distanceTransform(1 - levels, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    # Two parts at distance d merge when both grow by d / 2.
    reach = (gap <= join_distance_px / 2).view(np.uint8)
    _, grown = cv2.connectedComponents(reach, connectivity=8)
    row, column = np.unravel_index(int((labels == largest).argmax()), labels.shape)
    return levels & (grown == grown[row, column]).view(np.uint8)


def _fill_holes(levels: Levels, max_area: float) -> Levels:
    background = np.pad(1 - levels, 1, constant_values=1)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(background, connectivity=4)
    if count <= 2:
        return levels
    fill = stats[:, cv2.CC_STAT_AREA] <= max_area
    fill[[0, labels[0, 0]]] = False
    return levels | fill[labels][1:-1, 1:-1].view(np.uint8) if fill.any() else levels
