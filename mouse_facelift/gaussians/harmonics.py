"""Real spherical harmonics up to degree 3, in the order and with the signs of 3D Gaussian splatting."""

import torch
from torch import Tensor

from ..errors import DataError

SH_C0 = 0.28209479177387814
"""Degree-0 spherical harmonic, the same in every direction: colour = 0.5 + SH_C0 * sh0."""

MAX_DEGREE = 3

C1 = 0.4886025119029199
C2 = (1.0925484305920792, 0.31539156525252005, 0.5462742152960396)
C3 = (0.5900435899266435, 2.890611442640554, 0.4570457994644658, 0.3731763325901154, 1.445305721320277)


def sh_degree(coefficients: int) -> int:
    """Degree of a series of so many coefficients, 1, 4, 9 or 16.

    Raises:
        DataError: another number.
    """
    for degree in range(MAX_DEGREE + 1):
        if (degree + 1) ** 2 == coefficients:
            return degree
    raise DataError(
        f"found {coefficients} spherical harmonics per colour channel, expected 1, 4, 9 or 16 "
        f"(degrees 0 to {MAX_DEGREE})."
    )


def harmonics(directions: Tensor, degree: int) -> Tensor:
    """Value of each harmonic.

    Args:
        directions: Unit length. [..., 3]
        degree: 0 to 3.

    Returns:
        [..., (degree + 1)^2]
    """
    x, y, z = directions.unbind(-1)
    values = [torch.full_like(x, SH_C0)]
    if degree >= 1:
        values += [-C1 * y, C1 * z, -C1 * x]
    if degree >= 2:
        xx, yy, zz = x * x, y * y, z * z
        values += [C2[0] * x * y, -C2[0] * y * z, C2[1] * (2 * zz - xx - yy), -C2[0] * x * z]
        values += [C2[2] * (xx - yy)]
    if degree >= 3:
        values += [-C3[0] * y * (3 * xx - yy), C3[1] * x * y * z, -C3[2] * y * (4 * zz - xx - yy)]
        values += [C3[3] * z * (2 * zz - 3 * xx - 3 * yy), -C3[2] * x * (4 * zz - xx - yy)]
        values += [C3[4] * z * (xx - yy), -C3[0] * x * (xx - 3 * yy)]
    return torch.stack(values, -1)


def sh_colors(sh: Tensor, directions: Tensor) -> Tensor:
    """Colour seen along directions, at least 0, not limited above (as the published renderer).

    Args:
        sh: Coefficients, degree 0 first. [..., S, 3]
        directions: From the camera to the Gaussian, unit length. [..., 3]

    Returns:
        [..., 3]
    """
    weights = harmonics(directions, sh_degree(sh.shape[-2]))
    return (0.5 + (weights[..., None] * sh).sum(-2)).clamp_min(0)
