"""What a synthetic recording knows exactly, in the frame of a sample: where the animal is, and how it looks
from cameras that no model has seen.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import DataError
from ..evaluation.truth import even_points, similarity_of, write_truth_sample
from ..geometry import Camera
from ..geometry.rays import camera_tensors
from ..preprocess.config import GeometryConfig
from ..preprocess.normalize import normalized_view
from ..preprocess.warp import View
from ..samples.format import Sample, read_rgba


@dataclass(frozen=True)
class NovelViews:
    """True pictures of one sample's animal from held-out cameras, re-aimed like the sample's own views.

    Attributes:
        rgba: Straight alpha, in [0, 1]. [V, 4, S, S]
        K: Intrinsics. [V, 3, 3]
        w2c: World-to-camera, model units. [V, 4, 4]
    """

    rgba: Tensor
    K: Tensor
    w2c: Tensor


def truth_frames(recording: Path) -> list[int]:
    """Frames that have true pictures from the held-out cameras."""
    frames: list[int] = _cameras_file(recording)["truth_frames"]
    return frames


def center_error_mm(recording: Path, sample: Sample) -> float:
    """Distance of the sample's origin from the true centroid of the body (without the tail), in mm."""
    track = np.load(recording / "ground_truth" / "track.npz")
    return float(np.linalg.norm(similarity_of(sample).center - track["body_centroid_mm"][sample.frame_index]))


def novel_views(recording: Path, sample: Sample, size: int) -> NovelViews:
    """Read the held-out cameras' pictures of a sample's frame.

    Args:
        recording: A recording made by `write_recording`.
        sample: One of its samples; its frame must be one of `truth_frames`.
        size: Side of the pictures.

    Raises:
        DataError: the frame has no true pictures.
    """
    similarity, geometry = similarity_of(sample), GeometryConfig()
    seen = _held_out_views(recording, sample).values()
    views = [normalized_view(view, similarity, geometry, size) for view in seen]
    pictures = np.stack([view.rgba() for view in views])
    return NovelViews(
        torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255,
        *camera_tensors(view.camera for view in views),
    )


def write_truth(folder: Path, recording: Path, sample: Sample, size: int, surface: bool = True) -> Path:
    """Write the held-out cameras' pictures and the true surface as a sample of truth for `mfl evaluate`.

    Args:
        folder: The new sample; its name must be the sample's.
        recording: A recording made by `write_recording`.
        sample: One of its samples; its frame must be one of `truth_frames`.
        size: Side of the pictures.
        surface: Whether the surface is written too, which takes most of a small sample's space.

    Raises:
        DataError: the frame has no true pictures.
    """
    views, frame = _held_out_views(recording, sample), int(sample.metadata["frame_index"])
    if not surface:
        return write_truth_sample(folder, sample, views, size)
    with np.load(recording / "ground_truth" / "vertices.npz") as mesh:
        points = even_points(mesh["vertices"][frame], mesh["faces"], frame)
    return write_truth_sample(folder, sample, views, size, points)


def alpha_iou(recording: Path, sample: Sample) -> float:
    """Overlap of a sample's alpha with the true masks as its cameras should see them, mean over views.

    The truth is warped by the camera matrices alone: written pixels against written cameras.
    """
    similarity, overlaps = similarity_of(sample), []
    rig = {entry["id"]: entry for entry in _cameras_file(recording)["cameras"]}
    for view in sample.views:
        entry = rig[view.view_id]
        name = f"frame{sample.frame_index:04d}_cam{view.view_id}.png"
        mask = np.asarray(Image.open(recording / "ground_truth" / "masks" / name))
        camera = Camera(np.array(entry["K"]), np.array(entry["w2c"]), entry["width"], entry["height"])
        true = View(
            np.repeat(mask[..., None], 3, axis=2),
            mask.astype(np.float32) / np.float32(255),
            camera.similarity(similarity),
        )
        written = view.camera
        warped = true.reaim(written.K, written.R, written.width, written.height).alpha > 0.5
        alpha = read_rgba(view.file)[..., 3] > 127
        overlaps.append((warped & alpha).sum() / (warped | alpha).sum())
    return float(np.mean(overlaps))


def _held_out_views(recording: Path, sample: Sample) -> dict[int, View]:
    """Whole pictures of a sample's frame by camera, the rig's millimetres."""
    views = {}
    for entry in _cameras_file(recording)["cameras"]:
        if entry["role"] == "held_out":
            name = f"frame{sample.frame_index:04d}_cam{entry['id']}.png"
            rgba = read_rgba(recording / "ground_truth" / "novel_views" / name)
            camera = Camera(np.array(entry["K"]), np.array(entry["w2c"]), entry["width"], entry["height"])
            alpha = rgba[..., 3].astype(np.float32) / np.float32(255)
            views[int(entry["id"])] = View(rgba[..., :3].copy(), alpha, camera)
    return views


def _cameras_file(recording: Path) -> dict[str, Any]:
    path = recording / "ground_truth" / "cameras.json"
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; only synthetic recordings have ground truth.") from None
    return content
