"""Gaussians as 20 bytes each, which a page holds as text and a graphics card reads as they are.

Five little-endian 32-bit words per Gaussian: `x y`, `z a`, `b c`, quaternion, colour. x, y, z are 16-bit
steps in the scene's box and a, b, c 16-bit steps of the logarithms of its scales. The quaternion is its three
smallest components in 10 bits each, and in the two highest bits which one is left out. The colour is red,
green, blue and opacity in 8 bits. `splats.js` is the other reader of this layout.
"""

import logging
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import DataError
from ..gaussians import Gaussians
from ..gaussians.harmonics import SH_C0
from ..gaussians.tiles import MIN_ALPHA
from ..words import several

log = logging.getLogger(__name__)

BYTES = 20
"""Of a Gaussian."""

STEPS = 65535
"""Of a position in the box, and of the logarithm of a scale."""

QUAT_STEPS = 1023
"""Of a quaternion's component in [-sqrt(1/2), sqrt(1/2)], where all but the largest lie."""

FAR = 30
"""Times the distance from the middle that nine of ten Gaussians keep: what is farther away would stretch the
box until its steps were seen."""

LOG_SCALES = (-18.0, 7.0)
"""Natural logarithms: beyond these a splat is a dot, or all that is seen, and 32-bit numbers run out."""

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Packed:
    """One scene, ready for a page.

    Attributes:
        data: `BYTES` for each Gaussian.
        left_out: Visible Gaussians that there was no room for, or that are far away from all others.
        box: Lowest corner and size, in the unit of the means. [2, 3]
        log_scales: Natural logarithm of the smallest scale, and the range up to the largest.
        color_max: What 255 stands for in red, green and blue; at least 1.
    """

    data: bytes
    left_out: int
    box: tuple[tuple[float, ...], tuple[float, ...]]
    log_scales: tuple[float, float]
    color_max: float

    def __len__(self) -> int:
        return len(self.data) // BYTES


def pack(gaussians: Gaussians, max_gaussians: int = 300_000, page: str = "The page") -> Packed:
    """Quantise one scene. Colours that depend on the direction of view keep their degree-0 part.

    What is too transparent to be drawn (opacity below 1/255) is dropped, and so is what lies `FAR` away.

    Args:
        gaussians: One scene, on any device. [N, ...]
        max_gaussians: Keep this many, those with the largest opacity times area.
        page: What warnings call the page that it is for.

    Raises:
        DataError: a batch of scenes, or values that are not finite.
    """
    if gaussians.means.ndim != 2:
        raise DataError(
            f"pack: means have shape {tuple(gaussians.means.shape)}, expected [N, 3]: one scene at a time."
        )
    gaussians, left_out = most_important(gaussians, max_gaussians)
    if left_out:
        log.warning(
            "%s shows %d of %d visible Gaussians, those with the largest opacity times area.",
            page,
            len(gaussians),
            len(gaussians) + left_out,
        )
    near = _near(gaussians.means)
    if far := int((~near).sum()):
        log.warning("%s leaves out %s, far away from all others.", page, several(far, "Gaussian"))
        gaussians, left_out = gaussians[near], left_out + far
    low, size = _range(gaussians.means.numpy(), axis=0)
    log_scales = gaussians.log_scales.clamp(*LOG_SCALES).numpy()
    scale_low, scale_range = _range(log_scales)
    # Models give colours above 1; beyond 2 they are outliers, which would cost all others their precision.
    color_max = float(gaussians.rgb.max().clamp(1, 2)) if len(gaussians) else 1.0
    words = np.empty((len(gaussians), 5), "<u4")
    halves, quarters = words.view("<u2"), words.view("u1")
    halves[:, 0:3] = _steps((gaussians.means.numpy() - low) / size, STEPS)
    halves[:, 3:6] = _steps((log_scales - scale_low) / scale_range, STEPS)
    words[:, 3] = _pack_quats(gaussians.quats.numpy())
    quarters[:, 16:19] = _steps(gaussians.rgb.numpy() / color_max, 255)
    quarters[:, 19] = _steps(gaussians.opacities.numpy(), 255)
    box = tuple(low.tolist()), tuple(size.tolist())
    return Packed(words.tobytes(), left_out, box, (float(scale_low), float(scale_range)), color_max)


