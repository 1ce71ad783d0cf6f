"""Pictures go where their cameras say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mouse_facelift.errors import DataError
from mouse_facelift.geometry import Camera, Similarity, look_at_rotation
from mouse_facelift.preprocess.warp import View


def camera(width=400, height=320, focal=600.0):
    found = Camera.look_at((300, -80, 120), (5, 3, 10), focal, (width, height))
    K = found.K + np.array([[0, 0, 7.3], [0, 2.0, -4.1], [0, 0, 0]])
    return Camera(K, found.w2c, width, height)


def dot_view(source, point, sigma=4.0):
    """A soft dot where `point` projects, as coverage and as colour."""
    u, v = source.project(point)[0]
    x, y = np.meshgrid(np.arange(source.width) + 0.5, np.arange(source.height) + 0.5)
    dot = np.exp(-0.5 * ((x - u) ** 2 + (y - v) ** 2) / sigma**2)
    image = np.repeat((255 * dot)[..., None], 3, -1).round().astype(np.uint8)
    return View(image, np.where(dot > 1e-4, dot, 0).astype(np.float32), source)


def center_of(weights):
    x, y = np.arange(weights.shape[1]) + 0.5, np.arange(weights.shape[0]) + 0.5
    return np.array([weights.sum(0) @ x, weights.sum(1) @ y]) / weights.sum()


def reaim_at(view, point, focal, size):
    K = np.array([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]])
    return view.reaim(K, look_at_rotation(point - view.camera.center), size, size)


def grid(view):
    return np.diag([0.5, 0.7]), (11.3, -7.9), view.camera.width, view.camera.height


OPERATIONS = {
    "reaim_larger": lambda view, point: reaim_at(view, point + 20, 1100.0, 512),
    "reaim_same": lambda view, point: reaim_at(view, point + 20, 600.0, 301),
    "reaim_half": lambda view, point: reaim_at(view, point + 20, 290.0, 160),
    "reaim_quarter": lambda view, point: reaim_at(view, point + 20, 131.0, 97),
    "crop_larger": lambda view, point: view.crop(101.7, 60.2, 180.5, 333),
    "crop_smaller": lambda view, point: view.crop(30.3, 20.6, 270.9, 100),
    "crop_over_the_edge": lambda view, point: view.crop(-50.5, -60.25, 401.0, 200),
    "stretch": lambda view, point: view.affine(*grid(view)),
}


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("offset", [(0, 0, 0), (0, 9.37, -4.21), (3.1, -11.7, 6.6)])
def test_dot_lands_where_the_camera_says(operation, offset):
    point = np.array([5.0, 3, 10]) + offset
    moved = OPERATIONS[operation](dot_view(camera(), point), point)
    np.testing.assert_allclose(center_of(moved.alpha), moved.camera.project(point)[0], atol=0.05)
    colour = moved.rgba(0)[..., 0].astype(float) * moved.alpha
    np.testing.assert_allclose(center_of(colour), moved.camera.project(point)[0], atol=0.05)


@given(st.floats(0.3, 3), st.floats(-30, 30), st.floats(-30, 30), st.floats(0.02, 3), st.integers(64, 300))
@settings(max_examples=40, deadline=None)
def test_dot_lands_where_the_camera_says_whatever_the_aim(zoom, dy, dz, scale, size):
    point = np.array([5.0, 3, 10])
    K = np.array([[600 * zoom, 0, size / 2], [0, 600 * zoom, size / 2], [0, 0, 1]])
    source = dot_view(camera(), point, 3.0)
    # The aim stays near enough for the whole dot to be seen.
    limit = 0.25 * size / zoom / 600 * 320 / 40
    aim = look_at_rotation(point + np.array([0, dy, dz]) * min(limit, 1) - source.camera.center)
    moved = source.reaim(K, aim, size, size).similarity(Similarity(scale, np.eye(3), point))
    if moved.clipped_share == 0:
        np.testing.assert_allclose(center_of(moved.alpha), moved.camera.project(np.zeros(3))[0], atol=0.05)


def test_identity_changes_nothing():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (64, 80, 3), dtype=np.uint8)
    alpha = np.zeros((64, 80), np.float32)
    alpha[10:50, 20:60] = 1
    moved = View(image, alpha, camera(80, 64)).affine(np.eye(2), (0, 0), 80, 64)
    np.testing.assert_array_equal(moved.alpha, alpha)
    np.testing.assert_array_equal(moved.image[alpha > 0], image[alpha > 0])
    assert moved.outside_share == 0


def test_shrinking_averages_area_and_keeps_the_sum():
    alpha = (np.random.default_rng(1).random((240, 240)) < 0.3).astype(np.float32)
    alpha[:6] = alpha[-6:] = alpha[:, :6] = alpha[:, -6:] = 0
    image = np.zeros((240, 240, 3), np.uint8)
    moved = View(image, alpha, camera(240, 240)).crop(0, 0, 240, 60)
    np.testing.assert_allclose(moved.alpha, alpha.reshape(60, 4, 60, 4).mean((1, 3)), atol=1e-5)
    odd = View(image, alpha, camera(240, 240)).crop(0, 0, 240, 71)
    assert odd.alpha.sum() * (240 / 71) ** 2 == pytest.approx(alpha.sum(), rel=0.01)


@pytest.mark.parametrize("size", [50, 77, 200, 333])
def test_background_never_bleeds_into_the_outline(size):
    image = np.full((160, 160, 3), 255, np.uint8)
    alpha = np.zeros((160, 160), np.float32)
    alpha[40:110, 50:120] = 1
    image[alpha > 0] = (10, 90, 200)
    rgba = View(image, alpha, camera(160, 160)).crop(0, 0, 160, size).rgba()
    covered = rgba[..., 3] > 0
    assert (rgba[covered][:, :3] == (10, 90, 200)).all()
    assert (rgba[~covered] == (255, 255, 255, 0)).all()


def test_background_colour_is_a_choice():
    view = View(np.full((8, 8, 3), 99, np.uint8), np.zeros((8, 8), np.float32), camera(8, 8))
    assert (view.rgba(30)[..., :3] == 30).all()


def test_what_falls_outside_the_source_is_transparent_and_counted():
    view = View(np.full((100, 100, 3), 50, np.uint8), np.ones((100, 100), np.float32), camera(100, 100))
    moved = view.crop(-50, 0, 200, 100)
    assert moved.outside_share == pytest.approx(1 - 0.5 * 0.5)
    assert moved.alpha[:, :25].max() == 0
    assert moved.alpha[:, 75:].max() == 0
    assert moved.alpha[1:49, 26:74].min() > 0.99
    assert moved.clipped_share == 0


def test_animal_outside_the_new_picture_is_counted():
    alpha = np.zeros((100, 100), np.float32)
    alpha[20:40, 10:90] = 1
    view = View(np.zeros((100, 100, 3), np.uint8), alpha, camera(100, 100))
    assert view.crop(0, 0, 50, 64).clipped_share == pytest.approx(0.5)
    assert view.crop(0, 0, 100, 64).clipped_share == 0
    gone = view.crop(0, 60, 40, 64)
    assert gone.clipped_share == 1
    assert gone.alpha.max() == 0


def test_similarity_keeps_the_pixels_and_intrinsics():
    view = dot_view(camera(), np.array([5.0, 3, 10]))
    moved = view.similarity(Similarity(0.01, np.eye(3), np.array([1.0, 2, 3])))
    assert moved.image is view.image
    np.testing.assert_array_equal(moved.camera.K, view.camera.K)


def test_a_picture_of_another_size_than_its_camera_is_refused():
    with pytest.raises(DataError, match="the camera expects"):
        View(np.zeros((10, 12, 3), np.uint8), np.zeros((10, 12), np.float32), camera(10, 12))
