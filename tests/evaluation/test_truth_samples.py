"""Samples of truth: made of a synthetic recording, measured against, and even over a surface."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from mouse_facelift.config import load_config
from mouse_facelift.demo.config import RecordingConfig
from mouse_facelift.demo.recording import write_recording
from mouse_facelift.demo.truth import write_truth
from mouse_facelift.errors import DataError
from mouse_facelift.evaluation.run import run
from mouse_facelift.evaluation.surface import Surface
from mouse_facelift.evaluation.truth import even_points
from mouse_facelift.preprocess.config import PreprocessConfig
from mouse_facelift.preprocess.run import run as preprocess
from mouse_facelift.samples.format import Sample, read_list, read_rgba, read_sample

SIZE = 64


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("truth") / "recording"
    return write_recording(folder, RecordingConfig(frames=2, truth_every=2, width=192, height=170))


@pytest.fixture(scope="module")
def samples(recording: Path) -> list[Sample]:
    settings = (f"input.recording={recording}", f"output={recording.parent / 'samples'}", f"size={SIZE}")
    several = "selection={mode: interval, step: 1}"
    folder = preprocess(load_config(PreprocessConfig, None, [*settings, several, "split.val_share=0"]))
    return [read_sample(path) for path in read_list(folder / "data_train.txt")]


def test_the_demos_truth_shows_its_surface_where_it_is(recording, samples, tmp_path) -> None:
    truth = read_sample(write_truth(tmp_path / samples[0].folder.name, recording, samples[0], SIZE))
    assert [view.view_id for view in truth.views] == [6, 7, 8, 9]
    np.testing.assert_array_equal(truth.world_from_model, samples[0].world_from_model)
    points = Surface.read(truth).points.numpy().astype(float)
    for view in truth.views:
        alpha = read_rgba(view.file)[..., 3] > 127
        column, row = np.floor(view.camera.project(points)[0]).astype(int).T
        inside = (column >= 0) & (row >= 0) & (column < SIZE) & (row < SIZE)
        drawn = np.zeros_like(alpha)
        drawn[row[inside], column[inside]] = True
        # A point marks its whole pixel, of which the animal may cover less than half.
        touched = (read_rgba(view.file)[..., 3] > 0).astype(np.uint8)
        around = cv2.dilate(touched, np.ones((3, 3), np.uint8)) > 0
        assert (alpha & ~drawn).sum() < 0.02 * alpha.sum()
        assert (drawn & ~around).sum() < 0.02 * alpha.sum()


def test_novel_cameras_of_the_demo_are_measured_in_millimetres(
    recording, samples, gslrm, tmp_path, config
) -> None:
    folder = write_truth(tmp_path / "truth" / samples[0].folder.name, recording, samples[0], SIZE)
    out = run(config("protocols=[novel]", f"data={samples[0].folder}", f"truth={folder.parent}"))
    summary = json.loads((out / "summary.json").read_text())
    (group,) = summary["groups"]
    assert set(group["cameras"]) == {"6", "7", "8", "9"}
    assert group["metrics"]["psnr_outline_db"]["mean"] > group["metrics"]["psnr_white_db"]["mean"]


def test_a_frame_without_true_pictures_is_refused(recording, samples, tmp_path) -> None:
    with pytest.raises(DataError, match="frame0001_cam6"):
        write_truth(tmp_path / "sample_000001", recording, samples[1], SIZE)
    assert not (tmp_path / "sample_000001").exists()


def test_points_spread_evenly_over_the_surface() -> None:
    # Two triangles of areas 1 and 3 get a quarter and three quarters of the points.
    corners = np.array([[0, 0, 0], [2, 0, 0], [0, 1, 0], [6, 0, 1], [0, 1, 1], [0, 0, 1]], float)
    points = even_points(corners, np.array([[0, 1, 2], [3, 4, 5]]), seed=0)
    below = points[points[:, 2] < 0.5]
    assert len(below) / len(points) == pytest.approx(0.25, abs=1e-3)
    np.testing.assert_allclose(below.mean(axis=0), corners[:3].mean(axis=0), atol=0.02)
