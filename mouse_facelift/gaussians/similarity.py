"""A scene in another world: moved, turned and scaled as a whole, so that its pictures stay the same."""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ..errors import DataError
from .gaussians import Gaussians
from .harmonics import harmonics

TOLERANCE = 1e-4
"""Largest entry of `Q Q^T - I` accepted, and of the last row's error."""

DIRECTIONS = 64
"""More than enough to tell the 16 harmonics of degree 3 apart."""


def transformed(gaussians: Gaussians, matrix: ArrayLike) -> Gaussians:
    """Take a scene through `X' = s Q X + t`, such as a sample's `world_from_model`.

    Seen through a camera that moves along (`R' = R Q^T`, the same K), it looks the same, up to the renderer's
    near plane, which stays where it is.

    Args:
        gaussians: One scene. [N, ...]
        matrix: Similarity without a mirror. [4, 4]

    Raises:
        DataError: the matrix is not a similarity.
    """
    scale, Q, t = _split(np.asarray(matrix, float))
    device, dtype = gaussians.means.device, gaussians.means.dtype
    # In float64: millimetres of a whole room leave float32 few digits for an animal.
    moved = gaussians.means.double() @ torch.from_numpy(scale * Q.T).to(device) + torch.from_numpy(t).to(
        device
    )
    turn = torch.from_numpy(quaternion(Q)).to(device)
    result = replace(
        gaussians,
        means=moved.to(dtype),
        quats=_product(turn, gaussians.quats.double()).to(dtype),
        scales=gaussians.scales * scale,
    )
    if gaussians.sh_rest is None:
        return result
    rest = _turning(Q, gaussians.sh_degree)[1:, 1:].to(device) @ gaussians.sh_rest.double()
    return replace(result, sh_rest=rest.to(dtype))


def _split(matrix: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Scale, rotation [3, 3] and translation [3]."""
    valid = matrix.shape == (4, 4) and bool(np.isfinite(matrix).all())
    determinant = float(np.linalg.det(matrix[:3, :3])) if valid else 0.0
    scale = np.cbrt(determinant) if determinant > 0 else 1.0
    Q = matrix[:3, :3] / scale
    if (
        determinant <= 0
        or np.abs(Q @ Q.T - np.eye(3)).max() > TOLERANCE
        or np.abs(matrix[3] - (0, 0, 0, 1)).max() > TOLERANCE
    ):
        raise DataError(
            f"transform is {matrix.tolist()}, expected a similarity [[s Q, t], [0, 1]] with s > 0 and a "
            "proper rotation Q."
        )
    return float(scale), Q, matrix[:3, 3]


def _turning(Q: np.ndarray, degree: int) -> Tensor:
    """What turns harmonics along with a scene: `Y(d) @ D == Y(Q^T d)` for every direction d. [S, S]

    The harmonics of a degree span what turned ones do, so least squares over a few directions is exact.
    """
    number = torch.arange(DIRECTIONS, dtype=torch.float64)
    # A spiral over the sphere, even in height.
    z, angle = 1 - (2 * number + 1) / DIRECTIONS, number * np.pi * (3 - np.sqrt(5))
    flat = (1 - z * z).sqrt()
    directions = torch.stack([flat * angle.cos(), flat * angle.sin(), z], dim=-1)
    turned = directions @ torch.from_numpy(Q)
    return torch.linalg.lstsq(harmonics(directions, degree), harmonics(turned, degree)).solution


def quaternion(Q: np.ndarray) -> np.ndarray:
    """A rotation as wxyz: the eigenvector of Bar-Itzhack (2000), exact at every angle. [4]"""
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = Q
    K = np.array(
        [
            [xx + yy + zz, zy - yz, xz - zx, yx - xy],
            [zy - yz, xx - yy - zz, yx + xy, xz + zx],
            [xz - zx, yx + xy, yy - xx - zz, zy + yz],
            [yx - xy, xz + zx, zy + yz, zz - xx - yy],
        ]
    )
    return np.linalg.eigh(K)[1][:, -1].copy()


def _product(a: Tensor, b: Tensor) -> Tensor:
    """Hamilton product of a quaternion [4] and others [N, 4]: first b, then a."""
    w, x, y, z = a
    rows = torch.stack(
        [
            torch.stack([w, -x, -y, -z]),
            torch.stack([x, w, -z, y]),
            torch.stack([y, z, w, -x]),
            torch.stack([z, -y, x, w]),
        ]
    )
    return b @ rows.T
