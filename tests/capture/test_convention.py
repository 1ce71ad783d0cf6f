import logging
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rig_writers import (
    ARENA,
    FIXED,
    FREE,
    MEANINGS,
    SIZE,
    centroids_of,
    config_of,
    random_rig,
    write_mat,
    write_own,
    write_pickle,
)

from mouse_facelift.capture.calibration import choose_convention, read_rig
from mouse_facelift.capture.centroid_residuals import residual_shares
from mouse_facelift.capture.convention import CLEAR_DOCUMENTED, HYPOTHESES
from mouse_facelift.errors import CalibrationError
from mouse_facelift.geometry import Camera
from mouse_facelift.geometry.triangulation import triangulate_many

SIZES = [SIZE] * 6


@pytest.fixture
def rig_of(tmp_path):
    """Write a rig as a file of R, T, K, and read it."""

    def rig_of(cameras, writer=write_pickle, **how):
        name = writer(tmp_path, cameras, **how)
        return read_rig(config_of(tmp_path, name), range(len(cameras)), [SIZE] * len(cameras))

    return rig_of


def decide(rig, pixels):
    return choose_convention(rig, [SIZE] * len(rig.cameras), pixels, range(len(pixels)))


def refused(rig, pixels):
    with pytest.raises(CalibrationError) as error:
        decide(rig, pixels)
    assert str(rig.path) in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("K_transposed", [False, True])
@pytest.mark.parametrize("meaning", MEANINGS)
@pytest.mark.parametrize("kind", FREE)
def test_every_convention_is_found_in_every_format(tmp_path, kind, meaning, K_transposed):
    cameras = random_rig(11)
    name = FREE[kind](tmp_path, cameras, meaning=meaning, K_transposed=K_transposed)
    calibration = decide(read_rig(config_of(tmp_path, name), range(6), SIZES), centroids_of(cameras))
    for found, true in zip(calibration.cameras, cameras, strict=True):
        np.testing.assert_allclose(found.K, true.K, atol=1e-6)
        np.testing.assert_allclose(found.w2c, true.w2c, atol=1e-6)
    assert calibration.convention.endswith("K transposed" if K_transposed else "K as stored")
    assert calibration.convention.startswith(list(HYPOTHESES)[list(MEANINGS).index(meaning)])


@given(seed=st.integers(0, 10_000), count=st.integers(4, 8), meaning=st.sampled_from(sorted(MEANINGS)))
@settings(max_examples=40, deadline=None)
def test_random_rigs_are_never_taken_for_something_else(tmp_path_factory, seed, count, meaning):
    folder, cameras = tmp_path_factory.mktemp("rig"), random_rig(seed, count)
    name = write_pickle(folder, cameras, meaning=meaning)
    rig = read_rig(config_of(folder, name), range(count), [SIZE] * count)
    calibration = decide(rig, centroids_of(cameras, seed=seed, noise_px=10))
    for found, true in zip(calibration.cameras, cameras, strict=True):
        np.testing.assert_allclose(found.w2c, true.w2c, atol=1e-6)


def test_the_evidence_lists_every_hypothesis_the_chosen_one_first_and_is_logged(rig_of, caplog):
    caplog.set_level(logging.INFO)
    cameras = random_rig()
    calibration = decide(rig_of(cameras), centroids_of(cameras))
    best, *others, impossible = calibration.evidence
    assert best.convention == calibration.convention == "x = R X + T, K as stored"
    assert len(others) == 3
    assert best.residual_share < 0.01 < min(other.residual_share for other in others)
    assert {entry.frames for entry in (best, *others)} == {24}
    assert impossible.convention == "K transposed"
    assert not impossible.possible
    assert "last column of camera 0's K is" in impossible.reason
    assert "x = R X + T, K as stored. The masks' centroids of 24 frames agree to" in caplog.text


def test_a_transposed_K_shows_in_its_last_row(rig_of):
    cameras = random_rig()
    calibration = decide(rig_of(cameras, K_transposed=True), centroids_of(cameras))
    assert calibration.evidence[-1].convention == "K as stored"
    assert "last row of camera 0's K is" in calibration.evidence[-1].reason


def test_masks_missing_in_some_views_are_no_obstacle(rig_of):
    cameras = random_rig()
    pixels = centroids_of(cameras, 40)
    pixels[:15, 2] = np.nan
    pixels[3, :5] = np.nan
    assert decide(rig_of(cameras), pixels).evidence[0].frames == 25
    pixels[15:, 4] = np.nan
    assert decide(rig_of(cameras), pixels).evidence[0].frames == 39


def test_a_camera_whose_masks_are_all_empty_is_left_to_the_survey(rig_of):
    cameras = random_rig()
    pixels = centroids_of(cameras)
    pixels[:, 3] = np.nan
    assert decide(rig_of(cameras), pixels).convention.startswith("x = R X + T")


