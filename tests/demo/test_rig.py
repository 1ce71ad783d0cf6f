import numpy as np
import pytest

from mouse_facelift.demo.rig import ARENA_CENTER_MM, held_out_rig, mammal_rig, random_rig


def test_camera_positions_reproduce_the_constants_recorded_for_the_real_rig() -> None:
    centers = np.array([camera.center for camera in mammal_rig()])
    np.testing.assert_allclose(centers.mean(axis=0), (59.672, 51.517, 107.099), atol=0.1)
    distances = np.linalg.norm(centers, axis=1)
    np.testing.assert_allclose(distances, (246.1, 414.5, 363.7, 340.0, 318.3, 305.7), atol=1e-9)


def test_first_camera_reproduces_the_only_translation_that_is_recorded() -> None:
    camera = mammal_rig()[0]
    np.testing.assert_allclose(camera.t, (10.34, 66.41, 236.70), atol=1.0)
    np.testing.assert_allclose(
        camera.K[[0, 1, 0, 1], [0, 1, 2, 2]], (1632.3, 1639.29, 601.86, 491.72), atol=0.01
    )


@pytest.mark.parametrize("seed", range(40))
def test_random_rigs_see_the_whole_arena_from_all_around(seed: int) -> None:
    cameras = random_rig(seed)
    angles = np.radians(np.arange(0, 360, 30))
    around = np.array([*(45 * np.stack([np.cos(angles), np.sin(angles), 0 * angles], 1)), (0, 0, 60)])
    for camera in cameras:
        pixels, depth = camera.project(ARENA_CENTER_MM + around)
        assert (depth > 150).all()
        assert ((pixels > 0) & (pixels < (camera.width, camera.height))).all()
    azimuths = np.sort(
        [np.degrees(np.arctan2(*(camera.center - ARENA_CENTER_MM)[1::-1])) % 360 for camera in cameras]
    )
    gaps = np.diff([*azimuths, azimuths[0] + 360])
    assert gaps.min() > 25
    assert gaps.max() < 95


def test_random_rigs_differ_by_seed_only() -> None:
    first, again, other = random_rig(3), random_rig(3, 576, 512), random_rig(4)
    np.testing.assert_allclose([c.center for c in first], [c.center for c in again])
    assert np.abs(np.array([c.center for c in first]) - [c.center for c in other]).max() > 50


@pytest.mark.parametrize("rig", [mammal_rig, held_out_rig])
def test_smaller_pictures_see_exactly_the_same(rig) -> None:
    points = np.array(ARENA_CENTER_MM) + np.random.default_rng(0).uniform(-60, 60, (50, 3))
    for full, half in zip(rig(), rig(576, 512), strict=True):
        assert (half.width, half.height) == (576, 512)
        np.testing.assert_allclose(2 * half.project(points)[0], full.project(points)[0], atol=1e-9)


def test_every_camera_sees_the_arena_from_its_own_direction() -> None:
    cameras = mammal_rig() + held_out_rig()
    for camera in cameras:
        pixel, depth = camera.project((58, 54, 20))
        assert depth > 200
        assert (pixel > 0).all() and (pixel < (camera.width, camera.height)).all()
    toward = np.array([camera.center - ARENA_CENTER_MM for camera in cameras])
    toward /= np.linalg.norm(toward, axis=1, keepdims=True)
    cosine = toward @ toward.T - np.eye(len(cameras))
    assert np.degrees(np.arccos(cosine.max())) > 15
