"""A picture and its camera, moved together and resampled once.

Colour is resampled premultiplied with alpha, so that the background never bleeds into the animal's outline,
and area-averaged where the picture shrinks.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import DataError
from ..geometry import Camera, Similarity, transform_pixels

MARGIN_PX = 2
"""Pixels around the animal that are resampled too."""
MAX_SHRINK = 16
"""Finest sub-division of a target pixel; views that shrink more are tilted to grazing at a corner."""


@dataclass(frozen=True, eq=False)
class View:
    """One camera's picture of the animal.

    Attributes:
        image: RGB, straight (not premultiplied). uint8 [H, W, 3]
        alpha: Coverage of each pixel by the animal, in [0, 1]. float32 [H, W]
        camera: The camera of exactly these pixels.
        outside_share: Share of the pixels that the source picture does not cover; their alpha is 0.
        clipped_share: Share of the source's animal that lies outside this picture.
    """

    image: NDArray[np.uint8]
    alpha: NDArray[np.float32]
    camera: Camera
    outside_share: float = 0.0
    clipped_share: float = 0.0

    def __post_init__(self) -> None:
        expected = (self.camera.height, self.camera.width)
        if self.image.shape != (*expected, 3) or self.alpha.shape != expected:
            raise DataError(
                f"view: picture is {self.image.shape}, alpha {self.alpha.shape}, the camera "
                f"expects {expected}."
            )

    def affine(self, A: ArrayLike, b: ArrayLike, width: int, height: int) -> "View":
        """Move pixels by `u' = A u + b`; see `Camera.affine`."""
        return self._resampled(*self.camera.affine(A, b, width, height))

    def crop(self, left: float, top: float, side: float, size: int) -> "View":
        """Cut the square of `side` pixels at (`left`, `top`) and resize it to `size` pixels."""
        zoom = size / side
        return self.affine(zoom * np.eye(2), (-zoom * left, -zoom * top), size, size)

    def reaim(self, K: ArrayLike, R: ArrayLike, width: int, height: int) -> "View":
        """Rotate and zoom about the camera's centre; see `Camera.reaim`."""
        return self._resampled(*self.camera.reaim(K, R, width, height))

    def similarity(self, change: Similarity) -> "View":
        """The same picture in the changed world; see `Camera.similarity`."""
        return replace(self, camera=self.camera.similarity(change))

    def rgba(self, background: int = 255) -> NDArray[np.uint8]:
        """Straight RGBA; RGB where alpha is 0 is the grey level `background`. [H, W, 4]"""
        alpha = cv2.convertScaleAbs(self.alpha, alpha=255)
        rgb = np.full((*alpha.shape, 3), background, np.uint8)
        cv2.copyTo(self.image, alpha, rgb)
        return np.asarray(cv2.merge([rgb, alpha]), np.uint8)

    def _resampled(self, camera: Camera, H: NDArray[np.float64]) -> "View":
        size = camera.height, camera.width
        image, alpha = np.zeros((*size, 3), np.uint8), np.zeros(size, np.float32)
        inside = _inside_source(H, self.camera, camera)
        source = _bounds(self.alpha, MARGIN_PX)
        clipped = self._clipped_share(H, camera, source) if source else 0.0
        target = _target_bounds(H, source, camera) if source else None
        if source and target:
            left, top, right, bottom = source
            coverage = np.ascontiguousarray(self.alpha[top:bottom, left:right])
            picture = np.ascontiguousarray(self.image[top:bottom, left:right])
            color = cv2.multiply(picture, cv2.merge([coverage] * 3), dtype=cv2.CV_32F)
            warped = _warp(cv2.merge([color, coverage]), H, (left, top), target)
            part = np.s_[target[1] : target[3], target[0] : target[2]]
            covered = np.clip(warped[..., 3], 0, 1) * inside[part]
            alpha[part] = covered
            straight = warped[..., :3] / np.maximum(warped[..., 3:], 1e-6)
            image[part] = np.rint(np.clip(straight, 0, 255)).astype(np.uint8)
        return View(image, alpha, camera, 1 - float(inside.mean()), clipped)

    def _clipped_share(
        self, H: NDArray[np.float64], camera: Camera, bounds: tuple[int, int, int, int]
    ) -> float:
        """Share of the alpha, all within `bounds`, whose pixel centres leave the new picture."""
        left, top, right, bottom = bounds
        shown = _lands_inside(H, bounds, camera)
        weight = self.alpha[top:bottom, left:right]
        return float(1 - weight[shown].sum(dtype=np.float64) / weight.sum(dtype=np.float64))


