"""One picture of an animal without a camera: cut out by its alpha or by a mask, centred and scaled."""

from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from ..capture.masks import clean_mask
from ..damage import DAMAGED_PICTURE
from ..errors import ConfigError, DataError

MASK_THRESHOLD = 127
"""Grey levels of a mask above this are the animal."""

MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK")
"""Modes of 8-bit pictures, which Pillow converts without clipping."""


def read_cutout(path: Path, mask: Path | None = None) -> NDArray[np.uint8]:
    """Read a lone picture whose background is transparent or told by a mask. [H, W, 4]

    Args:
        path: The picture.
        mask: Grey picture of the same size, the animal above 127; None takes the picture's alpha.

    Raises:
        DataError: a file is unreadable, or nothing tells an animal from a background.
        ConfigError: the picture has alpha of its own beside the mask.
    """
    image = _open(path)
    rgba = np.array(image.convert("RGBA"))
    if mask is not None:
        if (rgba[..., 3] < 255).any():
            raise ConfigError(
                f"{path}: has alpha of its own, and mask={mask} is given. Leave out one of them."
            )
        rgba[..., 3] = 255 * _read_mask(mask, rgba.shape[:2])
        return rgba
    if not image.has_transparency_data:
        raise DataError(
            f"{path}: has no alpha channel (mode {image.mode}), so the animal cannot be told from the "
            "background. Save it as RGBA with alpha 0 around the animal, or give mask=FILE, a grey picture "
            "of the same size that is white on the animal."
        )
    shown = rgba[..., 3] > 127
    if not shown.any():
        raise DataError(f"{path}: alpha is 0 everywhere, there is no animal in this picture.")
    if shown.all():
        raise DataError(
            f"{path}: alpha is 255 everywhere, expected 0 outside the animal. Cut the animal out first, or "
            "give mask=FILE, a grey picture that is white on the animal."
        )
    return rgba


def frame_picture(path: Path, size: int, fill: float, mask: Path | None = None) -> Tensor:
    """Centre the animal of a lone picture in a square and scale it, as training views show it.

    The picture's camera is unknown, so nothing here claims one.

    Args:
        path: The picture.
        size: Side of the result.
        fill: Share of the side that the longer side of the animal's box gets.
        mask: See `read_cutout`.

    Returns:
        Straight RGBA in [0, 1]. [4, S, S]
    """
    picture = read_cutout(path, mask).astype(np.float32) / 255
    rows, columns = np.nonzero(picture[..., 3] > 0.5)
    low = np.array([columns.min(), rows.min()])
    high = np.array([columns.max(), rows.max()]) + 1.0
    scale = fill * size / (high - low).max()
    shift = size / 2 - scale * (low + high) / 2
    # warpAffine counts pixel centres as integers: move the half pixel into the shift.
    matrix = np.array([[scale, 0, shift[0] + (scale - 1) / 2], [0, scale, shift[1] + (scale - 1) / 2]])
    premultiplied = picture.copy()
    premultiplied[..., :3] *= picture[..., 3:]
    if scale < 1:
        blur = 0.5 * (1 / scale - 1)
        premultiplied = cv2.GaussianBlur(premultiplied, (0, 0), max(blur, 1e-3))
    warped = cv2.warpAffine(premultiplied, matrix, (size, size), flags=cv2.INTER_LINEAR)
    alpha = warped[..., 3:]
    warped[..., :3] = np.where(alpha > 0, warped[..., :3] / alpha.clip(1e-6), 1)
    return torch.from_numpy(warped.clip(0, 1)).permute(2, 0, 1).contiguous()


def _read_mask(path: Path, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """True on the animal. [H, W]"""
    grey = np.asarray(_open(path).convert("L"))
    if grey.shape != shape:
        raise DataError(
            f"{path}: mask is {grey.shape[1]}x{grey.shape[0]} pixels, the picture is {shape[1]}x{shape[0]}. "
            "Export the mask at the picture's size."
        )
    animal = grey > MASK_THRESHOLD
    if not animal.any():
        raise DataError(
            f"{path}: mask is empty: no grey level is above {MASK_THRESHOLD} (the largest is {grey.max()}). "
            "Expected white (255) on the animal."
        )
    if problem := clean_mask(grey, MASK_THRESHOLD).problem:
        raise DataError(
            f"{path}: {problem}, expected a white animal on black. Where the mask is inverted, invert it."
        )
    return animal


def _open(path: Path) -> Image.Image:
    """Decode a picture, the way up that its camera has noted.

    Raises:
        DataError: there is none, it cannot be read, or has more than 8 bits.
    """
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)
    except FileNotFoundError:
        raise DataError(f"{path}: no such picture.") from None
    except DAMAGED_PICTURE as error:
        raise DataError(f"{path}: not a readable picture ({error}).") from None
    if image.mode not in MODES:
        raise DataError(
            f"{path}: has mode {image.mode}, expected an 8-bit grey or colour picture. Convert it to 8 bits."
        )
    return image
