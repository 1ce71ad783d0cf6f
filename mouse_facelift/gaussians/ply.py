"""Scenes on disk: the 3D Gaussian splatting PLY that SuperSplat and other viewers open.

Values are stored before activation: logit opacities, log scales, quaternions wxyz, raw spherical harmonics.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from plyfile import PlyData, PlyElement, PlyParseError

from ..errors import DataError
from ..files import atomic_path
from .gaussians import Gaussians

COLUMNS = (
    *("x", "y", "z"),
    *("f_dc_0", "f_dc_1", "f_dc_2"),
    "opacity",
    *("scale_0", "scale_1", "scale_2"),
    *("rot_0", "rot_1", "rot_2", "rot_3"),
)
"""Properties of a vertex, all float32: what a viewer needs, and nothing that would be constant."""


def write_ply(path: Path, gaussians: Gaussians) -> None:
    """Write one scene, binary little endian; the file appears under its name only when complete.

    Raises:
        DataError: a batch of scenes, or values that are not finite.
    """
    if gaussians.means.ndim != 2:
        raise DataError(
            f"{path}: means have shape {tuple(gaussians.means.shape)}, expected [N, 3]: one scene per file."
        )
    raw = (
        gaussians.means,
        gaussians.sh0[:, 0],
        gaussians.logit_opacities[:, None],
        gaussians.log_scales,
        gaussians.quats,
    )
    values = torch.cat(raw, dim=1).detach().to("cpu", torch.float32)
    if not bool(values.isfinite().all()):
        raise DataError(
            f"{path}: the scene holds NaN or infinity, expected finite numbers. Nothing is written."
        )
    vertices = np.ascontiguousarray(values.numpy(), dtype="<f4").view([(name, "<f4") for name in COLUMNS])[
        :, 0
    ]
    with atomic_path(path) as temporary:
        PlyData([PlyElement.describe(vertices, "vertex")], byte_order="<").write(str(temporary))


def read_ply(path: Path) -> Gaussians:
    """Read one scene of spherical harmonics degree 0, as written here, by FaceLift or by other tools.

    Properties that mean nothing at degree 0 (normals, red green blue, an all-zero f_rest) are ignored.

    Returns:
        On the CPU, float32. [N, ...]

    Raises:
        DataError: the file is missing, malformed, not of Gaussians, or of a higher degree.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such PLY file.")
    vertices = _read_vertices(path)
    names = vertices.dtype.names or ()
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        raise DataError(
            f"{path}: vertices lack {', '.join(missing)}; expected a 3D Gaussian splatting file, "
            "not a point cloud or a mesh."
        )
    rest = [name for name in names if name.startswith("f_rest_")]
    if any(np.any(vertices[name]) for name in rest):
        raise DataError(
            f"{path}: f_rest holds view-dependent colour ({len(rest)} coefficients), expected degree 0. "
            "Export the scene without spherical harmonics."
        )
    values = torch.from_numpy(np.stack([vertices[name].astype(np.float32) for name in COLUMNS], axis=1))
    if not bool(values.isfinite().all()):
        raise DataError(f"{path}: holds NaN or infinity, expected finite numbers. Write the file again.")
    means, sh0, logits, log_scales, quats = values.split((3, 3, 1, 3, 4), dim=1)
    return Gaussians(
        means.contiguous(),
        quats.contiguous(),
        log_scales.exp(),
        logits[:, 0].sigmoid(),
        sh0[:, None].contiguous(),
    )


def _read_vertices(path: Path) -> NDArray[np.void]:
    try:
        content = PlyData.read(str(path))
    except (PlyParseError, ValueError, EOFError, MemoryError) as error:
        raise DataError(f"{path}: not a readable PLY file ({error}). Write or download it again.") from None
    if "vertex" not in content:
        found = ", ".join(element.name for element in content.elements) or "nothing"
        raise DataError(f"{path}: holds {found}, expected an element 'vertex'.")
    vertices = content["vertex"].data
    if vertices.dtype.hasobject:
        raise DataError(f"{path}: vertices hold lists, expected a number per property.")
    return vertices
