import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mouse_facelift.inference.config import SequenceCameraConfig
from mouse_facelift.inference.virtual_cameras import FILLED, aimed_cameras, smoothed


def boxes_along(path: np.ndarray, half: float) -> np.ndarray:
    corners = np.stack(np.meshgrid(*[(-half, half)] * 3, indexing="ij"), -1).reshape(8, 3)
    return path[:, None] + corners


@given(
    elevation=st.floats(-80, 80),
    fov=st.floats(10, 100),
    azimuths=st.lists(st.floats(-720, 720), min_size=1, max_size=6),
    half=st.floats(5, 80),
)
def test_every_box_is_in_the_picture_and_one_just_fills_it(
    elevation: float, fov: float, azimuths: list[float], half: float
) -> None:
    path = np.cumsum(np.full((len(azimuths), 3), (9.0, -4.0, 1.0)), axis=0)
    config = SequenceCameraConfig(elevation_deg=elevation, fov_deg=fov)
    targets = np.broadcast_to(path.mean(0), path.shape)
    cameras = aimed_cameras(targets, np.array(azimuths), boxes_along(path, half), config, 100)
    off_center = []
    for camera, corners in zip(cameras, boxes_along(path, half), strict=True):
        pixels, depth = camera.project(corners)
        assert depth.min() > 0
        off_center.append(np.abs(pixels - 50).max())
    assert max(off_center) == pytest.approx(50 * FILLED, rel=1e-6)
    distances = [np.linalg.norm(camera.center - targets[0]) for camera in cameras]
    assert np.ptp(distances) < 1e-6


def test_cameras_stand_where_they_are_told() -> None:
    config = SequenceCameraConfig(elevation_deg=0.0, distance_mm=200.0)
    boxes = boxes_along(np.array([[10.0, 20, 30]]), 10)
    (camera,) = aimed_cameras(np.array([[10.0, 20, 30]]), np.array([90.0]), boxes, config, 64)
    assert np.allclose(camera.center, (10, 220, 30))
    assert np.allclose(camera.project((10.0, 20, 30))[0], 32)


def test_a_path_is_smoothed_by_recorded_frames_and_not_by_samples() -> None:
    path = np.array([[0.0, 0, 0], [10, 0, 0], [0, 0, 0]])
    near, far = smoothed(path, [0, 1, 2], 1.0), smoothed(path, [0, 100, 200], 1.0)
    assert np.allclose(far, path)
    assert 0 < near[0, 0] < near[1, 0] < 10
    assert smoothed(path, [0, 1, 2], 0) is path


def test_a_resting_animal_rests_after_smoothing() -> None:
    path = np.full((5, 3), 7.0)
    assert np.allclose(smoothed(path, [0, 1, 2, 8, 9], 3.0), path)