@pytest.mark.parametrize("count, frames", [(4, 1), (3, 2), (2, 5)])
def test_few_positions_decide_only_where_many_cameras_see_them(rig_of, count, frames):
    cameras = random_rig(2, count)
    pixels = centroids_of(cameras, frames, noise_px=1)
    assert decide(rig_of(cameras), pixels).convention.startswith("x = R X + T,")
    pixels[-1, 0] = np.nan
    assert "too few to decide" in refused(rig_of(cameras), pixels)


def test_an_animal_that_keeps_still_is_one_position_however_many_frames_there_are(rig_of):
    """Two rays nearly meet under many rigs; the same two rays 24 times are no better evidence."""
    cameras = random_rig(2, 2)
    pixels = np.repeat(centroids_of(cameras, 1), 24, axis=0)
    pixels += np.random.default_rng(0).normal(0, 3, pixels.shape)
    assert "24 show the animal in at least two masks, at 1 positions" in refused(rig_of(cameras), pixels)


def test_no_masks_at_all(rig_of, tmp_path):
    cameras = random_rig()
    assert "0 show the animal" in refused(rig_of(cameras), np.full((24, 6, 2), np.nan))
    assert "no frames" in refused(rig_of(cameras), np.zeros((0, 6, 2)))
    assert "0 show the animal" in refused(rig_of(cameras, write_own), np.full((24, 6, 2), np.nan))


def test_a_fixed_convention_needs_little_evidence_but_some(rig_of):
    cameras = random_rig(2, 2)
    calibration = decide(rig_of(cameras, write_own), centroids_of(cameras, 1))
    assert [entry.possible for entry in calibration.evidence] == [True, False]


def test_two_cameras_that_fit_two_conventions_are_refused_not_guessed(rig_of):
    refusals = []
    for seed in range(80):
        cameras = random_rig(seed, 6)[:2]
        pixels = centroids_of(cameras, seed=seed, noise_px=15)
        # Each view sees another part of the animal, always the same one.
        pixels += np.random.default_rng(seed).normal(0, 15, (2, 2))
        try:
            found = decide(rig_of(cameras), pixels)
        except CalibrationError as error:
            refusals.append(str(error))
        else:
            np.testing.assert_allclose(found.cameras[1].w2c, cameras[1].w2c)
    assert 0 < len(refusals) < 8
    assert all("expected one clear winner" in text and "cameras .json" in text for text in refusals)
    assert "x = R X + T: " in refusals[0] and "x = R' X + T (R transposed): " in refusals[0]


def test_a_convention_that_makes_the_rig_absurdly_small_is_out(rig_of):
    """Seen from their own axes, all cameras of a look-at ring have the arena's centre at nearly one place."""
    cameras = []
    for camera in random_rig(3):
        R = camera.R
        cameras.append(Camera.from_rt(camera.K, R, -R @ (ARENA - 300 * R[2]), *SIZE))
    rig = rig_of([Camera.from_rt(c.K, c.R, c.t + c.R @ ARENA, *SIZE) for c in cameras])
    pixels = centroids_of(cameras)
    *_, absurd, _ = decide(rig, pixels).evidence
    assert not absurd.possible
    assert "farthest apart would be" in absurd.reason


def test_the_documented_convention_is_ahead_but_not_by_much():
    assert 0.5 < CLEAR_DOCUMENTED < 0.7


@pytest.mark.parametrize("pair", [(0, 1), (1, 4), (2, 5)])
@pytest.mark.parametrize("writer", [write_pickle, write_own, write_mat])
def test_two_exchanged_cameras_are_named(rig_of, writer, pair):
    cameras = random_rig(7)
    first, second = pair
    pixels = centroids_of(cameras)
    pixels[:, [first, second]] = pixels[:, [second, first]]
    message = refused(rig_of(cameras, writer), pixels)
    assert f"With cameras {first} and {second} exchanged the residual is 0." in message
    assert "calibration's order" in message


def test_a_single_wrong_camera_is_named(rig_of):
    cameras = random_rig(7)
    pixels = centroids_of(cameras)
    pixels[:, 2] = np.random.default_rng(0).uniform(0, 1000, (24, 2))
    assert "Without camera 2 the residual is 0." in refused(rig_of(cameras), pixels)


def test_a_calibration_of_another_rig_lists_every_figure_and_what_to_check(rig_of):
    message = refused(rig_of(random_rig(1)), centroids_of(random_rig(2)))
    for name in HYPOTHESES:
        assert f"{name}: " in message
    assert "expected at most 4 % of the picture's diagonal" in message
    assert "another day or rig" in message


