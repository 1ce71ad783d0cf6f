from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mouse_facelift.errors import ConfigError
from mouse_facelift.preprocess.config import SelectionConfig
from mouse_facelift.preprocess.selection import candidates, choose_diverse, replacements


def select(total, **values):
    return candidates(SelectionConfig(**values), total)


def test_uniform_takes_equal_steps_in_the_middle():
    frames = select(18000, count=2000, middle_share=0.9)
    assert len(frames) == len(set(frames)) == 2000
    assert frames[0] >= 900
    assert frames[-1] < 17100
    assert {b - a for a, b in pairwise(frames)} == {8, 9}


def test_uniform_takes_all_of_a_short_middle():
    assert select(12, count=2000, middle_share=1.0) == list(range(12))
    assert select(1, count=5) == [0]


def test_interval_of_five_gives_3600_frames():
    frames = select(18000, mode="interval", step=5)
    assert (len(frames), frames[0], frames[-1]) == (3600, 0, 17995)


def test_interval_between_start_and_stop():
    assert select(100, mode="interval", start=3, stop=20, step=5) == [3, 8, 13, 18]
    assert select(10, mode="interval", stop=1000, step=4) == [0, 4, 8]


def test_list_is_sorted_and_without_repetition():
    assert select(100, mode="list", frames=[52, 12, 52, 99]) == [12, 52, 99]


def test_diverse_looks_at_more_frames_than_it_chooses():
    frames = select(18000, mode="diverse", count=100, candidates=7)
    assert len(frames) == 700
    assert frames[0] >= 900
    assert frames[-1] < 17100
    assert select(20, mode="diverse", count=10, middle_share=1.0) == list(range(20))


def test_excluded_frames_are_left_out():
    assert select(10, mode="interval", step=2, exclude=[4, 5]) == [0, 2, 6, 8]


@pytest.mark.parametrize("frames", [[100], [-1, 5]])
def test_list_beyond_the_recording_is_refused(frames):
    with pytest.raises(ConfigError, match="0 to 99"):
        select(100, mode="list", frames=frames)


def test_empty_selection_is_refused():
    with pytest.raises(ConfigError, match="chooses none"):
        select(10, mode="interval", start=10)
    with pytest.raises(ConfigError, match="chooses none"):
        select(10, mode="list")


def radius(points, chosen):
    """Distance of the worst served point from its nearest chosen one."""
    return np.linalg.norm(points[:, None] - points[chosen], axis=-1).min(1).max()


def test_rare_postures_are_chosen():
    rng = np.random.default_rng(0)
    common, rare = rng.normal(0, 0.1, (500, 40)), rng.normal(0, 0.1, (3, 40))
    rare[:, :3] += 10 * np.eye(3)
    points = np.concatenate([common[:250], rare, common[250:]])
    chosen = choose_diverse(points, 10)
    assert {250, 251, 252} <= set(chosen)
    assert chosen == sorted(set(chosen))
    uniform = list(range(0, len(points), 50))
    assert radius(points, chosen) < 0.25 * radius(points, uniform)


def test_the_first_choice_is_the_frame_nearest_to_the_mean():
    points = np.array([[0.0, 0], [10, 0], [5.2, 1], [4, -8]])
    assert choose_diverse(points, 1) == [2]


@given(st.integers(1, 30), st.integers(1, 40), st.sampled_from([2, 80]), st.integers(0, 99))
def test_greedy_choice_is_within_twice_the_best_radius_and_repeatable(total, count, dimensions, seed):
    points = np.random.default_rng(seed).normal(size=(total, dimensions)).astype(np.float32)
    chosen = choose_diverse(points, count)
    assert chosen == choose_diverse(points, count)
    assert len(chosen) == len(set(chosen)) == min(count, total)
    if dimensions == 2 and len(chosen) < total:
        # Among count + 1 points at least r apart, two share a centre: no choice has a radius below r / 2.
        covered = radius(points, chosen)
        apart = np.linalg.norm(points[chosen][:, None] - points[chosen], axis=-1) + 1e9 * np.eye(len(chosen))
        assert apart.min() >= covered - 1e-5


