import numpy as np
import pytest

from mouse_facelift.capture.jumps import find_jumps, segment_of


def series(steps):
    """Overlaps of an animal that moves by these shares of its length from frame to frame."""
    steps = np.asarray(steps, float)
    return {frame: float(value) for frame, value in enumerate((1 - steps) / (1 + steps), start=1)}


def walking(frames, seed=0):
    """Steps that change slowly, as an animal's speed does, with pixel noise."""
    rng = np.random.default_rng(seed)
    speed = 0.03 + 0.02 * np.sin(np.arange(frames) / 17 + rng.uniform(0, 6))
    return np.clip(speed + rng.normal(0, 0.003, frames), 0, 1)


@pytest.mark.parametrize("seed", range(5))
def test_walking_has_no_jumps_and_glue_is_found_exactly(seed):
    steps = walking(2000, seed)
    assert find_jumps(series(steps)) == []
    steps[[589, 1179, 1769]] = [0.9, 0.4, 1.0]
    assert find_jumps(series(steps)) == [590, 1180, 1770]


def test_dashing_is_fast_but_no_jump():
    steps = walking(500)
    steps[200:212] = [0.06, 0.12, 0.22, 0.34, 0.45, 0.5, 0.48, 0.4, 0.3, 0.2, 0.1, 0.06]
    assert find_jumps(series(steps)) == []


def test_resting_hides_no_jump_and_a_twitch_is_none():
    steps = np.full(500, 0.002)
    steps[100] = 0.1
    steps[300] = 0.6
    assert find_jumps(series(steps)) == [301]


def test_mask_that_fails_in_one_frame_is_no_jump():
    steps = walking(500)
    steps[[250, 251]] = 1.0
    assert find_jumps(series(steps)) == []


def test_noisy_masks_make_no_jumps():
    steps = np.clip(np.abs(np.random.default_rng(1).normal(0.1, 0.08, 3000)), 0, 1)
    assert find_jumps(series(steps)) == []


def test_unwatched_frames_are_not_neighbours():
    steps = walking(300)
    steps[150] = 0.9
    known = series(steps)
    assert find_jumps(known) == [151]
    assert find_jumps({frame: value for frame, value in known.items() if frame > 150}) == []
    assert find_jumps({}) == []


def test_segments_begin_at_jumps():
    assert segment_of([0, 99, 100, 101, 250, 20], [100, 200]) == [0, 0, 1, 1, 2, 0]
    assert segment_of([3, 4], []) == [0, 0]
