"""Means over frames and their intervals."""

import numpy as np
import pytest

from mouse_facelift.evaluation.bootstrap import alike_neighbours, estimate, paired
from mouse_facelift.evaluation.config import BootstrapConfig
from mouse_facelift.evaluation.scores import Score


def score(sample: str, view_id: int, value: float | None, method: str = "a") -> Score:
    return Score(method, "novel", sample, None, view_id, "novel", "clean", {"iou": value})


def test_a_frame_counts_once_however_many_cameras_it_has() -> None:
    found = estimate([("a", 1.0), ("b", 4.0), ("b", 6.0)], BootstrapConfig())
    assert (found.mean, found.frames, found.values) == (3.0, 2, 3)


def test_few_frames_or_blocks_have_no_interval_and_none_has_no_estimate() -> None:
    found = estimate([("a", 1.0), ("a", 2.0)], BootstrapConfig())
    assert (found.mean, found.low, found.high) == (1.5, None, None)
    frames = [(str(frame), float(frame)) for frame in range(12)]
    assert estimate(frames[:4], BootstrapConfig()).low is None
    assert estimate(frames[:5], BootstrapConfig()).low is not None
    assert estimate(frames, BootstrapConfig(block=3)).low is None
    assert estimate([], BootstrapConfig()) is None


@pytest.mark.parametrize(
    ("frames", "alike", "block"), [(5, 0.0, 1), (12, 0.0, 1), (40, 0.0, 1), (120, 0.6, 12)]
)
def test_the_interval_covers_the_mean_as_often_as_promised(frames: int, alike: float, block: int) -> None:
    # An autoregressive series: neighbours correlate by `alike`.
    generator, covered = np.random.default_rng(0), 0
    config = BootstrapConfig(resamples=300, confidence=0.9, block=block)
    for _ in range(200):
        noise, series = generator.normal(size=frames), np.zeros(frames)
        series[0] = noise[0]
        for index in range(1, frames):
            series[index] = alike * series[index - 1] + np.sqrt(1 - alike**2) * noise[index]
        found = estimate([(str(frame), float(value)) for frame, value in enumerate(series)], config)
        covered += found.low <= 0 <= found.high
    assert 0.84 <= covered / 200 <= 0.96


def test_alike_neighbours_are_noticed_and_chance_is_not() -> None:
    def alike(values: list[float]) -> float | None:
        return alike_neighbours((str(frame), value) for frame, value in enumerate(values))

    slow = [frame / 10 for frame in range(20)]
    assert alike(slow) > 0.5
    assert alike([1.0, 3.0, 1.1, 2.9, 1.0, 3.1, 1.2, 2.8]) is None
    assert alike(list(np.random.default_rng(0).normal(size=20))) is None
    assert alike(slow[:4]) is None
    assert alike([1.0] * 8) is None


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
