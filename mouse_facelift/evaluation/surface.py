"""Distances in millimetres between a reconstruction and the true surface of the animal, where it is known."""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ..errors import DataError
from ..gaussians.rendering import Rendering
from ..samples.format import Sample

FILE = "surface.npz"

FROM, TO = 4_000, 20_000
"""Points of a surface that Chamfer distances are measured from, and to, at most, evenly out of all. For the
latter a mouse's surface is one point in 0.6 mm, so distances of two equal surfaces are about 0.3 mm."""

CELLS = 256
"""Cells along a picture's side in which points hide those behind them. Coarser ones would take slanted parts
of the surface for hidden."""

HIDDEN_BEHIND = 0.05
"""A point so far behind the first one of its cell or of the cells around is hidden, model units."""


@dataclass(frozen=True)
class Surface:
    """The true surface, in the frame of a sample.

    Attributes:
        points: Dense and even over the surface, model units. [M, 3]
        unit_mm: Millimetres of one model unit.
    """

    points: Tensor
    unit_mm: float

    @classmethod
    def read(cls, sample: Sample) -> "Surface | None":
        """The `surface.npz` of a sample of truth; None if it has none.

        Raises:
            DataError: the file is not one, or the sample does not say where it is in the rig.
        """
        path = sample.folder / FILE
        if not path.is_file():
            return None
        matrix, unit_mm = sample.world_from_model, sample.mm_per_unit
        if matrix is None or unit_mm is None:
            raise DataError(f"{sample.folder}: has {FILE}, but its cameras file has no world_from_model.")
        points_mm = _read_points(path)
        model_from_world = np.linalg.inv(matrix)
        points = points_mm @ model_from_world[:3, :3].T + model_from_world[:3, 3]
        return cls(torch.from_numpy(points).float(), unit_mm)


def depth_error_mm(
    picture: Rendering, alpha: Tensor, K: Tensor, w2c: Tensor, surface: Surface
) -> float | None:
    """Mean distance along the optical axis between rendered depth and the true points that a camera sees.

    Args:
        picture: Rendering of one view. [C, H, W]
        alpha: The true silhouette; only where both silhouettes are is anything compared. [1, H, W]
        K: Intrinsics of these pixels. [3, 3]
        w2c: World-to-camera, model units. [4, 4]
        surface: The truth.

    Returns:
        Millimetres; None where nothing can be compared.
    """
    height, width = alpha.shape[-2:]
    points = surface.points.to(w2c.device) @ w2c[:3, :3].T + w2c[:3, 3]
    depth = points[:, 2]
    pixels = (points @ K.T)[:, :2] / depth[:, None]
    x, y = pixels.floor().long().unbind(-1)
    inside = (depth > 0) & (x >= 0) & (x < width) & (y >= 0) & (y < height)
    x, y, depth = x[inside], y[inside], depth[inside]
    both = (picture.alpha[0] > 0.5) & (alpha[0] > 0.5)
    cells = (pixels[inside] * pixels.new_tensor([CELLS / width, CELLS / height])).long()
    compared = _first_ones(cells, depth) & both[y, x]
    if not compared.any():
        return None
    error = (picture.depth[0, y, x] - depth)[compared].abs().mean()
    return float(error) * surface.unit_mm


def chamfer_mm(pictures: Rendering, K: Tensor, w2c: Tensor, surface: Surface) -> float | None:
    """Mean distance to the nearest point, of both directions, between the truth and the rendered surface.

    Args:
        pictures: Renderings whose depth, where alpha is above 0.5, makes up the reconstruction's surface.
            [V, C, H, W]
        K: Intrinsics. [V, 3, 3]
        w2c: World-to-camera, model units. [V, 4, 4]
        surface: The truth.

    Returns:
        Millimetres; None where nothing is rendered.
    """
    found = _unprojected(pictures, K, w2c)
    if not len(found):
        return None
    truth = surface.points.to(found)
    there, back = (
        _nearest(_thinned(one, FROM), _thinned(other, TO)) for one, other in ((found, truth), (truth, found))
    )
    return float((there + back) / 2) * surface.unit_mm


def save_points(folder: Path, points_mm: NDArray[np.floating]) -> None:
    """Write the `surface.npz` that `Surface.read` reads. points_mm: [M, 3]"""
    np.savez_compressed(folder / FILE, points_mm=points_mm.astype(np.float32))


def _read_points(path: Path) -> np.ndarray:
    try:
        with np.load(path, allow_pickle=False) as content:
            points = np.asarray(content["points_mm"], float)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: no array points_mm can be read ({error!r}).") from None
    if points.ndim != 2 or points.shape[1] != 3 or not len(points) or not np.isfinite(points).all():
        raise DataError(f"{path}: points_mm has shape {points.shape}, expected finite numbers [M, 3].")
    return points


def _first_ones(cells: Tensor, depth: Tensor) -> Tensor:
    """Which points nothing hides, of points in cells [M, 2] at depths [M]. [M] bool"""
    at = cells[:, 1] * CELLS + cells[:, 0]
    nearest = depth.new_full((CELLS**2,), torch.inf).scatter_reduce(0, at, depth, "amin")
    around = -F.max_pool2d(-nearest.view(1, 1, CELLS, CELLS), 3, stride=1, padding=1)
    return depth <= around.flatten()[at] + HIDDEN_BEHIND


def _unprojected(pictures: Rendering, K: Tensor, w2c: Tensor) -> Tensor:
    """World points of all pixels that show something. [M, 3]"""
    found = []
    for alpha, depth, k, matrix in zip(pictures.alpha[:, 0], pictures.depth[:, 0], K, w2c, strict=True):
        y, x = torch.nonzero(alpha > 0.5, as_tuple=True)
        pixels = torch.stack([x + 0.5, y + 0.5, torch.ones_like(x)], dim=-1).to(depth)
        points = pixels @ torch.linalg.inv(k).T * depth[y, x, None]
        found.append((points - matrix[:3, 3]) @ matrix[:3, :3])
    return torch.cat(found)


def _thinned(points: Tensor, most: int) -> Tensor:
    """At most so many, evenly out of all."""
    if len(points) <= most:
        return points
    return points[torch.linspace(0, len(points) - 1, most, device=points.device).long()]


def _nearest(points: Tensor, others: Tensor) -> Tensor:
    """Mean distance to the nearest of the others. []"""
    return torch.cat([torch.cdist(part, others).amin(dim=1) for part in points.split(512)]).mean()