def test_equal_postures_are_still_chosen_only_once_each():
    points = np.repeat(np.random.default_rng(0).normal(size=(3, 90)), 20, axis=0)
    assert len(set(choose_diverse(points, 50))) == 50


def settle(config, chosen, bad, jumps=(), total=1000):
    """Play the caller: survey what is pending until all is settled. The batches, and what was found."""
    good, rounds = {frame: frame not in bad for frame in chosen}, []
    while True:
        state = replacements(config, chosen, good, jumps, total)
        if not state.pending:
            return rounds, dict(state.found)
        assert list(state.pending) == sorted(set(state.pending) - set(good))
        rounds.append(list(state.pending))
        good |= {frame: frame not in bad for frame in state.pending}


def test_failed_frame_is_replaced_by_the_next_good_one():
    rounds, found = settle(SelectionConfig(), [0, 50, 100], {50, 51, 52})
    assert found == {50: 53}
    assert rounds == [[51], [52, 53]]


def test_search_doubles_so_that_a_long_gap_needs_few_rounds():
    rounds, found = settle(SelectionConfig(replace_within=30), [0, 50, 100], set(range(50, 75)))
    assert found == {50: 75}
    assert [len(batch) for batch in rounds] == [1, 2, 4, 8, 15]
    assert len({frame for batch in rounds for frame in batch}) == 30


def test_nothing_is_surveyed_twice_and_good_frames_ask_for_nothing():
    assert settle(SelectionConfig(), [0, 5, 9], set()) == ([], {})


@pytest.mark.parametrize(
    ("values", "bad", "jumps", "expected"),
    [
        ({"replace_within": 3}, set(range(50, 54)), (), None),
        ({"replace_within": 4}, set(range(50, 54)), (), 54),
        ({"replace_within": 0}, {50}, (), None),
        ({}, set(range(50, 60)), (), None),
        ({}, {50, 51}, (52,), None),
        ({}, {50}, (50,), 51),
        ({"exclude": [51, 52]}, {50}, (), 53),
        ({"mode": "list"}, {50}, (), None),
        ({"mode": "interval", "stop": 52}, {50, 51}, (), None),
    ],
    ids=["limit", "at_limit", "off", "next_chosen", "jump", "at_jump", "excluded", "list", "stop"],
)
def test_replacement_stays_within_reach(values, bad, jumps, expected):
    chosen = [40, 50] if "stop" in values else [40, 50, 60]
    _, found = settle(SelectionConfig(**values), chosen, bad, jumps)
    assert found == {50: expected}


def test_a_good_frame_surveyed_earlier_does_not_skip_the_ones_before_it():
    good = {0: True, 50: False, 53: True, 100: True}
    state = replacements(SelectionConfig(), [0, 50, 100], good, (), 200)
    assert state.pending == (51,)


def test_last_frame_is_not_replaced_past_the_end():
    assert settle(SelectionConfig(), [3, 8], {8, 9}, total=10)[1] == {8: None}


@given(
    st.sets(st.integers(0, 199), min_size=1, max_size=30).map(sorted),
    st.sets(st.integers(0, 199), max_size=150),
    st.sets(st.integers(1, 199), max_size=4),
    st.sets(st.integers(0, 199), max_size=20),
    st.integers(0, 40),
)
def test_replacement_is_the_next_good_frame_whatever_fails(chosen, bad, jumps, exclude, within):
    config = SelectionConfig(exclude=sorted(exclude), replace_within=within)
    _, found = settle(config, chosen, bad, jumps, 200)
    assert set(found) == set(chosen) & bad
    for frame, replacement in found.items():
        window = []
        for other in range(frame + 1, min(frame + within, 199) + 1):
            if other in chosen or other in jumps:
                break
            window.append(other)
        fit = [other for other in window if other not in bad | exclude]
        assert replacement == (fit[0] if fit else None)
