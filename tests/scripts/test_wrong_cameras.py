"""How far cameras are from those of their pixels: nothing for sound samples, much for the old recipe's."""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from script_modules import import_script

from mouse_facelift.demo.config import RecordingConfig
from mouse_facelift.samples.format import Sample, read_rgba

SIZE = 64


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return import_script("studies", "wrong_cameras")


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = RecordingConfig(frames=2, fps=1, truth_every=1, width=288, height=256)
    return import_script("studies", "study_data").record(tmp_path_factory.mktemp("rec") / "recording", config)


@pytest.fixture(scope="module")
def crop(recording: Path) -> list[Sample]:
    settings = ["selection={mode: interval, step: 1}", "split.val_share=0", "geometry.virtual_camera=crop"]
    data = import_script("studies", "study_data")
    return data.prepare(recording, recording.parent / "crop", SIZE, settings)["train"]


def test_sound_samples_have_the_cameras_of_their_pixels(
    script: ModuleType, recording: Path, crop: list[Sample]
) -> None:
    for sample in crop:
        errors = script.camera_errors(recording, sample, sample)
        assert errors.written_px < 0.01 and errors.best_px < 0.01
        assert errors.alpha_iou > 0.97
        np.testing.assert_allclose(errors.world_from_model, sample.world_from_model, atol=0.05)


def test_the_old_recipe_keeps_pixels_and_no_shape_explains_them(
    script: ModuleType, recording: Path, crop: list[Sample], tmp_path: Path
) -> None:
    for sample, old in zip(crop, script.overwrite_cameras(tmp_path, crop), strict=True):
        for before, after in zip(sample.views, old.views, strict=True):
            assert (read_rgba(before.file) == read_rgba(after.file)).all()
            assert after.camera.K[0, 0] / SIZE == pytest.approx(0.5 / np.tan(np.radians(25)), rel=1e-4)
            assert tuple(after.camera.K[:2, 2]) == (SIZE / 2, SIZE / 2)
            np.testing.assert_allclose(after.camera.R, before.camera.R, atol=1e-12)
        errors = script.camera_errors(recording, old, sample)
        assert errors.written_px > 3 and 1 < errors.best_px < errors.written_px
        assert errors.alpha_iou < 0.6


def test_the_old_world_is_a_sound_one_but_for_its_size(
    script: ModuleType, crop: list[Sample], tmp_path: Path
) -> None:
    old = script.overwrite_cameras(tmp_path, crop)
    distances = [np.linalg.norm(view.camera.center) for sample in old for view in sample.views]
    assert np.mean(distances) == pytest.approx(2.7)
    for before, after in zip(crop, old, strict=True):
        for one, other in zip(before.views, after.views, strict=True):
            places = [
                np.array(sample.world_from_model) @ np.append(view.camera.center, 1)
                for sample, view in ((before, one), (after, other))
            ]
            np.testing.assert_allclose(*places, atol=1e-6)


def test_best_similarity_undoes_a_similarity(script: ModuleType) -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(20, 3))
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    turn *= np.sign(np.linalg.det(turn))
    matrix = script.best_similarity(points, 70 * points @ turn.T + (1, 2, 3))
    np.testing.assert_allclose(matrix[:3], np.column_stack([70 * turn, (1, 2, 3)]), atol=1e-9)


def test_best_similarity_does_not_mirror(script: ModuleType) -> None:
    points = np.random.default_rng(1).normal(size=(20, 3))
    assert np.linalg.det(script.best_similarity(points, points * (-1, 1, 1))[:3, :3]) > 0
