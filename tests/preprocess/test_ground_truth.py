"""The acceptance figure: the true mesh through the written cameras against the written alpha."""

import importlib.util

import cv2
import numpy as np
import pytest

from mouse_facelift.preprocess.config import PreprocessConfig
from mouse_facelift.preprocess.run import run
from mouse_facelift.samples.format import read_rgba, read_sample

FRAMES = [12, 108, 190]
SUPERSAMPLING, SHIFT = 8, 6


def true_coverage(camera, vertices, faces):
    """Share of each pixel that the mesh covers, supersampled: fillConvexPoly paints all it touches. [H, W]"""
    fine, _ = camera.resized(SUPERSAMPLING * camera.width, SUPERSAMPLING * camera.height)
    corners = np.round((fine.project(vertices)[0] - 0.5) * 2**SHIFT).astype(np.int32)
    picture = np.zeros((fine.height, fine.width), np.float32)
    for triangle in corners[faces]:
        cv2.fillConvexPoly(picture, triangle, 1, cv2.LINE_8, SHIFT)
    return cv2.resize(picture, (camera.width, camera.height), interpolation=cv2.INTER_AREA)


def offset_px(found, expected):
    """Shift (x, y) from `expected` to `found` that explains their difference best, to first order."""
    smooth = cv2.blur(expected, (3, 3))
    rows, columns = np.gradient(smooth)
    slopes = -np.stack([columns.ravel(), rows.ravel()], axis=1)
    return np.linalg.lstsq(slopes, (found - expected).ravel(), rcond=None)[0]


@pytest.fixture(scope="module")
def truth(shared):
    return shared / "data/mouse_capture/ground_truth"


@pytest.fixture(scope="module")
def comparison(truth, tmp_path_factory):
    """Vertices in model units, written alpha and true coverage of every view."""
    spec = importlib.util.spec_from_file_location("read_truth", truth / "read_truth.py")
    read_truth = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(read_truth)
    output = tmp_path_factory.mktemp("truth") / "out"
    selection = {"mode": "list", "frames": FRAMES}
    run(
        PreprocessConfig.model_validate(
            {"input": {"recording": truth.parent}, "output": output, "selection": selection}
        )
    )
    models, alphas, coverages = [], [], []
    for position, frame in enumerate(FRAMES):
        sample = read_sample(output / f"sample_{position:06d}")
        assert sample.frame_index == frame
        vertices, faces = read_truth.vertices(truth, frame)
        model_from_world = np.linalg.inv(sample.world_from_model)
        models.append(vertices @ model_from_world[:3, :3].T + model_from_world[:3, 3])
        alphas += [read_rgba(view.file)[..., 3] / np.float32(255) for view in sample.views]
        coverages += [true_coverage(view.camera, models[-1], faces) for view in sample.views]
    return models, alphas, coverages


def test_true_mesh_covers_the_written_alpha(comparison):
    _, alphas, coverages = comparison
    pairs = [(alpha > 0.5, coverage > 0.5) for alpha, coverage in zip(alphas, coverages, strict=True)]
    ious = [(found & expected).sum() / (found | expected).sum() for found, expected in pairs]
    assert np.mean(ious) >= 0.99
    assert min(ious) >= 0.985


def test_written_alpha_is_nowhere_shifted(comparison):
    _, alphas, coverages = comparison
    offsets = [offset_px(alpha, coverage) for alpha, coverage in zip(alphas, coverages, strict=True)]
    assert np.abs(offsets).max() < 0.05
    assert np.abs(np.mean(offsets, axis=0)).max() < 0.015


def test_true_animal_fills_the_box_and_is_centred(comparison):
    models, _, _ = comparison
    extents = [np.abs(model).max() for model in models]
    assert 0.88 < max(extents) < 0.91
    for model in models:
        assert np.abs(model.min(0) + model.max(0)).max() / 2 < 0.03
