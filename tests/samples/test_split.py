import re
from itertools import groupby, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mouse_facelift.errors import ConfigError
from mouse_facelift.samples.split import MAX_GUARD_SHARE, split_samples


def divide(frames, jumps=(), fps=100.0, mode="blocks", val_share=0.1, blocks=4, guard_s=1.0, seed=0):
    segments = [sum(frame >= jump for jump in jumps) for frame in frames]
    return split_samples(list(frames), segments, fps, mode, val_share, blocks, guard_s, seed)


def runs(positions):
    """Stretches of neighbouring positions."""
    return [[at for _, at in group] for _, group in groupby(enumerate(positions), lambda p: p[1] - p[0])]


@st.composite
def recordings(draw, least=1):
    """Frames with gaps, and any number of jumps."""
    frames = draw(st.lists(st.integers(0, 2000), min_size=least, max_size=100, unique=True).map(sorted))
    return frames, sorted(draw(st.sets(st.integers(1, 2000), max_size=6)))


shares, counts, guards = st.floats(0.01, 0.95), st.integers(1, 8), st.floats(0, 15)


@given(recordings(), st.sampled_from(["blocks", "random"]), shares, counts, guards)
def test_every_sample_is_in_exactly_one_part_in_time_order(recording, mode, share, blocks, guard_s):
    frames, jumps = recording
    split = divide(frames, jumps, mode=mode, val_share=share, blocks=blocks, guard_s=guard_s)
    assert sorted([*split.train, *split.val, *split.guard]) == list(range(len(frames)))
    for part in (split.train, split.val, split.guard):
        assert list(part) == sorted(part)
    assert split == divide(frames, jumps, mode=mode, val_share=share, blocks=blocks, guard_s=guard_s)


@given(recordings(least=4), st.sampled_from(["blocks", "random"]), shares, counts, guards)
def test_four_samples_always_give_both_kinds(recording, mode, share, blocks, guard_s):
    split = divide(*recording, mode=mode, val_share=share, blocks=blocks, guard_s=guard_s)
    assert split.train
    assert split.val
    assert len(split.guard) <= MAX_GUARD_SHARE * len(recording[0])
    assert len(split.val) <= max(1, round(share * len(recording[0])))


@given(recordings(least=2), shares, counts, guards)
def test_no_training_frame_of_a_segment_is_within_the_gap_and_nothing_more_is_given_up(
    recording, share, blocks, guard_s
):
    frames, jumps = recording
    split = divide(frames, jumps, val_share=share, blocks=blocks, guard_s=guard_s)
    guard = guard_s * 100
    shrunk = [re.search(r"\((\d+) frames\)\.$", note) for note in split.notes if "too few" in note]
    if shrunk:
        assert int(shrunk[0][1]) < guard
        guard = int(shrunk[0][1])
    segment = [sum(frame >= jump for jump in jumps) for frame in frames]

    def nearest(at):
        return min((abs(frames[at] - frames[v]) for v in split.val if segment[v] == segment[at]), default=1e9)

    assert all(nearest(at) > guard - 1e-6 for at in split.train)
    assert all(nearest(at) <= guard for at in split.guard)


@given(recordings(least=2), shares, st.integers(1, 5))
def test_validation_blocks_never_straddle_a_jump_and_are_as_many_as_asked_at_most(recording, share, blocks):
    frames, jumps = recording
    split = divide(frames, jumps, val_share=share, blocks=blocks, guard_s=0)
    segment = [sum(frame >= jump for jump in jumps) for frame in frames]
    assert len(runs(split.val)) <= blocks
    # A run of neighbours may hold two blocks that meet at a jump, but never more pieces than blocks.
    pieces = sum(len({segment[at] for at in run}) for run in runs(split.val))
    assert pieces <= blocks


def test_no_training_frame_is_near_a_validation_frame():
    numbers = list(range(0, 18000, 5))
    split = divide(numbers, jumps=(5900, 11800, 17700), guard_s=0.5)
    val = [numbers[i] for i in split.val]
    assert len(val) == 360
    gaps = [min(abs(numbers[i] - v) for v in val) for i in split.train]
    assert min(gaps) == 55
    assert not split.notes


def test_validation_is_spread_over_time_in_blocks():
    split = divide(range(1000), guard_s=0.1)
    assert [run[0] for run in runs(split.val)] == [112, 362, 612, 862]


def test_block_moves_out_of_the_way_of_a_jump():
    split = divide(range(1000), jumps=(520,), blocks=1, guard_s=0.1)
    assert len(split.val) == 100
    assert split.val == tuple(range(210, 310))
    assert divide(range(1000), blocks=1, guard_s=0.1).val == tuple(range(450, 550))


def test_a_jump_needs_no_gap():
    split = divide(range(40), jumps=(10, 20, 30), val_share=0.25, blocks=1, guard_s=0.5)
    assert split.val == tuple(range(10))
    assert split.guard == ()
    assert not split.notes


def test_validation_cut_short_by_jumps_is_told():
    split = divide(range(40), jumps=(10, 20, 30), val_share=0.5, blocks=1)
    assert len(split.val) == 10
    assert "10 of 20 wanted" in split.notes[0]


def test_short_recordings_get_fewer_blocks_before_narrower_gaps():
    split = divide(range(600), guard_s=0.5)
    assert [len(run) for run in runs(split.val)] == [60]
    assert len(split.guard) == 100
    assert "blocks: 1 instead of 4" in split.notes[0]


def test_recording_too_short_for_the_gap_shrinks_it_as_little_as_needed_and_says_so():
    split = divide(range(12))
    assert len(split.val) == 1
    assert len(split.guard) == 2
    assert len(split.train) == 9
    assert (
        split.notes[0]
        == "split: 12 samples are too few for a gap of 1 s (100 frames); it is 0.01 s (1 frames)."
    )


@pytest.mark.parametrize("count", [1, 2, 3])
def test_tiny_sets(count):
    split = divide(range(count))
    assert len(split.train) >= 1
    assert len(split.val) == min(1, count - 1)


def test_no_validation_on_request():
    split = divide(range(50), val_share=0.0, fps=0.0)
    assert len(split.train) == 50
    assert not split.val
    assert not split.guard


def test_guard_in_seconds_needs_a_frame_rate():
    with pytest.raises(ConfigError, match=r"input\.fps"):
        divide(range(50), fps=0.0)
    assert divide(range(50), fps=0.0, guard_s=0.0).val
    assert divide(range(50), fps=0.0, mode="random").val


def test_guard_follows_the_frame_rate():
    slow, fast = divide(range(2000), fps=30.0, blocks=1), divide(range(2000), fps=100.0, blocks=1)
    assert (len(slow.guard), len(fast.guard)) == (60, 200)


def test_random_split_is_seeded_and_tells_how_much_it_leaks():
    numbers = range(0, 1000, 8)
    split = divide(numbers, mode="random", seed=3)
    assert split == divide(numbers, mode="random", seed=3)
    assert split.val != divide(numbers, mode="random", seed=4).val
    assert len(split.val) == 12
    assert split.guard == ()
    assert "8 frames (0.08 s) away at the least, 8 frames (0.08 s) in the median" in split.notes[0]
    assert "leak" in split.notes[0]
    assert [b - a for a, b in pairwise(split.val)] != [1] * 11


def test_leakage_is_not_measured_across_a_jump():
    frames = [0, 500, 501, 900]
    note = divide(frames, jumps=(501,), mode="random", val_share=0.25).notes[0]
    assert "500 frames" in note or "399 frames" in note