def unpack(packed: Packed) -> Gaussians:
    """What a page draws of a packed scene, on the CPU. [N, ...]"""
    words = np.frombuffer(packed.data, "<u4").reshape(-1, 5)
    halves, quarters = words.view("<u2"), words.view("u1")
    low, size = np.asarray(packed.box, np.float32)
    scale_low, scale_range = packed.log_scales
    rgb = quarters[:, 16:19].astype(np.float32) / 255 * packed.color_max
    arrays = (
        low + halves[:, 0:3].astype(np.float32) / STEPS * size,
        _unpack_quats(words[:, 3]),
        np.exp(scale_low + halves[:, 3:6].astype(np.float32) / STEPS * scale_range),
        quarters[:, 19].astype(np.float32) / 255,
        (rgb[:, None] - 0.5) / SH_C0,
    )
    return Gaussians(*(torch.from_numpy(array.astype(np.float32)) for array in arrays))


def most_important(gaussians: Gaussians, most: int) -> tuple[Gaussians, int]:
    """The visible Gaussians, on the CPU and in their order, and how many of them were left out.

    Args:
        gaussians: One scene, on any device. [N, ...]
        most: Keep this many, those with the largest opacity times area.

    Raises:
        DataError: values that are not finite.
    """
    gaussians = gaussians.detach().to("cpu", torch.float32)
    tensors = (gaussians.means, gaussians.quats, gaussians.log_scales, gaussians.opacities, gaussians.sh0)
    if not all(bool(tensor.isfinite().all()) for tensor in tensors):
        raise DataError("the scene holds NaN or infinity, expected finite numbers.")
    visible = gaussians[gaussians.opacities >= MIN_ALPHA]
    if len(visible) <= most:
        return visible, 0
    # The two largest of three standard deviations span the largest area that can be seen.
    area = visible.scales.sort(dim=-1).values[:, 1:].prod(-1)
    kept = torch.topk(visible.opacities * area, most).indices.sort().values
    return visible[kept], len(visible) - most


def _near(means: Tensor) -> Tensor:
    """Those that are not far away from all others. [N, 3] -> [N] bool"""
    if not len(means):
        return torch.ones(0, dtype=torch.bool)
    distance = (means - means.median(0).values).norm(dim=1)
    usual = distance.kthvalue(max(1, int(0.9 * len(means)))).values
    # Where nearly all lie at one point, nothing is far.
    return (distance <= FAR * usual) | (usual == 0)


def _range(values: Array, axis: int | None = None) -> tuple[Array, Array]:
    """Smallest value, and the range up to the largest, above 0 where they are equal or there are none."""
    if not values.size:
        shape = values.shape[1:] if axis == 0 else ()
        return np.zeros(shape, np.float32), np.ones(shape, np.float32)
    low, high = values.min(axis), values.max(axis)
    return low, np.where(high > low, high - low, np.float32(1))


def _steps(share: NDArray[np.floating], steps: int) -> NDArray[np.int64]:
    """Shares of a range in whole steps."""
    return np.rint(np.clip(share, 0, 1) * steps).astype(np.int64)


def _pack_quats(quats: Array) -> NDArray[np.uint32]:
    """[N, 4] -> [N]"""
    length = np.linalg.norm(quats, axis=1, keepdims=True)
    unit = np.where(length > 0, quats / np.maximum(length, 1e-30), np.array([1, 0, 0, 0], np.float32))
    largest = np.abs(unit).argmax(1)
    rows = np.arange(len(unit))
    # q and -q are the same rotation, so the component that is left out can be positive.
    unit *= np.where(unit[rows, largest] < 0, -1, 1)[:, None]
    others = unit[np.arange(4) != largest[:, None]].reshape(-1, 3)
    parts = _steps(others * np.sqrt(0.5) + 0.5, QUAT_STEPS)
    word = parts[:, 0] | parts[:, 1] << 10 | parts[:, 2] << 20 | largest << 30
    return word.astype(np.uint32)


def _unpack_quats(words: NDArray[np.uint32]) -> Array:
    """[N] -> [N, 4], unit length"""
    parts = np.stack([words >> shift & QUAT_STEPS for shift in (0, 10, 20)], axis=1)
    others = (parts.astype(np.float32) / QUAT_STEPS - 0.5) / np.sqrt(0.5)
    largest = words >> 30
    quats = np.empty((len(words), 4), np.float32)
    quats[np.arange(4) != largest[:, None]] = others.ravel()
    quats[np.arange(len(words)), largest] = np.sqrt(np.maximum(0, 1 - np.square(others).sum(1)))
    return quats
