import pytest
from hypothesis import given
from hypothesis import strategies as st

from mouse_facelift.samples.split import split_by_time

frames = st.lists(st.integers(0, 2000), min_size=1, max_size=120, unique=True).map(sorted)
shares = st.floats(0.01, 0.9)


@given(frames, shares, st.integers(1, 8), st.integers(0, 100))
def test_every_sample_is_in_exactly_one_part_in_time_order(numbers, share, blocks, guard):
    split = split_by_time(numbers, share, blocks, guard)
    assert sorted([*split.train, *split.val, *split.guard]) == list(range(len(numbers)))
    for part in (split.train, split.val, split.guard):
        assert list(part) == sorted(part)


@given(frames.filter(lambda numbers: len(numbers) >= 4), shares, st.integers(1, 8), st.integers(0, 1000))
def test_four_samples_always_give_both_kinds(numbers, share, blocks, guard):
    split = split_by_time(numbers, share, blocks, guard)
    assert split.train
    assert split.val
    assert len(split.guard) <= len(numbers) / 4


def test_no_training_frame_is_near_a_validation_frame():
    numbers = list(range(0, 18000, 5))
    split = split_by_time(numbers, 0.1, 4, 50)
    val = [numbers[i] for i in split.val]
    assert len(val) == 360
    assert min(abs(numbers[i] - v) for i in split.train for v in (val[0], val[-1])) > 50
    gaps = [min(abs(numbers[i] - v) for v in val) for i in split.train[::37]]
    assert min(gaps) > 50


def test_validation_is_spread_over_time_in_blocks():
    split = split_by_time(range(1000), 0.1, 4, 10)
    starts = [i for i in split.val if i - 1 not in split.val]
    assert starts == [112, 362, 612, 862] or len(starts) == 4
    assert min(starts) < 250
    assert max(starts) > 750


def test_short_recordings_get_fewer_blocks_then_narrower_gaps(caplog):
    split = split_by_time(range(12), 0.1, 4, 20)
    assert len(split.val) == 1
    assert len(split.train) >= 8
    assert "too few" in caplog.text


@pytest.mark.parametrize("count", [1, 2])
def test_tiny_sets(count):
    split = split_by_time(range(count), 0.1, 4, 20)
    assert len(split.train) == 1
    assert len(split.val) == count - 1


def test_no_validation_on_request():
    split = split_by_time(range(50), 0.0, 4, 20)
    assert len(split.train) == 50
    assert not split.val
    assert not split.guard
