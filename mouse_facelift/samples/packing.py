"""Pictures without their constant surroundings: exact, and as large as what they show."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Packed:
    """The views of a sample, each as the box in which it differs from the colour of its first pixel.

    Attributes:
        size: Side of the pictures.
        boxes: Top, left, height, width in pixels; a picture of one colour has an empty box. int32 [V, 4]
        outside: The colour around the box. uint8 [V, C]
        pixels: What is in the boxes, view after view, channels first. uint8 [n]
    """

    size: int
    boxes: NDArray[np.int32]
    outside: NDArray[np.uint8]
    pixels: NDArray[np.uint8]


def pack(pictures: NDArray[np.uint8]) -> Packed:
    """Cut away what is constant around the content of each view.

    Args:
        pictures: [V, C, S, S]
    """
    outside = np.ascontiguousarray(pictures[:, :, 0, 0])
    differs = (pictures != outside[:, :, None, None]).any(axis=1)
    boxes = np.array([_box(view) for view in differs], np.int32)
    parts = [
        view[:, top : top + height, left : left + width].ravel()
        for view, (top, left, height, width) in zip(pictures, boxes, strict=True)
    ]
    return Packed(pictures.shape[-1], boxes, outside, np.concatenate(parts))


def unpack(packed: Packed) -> NDArray[np.uint8]:
    """What was packed, bit for bit. [V, C, S, S]"""
    views, channels = packed.outside.shape
    pictures = np.empty((views, channels, packed.size, packed.size), np.uint8)
    pictures[:] = packed.outside[:, :, None, None]
    first = 0
    for view, (top, left, height, width) in zip(pictures, packed.boxes.tolist(), strict=True):
        last = first + channels * height * width
        part = packed.pixels[first:last].reshape(channels, height, width)
        view[:, top : top + height, left : left + width] = part
        first = last
    return pictures


def _box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Top, left, height and width of what is set; all 0 where nothing is."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return 0, 0, 0, 0
    top, left = int(rows[0]), int(columns[0])
    return top, left, int(rows[-1]) - top + 1, int(columns[-1]) - left + 1
