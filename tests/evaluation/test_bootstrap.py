"""Means over frames and their intervals."""

import numpy as np
import pytest

from mouse_facelift.evaluation.bootstrap import estimate, paired
from mouse_facelift.evaluation.config import BootstrapConfig
from mouse_facelift.evaluation.scores import Score


def score(sample: str, view_id: int, value: float | None, method: str = "a") -> Score:
    return Score(method, "novel", sample, None, view_id, "novel", "clean", {"iou": value})


def test_a_frame_counts_once_however_many_cameras_it_has() -> None:
    found = estimate([("a", 1.0), ("b", 4.0), ("b", 6.0)], BootstrapConfig())
    assert (found.mean, found.frames, found.values) == (3.0, 2, 3)


def test_one_frame_has_no_interval_and_none_has_no_estimate() -> None:
    found = estimate([("a", 1.0), ("a", 2.0)], BootstrapConfig())
    assert (found.mean, found.low, found.high) == (1.5, None, None)
    assert estimate([], BootstrapConfig()) is None


def test_the_interval_covers_the_mean_as_often_as_promised() -> None:
    generator, config, covered = np.random.default_rng(0), BootstrapConfig(resamples=400, confidence=0.9), 0
    for _ in range(200):
        values = [(str(frame), float(value)) for frame, value in enumerate(generator.normal(size=40))]
        found = estimate(values, config)
        covered += found.low <= 0 <= found.high
    assert 0.82 <= covered / 200 <= 0.95


def test_frames_that_resemble_their_neighbours_need_blocks() -> None:
    # Runs of ten equal frames: single draws take them for independent, blocks do not.
    values = [(str(frame), float(frame // 10 % 2)) for frame in range(100)]
    alone, blocks = (estimate(values, BootstrapConfig(block=block)) for block in (1, 10))
    assert blocks.high - blocks.low > 1.3 * (alone.high - alone.low)


def test_cameras_of_a_frame_add_no_certainty() -> None:
    values = [(str(frame), float(frame % 3)) for frame in range(12)]
    one, six = (
        estimate(values, BootstrapConfig()),
        estimate([v for v in values for _ in range(6)], BootstrapConfig()),
    )
    assert (one.low, one.high) == pytest.approx((six.low, six.high))


def test_the_same_seed_gives_the_same_interval() -> None:
    values = [(str(frame), float(frame)) for frame in range(9)]
    assert estimate(values, BootstrapConfig(seed=3)) == estimate(values, BootstrapConfig(seed=3))
    assert estimate(values, BootstrapConfig(seed=3)) != estimate(values, BootstrapConfig(seed=4))


def test_differences_pair_the_same_camera_of_the_same_frame() -> None:
    ones = [score("x", 0, 0.9), score("x", 1, 0.8), score("y", 0, None)]
    others = [score("x", 1, 0.5), score("x", 0, 0.7), score("y", 0, 0.1), score("z", 0, 0.1)]
    differences = paired(ones, others, lambda row: row.values["iou"])
    assert [frame for frame, _ in differences] == ["x", "x"]
    assert [value for _, value in differences] == pytest.approx([0.2, 0.3])
