"""Scenes on disk: the 3D Gaussian splatting PLY that SuperSplat and other viewers open.

Values are stored before activation: logit opacities, log scales, quaternions wxyz, raw spherical harmonics.
"""

from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from plyfile import PlyData, PlyElement, PlyParseError
from torch import Tensor

from ..errors import DataError
from ..files import atomic_path
from .gaussians import Gaussians
from .harmonics import MAX_DEGREE, SH_C0

GEOMETRY = (
    "opacity",
    *("scale_0", "scale_1", "scale_2"),
    *("rot_0", "rot_1", "rot_2", "rot_3"),
)
COLUMNS = (*("x", "y", "z"), *("f_dc_0", "f_dc_1", "f_dc_2"), *GEOMETRY)
"""Properties of a vertex of degree 0, all float32: what a viewer needs, nothing that would be constant."""

REST = {degree: 3 * ((degree + 1) ** 2 - 1) for degree in range(MAX_DEGREE + 1)}
"""Columns `f_rest_*` of a degree: all coefficients of red, then of green, then of blue."""

Layout = Literal["standard", "published", "published_unpadded"]


def write_ply(path: Path, gaussians: Gaussians, layout: Layout = "standard") -> None:
    """Write one scene, binary little endian; the file appears under its name only when complete.

    Args:
        path: The file.
        gaussians: One scene. Float64 is converted before activation, so that a scene activated in float64
            gives the raw float32 values to the bit. [N, ...]
        layout: `standard` is what viewers read, with as many `f_rest` as the degree needs. `published` is
            FaceLift's file: it has 8-bit colours too, and `f_rest` is filled up to degree 3 at its end, which
            viewers misread at degrees 1 and 2. `published_unpadded` is the same without the filling.

    Raises:
        DataError: a batch of scenes, or values that are not finite.
    """
    if gaussians.means.ndim != 2:
        raise DataError(
            f"{path}: means have shape {tuple(gaussians.means.shape)}, expected [N, 3]: one scene per file."
        )
    dc = gaussians.sh0[:, 0]
    rest = gaussians.sh[:, 1:].mT.flatten(1)
    if layout == "published":
        rest = F.pad(rest, (0, REST[MAX_DEGREE] - rest.shape[1]))
    geometry = (gaussians.logit_opacities[:, None], gaussians.log_scales, gaussians.quats)
    values = torch.cat([gaussians.means, dc, rest, *geometry], dim=1).detach().to("cpu", torch.float32)
    if not bool(values.isfinite().all()):
        raise DataError(
            f"{path}: the scene holds NaN or infinity, expected finite numbers. Nothing is written."
        )
    names = [*COLUMNS[:6], *(f"f_rest_{i}" for i in range(rest.shape[1])), *GEOMETRY]
    vertices = np.ascontiguousarray(values.numpy(), dtype="<f4").view([(name, "<f4") for name in names])[:, 0]
    if layout != "standard":
        vertices = _with_bytes_of_color(vertices, values[:, 3:6])
    with atomic_path(path) as temporary:
        PlyData([PlyElement.describe(vertices, "vertex")], byte_order="<").write(str(temporary))


def _with_bytes_of_color(vertices: NDArray[np.void], dc: Tensor) -> NDArray[np.void]:
    """Insert red, green and blue after the position, truncated as FaceLift does. dc: [N, 3]"""
    colors = (255 * (0.5 + SH_C0 * dc)).clamp(0, 255).to(torch.uint8).numpy()
    names = list(vertices.dtype.names or ())
    kinds = [(name, "<f4") for name in names]
    kinds[3:3] = [(name, "u1") for name in ("red", "green", "blue")]
    result = np.empty(len(vertices), kinds)
    for name in names:
        result[name] = vertices[name]
    for channel, name in enumerate(("red", "green", "blue")):
        result[name] = colors[:, channel]
    return result


def read_ply(path: Path, dtype: torch.dtype = torch.float32) -> Gaussians:
    """Read one scene of spherical harmonics degree 0 to 3, as written here, by FaceLift or by other tools.

    Other properties (normals, red green blue) are ignored, and so is an `f_rest` of zeros.

    Args:
        path: The file.
        dtype: The file holds float32 before activation; float64 keeps it through activation to the bit.

    Returns:
        On the CPU. [N, ...]

    Raises:
        DataError: the file is missing, malformed or not of Gaussians.
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
    wanted = [*COLUMNS, *_rest_columns(path, vertices)]
    values = torch.from_numpy(np.stack([vertices[name].astype(np.float32) for name in wanted], axis=1))
    if not bool(values.isfinite().all()):
        raise DataError(f"{path}: holds NaN or infinity, expected finite numbers. Write the file again.")
    means, sh0, logits, log_scales, quats, rest = values.to(dtype).split((3, 3, 1, 3, 4, len(wanted) - 14), 1)
    return Gaussians(
        means.contiguous(),
        quats.contiguous(),
        log_scales.exp(),
        logits[:, 0].sigmoid(),
        sh0[:, None].contiguous(),
        rest.unflatten(1, (3, -1)).mT.contiguous() if rest.shape[1] else None,
    )


def _rest_columns(path: Path, vertices: NDArray[np.void]) -> list[str]:
    """The `f_rest_*` that hold something, in order.

    FaceLift fills degrees 1 and 2 up to degree 3 at the end. Taken at its word such a file would have red
    harmonics only, so columns of zeros at the end are taken for filling.
    """
    found = [name for name in vertices.dtype.names or () if name.startswith("f_rest_")]
    if not any(np.any(vertices[name]) for name in found):
        return []
    columns = [f"f_rest_{i}" for i in range(len(found))]
    if len(found) not in REST.values() or set(found) != set(columns):
        raise DataError(
            f"{path}: has {len(found)} properties f_rest_*, expected 9, 24 or 45 (degrees 1, 2, 3), numbered "
            "from 0, or none. Export the scene again."
        )
    used = max(i + 1 for i, name in enumerate(columns) if np.any(vertices[name]))
    return columns[: min(size for size in REST.values() if size >= used)]


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
