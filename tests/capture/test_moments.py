from hypothesis import given
from hypothesis import strategies as st

from mouse_facelift.capture.moments import APART, spread_moments

keyframes = st.lists(st.integers(0, 3000), unique=True).map(lambda keys: sorted({0, *keys}))


@given(keyframes, st.integers(0, 500), st.integers(0, 3000), st.integers(1, 40), st.integers(0, 6))
def test_moments_are_as_many_as_asked_inside_and_different(keys, first, length, count, room):
    last = first + length
    moments = spread_moments(keys, first, last, count, room)
    assert len(moments) == min(count, length + 1)
    assert sorted(set(moments)) == moments
    assert first <= moments[0] and moments[-1] <= last


def test_moments_lie_at_keyframes_where_there_are_enough():
    keys = range(0, 18000, 250)
    assert set(spread_moments(keys, 0, 17999, 24)) <= set(keys)
    assert set(spread_moments(keys, 5, 17994, 24, room=5)) <= {key + 5 for key in keys}


def test_few_keyframes_are_followed_by_several_moments():
    moments = spread_moments(range(0, 1500, 250), 0, 1499, 24)
    assert {moment % 250 for moment in moments} == {0, APART, 2 * APART, 3 * APART}


def test_single_keyframe_does_not_crowd_the_start():
    moments = spread_moments([0], 0, 999, 5)
    assert moments == [0, 250, 500, 749, 999]


def test_no_room_gives_no_moments():
    assert spread_moments([0], 5, 4, 24, room=5) == []
