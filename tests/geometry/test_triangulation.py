import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import cameras, vectors

from mouse_facelift.errors import DataError
from mouse_facelift.geometry import Camera
from mouse_facelift.geometry.triangulation import triangulate, triangulate_many


def ring(count=6):
    angles = np.arange(count) * 2 * np.pi / count
    return [
        Camera.look_at((320 * np.cos(a), 320 * np.sin(a), 90), (0, 0, 20), 1600, (1152, 1024)) for a in angles
    ]


def observe(point, views):
    return np.array([camera.project(point)[0] for camera in views])


def apart(views):
    """Rays that cross at a usable angle."""
    directions = [camera.center / np.linalg.norm(camera.center) for camera in views]
    return abs(directions[0] @ directions[1]) < 0.95


@given(st.lists(cameras(), min_size=2, max_size=5).filter(apart), vectors(40.0))
@settings(deadline=None)
def test_exact_observations_give_the_exact_point(views, point):
    found = triangulate(observe(point, views), views)
    np.testing.assert_allclose(found.point, point, atol=1e-5)
    np.testing.assert_allclose(found.residual_px, 0, atol=1e-5)


def test_noise_is_averaged():
    views, point = ring(), np.array([10.0, -20, 30])
    noise = np.random.default_rng(0).normal(0, 1, (200, 6, 2))
    errors = [np.linalg.norm(triangulate(observe(point, views) + n, views).point - point) for n in noise]
    assert np.mean(errors) < 0.25  # A pixel is 0.2 mm at this distance.


def test_one_wrong_view_hardly_moves_the_point_and_shows():
    views, point = ring(), np.array([10.0, -20, 30])
    pixels = observe(point, views)
    pixels[2] += (150, -80)
    found = triangulate(pixels, views)
    assert np.linalg.norm(found.point - point) < 1.5
    assert found.residual_px.argmax() == 2
    assert found.residual_px[2] > 140


def test_views_that_do_not_see_the_point_are_nan():
    views, point = ring(), np.array([5.0, 5, 5])
    pixels = observe(point, views)
    pixels[[1, 4]] = np.nan
    found = triangulate(pixels, views)
    np.testing.assert_allclose(found.point, point, atol=1e-8)
    assert np.isnan(found.residual_px[[1, 4]]).all()
    assert np.isfinite(found.residual_px[[0, 2, 3, 5]]).all()


def test_point_behind_a_camera_is_infinitely_wrong():
    views = ring(3)
    point = 2.5 * views[0].center  # Seen by the opposite cameras only; view 0 "sees" it in its back.
    residual = triangulate(observe(point, views), views).residual_px
    assert np.isinf(residual[0])


def test_one_view_is_not_enough():
    pixels = observe(np.zeros(3), ring())
    pixels[1:] = np.nan
    with pytest.raises(DataError, match="1 views see the point"):
        triangulate(pixels, ring())


def test_copies_of_one_camera_are_not_enough():
    views = [ring()[0]] * 3
    with pytest.raises(DataError, match="parallel"):
        triangulate(observe(np.zeros(3), views), views)


def test_many_points_at_once_are_the_points_one_by_one():
    rng, views = np.random.default_rng(1), ring(5)
    points = rng.normal(0, 40, (60, 3))
    pixels = np.stack([observe(point, views) for point in points]) + rng.normal(0, 2, (60, 5, 2))
    pixels[rng.random((60, 5)) < 0.2] = np.nan
    pixels[3, 1] += 300
    found = triangulate_many(pixels, views)
    seen = np.isfinite(pixels[..., 0]).sum(1)
    assert {1, 3, 5} <= set(seen)
    assert np.isnan(found.point[seen < 2]).all()
    assert np.isnan(found.residual_px[seen < 2]).all()
    for index in np.flatnonzero(seen >= 2):
        alone = triangulate(pixels[index], views)
        np.testing.assert_allclose(found.point[index], alone.point, atol=1e-9)
        np.testing.assert_allclose(found.residual_px[index], alone.residual_px, atol=1e-6)
