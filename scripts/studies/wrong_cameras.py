"""Samples whose cameras are not those of their pixels, as an old recipe made them, and how wrong cameras are.

`mfl preprocess` writes no such samples; the study recipes.py overwrites the cameras in copies of sound ones.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mouse_facelift.demo.truth import alpha_iou
from mouse_facelift.geometry import FACELIFT_DISTANCE, FACELIFT_FOCAL, Camera, Similarity, transform_pixels
from mouse_facelift.geometry.cameras import Array
from mouse_facelift.geometry.triangulation import triangulate_many
from mouse_facelift.samples.format import Sample, read_rgba, read_sample, write_sample

POINTS = 500
"""True points of the surface that are looked up in the pictures, about."""
LEAST_SQUARES = 1e9
"""Huber's threshold beyond all residuals."""


@dataclass(frozen=True)
class CameraErrors:
    """How far a sample's pictures and its cameras disagree.

    Attributes:
        written_px: Mean distance between true points projected by the written cameras and their places in the
            pictures.
        best_px: The same of points that fit these places best: no shape can lower it.
        alpha_iou: Overlap of the written alpha with the true masks as the written cameras see them, which
            rests on pixels alone.
        world_from_model: Similarity from these best points to the true ones, mm. [4, 4]
    """

    written_px: float
    best_px: float
    alpha_iou: float
    world_from_model: Array


def overwrite_cameras(folder: Path, samples: Sequence[Sample]) -> list[Sample]:
    """Copies with the cameras of the old recipe; those that are there are kept.

    K says a field of view of 50 degrees and a principal point in the middle, whatever the picture. Cameras
    are aimed as before, and the world is scaled about the animal so that they are 2.7 away on average.
    """
    cameras = [view.camera for sample in samples for view in sample.views]
    scale = FACELIFT_DISTANCE / float(np.mean([np.linalg.norm(camera.center) for camera in cameras]))
    return [_overwritten(folder / sample.folder.resolve().name, sample, scale) for sample in samples]


def camera_errors(recording: Path, sample: Sample, made_by: Sample) -> CameraErrors:
    """Measure a sample against the truth of its synthetic recording.

    Args:
        recording: With the true masks of the sample's frame.
        sample: Pictures and cameras.
        made_by: The same pictures with the cameras that made them; the sample itself where it is sound.
    """
    points = _true_points(recording, sample)
    places = _true_places(recording, made_by, points)
    cameras = [view.camera for view in sample.views]
    model_from_world = np.linalg.inv(np.array(sample.world_from_model))
    inside = points @ model_from_world[:3, :3].T + model_from_world[:3, 3]
    written = np.stack([camera.project(inside)[0] for camera in cameras], axis=1)
    fitted = triangulate_many(places, cameras, LEAST_SQUARES)
    return CameraErrors(
        float(np.linalg.norm(written - places, axis=-1).mean()),
        float(fitted.residual_px.mean()),
        alpha_iou(recording, sample),
        best_similarity(fitted.point, points),
    )


def best_similarity(points: Array, targets: Array) -> Array:
    """The similarity [4, 4] that takes points [N, 3] nearest to targets [N, 3] (Umeyama 1991)."""
    middle, goal = points.mean(axis=0), targets.mean(axis=0)
    moved, wanted = points - middle, targets - goal
    U, sizes, Vt = np.linalg.svd(wanted.T @ moved)
    signs = np.array([1, 1, np.sign(np.linalg.det(U @ Vt))])
    matrix = np.eye(4)
    matrix[:3, :3] = (sizes * signs).sum() / (moved**2).sum() * (U * signs) @ Vt
    matrix[:3, 3] = goal - matrix[:3, :3] @ middle
    return matrix


def _overwritten(folder: Path, sample: Sample, scale: float) -> Sample:
    if folder.is_dir():
        return read_sample(folder)
    world_from_model = np.array(sample.world_from_model)
    world_from_model[:3, :3] /= scale
    return write_sample(
        folder,
        [read_rgba(view.file) for view in sample.views],
        [_fifty_degrees(view.camera, scale) for view in sample.views],
        [view.view_id for view in sample.views],
        {**sample.metadata, "world_from_model": world_from_model.tolist()},
    )


def _fifty_degrees(camera: Camera, scale: float) -> Camera:
    focal, middle = FACELIFT_FOCAL * camera.width, camera.width / 2
    K = np.array([[focal, 0, middle], [0, focal, middle], [0, 0, 1]])
    scaled = camera.similarity(Similarity(scale, np.eye(3), np.zeros(3)))
    return Camera(K, scaled.w2c, camera.width, camera.height)


def _true_points(recording: Path, sample: Sample) -> Array:
    """Of the surface, mm. [N, 3]"""
    with np.load(recording / "ground_truth" / "vertices.npz") as mesh:
        vertices = mesh["vertices"][sample.frame_index].astype(float)
    return np.asarray(vertices[:: max(1, len(vertices) // POINTS)])


def _true_places(recording: Path, sample: Sample, points: Array) -> Array:
    """Where true points, mm [N, 3], are in a sound sample's pictures. [N, V, 2]

    The true cameras say where they are in the recording, and the homography of a camera that turned and
    zoomed says where that went. Of the sample only K and R are used, not where its cameras stand.
    """
    content = json.loads((recording / "ground_truth" / "cameras.json").read_text(encoding="utf-8"))
    rig = {entry["id"]: entry for entry in content["cameras"]}
    turn = np.array(sample.world_from_model)[:3, :3]
    turn /= np.cbrt(np.linalg.det(turn))
    places = []
    for view in sample.views:
        entry, written = rig[view.view_id], view.camera
        true = Camera(np.array(entry["K"]), np.array(entry["w2c"]), entry["width"], entry["height"])
        _, H = true.reaim(written.K, written.R @ turn.T, written.width, written.height)
        places.append(transform_pixels(H, true.project(points)[0]))
    return np.stack(places, axis=1)
