"""Clean binary masks from mask video frames, which lossy coding and segmentation leave dirty."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import DataError

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class CleanMask:
    """The animal in one picture.

    Attributes:
        mask: True on the animal; all False where the frame shows none. [H, W]
        area: Pixels on the animal.
        touches_border: The animal reaches the picture's border, so part of it may be unseen.
        removed_share: Share of the thresholded pixels that was removed as not the animal's.
    """

    mask: Mask
    area: int
    touches_border: bool
    removed_share: float

    def bounds(self) -> tuple[int, int, int, int]:
        """Left, top, right, bottom of the animal in pixels; right and bottom are one past it.

        Raises:
            DataError: the mask is empty.
        """
        if self.area == 0:
            raise DataError("mask is empty: it has no bounds.")
        return _bounds(self.mask)

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

    Args:
        gray: The decoded frame, white animal on black. [H, W]
        threshold: Grey levels above this are the animal.
        inverted: The animal is black on white.
        join_distance_px: Parts that are this near to the largest one, directly or through other parts, belong
            to the animal: whiskers and cage bars cut tails off.
        max_hole: Holes up to this share of the animal's area are coding errors; larger ones (under a curled
            tail) are real and stay.

    Raises:
        DataError: most of the picture's border is white, so the mask is the wrong way round.
    """
    mask = gray <= threshold if inverted else gray > threshold
    border = np.concatenate([mask[0], mask[-1], mask[1:-1, 0], mask[1:-1, -1]])
    if border.mean() > 0.5:
        flag = "false" if inverted else "true"
        raise DataError(
            f"mask is white along {border.mean():.0%} of the picture's border, expected a white animal on "
            f"black. Where the masks are inverted, set input.mask_inverted={flag}."
        )
    found = int(mask.sum())
    if found == 0:
        return CleanMask(mask, 0, False, 0.0)
    left, top, right, bottom = _bounds(mask)
    part = _animal(mask[top:bottom, left:right], join_distance_px)
    kept = int(part.sum())
    clean = np.zeros_like(mask)
    clean[top:bottom, left:right] = _fill_holes(part, max_hole * kept)
    touches = bool(clean[0].any() or clean[-1].any() or clean[:, 0].any() or clean[:, -1].any())
    return CleanMask(clean, int(clean.sum()), touches, 1 - kept / found)


def _animal(mask: Mask, join_distance_px: float) -> Mask:
    """The largest component and the chain of components within reach of it."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    if count == 2:
        return mask
    largest = labels == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    gap = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    # Two parts at distance d merge when both grow by d / 2.
    _, grown = cv2.connectedComponents((gap <= join_distance_px / 2).astype(np.uint8), connectivity=8)
    return mask & (grown == grown[largest][0])


def _fill_holes(mask: Mask, max_area: float) -> Mask:
    background = np.pad(~mask, 1, constant_values=True).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(background, connectivity=4)
    if count <= 2:
        return mask
    fill = stats[:, cv2.CC_STAT_AREA] <= max_area
    fill[[0, labels[0, 0]]] = False
    return mask | fill[labels][1:-1, 1:-1]


def _bounds(mask: Mask) -> tuple[int, int, int, int]:
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
