import numpy as np
import pytest

from mouse_facelift.demo.animal import MouseShape
from mouse_facelift.demo.motion import CYCLE_S, poses
from mouse_facelift.demo.mouse import mouse_mesh
from mouse_facelift.demo.rig import ARENA_CENTER_MM, mammal_rig
from mouse_facelift.errors import DataError

SEEDS = range(6)


def vertices(seed: int, times: np.ndarray) -> np.ndarray:
    return np.stack([mouse_mesh(MouseShape(), pose).vertices for pose in poses(seed, times)])


def test_the_same_seed_moves_the_same_whatever_else_is_asked_for() -> None:
    alone = poses(3, [1.25])[0]
    among = poses(3, [7.0, 1.25, 0.2])[1]
    for name in ("pelvis_mm", "headings", "pitches", "tail_headings", "feet_mm"):
        np.testing.assert_allclose(getattr(alone, name), getattr(among, name), atol=1e-12)
    assert not np.allclose(alone.pelvis_mm, poses(4, [1.25])[0].pelvis_mm)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_first_seconds_hold_a_walk_a_turn_and_a_rear(seed) -> None:
    times = np.arange(72) / 30
    path = poses(seed, times)
    pelvis = np.array([pose.pelvis_mm for pose in path])
    walked = np.linalg.norm(np.diff(pelvis[:, :2], axis=0), axis=1).sum()
    assert 90 < walked < 260
    turned = abs(path[-1].headings[1] - path[0].headings[1])
    assert turned > np.radians(60)
    highest = max(mouse_mesh(MouseShape(), pose).vertices[:, 2].max() for pose in path[28:44:4])
    assert 75 < highest < 110


@pytest.mark.parametrize("seed", (0, 5))
def test_motion_is_smooth(seed) -> None:
    times = np.arange(0, 1.2 * CYCLE_S, 1 / 60)
    speed = np.linalg.norm(np.diff(vertices(seed, times), axis=0), axis=2) * 60
    assert speed.max() < 1200, "mm/s, a swinging knee"
    assert speed.mean(axis=1).max() < 400


def test_planted_paws_do_not_slide() -> None:
    times = np.arange(0, 2 * CYCLE_S, 1 / 240)
    path = poses(0, times)
    feet = np.array([pose.feet_mm for pose in path])
    moving = np.array([pose.tuck == 0 for pose in path])[1:]
    assert feet[..., 2].min() == 0 and feet[..., 2].max() < 8
    step = np.linalg.norm(np.diff(feet[..., :2], axis=0), axis=2)
    for paw in range(4):
        planted = step[moving, paw] < 1e-9
        assert planted.mean() > 0.5
        raised = feet[1:, paw, 2][moving] > 0.01
        assert not (planted & raised & (step[moving].max(axis=1) > 0.05)).any()


@pytest.mark.parametrize("seed", SEEDS)
def test_the_mouse_stays_in_the_arena_and_in_all_pictures(seed) -> None:
    shape = vertices(seed, np.arange(0, 12, 0.5))
    off = np.linalg.norm(shape[..., :2] - np.array(ARENA_CENTER_MM[:2]), axis=2)
    assert off.max() < 110
    for camera in mammal_rig():
        pixels, depth = camera.project(shape)
        assert depth.min() > 100
        assert pixels.min() > 0
        assert (pixels.reshape(-1, 2).max(axis=0) < (camera.width, camera.height)).all()


def test_a_time_before_the_start_is_refused() -> None:
    with pytest.raises(DataError, match=r"-0\.5 s"):
        poses(0, [0.0, -0.5])
