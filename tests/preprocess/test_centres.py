"""The point of every frame that becomes the origin."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mouse_facelift.errors import DataError
from mouse_facelift.geometry import Camera
from mouse_facelift.preprocess.centres import frame_centers, keypoint_centers, smooth_centers
from mouse_facelift.preprocess.config import GeometryConfig


def ring(count=4):
    angles = 0.3 + np.arange(count) * 2 * np.pi / count
    sizes = [(640, 512), (1152, 1024), (800, 600)]
    return [
        Camera.look_at((320 * np.cos(a), 320 * np.sin(a), 90), (0, 0, 20), 900, sizes[i % 3])
        for i, a in enumerate(angles)
    ]


def observed(frame, center, point=(0, 0, 0)):
    return SimpleNamespace(frame=frame, center=np.array(center, float), point=np.array(point, float))


WALK = [observed(frame, (frame, 0, 30), (frame, 5, 20)) for frame in (2, 4, 9)]


def test_hull_and_triangulated_take_what_the_masks_say():
    for centre, expected in (("hull", (4, 0, 30)), ("triangulated", (4, 5, 20))):
        found = frame_centers(GeometryConfig(centre=centre), WALK, [0, 0, 0], ring())
        np.testing.assert_array_equal(found[1], expected)


def test_fixed_is_one_point_for_all_frames():
    found = frame_centers(GeometryConfig(centre="fixed", smoothing_frames=3), WALK, [0, 0, 1], ring())
    np.testing.assert_array_equal(found, [(4, 0, 30)] * 3)
    config = GeometryConfig(centre="fixed", fixed_centre_mm=(1, 2, 3))
    np.testing.assert_array_equal(frame_centers(config, WALK, [0, 0, 1], ring()), [(1, 2, 3)] * 3)


def keypoints(points, views, noise=0.0):
    """Exact pixel positions of [T, K, 3]. [V, T, K, 2]"""
    pixels = np.stack([camera.project(points)[0] for camera in views])
    return pixels + np.random.default_rng(0).normal(0, noise, pixels.shape)


def body(frames=12, count=8):
    rng = np.random.default_rng(3)
    return rng.normal(0, 25, (1, count, 3)) + rng.normal(0, 30, (frames, 1, 3))


@pytest.mark.parametrize("views", [2, 4, 16])
def test_key_points_give_their_mean(views):
    points, rig = body(), ring(views)
    if views == 2:
        rig = [ring(4)[0], ring(4)[1]]
    np.testing.assert_allclose(keypoint_centers(keypoints(points, rig), rig), points.mean(1), atol=1e-6)
    noisy = keypoint_centers(keypoints(points, rig, noise=1.5), rig)
    assert np.linalg.norm(noisy - points.mean(1), axis=1).max() < 1.0


def test_frames_are_those_of_the_recording_not_of_the_selection():
    points, rig = body(12), ring()
    found = frame_centers(GeometryConfig(centre="keypoints"), WALK, [0, 0, 0], rig, keypoints(points, rig))
    np.testing.assert_allclose(found, points[[2, 4, 9]].mean(1), atol=1e-6)


def test_a_view_that_sees_something_else_is_outvoted():
    points, rig = body(), ring(6)
    pixels = keypoints(points, rig)
    pixels[2, :, 3] += (80, -120)
    pixels[4, 5] = np.nan
    found = keypoint_centers(pixels, rig)
    assert np.linalg.norm(found - points.mean(1), axis=1).max() < 0.5


def test_key_points_that_the_views_disagree_about_do_not_count():
    points, rig = body(count=10), ring(4)
    pixels = keypoints(points, rig)
    pixels[:, 0, :3] += np.random.default_rng(0).normal(0, 200, (4, 3, 2))
    found = keypoint_centers(pixels, rig)
    np.testing.assert_allclose(found[0], points[0, 3:].mean(0), atol=1e-6)
    np.testing.assert_allclose(found[1:], points[1:].mean(1), atol=1e-6)


def test_frame_with_too_few_key_points_has_no_centre():
    points, rig = body(count=10), ring(4)
    pixels = keypoints(points, rig)
    pixels[:, 3, :6] = np.nan
    pixels[1:, 4] = np.nan
    pixels[:, 5] = np.nan
    pixels[:, 6, :5] = np.nan
    missing = np.isnan(keypoint_centers(pixels, rig)).any(1)
    assert list(np.flatnonzero(missing)) == [3, 4, 5]


def test_missing_key_points_are_an_error():
    with pytest.raises(DataError, match="keypoints"):
        frame_centers(GeometryConfig(centre="keypoints"), WALK, [0, 0, 0], ring())


def test_smoothing_removes_jitter():
    frames, same = list(range(0, 200, 5)), [0] * 40
    walk = np.outer(frames, (0.3, 0.1, 0))
    np.testing.assert_array_equal(smooth_centers(frames, same, walk, 0), walk)
    jitter = walk + np.random.default_rng(0).normal(0, 2, walk.shape)
    error = np.abs(smooth_centers(frames, same, jitter, 10) - walk).mean()
    assert error < 0.6 * np.abs(jitter - walk).mean()


@given(
    st.lists(st.integers(0, 300), min_size=1, max_size=40, unique=True).map(sorted),
    st.floats(0.5, 50),
    st.sets(st.integers(1, 300), max_size=3),
)
@settings(max_examples=60)
def test_a_steady_walk_stays_as_it_is_up_to_the_ends_and_between_jumps(frames, sigma, jumps):
    segments = [sum(frame >= jump for jump in jumps) for frame in frames]
    walk = np.outer(frames, (0.3, 0.1, -0.2)) + 1000 * np.array(segments)[:, None]
    np.testing.assert_allclose(smooth_centers(frames, segments, walk, sigma), walk, atol=1e-6)


def test_nothing_is_smoothed_across_a_jump():
    frames, segments = list(range(20)), [0] * 10 + [1] * 10
    centers = np.where(np.array(segments)[:, None] == 0, np.zeros(3), np.full(3, 50.0))
    np.testing.assert_allclose(smooth_centers(frames, segments, centers, 5), centers, atol=1e-9)
    assert np.abs(smooth_centers(frames, [0] * 20, centers, 5) - centers).max() > 5


def test_unknown_centres_stay_unknown_and_spoil_no_others():
    frames = list(range(20))
    walk = np.outer(frames, (0.3, 0.1, 0.0))
    walk[7] = np.nan
    smooth = smooth_centers(frames, [0] * 20, walk, 3)
    assert list(np.flatnonzero(np.isnan(smooth).any(1))) == [7]
    np.testing.assert_allclose(np.delete(smooth, 7, 0), np.delete(walk, 7, 0), atol=1e-9)
