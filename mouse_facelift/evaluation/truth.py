"""Writes samples of truth: pictures from further cameras in the frame of a sample, and the true surface."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..files import atomic_folder
from ..geometry import Similarity
from ..preprocess.config import GeometryConfig
from ..preprocess.normalize import normalized_view
from ..preprocess.warp import View
from ..samples.format import Sample, write_sample
from .surface import save_points

POINTS = 60_000
"""Of a mouse's surface: several in every cell in which points hide one another, see `surface`."""

INHERITED = ("frame_index", "world_from_model", "source")


def write_truth_sample(
    folder: Path,
    sample: Sample,
    views: Mapping[int, View],
    size: int,
    points_mm: NDArray[np.floating] | None = None,
) -> Path:
    """Write what `truth` of `mfl evaluate` reads: further views of a moment, re-aimed like the sample's own.

    Args:
        folder: The new sample; its name must be the sample's. Appears whole or not at all.
        sample: The sample that it is the truth of.
        views: Whole pictures with the rig's cameras, in its millimetres, by camera ids that the sample lacks.
        size: Side of the pictures to write.
        points_mm: Dense, even points of the true surface, the rig's millimetres; None where unknown. [M, 3]

    Returns:
        `folder`.

    Raises:
        DataError: the sample has no `world_from_model`.
    """
    similarity = similarity_of(sample)
    aimed = [normalized_view(view, similarity, GeometryConfig(), size) for view in views.values()]
    metadata = {key: sample.metadata[key] for key in INHERITED if key in sample.metadata}
    with atomic_folder(folder) as temporary:
        write_sample(
            temporary,
            [view.rgba() for view in aimed],
            [view.camera for view in aimed],
            list(views),
            {**metadata, "id": sample.sample_id},
        )
        if points_mm is not None:
            save_points(temporary, points_mm)
    return folder


def similarity_of(sample: Sample) -> Similarity:
    """The change of world that a sample was made with.

    Raises:
        DataError: its cameras file does not say.
    """
    matrix = sample.world_from_model
    if matrix is None:
        raise DataError(f"{sample.folder}: its cameras file has no world_from_model.")
    return Similarity.from_world_from_model(matrix)


def even_points(vertices: NDArray[np.floating], faces: NDArray[np.integer], seed: int) -> NDArray[np.float64]:
    """Points spread evenly over a mesh's surface, the same for the same seed.

    Args:
        vertices: [N, 3]
        faces: Triangles. [F, 3]
        seed: Of the places.

    Returns:
        In the unit of the vertices. [POINTS, 3]
    """
    corners = vertices.astype(float)[faces.astype(int)]
    doubled = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    edges = np.cumsum(np.linalg.norm(doubled, axis=1))
    generator = np.random.default_rng(seed)
    places = (np.arange(POINTS) + generator.random(POINTS)) / POINTS
    chosen = corners[np.searchsorted(edges, places * edges[-1])]
    # Uniform in a triangle: Osada et al. 2002.
    u, v = np.sqrt(generator.random(POINTS)), generator.random(POINTS)
    weights = np.stack([1 - u, u * (1 - v), u * v], axis=1)
    return np.asarray(np.einsum("nc,nca->na", weights, chosen))
