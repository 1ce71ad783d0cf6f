"""A moment in the frame that it is shown in: its Gaussians, cameras, box and floor agree."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import DataError
from ..gaussians import Gaussians
from ..gaussians.similarity import transformed
from ..geometry import Camera, Similarity, similarity_scale
from ..samples.format import Sample, read_sample
from .contents import Moment

Array = NDArray[np.float64]
Frame = Literal["stored", "model", "rig"]

BOX = 0.9
"""Half the side of the box in which samples keep the animal, model units."""

FLOOR_MM = 100.0
"""The floor is drawn in squares of this side; their corners stay where they are."""

FAR = 2.0
"""Gaussians in model units end before this; others are of an unknown unit."""


@dataclass(frozen=True)
class Shown:
    """One moment, read.

    Attributes:
        moment: Which.
        gaussians: In the frame that is shown; None where there are only pictures. [N, ...]
        sample: In its own frame, the model's.
        world_from_model: From model units to the rig's millimetres, where known. [4, 4]
        in_mm: Whether the rig's millimetres are shown, not model units.
    """

    moment: Moment
    gaussians: Gaussians | None
    sample: Sample | None
    world_from_model: Array | None
    in_mm: bool

    @property
    def from_model(self) -> Array | None:
        """From model units to what is shown; None where that is not known. [4, 4]"""
        return self.world_from_model if self.in_mm else np.eye(4)

    def cameras(self) -> list[Camera]:
        """The sample's cameras, in the order of its views."""
        matrix = self.from_model
        if self.sample is None or matrix is None:
            return []
        cameras = [view.camera for view in self.sample.views]
        if not self.in_mm:
            return cameras
        to_mm = Similarity.from_world_from_model(matrix).inverse
        return [camera.similarity(to_mm) for camera in cameras]

    def box(self) -> Array | None:
        """Edges of the box in which samples keep the animal. [12, 2, 3]"""
        if self.from_model is None:
            return None
        # An edge joins two of the eight corners that differ in one coordinate.
        corners = BOX * np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1], indexing="ij")).reshape(3, 8).T
        pairs = [(a, b) for a in range(8) for b in range(a) if (corners[a] != corners[b]).sum() == 1]
        return corners[np.array(pairs)] @ self.from_model[:3, :3].T + self.from_model[:3, 3]

    def floor(self) -> tuple[Array, Array, float] | None:
        """Where the floor of the rig is, z = 0 in millimetres.

        Returns:
            A corner of its squares near the animal [3], its axes as columns [3, 3], and the length of a
            millimetre; None where it is not known.
        """
        matrix = self.world_from_model
        if matrix is None:
            return None
        corner = np.append(FLOOR_MM * np.round(matrix[:2, 3] / FLOOR_MM), 0.0)
        if self.in_mm:
            return corner, np.eye(3), 1.0
        inverse = np.asarray(np.linalg.inv(matrix), float)
        mm = 1 / similarity_scale(matrix)
        return inverse[:3, :3] @ corner + inverse[:3, 3], inverse[:3, :3] / mm, mm

    def place(self) -> tuple[Array, float]:
        """What to look at [3], and the length there of a model unit."""
        if self.in_mm and self.world_from_model is not None:
            return self.world_from_model[:3, 3], similarity_scale(self.world_from_model)
        if self.gaussians is None or len(self.gaussians) == 0:
            return np.zeros(3), 1.0
        shares = torch.tensor([0.01, 0.99], dtype=torch.float64)
        # Few of them tell enough, and quantiles of many are slow.
        some = self.gaussians.means[:: max(1, len(self.gaussians) // 10_000)].double().cpu()
        low, high = torch.quantile(some, shares, dim=0).numpy()
        if not self.in_mm and np.abs([low, high]).max() < FAR:
            return np.zeros(3), 1.0
        return (low + high) / 2, float((high - low).max()) / (2 * BOX)


def read_moment(moment: Moment, frame: Frame) -> Shown:
    """Read one moment into memory.

    Args:
        moment: Which.
        frame: stored takes Gaussians as they are in their file, which for samples alone is the model's.

    Raises:
        DataError: it cannot be read, the way to the frame is not known, or the sample is not the one that
            the result came from.
    """
    gaussians = moment.read() if moment.read else None
    sample = read_sample(moment.sample) if moment.sample else None
    matrix = moment.world_from_model
    if sample is not None:
        matrix = _agreed(moment, matrix, sample)
    in_mm = moment.in_rig if frame == "stored" else frame == "rig"
    if in_mm != moment.in_rig:
        if matrix is None:
            raise DataError(
                f"{moment.name}: its world_from_model is not known, which frame={frame} needs. Use "
                "frame=stored, or give the samples too."
            )
        if gaussians is not None:
            gaussians = transformed(gaussians, matrix if in_mm else np.linalg.inv(matrix))
    return Shown(moment, gaussians, sample, matrix, in_mm)


def _agreed(moment: Moment, matrix: Array | None, sample: Sample) -> Array | None:
    """The similarity of a result and its sample, which are the same."""
    known = sample.world_from_model
    if matrix is None or known is None:
        return known if matrix is None else matrix
    if known.shape != (4, 4) or not np.allclose(matrix, known, rtol=1e-5, atol=1e-3):
        raise DataError(
            f"{sample.folder}: has another world_from_model than the result {moment.name}, so it is not the "
            "sample that it came from. Give the samples that were reconstructed, or leave them out."
        )
    return matrix
