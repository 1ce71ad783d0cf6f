import numpy as np
import pytest

from mouse_facelift.geometry import Camera, Similarity
from mouse_facelift.preprocess.config import GeometryConfig
from mouse_facelift.preprocess.normalize import (
    HALF_FIELD,
    aim,
    choose_scale,
    normalized_view,
    smooth_centers,
)
from mouse_facelift.preprocess.survey import Observation
from mouse_facelift.preprocess.warp import View

CENTER = np.array([60.0, 40, 20])


def source_camera():
    camera = Camera.look_at((350, -40, 130), (40, 60, 30), 800.0, (576, 512))
    return Camera(camera.K + np.array([[0, 0, 20.5], [0, 3, -11], [0, 0, 0]]), camera.w2c, 576, 512)


def source_view():
    camera = source_camera()
    alpha = np.zeros((512, 576), np.float32)
    u, v = np.round(camera.project(CENTER)[0]).astype(int)
    alpha[v - 60 : v + 60, u - 40 : u + 40] = 1
    return View(np.full((512, 576, 3), 80, np.uint8), alpha, camera)


def observation(half_extent, center=CENTER):
    corners = np.stack(np.meshgrid(*[(-1, 1)] * 3), -1).reshape(-1, 3) * half_extent
    none = np.empty(0)
    return Observation(0, (), center, center + corners, none, none, ())


def test_animal_is_at_the_origin_and_in_the_middle_of_a_lookat_view():
    similarity = Similarity(0.012, np.eye(3), CENTER)
    view = normalized_view(source_view(), similarity, GeometryConfig(), 512)
    np.testing.assert_allclose(view.camera.project(np.zeros(3))[0], (256, 256), atol=1e-9)
    np.testing.assert_array_equal(view.camera.K[:2, 2], (256, 256))
    assert view.camera.K[0, 0] == view.camera.K[1, 1]
    rows, columns = np.nonzero(view.alpha > 0.5)
    assert abs(columns.mean() - 255.5) < 4
    assert abs(rows.mean() - 255.5) < 4


@pytest.mark.parametrize("size", [256, 512])
def test_per_view_focal_length_shows_the_box_as_from_the_reference_distance(size):
    similarity = Similarity(0.0123, np.eye(3), CENTER)
    camera = normalized_view(source_view(), similarity, GeometryConfig(), size).camera
    distance = np.linalg.norm(camera.center)
    assert distance == pytest.approx(0.0123 * np.linalg.norm(source_camera().center - CENTER))
    assert camera.K[0, 0] == pytest.approx(548.9937744 * size / 512 * distance / 2.7)
    right = camera.R[0] * HALF_FIELD
    assert camera.project(right)[0][0] == pytest.approx(size)


def test_fixed_focal_length_is_the_published_one():
    config = GeometryConfig(focal="fixed")
    camera = normalized_view(source_view(), Similarity(0.01, np.eye(3), CENTER), config, 512).camera
    assert camera.K[0, 0] == 548.9937744


def test_crop_keeps_the_orientation_and_tracks_the_principal_point():
    similarity = Similarity(0.012, np.eye(3), CENTER)
    view = normalized_view(source_view(), similarity, GeometryConfig(virtual_camera="crop"), 300)
    source = source_camera()
    np.testing.assert_allclose(view.camera.R, source.R)
    assert view.camera.K[0, 0] / view.camera.K[1, 1] == pytest.approx(source.K[0, 0] / source.K[1, 1])
    np.testing.assert_allclose(view.camera.project(np.zeros(3))[0], (150, 150), atol=1e-9)
    assert abs(view.camera.K[0, 2] - 150) > 1


def test_camera_straight_above_keeps_its_own_up():
    above = Camera.look_at((0, 0, 300), (0, 0, 0), 500, 200, up=(0, 1, 0))
    R = aim(above, np.array([1.0, 2, 0]))
    assert R[1] @ above.R[1] > 0.99


def test_fit_fills_the_box_exactly():
    cameras = [Camera.look_at((3000, 0, 0), CENTER, 800, 512)]  # Far away: no picture is the limit.
    items = [observation((20.0, 50, 30)), observation((60.0, 10, 10)), observation((40.0, 40, 40))]
    centers = np.stack([item.center for item in items])
    scale, cut = choose_scale(GeometryConfig(fit_percentile=100), items, centers, cameras)
    assert scale == pytest.approx(0.9 / 60)
    assert cut == 0


def test_fit_ignores_rare_giants_and_counts_them():
    cameras = [Camera.look_at((3000, 0, 0), CENTER, 800, 512)]
    items = [observation((30.0, 30, 30))] * 199 + [observation((300.0, 30, 30))]
    centers = np.stack([item.center for item in items])
    scale, cut = choose_scale(GeometryConfig(), items, centers, cameras)
    assert scale == pytest.approx(0.9 / 30)
    assert cut == 1


def test_fit_keeps_the_animal_inside_every_picture():
    camera = Camera.look_at((180, 0, 20), CENTER, 800, (576, 512))
    item = observation((70.0, 70, 20))
    config = GeometryConfig(fit_percentile=100)
    scale, cut = choose_scale(config, [item], CENTER[None], [camera])
    assert scale < 0.9 / 70
    assert cut == 0
    change = Similarity(scale, np.eye(3), CENTER)
    alpha = np.zeros((512, 576), np.float32)
    view = normalized_view(View(np.zeros((512, 576, 3), np.uint8), alpha, camera), change, config, 512)
    pixels, _ = view.camera.project(change.apply(item.outline))
    assert pixels.min() >= 0.01 * 512 - 1e-6
    assert pixels.max() <= 0.99 * 512 + 1e-6
    assert min(pixels.min(), 512 - pixels.max()) == pytest.approx(0.01 * 512)


def test_mean_distance_is_the_reference_distance():
    cameras = [
        Camera.look_at(CENTER + np.array(offset), CENTER, 800, 512) for offset in ((200, 0, 0), (0, 400, 0))
    ]
    scale, _ = choose_scale(
        GeometryConfig(scale="mean_distance"), [observation((30.0, 30, 30))], CENTER[None], cameras
    )
    assert scale == pytest.approx(2.7 / 300)


def test_number_is_taken_and_what_it_cuts_is_counted():
    cameras = [Camera.look_at((3000, 0, 0), CENTER, 800, 512)]
    items = [observation((30.0, 30, 30)), observation((50.0, 30, 30))]
    scale, cut = choose_scale(GeometryConfig(scale=0.02), items, np.stack([CENTER] * 2), cameras)
    assert (scale, cut) == (0.02, 1)


def test_smoothing_removes_jitter_and_keeps_a_steady_walk():
    frames = list(range(0, 200, 5))
    walk = np.stack([np.array([0.3, 0.1, 0]) * frame for frame in frames])
    np.testing.assert_array_equal(smooth_centers(frames, walk, 0), walk)
    smooth = smooth_centers(frames, walk, 10)
    np.testing.assert_allclose(smooth[10:-10], walk[10:-10], atol=1e-6)
    jitter = walk + np.random.default_rng(0).normal(0, 2, walk.shape)
    error = np.abs(smooth_centers(frames, jitter, 10) - walk)[10:-10].mean()
    assert error < 0.6 * np.abs(jitter - walk)[10:-10].mean()