@pytest.mark.parametrize("factor", [0.25, 0.5, 2])
def test_focal_lengths_of_another_resolution_are_found_though_the_principal_point_fits(rig_of, factor):
    cameras = random_rig(9)
    rig = rig_of(cameras)
    zoom = np.array([[factor, 1, 1], [1, factor, 1], [1, 1, 1]])
    wrong = replace(rig, cameras=tuple(replace(camera, K=camera.K * zoom) for camera in rig.cameras))
    message = refused(wrong, centroids_of(cameras))
    assert f"With fx and fy times {1 / factor:g} the residual is 0." in message
    assert "another resolution" in message


def test_a_format_that_breaks_its_own_convention_is_told_so(tmp_path):
    cameras = random_rig(4)
    transposed = [Camera.from_rt(c.K, c.R.T, c.t, *SIZE) for c in cameras]
    for kind, writer in FIXED.items():
        (tmp_path / kind).mkdir()
        name = writer(tmp_path / kind, transposed)
        message = refused(read_rig(config_of(tmp_path / kind, name), range(6), SIZES), centroids_of(cameras))
        assert "With x = R' X + T (R transposed) it is 0." in message
        assert "not in the convention of" in message


def test_noise_free_centroids_leave_no_residual_and_agree_with_the_triangulation():
    cameras = random_rig(5)
    K, R, t = (np.stack([getattr(camera, name) for camera in cameras]) for name in ("K", "R", "t"))
    diagonal = np.full(6, np.hypot(*SIZE))
    assert residual_shares(K, R, t, diagonal, centroids_of(cameras, noise_px=0)).max() < 1e-8
    pixels = centroids_of(cameras, noise_px=2)
    shares = residual_shares(K, R, t, diagonal, pixels)
    exact = triangulate_many(pixels, cameras, huber_px=1e9).residual_px.mean(1) / diagonal[0]
    assert shares == pytest.approx(exact, rel=0.05)


def test_points_behind_a_camera_count_as_far_off():
    cameras = random_rig(5)
    K, R, t = (np.stack([getattr(camera, name) for camera in cameras]) for name in ("K", "R", "t"))
    about = np.diag([-1.0, 1, -1])
    shares = residual_shares(K, about @ R, t @ about, np.full(6, np.hypot(*SIZE)), centroids_of(cameras))
    assert shares.min() > 0.5


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_the_unit_of_the_world_changes_no_figure(scale):
    cameras = random_rig(5)
    K, R, t = (np.stack([getattr(camera, name) for camera in cameras]) for name in ("K", "R", "t"))
    diagonal, pixels = np.full(6, np.hypot(*SIZE)), centroids_of(cameras)
    expected = residual_shares(K, R, t, diagonal, pixels)
    np.testing.assert_allclose(residual_shares(K, R, scale * t, diagonal, pixels), expected, rtol=1e-9)


def test_sixteen_cameras_are_decided_at_once(rig_of):
    cameras = random_rig(6, 16)
    rig, pixels = rig_of(cameras), centroids_of(cameras)
    start = time.process_time()
    decide(rig, pixels)
    assert time.process_time() - start < 2


def test_rendered_recording_shows_its_convention_and_any_exchange(shared):
    """Centroids of true masks, whose parts each view sees differently, not of one projected point."""
    import av

    folder = shared / "data" / "mouse_capture"
    pixels = []
    for view in range(6):
        with av.open(
            str(shared / "data/bad_captures/control_valid/simpleclick_undist" / f"{view}.mp4")
        ) as video:
            masks = [frame.to_ndarray(format="gray") > 127 for frame in video.decode(video=0)]
        # A quarter of the size; half-pixel centres scale without an offset.
        pixels.append([4 * (np.argwhere(mask)[:, ::-1].mean(axis=0) + 0.5) for mask in masks])
    pixels = np.stack(pixels, axis=1)
    rig = read_rig(config_of(folder, "new_cam.pkl"), range(6), SIZES)
    calibration = decide(rig, pixels)
    assert calibration.convention == "x = R X + T, K as stored"
    assert calibration.evidence[0].residual_share < 0.012
    assert calibration.evidence[1].residual_share > 0.08
    for first in range(6):
        for second in range(first):
            order = list(range(6))
            order[first], order[second] = second, first
            assert f"With cameras {second} and {first} exchanged" in refused(rig, pixels[:, order])
    for view in (0, 1, 3, 4, 5):  # Camera 2's R is nearly its own transpose: only the visual hull shows it.
        cameras = [replace(c, R=c.R.T) if i == view else c for i, c in enumerate(rig.cameras)]
        message = refused(replace(rig, cameras=tuple(cameras)), pixels)
        assert f"Without camera {view} the residual is 0." in message