def _warp(
    pixels: NDArray[np.float32],
    H: NDArray[np.float64],
    origin: tuple[int, int],
    target: tuple[int, int, int, int],
) -> NDArray[np.float32]:
    """Resample a part of the source that begins at `origin` into the rectangle `target` of the new picture.

    Shrinking by k is a bilinear warp to ceil(k) times the size, then an exact box average. [h, w, C]
    """
    left, top, right, bottom = target
    factor = _shrink_factor(H, target)
    enlarge = _scale(factor) @ _shift(-left, -top) @ H @ _shift(*origin)
    # cv2 puts the first pixel's centre at 0; our homographies put it at 0.5.
    fine = cv2.warpPerspective(
        pixels,
        _shift(-0.5, -0.5) @ enlarge @ _shift(0.5, 0.5),
        (factor * (right - left), factor * (bottom - top)),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=0,
    )
    if factor == 1:
        return fine
    return cv2.resize(fine, (right - left, bottom - top), interpolation=cv2.INTER_AREA)


def _shrink_factor(H: NDArray[np.float64], target: tuple[int, int, int, int]) -> int:
    """Source pixels along a target pixel, rounded up, at the worst of the rectangle's corners."""
    left, top, right, bottom = target
    corners = np.array([(left, top), (right, top), (left, bottom), (right, bottom)], float)
    back = np.linalg.inv(H)
    origin = transform_pixels(back, corners)
    steps = [transform_pixels(back, corners + step) - origin for step in ((1.0, 0.0), (0.0, 1.0))]
    return int(np.clip(np.ceil(np.linalg.norm(steps, axis=-1).max() - 1e-6), 1, MAX_SHRINK))


def _inside_source(H: NDArray[np.float64], source: Camera, target: Camera) -> NDArray[np.bool_]:
    """Which target pixels have their centre inside the source picture and in front of its camera. [H, W]"""
    back = np.asarray(np.linalg.inv(H), np.float64)
    return _lands_inside(back, (0, 0, target.width, target.height), source)


def _lands_inside(
    H: NDArray[np.float64], bounds: tuple[int, int, int, int], camera: Camera
) -> NDArray[np.bool_]:
    """Which pixel centres of a rectangle a homography takes into a picture, in front of its camera. [h, w]

    Five lines bound them (depth and the picture's four sides), so each row is one interval.
    """
    left, top, right, bottom = bounds
    x, y = np.arange(left, right) + 0.5, np.arange(top, bottom) + 0.5
    # The sign of w is that of the depth, because H keeps the scale of K' R' R^T K^-1.
    u, v, w = H
    first, last = np.full(len(y), -np.inf), np.full(len(y), np.inf)
    for a, b, c in (w, u, v, camera.width * w - u, camera.height * w - v):
        rest = b * y + c
        if a > 0:
            first = np.maximum(first, -rest / a)
        elif a < 0:
            last = np.minimum(last, -rest / a)
        else:
            last = np.where(rest >= 0, last, -np.inf)
    return (x >= first[:, None]) & (x <= last[:, None])


def _target_bounds(
    H: NDArray[np.float64], source: tuple[int, int, int, int], camera: Camera
) -> tuple[int, int, int, int] | None:
    """The rectangle of the new picture that a rectangle of the source can reach."""
    left, top, right, bottom = source
    corners = np.array([(left, top), (right, top), (right, bottom), (left, bottom)], float)
    depth = corners @ H[2, :2] + H[2, 2]
    if (depth <= 1e-9).any():  # Part of it is behind the new camera, so the corners bound nothing.
        return (0, 0, camera.width, camera.height) if (depth > 0).any() else None
    moved = transform_pixels(H, corners)
    low = np.maximum(np.floor(moved.min(0)) - 1, 0).astype(int)
    high = np.minimum(np.ceil(moved.max(0)) + 1, (camera.width, camera.height)).astype(int)
    if (high <= low).any():
        return None
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def _bounds(alpha: NDArray[np.float32], margin: int) -> tuple[int, int, int, int] | None:
    left, top, width, height = cv2.boundingRect((alpha > 0).view(np.uint8))
    if width == 0:
        return None
    rows, columns = alpha.shape
    right, bottom = min(left + width + margin, columns), min(top + height + margin, rows)
    return max(left - margin, 0), max(top - margin, 0), right, bottom


def _shift(x: float, y: float) -> NDArray[np.float64]:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]])


def _scale(factor: float) -> NDArray[np.float64]:
    return np.diag([factor, factor, 1.0])
