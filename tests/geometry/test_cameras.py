"""The four legal operations, as properties: where a point goes is where its pixel goes."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from strategies import cameras, points, rotation, similarities, vectors

from mouse_facelift.errors import CalibrationError
from mouse_facelift.geometry import (
    Camera,
    Similarity,
    direction,
    look_at_rotation,
    similarity_scale,
    transform_pixels,
)

PIXELS = 1e-6


@given(cameras(), points(), st.floats(0.1, 4), st.floats(0.1, 4), vectors(500))
def test_affine_moves_pixels_and_projection_alike(camera, X, sx, sy, b):
    moved, H = camera.affine([[sx, 0.1], [0, sy]], b[:2], 300, 200)
    np.testing.assert_allclose(
        moved.project(X)[0], transform_pixels(H, camera.project(X)[0]), rtol=0, atol=PIXELS
    )


@given(cameras(), points(), st.floats(100, 3000), vectors(0.4))
def test_reaiming_moves_pixels_and_projection_alike(camera, X, focal, turn):
    K = np.array([[focal, 0, 256], [0, focal, 256], [0, 0, 1]])
    moved, H = camera.reaim(K, rotation(turn) @ camera.R, 512, 512)
    np.testing.assert_allclose(moved.center, camera.center, atol=1e-9)
    np.testing.assert_allclose(
        moved.project(X)[0], transform_pixels(H, camera.project(X)[0]), rtol=1e-9, atol=PIXELS
    )


@given(cameras(), points(), similarities())
def test_similarity_moves_the_world_and_never_a_pixel(camera, X, change):
    moved = camera.similarity(change)
    np.testing.assert_array_equal(moved.K, camera.K)
    np.testing.assert_allclose(moved.project(change.apply(X))[0], camera.project(X)[0], rtol=0, atol=PIXELS)
    np.testing.assert_allclose(
        moved.project(change.apply(X))[1], change.scale * camera.project(X)[1], rtol=1e-9
    )


@st.composite
def operations(draw):
    """A function (camera, points) -> (camera, points, homography): one of the legal operations."""
    kind = draw(st.sampled_from(["affine", "resize", "reaim", "similarity"]))
    a, b, turn = draw(st.floats(0.3, 2)), draw(st.floats(0.3, 2)), draw(vectors(0.1))
    # A world that shrinks again and again beside its origin leaves no digits.
    shift, change = draw(vectors(200)), draw(similarities().filter(lambda change: change.scale > 0.005))

    def apply(camera, X):
        if kind == "similarity":
            return camera.similarity(change), change.apply(X), np.eye(3)
        if kind == "reaim":
            K = np.array([[900 * a, 0, 250 + shift[0]], [0, 900 * b, 250], [0, 0, 1]])
            return _with_points(camera.reaim(K, rotation(turn) @ camera.R, 512, 512), X)
        if kind == "resize":
            return _with_points(camera.resized(int(300 * a), int(300 * b)), X)
        return _with_points(camera.affine([[a, 0.2], [0, b]], shift[:2], 320, 240), X)

    return apply


def _with_points(moved, X):
    return moved[0], X, moved[1]


@given(cameras(), points(), st.lists(operations(), min_size=1, max_size=3))
@settings(max_examples=200)
def test_any_chain_of_the_operations_moves_pixels_and_projection_alike(camera, X, chain):
    pixels, _ = camera.project(X)
    for apply in chain:
        camera, X, H = apply(camera, X)
        pixels = transform_pixels(H, pixels)
    projected, depth = camera.project(X)
    assume((np.abs(projected) < 1e4).all() and (depth > 0).all())
    np.testing.assert_allclose(projected, pixels, rtol=0, atol=PIXELS)


@given(similarities(), points())
def test_similarity_matrices_are_inverse(change, X):
    np.testing.assert_allclose(change.world_from_model @ change.model_from_world, np.eye(4), atol=1e-9)
    homogeneous = np.concatenate([X, np.ones((len(X), 1))], axis=1)
    np.testing.assert_allclose((homogeneous @ change.model_from_world.T)[:, :3], change.apply(X), atol=1e-9)


@given(similarities(), points())
def test_similarity_comes_back_from_its_matrix_and_has_a_way_back(change, X):
    again = Similarity.from_world_from_model(change.world_from_model)
    np.testing.assert_allclose(again.apply(X), change.apply(X), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(change.inverse.apply(change.apply(X)), X, rtol=1e-9, atol=1e-9)
    assert similarity_scale(change.world_from_model) == pytest.approx(1 / change.scale)


def test_directions_turn_counter_clockwise_and_rise():
    sides = direction(np.radians([0, 90, 270]), 0.0)
    np.testing.assert_allclose(sides, [(1, 0, 0), (0, 1, 0), (0, -1, 0)], atol=1e-15)
    np.testing.assert_allclose(direction(1.0, np.radians(90)), (0, 0, 1), atol=1e-15)
    np.testing.assert_allclose(direction(0.0, np.radians(-30)), (0.75**0.5, 0, -0.5))


@given(cameras(), points(), st.integers(50, 2000), st.integers(50, 2000))
def test_resizing_scales_about_the_picture_corner_not_the_first_pixel_centre(camera, X, width, height):
    resized, _ = camera.resized(width, height)
    factor = width / camera.width, height / camera.height
    np.testing.assert_allclose(resized.project(X)[0], camera.project(X)[0] * factor, rtol=0, atol=PIXELS)


@given(cameras())
def test_pose_and_its_inverse_agree(camera):
    np.testing.assert_allclose(camera.w2c @ camera.c2w, np.eye(4), atol=1e-9)
    np.testing.assert_allclose(camera.R @ camera.center + camera.t, 0, atol=1e-9)


@given(vectors(1.0).filter(lambda v: np.linalg.norm(v[:2]) > 0.1), vectors(50))
@settings(max_examples=50)
def test_look_at_puts_the_target_in_the_middle_and_up_at_the_top(direction, target):
    camera = Camera.look_at(target - 300 * direction, target, 500.0, (640, 480))
    pixel, depth = camera.project(target)
    np.testing.assert_allclose(pixel, (320, 240), atol=1e-6)
    assert depth > 0
    assert camera.project(target + np.array([0, 0, 1]))[0][1] < 240
    assert np.linalg.det(camera.R) == pytest.approx(1)


def test_looking_along_up_is_refused():
    with pytest.raises(CalibrationError, match="parallel"):
        look_at_rotation((0, 0, -1))


@pytest.mark.parametrize(
    ("azimuth", "center"),
    [
        (0, (2.7, 0, 0)),
        (90, (0, 2.7, 0)),
        (180, (-2.7, 0, 0)),
        (225, (-1.909, -1.909, 0)),
        (270, (0, -2.7, 0)),
    ],
)
def test_azimuth_counts_counter_clockwise_from_x(azimuth, center):
    assert Camera.look_at(center, (0, 0, 0), 549, 512).azimuth_deg == pytest.approx(azimuth)


@given(cameras())
@settings(max_examples=20)
def test_mirror_shear_and_transposed_intrinsics_are_refused(camera):
    with pytest.raises(CalibrationError, match="mirror"):
        Camera.from_rt(camera.K, np.diag([1, 1, -1]) @ camera.R, camera.t, 10, 10)
    with pytest.raises(CalibrationError, match="orthonormal"):
        Camera.from_rt(camera.K, camera.R @ np.diag([1, 1, 1.01]), camera.t, 10, 10)
    with pytest.raises(CalibrationError, match="transposed"):
        Camera.from_rt(camera.K.T, camera.R, camera.t, 10, 10)
