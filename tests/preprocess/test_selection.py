from itertools import pairwise

import pytest

from mouse_facelift.errors import ConfigError
from mouse_facelift.preprocess.config import SelectionConfig
from mouse_facelift.preprocess.selection import select_frames


def select(total, **values):
    return select_frames(SelectionConfig(**values), total)


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
