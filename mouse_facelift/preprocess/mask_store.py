"""Masks as a few kilobytes: the bits of their bounding box, compressed."""

import struct
import zlib

import cv2
import numpy as np

from ..capture.masks import Mask

BOX = struct.Struct("<4I")
"""Left, top, width, height of the box in pixels."""


def pack_mask(mask: Mask) -> bytes:
    """Compress a mask [H, W]."""
    left, top, width, height = cv2.boundingRect(mask.view(np.uint8))
    bits = np.packbits(mask[top : top + height, left : left + width], axis=1)
    return BOX.pack(left, top, width, height) + zlib.compress(bits.tobytes(), 1)


def unpack_mask(content: bytes, width: int, height: int) -> Mask:
    """The mask [H, W] of a picture of that size."""
    mask = np.zeros((height, width), bool)
    left, top, columns, rows = BOX.unpack_from(content)
    bits = np.frombuffer(zlib.decompress(content[BOX.size :]), np.uint8).reshape(rows, (columns + 7) // 8)
    mask[top : top + rows, left : left + columns] = np.unpackbits(bits, axis=1, count=columns)
    return mask
